"""When a difference of two methods tells something, and in which words: one rule for 14 to 18.

As in 07, words go by p-values that are corrected over the table that the difference is in.
"""

from __future__ import annotations

import numpy as np

from bigrec_lib.findings import prose
from bigrec_lib.findings.significance import LEVEL, Interval, Mean

NEITHER, NOTHING, ONE = "neither has a hit", "nothing differs", "only one of the two has a hit"


def gap(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Why a difference gets no interval; '' where it gets one.

    ours, theirs: NDCG@20 of the same examples under the same seeds, of one shape. Where no example
    differs, or one side has no hit, nothing varies that an error could be estimated from.
    """
    hits = bool(np.any(ours)), bool(np.any(theirs))
    if not any(hits):
        return NEITHER
    if np.array_equal(ours, theirs):
        return NOTHING
    return "" if all(hits) else ONE


def ends(mean: Mean, reason: str) -> dict[str, float | str]:
    """low, high, p and gap of a difference; NaN in place of numbers where `gap` gives a reason."""
    if reason:
        return {"low": np.nan, "high": np.nan, "p": np.nan, "gap": reason}
    return {"low": mean.interval.low, "high": mean.interval.high, "p": mean.p, "gap": ""}


def word(interval: Interval, corrected: float, above: str, below: str, between: str) -> str:
    """The word for a difference; `between` unless its corrected p-value is below LEVEL."""
    return interval.verdict(above, below, between) if corrected < LEVEL else between


def ahead(name: str, row) -> str:
    """BIGRec against a method called `name`: "is **behind** Item kNN, by 0.0222 [0.0003, 0.0441]".

    row: difference, low, high, corrected and gap, of NDCG@20.
    """
    if row.gap:
        return f"cannot be compared with {name}: **{row.gap}** (difference {row.difference:+.4f})"
    interval = Interval(row.difference, row.low, row.high)
    relation = word(interval, row.corrected, "ahead of", "behind", "not told apart from")
    if relation == "behind":
        interval = Interval(-interval.mean, -interval.high, -interval.low)
    distance = f"by {interval}" if relation != "not told apart from" else prose.signed(interval)
    return f"is **{relation}** {name}, {distance}"
