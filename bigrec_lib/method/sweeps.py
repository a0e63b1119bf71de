"""The rank of every target at every γ, in one pass over the distances (docs/method.md, section 2).

With a = log D̂_j - log D̂_t and b = log(1 + W_j) - log(1 + W_t), candidate j is nearer than the
target t exactly if a < γ b (`reweighting`). As γ grows each candidate overtakes the target, or
falls behind it, at most once. One pass finds the place on the grid where that happens, and a
cumulative sum over these places gives the target's rank at every γ.

Distances may come from an fp32 product, with a bound on its rounding. A pair is counted only if no
number within that bound would be counted differently; the few others are measured exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor
from tqdm import tqdm

from bigrec_lib.method import grounding, l2

SWEPT = 35_000_000  # distances at a time, 140 MB, beside some blocks of columns
CELLS = 2**14  # of a grid; the authors' has steps of a 9,900th of its last γ
DOUBTFUL = 0.09  # a larger relative error of D - min D is not even bounded


@dataclass(frozen=True)
class Measured:
    """How far some examples (n,) are from all candidates (I,).

    low: (n,) float64, each row's smallest distance, min D. goal: (n,) float64, D - min D of the
    targets. Both are exact.
    blocks: columns and their D - min D (n, m) float64, in turn for the whole catalogue.
    error: (n,) float64, how wrong a squared distance in `blocks` may be; 0 if it is exact.
    exactly: (rows (P,), columns (P,)) -> their exact D - min D (P,) float64.
    """

    low: np.ndarray
    goal: np.ndarray
    blocks: Iterator[tuple[slice, Tensor]]
    error: np.ndarray
    exactly: Callable[[np.ndarray, np.ndarray], np.ndarray]


def of_vectors(queries: Tensor, vectors: Tensor, targets: Tensor) -> Measured:
    """Measure queries (n, d) against vectors (I, d) by one fp32 product; targets: (n,) int64."""
    rough = l2.rough_squares(queries, vectors)
    low = rough.lowest.sqrt()

    def exactly(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        pairs = (queries, torch.from_numpy(row), vectors, torch.from_numpy(column))
        return (l2.squared_distance(*pairs).sqrt_() - low[row]).numpy()

    def blocks() -> Iterator[tuple[slice, Tensor]]:
        norms, minima = rough.norms.numpy(), low.numpy()
        for columns, scores in l2.blocks(rough.scores, len(queries)):
            gaps = np.empty(scores.shape)
            beyond(scores.numpy(), norms, minima, gaps)
            yield columns, torch.from_numpy(gaps)

    goal = exactly(np.arange(len(queries)), targets.numpy())
    return Measured(low.numpy(), goal, blocks(), rough.error.numpy(), exactly)


@njit(parallel=True, cache=True)
def beyond(scores, norms, low, gaps):
    """gaps = D - min D (n, m), from scores (n, m) and norms (n,) of `l2.Rough`; low: (n,) min D."""
    for i in prange(len(scores)):
        for j in range(scores.shape[1]):
            gaps[i, j] = np.sqrt(max(scores[i, j] + norms[i], 0.0)) - low[i]


def of_distances(distances: np.ndarray, targets: np.ndarray) -> Measured:
    """Distances (n, I) float64 as they are; targets: (n,)."""
    low = distances.min(1)

    def exactly(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return distances[row, column] - low[row]

    def blocks() -> Iterator[tuple[slice, Tensor]]:
        for start in range(0, distances.shape[1], l2.COLUMNS):
            columns = slice(start, start + l2.COLUMNS)
            yield columns, torch.from_numpy(distances[:, columns] - low[:, None])

    goal = exactly(np.arange(len(distances)), targets)
    return Measured(low, goal, blocks(), np.zeros(len(distances)), exactly)


def sweep(
    measure: Callable[[slice], Measured],
    shape: tuple[int, int],
    targets: np.ndarray,
    weights: np.ndarray,
    grid: np.ndarray,
    before: np.ndarray,
    seen: Sequence[np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank and ties of each target at every γ, (N, G) int32 each.

    measure: for some of the examples, as many as fit into memory. shape: (N, I). weights: W, and
    before: γ log(1 + W) of weights applied already, each (N, I), or (1, I) for all examples.
    grid: (G,) float64, rising. seen: candidates to leave out, per example, but the target.
    """
    seen = [np.empty(0)] * shape[0] if seen is None else seen
    nearer, ties = np.zeros((2, shape[0], len(grid) + 1), dtype=np.int32)
    parts = -(-shape[0] * shape[1] // SWEPT)
    with tqdm(total=shape[0], desc="γ sweep", unit="example") as bar:
        for numbers in np.array_split(np.arange(shape[0]), min(parts, shape[0])):
            rows = slice(numbers[0], numbers[-1] + 1)
            part = targets[rows]
            exclusions = grounding.left_out(seen[rows], torch.from_numpy(part))
            matrices = of_rows(weights, rows), of_rows(before, rows)
            count_some(measure(rows), part, *matrices, exclusions, grid, nearer[rows], ties[rows])
            bar.update(len(numbers))
    return totals(nearer, ties)


def count_some(
    distances: Measured,
    targets: np.ndarray,
    weights: np.ndarray,
    before: np.ndarray,
    exclusions: tuple[Tensor, Tensor],
    grid: np.ndarray,
    nearer: np.ndarray,
    ties: np.ndarray,
) -> None:
    """Count the whole catalogue for examples whose distances fit into memory.

    weights, before: (n, I), or (1, I) if they serve all examples; exclusions: pairs (example,
    candidate) to leave out, which are made infinitely far; nearer, ties: as in `count`, changed in
    place.
    """
    cells = cells_of(grid)
    target_logs = logarithms(distances.goal) - of_targets(before, targets)
    goals = target_logs, strengths(of_targets(weights, targets))
    row, column = exclusions
    for columns, gaps in distances.blocks:
        inside = (column >= columns.start) & (column < columns.stop)
        gaps[row[inside], column[inside] - columns.start] = torch.inf
        logs = rough_logarithms(gaps) if distances.error.any() else logarithms(gaps.numpy())
        logs -= before[:, columns]
        strength = strengths(weights[:, columns])
        unsure = np.empty(logs.shape, dtype=np.bool_)
        errors = gaps.numpy(), distances.low, distances.error, unsure
        count(logs, strength, *goals, *errors, grid, cells, nearer, ties)
        examples, places = unsure.nonzero()
        if len(examples):
            pair_logs = logarithms(distances.exactly(examples, columns.start + places))
            pair_logs -= of_pairs(before[:, columns], examples, places)
            pair_strength = of_pairs(strength, examples, places)
            count_pairs(examples, pair_logs, pair_strength, *goals, grid, cells, nearer, ties)


def logarithms(distances: np.ndarray) -> np.ndarray:
    """log(D - min D), -inf at 0: by one library throughout, so that equal distances stay equal."""
    with np.errstate(divide="ignore"):
        return np.log(distances)


def rough_logarithms(distances: Tensor) -> np.ndarray:
    """`logarithms` but for the last digit, on all cores: for distances with an error."""
    return distances.clamp(min=0).log_().numpy()


@njit(parallel=True, cache=True)
def count(
    logs, strength, target_logs, target_strength,
    gaps, low, error, unsure, grid, cells, nearer, ties,
):  # fmt: skip
    """Count candidates that are nearer than the target, or tie with it, by the γ of each change.

    logs: (n, m) log D̂ and strength: (n, m) or (1, m) log(1 + W) of some candidates; target_logs,
    target_strength: (n,) those of the targets; grid: (G,), cells: of `cells_of`. gaps: (n, m)
    D - min D; low, error: as in `Measured`. nearer, ties: (n, G + 1) int32, changed in place: how
    many more there are than at the γ before. unsure: (n, m) bool, changed in place: pairs that are
    not counted, as their error might change the count.
    """
    first, last = grid[0], grid[-1]
    for i in prange(len(logs)):
        row = strength[i] if len(strength) > 1 else strength[0]
        base = 0  # those nearer at every γ of the grid: most are so, or at none
        for j in range(len(row)):
            a, b = logs[i, j] - target_logs[i], row[j] - target_strength[i]
            falls = b < 0  # nearer below a crossing point, instead of beyond it
            if falls:
                a, b = -a, -b
            doubt = uncertainty(gaps[i, j], low[i], error[i])
            unsure[i, j] = False
            if a - doubt > last * b:
                base += falls
            elif a + doubt < first * b:
                base += not falls
            else:
                unsure[i, j] = not tally(a, b, falls, doubt, grid, cells, nearer[i], ties[i])
        nearer[i, 0] += base


@njit(cache=True)
def count_pairs(row, logs, strength, target_logs, target_strength, grid, cells, nearer, ties):
    """Count single candidates (P,) of the examples `row`; other arguments as in `count`."""
    for pair in range(len(row)):
        i = row[pair]
        a, b = logs[pair] - target_logs[i], strength[pair] - target_strength[i]
        falls = b < 0
        if falls:
            a, b = -a, -b
        tally(a, b, falls, 0.0, grid, cells, nearer[i], ties[i])


@njit(cache=True)
def uncertainty(gap, low, error):
    """How wrong log(D - min D) may be, if D² is wrong by no more than `error`; infinite where that
    has no simple bound. gap: D - min D, low: min D.

    D is wrong by at most error / (1.9 D) if error < 0.1 D², and log x by at most 1.1 times the
    relative error of x if that is below DOUBTFUL.
    """
    if error == 0:
        return 0.0
    distance = gap + low
    if gap <= 0 or error >= 0.1 * distance * distance:
        return np.inf
    doubt = 0.6 * error / (distance * gap)
    return doubt if doubt <= DOUBTFUL else np.inf


@njit(cache=True)
def tally(a, b, falls, doubt, grid, cells, nearer, ties):
    """Add one candidate to the counts (G + 1,) of its example; False, and nothing added, if another
    a within `doubt` would be counted differently. b >= 0: both have changed their signs where it
    `falls` behind the target as γ grows."""
    if doubt == np.inf:
        return False
    if np.isnan(a) or (a == 0 and b == 0):  # both at D̂ = 0, or equal in everything
        ties[0] += doubt == 0
        return doubt == 0
    low = crossing(a, b, grid, cells)
    if doubt > 0:
        if low > 0 and grid[low - 1] * b >= a - doubt:
            return False
        if low < len(grid) and grid[low] * b <= a + doubt:
            return False
    high = low
    while high < len(grid) and grid[high] * b == a:
        high += 1
    if high > low:
        ties[low] += 1
        ties[high] -= 1
    if falls:
        nearer[0] += 1
        nearer[low] -= 1
    else:
        nearer[high] += 1
    return True


@njit(cache=True)
def crossing(a, b, grid, cells):
    """The number of γ of the grid with γ b < a, for b >= 0."""
    if grid[0] * b >= a:
        return 0
    if grid[-1] * b < a:
        return len(grid)
    last = len(cells) - 1
    place = cells[min(int(a * last / (b * grid[-1])), last)]
    while grid[place - 1] * b >= a:
        place -= 1
    while grid[place] * b < a:
        place += 1
    return place


def cells_of(grid: np.ndarray) -> np.ndarray:
    """Where to look first in a grid (G,): 0 to its last γ is cut into CELLS equal parts; how many γ
    lie before each, but at least one and at most all but one, (CELLS + 1,) int32."""
    starts = np.linspace(0, grid[-1], CELLS + 1)
    return np.searchsorted(grid, starts).clip(1, max(1, len(grid) - 1)).astype(np.int32)


def totals(nearer: np.ndarray, ties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks and ties (n, G) from their steps (n, G + 1); the target does not tie with itself."""
    return nearer.cumsum(1, dtype=np.int32)[:, :-1], ties.cumsum(1, dtype=np.int32)[:, :-1] - 1


def strengths(weights: np.ndarray) -> np.ndarray:
    """log(1 + W) in float64."""
    return np.log1p(np.asarray(weights, dtype=np.float64))


def of_rows(matrix: np.ndarray, rows: slice) -> np.ndarray:
    """Rows of a matrix with one row an example, or the one row that serves all."""
    return matrix if len(matrix) == 1 else matrix[rows]


def of_targets(matrix: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The values of a matrix, or of the one row that serves all, at each example's target, (n,)."""
    return of_pairs(matrix, np.arange(len(targets)), targets)


def of_pairs(matrix: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The values of a matrix, or of the one row that serves all, at pairs, (P,)."""
    return matrix[row if len(matrix) > 1 else 0, column]
