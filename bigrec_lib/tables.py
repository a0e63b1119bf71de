"""One look for every table: CSV to compute with, Markdown to read, LaTeX to print."""

from pathlib import Path

import pandas as pd

from bigrec_lib.files import write_text


def save(frame: pd.DataFrame, folder: Path, name: str, digits: int = 4) -> pd.DataFrame:
    """Write `name`.csv, .md and .tex into `folder` and return the frame for display.

    The CSV keeps full precision; Markdown and LaTeX (booktabs) round floats to `digits`.
    """
    frame.columns.name = None
    rounded = frame.map(lambda value: shown(value, digits))
    write_text(frame.to_csv(index=False), folder / f"{name}.csv")
    write_text(
        rounded.to_markdown(index=False, disable_numparse=True) + "\n", folder / f"{name}.md"
    )
    write_text(latex(rounded), folder / f"{name}.tex")
    return frame


def shown(value: object, digits: int) -> str:
    """A cell as text: floats rounded, a missing value as a dash."""
    if isinstance(value, float):
        return "–" if value != value else f"{value:.{digits}f}"
    return "–" if value is None else str(value)


def latex(frame: pd.DataFrame) -> str:
    """A booktabs table of already formatted cells, its special characters escaped."""
    alignment = "".join("l" if column == 0 else "r" for column in range(frame.shape[1]))
    return frame.to_latex(index=False, escape=True, column_format=alignment).replace("–", "--")


def headline(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row a data set, training size and method; one column a metric and K; mean over seeds.

    metrics: long form with columns dataset, n_train, method, metric, k, value (metrics.csv).
    """
    named = metrics.assign(column=metrics.metric + "@" + metrics.k.astype(str))
    columns = named.sort_values(["metric", "k"]).column.unique()
    keys = ["dataset", "n_train", "method"]
    wide = named.pivot_table(index=keys, columns="column", values="value", sort=False)
    return wide[columns].reset_index()
