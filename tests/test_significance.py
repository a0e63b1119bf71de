"""Intervals cover, tests keep their level, and both agree with other computations."""

import itertools

import numpy as np
import pandas as pd
import pytest

from bigrec_lib.findings import significance
from bigrec_lib.findings.significance import (
    compare,
    contrast,
    holm,
    interval,
    resample,
    sign_flip_p,
)


def zero_inflated(rng, n):
    """Per-example NDCG-like values: mostly zero."""
    return (rng.random(n) < 0.15) / np.log2(rng.integers(2, 22, n))


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr("bigrec_lib.findings.significance.RESAMPLES", 999)
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
    assert sign_flip_p(differences) == pytest.approx(exact, abs=1e-12)


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


@pytest.mark.parametrize("n", [6, 12, 40])
def test_the_test_agrees_with_scipys(n):
    from scipy.stats import permutation_test

    differences = np.random.default_rng(n).normal(0.3, 1, n)
    theirs = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=9_999, rng=0
    ).pvalue
    assert sign_flip_p(differences) == pytest.approx(theirs, abs=1e-12 if n <= 12 else 0.02)


def test_holm_by_hand():
    found = holm([0.01, 0.04, float("nan"), 0.03])
    np.testing.assert_allclose(found, [0.03, 0.06, np.nan, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])


def test_one_seed_resampled_is_the_plain_bootstrap_and_equal_seeds_add_no_spread():
    values = zero_inflated(np.random.default_rng(3), 200)
    one, three = (resample(np.tile(values, (1, seeds, 1)), seed=4)[:, 0] for seeds in (1, 3))
    standard_error = values.std() / 200**0.5
    assert one.std() == pytest.approx(standard_error, rel=0.03)
    assert three.std() == pytest.approx(standard_error, rel=0.03)


def test_differing_seeds_add_the_spread_theory_says():
    effects = np.array([0.0, 0.1, 0.3])[:, None] + np.zeros((3, 50))
    assert resample(effects[None])[:, 0].std() == pytest.approx(effects.std() / 3**0.5, rel=0.03)


def test_crossed_seeds_and_examples_cover_the_truth(monkeypatch):
    monkeypatch.setattr("bigrec_lib.findings.significance.RESAMPLES", 499)
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        example = zero_inflated(rng, 300) - zero_inflated(rng, 300)
        seed = rng.normal(0, 0.005, (8, 1))
        found = contrast(example + seed + rng.normal(0, 0.02, (8, 300)))
        covered += found["low"] <= 0 <= found["high"]
    assert 0.90 <= covered / 200 <= 0.995


def test_what_is_detectable_is_detected_four_times_in_five():
    rng = np.random.default_rng(6)
    draws = rng.normal(0.28, 1, (400, 100))  # POWER / sqrt(100) standard deviations
    found = np.mean([sign_flip_p(each, resamples=499) < 0.05 for each in draws])
    assert found == pytest.approx(0.8, abs=0.05)
    assert contrast(draws[:1])["detectable"] == pytest.approx(0.28, rel=0.2)


def frame(values):
    """values: (method, seed) -> values by example."""
    return pd.DataFrame(
        [
            {"dataset": "d", "n_train": 4, "seed": seed, "method": method, "example": e, "ndcg": v}
            for (method, seed), each in values.items()
            for e, v in enumerate(each)
        ]
    )


def test_intervals_are_of_the_metrics_of_each_method():
    ranks = pd.DataFrame({"rank": [0, 3, 30, 4], "ties": [0, 0, 0, 2]})
    table = significance.intervals({"one": ranks, "other": ranks.head(1)}, ks=(1, 5))
    assert list(table.index) == ["one", "other"]
    assert list(table.columns) == ["HR@1", "HR@5", "NDCG@1", "NDCG@5"]
    assert table.loc["one", "HR@5"].mean == 0.5  # the rank of 4 is 5 with its ties
    assert table.loc["one", "NDCG@5"].mean == pytest.approx((1 + 1 / np.log2(5)) / 4)
    assert table.loc["other", "NDCG@1"].mean == 1


def test_compare_pairs_methods_on_the_same_examples_and_seeds_and_names_gaps():
    given = frame({("a", 0): [1, 0.5, 0], ("b", 0): [0.25, 0.5, 0], ("b", 1): [9, 9, 9]})
    shuffled = given.sample(frac=1, random_state=0)
    found, gap = compare(shuffled, [("a", "b"), ("a", "absent")], "ndcg").itertuples()
    assert (found.method, found.against, found.seeds, found.n, found.gap) == ("a", "b", 1, 3, "")
    assert found.difference == pytest.approx(0.25)
    assert found.low <= 0.25 <= found.high
    assert gap.gap == "missing: absent" and np.isnan(gap.difference) and np.isnan(gap.corrected)
