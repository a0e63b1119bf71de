"""Intervals and paired tests for what is measured per example."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

RESAMPLES = 9_999


@dataclass(frozen=True)
class Interval:
    """A mean with a bootstrap interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


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


def sign_flip_p(differences: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """Two-sided p-value of the paired sign-flip test for a mean difference of zero.

    differences: (n,) metric of one method minus the other's, per example. Pairs without a
    difference cannot change sign and are left out; p = (b + 1) / (resamples + 1), with b the
    number of random sign patterns whose sum is at least as far from zero. 1.0 without any pair.
    """
    differences = np.asarray(differences, dtype=np.float64)
    moving = differences[differences != 0]
    if not moving.size:
        return 1.0
    rng = np.random.default_rng(seed)
    observed = abs(moving.sum()) * (1 - 1e-12)
    as_far = 0
    for start in range(0, resamples, 1000):
        count = min(1000, resamples - start)
        signs = rng.integers(0, 2, size=(count, moving.size), dtype=np.int8) * 2.0 - 1
        as_far += int((np.abs(signs @ moving) >= observed).sum())
    return (as_far + 1) / (resamples + 1)


def compare(frame: pd.DataFrame, pairs: list[tuple[str, str]], value: str) -> pd.DataFrame:
    """Paired comparison of methods on the same examples, one row a data set, run and pair.

    frame: columns dataset, run, method, example and `value`, one row an example and method.
    Columns of the result: dataset, run, method, against, n, difference (mean of method minus
    against), low, high (95 % interval), p. A pair whose methods are not both there is left out.
    """
    rows = []
    for (dataset, run), group in frame.groupby(["dataset", "run"], sort=False):
        wide = group.pivot(index="example", columns="method", values=value)
        for method, against in pairs:
            if not {method, against} <= set(wide.columns):
                continue
            differences = (wide[method] - wide[against]).dropna().to_numpy()
            found = interval(differences)
            rows.append(
                {
                    "dataset": dataset,
                    "run": run,
                    "method": method,
                    "against": against,
                    "n": len(differences),
                    "difference": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "p": sign_flip_p(differences),
                }
            )
    return pd.DataFrame(rows)
