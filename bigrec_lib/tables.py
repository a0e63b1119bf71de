"""One look for every table: CSV to compute with, Markdown to read, LaTeX to print."""

import re
from pathlib import Path

import pandas as pd

from bigrec_lib import metrics
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
    """A booktabs table of already formatted cells: special characters escaped, **bold** bold."""
    alignment = "".join("l" if column == 0 else "r" for column in range(frame.shape[1]))
    text = frame.to_latex(index=False, escape=True, column_format=alignment)
    for character, printed in SYMBOLS.items():
        text = text.replace(character, printed)
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", text)


SYMBOLS = {"–": "--", "±": "$\\pm$", "γ": "$\\gamma$", "−": "$-$", "…": "\\dots{}"}


def headline(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row a data set, training size and method; one column a metric and K; mean over seeds.

    metrics: long form with columns dataset, n_train, method, metric, k, value (metrics.csv).
    """
    named = metrics.assign(column=metrics.metric + "@" + metrics.k.astype(str))
    columns = named.sort_values(["metric", "k"]).column.unique()
    keys = ["dataset", "n_train", "method"]
    wide = named.pivot_table(index=keys, columns="column", values="value", sort=False)
    return wide[columns].reset_index()


def overall(ranks: pd.DataFrame, methods: dict[str, list[str]], marks: set[tuple]) -> pd.DataFrame:
    """The main table: a row a data set, amount of training data and method, a column a metric.

    ranks: columns dataset, samples (a name for the amount), seed, method and rank (effective).
    methods: by samples, those that should be there; one that is not, or lacks a seed another one
    has, is named in the column gap. Cells are means over seeds of the mean over examples, ± their
    standard deviation where there are several; the best of a column is bold among its data set
    and samples. marks: (dataset, samples, method) that get a star.
    """
    rows = []
    for (dataset, samples), group in ranks.groupby(["dataset", "samples"], sort=False):
        seeds = set(group.seed)
        best: dict[str, float] = {}
        block = []
        for method in methods[samples]:
            own = group[group.method == method]
            lacking = ", ".join(f"seed {seed}" for seed in sorted(seeds - set(own.seed)))
            gap = "" if not lacking else f"missing: {'all' if own.empty else lacking}"
            cells = {}
            for name, metric in metrics.METRICS.items():
                for k in metrics.KS if len(own) else ():
                    values = own.assign(value=metric(own["rank"], k)).groupby("seed").value.mean()
                    cells[f"{name}@{k}"] = (values.mean(), values.std(), len(values))
                    best[f"{name}@{k}"] = max(best.get(f"{name}@{k}", 0), values.mean())
            star = "*" if (dataset, samples, method) in marks else ""
            block.append(
                ({"dataset": dataset, "samples": samples, "method": method + star}, cells, gap)
            )
        for keys, cells, gap in block:
            printed = {c: spread(*cell, bold=cell[0] == best[c] > 0) for c, cell in cells.items()}
            rows.append(keys | printed | {"gap": gap})
    columns = [f"{name}@{k}" for name in metrics.METRICS for k in metrics.KS]
    return pd.DataFrame(rows, columns=["dataset", "samples", "method", *columns, "gap"])


def spread(mean: float, deviation: float, seeds: int, bold: bool = False) -> str:
    """A mean over seeds as text, with its spread where there is one."""
    text = f"{mean:.4f}" + (f" ± {deviation:.4f}" if seeds > 1 else "")
    return f"**{text}**" if bold else text
