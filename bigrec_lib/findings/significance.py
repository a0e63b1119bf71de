"""Intervals and paired tests for what is measured per example."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bigrec_lib.method import metrics

RESAMPLES = 9_999
POWER = 2.80  # standard errors a difference needs: z(0.975) + z(0.80)
WIDTH = 3.92  # standard errors in a 95 % interval: 2 z(0.975)


@dataclass(frozen=True)
class Interval:
    """A mean with a bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def verdict(self, above: str, below: str, between: str) -> str:
        """A word for an interval above zero, below it, or around it."""
        return above if self.low > 0 else below if self.high < 0 else between


def interval(values: np.ndarray, confidence: float = 0.95, seed: int = 0) -> Interval:
    """BCa bootstrap interval of the mean of `values` (n,), through scipy (Efron 1987).

    Where all values are equal there is nothing to resample: the interval is that value.
    Raises ValueError for no values or values that are not finite.
    """
    from scipy.stats import bootstrap

    values = np.asarray(values, dtype=np.float64)
    if not values.size or not np.isfinite(values).all():
        raise ValueError("an interval needs at least one value, and finite values only")
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (values,),
        np.mean,
        confidence_level=confidence,
        n_resamples=RESAMPLES,
        batch=500,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def intervals(ranks: dict[str, pd.DataFrame], ks: Sequence[int] = (1, 5, 20)) -> pd.DataFrame:
    """Mean HR and NDCG with their intervals: a row a name in `ranks`, a column a metric and k.

    ranks: name -> columns rank and ties.
    """
    return pd.DataFrame(
        {
            name: {
                f"{metric}@{k}": interval(of(metrics.effective_rank(frame), k))
                for metric, of in metrics.METRICS.items()
                for k in ks
            }
            for name, frame in ranks.items()
        }
    ).T


def resample(tables: np.ndarray, seed: int = 0) -> np.ndarray:
    """Means of bootstrap samples that draw seeds and examples at once: (RESAMPLES, m) float64.

    tables: (m, S, n), m quantities under S seeds on the same n examples. Each sample draws S seeds
    and n examples with replacement and takes every cell where they cross, the same for all m
    (Owen 2007, The pigeonhole bootstrap). Few seeds make their share of the spread look small.
    """
    m, S, n = tables.shape
    rng = np.random.default_rng(seed)
    found = []
    for start in range(0, RESAMPLES, 500):
        count = min(500, RESAMPLES - start)
        drawn = rng.integers(0, S, (count, S, 1)) == np.arange(S)  # (count, S draws, S)
        examples = rng.integers(0, n, (count, n))
        means = [
            np.take_along_axis(drawn.mean(1) @ table, examples, axis=1).mean(1) for table in tables
        ]
        found.append(np.stack(means, axis=1))
    return np.concatenate(found)


def limits(samples: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of bootstrap samples (R,)."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, [tail, 1 - tail])
    return float(low), float(high)


def sign_flip_p(differences: np.ndarray, resamples: int | None = None, seed: int = 0) -> float:
    """Two-sided p-value of the paired sign-flip test for a mean difference of zero.

    differences: (n,) metric of one method minus the other's, per example. Pairs without a
    difference cannot change sign and are left out. All sign patterns are counted where there are
    at most `resamples` (by default RESAMPLES); beyond, p = (b + 1) / (resamples + 1), with b the
    number of random patterns whose mean is at least as far from zero. 1.0 for fewer than two pairs.
    """
    from scipy.stats import permutation_test

    differences = np.asarray(differences, dtype=np.float64)
    moving = differences[differences != 0]
    if moving.size < 2:
        return 1.0
    test = permutation_test(
        (moving,),
        lambda flipped, axis: np.abs(flipped.mean(axis)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=resamples or RESAMPLES,
        batch=500,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


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


NOTHING = {"seeds": 0, "n": 0} | dict.fromkeys(
    ("difference", "low", "high", "p", "effect", "detectable"), float("nan")
)


def contrast(differences: np.ndarray) -> dict[str, float]:
    """What per-example differences (S seeds, n examples) say of their mean.

    seeds, n, difference, low, high (95 %: BCa with one seed; else seeds and examples resampled
    together), p (sign flips of each example's mean over the seeds), effect (mean over standard
    deviation of the examples' means), detectable (the difference found with 80 % power at 5 %).
    """
    differences = np.asarray(differences, dtype=np.float64)
    seeds, n = differences.shape
    each = differences.mean(0)
    spread = float(each.std(ddof=1)) if n > 1 else 0.0
    error = spread / n**0.5
    if seeds == 1:
        found = interval(each)
        low, high = found.low, found.high
    else:
        samples = resample(differences[None])[:, 0]
        low, high = limits(samples)
        error = float(samples.std())
    return {
        "seeds": seeds,
        "n": n,
        "difference": float(each.mean()),
        "low": low,
        "high": high,
        "p": sign_flip_p(each),
        "effect": float(each.mean()) / spread if spread else 0.0,
        "detectable": POWER * error,
    }


def crossed(frame: pd.DataFrame, value: str, by: str = "method") -> dict[Any, pd.DataFrame]:
    """`value` as seeds x examples, for every `by`: what all of them have, in the same order.

    frame: columns seed, example, `by` and `value`, one row each. Missing cells are left out by
    dropping the examples that some seed lacks.
    """
    tables = {
        key: group.pivot(index="seed", columns="example", values=value).dropna(axis=1)
        for key, group in frame.groupby(by, sort=False)
    }
    seeds = sorted(set.intersection(*(set(table.index) for table in tables.values())))
    examples = sorted(set.intersection(*(set(table.columns) for table in tables.values())))
    return {key: table.loc[seeds, examples] for key, table in tables.items()}


def compare(frame: pd.DataFrame, pairs: list[tuple[str, str]], value: str) -> pd.DataFrame:
    """Paired comparison of methods on the same examples and seeds: a row a data set, size, pair.

    frame: columns dataset, n_train, seed, method, example and `value`. Columns of the result:
    dataset, n_train, method, against, those of `contrast` (difference: method minus against),
    corrected (p by `holm` over all rows) and gap: which method is missing, '' for none.
    """
    rows = []
    for (dataset, n_train), group in frame.groupby(["dataset", "n_train"], sort=False):
        for pair in pairs:
            lacking = [method for method in pair if method not in set(group.method)]
            gap = f"missing: {', '.join(lacking)}" if lacking else ""
            found = NOTHING
            if not gap:
                tables = crossed(group[group.method.isin(pair)], value)
                differences = tables[pair[0]].to_numpy() - tables[pair[1]].to_numpy()
                gap = "" if differences.size else "missing: a seed and examples in common"
                found = contrast(differences) if differences.size else NOTHING
            keys = {"dataset": dataset, "n_train": n_train}
            rows.append(keys | {"method": pair[0], "against": pair[1]} | found | {"gap": gap})
    columns = ["dataset", "n_train", "method", "against", *NOTHING, "gap"]
    compared = pd.DataFrame(rows, columns=columns)
    compared.insert(9, "corrected", holm(compared.p))
    return compared
