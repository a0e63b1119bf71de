"""Ranks against a float64 oracle, on data made to break them; policies; bad input."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigrec_lib.method import grounding, l2, prepared
from bigrec_lib.method.grounding import GroundingError


def oracle(queries, vectors, targets, seen=None):
    """Rank and ties from differences in float64, one query at a time."""
    rows = []
    for number, (query, target) in enumerate(zip(queries, targets, strict=True)):
        found = np.square(query.astype(np.float64) - vectors.astype(np.float64)).sum(1)
        rivals = np.arange(len(vectors)) != target
        if seen is not None:
            rivals &= ~np.isin(np.arange(len(vectors)), seen[number])
        rows.append([(found[rivals] < found[target]).sum(), (found[rivals] == found[target]).sum()])
    return np.array(rows)


def adversarial(d, seed=0):
    """Catalogue with a huge offset, near and exact duplicates; queries on and beside titles."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((300, d)).astype(np.float32)
    vectors[:, 0] += 400
    vectors[100:150] = vectors[:50]
    vectors[150:200] = vectors[:50] + rng.standard_normal((50, d)).astype(np.float32) * 1e-5
    targets = rng.integers(0, 300, 80)
    queries = vectors[targets] + rng.standard_normal((80, d)).astype(np.float32) * 0.5
    queries[::4] = vectors[rng.integers(0, 300, 20)]
    queries[1::4] += rng.standard_normal((20, d)).astype(np.float32) * 3
    return queries, vectors, targets


@pytest.mark.parametrize("d", [8, 576, 4096])
def test_ranks_are_those_of_float64_whatever_the_blocks(d, monkeypatch):
    queries, vectors, targets = adversarial(d)
    wanted = oracle(queries, vectors, targets)
    assert wanted[:, 1].any() and len(set(wanted[:, 0])) > 20
    for rows, columns in ((1024, 4096), (7, 33)):
        monkeypatch.setattr(l2, "ROWS", rows)
        monkeypatch.setattr(l2, "COLUMNS", columns)
        assert grounding.ranks(queries, vectors, targets).to_numpy().tolist() == wanted.tolist()


def test_queries_that_are_equal_share_a_product(monkeypatch):
    queries, vectors, targets = adversarial(64)
    rng = np.random.default_rng(1)
    order = rng.permutation(np.repeat(np.arange(80), [1, 2, 3, 4] * 20))
    targets = rng.permutation(np.tile(targets, 3))[: len(order)]
    wanted = oracle(queries[order], vectors, targets)
    products, given = l2.products, []
    monkeypatch.setattr(l2, "products", lambda *pair: given.append(pair) or products(*pair))
    for rows in (1024, 7):
        monkeypatch.setattr(l2, "ROWS", rows)
        found = grounding.ranks(queries[order], vectors, targets)
        assert found.to_numpy().tolist() == wanted.tolist()
    assert {len(multiplied) for multiplied, _ in given} == {len(np.unique(queries, axis=0))}


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_ranks_of_small_whole_numbers_are_exact_with_all_their_ties(data):
    n, items, d = (data.draw(st.integers(1, 6)) for _ in range(3))

    def drawn(rows, columns, low, high):
        row = st.lists(st.integers(low, high), min_size=columns, max_size=columns)
        return np.array([data.draw(row) for _ in range(rows)])

    queries, vectors = drawn(n, d, -2, 2), drawn(items, d, -2, 2)
    queries, vectors = queries.astype(np.float32), vectors.astype(np.float32)
    targets, seen = drawn(1, n, 0, items - 1)[0], drawn(n, 3, 0, items - 1)
    found = grounding.ranks(queries, vectors, targets, seen)
    assert found.to_numpy().tolist() == oracle(queries, vectors, targets, seen).tolist()


def test_bf16_vectors_rank_as_their_float64_values():
    queries, vectors, targets = adversarial(64)
    queries, vectors = (torch.from_numpy(each).bfloat16() for each in (queries, vectors))
    wanted = oracle(queries.double().numpy(), vectors.double().numpy(), targets)
    assert grounding.ranks(queries, vectors, targets).to_numpy().tolist() == wanted.tolist()


def test_distances_are_exact_and_an_equal_vector_is_at_0():
    queries, vectors, _ = adversarial(576)
    found = grounding.distances(queries, vectors)
    difference = queries[:, None].astype(np.float64) - vectors
    wanted = np.sqrt(np.square(difference).sum(2))
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=0)
    assert ((found == 0) == (wanted == 0)).all() and (found == 0).any()


def test_the_smallest_square_is_exact_and_duplicates_share_it(monkeypatch):
    monkeypatch.setattr(l2, "COLUMNS", 33)
    queries, vectors, _ = adversarial(4096)
    wanted = np.stack([np.square(q.astype(np.float64) - vectors).sum(1) for q in queries])
    nearest = wanted.min(1, keepdims=True)
    given = (torch.from_numpy(queries), torch.from_numpy(vectors), torch.zeros(len(queries)))
    found = l2.squared_distances(*given).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=0)
    lowest = found.min(1, keepdims=True)
    np.testing.assert_allclose(lowest, nearest, rtol=1e-12, atol=0)
    assert ((found == lowest) == (wanted == nearest)).all()
    assert (wanted == nearest).sum() > len(queries) and (nearest > 0).any()


@pytest.mark.parametrize("d", [8, 576, 4096])
def test_a_rough_square_is_wrong_by_less_than_it_says_and_the_smallest_is_exact(d, monkeypatch):
    monkeypatch.setattr(l2, "ROWS", 7)
    monkeypatch.setattr(l2, "COLUMNS", 33)
    queries, vectors, _ = adversarial(d)
    wanted = np.stack([np.square(q.astype(np.float64) - vectors).sum(1) for q in queries])
    rough = l2.rough_squares(torch.from_numpy(queries), torch.from_numpy(vectors))
    scores = np.hstack([part.double() for _, part in l2.blocks(rough.scores, len(queries))])
    wrong = np.abs(scores + rough.norms.numpy()[:, None] - wanted)
    assert (wrong <= rough.error.numpy()[:, None]).all() and wrong.max() > 0
    np.testing.assert_allclose(rough.lowest, wanted.min(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("d", [8, 576, 4096])
def test_nearest_is_the_top_of_the_distances_with_ties_by_number(d):
    queries, vectors, _ = adversarial(d)
    items, found = grounding.nearest(queries, vectors, 10)
    wanted = np.stack([np.square(q.astype(np.float64) - vectors).sum(1) for q in queries])
    order = np.argsort(wanted, axis=1, kind="stable")[:, :10]
    assert items.tolist() == order.tolist() and items.dtype == np.int64
    np.testing.assert_allclose(found, np.sqrt(np.take_along_axis(wanted, order, 1)), rtol=1e-12)
    np.testing.assert_allclose(found, np.sort(grounding.distances(queries, vectors))[:, :10])
    assert (found[:, 1:] == found[:, :-1]).any()


def test_nearest_of_small_whole_numbers_is_exact_where_most_tie():
    rng = np.random.default_rng(0)
    queries = rng.integers(-2, 3, (50, 2)).astype(np.float32)
    vectors = rng.integers(-2, 3, (200, 2)).astype(np.float32)
    for k in (1, 7, 200, 300):
        wanted = np.square(queries[:, None] - vectors).sum(2).argsort(axis=1, kind="stable")
        assert grounding.nearest(queries, vectors, k)[0].tolist() == wanted[:, :k].tolist()


def test_namesakes_are_one_candidate():
    items = pd.DataFrame({"title": ["b", "a", "b", "c"], "title_group": [0, 1, 0, 3]})
    titles, of_item = prepared.candidates(items)
    assert titles == ["b", "a", "c"] and of_item.tolist() == [0, 1, 0, 2]


def test_counted_is_a_plain_count():
    keys = np.array([[3.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    found = grounding.counted(keys, np.array([1, 3]))
    assert found.to_numpy().tolist() == [[0, 1], [0, 3]]
    same = grounding.counted(keys[0], np.array([1, 3, 0]))
    assert same.to_numpy().tolist() == [[0, 1], [2, 0], [3, 0]]


def test_reference_policies_by_hand():
    # Target "b" has one namesake; two rows are nearer: place 2 or 3 of the rows.
    rows = pd.DataFrame({"rank": [2], "ties": [1]})
    last = grounding.reference_ranks(rows, np.array([1]), "last")
    best = grounding.reference_ranks(rows, np.array([1]), "best")
    assert last.to_numpy().tolist() == [[3, 0]] and best.to_numpy().tolist() == [[2, 0]]


def test_beams_by_hand():
    found = np.array([[[0.1, 0.5, 0.9], [0.9, 0.2, 0.3]]])  # one example, two beams, three items
    assert grounding.nearest_beam(found).tolist() == [[0.1, 0.2, 0.3]]
    assert grounding.interleaved(found).argsort().tolist() == [[0, 1, 2]]
    weighted = grounding.weighted_beams(found, np.log([[0.6, 0.2]]))  # softmax: 3/4 and 1/4
    assert weighted == pytest.approx(np.array([[0.3, 0.425, 0.75]]))


def keys_by_loops(by_beam, scores):
    """What `grounding.merged` gives, one example and one candidate at a time."""
    keys = {way: np.empty((len(by_beam), by_beam.shape[2])) for way in WAYS}
    for example, (rows, row_scores) in enumerate(zip(by_beam, scores, strict=True)):
        chances = [np.exp(score - max(row_scores)) for score in row_scores]
        chances = [chance / sum(chances) for chance in chances]
        for item in range(by_beam.shape[2]):
            own = [row[item] for row in rows]
            turns = [(row < row[item]).sum() * len(rows) + b for b, row in enumerate(rows)]
            total = 0.0
            for chance, distance in zip(chances, own, strict=True):
                total += chance * distance
            found = (min(own), min(turns), total)
            for way, key in zip(WAYS, found, strict=True):
                keys[way][example, item] = key
    return keys


WAYS = ("nearest-beam", "interleaved", "weighted-beams")


def test_all_beams_rank_and_list_as_plain_loops_do_whatever_the_blocks(monkeypatch):
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((40, 3)).astype(np.float32)
    vectors[[5, 29]] = vectors[11]
    queries = rng.standard_normal((25, 4, 3)).astype(np.float32)
    scores, targets = np.log(rng.random((25, 4))), rng.choice([5, 11, 29, 7], 25)
    scores[:5] = -1.0  # beams that weigh the same
    by_beam = np.sqrt(np.square(queries[:, :, None].astype(np.float64) - vectors).sum(3))
    wanted = keys_by_loops(by_beam, scores)
    for columns in (4096, 7):
        monkeypatch.setattr(l2, "COLUMNS", columns)
        ranks, lists = grounding.all_beams(queries, vectors, scores, targets, 8)
        for way in WAYS:
            own = wanted[way][np.arange(25), targets][:, None]
            assert ranks[way]["rank"].tolist() == (wanted[way] < own).sum(1).tolist()
            assert ranks[way]["ties"].tolist() == ((wanted[way] == own).sum(1) - 1).tolist()
            order = np.argsort(wanted[way], axis=1, kind="stable")[:, :8]
            assert lists[way].tolist() == order.tolist()
            assert set(ranks[way].ties) == {0, 2}


def test_namesakes_of_the_target_tie_with_it_under_all_beams(monkeypatch):
    monkeypatch.setattr(l2, "COLUMNS", 33)
    queries, vectors, targets = adversarial(576)
    targets %= 50  # titles with an exact duplicate, and a near one that is no tie
    beams = np.stack([queries, np.roll(queries, 1, axis=0)], axis=1)
    ranks, _ = grounding.all_beams(beams, vectors, np.log(np.full((80, 2), 0.5)), targets, 1)
    assert (ranks["weighted-beams"].ties == 1).all()


def test_a_title_that_is_written_for_everybody_gives_way_to_one_that_is_not():
    titles = np.array([["Heat", "Alien"], ["Heat", "Alien"], ["Heat", "Heat"]])
    scores = np.array([[-0.1, -0.5], [-0.1, -2.0], [-0.1, -0.1]])
    prior = np.array([["Heat", "Heat"], ["Heat", "Fargo"]])  # log 4 = 1.39 against log 1 = 0
    assert grounding.contrastive(titles, scores, prior).tolist() == [1, 0, 0]


def test_lists_without_what_was_seen_agree_with_the_ranks():
    queries, vectors, targets = adversarial(8)
    rng = np.random.default_rng(6)
    near = grounding.nearest(queries, vectors, 300)[0]
    seen = [rng.choice(row[:30], size=rng.integers(0, 11), replace=False) for row in near]
    lists = grounding.unseen(near[:, :31], seen, targets, 20)
    for row, found, items, target in zip(near, lists, seen, targets, strict=True):
        wanted = [item for item in row if item == target or item not in items]
        assert found.tolist() == wanted[:20]
    assert any(target in items for target, items in zip(targets, seen, strict=True))
    assert grounding.unseen(np.array([[4, 2, 3]]), [np.array([2])], np.array([0]), 3).tolist() == [
        [4, 3]
    ]


def test_the_first_of_some_keys_are_those_of_a_stable_sort():
    keys = np.random.default_rng(7).integers(0, 6, (50, 30)).astype(float)
    keys[:, 3] = -np.inf
    for k in (1, 7, 30, 40):
        wanted = keys.argsort(axis=1, kind="stable")[:, :k]
        assert grounding.first(keys, k).tolist() == wanted.tolist()


def test_bad_input_is_named():
    vectors, queries = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[:2]
    targets = np.array([0, 1])
    broken = vectors.copy()
    broken[1, 2] = np.nan
    with pytest.raises(GroundingError, match="row 1 of vectors"):
        grounding.ranks(queries, broken, targets)
    broken[1, 2] = np.inf
    with pytest.raises(GroundingError, match="row 1 of queries"):
        grounding.ranks(broken, vectors, np.array([0, 1, 2]))
    with pytest.raises(GroundingError, match="target 3 of row 1 .*catalogue of 3"):
        grounding.ranks(queries, vectors, np.array([0, 3]))
    with pytest.raises(GroundingError, match="3 dimensions and candidates 2"):
        grounding.ranks(queries, vectors[:, :2], targets)
    with pytest.raises(GroundingError, match="2 queries need 2 targets"):
        grounding.ranks(queries, vectors, np.array([0]))
    generations = pd.DataFrame({"example": [1, 1], "beam": [0, 1], "text": ['"a"', '"b"']})
    assert grounding.texts(generations, [1]).tolist() == [["a", "b"]]
    with pytest.raises(GroundingError, match="example 2"):
        grounding.texts(generations, [1, 2])
    with pytest.raises(GroundingError, match="example 2"):
        grounding.beam_scores(generations.assign(score=-0.5), [1, 2])
