"""Sentences follow the numbers: opposite results give opposite words."""

import numpy as np
import pandas as pd
import pytest

from bigrec_lib.findings import alts, prose, significance, sizes

N = 200
USERS = np.arange(N) // 2
RNG = np.random.default_rng(0)
EASY = pd.DataFrame({"rank": RNG.integers(0, 10, N), "ties": 0})
HARD = pd.DataFrame({"rank": RNG.integers(300, 400, N), "ties": 0})
SAME = EASY.sample(frac=1, random_state=0, ignore_index=True)


def compared(difference, low, high, corrected, **more):
    row = {"dataset": "d", "method": "bigrec", "against": "popularity", "gap": ""}
    row |= {"difference": difference, "low": low, "high": high, "corrected": corrected}
    return pd.DataFrame([row | {"n_train": 128} | more])


@pytest.mark.parametrize(
    "ours, theirs, word",
    [(EASY, HARD, "better than"), (HARD, EASY, "worse than"), (EASY, SAME, "not told apart from")],
)
def test_ways_to_ground(ours, theirs, word):
    titles = [f"t{n}" for n in range(500)]
    said = prose.grounded(np.array(titles[:N]), titles, {"first": theirs, "other": ours}, USERS)
    assert f"**{word.capitalize()}** the published way in NDCG@20: other" in said
    assert {w for w in prose.WORDS if f"**{w.capitalize()}**" in said} == {word}
    beyond = "farther" if theirs is HARD else "nearer"
    assert f"**{beyond} than a random order" in said


SHARES = pd.Series({"own": 0.3, "theirs": 0.8})


@pytest.mark.parametrize("new, word", [(EASY, "helps"), (HARD, "hurts"), (SAME, "no effect")])
def test_injections(new, word):
    own = HARD if word == "helps" else EASY
    ranks = {"bigrec": own, "popularity": HARD, "bigrec+popularity": new}
    said = prose.reweighted(1.0, SHARES, ranks, ["bigrec+popularity"], USERS)
    assert {w for w in ("helps", "hurts", "no effect") if w in said} == {word}
    beside = "above" if new is not HARD else "not told apart from"
    assert f"**{beside}** popularity alone" in said or word == "hurts"


def test_what_a_gamma_means():
    ranks = dict.fromkeys(("bigrec", "popularity", "bigrec+popularity"), EASY)
    none, some = (
        prose.reweighted(gamma, SHARES, ranks, ["bigrec+popularity"], USERS) for gamma in (0.0, 1.0)
    )
    assert "found no use" in none and "of the first 20" not in none
    assert "30% are then also in BIGRec's own list, and 80% in that of the weights alone" in some


def test_what_an_injection_adds_to_both():
    up, down = RNG.random(N), -RNG.random(N)
    for ours, theirs, word in (
        (up, down, "larger"),
        (down, up, "smaller"),
        (up, up[::-1], "not told apart"),
    ):
        said = prose.injected_into_both("popularity", ours, theirs, "dros", USERS)
        assert f"BIGRec's change is **{word}" in said


def test_models_that_are_not_told_apart_do_not_stand_above_each_other():
    high, low = RNG.random(N), np.zeros(N)
    for sasrec, word in ((high + 1, "better than"), (low, "worse than"), (high, "not told apart")):
        found = {"sasrec-ce": sasrec, "popularity": high[::-1], "sasrec-ce-last": low}
        said = prose.baselines(found, USERS, 128, "-last")
        assert f"cross-entropy is **{word}" in said
        step = "not told apart from" if sasrec is low else "better than"
        assert f"every step is **{step}** learning the last one" in said


def test_comparisons_follow_corrected_p_values():
    better = prose.comparisons(compared(0.1, 0.05, 0.15, 0.01))
    worse = prose.comparisons(compared(-0.1, -0.15, -0.05, 0.01))
    unsure = prose.comparisons(compared(0.1, 0.01, 0.19, 0.2))
    assert "**better than** Popularity (+0.1" in better and "worse" not in better
    assert "**worse than** Popularity (-0.1" in worse and "better" not in worse
    assert "**not told apart from** Popularity" in unsure and "better" not in unsure
    gap = prose.comparisons(compared(np.nan, np.nan, np.nan, np.nan, gap="missing: dros"))
    assert gap == "- missing: dros"


def test_settings_are_told_apart_after_correction_only():
    words = [
        prose.told_apart(compared(difference, low, high, p))
        for difference, low, high, p in (
            (0.1, 0.05, 0.15, 0.01), (-0.1, -0.15, -0.05, 0.01), (0.1, 0.05, 0.15, 0.1)
        )
    ]  # fmt: skip
    assert ["better" in words[0], "worse" in words[1], "not told apart" in words[2]] == [True] * 3
    rows = pd.DataFrame({"dataset": "d", "setting": ["a", "b", "c"], "gain": [0.1, -0.1, 0.0],
                         "low": [0.05, -0.2, -0.1], "high": [0.2, -0.05, 0.1]})  # fmt: skip
    said = prose.ways(rows).splitlines()
    assert "**know the user**" in said[0] and ": a (" in said[0]
    assert "**are worse than for others**" in said[1] and ": b (" in said[1]
    assert "**are not shown to know the user**" in said[2] and ": c (" in said[2]


def test_one_setting_for_all_data_sets():
    rows = [
        {"dataset": dataset, "setting": setting, "user": n // 2, "example": n,
         "ndcg": value + n % 3}
        for dataset in "de" for setting, value in (("a", 0.5), ("b", 0.2)) for n in range(40)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    assert "**a**; it is **better than** the next, *b*" in prose.one_setting(frame)
    level = frame.assign(ndcg=(frame.example + (frame.setting == "a")) % 2)
    assert "**not told apart from** the next" in prose.one_setting(level)
    assert prose.one_setting(frame[frame.dataset == "d"]) == ""


def test_personal_gains():
    rows = pd.DataFrame(
        {"dataset": "d", "method": "bigrec", "own": 0.1, "handed_on": 0.05, "random": 0.01,
         "gain": [0.05, -0.05, 0.0], "low": [0.01, -0.1, -0.1], "high": [0.1, -0.01, 0.1]}
    )  # fmt: skip
    first, second, third = prose.personal(rows).splitlines()
    assert "**personal**" in first and "**worse for their own users" in second
    assert "**not shown to be personal**" in third


def test_training_loss_is_compared_with_training_loss():
    def log(train, valid):
        return pd.DataFrame(
            {"step": range(1, len(train) + 1), "train_loss": train, "valid_loss": valid}
        )

    nan = np.nan
    falls = prose.tuning(log([3.0, 2.0, 1.0], [nan, nan, 5.0]), 24, 1, 100)
    assert "Training loss **fell**, from 3.000" in falls and "tells of no trend" in falls
    rises = prose.tuning(log([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), 24, 1, 100)
    assert "**did not fall**" in rises and "went on too long" in rises
    assert "might lower it further" in prose.tuning(log([3.0, 2.0], [2.0, 1.0]), 24, 1, 100)


def test_form_of_answers():
    good, bad = ['"A (1990)"'] * 3, ["I think", '"A', ""]
    assert "**3** are one title in quotes and nothing else, more of them than" in prose.form(
        bad, good
    )
    assert "**0** are one title in quotes and nothing else, fewer than" in prose.form(good, bad)
    assert "as many as" in prose.form(good, good)


def test_a_collapsed_model_is_told_from_one_that_is_not():
    true = np.array([f"t{n}" for n in range(N)])

    def said(titles):
        first = pd.DataFrame({"title": titles, "real": True, "repeats": False})
        return prose.generated(first, true, USERS, {})

    collapsed, apart = said(np.repeat("t0", N)), said(true)
    assert "**1** distinct titles, fewer" in collapsed and "**more often than** users" in collapsed
    assert "as many as users went on to" in apart and "not told apart" in apart


def crossing(slope, low, high, **more):
    row = {"dataset": "d", "slope": slope, "slope_low": low, "slope_high": high, "gap": ""}
    row |= {"crossing": np.nan, "low": np.nan, "high": np.nan}
    return pd.DataFrame([row | more])


def test_crossings_say_whether_slopes_are_told_apart():
    gap = "the slopes of BIGRec and of the conventional models are not told apart"
    said = prose.crossings(crossing(0.01, -0.01, 0.03, gap=gap))
    assert gap in said and "+0.0100 [-0.0100, +0.0300]" in said
    there = crossing(-0.1, -0.2, -0.05)
    there = there.assign(crossing=100.0, low=90.0, high=128.0)
    assert "cross at 100 samples [90, 128]" in prose.crossings(there)


def test_exposure_is_above_or_below_the_histories():
    rows = pd.DataFrame([{"dataset": "d", "n_train": 128, "method": "bigrec", "seeds": 3,
                          "lists": 50.0, "distinct_first": 7.0, "coverage": 0.1}])  # fmt: skip
    for difference, word in ((0.2, "more than of"), (-0.2, "less than of"), (0.0, "as much as of")):
        shares = {"dataset": "d", "n_train": 128, "method": "bigrec", "k": 20, "group": 4}
        shares |= {"share": 0.5, "difference": difference}
        assert word in prose.exposure(rows, pd.DataFrame([shares]))


def test_sizes_of_llms():
    trend = {"dataset": "d", "tuned": True, "llms": 2, "seeds": 3, "n": 10, "corrected": 0.01}
    found = pd.DataFrame({"dataset": "d", "lm": ["a", "b"], "tuned": True, "gain": [0.1, 0.0],
                          "gain_low": [0.05, -0.1], "gain_high": [0.2, 0.1]})  # fmt: skip
    across = pd.DataFrame([{"dataset": "d", "lm": "a", "space": "b", "difference": 0.1,
                            "low": 0.05, "high": 0.2}])  # fmt: skip
    for slope, word in ((0.1, "rises"), (-0.1, "falls"), (0.0, "is not shown to rise or fall")):
        ends = {"slope": slope, "slope_low": slope - 0.05, "slope_high": slope + 0.05}
        said = sizes.sentences(pd.DataFrame([trend | ends]), found, across)
        assert f"NDCG@20 **{word}** from the smaller LLM to the larger" in said
        three = sizes.sentences(pd.DataFrame([trend | ends | {"llms": 3}]), found, across)
        assert f"NDCG@20 **{word}** with the size of the LLM" in three
        uncertain = pd.DataFrame([trend | ends | {"corrected": 0.2}])
        assert "**is not shown to rise or fall**" in sizes.sentences(uncertain, found, across)
        few = sizes.sentences(pd.DataFrame([trend | ends | {"seeds": 2}]), found, across)
        assert "**nothing is decided** with fewer than 3 seeds" in few and word not in few
        assert "**know their users**, by their personal gain: a" in said
        assert "**are not shown to know their users**, by their personal gain: b" in said
        assert "grounded by b, is **better than** its own" in said


def test_popularity_of_a_data_set():
    of = {"targets unseen in training": 0.0, "words of the target that are in the history": 0.2,
          "users of the test examples": 10, "most test examples of one user": 2}  # fmt: skip
    numbers = pd.DataFrame({"what": list(of), "value": list(of.values())}).astype({"value": object})
    drawn = {"valid": (10, 10), "test": (8, 10)}
    even = prose.data(numbers, np.full(100, 5), drawn, 20)
    assert "nearly an even spread" in even and "only a model that reads" not in even
    assert "Only **8** test examples of the 10" in even and "valid examples" not in even
    skewed = prose.data(numbers, np.r_[np.full(10, 90), np.full(90, 1)], drawn, 20)
    assert "far from an even spread" in skewed


def test_a_figure_of_differences_counts_its_sides():
    rows = pd.DataFrame({"panel": "d", "name": list("abcd"), "difference": [0.1, -0.2, 0, np.nan]})
    rows = rows.assign(low=rows.difference - 0.05, high=rows.difference + 0.05)
    said = alts.forest(rows, "differences")
    assert "d: 1 above zero, 1 below zero, 1 around zero, 1 missing" in said
    assert "the largest is b: -0.2000 [-0.2500, -0.1500]" in said


def test_the_median_user_is_in_the_text_of_a_figure():
    table = pd.DataFrame({"NDCG@20": {"A": significance.Interval(0.5, 0.4, 0.6)}})
    assert "NDCG@20: A 0.5000 [0.4000, 0.6000]." in alts.intervals(table)
    said = alts.rank_histogram(np.array([0, 30, 99]), 100)
    assert "33.3% are among the first 20, where a random order has 20.0%" in said
