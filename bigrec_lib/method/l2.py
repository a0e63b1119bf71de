"""Squared L2 distances: exact ones, and those of one fp32 product with a bound on its rounding.

Subtracting the mean title changes no distance, but makes the numbers small, so that one product
decides almost every comparison. What it leaves open is measured in fp64, from differences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

ROWS = 2048  # queries in one matrix product
COLUMNS = 1024  # candidates in one matrix product
UNIT = 2.0**-24  # rounding of fp32
SHARE = 1e-6  # of two squared lengths, within which a squared distance in fp64 is measured again


def squared_distances(queries: Tensor, vectors: Tensor, goal: Tensor) -> Tensor:
    """Squared L2 distances (n, I) in fp64.

    goal: (n,) squared distances that matter. Near them, near 0 and near a row's smallest, where
    the rounding of the product would show, the distance is taken from differences: equal ones come
    out equal.
    """
    shift = mean(vectors).double()
    left = queries - shift  # (n, d)
    lengths = left.square().sum(1), torch.empty(len(vectors), dtype=torch.float64)
    squares = torch.empty(len(queries), len(vectors), dtype=torch.float64)

    def measure(close: Tensor) -> None:
        """Measure again the pairs of a mask (n, I)."""
        row, column = close.nonzero(as_tuple=True)
        squares[row, column] = squared_distance(queries, row, vectors, column)

    for start in range(0, len(vectors), COLUMNS):
        columns = slice(start, start + COLUMNS)
        right = vectors[columns] - shift  # (m, d)
        lengths[1][columns] = right.square().sum(1)
        sums = lengths[0][:, None] + lengths[1][columns]
        torch.addmm(sums, left, right.T, alpha=-2, out=squares[:, columns])
    close = torch.empty(squares.shape, dtype=torch.bool)
    find_close(*(tensor.numpy() for tensor in (squares, *lengths, goal, close)))
    measure(close)
    slack = SHARE * (lengths[0] + lengths[1].amax())
    measure(squares < (squares.amin(1) + slack)[:, None])
    return squares


@njit(parallel=True, cache=True)
def find_close(squares, query_lengths, vector_lengths, goal, close):
    """Which squares (n, I) are near 0 or near their goal (n,); lengths, (n,) and (I,), squared."""
    for row in prange(len(squares)):
        for column in range(squares.shape[1]):
            slack = SHARE * (query_lengths[row] + vector_lengths[column])
            square = squares[row, column]
            close[row, column] = square < slack or abs(square - goal[row]) < slack


def blocks(squares: Tensor, rows: int) -> Iterator[tuple[slice, Tensor]]:
    """The parts of `Rough.scores`: some columns, and their scores (rows, m)."""
    for start in range(0, len(squares) // rows, COLUMNS):
        columns = slice(start, start + COLUMNS)
        yield columns, squares[start * rows : columns.stop * rows].view(rows, -1)


@dataclass(frozen=True)
class Rough:
    """Squared L2 distances by one fp32 product: score + norm, give or take error.

    scores: (n * I,) float32, as `blocks` reads them. norms, error: (n,) float64.
    lowest: (n,) float64, each row's smallest squared distance, exact.
    """

    scores: Tensor
    norms: Tensor
    error: Tensor
    lowest: Tensor


def rough_squares(queries: Tensor, vectors: Tensor) -> Rough:
    """Measure queries (n, d) against vectors (I, d)."""
    n = len(queries)
    scores = torch.empty(n * len(vectors), dtype=torch.float32)
    norms, error = torch.zeros((2, n), dtype=torch.float64)
    minima = torch.full((n,), torch.inf, dtype=torch.float64)
    parts = {columns.start: block for columns, block in blocks(scores, n)}
    for rows, start, score, row_norms, row_error in products(queries, vectors):
        parts[start][rows] = score
        norms[rows] = row_norms[:, 0]
        error[rows] = torch.maximum(error[rows], row_error[:, 0])
        minima[rows] = torch.minimum(minima[rows], score.amin(1).double())
    limit = (minima + 2 * error).float().nextafter(torch.tensor(torch.inf))  # of possible nearest
    lowest = torch.full((n,), torch.inf, dtype=torch.float64)
    for start, block in parts.items():
        row, column = (block <= limit[:, None]).nonzero(as_tuple=True)
        exact = squared_distance(queries, row, vectors, start + column)
        lowest.scatter_reduce_(0, row, exact, "amin")
    return Rough(scores, norms, error, lowest)


def squared_distance(queries: Tensor, row: Tensor, vectors: Tensor, column: Tensor) -> Tensor:
    """Squared L2 distance of pairs (query, candidate), (P,) float64, from differences.

    The one definition of an exact distance: equal vectors give equal numbers.
    """
    squares = np.empty(len(row))
    step = max(1, 2**22 // queries.shape[1])  # of the values that are copied
    for start in range(0, len(row), step):
        pairs = slice(start, start + step)
        left, first = readable(queries, row[pairs])
        right, second = readable(vectors, column[pairs])
        add_squares(left, first, right, second, squares[pairs])
    return torch.from_numpy(squares)


def readable(vectors: Tensor, row: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """An array, and where in it these rows are: all vectors, or of bfloat16 and the like a copy."""
    if vectors.dtype in (torch.float32, torch.float64):
        return vectors.numpy(), row.numpy()
    return vectors[row].float().numpy(), np.arange(len(row))


@njit(parallel=True, fastmath={"reassoc", "contract"}, cache=True)
def add_squares(left, first, right, second, squares):
    """squares[p] = |left[first[p]] - right[second[p]]|², summed in float64; left (n, d), right
    (m, d), the others (P,)."""
    for pair in prange(len(first)):
        x, y = left[first[pair]], right[second[pair]]
        total = 0.0
        for k in range(len(x)):
            difference = np.float64(x[k]) - np.float64(y[k])
            total += difference * difference
        squares[pair] = total


def mean(vectors: Tensor) -> Tensor:
    """The mean (d,) float32 of at most 4,096 vectors, spread evenly over all.

    Any shift leaves distances as they are; one near the mean keeps the rounding small.
    """
    return vectors[:: -(-len(vectors) // 4096)].float().mean(0)


def products(
    queries: Tensor, vectors: Tensor
) -> Iterator[tuple[slice, int, Tensor, Tensor, Tensor]]:
    """Squared distances in fp32, block by block: (rows, first column, score, norms, error).

    score: (r, m) float32, norms and error: (r, 1) float64; the squared distance is score + norms,
    give or take error.
    """
    shift = mean(vectors)
    left = (queries - shift).float()  # (n, d)
    left_norms = left.square().sum(1, keepdim=True).double()  # (n, 1)
    for start in range(0, len(vectors), COLUMNS):
        right = (vectors[start : start + COLUMNS] - shift).float()  # (m, d)
        norms = right.square().sum(1)  # (m,)
        error = rounding(queries.shape[1]) * (left_norms.sqrt() + norms.max().sqrt()).square()
        for first in range(0, len(queries), ROWS):
            rows = slice(first, first + ROWS)
            score = torch.addmm(norms, left[rows], right.T, alpha=-2)
            yield rows, start, score, left_norms[rows], error[rows]


def compared(
    scores: Tensor, which: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """How many scores lie below a bound, and which lie between two.

    scores: (r, m) float32; which: (n,) the row of scores that is compared; low, high: (n,) float32.
    Returns counts below low, (n,) int64, and the pairs from low to high: numbers of the n, and
    columns, (P,) int64 each, row by row.
    """
    arrays = [tensor.numpy() for tensor in (scores, which, low, high)]
    counts = np.empty((2, len(which)), dtype=np.int64)  # below low, and from low to high
    count_below(*arrays, *counts)
    first = np.cumsum(counts[1]) - counts[1]
    column = np.empty(counts[1].sum(), dtype=np.int64)
    find_between(*arrays, first, counts[1], column)
    row = np.repeat(np.arange(len(which)), counts[1])
    return torch.from_numpy(counts[0]), torch.from_numpy(row), torch.from_numpy(column)


@njit(parallel=True, cache=True)
def count_below(scores, which, low, high, below, between):
    """Count for each of n the scores below low, and those from low to high; see `compared`."""
    for number in prange(len(which)):
        row, least, most = scores[which[number]], low[number], high[number]
        smaller = no_larger = 0
        for column in range(len(row)):
            smaller += row[column] < least
            no_larger += row[column] <= most
        below[number], between[number] = smaller, no_larger - smaller


@njit(parallel=True, cache=True)
def find_between(scores, which, low, high, first, between, column_of_pair):
    """Write the columns of each of n from first[n] on; see `compared`."""
    for number in prange(len(which)):
        if between[number]:
            row, pair = scores[which[number]], first[number]
            for column in range(len(row)):
                if low[number] <= row[column] <= high[number]:
                    column_of_pair[pair] = column
                    pair += 1


def rounding(d: int) -> float:
    """A bound on the fp32 error of |x|² - 2 q·x, as a share of (|q| + |x|)².

    The roundings of a dot product of d terms are a random walk that ends within √d / 3 UNIT |q||x|
    (one standard deviation, at its worst: all terms of one sign). Twelve of them are allowed, and
    some units for the norms and the centring; |q||x| <= (|q| + |x|)² / 4.
    """
    return (2 * d**0.5 + 8) * UNIT
