"""Intervals cover, tests keep their level, and both agree with other computations."""

import itertools

import numpy as np
import pandas as pd
import pytest

from bigrec_lib.significance import compare, interval, sign_flip_p


def zero_inflated(rng, n):
    """Per-example NDCG-like values: mostly zero."""
    return (rng.random(n) < 0.15) / np.log2(rng.integers(2, 22, n))


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr("bigrec_lib.significance.RESAMPLES", 999)
    true_mean = 0.15 * np.mean(1 / np.log2(np.arange(2, 22)))
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = interval(zero_inflated(rng, 300))
        covered += found.low <= true_mean <= found.high
    assert 0.90 <= covered / 200 <= 0.99


def test_equal_values_have_an_interval_of_no_width():
    found = interval(np.full(10, 0.25))
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("values", [[], [0.0, float("nan")]])
def test_no_values_or_missing_ones_are_refused(values):
    with pytest.raises(ValueError, match="finite"):
        interval(np.array(values))


def test_the_p_value_agrees_with_all_sign_patterns():
    differences = np.array([0.5, -0.2, 0.0, 0.9, 0.4, 0.7, -0.1, 0.3])
    moving = differences[differences != 0]
    sums = [abs(np.dot(signs, moving)) for signs in itertools.product([1, -1], repeat=7)]
    exact = np.mean(np.array(sums) >= abs(moving.sum()) - 1e-12)
    assert sign_flip_p(differences) == pytest.approx(exact, abs=0.01)


def test_the_test_keeps_its_level_without_a_difference():
    rng = np.random.default_rng(1)
    rejected = sum(
        sign_flip_p(zero_inflated(rng, 200) - zero_inflated(rng, 200), resamples=499, seed=i) < 0.05
        for i in range(300)
    )
    assert rejected / 300 <= 0.08


def test_no_difference_at_all_is_no_evidence():
    assert sign_flip_p(np.zeros(50)) == 1.0


def test_a_seed_gives_the_same_digits():
    values = zero_inflated(np.random.default_rng(2), 100)
    assert interval(values, seed=3) == interval(values, seed=3)
    assert sign_flip_p(values, seed=3) == sign_flip_p(values, seed=3)


def test_compare_pairs_methods_on_the_same_examples():
    frame = pd.DataFrame(
        {
            "dataset": "d",
            "run": "r",
            "method": ["a"] * 3 + ["b"] * 3,
            "example": [1, 2, 3, 3, 2, 1],
            "ndcg": [1.0, 0.5, 0.0, 0.0, 0.5, 0.25],
        }
    )
    (row,) = compare(frame, [("a", "b"), ("a", "absent")], value="ndcg").itertuples()
    assert (row.method, row.against, row.n) == ("a", "b", 3)
    assert row.difference == pytest.approx(0.25)
    assert row.low <= 0.25 <= row.high
