"""Popular, or collaboratively likely, candidates pulled nearer (docs/method.md, section 2).

    D̂ = (D - min D) / (max D - min D) in each row          D̃ = D̂ (1 + W)^(-γ)

In logarithms, log D̃ = log D̂ - γ log(1 + W): for a target t and another candidate j, D̃_j < D̃_t
exactly if

    a < γ b     with  a = log D̂_j - log D̂_t,   b = log(1 + W_j) - log(1 + W_t).

That is the definition of "nearer" used here, in fp64. As γ grows each candidate overtakes the
target, or falls behind it, at most once. One pass finds the place on the grid where that happens,
and a cumulative sum over these places gives the target's rank at every γ.

The nearest candidate has D̂ = 0 and stays at 0: reweighting cannot displace it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from numba import njit, prange
from torch import Tensor
from tqdm import tqdm

from bigrec_lib.files import StudyError
from bigrec_lib.method import grounding, metrics

WHOLE = np.arange(100.0)  # the authors' grid for popularity
FEW = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # γ of popularity where it is not alone
GAMMAS = np.concatenate((np.arange(100) / 100, WHOLE[1:]))  # for collaborative scores, (199,)
THIN = np.r_[np.arange(10) / 10, 1:5, 5, 7, 10, 15, 20, 30, 40, 50, 70, 99]  # for lists, (24,)
BLOCK = 2**22  # distances at a time where whole rows are sorted, 32 MB
SWEPT = 35_000_000  # distances at a time in a sweep, 280 MB


class ReweightingError(StudyError):
    """Statistics cannot be injected."""


def minmax(values: np.ndarray) -> np.ndarray:
    """Each row (last axis) scaled to 0 ... 1; a row of equal values becomes 0 throughout.

    >>> minmax(np.array([[2.0, 6.0, 3.0], [5.0, 5.0, 5.0]])).tolist()
    [[0.0, 1.0, 0.25], [0.0, 0.0, 0.0]]
    """
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


def log_distances(distances: np.ndarray) -> np.ndarray:
    """log D̂ (n, I) float64 from distances (n, I); -inf for the nearest.

    In a row of equal distances no candidate is nearer than another: D̂ is 0 throughout.
    Raises ReweightingError for distances that are not finite.
    """
    with np.errstate(divide="ignore"):
        return np.log(minmax(checked_distances(distances)))


def reweighted(logs: np.ndarray, weights: np.ndarray, gamma: float) -> np.ndarray:
    """log D̃ (n, I) from log D̂ (n, I) and W, (I,) or (n, I). Apply it again for a second W."""
    checked_weights(weights, logs.shape)
    return logs - gamma * strengths(weights)


Logs = tuple[Tensor, Iterator[tuple[slice, Tensor]]]
"""log D̂, but for a constant of each row, which no rank depends on: those of some examples' targets
(n,), and block by block of all candidates, some columns and theirs (n, m)."""


def ranks(
    queries,
    vectors,
    targets: np.ndarray,
    weights: np.ndarray,
    gammas: np.ndarray,
    before: np.ndarray | None = None,
    seen: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank and ties of each target at every γ, (N, G) int32 each, from embeddings.

    queries: (N, d); vectors: (I, d); targets: (N,); weights: W, (I,) or (N, I); gammas: (G,).
    before: γ log(1 + W) of weights that have been applied already, (I,) or (N, I).
    seen: candidates to leave out, per query; the target always stays in. D̂ stays what it is.
    Memory besides the arguments: SWEPT distances.
    Raises ReweightingError for no queries, bad weights or gammas, GroundingError for bad vectors.
    """
    checked_split(queries)
    queries = grounding.checked(queries, "queries")
    vectors = grounding.checked(vectors, "vectors")
    grounding.same_width(queries, vectors)
    wanted = grounding.checked_targets(targets, len(queries), len(vectors))

    def logs_of(rows: slice) -> Logs:
        some = queries[rows]
        goal = grounding.squared_distance(some, torch.arange(len(some)), vectors, wanted[rows])
        squares, lowest = grounding.squared_distances(some, vectors, goal)
        low = lowest.sqrt_()
        blocks = grounding.blocks(squares, len(some))
        logs = ((columns, above(block.sqrt_(), low[:, None])) for columns, block in blocks)
        return above(goal.sqrt_(), low), logs

    shape = len(queries), len(vectors)
    return sweep(logs_of, shape, wanted.numpy(), weights, gammas, before, seen)


def ranks_of_distances(
    distances: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    gammas: np.ndarray,
    before: np.ndarray | None = None,
    seen: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`ranks` from distances (N, I), or from anything that is small for a good candidate.

    From the scores of a model with their signs changed, D̂ is 1 - minmax(score).
    Raises ReweightingError for no row, for distances that are not finite, bad weights or gammas.
    """
    checked_split(distances)
    wanted = grounding.checked_targets(targets, *distances.shape).numpy()

    def logs_of(rows: slice) -> Logs:
        some = checked_distances(distances[rows])
        goal = torch.from_numpy(of_targets(some, wanted[rows]))
        found = torch.from_numpy(some)
        low = found.amin(1)
        blocks = found.split(grounding.COLUMNS, dim=1)
        starts = range(0, found.shape[1], grounding.COLUMNS)
        logs = (
            (slice(start, start + grounding.COLUMNS), above(block.contiguous(), low[:, None]))
            for start, block in zip(starts, blocks, strict=True)
        )
        return above(goal, low), logs

    return sweep(logs_of, distances.shape, wanted, weights, gammas, before, seen)


def sweep(
    logs_of: Callable[[slice], Logs],
    shape: tuple[int, int],
    targets: np.ndarray,
    weights: np.ndarray,
    gammas: np.ndarray,
    before: np.ndarray | None,
    seen: Sequence[np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank and ties of each target at every γ, (N, G) int32 each; arguments as in `ranks`.

    logs_of: what measures some of the examples, as many as fit into memory. shape: (N, I).
    """
    checked_weights(weights, shape)
    grid = checked_gammas(gammas)
    weights = np.atleast_2d(weights)
    before = np.zeros((1, shape[1])) if before is None else np.atleast_2d(before)
    seen = [np.empty(0)] * shape[0] if seen is None else seen
    nearer, ties = np.zeros((2, shape[0], len(grid) + 1), dtype=np.int32)
    parts = -(-shape[0] * shape[1] // SWEPT)
    with tqdm(total=shape[0], desc="γ sweep", unit="example") as bar:
        for numbers in np.array_split(np.arange(shape[0]), min(parts, shape[0])):
            rows = slice(numbers[0], numbers[-1] + 1)
            some = targets[rows]
            out = grounding.left_out(seen[rows], torch.from_numpy(some))
            applied = of_rows(weights, rows), of_rows(before, rows)
            count_some(logs_of(rows), some, *applied, out, grid, nearer[rows], ties[rows])
            bar.update(len(numbers))
    return totals(nearer, ties)


def count_some(
    logs: Logs,
    targets: np.ndarray,
    weights: np.ndarray,
    before: np.ndarray,
    out: tuple[Tensor, Tensor],
    grid: np.ndarray,
    nearer: np.ndarray,
    ties: np.ndarray,
) -> None:
    """Apply `count` to the whole catalogue for examples whose distances fit into memory.

    weights, before: (n, I), or (1, I) if they serve all examples; out: pairs (example, candidate)
    to leave out; the others as in `count`. What is left out is infinitely far.
    """
    own, blocks = logs
    own_logs = own.numpy() - of_targets(before, targets)
    own_strength = strengths(of_targets(weights, targets))
    row, column = out
    for columns, block in blocks:
        here = (column >= columns.start) & (column < columns.stop)
        block[row[here], column[here] - columns.start] = torch.inf
        pulled = block.numpy()
        pulled -= before[:, columns]
        strength = strengths(weights[:, columns])
        count(pulled, strength, own_logs, own_strength, grid, nearer, ties)


def strengths(weights: np.ndarray) -> np.ndarray:
    """log(1 + W) in float64."""
    return np.log1p(np.asarray(weights, dtype=np.float64))


def above(distances: Tensor, low: Tensor) -> Tensor:
    """log(D - min D) of `Logs`, in the place of the distances."""
    return distances.sub_(low).clamp_(min=0).log_()


def of_rows(matrix: np.ndarray, rows: slice) -> np.ndarray:
    """Rows of a matrix with one row an example, or the one row that serves all."""
    return matrix if len(matrix) == 1 else matrix[rows]


def of_targets(matrix: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What a matrix, or the one row that serves all, says about each example's target (n,)."""
    return matrix[np.arange(len(targets)) if len(matrix) > 1 else 0, targets]


@njit(parallel=True, cache=True)
def count(logs, strength, own_logs, own_strength, grid, nearer, ties):
    """Count candidates that are nearer than the target, or tie with it, by the γ of each change.

    logs: (n, m) log D̂ and strength: (n, m) or (1, m) log(1 + W) of some candidates; own_logs,
    own_strength: (n,) those of the targets; grid: (G,).
    nearer, ties: (n, G + 1) int32, changed in place: how many more there are than at the γ before.
    """
    for i in prange(len(logs)):
        row = strength[i] if len(strength) > 1 else strength[0]
        for j in range(len(row)):
            a = logs[i, j] - own_logs[i]
            b = row[j] - own_strength[i]
            if np.isnan(a) or (a == 0 and b == 0):  # both at D̂ = 0, or equal in everything
                ties[i, 0] += 1
                continue
            falls = b < 0  # nearer below a crossing point, instead of beyond it
            if falls:
                a, b = -a, -b
            low = crossing(a, b, grid)
            high = low
            while high < len(grid) and grid[high] * b == a:
                high += 1
            ties[i, low] += 1
            ties[i, high] -= 1
            if falls:
                nearer[i, 0] += 1
                nearer[i, low] -= 1
            else:
                nearer[i, high] += 1


@njit(cache=True)
def crossing(a, b, grid):
    """The number of γ of the grid with γ b < a, for b >= 0."""
    if grid[0] * b >= a:
        return 0
    low, high = 1, len(grid)
    if grid[-1] * b < a:
        return high
    while low < high:
        middle = (low + high) // 2
        if grid[middle] * b < a:
            low = middle + 1
        else:
            high = middle
    return low


def totals(nearer: np.ndarray, ties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks and ties (n, G) from their steps (n, G + 1); the target does not tie with itself."""
    return nearer.cumsum(1, dtype=np.int32)[:, :-1], ties.cumsum(1, dtype=np.int32)[:, :-1] - 1


def nearest(
    queries, vectors, weights: np.ndarray, gamma: float, k: int, before: np.ndarray | None = None
) -> np.ndarray:
    """The k candidates with the smallest D̃ at one γ, (N, k) int64, smallest first.

    Arguments as in `ranks`; of equal candidates the one with the smaller number comes first.
    """
    before = np.zeros(len(vectors)) if before is None else before
    lists = [
        grounding.first(reweighted(logs - of_rows(np.atleast_2d(before), rows), pull, gamma), k)
        for rows, logs, pull in logs_and_weights(queries, vectors, weights)
    ]
    return np.concatenate(lists)


def logs_and_weights(
    queries, vectors, weights: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Some examples at a time: their rows, log D̂ (n, I), and W, (n, I) or (1, I)."""
    step = max(1, BLOCK // len(vectors))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        logs = log_distances(grounding.distances(queries[rows], vectors))
        yield rows, logs, of_rows(np.atleast_2d(weights), rows)


def own_or_theirs(
    queries, vectors, weights: np.ndarray, gammas: np.ndarray, k: int = 20
) -> pd.DataFrame:
    """Whose the first k are at each γ: columns gamma, metric, k, value, n.

    Metric 'own': the share of them that is among the first k at γ = 0; 'theirs': the share that is
    among the k largest weights. Arguments as in `ranks`.
    """
    shared = np.zeros((len(gammas), 2))
    blocks = logs_and_weights(queries, vectors, weights)
    for _, logs, pull in tqdm(blocks, desc="own or theirs", unit="block"):
        own = grounding.first(logs, k)
        theirs = np.broadcast_to(grounding.first(-pull, k), own.shape)
        for number, gamma in enumerate(gammas):
            shown = grounding.first(reweighted(logs, pull, gamma), k)
            shared[number] += [metrics.overlap(shown, each).sum() for each in (own, theirs)]
    shares = pd.DataFrame(shared / len(queries), columns=["own", "theirs"]).assign(gamma=gammas)
    long = shares.melt("gamma", var_name="metric")
    return long.assign(k=k, n=len(queries))[["gamma", "metric", "k", "value", "n"]]


# ------------------------------------------------------------------------------- the choice of γ


def at(swept: tuple[np.ndarray, np.ndarray], gammas: np.ndarray, gamma: float) -> pd.DataFrame:
    """Columns rank and ties at one γ of the grid, from `ranks`."""
    (column,) = np.flatnonzero(gammas == gamma)
    return grounding.frame(*(counts[:, column] for counts in swept))


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


def pairs(
    queries,
    vectors,
    targets: np.ndarray,
    popular: np.ndarray,
    liked: np.ndarray,
    gammas: np.ndarray = GAMMAS,
) -> pd.DataFrame:
    """Both weights at once, D̂ (1 + popular)^-γ1 (1 + liked)^-γ2: the best γ2 for a FEW γ1.

    popular: (I,), liked: (N, I), the others as in `ranks`; examples are those of validation.
    Columns popularity (γ1), collaborative (γ2), value (NDCG@20).
    """
    rows = []
    for first in FEW:
        curve = curves(
            *ranks(queries, vectors, targets, liked, gammas, first * strengths(popular)), gammas
        )
        second = choose(curve, "NDCG", 20)
        value = curve.query("gamma == @second and metric == 'NDCG' and k == 20").value.item()
        rows.append({"popularity": first, "collaborative": second, "value": value})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ bad input


def checked_split(rows) -> None:
    """Refuse no examples at all."""
    if not len(rows):
        raise ReweightingError("there is no example to rank: the split is empty")


def checked_distances(distances: np.ndarray) -> np.ndarray:
    """A copy in float64; refuse what is not finite."""
    if not np.isfinite(distances).all():
        raise ReweightingError("a distance is NaN or infinite: embed or score its example again")
    return np.array(distances, dtype=np.float64)


def checked_weights(weights: np.ndarray, shape: tuple[int, int]) -> None:
    """Refuse weights that are not (I,) or (n, I), or not in 0 ... infinity."""
    if weights.shape not in (shape, shape[1:], (1, shape[1])):
        raise ReweightingError(
            f"weights of shape {weights.shape} do not fit distances of shape {shape}: give one "
            "per candidate, or one per example and candidate"
        )
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ReweightingError("a weight is negative, NaN or infinite: scale weights to 0 ... 1")


def checked_gammas(gammas: np.ndarray) -> np.ndarray:
    """The grid as (G,) float64; refuse one that is empty, does not rise, or goes below 0."""
    grid = np.asarray(gammas, dtype=np.float64)
    if grid.ndim != 1 or not len(grid) or not np.isfinite(grid).all() or (np.diff(grid) <= 0).any():
        raise ReweightingError("gammas must be finite numbers that rise")
    if grid[0] < 0:
        raise ReweightingError(f"gamma {float(grid[0])} is negative: it would punish what is liked")
    return grid
