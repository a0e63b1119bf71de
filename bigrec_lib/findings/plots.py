"""One look for every figure, readable in print; the figures of the steps, 01 to 06."""

import itertools
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Image, display
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bigrec_lib.files import atomic
from bigrec_lib.findings import significance
from bigrec_lib.findings.methods import PALETTE, colour_of, label, legible, of
from bigrec_lib.study.notebook import small

PALE = sns.light_palette("#56b4e9", as_cmap=True)  # black text can be read on all of it
WIDTH = 6.0  # inches, about a column and a half in print


def style() -> None:
    """Set the look of every figure drawn from here on."""
    sns.set_theme(style="whitegrid", context="paper", palette=PALETTE, font_scale=1.1)
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 150,
            "savefig.bbox": "tight",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.linewidth": 0.6,
            "legend.frameon": False,
        }
    )


def save(figure: plt.Figure, folder: Path, name: str, alt: str = "") -> None:
    """Write `name`.png into `folder`, without a date, so that reruns are equal, and show it.

    alt: what the figure shows, in words (`alts`). The file keeps it under the PNG keyword
    "Description", the notebook as `show` does.
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    with atomic(folder / f"{name}.png") as partial:
        partial.write_bytes(small(buffer.getvalue(), alt))
    show(figure, alt)


def show(figure: plt.Figure, alt: str) -> None:
    """Display a figure with its alternative text, and close it.

    The text is in the output's metadata, `image/png`: `alt`, where nbconvert looks for it.
    """
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=plt.rcParams["figure.dpi"])
    plt.close(figure)
    display(Image(data=buffer.getvalue(), format="png", alt=alt or None))


def ramp(n: int) -> list:
    """`n` colours from light to dark, all of which can be told from a white page."""
    return [legible(colour) for colour in sns.color_palette("crest", n + 1)[1:]]


# 17a_measure_cost


def requests(table: pd.DataFrame) -> plt.Figure:
    """Median seconds of a request, and p99, a row a method. table: `cost_job.table`."""
    table = table.sort_values("p50", ascending=False)
    figure, axis = plt.subplots(figsize=(WIDTH, 0.8 + 0.28 * len(table)))
    for place, row in enumerate(table.itertuples()):
        axis.hlines(place, row.p50, row.p99, color=colour_of(row.method), linewidth=1.2)
        axis.plot(row.p50, place, "o", color=colour_of(row.method))
    axis.set_yticks(range(len(table)), [label(name) for name in table.method])
    axis.set(xscale="log", xlabel="seconds of a request: median, and to p99")
    return figure


# 03_generate_titles


def generations(titles, lengths) -> plt.Figure:
    """How few titles cover all examples, and how many tokens they have.

    titles: name -> one title an example. lengths: name -> numbers of tokens.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH * 1.3, 3.0))
    for name, texts in titles.items():
        coverage = pd.Series(texts).value_counts(normalize=True).cumsum()
        left.step(range(1, len(coverage) + 1), coverage, where="post", label=name)
    left.set(xscale="log", ylim=(0, 1.02), xlabel="k most frequent titles", ylabel="share covered")
    left.legend()
    frame = pd.DataFrame(
        [(name, length) for name, numbers in lengths.items() for length in numbers],
        columns=["of", "tokens"],
    )
    sns.histplot(
        frame, x="tokens", hue="of", stat="proportion", common_norm=False, discrete=True,
        element="step", alpha=0.25, ax=right,
    )  # fmt: skip
    right.set(xlim=(0, frame.tokens.quantile(0.995) + 2), xlabel="tokens", ylabel="share")
    right.get_legend().set_title("")
    figure.tight_layout()
    return figure


# 01_prepare_data


def corpus(data, times: dict[str, np.ndarray], counts: np.ndarray) -> plt.Figure:
    """Popularity curve, interactions per user, and samples over time with the two cuts.

    data: a `Corpus`; times: of each sample, by split, in its unit; counts: (I,) training
    interactions.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(WIDTH * 1.6, 2.8))
    left.loglog(np.arange(1, len(counts) + 1), np.sort(counts)[::-1].clip(min=0.5))
    left.set(xlabel="items, most popular first", ylabel="training interactions")
    lengths = np.bincount(data.interactions.user)
    edges = np.unique(np.geomspace(lengths.min(), lengths.max() + 1, 40).astype(int))
    middle.stairs(np.histogram(lengths, edges)[0], edges, fill=True)
    middle.set(xlabel="interactions of a user", ylabel="users")
    logarithmic(middle, edges)
    samples_over_time(right, data, times)
    for axis in (middle, right):
        axis.yaxis.set_major_formatter("{x:,.0f}")
    figure.tight_layout()
    return figure


def samples_over_time(axis: plt.Axes, data, times: dict[str, np.ndarray]) -> None:
    """Samples of each split over time, or over the places of an order, with the two cuts."""
    low, high = min(map(np.min, times.values())), max(map(np.max, times.values()))
    presplit = "split" in data.interactions  # then the order is within each user
    dated = data.unit != "order"
    if dated:
        edges = np.linspace(low, high + 1, 41).astype(int)
        places = edges.astype(f"datetime64[{data.unit}]")
        locator = AutoDateLocator(minticks=3, maxticks=6)
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axis.set(xlabel="time", ylabel="samples")
    else:
        edges = places = np.unique(np.geomspace(1, high - low + 2, 41).astype(int))
        times = {split: stamps - low + 1 for split, stamps in times.items()}
        axis.set(xlabel="place in the user's list" if presplit else "order", ylabel="samples")
        logarithmic(axis, edges)
    below = np.zeros(len(edges) - 1)
    for split, stamps in times.items():
        above = below + np.histogram(stamps, edges)[0]
        axis.fill_between(
            places, np.r_[below, 0], np.r_[above, 0], step="post", label=split, linewidth=0
        )
        below = above
        if split != "train" and not presplit:
            cut = int(stamps.min())
            place = np.datetime64(cut, data.unit) if dated else cut
            axis.axvline(place, color="0.25", linestyle="--", linewidth=1)
    axis.set_ylim(0, None)
    axis.legend(
        loc="lower right", bbox_to_anchor=(1.05, 1), ncol=3, columnspacing=1, handlelength=1
    )


def logarithmic(axis: plt.Axes, edges: np.ndarray) -> None:
    """A logarithmic x-axis over bins, with plain numbers, few enough not to touch."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1,) if edges[-1] > 300 * edges[0] else (1, 3)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


# 02_tune_llm


def histogram(values: list[int], xlabel: str, ylabel: str) -> plt.Figure:
    """How often each value occurs."""
    figure, axis = plt.subplots(figsize=(WIDTH * 0.8, 2.6))
    sns.histplot(values, ax=axis)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def losses(log: pd.DataFrame) -> plt.Figure:
    """Training loss at every step, validation loss where it was measured (log of `tune`)."""
    figure, axis = plt.subplots(figsize=(WIDTH * 0.8, 2.8))
    axis.plot(log.step, log.train_loss, label="training", color=PALETTE[0])
    measured = log.dropna(subset="valid_loss")
    axis.plot(measured.step, measured.valid_loss, "D", label="validation", color=PALETTE[1])
    axis.set(xlabel="step", ylabel="loss per learnt token", ylim=(0, None))
    axis.legend()
    return figure


# 04_ground_to_items


def rank_histogram(rank, candidates: int) -> plt.Figure:
    """Share of targets in bins of ranks that double, next to what a random order gives.

    rank: (n,) 0-based; candidates: how many there are.
    """
    edges = np.unique(np.minimum(2.0 ** np.arange(0, 40), candidates + 1))  # 1-based places
    share = np.histogram(np.asarray(rank) + 1, edges)[0] / len(rank)
    names = [
        f"{low:,.0f}" if high - low == 1 else f"{low:,.0f}–{high - 1:,.0f}"
        for low, high in itertools.pairwise(edges)
    ]
    figure, axis = plt.subplots(figsize=(WIDTH, 3.0))
    axis.bar(names, share, color=colour_of("bigrec"), label=label("bigrec"))
    axis.plot(names, np.diff(edges) / candidates, "o", color="0.25", label="random order")
    axis.set(xlabel="place of the true title", ylabel="share of test targets", yscale="log")
    axis.tick_params(axis="x", rotation=45)
    plt.setp(axis.get_xticklabels(), ha="right", rotation_mode="anchor")
    axis.legend()
    return figure


def intervals(table) -> plt.Figure:
    """Means with their intervals, one panel a metric, one line a method.

    table: a row a method, a column a metric, of `significance.Interval`.
    """
    size = (WIDTH * 1.3, 0.4 * len(table) + 1)
    figure, axes = plt.subplots(1, len(table.columns), figsize=size, sharey=True, squeeze=False)
    for axis, (metric, column) in zip(axes[0], table.items(), strict=True):
        mean, low, high = (
            [getattr(interval, name) for interval in column] for name in ("mean", "low", "high")
        )
        axis.errorbar(
            mean,
            table.index,
            xerr=[np.subtract(mean, low), np.subtract(high, mean)],
            fmt="o",
            capsize=3,
            color=colour_of("bigrec"),
        )
        axis.set(xlabel=metric, xlim=(0, None))
    axes[0][0].invert_yaxis()
    figure.tight_layout()
    return figure


# 05_reweight_by_statistics


def popularity(counts, weights, gammas=(0.5, 1, 10, 99)) -> plt.Figure:
    """Left: how the weights are spread. Right: what a weight does to a distance.

    counts: (I,) training interactions of each candidate; weights: (I,) W.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH * 1.3, 3.0))
    left.hist(weights, bins=40, color=colour_of("popularity"))
    left.set(yscale="log", xlabel="weight W", ylabel="titles")
    share = np.mean(np.asarray(counts) == 0)
    left.set_title(f"{share:.0%} of {len(counts):,} titles have no count", fontsize="medium")
    x = np.linspace(0, 1, 200)
    for gamma, shade in zip(gammas, ramp(len(gammas)), strict=True):
        right.plot(x, (1 + x) ** -gamma, color=shade, label=f"γ = {gamma:g}")
    right.set(xlabel="weight W", ylabel="factor on D̂", ylim=(0, 1.02))
    right.legend()
    figure.tight_layout()
    return figure


def gamma_curves(curves, gamma: float) -> plt.Figure:
    """HR and NDCG over γ, one line a k, with the chosen γ. curves: `reweighting.curves`."""
    ks = sorted(curves.k.unique())
    shades = dict(zip(ks, ramp(len(ks)), strict=True))
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH * 1.3, 3.2))
    for axis, metric in zip(axes, ("HR", "NDCG"), strict=True):
        for k in ks:
            line = curves[(curves.metric == metric) & (curves.k == k)]
            axis.plot(line.gamma, line.value, color=shades[k], label=f"K = {k}")
        axis.axvline(gamma, color="0.25", linestyle="--", linewidth=1)
        gamma_axis(axis)
        axis.set(ylabel=f"{metric}@K", xlim=(0, curves.gamma.max()), ylim=(0, None))
    axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    return figure


def gamma_axis(axis: plt.Axes) -> None:
    """γ from 0: linear up to 1, logarithmic beyond."""
    axis.set_xscale("symlog", linthresh=1, linscale=1)
    ticks = [0, 0.5, 1, 3, 10, 30, 99]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("γ")


def by_popularity(scores) -> plt.Figure:
    """Mean NDCG by the popularity group of the target with its 95 % interval, a mark a method.

    scores: columns group (0 = rarest), method, user, ndcg, one row an example and method.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 3.2))
    names = list(scores.method.unique())
    groups = sorted(scores.group.unique())
    for place, method in enumerate(names):
        rows = scores[scores.method == method]
        estimates = [interval_of(rows[rows.group == group]) for group in groups]
        mean = np.array([estimate.mean for estimate in estimates])
        errors = [
            mean - [estimate.low for estimate in estimates],
            [estimate.high for estimate in estimates] - mean,
        ]
        x = np.arange(len(groups)) + 0.7 * ((place + 0.5) / len(names) - 0.5)
        axis.errorbar(
            x, mean, yerr=errors, fmt=of(method).marker, capsize=2, color=colour_of(method),
            label=label(method),
        )  # fmt: skip
    sizes = scores[scores.method == names[0]].groupby("group").size()
    axis.set_xticks(range(len(groups)), [f"{g + 1}\nn = {sizes[g]}" for g in groups])
    axis.set(xlabel="popularity group of the target (5 = most popular)", ylabel="NDCG@20")
    axis.set_ylim(0, min(axis.get_ylim()[1], 1.05))
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=3)
    return figure


def interval_of(rows: pd.DataFrame) -> significance.Interval:
    """The interval of the mean of column ndcg; column user says whose each row is."""
    return significance.interval(rows.ndcg.to_numpy(), rows.user.to_numpy())


# 06_train_baselines


def training(curves) -> plt.Figure:
    """Training loss relative to that of the first epoch, and validation NDCG@20, over epochs.

    curves: columns method, epoch, train_loss, valid_ndcg; the diamond is the epoch that is kept.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH * 1.5, 3.2))
    for method, curve in curves.groupby("method", sort=False):
        look = {"color": colour_of(method), "label": label(method)}
        axes[0].plot(curve.epoch, curve.train_loss / curve.train_loss.iloc[0], **look)
        axes[1].plot(curve.epoch, curve.valid_ndcg, **look)
        best = curve.loc[curve.valid_ndcg.idxmax()]
        axes[1].plot(best.epoch, best.valid_ndcg, "D", color=colour_of(method), markersize=4)
    axes[0].set(xlabel="epoch", ylabel="training loss / that of epoch 1", ylim=(0, None))
    axes[1].set(xlabel="epoch", ylabel="validation NDCG@20", ylim=(0, None))
    if len(curves):
        axes[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.tight_layout()
    return figure


def overlaps(shares) -> plt.Figure:
    """Share of the first 20 that two methods have in common; rows and columns are methods."""
    table = shares.rename(index=label, columns=label)
    figure, axis = plt.subplots(figsize=(0.45 * len(table) + 2, 0.45 * len(table) + 1))
    sns.heatmap(
        table, annot=True, fmt=".0%", vmin=0, vmax=1, cmap=PALE, square=True, cbar=False,
        annot_kws={"size": 7, "color": "black"}, ax=axis,
    )  # fmt: skip
    plt.setp(axis.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")
    axis.grid(visible=False)
    return figure


# 05_reweight_by_statistics, again


def own_or_theirs(curves, gammas: dict[str, float]) -> plt.Figure:
    """With whose list the first 20 agree, over γ: a panel for each weights, the chosen γ marked.

    curves: `reweighting.own_or_theirs` with a column weights; gammas: weights -> the chosen γ.
    """
    size = (WIDTH * 0.65 * max(2, len(gammas)), 3.0)
    figure, axes = plt.subplots(1, len(gammas), figsize=size, sharey=True, squeeze=False)
    for axis, (weights, gamma) in zip(axes[0], gammas.items(), strict=True):
        shares = curves[curves.weights == weights]
        for metric, colour, marker in (("own", "bigrec", "o"), ("theirs", "popularity", "v")):
            line = shares[shares.metric == metric]
            name = {"own": "BIGRec's own list", "theirs": "list of the weights alone"}[metric]
            axis.plot(
                line.gamma, line.value, marker, ls="-", ms=3, color=colour_of(colour), label=name
            )
        axis.axvline(gamma, color="0.25", linestyle="--", linewidth=1)
        gamma_axis(axis)
        axis.set(title=weights, xlim=(0, shares.gamma.max()), ylim=(0, 1.02))
    axes[0][0].set_ylabel("share of the first 20 in common")
    axes[0][0].legend()
    figure.tight_layout()
    return figure
