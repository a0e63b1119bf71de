"""What is said of cheaper ways: quality, seconds and costs of cases worked out by hand."""

import numpy as np
import pytest

from bigrec_lib.findings import grounders, rules, significance, sizes
from bigrec_lib.method import cheaper, finders

TARGETS = np.array([0, 1, 2, 3])
USERS = np.arange(4)
EXACT = np.array([[0, 9], [8, 1], [2, 9], [8, 9]])  # NDCG 1, 1 / log2(3), 1, 0
SECOND = 1 / np.log2(3)


def test_quality_by_hand():
    other = np.array([[9, 0], [8, 1], [2, 9], [8, 9]])
    recalls = {"bigrec": np.ones(4), "other": np.array([1, 1, 1, 0.5])}
    lists = {"bigrec": EXACT, "copy": EXACT.copy(), "other": other}
    found = grounders.quality(lists, recalls, TARGETS, USERS, 1000).set_index("method")
    assert found.verdict["bigrec"] == found.verdict["copy"] == "identical"
    assert found.ndcg["bigrec"] == pytest.approx((2 + SECOND) / 4)
    assert found.difference["other"] == pytest.approx((SECOND - 1) / 4)
    assert found.recall["other"] == 0.875 and np.isnan(found.recall["copy"])
    assert found.verdict["other"] == "not decided"
    assert found.low["other"] < found.difference["other"] < found.high["other"]


def test_lists_that_differ_where_no_target_is_are_the_same():
    other = EXACT[:, ::-1].copy()
    other[:3] = EXACT[:3]
    found = grounders.quality({"bigrec": EXACT, "other": other}, {}, TARGETS, USERS, 1000)
    assert found.difference.tolist() == [0, 0] and found.corrected[1] == 0
    assert found.verdict.tolist() == ["identical", "the same within ±30%"]


def test_without_a_hit_of_the_exact_way_nothing_is_said():
    found = grounders.quality(
        {"bigrec": EXACT, "other": EXACT[:, ::-1]}, {}, np.full(4, 5), USERS, 1000
    )
    assert found.verdict[1] == "missing: a hit of the exact way"


@pytest.mark.parametrize(("share", "same"), [(0.95, True), (1.05, True), (0.72, False), (0.5, 0)])
def test_equivalence_needs_the_whole_interval_within_the_margin(share, same):
    """The 90 % interval of the ratio lies within the margin just where both tests reject."""
    rng = np.random.default_rng(0)
    exact = rng.random(400) + 0.5
    ours = exact * (share + 0.4 * rng.standard_normal(400))
    p = grounders.p_same(ours, exact, np.arange(400))
    assert (p < 0.05) == same
    ratio = (ours.mean() - exact.mean()) / exact.mean()
    cells = (ours - exact - ratio * exact) / exact.mean()
    error = cells.std(ddof=1) / 20
    assert (abs(ratio) + 1.65 * error < rules.SAME) == same
    assert grounders.p_same(exact, exact, np.arange(400)) == 0


def served(way, embedded, seconds):
    n = len(seconds)
    lists = np.zeros((n, 1), dtype=np.int64)
    return cheaper.Served(way, lists, np.array(embedded), np.array(seconds), 2.0, 3_000_000)


def world():
    vectors = np.eye(3, dtype=np.float32)
    rows = cheaper.Rows(vectors, 2)
    titles = ["a b", "b c", "c d"]
    return {
        "bigrec": served(cheaper.Scan(vectors, 2), [True] * 4, [0.1, 0.1, 0.1, 9.0]),
        "row": served(
            cheaper.Cascade([finders.Equal(titles)], rows),
            [True, False, False, False],
            [0.1, 0.01, 0.02, 0.03],
        ),
        "text": served(cheaper.Scored(finders.Words(titles), 2), [False] * 4, [0.05] * 4),
    }


def test_seconds_of_a_request_by_hand():
    found = grounders.requests(world(), np.array([1.0, 3.0, 2.0]), dict.fromkeys(world(), 6.0))
    found = found.set_index("method")
    assert found.embedded.tolist() == [1, 0.25, 0]
    assert found.embedding.tolist() == [2, 0.5, 0]
    assert found.search.tolist() == pytest.approx([0.1, (0.1 + 3 * 0.02) / 4, 0.05])
    assert found.request.tolist() == pytest.approx([8.1, 6.54, 6.05])
    assert found.per_second.tolist() == pytest.approx([1 / 2.1, 1 / 0.54, 20])
    assert found.p50["bigrec"] == pytest.approx(2.1) and found.p50["row"] == pytest.approx(0.02)
    assert found.search_p95["bigrec"] == pytest.approx(0.1 + 0.85 * 8.9)
    stages = grounders.stages(found.reset_index())
    assert stages.stage.tolist() == ["writing", "embedding", "search"]
    assert stages.share.tolist() == pytest.approx([6 / 8.1, 2 / 8.1, 0.1 / 8.1])


def test_costs_by_hand():
    adding = {"bigrec": 0.5, "row": 0.7, "text": 0.9}
    found = grounders.costs(world(), adding, np.array([1.0, 3.0, 2.0]), 10.0, 3)
    found = found.set_index("method")
    assert found.vectors.tolist() == [6, 6, 0]
    assert found.build.tolist() == [2, 12, 2] and found.mb.tolist() == [3, 3, 3]
    assert found["add"].tolist() == [2.5, 2.7, 0.9]
    assert grounders.flat(found.reset_index())["row, build"] == 12


def test_writing_is_shared_by_all_examples():
    first = {"valid": {"generations": 10}, "test": {"generations": 30}}
    manifest = {"seconds": 20.0, "facts": {"first_beams": first}}
    assert sizes.seconds_an_example(manifest) == 0.5


def test_the_margin_is_that_of_the_claims():
    assert f"±{rules.SAME:.0%}" in grounders.SAME and significance.LEVEL == 0.05
