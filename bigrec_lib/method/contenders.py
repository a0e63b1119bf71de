"""The few candidates by which an example can be ranked again at any γ, without the catalogue.

A candidate's key at γ is log D̂ - γ log(1 + W) (`reweighting`). Over a whole grid of γ only some of
the catalogue ever come among the first k: with their log D̂ and log(1 + W) as they are, in fp64,
the first k at every γ follow by one multiplication, one subtraction and a sort, which round alike
in every language. The target's place counts the whole catalogue, so it is kept for every γ.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from tqdm import tqdm

from bigrec_lib.method import grounding, reweighting


def contenders(
    logs: np.ndarray, pulls: dict[str, np.ndarray], gammas: np.ndarray, k: int
) -> np.ndarray:
    """The candidates (m,) int64, rising, that are among the first k at some γ under some weights.

    logs: log D̂ (I,) of one example; pulls: name -> log(1 + W) (I,); gammas: (G,).
    """
    lists = [grounding.first(logs - gammas[:, None] * pull, k) for pull in pulls.values()]
    return np.unique(np.concatenate(lists, axis=None))


def table(
    queries,
    vectors,
    weights: dict[str, np.ndarray],
    swept: dict[str, tuple[np.ndarray, np.ndarray]],
    gammas: np.ndarray,
    k: int,
) -> pd.DataFrame:
    """What ranks some examples again: a row an example and weights, examples in order.

    queries: (n, d); vectors: (I, d); weights: name -> W, (I,) or (n, I); swept: name -> rank and
    ties of the targets, (n, G) each; gammas: (G,). Columns row (0 ... n-1), weights; low, high (the
    smallest and largest distance); candidates, logs (log D̂; null for -inf, the nearest's), pulls
    (log(1 + W)): (m,) each, candidates those of all weights; rank, ties: (G,) each.
    """
    rows = []
    for row in tqdm(range(len(queries)), desc="contenders", unit="example"):
        distances = grounding.distances(queries[row : row + 1], vectors)
        logs = reweighting.log_distances(distances)[0]
        own = slice(row, row + 1)
        pulls = {
            name: reweighting.strengths(reweighting.of_rows(np.atleast_2d(matrix), own)[0])
            for name, matrix in weights.items()
        }
        few = contenders(logs, pulls, gammas, k)
        kept = {"candidates": few, "logs": [*map(finite, logs[few])]}
        span = {"low": distances.min(), "high": distances.max()}
        for name, pull in pulls.items():
            places = {"rank": swept[name][0][row], "ties": swept[name][1][row]}
            rows.append({"row": row, "weights": name} | span | kept | {"pulls": pull[few]} | places)
    return pd.DataFrame(rows)


def finite(number: float) -> float | None:
    """A number as JSON can write it: None for -inf."""
    return float(number) if np.isfinite(number) else None
