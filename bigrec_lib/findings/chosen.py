"""What selections of samples consist of, and how much two of them share (13, 13a)."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from bigrec_lib.findings.choices import LABELS

PROFILE = ("popularity", "length", "age", "words")


def profiles(samples: pd.DataFrame) -> pd.DataFrame:
    """What arms choose: a row a data set, budget and arm, mean of draws.

    samples: selections.parquet. Columns dataset, budget, arm, users (different ones) and PROFILE:
    training interactions of the target, titles of the history, age (0 the newest training sample, 1
    the oldest), share of the target's words that the history has.
    """
    keys = ["dataset", "budget", "arm"]
    draws = samples.groupby([*keys, "draw"], sort=False)
    means = draws[list(PROFILE)].mean().join(draws.user.nunique().rename("users"))
    profile = means.groupby(level=keys, sort=False).mean().reset_index()
    return profile[[*keys, "users", *PROFILE]]


def overlaps(samples: pd.DataFrame) -> pd.DataFrame:
    """Jaccard overlap of what two arms choose, mean of pairs of draws: columns dataset, budget,
    arm, against, jaccard. Of an arm and itself: different draws; 1 where there is one."""
    rows = []
    for (dataset, budget), group in samples.groupby(["dataset", "budget"], sort=False):
        sets: dict[str, list[set]] = {}
        for (arm, _), draw in group.groupby(["arm", "draw"]):
            sets.setdefault(arm, []).append(set(draw.example))
        names = [arm for arm in LABELS if arm in sets]
        for arm, against in product(names, repeat=2):
            pairs = [
                len(a & b) / len(a | b)
                for i, a in enumerate(sets[arm])
                for j, b in enumerate(sets[against])
                if arm != against or i != j or len(sets[arm]) == 1
            ]
            row = {"dataset": dataset, "budget": budget, "arm": arm, "against": against}
            rows.append(row | {"jaccard": float(np.mean(pairs))})
    return pd.DataFrame(rows, columns="dataset budget arm against jaccard".split())
