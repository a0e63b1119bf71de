"""Ranks -> HR and NDCG (docs/method.md, section 2). One held-out target per example.

    HR@K = mean[r < K]        NDCG@K = mean[(r < K) / log2(r + 2)]

r = 0 is the top of the list. Where candidates tie with the target, r follows a policy: `expected`
takes the mean of the places the target may have, `best` the first, `worst` the last.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bigrec_lib.files import StudyError

KS = (1, 3, 5, 10, 20)
TIES = {"best": 0.0, "expected": 0.5, "worst": 1.0}


def effective_rank(ranks: pd.DataFrame, ties: str = "expected") -> np.ndarray:
    """The rank (n,) float64 that metrics see, from columns rank and ties of ranks.parquet.

    Raises StudyError for a policy that is not in TIES.
    """
    if ties not in TIES:
        raise StudyError(f"unknown tie policy {ties!r}: choose one of {', '.join(TIES)}")
    return ranks["rank"].to_numpy(np.float64) + TIES[ties] * ranks["ties"].to_numpy(np.float64)


def hr(rank: np.ndarray, k: int) -> np.ndarray:
    """Hit of each example, 1.0 where its rank is below k; shape of `rank`, float64.

    >>> hr(np.array([0, 2, 3]), k=3).tolist()
    [1.0, 1.0, 0.0]
    """
    return (np.asarray(rank) < k).astype(np.float64)


def ndcg(rank: np.ndarray, k: int) -> np.ndarray:
    """NDCG of each example, 1 / log2(rank + 2) where its rank is below k; shape of `rank`, float64.

    With one relevant item, the best DCG is 1, so DCG and NDCG are the same.

    >>> ndcg(np.array([0, 1, 2, 3]), k=3).round(2).tolist()
    [1.0, 0.63, 0.5, 0.0]
    """
    rank = np.asarray(rank, dtype=np.float64)
    return np.where(rank < k, 1 / np.log2(rank + 2), 0.0)


def overlap(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Share of the first k that two methods have in common, (n,) float64, from lists (n, k).

    >>> overlap(np.array([[3, 1, 2]]), np.array([[2, 7, 3]])).round(2).tolist()
    [0.67]
    """
    return (left[:, :, None] == right[:, None, :]).any(2).mean(1)


def own_and_others(
    lists: np.ndarray, targets: np.ndarray, users: np.ndarray, gains: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a target gets from its own list, and on average from the lists of all other users.

    lists: (n, k) candidates, best first. targets, users: (n,). gains: (k,) what a target in each
    place is worth: ones for HR, 1 / log2(r + 2) for NDCG. Returns two arrays (n,) float64. The
    difference of their means is what shuffling the lists among users costs a method: its personal
    gain. A method that gives everybody the same list has none.
    Raises StudyError if all examples are of one user.
    """
    n, k = lists.shape
    _, user = np.unique(users, return_inverse=True)
    own_counts = np.bincount(user)[user]
    if own_counts[0] == n:
        raise StudyError("all examples are of one user: there is no other list to compare with")
    size = int(max(lists.max(), targets.max())) + 1
    weights = np.tile(gains, n)
    totals = np.bincount(lists.ravel(), weights=weights, minlength=size)  # of each candidate
    keys, inverse = np.unique((user[:, None] * size + lists).ravel(), return_inverse=True)
    user_totals = np.bincount(inverse, weights=weights)  # of each pair of user and candidate
    target_keys = user * size + targets
    place = np.minimum(np.searchsorted(keys, target_keys), len(keys) - 1)
    user_gains = np.where(keys[place] == target_keys, user_totals[place], 0.0)
    own_gains = (lists == targets[:, None]) @ gains
    return own_gains, (totals[targets] - user_gains) / (n - own_counts)


HIT, NEAR = 20, 100  # ranks below HIT are hits, below NEAR near misses


def showcase(rank: np.ndarray, users: np.ndarray, invented: np.ndarray) -> dict[str, int]:
    """One example of each kind, of different users: kind -> row, the first there is.

    rank: (n,) of the targets. users: (n,). invented: (n,) bool, whether what was written is no
    title of the catalogue. Kinds: 'hit', 'near miss' (HIT or more, below NEAR) and 'failure'
    (beyond that, and invented if a further user has such). A kind that no further user has is left
    out.

    >>> showcase(np.array([3, 40, 40, 500]), np.array([7, 7, 8, 9]), np.zeros(4, dtype=bool))
    {'hit': 0, 'near miss': 2, 'failure': 3}
    """
    failures = rank >= NEAR
    masks = {
        "hit": [rank < HIT],
        "near miss": [(rank >= HIT) & ~failures],
        "failure": [failures & invented, failures],
    }
    rows: dict[str, int] = {}
    for kind, preferences in masks.items():
        new_users = ~np.isin(users, users[list(rows.values())])
        candidates = [row for mask in preferences for row in np.flatnonzero(mask & new_users)[:1]]
        if candidates:
            rows[kind] = int(candidates[0])
    return rows


def of_random(metric, k: int, n_candidates: int) -> float:
    """What a list in random order of `n_candidates` is expected to score.

    >>> of_random(hr, 20, 100)
    0.2
    """
    return float(metric(np.arange(n_candidates), k).mean())


COLUMNS = "split method model protocol metric k value n".split()
METRICS = {"HR": hr, "NDCG": ndcg}


def summary(ranks: pd.DataFrame, ks: Sequence[int] = KS, ties: str = "expected") -> pd.DataFrame:
    """Mean HR and NDCG at every k: columns metric, k, value, n.

    ranks: columns rank and ties, a row an example; ties: what becomes of equals (`effective_rank`).
    Raises StudyError if there is no example.
    """
    if ranks.empty:
        raise StudyError("no ranks to average: the split is empty, so draw examples for it first")
    rank = effective_rank(ranks, ties)
    return pd.DataFrame(
        [
            {"metric": name, "k": k, "value": float(metric(rank, k).mean()), "n": len(rank)}
            for name, metric in METRICS.items()
            for k in ks
        ]
    )


def long(summaries: dict[tuple[str, str], pd.DataFrame], model: str) -> pd.DataFrame:
    """What a job's metrics.csv holds: one row a (method, split), metric and k, with COLUMNS.

    summaries: (method, split) -> `summary`. model: the LLM's name. A method named '...-reference'
    follows the reference protocol, every other one the corrected one (docs/method.md, section 5).
    """
    parts = [
        rows.assign(
            split=split,
            method=method,
            model=model,
            protocol="reference" if method.endswith("-reference") else "corrected",
        )
        for (method, split), rows in summaries.items()
    ]
    return pd.concat(parts, ignore_index=True)[COLUMNS]
