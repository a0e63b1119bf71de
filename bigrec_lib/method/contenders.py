"""The few candidates by which an example can be ranked again at any γ of a grid, without the
catalogue.

A candidate's key at γ is log D̂ - γ log(1 + W) (`reweighting`). Over a whole grid of γ only some of
the catalogue are ever among the first k. From their log D̂ and log(1 + W), unrounded in fp64, the
first k at every γ follow by one multiplication, one subtraction and a sort, which round alike in
every language. The target's place counts the whole catalogue, so it is stored for every γ.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from tqdm import tqdm

from bigrec_lib.method import grounding, reweighting, sweeps


def contenders(
    logs: np.ndarray, pulls: dict[str, np.ndarray], gammas: np.ndarray, k: int
) -> np.ndarray:
    """The candidates (m,) int64, rising, that are among the first k at some γ under some weights.

    logs: log D̂ (I,) of one example; pulls: name -> log(1 + W) (I,); gammas: (G,).
    """
    lists = [grounding.first(logs - gammas[:, None] * pull, k) for pull in pulls.values()]
    return np.unique(np.concatenate(lists, axis=None))


def table(
    queries: np.ndarray,
    vectors: np.ndarray,
    rows: np.ndarray,
    weights: dict[str, np.ndarray],
    places: dict[str, tuple[np.ndarray, np.ndarray]],
    gammas: np.ndarray,
    k: int,
) -> pd.DataFrame:
    """What ranks some examples again: a row an example and weights, examples in order.

    queries: (n, d); vectors: (I, d); rows: which queries, rising; weights: name -> W, (I,) or
    (n, I); places: name -> rank and ties of the targets, (n, G) each; gammas: (G,). All queries are
    measured as `reweighting.nearest` does, so that distances round as they do there.
    Columns row, weights; low, high (the smallest and largest distance); candidates, logs (log D̂),
    pulls (log(1 + W)): (m,) each, candidates those of all weights; rank, ties: (G,) each.
    """
    records = []
    blocks = reweighting.logs_and_weights(queries, vectors, next(iter(weights.values())))
    for block, block_logs, _ in tqdm(blocks, desc="contenders", unit="block"):
        for row in rows[(rows >= block.start) & (rows < block.stop)]:
            logs = block_logs[row - block.start]
            pulls = {
                name: sweeps.strengths(w if w.ndim == 1 else w[row]) for name, w in weights.items()
            }
            candidates = contenders(logs, pulls, gammas, k)
            extremes = vectors[[logs.argmin(), logs.argmax()]].astype(np.float64)
            low, high = np.linalg.norm(queries[row] - extremes, axis=1)
            record = {
                "row": row,
                "low": low,
                "high": high,
                "candidates": candidates,
                "logs": logs[candidates],
            }
            for name, pull in pulls.items():
                rank, ties = (counts[row] for counts in places[name])
                fields = {"weights": name, "pulls": pull[candidates], "rank": rank, "ties": ties}
                records.append(record | fields)
    return pd.DataFrame(records)
