"""Figures of the analyses, 07 and on, in the look of `plots`."""

from textwrap import wrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from bigrec_lib.findings import plots
from bigrec_lib.findings.methods import MAIN, PALETTE, colour_of, label, of
from bigrec_lib.findings.training_sizes import EPOCHS, STEPS

# 07_overall_performance


def overall(levels: pd.DataFrame) -> plt.Figure:
    """NDCG@20 of every method with its 95 % interval, a panel a data set.

    levels: columns dataset, samples ('few' or 'all'), method, value, low, high.
    """
    names = set(levels.method)
    methods = [method for method in MAIN if method in names]
    place = {method: y for y, method in enumerate(methods)}
    panels = list(levels.groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(plots.WIDTH * (0.6 + 0.45 * len(panels)), 0.27 * len(methods) + 1),
        sharey=True, squeeze=False,
    )  # fmt: skip
    for axis, (dataset, group) in zip(axes[0], panels, strict=True):
        for samples, shift in (("few", -0.13), ("all", 0.13)):
            points = group[group.samples == samples]
            heights = np.array([place[method] for method in points.method]) + shift
            colours = [PALETTE[0] if "bigrec" in m else "0.45" for m in points.method]
            axis.hlines(heights, points.low, points.high, color=colours, linewidth=1.2)
            axis.scatter(
                points.value, heights, s=28, zorder=3, edgecolor=colours,
                facecolor=colours if samples == "few" else "white",
            )  # fmt: skip
        axis.set(title=dataset, xlabel="NDCG@20", ylim=(len(methods) - 0.4, -0.6), xlim=(0, None))
        axis.set_yticks(range(len(methods)), [label(method) for method in methods])
        axis.xaxis.set_major_locator(MaxNLocator(4))
    figure.tight_layout()
    return figure


def forest(rows: pd.DataFrame, xlabel: str) -> plt.Figure:
    """Differences with their 95 % intervals, a panel for each `panel`, a line for each `name`.

    rows: columns panel, name, difference, low, high; NaN is marked as missing on its line.
    """
    panels, names = list(dict.fromkeys(rows.panel)), list(dict.fromkeys(rows.name))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(plots.WIDTH * (0.7 + 0.45 * len(panels)), 0.3 * len(names) + 1.1),
        sharey=True, squeeze=False,
    )  # fmt: skip
    for axis, panel in zip(axes[0], panels, strict=True):
        group = rows[rows.panel == panel].set_index("name").reindex(names)
        present = group.difference.notna().to_numpy()
        heights = np.arange(len(names))
        significant = (group.low > 0) | (group.high < 0)
        axis.hlines(
            heights[present], group.low[present], group.high[present], color="0.25", linewidth=1.2
        )
        axis.scatter(
            group.difference[present], heights[present], s=28, zorder=3, edgecolor="0.1",
            facecolor=[PALETTE[0] if filled else "white" for filled in significant[present]],
        )  # fmt: skip
        axis.axvline(0, color="0.5", linewidth=1, linestyle="--")
        for y in heights[~present]:
            axis.text(0, y, " missing", va="center", fontsize="small", color="0.4")
        axis.set(title=panel, ylim=(len(names) - 0.4, -0.6))
        axis.set_yticks(heights, names)
        axis.xaxis.set_major_locator(MaxNLocator(4))
    figure.supxlabel(xlabel, fontsize="medium")
    figure.tight_layout()
    return figure


# 08_training_size


def training_sizes(points: pd.DataFrame) -> plt.Figure:
    """NDCG@20 over training sizes, a panel a data set, names at the ends of the lines.

    points: `analyses.points`; BIGRec's line is dashed where it has as many epochs at every size.
    """
    panels = list(points.groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(plots.WIDTH * 1.1, 2.9 * len(panels)), squeeze=False
    )
    for axis, (dataset, group) in zip(axes[:, 0], panels, strict=True):
        ends = []
        both = {STEPS, EPOCHS} <= set(group.budget)
        for (method, budget), curve in group.groupby(["method", "budget"], sort=False):
            colour, dashed = colour_of(method), both and budget == EPOCHS
            axis.plot(
                curve.n_train, curve.value, color=colour, marker=of(method).marker,
                markersize=4, linewidth=2.2 if method == "bigrec" and not dashed else 1,
                linestyle="--" if dashed else "-",
            )  # fmt: skip
            if dashed:
                continue
            axis.fill_between(curve.n_train, curve.low, curve.high, color=colour, alpha=0.2)
            ends.append((curve.value.iloc[-1], method, colour))
        axis.set_xscale("log", base=2)
        sizes = sorted(group.n_train.unique())
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axis.minorticks_off()
        axis.set(title=dataset, xlabel="training samples", ylabel="NDCG@20", ylim=(0, None))
        for (_, method, colour), y in zip(sorted(ends), apart(axis, sorted(ends)), strict=True):
            transform = axis.get_yaxis_transform()
            axis.plot(
                1.03, y, of(method).marker, color=colour, markersize=4, transform=transform,
                clip_on=False,
            )  # fmt: skip
            axis.text(1.05, y, label(method), fontsize="small", va="center", transform=transform)
    figure.tight_layout()
    return figure


def apart(axis: plt.Axes, ends: list[tuple]) -> list[float]:
    """Heights of the labels at `ends` (sorted by height), moved up until none covers another."""
    step = (axis.get_ylim()[1] - axis.get_ylim()[0]) * 0.08
    placed: list[float] = []
    for height, *_ in ends:
        placed.append(max(height, placed[-1] + step) if placed else height)
    return placed


# 09_statistical_information


def group_shares(shares: pd.DataFrame) -> plt.Figure:
    """Share of the recommendations that the most popular fifth of the titles has, by method.

    shares: `analyses.group_differences` of one size; a panel a data set, a line a method. Filled:
    the first 20, hollow: the first. The dashed line is that group's share of the histories, the
    dotted one its share in a random order.
    """
    top = shares[(shares.group == 4) & shares.k.isin((1, 20))]
    methods = [method for method in MAIN if method in set(top.method)]
    panels = list(top.groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(plots.WIDTH * (0.6 + 0.45 * len(panels)), 0.27 * len(methods) + 1),
        sharey=True, squeeze=False,
    )  # fmt: skip
    for axis, (dataset, group) in zip(axes[0], panels, strict=True):
        for k, shift in ((20, -0.13), (1, 0.13)):
            points = group[group.k == k].set_index("method").reindex(methods)
            colours = [PALETTE[0] if "bigrec" in method else "0.45" for method in methods]
            axis.scatter(
                points.share, np.arange(len(methods)) + shift, s=28, zorder=3, edgecolor=colours,
                facecolor=colours if k == 20 else "white", label=f"first {k}",
            )  # fmt: skip
        history_share = (group.share - group.difference).iloc[0]
        axis.axvline(history_share, color="0.3", linewidth=1.2, linestyle="--", label="histories")
        axis.axvline(0.2, color="0.3", linewidth=1.2, linestyle=":", label="random order")
        axis.set(title=dataset, xlim=(-0.03, 1.03), ylim=(len(methods) - 0.4, -0.6))
        axis.set(xlabel="share of the most popular fifth")
        axis.set_yticks(range(len(methods)), [label(method) for method in methods])
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.tight_layout()
    figure.legend(handles, names, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=4)
    return figure


def injection(curves: pd.DataFrame) -> plt.Figure:
    """NDCG@20 over γ of the popularity weights: a panel a data set, a thin line a seed.

    curves: columns dataset, seed, split, gamma, value; the thick line is the mean over seeds.
    """
    panels = list(curves.groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(plots.WIDTH * (0.5 + 0.45 * len(panels)), 3.0), squeeze=False
    )
    looks = {
        "valid": (PALETTE[1], "--", "validation"),
        "test": (PALETTE[0], "-", "test"),
    }
    for axis, (dataset, group) in zip(axes[0], panels, strict=True):
        for split, (colour, dash, name) in looks.items():
            runs = group[group.split == split].pivot(index="gamma", columns="seed", values="value")
            axis.plot(runs.index, runs, color=colour, linestyle=dash, linewidth=0.7)
            axis.plot(
                runs.index, runs.mean(axis=1), color=colour, linestyle=dash, linewidth=2, label=name
            )
        plots.gamma_axis(axis)
        axis.set(title=dataset, ylabel="NDCG@20", ylim=(0, None))
    axes[0][0].legend()
    figure.tight_layout()
    return figure


# 10_cross_domain


def origins(points: pd.DataFrame) -> plt.Figure:
    """NDCG@20 on each data set (a panel) by what the LLM was tuned on, with 95 % intervals.

    points: columns dataset, origin, value, low, high.
    """
    panels = list(points.groupby("dataset", sort=False))
    sizes = [len(group) for _, group in panels]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(plots.WIDTH, 0.28 * sum(sizes) + 0.6 * len(panels) + 0.4),
        sharex=True, squeeze=False, height_ratios=sizes,
    )  # fmt: skip
    for axis, (dataset, group) in zip(axes[:, 0], panels, strict=True):
        axis.errorbar(
            group.value, group.origin, xerr=[group.value - group.low, group.high - group.value],
            fmt="o", capsize=3, color=colour_of("bigrec"),
        )  # fmt: skip
        axis.set_title(f"tested on {dataset}", loc="left")
        axis.set_ylim(len(group) - 0.5, -0.5)
    axes[-1][0].set(xlabel="NDCG@20", xlim=(0, None))
    figure.tight_layout()
    return figure


# 12_llm_size


def llm_sizes(
    rows: pd.DataFrame, trends: pd.DataFrame, randoms: dict[str, float], published: pd.DataFrame
) -> plt.Figure:
    """NDCG@20 over the parameters of the LLM, a panel a data set, with 95 % intervals.

    rows: `sizes.table`; trends: `sizes.trends`, drawn up to the paper's LLM, dotted beyond the
    largest one measured; randoms: data set -> NDCG@20 of a random order; published: columns
    dataset, parameters, published, source.
    """
    panels = list(rows[rows.parameters.notna()].groupby("dataset", sort=False))
    figure, axes = plt.subplots(
        1, max(len(panels), 1), figsize=(plots.WIDTH * (0.5 + 0.55 * len(panels)), 3.6),
        squeeze=False,
    )  # fmt: skip
    looks = {True: (PALETTE[0], "tuned"), False: (PALETTE[1], "as it is")}
    for axis, (dataset, group) in zip(axes[0], panels, strict=False):
        for tuned, points in group.groupby("tuned"):
            colour, name = looks[bool(tuned)]
            axis.errorbar(
                points.parameters, points.ndcg,
                yerr=[points.ndcg - points.low, points.high - points.ndcg], fmt="o",
                capsize=3, color=colour, markerfacecolor=colour if tuned else "white", label=name,
            )  # fmt: skip
        for trend in trends[trends.dataset == dataset].itertuples():
            draw_trend(axis, trend, group.parameters.max(), looks[bool(trend.tuned)][0])
        marks = published[published.dataset == dataset]
        for source, points in marks.groupby("source", sort=False):
            axis.plot(points.parameters, points.published, "x", color="0.35", label=source)
        if dataset in randoms:
            axis.axhline(randoms[dataset], color="0.5", linestyle="--", linewidth=1, label="random")
        axis.set(title=dataset, xlabel="parameters of the LLM", ylabel="NDCG@20", ylim=(0, None))
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
        ticks = sorted({*group.parameters, *trends.far_at[trends.dataset == dataset]})
        axis.set_xticks(ticks, [f"{tick / 1e6:,.0f} M" for tick in ticks])
    handles = {
        name: handle
        for axis in axes[0]
        for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.tight_layout()
    figure.legend(
        handles.values(), handles.keys(), loc="upper left", bbox_to_anchor=(0.05, 0),
        fontsize="small",
    )  # fmt: skip
    return figure


def draw_trend(axis: plt.Axes, trend, largest: float, colour) -> None:
    """A row of `sizes.trends`: the line, its continuation, and the interval at its end."""
    x = np.array([trend.smallest, largest, trend.far_at])
    y = trend.start + trend.slope * np.log10(x / trend.smallest)
    axis.plot(x[:2], y[:2], color=colour, linewidth=1)
    axis.plot(x[1:], y[1:], color=colour, linewidth=1, linestyle=":")
    axis.vlines(x[2], trend.far_low, trend.far_high, color=colour, linestyle=":", linewidth=2)


# 15a, 15_cheaper_grounding


def cheaper(rows: pd.DataFrame) -> plt.Figure:
    """NDCG@20 that each way loses, over the seconds of its request: of grounding alone, and of all.

    rows: columns dataset, method, difference, low, high; grounding and request (seconds), the
    latter as far as it was timed. A row of panels a data set.
    """
    panels = list(rows.groupby("dataset", sort=False))
    costs = {"grounding": "grounding alone", "request": "with writing the text"}
    if "request" not in rows or rows.request.isna().all():
        del costs["request"]
    figure, axes = plt.subplots(
        len(panels), len(costs), sharex=True, sharey="row", squeeze=False,
        figsize=(plots.WIDTH * (0.5 + 0.5 * len(costs)), 0.6 + 3.2 * len(panels)),
    )  # fmt: skip
    for line, (dataset, group) in zip(axes, panels, strict=True):
        for axis, (name, words) in zip(line, costs.items(), strict=True):
            lost_over(axis, group, group[name])
            axis.set(title=f"{dataset}: {words}")
        line[0].set(ylabel="difference in NDCG@20\nto the exact way")
    for axis in axes[-1]:
        axis.set(xlabel="seconds of a request")
    figure.tight_layout()
    beside(figure, *axes[0, 0].get_legend_handles_labels())
    return figure


def beside(figure: plt.Figure, handles: list, labels: list[str]) -> None:
    """A legend to the right of all panels, each label once."""
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        unique.values(), unique, loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small"
    )


def lost_over(axis: plt.Axes, rows: pd.DataFrame, seconds: pd.Series) -> None:
    """A point with its interval for each way. rows: as in `cheaper`; seconds: of each."""
    for row, x in zip(rows.itertuples(), seconds, strict=True):
        look = {"marker": of(row.method).marker, "color": colour_of(row.method)}
        axis.vlines(x, row.low, row.high, color=look["color"], linewidth=0.8)
        axis.plot(x, row.difference, markersize=7, alpha=0.8, label=label(row.method), **look)
    axis.axhline(0, color="0.5", linewidth=1, linestyle="--")
    axis.set_xscale("log")


def growing(rows: pd.DataFrame) -> plt.Figure:
    """Seconds of a search, and its recall, over the size of the catalogue, a line a way.

    rows: columns items, method, p50, recall.
    """
    figure, axes = plt.subplots(1, 2, figsize=(plots.WIDTH * 1.4, 3.2))
    for method, line in rows[rows.p50.notna()].groupby("method", sort=False):
        look = {"marker": of(method).marker, "color": colour_of(method), "label": label(method)}
        axes[0].plot(line["items"], line.p50, **look)
        axes[1].plot(line["items"], line.recall, **look)
    for axis in axes:
        axis.set_xscale("log")
        axis.set(xlabel="titles")
    axes[0].set_yscale("log")
    axes[0].set(ylabel="seconds of a search (median)")
    axes[1].set(ylabel="recall of the first 20", ylim=(0, 1.05))
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    figure.tight_layout()
    return figure


# 18_domains


def domains(points: pd.DataFrame, bins: pd.DataFrame, traits: dict[str, str]) -> plt.Figure:
    """BIGRec − its rival over traits, a row each: a data set is a point (left) and a line (right).

    points: columns dataset, difference, low, high and the traits; bins: columns dataset, trait, at,
    difference, low, high. traits: those to draw -> the label of each.
    """
    size = (plots.WIDTH * 1.3, 0.4 + 2.5 * len(traits))
    figure, axes = plt.subplots(len(traits), 2, figsize=size, squeeze=False)
    for (left, right), (trait, words) in zip(axes, traits.items(), strict=True):
        for place, row in enumerate(points.itertuples()):
            colour = PALETTE[place % len(PALETTE)]
            look = {"color": colour, "marker": "osD^vP"[place % 6], "label": row.dataset}
            x = getattr(row, trait)
            left.vlines(x, row.low, row.high, color=colour)
            left.plot(x, row.difference, linestyle="", **look)
            line = bins[(bins.dataset == row.dataset) & (bins.trait == trait)]
            right.plot(line["at"], line.difference, **look)
            right.vlines(line["at"], line.low, line.high, color=colour, linewidth=0.8)
        for axis in (left, right):
            axis.axhline(0, color="0.5", linewidth=1, linestyle="--")
            axis.set(xlabel="\n".join(wrap(words, 34)))
        left.set(ylabel="difference in NDCG@20")
    axes[0, 0].set(title="data sets")
    axes[0, 1].set(title="bins of examples")
    figure.tight_layout()
    beside(figure, *axes[0, 0].get_legend_handles_labels())
    return figure


# 17_cost


def cost(rows: pd.DataFrame) -> plt.Figure:
    """NDCG@20 over seconds of training, and over seconds of 1,000 requests: a row a data set.

    rows: columns dataset, samples, method, lm, ndcg, low, high, seconds, p50, p95. Bars are
    the interval of NDCG@20, and from the median request to p95. Hollow, as the legend says:
    trained on all samples. The line is the front: nothing to its left is above it.
    """
    panels = list(rows.groupby("dataset", sort=False))
    size = (plots.WIDTH * 1.5, 0.6 + 3.4 * len(panels))
    figure, axes = plt.subplots(len(panels), 2, figsize=size, sharey="row", squeeze=False)
    for (left, right), (dataset, group) in zip(axes, panels, strict=True):
        for axis, xs, ends in ((left, group.seconds, group.seconds), (right, group.p50, group.p95)):
            scale = 1000 if axis is right else 1
            for row, x, end in zip(group.itertuples(), xs * scale, ends * scale, strict=True):
                look = {"color": colour_of(row.method), "marker": of(row.method).marker}
                look |= {"markerfacecolor": "white"} if row.samples == "all" else {}
                name = label(row.method) + (f" by {row.lm}" if row.lm else "")
                axis.vlines(x, row.low, row.high, color=look["color"], linewidth=0.8)
                axis.hlines(row.ndcg, x, end, color=look["color"], linewidth=0.8)
                axis.plot(x, row.ndcg, linestyle="", label=name, **look)
            front = group.assign(x=xs * scale).dropna(subset="x").sort_values("x")
            axis.step(front.x, front.ndcg.cummax(), where="post", color="0.6", linewidth=1)
            axis.set_xscale("log")
        left.set(title=f"{dataset}: training", ylabel="NDCG@20")
        right.set(title=f"{dataset}: requests")
    axes[-1, 0].set(xlabel="seconds of training")
    axes[-1, 1].set(xlabel="seconds of 1,000 requests")
    figure.tight_layout()
    handles, names = axes[0, 0].get_legend_handles_labels()
    filled = dict(zip(names[::-1], handles[::-1], strict=True))  # the first of two marks
    names = list(dict.fromkeys(names))
    handles = [filled[name] for name in names]
    if (rows.samples == "all").any():
        handles.append(Line2D([], [], ls="", marker="o", color="0.3", markerfacecolor="white"))
        names.append("hollow: all samples")
    beside(figure, handles, names)
    return figure
