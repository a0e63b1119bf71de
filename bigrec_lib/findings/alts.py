"""What each figure shows, in words and numbers, for readers who do not see it.

A function a figure, with the name it has in `plots` or `figures`, of the same data.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bigrec_lib.findings.methods import MAIN, label
from bigrec_lib.findings.significance import Interval


def listed(parts: list[str]) -> str:
    """Parts of a sentence with commas and an `and`.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def counted(n: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "seed"), counted(1024, "sample")
    ('1 seed', '1,024 samples')
    """
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def interval(row, value: str = "value") -> str:
    """A row's mean with the ends `low` and `high`."""
    return str(Interval(getattr(row, value), row.low, row.high))


# 01 to 06


def corpus(data, times: dict[str, np.ndarray], counts: np.ndarray) -> str:
    lengths = np.bincount(data.interactions.user)
    samples = [f"{len(values):,} {name}" for name, values in times.items()]
    return (
        f"Three panels. Items: the most popular one has {counts.max():,} training interactions, "
        f"the median one {np.median(counts):,.0f}. Users: {lengths.min():,} to {lengths.max():,} "
        f"interactions, {np.median(lengths):,.0f} in the median. Samples over time: "
        f"{listed(samples)} samples."
    )


def histogram(values: list[int], noun: str) -> str:
    return (
        f"Histogram of {len(values):,} {noun}: {min(values):,} to {max(values):,}, "
        f"{np.median(values):,.0f} in the median."
    )


def losses(log: pd.DataFrame) -> str:
    measured = log.dropna(subset="valid_loss")
    valid = [f"{row.valid_loss:.3f} after step {row.step}" for row in measured.itertuples()]
    return (
        f"Two series over {len(log)} steps. Training loss is {log.train_loss.iloc[0]:.3f} at the "
        f"first step and {log.train_loss.iloc[-1]:.3f} at the last; validation loss is "
        f"{listed(valid)}."
    )


def generations(titles: dict, lengths: dict[str, list[int]]) -> str:
    clauses = []
    for name, texts in titles.items():
        share = pd.Series(texts).value_counts(normalize=True)
        clauses.append(
            f"{name}: the most frequent title covers {share.iloc[0]:.0%} of the examples, the ten "
            f"most frequent {share.iloc[:10].sum():.0%}"
        )
    medians = [f"{name} {np.median(values):.0f}" for name, values in lengths.items()]
    return f"Two panels. {'; '.join(clauses)}. Tokens of a title in the median: {listed(medians)}."


def rank_histogram(rank: np.ndarray, candidates: int) -> str:
    return (
        f"Histogram of the places of the true titles among {candidates:,}: "
        f"{np.mean(np.asarray(rank) < 20):.1%} are among the first 20, where a random order has "
        f"{min(20 / candidates, 1):.1%}; the median place is {np.median(rank) + 1:,.0f}."
    )


def intervals(table: pd.DataFrame) -> str:
    lines = [f"{name} {mean}" for name, mean in table[table.columns[-1]].items()]
    return (
        f"Means with 95 % intervals of {listed(list(table.columns))}, a line a method. "
        f"{table.columns[-1]}: {'; '.join(lines)}."
    )


def popularity(counts: np.ndarray, weights: np.ndarray) -> str:
    return (
        f"Two panels. Weights of {len(weights):,} titles: {np.mean(np.asarray(counts) == 0):.0%} "
        f"have no count, the median weight is {np.median(weights):.3f}, the largest 1. The factor "
        "on a distance falls from 1 at weight 0 to 0.5 at weight 1 for γ = 1, and faster for "
        "larger γ."
    )


def gamma_curves(curves: pd.DataFrame, gamma: float) -> str:
    line = curves[(curves.metric == "NDCG") & (curves.k == curves.k.max())].set_index("gamma").value
    return (
        f"HR and NDCG over γ, a line a K. NDCG@{curves.k.max()} is {line.iloc[0]:.4f} at γ = 0, "
        f"{line[gamma]:.4f} at the chosen γ = {gamma:g}, and {line.iloc[-1]:.4f} at γ = "
        f"{line.index[-1]:g}."
    )


def by_popularity(gain: pd.DataFrame) -> str:
    means = gain.pivot_table("ndcg", "method", "group", sort=False)
    lines = [
        f"{label(method)} " + ", ".join(f"{value:.4f}" for value in row)
        for method, row in zip(means.index, means.to_numpy(), strict=True)
    ]
    return (
        "NDCG@20 with 95 % intervals by the popularity group of the target, rarest first: "
        f"{'; '.join(lines)}."
    )


def own_or_theirs(curves: pd.DataFrame, gammas: dict[str, float]) -> str:
    lines = []
    for weights, gamma in gammas.items():
        point = curves[(curves.weights == weights) & np.isclose(curves.gamma, gamma)]
        own, theirs = (point.value[point.metric == metric].iloc[0] for metric in ("own", "theirs"))
        lines.append(
            f"{weights}: at the chosen γ = {gamma:g}, {own:.0%} of the first 20 are BIGRec's own "
            f"and {theirs:.0%} those of the weights alone"
        )
    return f"Shares over γ, a panel for each weights. {'; '.join(lines)}."


def training(curves: pd.DataFrame) -> str:
    if curves.empty:
        return "Two empty panels: no network was trained."
    best = curves.loc[curves.groupby("method", sort=False).valid_ndcg.idxmax()]
    lines = [
        f"{label(row.method)} {row.valid_ndcg:.4f} after epoch {row.epoch}"
        for row in best.itertuples()
    ]
    return f"Training loss and validation NDCG@20 over epochs. Best NDCG@20: {'; '.join(lines)}."


def overlaps(shares: pd.DataFrame) -> str:
    upper = shares.where(np.triu(np.ones(shares.shape, dtype=bool), 1)).stack()
    if upper.empty:
        return "A matrix of one method."
    (a, b), (c, d) = upper.idxmax(), upper.idxmin()
    return (
        f"Matrix of the shares of the first 20 in common, of {len(shares)} methods. Most have "
        f"{label(a)} and {label(b)} in common, {upper.max():.0%}; fewest {label(c)} and "
        f"{label(d)}, {upper.min():.0%}."
    )


# 07 and later


def overall(levels: pd.DataFrame) -> str:
    parts = []
    for dataset, group in levels.groupby("dataset", sort=False):
        candidates = group[group.samples == "few"]
        best = candidates.loc[candidates.value.idxmax()]
        clause = f"of the few samples {label(best.method)} is highest with {interval(best)}"
        bigrec = candidates[candidates.method == "bigrec"]
        if len(bigrec):
            place = int((candidates.value > bigrec.value.iloc[0]).sum()) + 1
            clause += f", BIGRec has {interval(bigrec.iloc[0])}, place {place} of {len(candidates)}"
        parts.append(f"{dataset}: {clause}")
    return f"NDCG@20 with 95 % intervals, a line a method. {'; '.join(parts)}."


def forest(table: pd.DataFrame, quantity: str) -> str:
    parts = []
    for panel, group in table.groupby("panel", sort=False):
        sides = {
            "above zero": group.low > 0,
            "below zero": group.high < 0,
            "around zero": (group.low <= 0) & (group.high >= 0),
        }
        counts = [f"{int(mask.sum())} {side}" for side, mask in sides.items()]
        n_missing = int(group.difference.isna().sum())
        counts += [f"{n_missing} missing"] if n_missing else []
        differences = group[group.difference.notna()]
        if len(differences):
            largest = differences.loc[differences.difference.abs().idxmax()]
            counts.append(f"the largest is {largest['name']}: {interval(largest, 'difference')}")
        parts.append(f"{panel}: {', '.join(counts)}")
    return f"The {quantity} with 95 % intervals, {len(table)} lines. {'; '.join(parts)}."


def training_sizes(points: pd.DataFrame) -> str:
    parts = []
    for (dataset, method, budget), line in points.groupby(
        ["dataset", "method", "budget"], sort=False
    ):
        ends = [f"{row.value:.4f} at {row.n_train:,}" for row in line.iloc[[0, -1]].itertuples()]
        name = label(method) + (f" with as many {budget}" if budget else "")
        parts.append(f"{dataset}, {name} {' and '.join(dict.fromkeys(ends))}")
    return f"NDCG@20 over training samples, a line a method: {'; '.join(parts)}."


def group_shares(shares: pd.DataFrame) -> str:
    parts = []
    top = shares[(shares.group == 4) & (shares.k == 20) & shares.method.isin(MAIN)]
    for dataset, group in top.groupby("dataset", sort=False):
        histories = (group.share - group.difference).iloc[0]
        lines = [f"{label(row.method)} {row.share:.0%}" for row in group.itertuples()]
        parts.append(f"{dataset}, histories {histories:.0%}: {', '.join(lines)}")
    return (
        "Share of the most popular fifth of the titles among the first 20 recommendations; a "
        f"random order has 20 %. {'; '.join(parts)}."
    )


def injection(curves: pd.DataFrame) -> str:
    parts = []
    for dataset, group in curves.groupby("dataset", sort=False):
        mean = group.groupby(["split", "gamma"]).value.mean()
        for split in ("valid", "test"):
            line = mean[split]
            parts.append(
                f"{dataset}, {split}: {line.iloc[0]:.4f} at γ = {line.index[0]:g}, highest "
                f"{line.max():.4f} at γ = {line.idxmax():g}"
            )
    return f"NDCG@20 over γ of the popularity weights, mean of seeds. {'; '.join(parts)}."


def origins(points: pd.DataFrame) -> str:
    parts = [f"{row.dataset} by {row.origin} {interval(row)}" for row in points.itertuples()]
    return f"NDCG@20 with 95 % intervals by what the LLM was tuned on: {'; '.join(parts)}."


def llm_sizes(table: pd.DataFrame) -> str:
    parts = [
        f"{row.dataset}, {row.lm} {'tuned' if row.tuned else 'as it is'} "
        f"({row.parameters / 1e6:,.0f} M) {interval(row, 'ndcg')}"
        for row in table[table.parameters.notna()].itertuples()
    ]
    return f"NDCG@20 with 95 % intervals over the size of the LLM: {'; '.join(parts)}."


# 13 and later


def rows(
    subject: str,
    frame: pd.DataFrame,
    names: list[str],
    value: str,
    ends: tuple[str, str] | None = ("low", "high"),
    limit: int = 20,
) -> str:
    """What a figure is of, then the value of each row with the ends of its interval.

    names: columns that tell the rows apart. A row without an interval has NaN for ends. At most
    `limit` rows are described, the first.
    """
    present = frame[frame[value].notna()]
    parts = []
    for row in present.head(limit).to_dict("records"):
        labels = [label(row[name]) if name == "method" else str(row[name]) for name in names]
        text = f"{row[value]:.4f}"
        if ends and row[ends[0]] == row[ends[0]]:
            text += f" [{row[ends[0]]:.4f}, {row[ends[1]]:.4f}]"
        parts.append(f"{', '.join(filter(None, labels))} {text}")
    rest = f"; and {len(present) - limit} more" if len(present) > limit else ""
    return f"{subject}: {'; '.join(parts)}{rest}." if parts else f"{subject}: nothing to draw."
