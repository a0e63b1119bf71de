"""Figures of 13a and 13, in the look of `plots`."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from bigrec_lib.findings import alts, plots
from bigrec_lib.findings.choices import ENDPOINTS, LABELS, RANDOM
from bigrec_lib.findings.methods import PALETTE, Colour

FAMILIES = {
    "one_a_user": 7, "by_popularity": 1, "by_history": 1, "by_recency": 1, "newest": 7,
    "k_centre": 2, "k_means": 2, "herding": 2, "optimal_transport": 8, "loss": 3, "el2n": 4,
    "grand": 5, "dealrec": 0,
}  # fmt: skip
"""What an arm's name begins with -> its colour in PALETTE."""

MARKERS = {
    "one_a_user": "v", "newest": ">", "by_popularity": "s", "by_history": "D", "by_recency": "p",
    "k_centre": "s", "k_means": "D", "herding": "p", "optimal_transport": "*", "top": "^",
    "middle": "D", "bottom": "v", "dealrec": "o", "influence": "s", "effort": "D", "random": "X",
}  # fmt: skip
"""An arm's name or its last word -> its marker."""


def look(arm: str) -> tuple[Colour, str]:
    """The colour and the marker of an arm."""
    if arm == RANDOM:
        return (0.4, 0.4, 0.4), "o"
    family = next(name for name in FAMILIES if arm.startswith(name))
    return PALETTE[FAMILIES[family]], MARKERS.get(arm) or MARKERS[arm.rpartition("_")[2]]


def quality(table: pd.DataFrame, bands: pd.DataFrame) -> plt.Figure:
    """Each endpoint over the seconds of choosing and tuning, a row a data set.

    table: `choices.table`; bands: `choices.bands`. A budget's markers are filled or hollow; its
    band is where single random draws lie. Bars are 95 % intervals of the difference to random
    samples, about the arm's mean.
    """
    datasets, budgets = list(table.dataset.unique()), sorted(table.budget.unique())
    figure, axes = plt.subplots(
        len(datasets), len(ENDPOINTS), squeeze=False,
        figsize=(plots.WIDTH * 1.6, 0.6 + 3.2 * len(datasets)),
    )  # fmt: skip
    shades = np.linspace(0.75, 0.88, len(budgets))
    for panels, dataset in zip(axes, datasets, strict=True):
        for axis, (metric, name) in zip(panels, ENDPOINTS.items(), strict=True):
            points = table[(table.dataset == dataset) & table[metric].notna()]
            for shade, budget in zip(shades, budgets, strict=True):
                draws = bands[(bands.dataset == dataset) & (bands.metric == metric)]
                for row in draws[draws.budget == budget].itertuples():
                    draw_band(axis, row, str(shade))
            for row in points.itertuples():
                draw_arm(axis, row, metric, filled=row.budget == budgets[-1])
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:,g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.margins(x=0.15)
            axis.set(title=dataset, xlabel="seconds of choosing and tuning", ylabel=name)
    figure.tight_layout()
    arms = [arm for arm in LABELS if arm in set(table.arm)]
    handles = [
        Line2D([], [], color=look(arm)[0], marker=look(arm)[1], linestyle="", label=LABELS[arm])
        for arm in arms
    ]
    sizes = f"filled: {budgets[-1]:,} samples" + (
        f"; hollow: {', '.join(f'{budget:,}' for budget in budgets[:-1])}" if budgets[1:] else ""
    )
    figure.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", title=sizes,
        title_fontsize="small",
    )  # fmt: skip
    return figure


def draw_band(axis: plt.Axes, band, shade: str) -> None:
    """Where single random draws of one budget lie, with their mean."""
    axis.axhspan(band.low, band.high, color=shade, alpha=0.6, linewidth=0)
    axis.axhline(band.mean, color="0.45", linewidth=0.8, linestyle="--")
    axis.text(
        1.01, band.mean, f"{alts.counted(band.draws, 'draw')}\nof {band.budget:,}", va="center",
        fontsize="x-small", color="0.3", transform=axis.get_yaxis_transform(),
    )  # fmt: skip


def draw_arm(axis: plt.Axes, row, metric: str, filled: bool) -> None:
    """One arm and budget; a bar for all but random."""
    colour, marker = look(row.arm)
    value, gain = getattr(row, metric), getattr(row, f"{metric}_difference")
    if gain == gain:
        low, high = getattr(row, f"{metric}_low"), getattr(row, f"{metric}_high")
        axis.vlines(row.total, value - gain + low, value - gain + high, color=colour, linewidth=1)
    axis.plot(
        row.total, value, marker, color=colour, markersize=7,
        markerfacecolor=colour if filled else "white",
    )  # fmt: skip


def overlap(rows: pd.DataFrame) -> plt.Figure:
    """Jaccard overlap of what arms choose, a panel a data set and budget.

    rows: `chosen.overlaps`.
    """
    panels = list(rows.groupby(["dataset", "budget"], sort=False))
    names = [arm for arm in LABELS if arm in set(rows.arm)]
    side = 0.32 * len(names) + 0.9
    figure, axes = plt.subplots(
        1, len(panels), squeeze=False, sharey=True, figsize=(1.6 + side * len(panels), 1.2 + side)
    )
    for axis, ((dataset, budget), group) in zip(axes[0], panels, strict=True):
        matrix = group.pivot(index="arm", columns="against", values="jaccard")
        matrix = matrix.reindex(index=names, columns=names).to_numpy()
        axis.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
        for (y, x), value in np.ndenumerate(matrix):
            text = "" if value != value else f"{value:.2f}".removeprefix("0")
            axis.text(
                x, y, text, ha="center", va="center", fontsize="x-small",
                color="white" if value > 0.6 else "0.2",
            )  # fmt: skip
        axis.grid(False)
        axis.set_xticks(range(len(names)), [LABELS[arm] for arm in names], rotation=90)
        axis.set_yticks(range(len(names)), [LABELS[arm] for arm in names])
        axis.set_title(f"{dataset}, {budget:,}")
    figure.tight_layout()
    return figure
