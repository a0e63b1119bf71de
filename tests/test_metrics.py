"""HR and NDCG by hand, against an oracle that sorts lists, and on the degenerate."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
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
