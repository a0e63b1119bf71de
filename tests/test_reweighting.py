"""Ranks at every γ against plain loops, on random, tied and degenerate data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigrec_lib.method import grounding, l2, metrics, reweighting, sweeps
from bigrec_lib.method.reweighting import ReweightingError

GRIDS = {"authors": reweighting.GAMMAS, "popularity": reweighting.WHOLE}


def by_formula(found, targets, weights, gamma):
    """Rank and ties from D̂ (1 + W)^-γ as docs/method.md writes it."""
    low, high = found.min(1, keepdims=True), found.max(1, keepdims=True)
    pulled = (found - low) / np.where(high > low, high - low, 1) * (1.0 + weights) ** -gamma
    own = np.take_along_axis(pulled, targets[:, None], 1)
    return (pulled < own).sum(1), (pulled == own).sum(1) - 1


def by_definition(logs, targets, weights, gamma, seen=None):
    """Rank and ties from a < γ b, pair by pair; the target is no rival, nor is what was seen."""
    rank, ties = [], []
    for row, target in enumerate(targets):
        own = weights if weights.ndim == 1 else weights[row]
        b = np.log1p(own.astype(np.float64)) - np.log1p(np.float64(own[target]))
        with np.errstate(invalid="ignore"):
            a = logs[row] - logs[row, target]
        b[np.isnan(a)] = 0  # both at D̂ = 0, whatever their weights
        a[np.isnan(a)] = 0
        rivals = np.arange(len(a)) != target
        if seen is not None:
            rivals &= ~np.isin(np.arange(len(a)), seen[row])
        rank.append((a < gamma * b)[rivals].sum())
        ties.append((a == gamma * b)[rivals].sum())
    return np.array(rank), np.array(ties)


def swept(found, targets, weights, grid, seen=None):
    """`ranks_of_distances`, which `ranks` must agree with: each row's candidates lie on a line."""
    rows = [
        reweighting.ranks(
            np.zeros((1, 1)),
            found[row][:, None],
            targets[row : row + 1],
            weights if weights.ndim == 1 else weights[row : row + 1],
            grid,
            seen=None if seen is None else seen[row : row + 1],
        )
        for row in range(len(found))
    ]
    of_lines = [np.concatenate(parts).tolist() for parts in zip(*rows, strict=True)]
    rank, ties = reweighting.ranks_of_distances(found, targets, weights, grid, seen=seen)
    assert of_lines == [rank.tolist(), ties.tolist()]
    return rank, ties


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("per_row", [False, True])
def test_the_sweep_ranks_as_the_formula_does_at_every_gamma(grid, per_row):
    rng = np.random.default_rng(0)
    found = rng.random((40, 200))
    found[:, 50:60] = found[:, 40:50]
    weights = rng.random((40, 200) if per_row else 200).astype(np.float32)
    weights[..., 50:55] = weights[..., 40:45]
    weights[..., ::7] = 0
    targets = np.r_[np.arange(40, 60), rng.integers(0, 200, 20)]
    rank, ties = swept(found, targets, weights, GRIDS[grid])
    for column, gamma in enumerate(GRIDS[grid]):
        wanted = by_formula(found, targets, weights.astype(np.float64), gamma)
        assert rank[:, column].tolist() == wanted[0].tolist()
        assert ties[:, column].tolist() == wanted[1].tolist()
    assert ties.any()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_sweep_is_exact_where_everything_ties(data):
    items = data.draw(st.integers(1, 7))
    rows = data.draw(st.integers(1, 3))
    row = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]), min_size=items, max_size=items)
    found = np.array([data.draw(row) for _ in range(rows)])
    weights = np.array(data.draw(row))
    targets = np.array([data.draw(st.integers(0, items - 1)) for _ in range(rows)])
    grid = np.array(sorted(data.draw(st.sets(st.sampled_from([0, 0.5, 1, 2, 3, 50]), min_size=1))))
    history = st.lists(st.integers(0, items - 1), max_size=4)
    seen = [np.array(data.draw(history), dtype=int) for _ in range(rows)]
    with np.errstate(divide="ignore"):
        logs = np.log(found - found.min(1, keepdims=True))
    for out in (None, seen):
        rank, ties = swept(found, targets, weights, grid, out)
        for column, gamma in enumerate(grid):
            wanted = by_definition(logs, targets, weights, gamma, out)
            assert rank[:, column].tolist() == wanted[0].tolist()
            assert ties[:, column].tolist() == wanted[1].tolist()


def test_the_nearest_stays_first_and_a_row_without_distances_ties_throughout():
    found = np.array([[0.0, 1.0, 2.0], [5.0, 5.0, 5.0]])
    weights = np.array([0.0, 1.0, 1.0])
    rank, ties = swept(found, np.array([0, 1]), weights, reweighting.WHOLE)
    assert not rank.any()
    assert (ties == [[0], [2]]).all()


def test_ranks_from_embeddings_are_those_of_the_formula(monkeypatch):
    monkeypatch.setattr(sweeps, "SWEPT", 11 * 40)  # blocks of 8, 8 and 7 rows
    monkeypatch.setattr(l2, "COLUMNS", 7)
    rng = np.random.default_rng(1)
    queries, vectors = rng.standard_normal((23, 6)), rng.standard_normal((40, 6))
    targets = rng.integers(0, 40, 23)
    weights = reweighting.popularity_weights(rng.integers(0, 30, 40))
    grid = np.array([0.0, 0.3, 1, 7])
    rank, ties = reweighting.ranks(queries, vectors, targets, weights, grid)
    found = np.linalg.norm(queries[:, None] - vectors, axis=2)
    for column, gamma in enumerate(grid):
        wanted = by_formula(found, targets, weights.astype(np.float64), gamma)
        assert rank[:, column].tolist() == wanted[0].tolist()
    assert not ties.any()


def test_what_the_product_leaves_open_is_measured_and_every_rank_is_that_of_float64(monkeypatch):
    """Copies of titles moved by less than an fp32 product can tell, and weights as close."""
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((400, 576)).astype(np.float32)
    vectors[200:] = vectors[:200] + rng.standard_normal((200, 576)).astype(np.float32) * 1e-6
    targets = rng.integers(0, 400, 60)
    queries = vectors[targets] + rng.standard_normal((60, 576)).astype(np.float32)
    weights = np.round(rng.random(400), 2)
    weights[200:] = weights[:200]
    measured = []
    original = sweeps.count_pairs
    monkeypatch.setattr(
        sweeps, "count_pairs", lambda row, *rest: (measured.append(len(row)), original(row, *rest))
    )
    rank, ties = reweighting.ranks(queries, vectors, targets, weights, reweighting.GAMMAS)
    assert 60 < sum(measured) < 0.2 * 60 * 400
    apart = queries[:, None].astype(np.float64) - vectors
    found = np.sqrt(np.square(apart).sum(2))
    with np.errstate(divide="ignore"):
        logs = np.log(found - found.min(1, keepdims=True))
    seen = [np.empty(0)] * 60
    for column, gamma in enumerate(reweighting.GAMMAS):
        wanted = by_definition(logs, targets, weights, gamma, seen)
        assert rank[:, column].tolist() == wanted[0].tolist()
        assert ties[:, column].tolist() == wanted[1].tolist()


def test_a_target_ties_with_itself_whatever_its_distance():
    rng = np.random.default_rng(7)
    found, targets = rng.random((2000, 60)), rng.integers(0, 60, 2000)
    weights, grid = rng.random(60), np.array([0.0, 0.5, 3.0])
    rank, ties = reweighting.ranks_of_distances(found, targets, weights, grid)
    assert not ties.any()
    with np.errstate(divide="ignore"):
        logs = np.log(found - found.min(1, keepdims=True))
    for column, gamma in enumerate(grid):
        assert rank[:, column].tolist() == by_definition(logs, targets, weights, gamma)[0].tolist()


def test_vectors_in_float64_far_from_0_keep_their_ranks():
    rng = np.random.default_rng(8)
    queries, vectors = rng.standard_normal((60, 8)) + 1e6, rng.standard_normal((200, 8)) + 1e6
    targets, weights = rng.integers(0, 200, 60), np.round(rng.random(200), 2)
    rank, _ = reweighting.ranks(queries, vectors, targets, weights, np.array([0.0, 1.0]))
    found = np.sqrt(np.square(queries[:, None] - vectors).sum(2))
    with np.errstate(divide="ignore"):
        logs = np.log(found - found.min(1, keepdims=True))
    for column, gamma in enumerate((0.0, 1.0)):
        assert rank[:, column].tolist() == by_definition(logs, targets, weights, gamma)[0].tolist()
    assert grounding.ranks(queries, vectors, targets)["rank"].tolist() == rank[:, 0].tolist()


@settings(max_examples=300, deadline=None)
@given(
    st.sets(st.floats(0, 100), min_size=1, max_size=30),
    st.floats(-20, 20),
    st.floats(0, 5, exclude_min=True) | st.just(0.0),
)
def test_a_crossing_is_found_wherever_the_grid_has_its_numbers(gammas, a, b):
    grid = np.array(sorted(gammas))
    found = sweeps.crossing(a, b, grid, sweeps.cells_of(grid))
    assert found == (grid * b < a).sum()


def test_scores_with_their_signs_changed_are_distances(monkeypatch):
    monkeypatch.setattr(sweeps, "SWEPT", 11 * 40)  # blocks of 8, 8 and 7 rows
    monkeypatch.setattr(l2, "COLUMNS", 7)
    rng = np.random.default_rng(5)
    scores = rng.standard_normal((23, 40)).astype(np.float32)
    targets, weights = rng.integers(0, 40, 23), rng.random((23, 40))
    scores[0, targets[0]] = 9
    scores[:, 20:25], weights[:, 20:25] = scores[:, :5], weights[:, :5]
    before = 0.7 * np.log1p(weights[0])
    rank, ties = reweighting.ranks_of_distances(
        -scores, targets, weights, reweighting.GAMMAS, before
    )
    scaled = 1 - reweighting.minmax(scores.astype(np.float64))
    for column, gamma in enumerate(reweighting.GAMMAS):
        keys = scaled * (1 + weights) ** -gamma * (1 + weights[0]) ** -0.7
        own = np.take_along_axis(keys, targets[:, None], 1)
        equal = np.isclose(keys, own, rtol=1e-9, atol=0)  # duplicates, or D̂ = 0
        assert rank[:, column].tolist() == ((keys < own) & ~equal).sum(1).tolist()
        assert ties[:, column].tolist() == (equal.sum(1) - 1).tolist()
    assert ties.any() and (scaled[np.arange(23), targets] == 0).any()


@pytest.mark.parametrize("per_row", [False, True])
def test_what_was_seen_is_left_out_of_ranks_from_embeddings(per_row, monkeypatch):
    monkeypatch.setattr(sweeps, "SWEPT", 11 * 40)
    monkeypatch.setattr(l2, "COLUMNS", 7)
    rng = np.random.default_rng(6)
    queries, vectors = rng.standard_normal((23, 6)), rng.standard_normal((40, 6))
    vectors[30:], weights = vectors[:10], rng.random((23, 40) if per_row else 40)
    weights[..., 30:] = weights[..., :10]
    targets, seen = rng.integers(0, 40, 23), [rng.integers(0, 40, size) for size in range(23)]
    grid = np.array([0.0, 0.3, 7])
    rank, ties = reweighting.ranks(queries, vectors, targets, weights, grid, seen=seen)
    found = np.linalg.norm(queries[:, None] - vectors, axis=2)
    with np.errstate(divide="ignore"):
        logs = np.log(found - found.min(1, keepdims=True))
    for column, gamma in enumerate(grid):
        wanted = by_definition(logs, targets, weights, gamma, seen)
        assert rank[:, column].tolist() == wanted[0].tolist()
        assert ties[:, column].tolist() == wanted[1].tolist()
    assert ties.any() and any(target in out for target, out in zip(targets, seen, strict=True))


@pytest.mark.parametrize("per_row", [False, True])
def test_a_list_is_bigrecs_own_at_first_and_that_of_the_weights_in_the_end(per_row, monkeypatch):
    monkeypatch.setattr(reweighting, "BLOCK", 160)
    rng = np.random.default_rng(7)
    queries, vectors = rng.standard_normal((15, 6)), rng.standard_normal((40, 6))
    weights = rng.random((15, 40) if per_row else 40)
    gammas = np.array([0.0, 2.0, 1e6])
    curve = reweighting.own_or_theirs(queries, vectors, weights, gammas, 5)
    found = np.linalg.norm(queries[:, None] - vectors, axis=2)
    with np.errstate(divide="ignore"):
        logs = np.log(found - found.min(1, keepdims=True))
    lists = {
        "own": found.argsort(1)[:, :5],
        "theirs": np.broadcast_to(-weights, found.shape).argsort(1)[:, :5],
    }
    shares = {"own": [], "theirs": []}
    for gamma in gammas:
        shown = (logs - gamma * np.log1p(weights)).argsort(1)[:, :5]
        for name, rows in lists.items():
            common = [len({*a} & {*b}) / 5 for a, b in zip(shown, rows, strict=True)]
            shares[name].append(np.mean(common))
    assert list(curve) == ["gamma", "metric", "k", "value", "n"]
    for name, values in shares.items():
        rows = curve[curve.metric == name]
        assert rows.gamma.tolist() == gammas.tolist() and set(rows.k) == {5} and set(rows.n) == {15}
        assert rows.value.tolist() == pytest.approx(values)
    assert shares["own"][0] == 1 and shares["theirs"][2] >= 0.8


def test_thinned_gammas_are_on_the_grid():
    assert np.isin(reweighting.THIN, reweighting.GAMMAS).all() and len(reweighting.THIN) == 24


def test_weights_by_hand():
    assert reweighting.popularity_weights(np.array([1, 3, 2])).tolist() == [0, 1, 0.5]
    assert reweighting.popularity_weights(np.array([4, 4])).tolist() == [0, 0]
    scores = np.array([[1.0, 3.0, 2.0], [7.0, 7.0, 7.0]])
    assert reweighting.collaborative_weights(scores).tolist() == [[0, 1, 0.5], [0, 0, 0]]


def test_gamma_is_the_smallest_of_the_best():
    rank = np.array([[5, 0, 0, 9], [30, 30, 30, 30]])
    curve = reweighting.curves(rank, np.zeros_like(rank), np.array([0.0, 1.0, 2.0, 3.0]))
    assert reweighting.choose(curve) == 1.0
    value = curve.query("gamma == 0 and metric == 'NDCG' and k == 20").value.item()
    assert value == pytest.approx(metrics.ndcg(np.array([5]), 20)[0] / 2)


def test_bad_input_is_refused():
    found, targets = np.zeros((1, 2)), np.array([0])
    for weights in (np.ones(3), np.array([1.0, -0.1]), np.array([1.0, np.nan])):
        with pytest.raises(ReweightingError, match="weight"):
            swept(found, targets, weights, reweighting.WHOLE)
    with pytest.raises(ReweightingError, match="-1.0 is negative"):
        swept(found, targets, np.ones(2), np.array([-1.0, 0.0]))
    with pytest.raises(ReweightingError, match="rise"):
        swept(found, targets, np.ones(2), np.array([1.0, 1.0]))
    with pytest.raises(ReweightingError, match="NaN"):
        reweighting.log_distances(np.array([[0.0, np.nan]]))
    with pytest.raises(ReweightingError, match="validation split is empty"):
        reweighting.curves(np.zeros((0, 1)), np.zeros((0, 1)), np.array([0.0]))


@pytest.mark.parametrize("per_row", [False, True])
def test_two_weights_one_after_the_other(per_row):
    rng = np.random.default_rng(2)
    queries, vectors = rng.standard_normal((15, 6)), rng.standard_normal((40, 6))
    queries[::3] = vectors[:5]
    vectors[20:25] = vectors[:5]
    targets = rng.integers(0, 40, 15)
    popular = rng.random(40).astype(np.float32)
    liked = rng.random((15, 40) if per_row else 40).astype(np.float32)
    grid = np.array([0.0, 0.3, 1, 7])
    before = 0.7 * np.log1p(popular.astype(np.float64))
    rank, _ = reweighting.ranks(queries, vectors, targets, liked, grid, before)
    found = np.linalg.norm(queries[:, None] - vectors, axis=2)
    pulled = (found - found.min(1, keepdims=True)) * (1.0 + popular.astype(np.float64)) ** -0.7
    for column, gamma in enumerate(grid):
        keys = pulled * (1.0 + liked.astype(np.float64)) ** -gamma
        own = np.take_along_axis(keys, targets[:, None], 1)
        assert rank[:, column].tolist() == (keys < own).sum(1).tolist()
        listed = reweighting.nearest(queries, vectors, liked, gamma, 5, before)
        assert np.allclose(np.take_along_axis(keys, listed, 1), np.sort(keys, 1)[:, :5])


def test_pairs_are_the_best_of_each_row_of_the_grid():
    rng = np.random.default_rng(4)
    queries, vectors = rng.standard_normal((30, 5)), rng.standard_normal((60, 5))
    targets, popular, liked = rng.integers(0, 60, 30), rng.random(60), rng.random((30, 60))
    liked[np.arange(30), targets] += 0.5
    grid = np.array([0.0, 1.0, 5.0])
    found = np.linalg.norm(queries[:, None] - vectors, axis=2)
    for row in reweighting.pairs(queries, vectors, targets, popular, liked, grid).itertuples():
        pulled = (found - found.min(1, keepdims=True)) * (1 + popular) ** -row.popularity
        values = []
        for gamma in grid:
            rank, _ = by_formula(pulled, targets, liked, gamma)
            values.append(metrics.ndcg(rank, 20).mean())
        assert row.value == pytest.approx(max(values))
        assert row.collaborative == grid[int(np.argmax(values))]


def test_candidates_with_one_vector_tie_wherever_they_stand_in_the_catalogue(monkeypatch):
    monkeypatch.setattr(l2, "COLUMNS", 7)
    rng = np.random.default_rng(3)
    queries, vectors = rng.standard_normal((9, 300)) + 40, rng.standard_normal((30, 300)) + 40
    vectors[[5, 29]] = vectors[11]
    weights = np.linspace(0, 1, 30)
    weights[[5, 29]] = weights[11]
    targets = np.full(9, 11)
    _, ties = reweighting.ranks(queries, vectors, targets, weights, np.array([0.0, 0.5, 3]))
    assert (ties == 2).all()
