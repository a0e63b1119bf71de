"""One look for every table: CSV to compute with, Markdown to read, LaTeX to print."""

import re
from functools import partial
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from bigrec_lib.files import write_text

ROWS = 30  # of a table that a notebook shows; a longer one is a file


def save(
    frame: pd.DataFrame, folder: Path, name: str, printed: bool = False, digits: int = 4
) -> pd.DataFrame:
    """Write `name`.csv into `folder`, and return the frame for display.

    Numbers get nine digits: further ones of a sum depend on the processor (`steady`).
    printed: a table for a paper, also in Markdown and LaTeX (booktabs), rounded to `digits`.
    """
    frame.columns.name = None
    frame.attrs["file"] = f"{folder.name}/{name}.csv"
    write_text(steady(frame).to_csv(index=False), folder / f"{name}.csv")
    if printed:
        write_text(markdown(frame, digits), folder / f"{name}.md")
        write_text(latex(rounded(frame, digits)), folder / f"{name}.tex")
    return frame


def steady(frame: pd.DataFrame) -> pd.DataFrame:
    """A table with nine digits of each fraction, six in float32.

    >>> steady(pd.DataFrame({"p": [0.1 + 0.2, 1234567890123.0]})).p.tolist()
    [0.3, 1234567890123.0]
    """

    def shorter(value: object, digits: int) -> object:
        fraction = isinstance(value, float) and not value.is_integer()
        return float(f"{value:.{digits}g}") if fraction else value

    return frame.apply(
        lambda column: column.map(partial(shorter, digits=6 if column.dtype == "float32" else 9))
    )


def view(frame: pd.DataFrame, digits: int = 4, caption: str = "") -> Markdown:
    """The table as a notebook shows it: its first ROWS rows, without row numbers.

    A longer one says so, and which file has all of it if it was saved. Of several data sets in a
    column `dataset`, each shows equally many first rows. caption: printed below it.
    """
    note = f"*{caption}*" if caption else ""
    rows = head(frame)
    if len(rows) < len(frame):
        place = f": all of them are in `{frame.attrs['file']}`" if "file" in frame.attrs else ""
        several = "dataset" in frame and frame.dataset.nunique() > 1
        scope = ", the first of each data set" if several else ""
        extent = f"{len(rows)} of {len(frame):,} rows{scope}"
        extent = extent if several else f"The first {extent}"
        note = f"*{extent}{place}.* {note}".strip()
    return Markdown(markdown(rows, digits) + (f"\n{note}\n" if note else ""))


def head(frame: pd.DataFrame) -> pd.DataFrame:
    """At most ROWS rows: the first, or the first of each data set if there is room for one each."""
    if len(frame) <= ROWS or "dataset" not in frame or frame.dataset.nunique() > ROWS:
        return frame.head(ROWS)
    return frame.groupby("dataset", sort=False).head(ROWS // frame.dataset.nunique())


def markdown(frame: pd.DataFrame, digits: int) -> str:
    plain = rounded(frame, digits).map(one_cell)
    return plain.to_markdown(index=False, disable_numparse=True) + "\n"


def one_cell(text: str) -> str:
    """Text that stays in its cell: what an LLM writes may have bars and ends of lines.

    >>> one_cell("a|b\\nc")
    'a\\\\|b ⏎ c'
    """
    return text.replace("|", "\\|").replace("\n", " ⏎ ")


def rounded(frame: pd.DataFrame, digits: int) -> pd.DataFrame:
    return frame.map(lambda value: shown(value, digits))


def shown(value: object, digits: int) -> str:
    """A cell as text: numbers rounded, with commas; a missing value as a dash. Whole numbers beyond
    1 are counts, whatever their type.

    >>> shown(0.00331, 4), shown(6928.25, 4), shown(999_611, 4), shown(8.0, 4), shown(1.0, 4)
    ('0.0033', '6,928', '999,611', '8', '1.0000')
    """
    if isinstance(value, float):
        whole = abs(value) >= 1000 or (abs(value) > 1 and value.is_integer())
        return "–" if value != value else f"{value:,.{0 if whole else digits}f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None or value is pd.NA else str(value)


def latex(frame: pd.DataFrame) -> str:
    """A booktabs table of already formatted cells: special characters escaped, **bold** bold."""
    alignment = "".join("l" if column == 0 else "r" for column in range(frame.shape[1]))
    text = frame.to_latex(index=False, escape=True, column_format=alignment)
    for character, printed in SYMBOLS.items():
        text = text.replace(character, printed)
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", text)


SYMBOLS = {
    "–": "--", "±": "$\\pm$", "γ": "$\\gamma$", "−": "$-$", "…": "\\dots{}", "†": "$^\\dagger$",
    "∘": "$\\circ$",
}  # fmt: skip
