"""Popular, or collaboratively likely, candidates pulled nearer (docs/method.md, section 2).

    D̂ = (D - min D) / (max D - min D) in each row          D̃ = D̂ (1 + W)^(-γ)

In logarithms, log D̃ = log D̂ - γ log(1 + W): for a target t and another candidate j, D̃_j < D̃_t
exactly if

    a < γ b     with  a = log D̂_j - log D̂_t,   b = log(1 + W_j) - log(1 + W_t).

That is the definition of "nearer" used here, in fp64; `sweeps` counts by it at every γ in one pass.

The nearest candidate has D̂ = 0 and stays at 0: reweighting cannot displace it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from bigrec_lib.files import StudyError
from bigrec_lib.method import grounding, metrics, sweeps

WHOLE = np.arange(100.0)  # the authors' grid for popularity
FEW = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # γ of popularity in combination
GAMMAS = np.concatenate((np.arange(100) / 100, WHOLE[1:]))  # for collaborative scores, (199,)
THIN = np.r_[np.arange(10) / 10, 1:5, 5, 7, 10, 15, 20, 30, 40, 50, 70, 99]  # for lists, (24,)
BLOCK = 2**22  # distances at a time where whole rows are sorted, 32 MB


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
    return logs - gamma * sweeps.strengths(weights)


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
    seen: candidates to leave out, per query; the target always stays in. D̂ is still scaled
    over all candidates.
    Memory besides the arguments: `sweeps.SWEPT` distances.
    Raises ReweightingError for no queries, bad weights or gammas, GroundingError for bad vectors.
    """
    checked_split(queries)
    queries = grounding.checked(queries, "queries")
    vectors = grounding.checked(vectors, "vectors")
    grounding.same_width(queries, vectors)
    indices = grounding.checked_targets(targets, len(queries), len(vectors))

    def measure(rows: slice) -> sweeps.Measured:
        return sweeps.of_vectors(queries[rows], vectors, indices[rows])

    shape = len(queries), len(vectors)
    return swept(measure, shape, indices.numpy(), weights, gammas, before, seen)


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
    indices = grounding.checked_targets(targets, *distances.shape).numpy()

    def measure(rows: slice) -> sweeps.Measured:
        return sweeps.of_distances(checked_distances(distances[rows]), indices[rows])

    return swept(measure, distances.shape, indices, weights, gammas, before, seen)


def swept(
    measure: Callable[[slice], sweeps.Measured],
    shape: tuple[int, int],
    targets: np.ndarray,
    weights: np.ndarray,
    gammas: np.ndarray,
    before: np.ndarray | None,
    seen: Sequence[np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """`sweeps.sweep` with its arguments checked; arguments as in `ranks`."""
    checked_weights(weights, shape)
    grid = checked_gammas(gammas)
    before = np.zeros(shape[1]) if before is None else before
    arguments = np.atleast_2d(weights), grid, np.atleast_2d(before), seen
    return sweeps.sweep(measure, shape, targets, *arguments)


def nearest(
    queries, vectors, weights: np.ndarray, gamma: float, k: int, before: np.ndarray | None = None
) -> np.ndarray:
    """The k candidates with the smallest D̃ at one γ, (N, k) int64, smallest first.

    Arguments as in `ranks`; of equal candidates the one with the smaller number comes first.
    """
    before = np.zeros(len(vectors)) if before is None else before
    lists = [
        grounding.first(
            reweighted(logs - sweeps.of_rows(np.atleast_2d(before), rows), row_weights, gamma), k
        )
        for rows, logs, row_weights in logs_and_weights(queries, vectors, weights)
    ]
    return np.concatenate(lists)


def logs_and_weights(
    queries, vectors, weights: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of examples: their rows, log D̂ (n, I), and W, (n, I) or (1, I)."""
    step = max(1, BLOCK // len(vectors))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        logs = log_distances(grounding.distances(queries[rows], vectors))
        yield rows, logs, sweeps.of_rows(np.atleast_2d(weights), rows)


def own_or_theirs(
    queries, vectors, weights: np.ndarray, gammas: np.ndarray, k: int = 20
) -> pd.DataFrame:
    """Where the first k come from at each γ: columns gamma, metric, k, value, n.

    Metric 'own': the share of them that is among the first k at γ = 0; 'theirs': the share that is
    among the k largest weights. Arguments as in `ranks`.
    """
    overlaps = np.zeros((len(gammas), 2))
    blocks = logs_and_weights(queries, vectors, weights)
    for _, logs, row_weights in tqdm(blocks, desc="own or theirs", unit="block"):
        own = grounding.first(logs, k)
        theirs = np.broadcast_to(grounding.first(-row_weights, k), own.shape)
        for number, gamma in enumerate(gammas):
            lists = grounding.first(reweighted(logs, row_weights, gamma), k)
            overlaps[number] += [metrics.overlap(lists, source).sum() for source in (own, theirs)]
    shares = pd.DataFrame(overlaps / len(queries), columns=["own", "theirs"]).assign(gamma=gammas)
    long = shares.melt("gamma", var_name="metric")
    return long.assign(k=k, n=len(queries))[["gamma", "metric", "k", "value", "n"]]


# ------------------------------------------------------------------------------- the choice of γ


def at(results: tuple[np.ndarray, np.ndarray], gammas: np.ndarray, gamma: float) -> pd.DataFrame:
    """Columns rank and ties at one γ of the grid, from `ranks`."""
    (column,) = np.flatnonzero(gammas == gamma)
    return grounding.frame(*(counts[:, column] for counts in results))


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
    rows = curve[(curve.metric == metric) & (curve.k == k)].sort_values("gamma")
    return float(rows.gamma.iloc[int(rows.value.argmax())])


def chosen_apart(valid: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """The reference protocol: γ chosen for each metric and k on its own, and what it gives.

    valid, test: `curves`. Columns metric, k, gamma, value, n; value and n are those of `test`.
    """
    choices = [
        {"metric": metric, "k": k, "gamma": choose(valid, metric, k)}
        for metric, k in valid[["metric", "k"]].drop_duplicates().itertuples(index=False)
    ]
    return pd.DataFrame(choices).merge(test, on=["metric", "k", "gamma"], validate="one_to_one")


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
            *ranks(queries, vectors, targets, liked, gammas, first * sweeps.strengths(popular)),
            gammas,
        )
        second = choose(curve, "NDCG", 20)
        value = curve.query("gamma == @second and metric == 'NDCG' and k == 20").value.item()
        rows.append({"popularity": first, "collaborative": second, "value": value})
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ bad input


def checked_split(rows) -> None:
    """Refuse a split without examples."""
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
