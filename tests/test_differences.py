"""A difference gets an interval only where something varies; words agree with the numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from bigrec_lib.findings import differences, domains
from bigrec_lib.findings.significance import Interval, mean_of

A, B, ZERO = np.array([[0, 1.0, 0]]), np.array([[1.0, 0, 0]]), np.zeros((1, 3))


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        (A, B, ""),
        (A, A.copy(), "nothing differs"),
        (A, ZERO, "only one of the two has a hit"),
        (ZERO, A, "only one of the two has a hit"),
        (ZERO, ZERO.copy(), "neither has a hit"),
    ],
)
def test_why_there_is_no_interval(ours, theirs, why):
    assert differences.gap(ours, theirs) == why
    mean = mean_of(ours - theirs, np.arange(3))
    found = differences.ends(mean, why)
    assert found["gap"] == why
    assert np.isnan([found["low"], found["high"], found["p"]]).all() == bool(why)
    if not why:
        assert (found["low"], found["high"]) == (mean.interval.low, mean.interval.high)


def row(difference, low, high, corrected, gap=""):
    return SimpleNamespace(difference=difference, low=low, high=high, corrected=corrected, gap=gap)


def test_who_is_behind_is_so_by_a_number_without_a_sign():
    said = domains.ahead("Item kNN", row(-0.0222, -0.0441, -0.0003, 0.047))
    assert said == "is **behind** Item kNN, by 0.0222 [0.0003, 0.0441]"
    said = domains.ahead("Item kNN", row(0.02, 0.01, 0.03, 0.001))
    assert said == "is **ahead of** Item kNN, by 0.0200 [0.0100, 0.0300]"


def test_words_go_by_the_corrected_p_value_as_in_07():
    said = domains.ahead("Item kNN", row(-0.0222, -0.0441, -0.0003, 0.14))
    assert said == "is **not told apart from** Item kNN, -0.0222 [-0.0441, -0.0003]"
    apart = Interval(0.2, 0.1, 0.3)
    assert differences.word(apart, 0.04, "up", "down", "open") == "up"
    assert differences.word(apart, np.nan, "up", "down", "open") == "open"


def test_without_an_interval_there_is_no_word():
    said = domains.ahead("Item kNN", row(-0.005, np.nan, np.nan, np.nan, differences.ONE))
    assert "**only one of the two has a hit** (difference -0.0050)" in said and "nan" not in said
