"""Figures of 14, 14a and 14b: recommendation spaces."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from bigrec_lib.findings import plots, rules, spaces
from bigrec_lib.findings.methods import PALETTE, of
from bigrec_lib.method import metrics


def factorial(rows: pd.DataFrame) -> plt.Figure:
    """Relative difference in NDCG@20 to the model and catalogue of one domain, with intervals.

    rows: `spaces.factorial`. A panel a data set, a line a model and prompt, a mark a catalogue.
    """
    points = rows[rows.relative.notna()]
    ends = ("relative", "relative_low", "relative_high")
    return by_catalogue(points, ends, "NDCG@20 / that of its own model and catalogue − 1", 0.0)


def off_domain(rows: pd.DataFrame) -> plt.Figure:
    """Share of the first 20 that are titles of other data sets, with intervals; as `factorial`.

    rows: `spaces.domains_of_lists`.
    """
    ends = ("off_domain", "low", "high")
    return by_catalogue(rows, ends, "share of the first 20 that are of other data sets", None)


def by_catalogue(
    rows: pd.DataFrame, ends: tuple[str, str, str], xlabel: str, zero: float | None
) -> plt.Figure:
    """A value with its interval, a panel a data set, a line a model and prompt, a mark a catalogue.

    ends: columns of the value and its interval. zero: where there is no difference, marked by a
    line; another marks the margin of "no worse".
    """
    usual = rows.prompt == spaces.USUAL
    rows = rows.assign(line=np.where(usual, rows.model, rows.model + "; " + rows.prompt))
    lines, panels = list(dict.fromkeys(rows.line)), list(rows.groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        1, max(len(panels), 1), sharey=True, squeeze=False,
        figsize=(plots.WIDTH * (0.6 + 0.45 * max(len(panels), 1)), 0.36 * len(lines) + 1.4),
    )  # fmt: skip
    place = {line: number for number, line in enumerate(lines)}
    shifts = dict(zip(spaces.CATALOGUES, (-0.24, -0.08, 0.08, 0.24), strict=True))
    for axis, (dataset, group) in zip(axes[0], panels, strict=False):
        for method, shift in shifts.items():
            catalogue = spaces.CATALOGUES[method]
            points = group[group.catalogue == catalogue]
            heights = points.line.map(place).astype(float) + shift
            value, low, high = (points[column] for column in ends)
            look = of(method)
            axis.hlines(heights, low, high, color=look.colour, linewidth=1.2)
            axis.plot(
                value, heights, look.marker, color=look.colour, markersize=5,
                label=catalogue if catalogue in set(rows.catalogue) else None,
            )  # fmt: skip
        if zero is not None:
            axis.axvline(zero, color="0.5", linewidth=1)
            axis.axvline(-rules.SAME, color="0.5", linewidth=1, linestyle=":")
        axis.set(title=dataset, ylim=(len(lines) - 0.4, -0.6))
        axis.set_yticks(range(len(lines)), lines)
    figure.supxlabel(xlabel, fontsize="medium")
    figure.tight_layout()
    names = dict(zip(*axes[0][0].get_legend_handles_labels()[::-1], strict=True))
    location = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    figure.legend(list(names.values()), list(names), title="catalogue", **location)
    return figure


def cosines(pairs: pd.DataFrame) -> plt.Figure:
    """Cosine of two adapters' weight updates over the layers, a panel a module, a line a kind.

    pairs: `spaces.compared_updates`; those of one kind are averaged.
    """
    layers = pairs[pairs.module != ""]
    panels = list(layers.groupby("module", sort=False))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(plots.WIDTH * (0.5 + 0.3 * len(panels)), 2.6), sharey=True,
        squeeze=False,
    )  # fmt: skip
    looks = {
        spaces.SAME_SEED: (PALETTE[0], "o"),
        spaces.OTHER_SEED: (PALETTE[3], "s"),
        spaces.NULL: ("0.5", "^"),
    }
    for axis, (module, group) in zip(axes[0], panels, strict=True):
        for kind, rows in group.groupby("kind", sort=False):
            line = rows.groupby("layer").cosine.mean()
            colour, marker = looks[kind]
            axis.plot(line.index, line, marker, ls="-", ms=3, color=colour, label=kind)
        axis.axhline(0, color="0.6", linewidth=0.8)
        axis.set(title=module, xlabel="layer")
    axes[0][0].set_ylabel("cosine")
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    return figure


def places(ranks: dict[str, pd.DataFrame]) -> plt.Figure:
    """Share of the targets that stand among the first K, over K.

    ranks: method -> columns rank and ties, a row an example.
    """
    figure, axis = plt.subplots(figsize=(plots.WIDTH * 0.8, 3.0))
    for method, frame in ranks.items():
        rank = np.sort(metrics.effective_rank(frame)) + 1
        share = np.arange(1, len(rank) + 1) / len(rank)
        look = of(method)
        axis.step(rank, share, where="post", color=look.colour, label=spaces.CATALOGUES[method])
    axis.set(xscale="log", xlabel="K", ylabel="share of targets", ylim=(0, 1.02))
    axis.legend(title="catalogue")
    figure.tight_layout()
    return figure
