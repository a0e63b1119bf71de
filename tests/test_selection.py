"""Every way to choose samples, against brute force or a case worked out by hand."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_windows import PAD, windows_of

from bigrec_lib.method import selection, sequences
from bigrec_lib.method.selection import ARMS, SelectionError, select

N = 40


def world(n=N, seed=0, d=3):
    rng = np.random.default_rng(seed)
    names = ("loss", "el2n", "grand", "influence", "effort", "dealrec")
    return selection.Candidates(
        users=rng.integers(0, 12, n),
        times=rng.integers(0, 1000, n),
        lengths=rng.integers(1, 11, n),
        popularity=rng.integers(0, 5, n),
        vectors=rng.standard_normal((n, 2 * d)).astype(np.float32),
        wanted=rng.standard_normal((7, d)).astype(np.float32),
        scores={name: rng.standard_normal(n) for name in names},
    )


@pytest.mark.parametrize("arm", ARMS)
def test_an_arm_gives_so_many_different_rows_and_the_same_again(arm):
    c = world()
    for budget in (1, 17, N if not arm.startswith("dealrec") else 36):
        rows = select(arm, c, budget, 5)
        assert rows.dtype == np.int64 and len(set(rows.tolist())) == len(rows) == budget
        assert ((rows >= 0) & (rows < N)).all()
        assert rows.tolist() == select(arm, c, budget, 5).tolist()
    others = {tuple(sorted(select(arm, c, 17, seed))) for seed in range(8)}
    assert (len(others) > 1) == ARMS[arm].draws


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("budget", [0, N + 1])
def test_a_budget_beyond_the_candidates_is_refused(arm, budget):
    with pytest.raises(SelectionError, match=f"{budget} of 40 candidates .* raise `pool`"):
        select(arm, world(), budget, 0)


def test_what_is_unknown_missing_or_not_finite_is_refused_in_one_line():
    c = world()
    bare = c.take(np.arange(10))
    bare = selection.Candidates(bare.users, bare.times, bare.lengths, bare.popularity)
    for arm, words in {
        "best": "unknown arm 'best'",
        "k_centre": "k_centre needs vectors",
        "loss_top": "loss of the candidates is needed",
    }.items():
        with pytest.raises(SelectionError, match=words) as caught:
            select(arm, bare, 2, 0)
        assert "\n" not in str(caught.value)
    c.scores["loss"][3] = np.nan
    with pytest.raises(SelectionError, match="1 of 40 scores of loss are not finite"):
        select("loss_bottom", c, 2, 0)
    with pytest.raises(SelectionError, match="DEALRec leaves 36 candidates, so 37"):
        select("dealrec", c, 37, 0)


def test_no_user_gives_two_samples_before_every_user_gave_one():
    c = world()
    users = c.users[select("one_a_user", c, N, 3)]
    there = len(np.unique(users))
    assert len(np.unique(users[:there])) == there
    counts = np.bincount(users[: there + 5])
    assert counts.max() == 2


def quotas_one_by_one(sizes, budget):
    """From the smallest group up, written as the rule is told."""
    left, taken = budget, {}
    waiting = sorted(range(len(sizes)), key=lambda group: (sizes[group], group))
    while waiting:
        group = waiting[0]
        taken[group] = min(sizes[group], left // len(waiting))
        left -= taken[group]
        waiting = waiting[1:]
    return [taken[group] for group in range(len(sizes))]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), st.integers(0, 300))
@settings(max_examples=200, deadline=None)
def test_quotas_give_all_there_is_and_leave_no_group_out(sizes, budget):
    found = selection.quotas(np.array(sizes), budget)
    assert found.tolist() == quotas_one_by_one(sizes, budget)
    assert found.sum() == min(budget, sum(sizes))
    poor = [size for size, taken in zip(sizes, found, strict=True) if taken == size]
    rich = [taken for size, taken in zip(sizes, found, strict=True) if taken < size]
    assert not rich or max(rich) - min(rich) <= 1
    assert not rich or max(poor, default=0) <= min(rich) + 1


def test_strata_are_equally_wide_and_give_as_much_each():
    c = world(200)
    for arm, of in {"by_popularity": "popularity", "by_recency": "times"}.items():
        values = getattr(c, of).astype(float)
        edges = np.linspace(values.min(), values.max(), 6)[1:-1]
        stratum = np.searchsorted(edges, values, side="right")
        assert np.bincount(stratum[select(arm, c, 50, 1)]).tolist() == [10] * 5


def test_an_empty_stratum_gives_none_and_equal_values_are_one():
    lengths = np.array([1] * 10 + [10] * 30)
    c = selection.Candidates(np.arange(40), np.arange(40), lengths, np.zeros(40))
    rows = select("by_history", c, 24, 0)
    assert np.bincount(lengths[rows])[[1, 10]].tolist() == [10, 14]
    same = selection.Candidates(np.arange(40), np.arange(40), np.full(40, 10), np.zeros(40))
    assert len(select("by_history", same, 7, 0)) == 7


def test_the_newest_come_first():
    c = world()
    rows = select("newest", c, 10, 0)
    assert c.times[rows].tolist() == sorted(c.times, reverse=True)[:10]


def farthest_first(points, budget):
    chosen = [min(range(len(points)), key=lambda i: np.linalg.norm(points[i] - points.mean(0)))]
    while len(chosen) < budget:
        chosen.append(
            max(
                (i for i in range(len(points)) if i not in chosen),
                key=lambda i: min(np.linalg.norm(points[i] - points[j]) for j in chosen),
            )
        )
    return chosen


def test_k_centre_takes_the_farthest_and_is_within_twice_the_best_radius():
    c = world(12)
    assert select("k_centre", c, 6, 0).tolist() == farthest_first(c.vectors, 6)
    apart = np.linalg.norm(c.vectors[:, None] - c.vectors[None], axis=2)
    best = min(apart[:, list(rows)].min(1).max() for rows in combinations(range(12), 3))
    assert apart[:, select("k_centre", c, 3, 0)].min(1).max() <= 2 * best


def test_k_centre_chooses_no_row_twice_among_equal_vectors():
    c = world(6)
    c.vectors[:] = 1
    assert sorted(select("k_centre", c, 6, 0)) == list(range(6))


def test_k_means_takes_a_sample_of_each_cluster():
    rng = np.random.default_rng(0)
    centres = 100 * np.eye(4)
    vectors = np.repeat(centres, [9, 7, 5, 3], axis=0) + rng.standard_normal((24, 4))
    c = world(24)
    c = selection.Candidates(c.users, c.times, c.lengths, c.popularity, vectors)
    rows = select("k_means", c, 4, 0)
    assert rows.tolist() == [
        start + int(np.argmin(np.linalg.norm(part - part.mean(0), axis=1)))
        for start, part in zip((0, 9, 16, 21), np.split(vectors, [9, 16, 21]), strict=True)
    ]


def test_herding_by_hand_and_nearer_to_the_mean_than_chance():
    vectors = np.array([[3.0], [-1.0], [-1.0], [-1.0], [1.0]])  # mean 0.2
    c = world(5)
    few = selection.Candidates(c.users, c.times, c.lengths, c.popularity, vectors)
    # w = .2 → 3; w = .2 + .2 − 3 = −2.6 → −1; w = −1.4 → −1; w = −.2 → −1; then what is left
    assert select("herding", few, 5, 0).tolist() == [0, 1, 2, 3, 4]
    many = world(400, d=4)
    mean = many.vectors.mean(0)

    def away(rows):
        return np.linalg.norm(many.vectors[rows].mean(0) - mean)

    chance = [away(select("random", many, 40, seed)) for seed in range(50)]
    assert away(select("herding", many, 40, 0)) < min(chance)


@pytest.mark.parametrize("seed", range(5))
def test_optimal_transport_finds_the_best_of_all_sets(seed):
    c = world(7, seed)
    histories, wanted = c.vectors[:, :3], c.wanted[:3]
    apart = np.linalg.norm(histories[:, None] - wanted[None], axis=2)

    def cost(rows):
        return min(sum(apart[row, at] for at, row in enumerate(p)) for p in permutations(rows))

    rows = select("optimal_transport", c, 3, 0)
    assert cost(rows) == pytest.approx(min(cost(s) for s in combinations(range(7), 3)), rel=1e-5)


def test_wanted_histories_are_repeated_where_there_are_few():
    c = world(10)
    few = selection.Candidates(
        c.users, c.times, c.lengths, c.popularity, c.vectors, c.vectors[[4], :3]
    )
    nearest = np.argsort(np.linalg.norm(c.vectors[:, :3] - c.vectors[4, :3], axis=1))
    assert set(select("optimal_transport", few, 3, 0)) == set(nearest[:3])


def test_wanted_histories_are_measured_on_the_scale_of_the_candidates():
    rng = np.random.default_rng(0)
    titles = rng.standard_normal((50, 4))
    histories = [rng.choice(50, size, replace=False).tolist() for size in (1, 2, 5, 10) * 15]
    pool = windows_of([[*history, 0] for history in histories], n_items=50)
    wanted = pool.take(np.arange(40, 60))
    vectors = selection.vectors_of(titles, pool)
    same = selection.vectors_of(titles, wanted, pool)
    np.testing.assert_allclose(same, vectors[40:60], rtol=1e-6)
    c = selection.Candidates(*(np.zeros(60),) * 4, vectors, same[:, :4])
    assert set(select("optimal_transport", c, 20, 0)) == set(range(40, 60))


def test_top_middle_and_bottom_of_a_score():
    c = world()
    c.scores["loss"] = np.random.default_rng(1).permutation(N).astype(float)
    found = {part: c.scores["loss"][select(f"loss_{part}", c, 10, 0)] for part in
             ("top", "middle", "bottom")}  # fmt: skip
    assert found["top"].tolist() == list(range(39, 29, -1))
    assert found["middle"].tolist() == list(range(15, 25))
    assert found["bottom"].tolist() == list(range(10))


def test_equal_scores_are_a_draw():
    c = world()
    c.scores["loss"] = np.zeros(N)
    rows = {tuple(sorted(select("loss_top", c, 5, seed))) for seed in range(5)}
    assert len(rows) == 5
    assert len(select("dealrec_influence", c, 5, 0)) == 5


def test_dealrec_by_hand():
    """Two dear ones dropped; the others in bins of equal width, the smallest bins first."""
    score = np.r_[np.zeros(12), np.full(4, 5.0), 10.0, 10.0, 1000, 2000]  # 20 candidates
    rows = selection.binned(score, 11, 0)
    # bins of 12, 4 and 2, 47 empty: the 2, then the 4, then 5 of the 12
    assert np.unique(score[rows], return_counts=True)[1].tolist() == [5, 4, 2]
    assert max(score[rows]) == 10
    assert np.unique(score[selection.binned(score, 18, 0)], return_counts=True)[1].tolist() == [
        12, 4, 2
    ]  # fmt: skip


def test_dealrecs_score_by_hand():
    influence, effort = np.array([-2.0, 0.0, 2.0]), np.array([5.0, 4.0, 3.0])
    found = selection.dealrec(influence, effort, 0.3)
    assert found.tolist() == pytest.approx([0.3, 0.65, 1.0])
    assert selection.dealrec(np.ones(3), np.ones(3), 1.0).tolist() == [0, 0, 0]


# ------------------------------------------------------------------------ what is known for free

ROWS = [[0, 1, 2], [3], [4, 5]]
TITLES = ["Red Moon", "Red Sun", "Blue Moon", "The Red King", "x", "y", "z", "u", "v"]


def test_vectors_of_history_and_target_by_hand():
    titles = np.random.default_rng(0).standard_normal((PAD, 2))
    samples = windows_of([[0, 1, 2], [4, 5]])
    centred = titles - titles.mean(0)
    histories = np.stack([(centred[0] + centred[1]) / 2, centred[4]])
    targets = centred[[2, 5]]
    expected = [h / np.linalg.norm(h, axis=1).mean() for h in (histories, targets)]
    found = selection.vectors_of(titles, samples)
    np.testing.assert_allclose(found, np.hstack(expected), rtol=1e-6)


def test_shared_words_by_hand():
    samples = windows_of([[0, 1, 2], [0, 3], [4, 5]])
    found = selection.shared_words(samples, TITLES)
    assert found.tolist() == pytest.approx([1 / 2, 1 / 3, 0])


def test_candidates_know_length_and_popularity():
    samples = windows_of([[0, 1, 2], [4, 5]])
    groups = sequences.popularity_groups(np.arange(PAD))
    c = selection.candidates_of(samples, groups)
    assert c.lengths.tolist() == [2, 1] and c.popularity.tolist() == groups[[2, 5]].tolist()
    assert c.take(np.array([1])).users.tolist() == [1] and len(c) == 2
