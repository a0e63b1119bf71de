"""HR and NDCG by hand, against an oracle that sorts lists, and on the degenerate."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigrec_lib.files import StudyError
from bigrec_lib.method import metrics


def frame(rank, ties=None):
    return pd.DataFrame(
        {"example": range(len(rank)), "rank": rank, "ties": ties or [0] * len(rank)}
    )


def test_by_hand():
    found = metrics.summary(frame([0, 1, 2, 19, 20])).set_index(["metric", "k"]).value
    assert found["HR", 1] == 1 / 5 and found["HR", 3] == 3 / 5 and found["HR", 20] == 4 / 5
    assert found["NDCG", 1] == 1 / 5
    assert found["NDCG", 3] == pytest.approx((1 + 1 / math.log2(3) + 1 / 2) / 5)
    assert found["NDCG", 20] == pytest.approx(found["NDCG", 3] + 1 / math.log2(21) / 5)


def oracle(scores, target, k):
    """HR and NDCG of one list by sorting it, ideal DCG and all."""
    order = sorted(range(len(scores)), key=lambda item: -scores[item])
    gains = [1.0 if item == target else 0.0 for item in order[:k]]
    dcg = sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))
    return max(gains), dcg / (1 / math.log2(2))


@given(st.permutations(range(30)), st.integers(0, 29), st.sampled_from(metrics.KS))
def test_against_a_list_that_is_sorted(scores, target, k):
    rank = np.array([sum(score > scores[target] for score in scores)])
    hr, ndcg = oracle(scores, target, k)
    assert metrics.hr(rank, k)[0] == hr
    assert metrics.ndcg(rank, k)[0] == pytest.approx(ndcg, abs=1e-12)


def test_tie_policies():
    ranks = frame([0, 4], [2, 0])
    assert metrics.effective_rank(ranks, "best").tolist() == [0, 4]
    assert metrics.effective_rank(ranks, "expected").tolist() == [1, 4]
    assert metrics.effective_rank(ranks, "worst").tolist() == [2, 4]
    with pytest.raises(
        StudyError, match="unknown tie policy 'mean': choose one of best, expected, worst"
    ):
        metrics.effective_rank(ranks, "mean")


def test_no_ranks_have_no_mean():
    with pytest.raises(StudyError, match="empty"):
        metrics.summary(frame([]))


def test_overlap_is_the_share_in_common():
    one, other = np.array([[0, 1], [2, 3]]), np.array([[1, 0], [3, 4]])
    assert metrics.overlap(one, other).mean() == 0.75


def others_by_loops(lists, targets, users, places):
    """For each example, the mean of what each list of another user gives its target."""
    means = []
    for target, user in zip(targets, users, strict=True):
        gains = [
            sum(worth for candidate, worth in zip(row, places, strict=True) if candidate == target)
            for row, theirs in zip(lists, users, strict=True)
            if theirs != user
        ]
        means.append(sum(gains) / len(gains))
    return means


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_own_and_others_against_a_loop_over_all_lists(seed):
    rng = np.random.default_rng(seed)
    n, k = rng.integers(2, 15), 4
    users = np.r_[0, 1, rng.integers(0, 5, n - 2)] * 7
    lists = np.stack([rng.permutation(9)[:k] for _ in range(n)])
    targets = rng.integers(0, 12, n)  # some are in no list
    places = metrics.ndcg(np.arange(k), k)
    own, others = metrics.own_and_others(lists, targets, users, places)
    expected = [
        places[list(row).index(target)] if target in row else 0.0
        for row, target in zip(lists, targets, strict=True)
    ]
    np.testing.assert_allclose(own, expected)
    np.testing.assert_allclose(others, others_by_loops(lists, targets, users, places), atol=1e-12)


def test_the_same_list_for_everybody_has_no_gain():
    rng = np.random.default_rng(0)
    users, targets = np.arange(40) // 3, rng.integers(0, 30, 40)
    lists = np.tile(rng.permutation(30)[:20], (40, 1))
    own, others = metrics.own_and_others(lists, targets, users, np.ones(20))
    assert own.sum() > 0
    np.testing.assert_allclose(own, others)


def test_one_user_has_nobody_to_be_compared_with():
    with pytest.raises(StudyError, match="all examples are of one user"):
        metrics.own_and_others(np.zeros((3, 2), int), np.zeros(3, int), np.ones(3, int), np.ones(2))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3), st.booleans()), max_size=12))
def test_the_showcase_is_the_first_of_each_kind_and_of_different_users(rows):
    rank, users, invented = (np.array(each) for each in zip(*rows, strict=True)) if rows else (
        np.empty(0), np.empty(0), np.empty(0, dtype=bool)
    )  # fmt: skip
    chosen = metrics.showcase(rank, users, invented)
    taken = set()
    for kind, low, high in (("hit", 0, 20), ("near miss", 20, 100), ("failure", 100, 999)):
        free = [n for n, of in enumerate(rank) if low <= of < high and users[n] not in taken]
        if kind == "failure" and any(invented[n] for n in free):
            free = [n for n in free if invented[n]]
        assert chosen.get(kind) == (free[0] if free else None)
        taken |= {users[chosen[kind]]} if kind in chosen else set()
