"""Intervals and paired tests for what is measured per example, under several seeds.

Examples are nested in users, and every seed sees the same examples: seeds, users and what is left
between the two each have a variance of their own. The variance of a mean is put together from the
three, its degrees of freedom by Satterthwaite's rule, and interval and p-value come from the same
t distribution. `calibration` tries the procedure on simulated studies: docs/protocol.md has the
error rates and the power that follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from bigrec_lib.method import metrics

LEVEL = 0.05  # of tests; intervals cover 1 - LEVEL
FLOOR = -0.75  # of what seeds add, as a share of the other variances; tried by `calibration`


@dataclass(frozen=True)
class Interval:
    """A mean with a 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def verdict(self, above: str, below: str, between: str) -> str:
        """A word for an interval above zero, below it, or around it."""
        return above if self.low > 0 else below if self.high < 0 else between


# ------------------------------------------------------------------------------- one mean


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and examples, with its standard error and degrees of freedom."""

    value: float
    error: float
    df: float
    seeds: int
    users: int
    n: int

    @property
    def varies(self) -> bool:
        """Whether there is an error to speak of; not with one user, nor where all is the same."""
        return self.error > 1e-12 * abs(self.value)

    @property
    def interval(self) -> Interval:
        reach = special.stdtrit(self.df, 1 - LEVEL / 2) * self.error
        return Interval(self.value, self.value - reach, self.value + reach)

    def p_above(self, bound: float = 0.0) -> float:
        """One-sided p-value of "the mean is above the bound"; 1.0 where nothing varies."""
        if not self.varies:
            return 1.0
        return float(special.stdtr(self.df, (bound - self.value) / self.error))

    def p_below(self, bound: float = 0.0) -> float:
        """One-sided p-value of "the mean is below the bound"; 1.0 where nothing varies."""
        if not self.varies:
            return 1.0
        return float(special.stdtr(self.df, (self.value - bound) / self.error))

    @property
    def p(self) -> float:
        """Two-sided p-value of "the mean is not zero"."""
        return min(1.0, 2 * min(self.p_above(), self.p_below()))

    @property
    def detectable(self) -> float:
        """The difference from zero that is found with a power of 80 %."""
        return float(special.stdtrit(self.df, [1 - LEVEL / 2, 0.8]).sum() * self.error)


def mean_of(values: np.ndarray, users: np.ndarray) -> Mean:
    """The mean of values (S, n) of n examples under S seeds, with its error.

    users: (n,) the user of each example. The variance is V(users) + V(seeds) - V(both): what seeds
    and users do together is in the first two terms, so it is subtracted once. V(seeds) - V(both)
    may be negative by chance; it is at least FLOOR times the smaller of V(both) and V(users), so
    the sum stays positive. One seed says nothing of seeds: the error is then that of its own run.
    One user says nothing of users: there is no error then (NaN).
    Raises ValueError for no values or values that are not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError("a mean needs at least one value, and finite values only")
    seeds, n = values.shape
    _, user = np.unique(users, return_inverse=True)
    sizes = np.bincount(user)
    mean, seed_means, example_means = values.mean(), values.mean(1), values.mean(0)
    if len(sizes) == 1:
        return Mean(float(mean), float("nan"), 1.0, seeds, 1, n)
    v_users = clustered(example_means - mean, user) / n**2
    df_users = max((sizes**2).sum() ** 2 / (sizes**4).sum() - 1, 1.0)
    if seeds == 1:
        return Mean(float(mean), v_users**0.5, df_users, seeds, len(sizes), n)
    v_seeds = ((seed_means - mean) ** 2).sum() / (seeds * (seeds - 1))
    residuals = values - seed_means[:, None] - example_means + mean
    v_both = sum(clustered(row, user) for row in residuals) / (seeds * (seeds - 1) * n**2)
    variance = v_users + max(v_seeds - v_both, FLOOR * min(v_both, v_users))
    df_seeds = seeds - 1
    denominator = v_seeds**2 / df_seeds + v_users**2 / df_users + v_both**2 / (df_seeds * df_users)
    df = variance**2 / denominator if denominator else 0.0
    df *= df_seeds / (df_seeds + 0.5)  # with few seeds the estimate of df is too large
    df = max(df, min(df_seeds, df_users))
    return Mean(float(mean), variance**0.5, float(df), seeds, len(sizes), n)


def clustered(values: np.ndarray, user: np.ndarray) -> float:
    """Sum over the m users of the squared sum of their values, times m / (m − 1)."""
    sums = np.bincount(user, weights=values)
    return float(len(sums) / max(len(sums) - 1, 1) * (sums**2).sum())


def interval(values: np.ndarray, users: np.ndarray) -> Interval:
    """The interval of the mean of one run's values (n,), whose examples are of `users` (n,)."""
    return mean_of(np.asarray(values)[None], users).interval


def intervals(
    ranks: dict[str, pd.DataFrame], users: np.ndarray, ks: Sequence[int] = (1, 5, 20)
) -> pd.DataFrame:
    """Mean HR and NDCG with their intervals: a row a name in `ranks`, a column a metric and k.

    ranks: name -> columns rank and ties, a row an example. users: (n,) the user of each.
    """
    return pd.DataFrame(
        {
            name: {
                f"{metric}@{k}": interval(score(metrics.effective_rank(frame), k), users)
                for metric, score in metrics.METRICS.items()
                for k in ks
            }
            for name, frame in ranks.items()
        }
    ).T


def influence(parts: np.ndarray) -> tuple[float, np.ndarray]:
    """mean(parts[0]) / mean(parts[1]) of parts (2, S, n), and what each cell adds to it, (S, n).

    To first order, the ratio's error is that of the mean of the cells.
    Raises ValueError where the second mean is not above zero.
    """
    top, bottom = np.asarray(parts, dtype=np.float64)
    level = bottom.mean()
    if not level > 0:
        raise ValueError("a ratio needs a level above zero")
    ratio = top.mean() / level
    return float(ratio), (top - ratio * bottom) / level


def ratio_of(parts: np.ndarray, users: np.ndarray, minus: np.ndarray | None = None) -> Mean:
    """mean(parts[0]) / mean(parts[1]) of parts (2, S, n), less the same of `minus`, with its error.

    Raises ValueError where a level is not above zero.
    """
    ratio, cells = influence(parts)
    if minus is not None:
        their_ratio, their_cells = influence(minus)
        ratio, cells = ratio - their_ratio, cells - their_cells
    return replace(mean_of(cells, users), value=ratio)


def relative_of(values: np.ndarray, base: np.ndarray, users: np.ndarray) -> Mean:
    """mean(values) / mean(base) − 1, of (S, n) each, with its error. Raises as `ratio_of` does."""
    return ratio_of(np.stack([values - base, base]), users)


# ------------------------------------------------------------------------ many comparisons


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values corrected for the number of tests in their family (Holm 1979); NaN is no test.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    corrected = np.full(p.shape, np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1)
    return corrected


NOTHING = {"seeds": 0, "users": 0, "n": 0} | dict.fromkeys(
    ("difference", "low", "high", "p", "detectable"), float("nan")
)


def contrast(differences: np.ndarray, users: np.ndarray) -> dict[str, float]:
    """What per-example differences (S seeds, n examples) of `users` (n,) say of their mean.

    seeds, users, n, difference, low, high (95 %), p, and detectable: the difference that would
    have been found with 80 % power at 5 %.
    """
    mean = mean_of(differences, users)
    sizes = {"seeds": mean.seeds, "users": mean.users, "n": mean.n}
    ends = {"low": mean.interval.low, "high": mean.interval.high}
    return sizes | {"difference": mean.value} | ends | {"p": mean.p, "detectable": mean.detectable}


def crossed(frame: pd.DataFrame, value: str, by: str = "method") -> dict[Any, pd.DataFrame]:
    """`value` as seeds x examples for each `by`: seeds and examples that all have, in one order.

    frame: columns seed, user, example, `by` and `value`, one row each. The columns of a table are
    (user, example). Missing cells are left out by dropping the examples that some seed lacks.
    """
    groups = dict(list(frame.groupby(by, sort=False)))
    seeds = sorted(set.intersection(*(set(group.seed.unique()) for group in groups.values())))
    tables = {
        key: group[group.seed.isin(seeds)]
        .pivot(index="seed", columns=["user", "example"], values=value)
        .dropna(axis=1)
        for key, group in groups.items()
    }
    examples = reduce(pd.Index.intersection, (table.columns for table in tables.values()))
    return {key: table.reindex(index=seeds, columns=examples) for key, table in tables.items()}


def users_of(table: pd.DataFrame) -> np.ndarray:
    """The user of each column of a table that `crossed` made."""
    return table.columns.get_level_values("user").to_numpy()


def mean_of_rows(frame: pd.DataFrame, value: str) -> Mean:
    """The mean of one method's rows, of the examples that every seed has."""
    table = crossed(frame.assign(method=""), value)[""]
    return mean_of(table.to_numpy(), users_of(table))


def as_columns(mean: Mean | None, name: str, prefix: str = "") -> dict[str, float]:
    """A mean as the column `name`, its interval as low and high, with a prefix; NaN for none."""
    values = (np.nan,) * 3
    if mean:
        values = (mean.value, mean.interval.low, mean.interval.high)
    return dict(zip((name, f"{prefix}low", f"{prefix}high"), values, strict=True))


def compare(frame: pd.DataFrame, pairs: list[tuple[str, str]], value: str) -> pd.DataFrame:
    """Paired comparison of methods on the same examples and seeds: a row a data set, size, pair.

    frame: columns dataset, n_train, seed, method, user, example and `value`. Columns of the
    result: dataset, n_train, method, against, those of `contrast` (difference: method minus
    against), corrected (p by `holm` over all rows) and gap: what is missing, '' for nothing.
    """
    rows = []
    for (dataset, n_train), group in frame.groupby(["dataset", "n_train"], sort=False):
        groups = dict(list(group.groupby("method", sort=False)))
        for pair in pairs:
            absent = [method for method in pair if method not in groups]
            gap = f"missing: {', '.join(absent)}" if absent else ""
            numbers = NOTHING
            if not gap:
                tables = crossed(pd.concat([groups[method] for method in pair]), value)
                differences = tables[pair[0]].to_numpy() - tables[pair[1]].to_numpy()
                gap = "" if differences.size else "missing: a seed and examples in common"
                if differences.size:
                    numbers = contrast(differences, users_of(tables[pair[0]]))
            keys = {"dataset": dataset, "n_train": n_train}
            rows.append(keys | {"method": pair[0], "against": pair[1]} | numbers | {"gap": gap})
    columns = ["dataset", "n_train", "method", "against", *NOTHING, "gap"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(10, "corrected", holm(table.p))
    return table
