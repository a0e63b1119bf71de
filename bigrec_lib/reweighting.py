"""Popular, or collaboratively likely, candidates pulled nearer (method.md section 2).

    D̂ = (D - min D) / (max D - min D) in each row          D̃ = D̂ (1 + W)^(-γ)

In logarithms, log D̃ = log D̂ - γ log(1 + W): for a target t and another candidate j, D̃_j < D̃_t
exactly if

    a < γ b     with  a = log D̂_j - log D̂_t,   b = log(1 + W_j) - log(1 + W_t).

That is the definition of "nearer" used here, in fp64. As γ grows each candidate overtakes the
target, or falls behind it, at most once. So one pass finds, for each candidate, where on the grid
that happens, and a cumulative sum of these places is the target's rank at every γ.

The nearest candidate has D̂ = 0 and stays at 0: reweighting cannot displace it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from bigrec_lib import metrics
from bigrec_lib.files import StudyError
from bigrec_lib.grounding import checked_targets, distances

WHOLE = np.arange(100.0)  # the authors' grid for popularity
GAMMAS = np.concatenate((np.arange(100) / 100, WHOLE[1:]))  # for collaborative scores, (199,)
BLOCK = 2**24  # distances at a time, 128 MB
CACHED = 2**18  # distances that are swept at a time, so that they stay in the processor's cache


class ReweightingError(StudyError):
    """Statistics cannot be injected."""


def minmax(values: np.ndarray) -> np.ndarray:
    """Each row (last axis) scaled to 0 ... 1; a row of equal values becomes 0 throughout."""
    low = values.min(axis=-1, keepdims=True)
    width = values.max(axis=-1, keepdims=True) - low
    return (values - low) / np.where(width > 0, width, 1)


def popularity_weights(counts: np.ndarray) -> np.ndarray:
    """W (I,) float32 from the training interactions of each candidate.

    A title's count is the sum over its namesakes. Equal counts for all give W = 0.
    Raises ReweightingError for negative or missing counts.
    """
    counts = np.asarray(counts, dtype=np.float64)
    if counts.ndim != 1 or not np.isfinite(counts).all() or (counts < 0).any():
        raise ReweightingError("counts must be one number per candidate, none negative or missing")
    return minmax(counts / max(counts.sum(), 1)).astype(np.float32)


def collaborative_weights(scores: np.ndarray) -> np.ndarray:
    """W (n, I) float32 from a conventional model's scores, each row scaled to 0 ... 1.

    Raises ReweightingError for scores that are not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise ReweightingError("scores must be a matrix, example by candidate, of finite numbers")
    return minmax(scores).astype(np.float32)


def log_distances(found: np.ndarray) -> np.ndarray:
    """log D̂ (n, I) float64 from distances (n, I); -inf for the nearest.

    In a row of equal distances no candidate is nearer than another: D̂ is 0 throughout.
    Raises ReweightingError for distances that are not finite.
    """
    if not np.isfinite(found).all():
        raise ReweightingError("a distance is NaN or infinite: embed its texts again")
    with np.errstate(divide="ignore"):
        return np.log(minmax(np.asarray(found, dtype=np.float64)))


def reweighted(logs: np.ndarray, weights: np.ndarray, gamma: float) -> np.ndarray:
    """log D̃ (n, I) from log D̂ (n, I) and W, (I,) or (n, I). Apply it again for a second W."""
    checked_weights(weights, logs.shape)
    return logs - gamma * np.log1p(np.asarray(weights, dtype=np.float64))


def sweep(
    logs: np.ndarray, targets: np.ndarray, weights: np.ndarray, gammas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rank and ties of each target at every γ, (n, G) int32 each, in one pass.

    logs: (n, I) log D̂ of `log_distances`; targets: (n,) candidates; weights: W, (I,) or (n, I);
    gammas: (G,) rising, not negative.
    Raises ReweightingError for bad weights or gammas, GroundingError for unknown targets.
    """
    checked_weights(weights, logs.shape)
    grid = checked_gammas(gammas)
    targets = checked_targets(targets, *logs.shape)[:, None]
    n, count = len(logs), len(grid)
    logs = torch.as_tensor(logs)
    strength = torch.as_tensor(np.asarray(weights, dtype=np.float64)).log1p().expand(logs.shape)
    a = logs - logs.gather(1, targets)
    level = a.isnan()  # both at D̂ = 0, where they stay at every γ
    a.masked_fill_(level, 0)
    b = (strength - strength.gather(1, targets)).masked_fill_(level, 0)
    same = (a == 0) & (b == 0)  # ties at every γ, the target among them

    falls = b < 0  # nearer up to a crossing point, instead of from one on
    sign = torch.where(falls, -1.0, 1.0).double()
    a, b = a.mul_(sign), b.mul_(sign)
    # first (n, I): the smallest g with grid[g] * b > a. The quotient may be off by a rounding.
    first = torch.bucketize(a / b, grid, right=True)
    beyond = grid.new_tensor([torch.nan])  # no comparison with it holds
    padded = torch.cat((beyond, grid, beyond))
    before, after = padded[first].mul_(b), padded[first + 1].mul_(b)
    equal = ((before == a) | (after == a)) & ~same
    first += (after <= a).long() - (before > a).long()

    ties = (same.sum(1, keepdim=True) - 1).expand(n, count).clone()
    places = torch.arange(n)[:, None] * 2 + falls  # a histogram over first for each row and sign
    places = (places * (count + 1)).add_(first).flatten()
    histogram = torch.bincount(places, minlength=n * 2 * (count + 1)).view(n, 2, count + 1)
    rising, falling = histogram.unbind(1)
    nearer = rising.cumsum(1) + falling.sum(1, keepdim=True) - falling.cumsum(1)
    nearer = nearer[:, :count]
    row, column = equal.nonzero(as_tuple=True)
    where = (row, first[row, column] - 1)
    one = torch.ones_like(row)
    ties.index_put_(where, one, accumulate=True)
    nearer.index_put_(where, -falls[row, column].long(), accumulate=True)
    return nearer.int().numpy(), ties.int().numpy()


def ranks(
    queries, vectors, targets: np.ndarray, weights: np.ndarray, gammas: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rank and ties of each target at every γ, (N, G) int32 each, from embeddings.

    queries: (N, d); vectors: (I, d); targets: (N,); weights: W, (I,) or (N, I); gammas: (G,).
    """
    if not len(queries):
        raise ReweightingError("there is no example to rank: the split is empty")
    rank, ties = np.empty((2, len(queries), len(gammas)), dtype=np.int32)
    step, few = (max(1, size // len(vectors)) for size in (BLOCK, CACHED))
    with tqdm(total=len(queries), desc="γ sweep", unit="example") as bar:
        for start in range(0, len(queries), step):
            found = distances(queries[start : start + step], vectors)
            for first in range(0, len(found), few):
                logs = log_distances(found[first : first + few])
                rows = slice(start + first, start + first + len(logs))
                own = weights if weights.ndim == 1 else weights[rows]
                rank[rows], ties[rows] = sweep(logs, targets[rows], own, gammas)
                bar.update(len(logs))
    return rank, ties


# ------------------------------------------------------------------------------- the choice of γ


def curves(
    rank: np.ndarray, ties: np.ndarray, gammas: np.ndarray, ks: Sequence[int] = metrics.KS
) -> pd.DataFrame:
    """Metrics at every γ: columns gamma, metric, k, value, n; ties at their expected rank.

    rank, ties: (N, G) of `ranks`. Raises ReweightingError if there is no example.
    """
    if not len(rank):
        raise ReweightingError("no example to choose γ by: the validation split is empty")
    parts = []
    for gamma, one_rank, one_ties in zip(gammas, rank.T, ties.T, strict=True):
        frame = pd.DataFrame({"rank": one_rank, "ties": one_ties})
        parts.append(metrics.summary(frame, ks).assign(gamma=gamma))
    return pd.concat(parts, ignore_index=True)[["gamma", "metric", "k", "value", "n"]]


def choose(curve: pd.DataFrame, metric: str = "NDCG", k: int = 20) -> float:
    """The γ with the best value of one metric at one k; the smallest of equals."""
    chosen = curve[(curve.metric == metric) & (curve.k == k)].sort_values("gamma")
    return float(chosen.gamma.iloc[int(chosen.value.argmax())])


def chosen_apart(valid: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """The reference protocol: γ chosen for each metric and k on its own, and what it gives.

    valid, test: `curves`. Columns metric, k, gamma, value, n; value and n are those of `test`.
    """
    best = [
        {"metric": metric, "k": k, "gamma": choose(valid, metric, k)}
        for metric, k in valid[["metric", "k"]].drop_duplicates().itertuples(index=False)
    ]
    return pd.DataFrame(best).merge(test, on=["metric", "k", "gamma"], validate="one_to_one")


def popularity_groups(counts: np.ndarray, groups: int = 5) -> np.ndarray:
    """The group 0 ... groups-1 of each candidate, (I,), rarest first, equal in size (IFairLRS).

    Equal counts are told apart by the candidate's number.
    """
    place = np.empty(len(counts), dtype=np.int64)
    place[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    return place * groups // len(counts)


# ------------------------------------------------------------------------------------ bad input


def checked_weights(weights: np.ndarray, shape: tuple[int, int]) -> None:
    """Refuse weights that are not (I,) or (n, I), or not in 0 ... infinity."""
    if weights.shape not in (shape, shape[1:]):
        raise ReweightingError(
            f"weights of shape {weights.shape} do not fit distances of shape {shape}: give one "
            "per candidate, or one per example and candidate"
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ReweightingError("a weight is negative, NaN or infinite: scale weights to 0 ... 1")


def checked_gammas(gammas: np.ndarray) -> torch.Tensor:
    """The grid as (G,) float64; refuse one that is empty, does not rise, or goes below 0."""
    grid = torch.as_tensor(np.asarray(gammas, dtype=np.float64))
    if grid.ndim != 1 or not len(grid) or not grid.isfinite().all() or (grid.diff() <= 0).any():
        raise ReweightingError("gammas must be finite numbers that rise")
    if grid[0] < 0:
        raise ReweightingError(f"gamma {float(grid[0])} is negative: it would punish what is liked")
    return grid
