"""Figures of 16_embedding_alignment, in the look of `plots`."""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from bigrec_lib.findings import plots
from bigrec_lib.findings.figures import beside
from bigrec_lib.findings.methods import PALETTE, label
from bigrec_lib.method import geometry, variants

IN_A_ROW = 4  # panels
PAGE = 9.0  # inches, the width of a page of the site: text is shown in its true size


def ladder(rows: pd.DataFrame) -> plt.Figure:
    """Median rank of the true title by rung, a panel a method, a mark a data set.

    rows: columns dataset, method, rung, median. Rungs have no order, so no line joins them.
    """
    methods = list(dict.fromkeys(rows.method))
    figure, axes = plt.subplots(
        1, len(methods), figsize=(plots.WIDTH * (0.5 + 0.55 * len(methods)), 3.6),
        sharey=True, squeeze=False,
    )  # fmt: skip
    places = {rung: number for number, rung in enumerate(geometry.RUNGS)}
    for axis, method in zip(axes[0], methods, strict=True):
        group = rows[rows.method == method]
        for (dataset, line), colour, marker in zip(
            group.groupby("dataset", sort=False), cycle(PALETTE), cycle("osD^vPX*pH"), strict=False
        ):
            axis.plot(
                line.rung.map(places), line["median"] + 1, color=colour, marker=marker,
                markersize=5, linestyle="", label=dataset,
            )  # fmt: skip
        axis.set_xticks(range(len(places)), list(places), rotation=40, ha="right")
        axis.set(title=label(method), yscale="log")
    axes[0, 0].set_ylabel("median place of the title")
    axes[0, 0].legend(frameon=False)
    figure.tight_layout()
    return figure


def outcomes(rows: pd.DataFrame) -> plt.Figure:
    """Share of each outcome with its interval, a group of bars an outcome, a bar a data set.

    rows: columns dataset, outcome, share, low, high.
    """
    datasets = list(dict.fromkeys(rows.dataset))
    figure, axis = plt.subplots(figsize=(plots.WIDTH, 3))
    width = 0.8 / max(len(datasets), 1)
    for number, dataset in enumerate(datasets):
        group = rows[rows.dataset == dataset].set_index("outcome").reindex(variants.OUTCOMES)
        positions = np.arange(len(group)) + (number - (len(datasets) - 1) / 2) * width
        colour = PALETTE[number % len(PALETTE)]
        axis.bar(positions, group.share, 0.9 * width, color=colour, label=dataset)
        axis.vlines(positions, group.low, group.high, color="0.1", linewidth=1.2)
    axis.set_xticks(range(len(variants.OUTCOMES)), variants.OUTCOMES)
    axis.set(ylabel="share of test examples", ylim=(0, None))
    figure.tight_layout()
    beside(figure, *axis.get_legend_handles_labels())
    return figure


def predicting(points: pd.DataFrame, rho: pd.DataFrame) -> plt.Figure:
    """NDCG@20 of every space over each measure of its geometry, a panel a measure and data set.

    Rows have few panels, so that their text can be read at the width of a page.
    points: columns dataset, space, test, and one a measure; rho: columns dataset, what, rho.
    """
    datasets = list(dict.fromkeys(points.dataset))
    rows = -(-len(geometry.MEASURES) // IN_A_ROW)
    figure, axes = plt.subplots(
        rows * len(datasets), IN_A_ROW, squeeze=False,
        figsize=(PAGE, 2.0 * rows * len(datasets) + 0.4),
    )  # fmt: skip
    axes = axes.reshape(len(datasets), rows * IN_A_ROW)
    correlation = rho.set_index(["dataset", "what"]).rho
    for row, dataset in zip(axes, datasets, strict=True):
        group = points[points.dataset == dataset]
        cosine = group.space.str.contains(f" / {variants.COSINE} / ").to_numpy()
        published = (group.space == variants.PUBLISHED.name).to_numpy()
        for axis in row[len(geometry.MEASURES) :]:
            axis.remove()
        for axis, measure in zip(row, geometry.MEASURES, strict=False):
            for mask, marker in ((~cosine, "o"), (cosine, "^")):
                axis.scatter(
                    group[measure][mask], group.test[mask], s=14, marker=marker, alpha=0.7,
                    color=PALETTE[0] if marker == "o" else PALETTE[1],
                )  # fmt: skip
            axis.scatter(
                group[measure][published],
                group.test[published],
                s=60,
                facecolor="none",
                edgecolor="0.1",
            )
            axis.set_title(f"ρ = {round(correlation[dataset, measure], 2) + 0.0:.2f}", size="small")
            axis.xaxis.set_major_locator(MaxNLocator(2))
            axis.set_xlabel(measure)
        for axis in row[: len(geometry.MEASURES)]:
            axis.sharey(row[0])
        for axis in row[: len(geometry.MEASURES) : IN_A_ROW]:
            axis.set_ylabel(f"{dataset}\nNDCG@20")
    figure.tight_layout()
    return figure
