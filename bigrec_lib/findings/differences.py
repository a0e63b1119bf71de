"""When a difference of two methods tells something, and in which words: one rule for all pages.

Words go by p-values that are corrected over the table that the difference is in.
"""

from __future__ import annotations

import numpy as np

from bigrec_lib.findings import rules
from bigrec_lib.findings.significance import LEVEL, Interval, Mean, as_columns

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


def guarded(mean: Mean, guard: Mean | None, name: str) -> dict[str, float]:
    """A guard as columns name, name_low and name_high, and p: the larger of the two p-values of a
    mean above zero (`rules.guarded`); 1 without a guard."""
    finding = rules.better(mean)
    p = rules.guarded(finding, {name: guard}).p if guard else 1.0 if finding.favours else finding.p
    return as_columns(guard, name, f"{name}_") | {"p": p}
