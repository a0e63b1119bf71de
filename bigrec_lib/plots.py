"""One look for every figure: colour-blind safe, one colour per method, readable in print."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from bigrec_lib.files import atomic

WIDTH = 6.0  # inches, about a column and a half in print
PALETTE = sns.color_palette("colorblind")
COLOURS = {
    "bigrec": PALETTE[0],
    "bigrec+popularity": PALETTE[1],
    "bigrec+collaborative": PALETTE[2],
    "popularity": PALETTE[7],
}
LABELS = {
    "bigrec": "BIGRec",
    "bigrec+popularity": "BIGRec + popularity",
    "bigrec+collaborative": "BIGRec + collaborative",
    "popularity": "Popularity",
}


def style() -> None:
    """Set the look of every figure drawn from here on."""
    sns.set_theme(style="whitegrid", context="paper", palette="colorblind", font_scale=1.1)
    plt.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 200,
            "savefig.bbox": "tight",
            "svg.hashsalt": "bigrec",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.linewidth": 0.6,
            "legend.frameon": False,
        }
    )


def save(figure: plt.Figure, folder: Path, name: str) -> None:
    """Write `name`.png and `name`.svg into `folder`, without dates, so that reruns are equal."""
    for kind, empty in (("png", {"Software": None}), ("svg", {"Date": None})):
        with atomic(folder / f"{name}.{kind}") as partial:
            figure.savefig(partial, format=kind, metadata=empty)


def label(method: str) -> str:
    """The name of a method as figures and tables print it."""
    return LABELS.get(method, method)


# 03_generate_titles


def generations(titles, lengths) -> plt.Figure:
    """How few titles cover everybody, and how long they are.

    titles: name -> one title an example. lengths: name -> numbers of tokens.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH * 1.3, 3.0))
    for name, shown in titles.items():
        covered = pd.Series(shown).value_counts(normalize=True).cumsum()
        left.step(range(1, len(covered) + 1), covered, where="post", label=name)
    left.set(xscale="log", ylim=(0, 1.02), xlabel="k most frequent titles", ylabel="share covered")
    left.legend()
    long = pd.DataFrame(
        [(name, length) for name, each in lengths.items() for length in each],
        columns=["of", "tokens"],
    )
    sns.histplot(
        long, x="tokens", hue="of", stat="proportion", common_norm=False, discrete=True,
        element="step", alpha=0.25, ax=right,
    )  # fmt: skip
    right.set(xlim=(0, long.tokens.quantile(0.995) + 2), xlabel="tokens", ylabel="share")
    right.get_legend().set_title("")
    figure.tight_layout()
    return figure


# 07_overall_performance


def overall(metrics, metric: str = "NDCG") -> plt.Figure:
    """Metric at K for each method, one panel a data set.

    metrics: long form with columns dataset, method, metric, k, value (metrics.csv).
    """
    chosen = metrics[metrics.metric == metric]
    datasets = list(dict.fromkeys(chosen.dataset))
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(WIDTH * max(1, len(datasets) * 0.7), 3.2), squeeze=False
    )
    for axis, dataset in zip(axes[0], datasets, strict=True):
        of_dataset = chosen[chosen.dataset == dataset]
        for marker, (method, group) in zip(
            "osD^vPX*" * 4, of_dataset.groupby("method", sort=False), strict=False
        ):
            curve = group.groupby("k").value.mean()
            axis.plot(
                curve.index,
                curve.values,
                marker=marker,
                color=COLOURS.get(method),
                label=label(method),
            )
        axis.set(title=dataset, xlabel="K", ylabel=f"{metric}@K", xscale="log", ylim=(0, None))
        axis.set_xticks(sorted(of_dataset.k.unique()), sorted(of_dataset.k.unique()))
        axis.minorticks_off()
    axes[0][-1].legend()
    figure.tight_layout()
    return figure
