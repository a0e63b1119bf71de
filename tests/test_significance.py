"""Errors against plain loops, theory and resampling; tests and intervals that agree."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigrec_lib.findings import significance
from bigrec_lib.findings.significance import (
    compare,
    contrast,
    crossed,
    holm,
    interval,
    mean_of,
    ratio_of,
    users_of,
)


def study(seed, seeds=4, users=12, most=4):
    """Values (S, n) with effects of seed, user and example, and the users of examples of both."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), rng.integers(1, most + 1, users))
    user = rng.permutation(user)
    values = rng.normal(size=(seeds, 1)) + rng.normal(size=users)[user]
    return values + rng.normal(size=(seeds, len(user))), user


# ------------------------------------------------------------------------------- one mean


def by_loops(values, users):
    """The three variances of the mean, one number at a time: of users, of seeds, of both."""
    S, n = len(values), len(users)
    mean = sum(map(sum, values)) / (S * n)
    seed_mean = [sum(row) / n for row in values]
    example_mean = [sum(row[i] for row in values) / S for i in range(n)]
    names = sorted(set(users))
    U = len(names)
    of_users = of_both = 0.0
    for name in names:
        own = [i for i in range(n) if users[i] == name]
        of_users += sum(example_mean[i] - mean for i in own) ** 2
        for s in range(S):
            left = sum(values[s][i] - seed_mean[s] - example_mean[i] + mean for i in own)
            of_both += left**2
    of_seeds = sum((each - mean) ** 2 for each in seed_mean) / (S * (S - 1))
    factor = U / (U - 1) / n**2
    return factor * of_users, of_seeds, factor * of_both / (S * (S - 1))


@pytest.mark.parametrize("seed", range(5))
def test_the_variance_is_put_together_from_three_that_loops_compute(seed):
    values, users = study(seed)
    of_users, of_seeds, of_both = by_loops(values.tolist(), users.tolist())
    assert of_seeds > of_both  # so no floor is at work
    found = mean_of(values, users)
    assert found.value == pytest.approx(values.mean())
    assert found.error**2 == pytest.approx(of_users + of_seeds - of_both)
    sizes = np.bincount(users)
    df = np.array([(sizes**2).sum() ** 2 / (sizes**4).sum() - 1, 3])
    spread = of_users**2 / df[0] + of_seeds**2 / df[1] + of_both**2 / df.prod()
    assert found.df == pytest.approx(max(found.error**4 / spread * 3 / 3.5, 3))
    assert (found.seeds, found.users, found.n) == (4, 12, len(users))


def test_two_seeds_of_two_users_by_hand():
    """Means of seeds 1 and 3, of users 1 and 3; nothing is left between them."""
    found = mean_of([[0.0, 2.0], [2.0, 4.0]], [7, 9])
    assert found.value == 2
    assert found.error**2 == pytest.approx(1 + 1)  # each: (1 + 1) / (2 * 1)
    assert found.df == pytest.approx(2 / 1.5)  # (1 + 1)² / (1 + 1), shrunk


def test_where_seeds_agree_too_well_what_they_add_stops_at_the_floor():
    values = np.array([[2.0, -2.0, 0.0], [-2.0, 2.0, 0.0]])  # equal seed means, all is interaction
    values += [1.0, 3.0, 8.0]
    of_users, of_seeds, of_both = by_loops(values.tolist(), [0, 1, 2])
    assert of_seeds == 0
    floor = significance.FLOOR * min(of_both, of_users)
    assert mean_of(values, np.arange(3)).error ** 2 == pytest.approx(of_users + floor)


def test_the_variance_is_positive_where_users_do_not_differ():
    values = np.array([[2.0, -2.0, 0.0], [-2.0, 2.0, 0.1]])
    found = mean_of(values, np.arange(3))
    assert found.error > 0 and np.isfinite(found.p)


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_seed_has_the_cluster_robust_error_and_equal_seeds_add_nothing(seeds):
    values, users = study(0, seeds=1)
    totals = pd.Series(values[0] - values.mean()).groupby(users).sum()
    error = (12 / 11 * (totals**2).sum()) ** 0.5 / len(users)
    found = mean_of(np.tile(values, (seeds, 1)), users)
    assert found.error == pytest.approx(error)
    assert interval(values[0], users).low == pytest.approx(mean_of(values, users).interval.low)


def test_one_example_a_user_has_the_plain_standard_error():
    values = np.random.default_rng(1).normal(size=50)
    found = mean_of(values[None], np.arange(50))
    assert found.error == pytest.approx(values.std(ddof=1) / 50**0.5)
    assert found.df == pytest.approx(49)
    assert mean_of(values[None], np.arange(50) // 2).df == pytest.approx(24)  # users, not examples


def test_one_user_is_no_evidence():
    for values in ([[0.0, 1.0], [1.0, 3.0]], [[0.1, 0.3], [0.2, 0.5], [0.0, 0.6]], [[0.2, 0.7]]):
        found = mean_of(values, [5, 5])
        assert found.p == 1 and found.p_above(-9) == 1 and not found.varies
        assert np.isnan([found.interval.low, found.interval.high]).all()
        assert found.interval.verdict("above", "below", "around") == "around"


def test_what_does_not_vary_is_no_evidence():
    found = mean_of(np.full((3, 10), 0.1), np.arange(10))
    assert found.p == 1 and not found.varies


def test_very_unequal_users_leave_the_interval_within_reason():
    values = np.random.default_rng(0).normal(0.3, 0.1, (5, 21))
    found = mean_of(values, np.repeat([0, 1], [20, 1]))
    assert found.df >= 1 and found.interval.high - found.interval.low < 5


def test_names_of_users_do_not_matter():
    values, users = study(2)
    other = np.array([f"user {9 - each}" for each in users])
    found, renamed = mean_of(values, users), mean_of(values, other)
    assert renamed.error == pytest.approx(found.error)
    assert renamed.df == pytest.approx(found.df)


def test_the_error_is_right_on_average():
    """The mean of the estimated variance is the variance of the mean."""
    rng = np.random.default_rng(3)
    users = np.repeat(np.arange(20), 3)
    values = rng.normal(size=(2000, 4, 1)) * 0.3 + rng.normal(size=(2000, 1, 20))[:, :, users]
    values = values + rng.normal(size=(2000, 4, 60))
    truth = 0.09 / 4 + 1 / 20 + 1 / (4 * 60)
    found = np.mean([mean_of(each, users).error ** 2 for each in values])
    assert found == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize("values", [np.zeros((0, 0)), np.array([[0.0, float("nan")]])])
def test_no_values_or_missing_ones_are_refused(values):
    with pytest.raises(ValueError, match="finite"):
        mean_of(values, np.arange(values.shape[1]))


def test_values_that_do_not_vary_are_no_evidence():
    found = mean_of(np.full((3, 10), 0.25), np.arange(10))
    assert (found.interval.low, found.interval.high) == (0.25, 0.25)
    assert found.p == found.p_above() == found.p_below() == 1.0


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 3, 10]), st.floats(-1.5, 1.5))
def test_p_and_interval_agree(seed, seeds, shift):
    values, users = study(seed, seeds)
    found = mean_of(values + shift, users)
    excluded = found.interval.low > 0 or found.interval.high < 0
    assert (found.p < significance.LEVEL) == excluded
    assert found.p == pytest.approx(2 * min(found.p_above(), found.p_below()))
    assert found.p_above() + found.p_below() == pytest.approx(1)
    assert (found.interval.verdict("up", "down", "open") == "open") == (not excluded)


def test_what_is_detectable_is_detected_four_times_in_five():
    rng = np.random.default_rng(6)
    draws = rng.normal(0.283, 1, (2000, 1, 100))
    found = [mean_of(each, np.arange(100)) for each in draws]
    assert np.mean([each.p < 0.05 for each in found]) == pytest.approx(0.8, abs=0.03)
    assert np.mean([each.detectable for each in found]) == pytest.approx(0.283, rel=0.03)


# ------------------------------------------------------------------------------- ratios


def levels(seed, seeds=5):
    """Two correlated levels (2, S, n) well above zero, and the users of their examples."""
    values, users = study(seed, seeds, users=60)
    other, _ = study(seed + 1, seeds, users=60)
    n = min(values.shape[1], other.shape[1])
    return np.stack([values[:, :n] + 6, (values[:, :n] + other[:, :n]) / 2 + 8]), users[:n]


def test_the_ratios_error_is_that_of_its_numerical_derivative():
    """Var f(a, b) = f'ᵀ Σ f', with Σ from the variances of a, b and a + b."""
    (top, bottom), users = levels(0)
    found = ratio_of(np.stack([top, bottom]), users)
    a, b, step = top.mean(), bottom.mean(), 1e-6
    slope_a = ((a + step) / b - (a - step) / b) / (2 * step)
    slope_b = (a / (b + step) - a / (b - step)) / (2 * step)
    of_a, of_b, of_sum = (mean_of(x, users).error ** 2 for x in (top, bottom, top + bottom))
    together = slope_a**2 * of_a + slope_b**2 * of_b + slope_a * slope_b * (of_sum - of_a - of_b)
    assert found.value == pytest.approx(a / b)
    assert found.error**2 == pytest.approx(together, rel=1e-4)


def test_the_ratios_interval_is_near_fiellers():
    """Fieller: every r for which mean(top - r * bottom) does not differ from zero."""
    (top, bottom), users = levels(2)
    inside = [r for r in np.linspace(0.4, 1.2, 801) if mean_of(top - r * bottom, users).p >= 0.05]
    found = ratio_of(np.stack([top, bottom]), users).interval
    assert found.low == pytest.approx(min(inside), abs=0.02)
    assert found.high == pytest.approx(max(inside), abs=0.02)


def test_the_ratios_error_is_near_that_of_a_bootstrap():
    """One seed, users resampled with all that is theirs."""
    rng = np.random.default_rng(4)
    parts, users = levels(4, seeds=1)
    totals = np.stack([np.bincount(users, weights=part[0]) for part in parts])
    drawn = totals[:, rng.integers(0, totals.shape[1], (4000, totals.shape[1]))].sum(2)
    assert ratio_of(parts, users).error == pytest.approx((drawn[0] / drawn[1]).std(), rel=0.1)


def test_a_ratio_less_another_pairs_their_cells():
    parts, users = levels(5)
    equal = ratio_of(parts, users, minus=parts)
    assert (equal.value, equal.error) == (0, 0)
    other, _ = levels(6)
    n = min(len(users), other.shape[2])
    one, other, users = parts[:, :, :n], other[:, :, :n], users[:n]
    found = ratio_of(one, users, minus=other)
    ratios = [each[0].mean() / each[1].mean() for each in (one, other)]
    assert found.value == pytest.approx(ratios[0] - ratios[1])
    cells = significance.influence(one)[1] - significance.influence(other)[1]
    assert found.error == pytest.approx(mean_of(cells, users).error)


def test_a_ratio_to_nothing_is_refused():
    with pytest.raises(ValueError, match="above zero"):
        ratio_of(np.zeros((2, 1, 3)), np.arange(3))


# ------------------------------------------------------------------------ many comparisons


def test_holm_by_hand():
    found = holm([0.01, 0.04, float("nan"), 0.03])
    np.testing.assert_allclose(found, [0.03, 0.06, np.nan, 0.06])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])


def frame(values):
    """values: (method, seed) -> values by example; examples 0 and 1 are of one user."""
    return pd.DataFrame(
        [
            {"dataset": "d", "n_train": 4, "seed": seed, "method": method}
            | {"user": 50 + example // 2, "example": example, "ndcg": value}
            for (method, seed), by_example in values.items()
            for example, value in enumerate(by_example)
        ]
    )


def test_intervals_are_of_the_metrics_of_each_method():
    ranks = pd.DataFrame({"rank": [0, 3, 30, 4], "ties": [0, 0, 0, 2]})
    users = np.array([1, 1, 2, 3])
    table = significance.intervals({"one": ranks, "other": ranks[::-1]}, users, ks=(1, 5))
    assert list(table.index) == ["one", "other"]
    assert list(table.columns) == ["HR@1", "HR@5", "NDCG@1", "NDCG@5"]
    assert table.loc["one", "HR@5"] == interval(np.array([1.0, 1, 0, 0]), users)  # 4 is 5 with ties
    assert table.loc["other", "HR@5"] == interval(np.array([0.0, 0, 1, 1]), users)
    assert table.loc["one", "NDCG@5"].mean == pytest.approx((1 + 1 / np.log2(5)) / 4)


def test_crossed_keeps_what_all_have_in_the_same_order():
    given_rows = frame({("a", 0): [1, 2, 3], ("a", 1): [4, 5, 6], ("b", 1): [7, 8, 9]})
    given_rows = given_rows[~((given_rows.method == "b") & (given_rows.example == 1))]
    tables = crossed(given_rows.sample(frac=1, random_state=0), "ndcg")
    assert tables["a"].to_numpy().tolist() == [[4, 6]]
    assert tables["b"].to_numpy().tolist() == [[7, 9]]
    assert users_of(tables["a"]).tolist() == [50, 51]


def test_an_example_that_one_seed_lacks_is_left_out():
    given_rows = frame({("a", 0): [1, 2, 3], ("a", 1): [4, 5]})
    assert crossed(given_rows, "ndcg")["a"].to_numpy().tolist() == [[1, 2], [4, 5]]


def test_compare_pairs_methods_on_the_same_examples_and_seeds_and_names_gaps():
    rows = frame({("a", 0): [1, 0.5, 0], ("b", 0): [0.25, 0.5, 0], ("b", 1): [9, 9, 9]})
    rows = pd.concat([rows, frame({("c", 7): [1, 1, 1]})]).sample(frac=1, random_state=0)
    pairs = [("a", "b"), ("a", "absent"), ("a", "c")]
    found, absent, apart = compare(rows, pairs, "ndcg").itertuples()
    assert (found.method, found.against, found.gap) == ("a", "b", "")
    assert (found.seeds, found.users, found.n) == (1, 2, 3)
    expected = contrast(np.array([[0.75, 0, 0]]), np.array([50, 50, 51]))
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected)
    assert found.corrected == found.p
    assert absent.gap == "missing: absent" and np.isnan(absent.difference)
    assert np.isnan(absent.corrected) and absent.seeds == 0
    assert apart.gap == "missing: a seed and examples in common"


def test_compare_corrects_over_all_its_rows():
    rng = np.random.default_rng(7)
    rows = frame({(method, seed): rng.normal(size=40) for method in "abc" for seed in range(3)})
    found = compare(rows, [("a", "b"), ("a", "c"), ("b", "c")], "ndcg")
    np.testing.assert_allclose(found.corrected, holm(found.p))
