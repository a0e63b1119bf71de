"""What is said of chosen samples: intervals cover, planted effects are found, impostors are not."""

import json

import numpy as np
import pandas as pd
import pytest

from bigrec_lib.findings import (
    choices,
    chosen,
    claims,
    evidence,
    figures_selection,
    rules,
    significance,
)
from bigrec_lib.method import selection
from bigrec_lib.study import steps
from bigrec_lib.study.row_keys import KEYS

N, USERS, ITEMS, K = 300, 150, 400, 20
ARMS = {"random": (10, 2), "newest": (1, 3), "k_means": (3, 2)}
BUDGETS = (16, 64)
TARGETS = np.random.default_rng(1).integers(0, 40, N)  # popular items are the first 40
USER = np.arange(N) // 2
ITEM_FRAME = pd.DataFrame({"item": np.arange(ITEMS), "title_group": np.arange(ITEMS)})
EXAMPLES = pd.DataFrame({"example": np.arange(N), "user": USER, "target": TARGETS})
LUCK = np.random.default_rng(2).random(N)


def keys(arm, draw, seed, budget):
    name = f"picked.{arm}.{draw}"
    own = {"dataset": "films", "run": f"n{budget}-s{seed}-as-{name}", "n_train": budget}
    return KEYS | own | {"seed": seed, "setting": name}


def listed(rng, chance, world):
    """Lists (N, K): other items, or with a chance the target of the user it is for."""
    if world == "shuffled":  # hits well, and has nothing to do with the user
        return rng.permuted(np.tile(np.arange(40), (N, 1)), axis=1)[:, :K]
    shown = rng.permuted(np.tile(np.arange(40, ITEMS), (N, 1)), axis=1)[:, :K]
    hit = 0.8 * LUCK + 0.2 * rng.random(N) < chance
    shown[hit, rng.integers(0, K, N)[hit]] = TARGETS[hit]
    return shown


def study(world, arms=ARMS):
    """picked ranks, likelihoods and gains of a world."""
    ranks, lists, values = [], [], []
    for arm, (draws, seeds) in arms.items():
        for budget in BUDGETS:
            for draw in range(draws):
                of_draw = np.random.default_rng([len(arm), draw, budget]).normal(0, 0.02)
                for seed in range(seeds):
                    rng = np.random.default_rng([len(arm), budget, draw, seed, 9])
                    better = world == "planted" and arm == "newest"
                    chance = 0.0 if world == "random" else 0.2 + 0.3 * better + of_draw
                    own = keys(arm, draw, seed, budget)
                    poor = world == "shuffled" and arm != "newest"
                    shown = listed(rng, 0.1 if poor else chance, "" if poor else world)
                    place = shown == TARGETS[:, None]
                    rank = np.where(place.any(1), place.argmax(1), 50)
                    rows = {"method": "bigrec", "example": np.arange(N)}
                    ranks.append(pd.DataFrame(own | rows | {"rank": rank, "ties": 0}))
                    lists.append(pd.DataFrame(own | rows | {"items": list(shown)}))
                    likely = 10 * LUCK - 20 + better + of_draw + rng.normal(0, 0.5, N)
                    knows = 0.0 if world in ("random", "shuffled") else 1.0 + better
                    for what, value in {
                        steps.OWN: likely,
                        steps.OTHER: likely - knows - rng.normal(0, 0.5, N),
                        steps.TOKENS: np.full(N, 9.0),
                    }.items():
                        values.append(pd.DataFrame(own | rows | {"what": what, "value": value}))
    gains = evidence.personal_gains(pd.concat(lists), {"films": ITEM_FRAME}, {"films": EXAMPLES})
    users = EXAMPLES[["example", "user"]]
    ranks = evidence.scored(pd.concat(ranks).merge(users, on="example"))
    values = pd.concat(values).merge(users, on="example")
    return choices.picked(ranks), choices.likelihoods(values), choices.picked(gains)


@pytest.fixture(scope="module")
def worlds():
    return {world: study(world) for world in ("planted", "null", "random", "shuffled")}


def verdicts(of):
    return claims.judged(choices.q1(*of), "n#c", "")


def test_a_planted_effect_is_found_and_no_other(worlds):
    rows = verdicts(worlds["planted"])
    assert len(rows) == 2 * 2 * 2 + 2
    good = rows[rows.statement.str.startswith("Newest −")]
    assert set(good.verdict) == {rules.SUPPORTED} and len(good) == 4
    assert set(good.metric) == set(choices.ENDPOINTS.values())
    other = rows[rows.statement.str.startswith("k-means medoids −")]
    assert rules.SUPPORTED not in set(other.verdict)
    fewer = rows[rows.statement == "16 samples, Newest / 64 at random − 1"]
    assert fewer.verdict.tolist() == [rules.SUPPORTED] and fewer.rule.tolist() == ["no worse"]
    assert good.seeds.tolist() == [3] * 4 and (good.n == N).all()


@pytest.mark.parametrize("world", ["random", "shuffled", "null"])
def test_impostors_and_a_planted_null_are_not_supported(worlds, world):
    rows = verdicts(worlds[world])
    better = rows[rows.rule == "better"]
    assert rules.SUPPORTED not in set(better.verdict)
    if world == "shuffled":  # it does hit better than random samples, for nobody in particular
        row = better[(better.metric == "NDCG@20") & better.statement.str.startswith("Newest")].iloc[
            0
        ]
        assert row.estimate > 0 and row.p_own < 0.01
        assert rules.SUPPORTED not in set(rows.verdict)


def test_what_is_missing_is_said():
    ranks, likely, gains = study("null", {"newest": (1, 3)})
    rows = claims.judged(choices.q1(ranks, likely, gains), "n#c", "")
    assert set(rows.verdict) == {rules.MISSING}
    assert rows.reason.str.startswith("missing: ").all()
    ranks, likely, gains = study("null")
    rows = claims.judged(choices.q1(ranks, likely[:0], gains[:0]), "n#c", "")
    of_likelihood = rows[rows.metric == "log-likelihood of the title"]
    assert set(of_likelihood.verdict) == {rules.MISSING}
    assert of_likelihood.reason.str.contains(choices.KNOWS).all()
    assert rows.reason.str.contains("personal gain").any()


def test_with_fewer_than_three_units_nothing_is_decided(worlds):
    ranks, likely, gains = worlds["planted"]
    few = [frame[(frame.arm == "random") | (frame.seed < 2)] for frame in (ranks, likely, gains)]
    rows = verdicts(few)
    newest = rows[rows.statement.str.startswith("Newest −")]
    assert set(newest.verdict) == {rules.DEMONSTRATION}


# ------------------------------------------------------------------------------- the intervals


def test_a_contrast_with_a_constant_is_the_mean_of_significance():
    rng = np.random.default_rng(0)
    values, users = rng.standard_normal((4, 60)), np.arange(60) // 3
    theirs = np.zeros((1, 60))
    ours = choices.contrast(values, theirs, users)
    same = significance.mean_of(values, users)
    assert ours.value == pytest.approx(same.value)
    assert ours.error == pytest.approx(same.error) and ours.df == pytest.approx(same.df)


def simulated(rng, draws, seeds, n, effect=0.0):
    """Nested runs (draws, seeds, n): a draw, a seed within it, and the rest; examples elsewhere."""
    return (
        effect
        + rng.normal(0, 0.5, (draws, 1, 1))
        + rng.normal(0, 0.3, (draws, seeds, 1))
        + rng.normal(0, 1.0, (draws, seeds, n))
    )


def test_intervals_cover_under_nested_draws_and_seeds_and_pairs_as_units_do_not():
    rng = np.random.default_rng(5)
    users = np.repeat(np.arange(40), 3)
    covered, naive = [], []
    for _ in range(600):
        shared = rng.normal(0, 2.0, 120) + np.repeat(rng.normal(0, 1.0, 40), 3)
        apart = np.repeat(rng.normal(0, 0.5, 40), 3)  # what users add to the difference
        ours = simulated(rng, 3, 2, 120, effect=0.7) + shared + apart
        theirs = simulated(rng, 10, 2, 120) + shared
        nested = choices.contrast(ours.mean(1), theirs.mean(1), users).interval
        pairs = choices.contrast(ours.reshape(6, 120), theirs.reshape(20, 120), users).interval
        covered.append(nested.low < 0.7 < nested.high)
        naive.append(pairs.low < 0.7 < pairs.high)
    assert 0.93 <= np.mean(covered) <= 0.99
    assert np.mean(naive) < np.mean(covered) - 0.03


@pytest.mark.parametrize("draws", [4, 10])
def test_a_set_that_is_always_chosen_is_one_draw_whatever_its_seeds(draws):
    """It is drawn at random like the others, so it must not often be told apart from them."""
    rng = np.random.default_rng(7)
    users = np.repeat(np.arange(40), 3)
    told = {True: 0, False: 0}
    for _ in range(400):
        shared = rng.normal(0, 2.0, 120)
        ours = simulated(rng, 1, 3, 120)[0] + shared
        theirs = simulated(rng, draws, 2, 120).mean(1) + shared
        for as_one in told:
            told[as_one] += (
                choices.contrast(ours, theirs, users, theirs if as_one else None).p < 0.05
            )
    assert told[True] / 400 < 0.07 and told[False] / 400 > 0.1


def test_a_small_set_that_is_always_chosen_varies_as_small_sets_do():
    rng = np.random.default_rng(8)
    users = np.arange(80)
    told = 0
    for _ in range(400):
        shared = rng.gamma(2.0, 1.0, 80)
        ours = shared + rng.normal(0, 0.3, 1) + rng.normal(0, 0.05, (3, 1))
        small = shared + rng.normal(0, 0.3, (10, 1))
        large = shared + rng.normal(0, 0.05, (10, 1))
        told += choices.relative(ours, large, users, small).p < 0.05
    assert told / 400 < 0.08


def test_one_random_draw_decides_nothing():
    ranks, likely, gains = study("planted", ARMS | {"random": (1, 3)})
    rows = verdicts((ranks, likely, gains))
    assert set(rows[rows.verdict != rules.MISSING].verdict) == {rules.DEMONSTRATION}


def test_a_relative_difference_covers_its_truth():
    rng = np.random.default_rng(6)
    users = np.repeat(np.arange(60), 2)
    covered = []
    for _ in range(400):
        shared = rng.gamma(2.0, 1.0, 120)
        ours = 0.8 * shared + rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.3, (3, 120))
        theirs = shared + rng.normal(0, 0.1, (10, 1)) + rng.normal(0, 0.3, (10, 120))
        found = choices.relative(ours, theirs, users).interval
        covered.append(found.low < -0.2 < found.high)
    assert 0.92 <= np.mean(covered) <= 0.995
    assert choices.relative(np.ones((2, 120)), np.zeros((2, 120)), users) is None


def test_variances_of_draws_and_seeds_by_hand():
    runs = np.array([[1.0, 3.0], [5.0, 7.0]])  # within: 2; means 2 and 6: 8 = 2 / 2 + 7
    assert choices.components(runs) == pytest.approx((7**0.5, 2**0.5))
    assert choices.components(np.array([[1.0, 9.0], [5.0, 5.0]]))[0] == 0
    alone = choices.components(np.array([[1.0], [3.0]]))
    assert alone[0] == pytest.approx(2**0.5) and np.isnan(alone[1])
    assert np.isnan(choices.components(np.array([[1.0, 3.0]]))[0])


def test_draws_are_the_units_of_an_arm_that_draws_and_seeds_of_one_that_does_not(worlds):
    ranks, _, _ = worlds["null"]
    own = ranks[(ranks.arm == "k_means") & (ranks.budget == 16)]
    table = choices.units(own, "ndcg")
    assert table.shape == (3, N)
    expected = own[own.draw == 1].groupby("example").ndcg.mean()
    assert table.loc[1].to_numpy() == pytest.approx(expected.to_numpy())
    newest = ranks[(ranks.arm == "newest") & (ranks.budget == 16)]
    assert choices.units(newest, "ndcg").index.tolist() == [0, 1, 2]


# -------------------------------------------------------------------------- tables and figures


def some_samples():
    rows = [
        ("random", 0, 0), ("random", 0, 1), ("random", 1, 1), ("random", 1, 2),
        ("newest", 0, 1), ("newest", 0, 2),
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["arm", "draw", "example"])
    features = {"popularity": frame.example * 10, "length": 3, "age": 0.5, "words": 0.25}
    return frame.assign(dataset="films", budget=2, user=frame.example, **features)


def test_overlaps_and_profiles_by_hand():
    found = chosen.overlaps(some_samples()).set_index(["arm", "against"]).jaccard
    assert found["random", "random"] == pytest.approx(1 / 3)
    assert found["newest", "newest"] == 1
    assert found["random", "newest"] == found["newest", "random"] == pytest.approx((1 / 3 + 1) / 2)
    profile = chosen.profiles(some_samples()).set_index("arm")
    assert profile.popularity.to_dict() == {"random": 10.0, "newest": 15.0}
    assert profile.users.to_dict() == {"random": 2.0, "newest": 2.0}


def test_seconds_charge_choosing_and_tuning(tmp_path):
    jobs = {
        "a": {"notebook": "13a_select_samples", "keys": KEYS | {"dataset": "films"},
              "seconds_of": {"random, 16": 1.0, "newest, 16": 5.0, "vectors": 99.0}},
        **{f"t{seed}": {"notebook": "02_tune_llm", "keys": keys("newest", 0, seed, 16),
                        "seconds_of": {"tuning": 10.0 + seed}} for seed in (0, 2)},
        "other": {"notebook": "02_tune_llm", "keys": KEYS | {"dataset": "films", "n_train": 16},
                  "seconds_of": {"tuning": 1000.0}},
    }  # fmt: skip
    (tmp_path / "manifests.json").write_text(json.dumps({"jobs": jobs, "files": {}}))
    (row,) = choices.seconds_of(tmp_path).to_dict("records")
    assert row == {"dataset": "films", "budget": 16, "arm": "newest", "selecting": 5.0,
                   "tuning": 11.0, "total": 16.0}  # fmt: skip


def test_table_figure_and_sentences(worlds):
    ranks, likely, gains = worlds["planted"]
    seconds = ranks[["dataset", "budget", "arm"]].drop_duplicates()
    seconds = seconds.assign(selecting=1.0, tuning=9.0, total=10.0)
    found = choices.table(ranks, likely, gains, seconds)
    assert len(found) == 6
    newest = found[(found.arm == "newest") & (found.budget == 64)].iloc[0]
    assert newest.ndcg_low < newest.ndcg_difference < newest.ndcg_high and newest.ndcg_low > 0
    assert newest.knows == pytest.approx(2, abs=0.1)
    few = choices.table(ranks, likely[likely.example < 7], gains, seconds)
    assert (few.n_likelihood == 7).all() and (few.n == N).all()
    bands = choices.bands(ranks, likely)
    assert (bands.draws == 10).all() and (bands.low < bands.high).all()
    single = choices.bands(ranks[ranks.draw == 0], likely[likely.draw == 0])
    assert (single.draws == 1).all() and (single.low == single.high).all()
    figure = figures_selection.quality(found, bands)
    assert len(figure.axes) == 2
    figures_selection.overlap(chosen.overlaps(some_samples()))
    said = choices.sentences(verdicts(worlds["planted"]), found, choices.variances(ranks, likely))
    assert len(said) == 5 and said[0].startswith("**Choosing samples helps in places**")
    assert "Newest − at random, 64 samples: NDCG@20 **higher**, +" in said[0]
    assert said[3].startswith("In **6 of 6** arms")
    assert "Newest" in said[1] and "above chance" in said[1]
    null = worlds["null"]
    table = choices.table(*null, seconds)
    said = choices.sentences(verdicts(null), table, choices.variances(*null[:2]))
    assert said[0].startswith("**No choice of samples is shown to beat chance**")


def test_one_seed_decides_nothing_and_what_is_worse_than_chance_is_said(worlds):
    """Random draws and the arm are swapped: what was better than chance is worse."""
    frames = []
    for frame in worlds["planted"]:
        swapped = frame.arm.replace({"newest": "random", "random": "newest"})
        kept = frame.assign(arm=swapped)[frame.arm.isin(["newest", "random"]) & (frame.seed == 0)]
        frames.append(kept[kept.draw == 0])
    decided = claims.judged(choices.q1(*frames), "13#c", "")
    seconds = pd.DataFrame(columns=["dataset", "budget", "arm", "selecting", "tuning", "total"])
    said = choices.sentences(
        decided, choices.table(*frames, seconds), choices.variances(*frames[:2])
    )
    assert said[0].startswith("**Nothing is decided**: of ") and "demonstration" not in said[0]
    assert "Newest − at random, 64 samples: NDCG@20 **lower**, -" in said[0]


def test_every_arm_has_a_name_a_look_and_a_place_among_the_parameters():
    from typing import get_args

    from bigrec_lib.study.parameters_measures import Arm

    assert set(choices.LABELS) == set(selection.ARMS) == set(get_args(Arm))
    looks = [figures_selection.look(arm) for arm in choices.LABELS]
    assert len(set(looks)) == len(looks)
