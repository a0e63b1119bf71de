"""Verdicts follow the declared rule, find planted truths, and let no impostor pass."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_results

from bigrec_lib.findings import claims, evidence, methods, rules, training_sizes
from bigrec_lib.findings.significance import Mean, mean_of
from bigrec_lib.method import metrics
from bigrec_lib.study import parameters, results, row_keys


@dataclass
class Published:
    """What the claims read of a study, and their rows."""

    folder: Path
    test: pd.DataFrame
    valid: pd.DataFrame
    gains: pd.DataFrame

    @cached_property
    def rows(self):
        return {
            "C1": claims.c1(self.test, self.valid, self.gains),
            "C2": claims.c2(self.test, self.gains),
            "C3": claims.c3(self.test, self.gains, self.folder),
            "C4": claims.c4(self.test, self.gains, self.folder),
            "C5": claims.c5(self.test, self.gains),
        }

    def judged(self):
        return claims.judged([row for rows in self.rows.values() for row in rows], "n#c", "")


def read(folder):
    test, valid = (evidence.read_scores(folder, split) for split in ("test", "valid"))
    items, examples = (evidence.read_data(folder, name) for name in ("items", "examples"))
    gains = evidence.personal_gains(evidence.read_lists(folder), items, examples)
    return Published(folder, test, valid, gains)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """World -> its published study."""
    folder = tmp_path_factory.mktemp("worlds")
    return {
        world: read(toy_results.write(folder / world, world=world)) for world in toy_results.WORLDS
    }


@pytest.fixture(scope="module")
def planted(worlds):
    return worlds["planted"]


def main_runs(study):
    """Ranks of the plain runs of main size on films."""
    plain = evidence.plain_runs(study.test)
    return plain[(plain.dataset == "films") & (plain.n_train == 128)]


def learnt_on_films(study, tuned_on):
    """Mean NDCG@20 on films of adapters minus that of the untuned LLM."""
    rows = evidence.by_own_llm(study.test[study.test.dataset == "films"])
    rows = rows[(rows.method == "bigrec") & (rows.setting == "") & ~rows.constrained]
    tuned = rows[(rows.tuned_on == tuned_on) & (rows.n_train == 128)]
    return tuned.ndcg.mean() - rows[rows.n_train == 0].ndcg.mean()


def test_planted_effects_are_found(planted):
    found = planted.judged()
    assert found.claim.value_counts().to_dict() == {"C1": 8, "C2": 4, "C3": 6, "C4": 4, "C5": 4}
    assert (found.verdict == "supported").all(), found[found.verdict != "supported"].to_string()


@pytest.mark.parametrize("world", ["random", "shuffled"])
def test_no_claim_is_supported_of_a_recommender_that_knows_nothing(worlds, world):
    found = worlds[world].judged()
    assert len(found) == 26 and "supported" not in set(found.verdict)
    assert not (found.verdict == "missing").any()


def test_no_difference_is_found_where_there_is_none(worlds):
    found = worlds["null"].judged()
    of_rival = found[(found.claim == "C1") & found.statement.str.contains("same interactions")]
    assert (of_rival.verdict == "not decided").all()
    assert not (found[found.claim == "C3"].verdict == "supported").any()


def test_without_its_guards_the_shuffled_recommender_would_pass(worlds):
    """The guards do the work: lists that suit anybody beat weak models and have a flat curve."""
    rows = worlds["shuffled"].rows
    bare = [row for row in rows["C1"] + rows["C2"] if row["estimate"] > 0 or row["rule"] == "flat"]
    assert any(claims.PERSONAL in row["weakest"] for row in bare)


def test_every_row_has_its_guards_with_their_values(planted):
    means = main_runs(planted).groupby("method").ndcg.mean()
    gains = planted.gains[(planted.gains.dataset == "films") & (planted.gains.n_train == 128)]
    gains = evidence.by_own_llm(gains)
    gain_of = gains[gains.method == "bigrec"].groupby(["tuned_on", "setting", "constrained"])
    gain_of = gain_of.gain.mean()[:, "", False]
    own = {"personal gain": gain_of[""]}
    popular, collaborative = (
        {methods.minus(method, alone): means[method] - means[alone]} | own
        for method, alone in (
            ("bigrec+popularity", "popularity"), ("bigrec+collaborative", "sasrec-ce")
        )
    )  # fmt: skip
    of_joint, of_other = ({"personal gain": gain_of[name]} for name in ("films+games", "games"))
    at_home = evidence.origins(planted.test, "games").query("n_train == 128")
    at_home = at_home.groupby("origin").ndcg.mean()
    of_other["tuned on games − untuned"] = learnt_on_films(planted, "games")
    of_joint["joint − untuned"] = learnt_on_films(planted, "films+games")
    of_other["the same on games"] = at_home["games"] - at_home["games*"]
    expected = {"C1": [own] * 4, "C2": [], "C3": [popular, collaborative, collaborative]}
    expected |= {"C4": [popular, collaborative], "C5": [of_joint, of_other]}
    for claim, rows in planted.rows.items():
        if claim == "C2":  # whose guards have a test of their own
            continue
        assert len(rows) == 2 * len(expected[claim])  # films, then games
        for row, guards in zip(rows, expected[claim], strict=False):
            parts = (re.match(r"(.+) (-?\d\.\d+) \[", text) for text in row["guards"].split("; "))
            found = {part[1]: float(part[2]) for part in parts}
            assert found == pytest.approx(guards, abs=6e-5), (claim, row["statement"])


def test_a_row_without_one_of_its_guards_is_missing(planted):
    found = replace(planted, gains=planted.gains.iloc[:0]).judged()
    assert (found.reason == "missing: personal gain").all()
    without = planted.test[~planted.test.method.isin(["popularity", "sasrec-ce"])]
    rows = replace(planted, test=without).rows
    found = claims.judged(rows["C3"] + rows["C4"], "", "")
    assert (found.verdict == "missing").all() and found.reason.str.contains("−").all()


def test_bigrec_meets_the_model_that_validation_prefers_in_both_forms(planted):
    rows = planted.rows["C1"]
    statements = list(dict.fromkeys(row["statement"] for row in rows))
    rival = methods.label("gru4rec-ce")
    assert statements == [
        f"BIGRec − {rival}, targets only, same targets of 128 samples",
        f"BIGRec − {rival}, same interactions of 128 samples",
    ]
    truth = toy_results.hits("bigrec", 128) - toy_results.hits("gru4rec-ce", 128)
    found = [row["estimate"] for row in rows[2:4] if row["metric"] == "HR@20"]
    assert found == pytest.approx([truth], abs=0.08)
    assert all((row["seeds"], row["users"], row["n"]) == (4, 200, 400) for row in rows)


def test_validation_chooses_the_model_of_each_form_and_test_judges_it(planted):
    ranks = {split: results.read_ranks(planted.folder, split) for split in ("test", "valid")}
    assert (planted.valid["rank"] == ranks["valid"]["rank"]).all()
    assert (planted.test["rank"] == ranks["test"]["rank"]).all()
    valid = planted.valid.assign(
        ndcg=planted.valid.ndcg.mask(planted.valid.method == "markov-last", 0.9).mask(
            planted.valid.method == "sasrec-ce", 0.8
        )
    )
    rows = claims.c1(planted.test, valid, planted.gains)[:4]
    means = main_runs(planted).groupby("method")[["ndcg", "hr"]].mean()
    rivals = ["markov-last", "sasrec-ce"]
    assert all(methods.label(rivals[i // 2]) in row["statement"] for i, row in enumerate(rows))
    truth = [means.loc["bigrec", m] - means.loc[rival, m] for rival in rivals for m in means]
    assert [row["estimate"] for row in rows] == pytest.approx(truth)


def test_where_nothing_varies_nothing_is_judged():
    keys = {"claim": "Q3", "dataset": "d", "statement": "a way / the exact way − 1", "metric": "m"}
    equal = mean_of(np.full((5, 40), -1.0), np.arange(40))
    one_user = mean_of(np.random.default_rng(0).random((5, 40)), np.zeros(40))
    for mean in (equal, one_user):
        found = claims.judged([claims.compared(keys, mean, "", {}, "no worse")], "w", "")
        assert found.verdict.tolist() == ["not decided"] and found.reason[0] == claims.CONSTANT


def test_the_opposite_truth_is_contradicted(planted):
    swap = {"bigrec": "gru4rec-ce", "gru4rec-ce": "bigrec"}
    swapped = planted.test.assign(method=planted.test.method.replace(swap))
    rows = claims.c1(swapped, planted.valid, planted.gains)
    rows = [row for row in rows if "same interactions" in row["statement"]]
    assert claims.judged(rows, "", "").verdict.tolist() == ["contradicted"] * 4


def users_hit(ladders, side):
    return {user for user, cell in zip(ladders.users, side.max((0, 1)), strict=True) if cell > 0}


def test_slopes_are_least_squares_and_relative_to_the_level(planted):
    found = training_sizes.ladders(planted.test[planted.test.dataset == "films"])
    assert found.gap == "" and found.x.tolist() == [6, 7, 8]
    assert found.sizes == "64 to 256 samples"
    assert found.bigrec.shape == found.conventional.shape == (3, 3, 400)
    curve = found.conventional.mean((1, 2))
    slope = np.polyfit(found.x, curve, 1)[0]
    assert found.slope(found.conventional).mean() == pytest.approx(slope)
    parts = found.parts(found.conventional).mean((1, 2))
    assert parts.tolist() == pytest.approx([slope, curve.mean()])
    sides = (found.bigrec, found.conventional)
    assert found.users_hit == min(len(users_hit(found, side)) for side in sides)


def test_every_row_of_c2_by_the_means_of_its_runs(planted):
    films = planted.test[(planted.test.dataset == "films") & (planted.test.seed < 3)]
    plain = evidence.plain_runs(films[films.n_train > 0])
    theirs = plain[plain.method.isin(toy_results.TRAINED)].groupby("n_train").ndcg.mean()
    ours = plain[plain.method == "bigrec"].groupby("n_train").ndcg.mean()
    ours[64] = films[(films.setting == "matched") & (films.n_train == 64)].ndcg.mean()

    def slope(curve):
        return np.polyfit([6, 7, 8], curve, 1)[0]

    shares = [slope(curve) / curve.mean() for curve in (theirs, ours)]
    rows = planted.rows["C2"][:2]
    assert [row["estimate"] for row in rows] == pytest.approx([shares[0] - shares[1], shares[1]])
    growth = {"slope of the conventional models' mean": slope(theirs)}
    learnt = {"BIGRec of 128 samples − untuned": learnt_on_films(planted, "")}
    for row, guards in zip(rows, (learnt | growth, learnt), strict=True):
        found = dict(re.findall(r"(?:^|; )(.+?) (-?\d\.\d+) \[", row["guards"]))
        del found[claims.PERSONAL]
        assert {name: float(value) for name, value in found.items()} == pytest.approx(
            guards, abs=6e-5
        )


def test_a_curve_is_not_flat_of_an_llm_that_has_learnt_nothing(planted):
    """The LLM as it is answers as well: more samples bring little, since the first brought none."""
    runs = main_runs(planted)
    as_it_is = runs[(runs.method == "bigrec") & (runs.seed == 0)].assign(n_train=0, run="n0-s0")
    films = planted.test[(planted.test.dataset == "films") & (planted.test.n_train > 0)]
    found = claims.judged(claims.c2(pd.concat([films, as_it_is]), planted.gains), "", "")
    assert (found.verdict == "not decided").all()
    assert found.reason.str.endswith("BIGRec of 128 samples − untuned").all()


def test_slopes_are_not_judged_where_few_users_are_hit(planted):
    films = planted.test[planted.test.dataset == "films"]
    ours = films.method == "bigrec"
    for users in (49, 50):
        ladders = training_sizes.ladders(films)
        hit = sorted(users_hit(ladders, ladders.bigrec))[:users]
        few = films.assign(ndcg=films.ndcg.mask(ours & ~films.user.isin(hit), 0.0))
        found = claims.judged(claims.c2(few, planted.gains), "", "")
        told = found.reason == "too few users are hit at any size: 49, of at least 50"
        assert told.all() if users == 49 else not told.any()
        assert users == 50 or set(found.verdict) == {"not decided"}


def test_many_hits_at_one_size_are_enough_to_see_a_steep_slope(planted):
    """The others have hardly any: that is what steep means."""
    films = planted.test[planted.test.dataset == "films"]
    none = (films.method == "bigrec") & (films.n_train < 256) & (films.example % 10 > 0)
    steep = films.assign(ndcg=films.ndcg.mask(none, 0.0))
    found = claims.judged(claims.c2(steep, planted.gains), "", "")
    assert found.verdict.tolist() == ["contradicted"] * 2


def test_what_is_not_of_the_ladder_costs_and_adds_nothing(planted):
    """Sizes and models that lack seeds or sizes, untuned LLMs, runs of another kind."""
    films = planted.test[planted.test.dataset == "films"]
    largest = evidence.plain_runs(films[films.n_train == 256])
    single = largest[largest.seed == 0].assign(n_train=512)
    once = largest[largest.method == "gru4rec-ce"].assign(method="caser-ce")
    untuned = largest[largest.method == "bigrec"].assign(n_train=0)
    tuned = films[(films.setting == "matched") & (films.n_train == 64)]
    strange = [tuned.assign(tuned_on="games"), tuned.assign(constrained=True)]
    strange.append(tuned.assign(method="bigrec+popularity"))
    more = pd.concat([films, single, once, untuned, *strange])
    found, same = (training_sizes.ladders(rows) for rows in (films, more))
    assert same.x.tolist() == [6, 7, 8]
    assert (same.bigrec == found.bigrec).all() and (same.conventional == found.conventional).all()
    own = training_sizes.ladder(evidence.plain_runs(more), ["bigrec"])
    assert own.x.tolist() == [6, 7, 8] and own.values.shape == (3, 3, 400)


def test_points_of_a_curve_have_the_same_seeds_and_examples(planted):
    films = planted.test[planted.test.dataset == "films"]
    fewer = films[(films.n_train != 64) | (films.example < 250)]
    found = training_sizes.curves(fewer)
    cells = found.groupby(["method", "budget", "n_train"])
    assert (cells.seed.nunique() == 3).all() and (cells.example.nunique() == 250).all()
    budgets = found[found.method == "bigrec"].groupby("budget").n_train.unique().map(sorted)
    assert budgets.to_dict() == {"epochs": [64, 128, 256], "steps": [64, 128, 256]}
    alone = training_sizes.curves(films[films.n_train == 128])
    assert set(alone[alone.method == "bigrec"].budget) == {""}
    assert alone.seed.nunique() == 4


def with_seeds(seeds):
    """A row a training size and seed, from the number of seeds of each size."""
    return pd.DataFrame([{"n_train": n, "seed": s} for n in seeds for s in range(seeds[n])])


@pytest.mark.parametrize(
    ("seeds", "main", "kept"),
    [
        ({0: 9, 64: 3, 128: 3, 256: 2}, 128, [0, 64, 128]),
        ({64: 2, 128: 4, 256: 4}, 256, [64, 128, 256]),
        ({64: 2, 128: 5, 256: 4, 512: 3}, 128, [128, 256, 512]),
    ],
)
def test_sizes_by_their_seeds(seeds, main, kept):
    assert evidence.main_size(with_seeds(seeds)) == main
    assert training_sizes.enough_seeds(with_seeds(seeds)).n_train.unique().tolist() == kept


def test_least_squares_at_uneven_sizes():
    x, values = np.array([6.0, 7, 10]), np.array([1.0, 5, 2])
    assert training_sizes.slope_weights(x) @ values == pytest.approx(np.polyfit(x, values, 1)[0])


def test_a_mean_of_methods_is_of_what_all_have():
    cell = {"n_train": 64, "user": 0, "example": 0}
    had = [("a", 0, 0.2), ("b", 0, 0.4), ("c", 0, 0.9), ("a", 1, 0.6)]
    rows = pd.DataFrame([cell | {"method": m, "seed": s, "ndcg": value} for m, s, value in had])
    found = training_sizes.mean_of_methods(rows, ["a", "b"])
    assert found.seed.tolist() == [0] and found.ndcg.tolist() == pytest.approx([0.3])


def test_injecting_is_compared_with_a_model_that_is_there_without_it():
    there = ["bigrec", "bigrec+popularity", "markov+popularity", "sasrec-ce", "gru4rec-ce"]
    group = pd.DataFrame({"method": [*there, "gru4rec-ce+popularity"]})
    assert evidence.comparator(group, "popularity") == "gru4rec-ce"
    assert evidence.comparator(group, "collaborative") == ""


def test_the_size_of_c5_is_the_data_sets_own(planted):
    """Not that of joint models, nor of all samples, however many seeds they have."""
    tuned = planted.test[planted.test.method == "bigrec"]
    joint = tuned[tuned.tuned_on != ""].assign(n_train=256)
    own = evidence.plain_runs(tuned[tuned.n_train == 128])
    everything = own.assign(n_train=4096, run="full-s0")
    more = pd.concat([planted.test, joint, everything])
    found = claims.c5(more, planted.gains)
    assert [row["statement"] for row in found] == [r["statement"] for r in planted.rows["C5"]]
    assert [row["estimate"] for row in found] == [r["estimate"] for r in planted.rows["C5"]]


def test_a_joint_model_is_compared_with_one_that_was_tuned_alike(planted):
    tuned = planted.test[planted.test.method == "bigrec"]
    own = evidence.plain_runs(tuned[tuned.n_train == 128])
    alike = own.assign(setting=row_keys.AS_JOINT, ndcg=own.ndcg / 2)
    before, after = (
        {
            row["dataset"]: row
            for row in claims.c5(test, planted.gains)
            if row.get("rule") == "no worse"
        }
        for test in (planted.test, pd.concat([planted.test, alike]))
    )
    for dataset, row in after.items():
        assert row["estimate"] + 1 == pytest.approx(2 * (before[dataset]["estimate"] + 1))
        assert row["statement"] == f"{before[dataset]['statement']}, tuned alike"
    plain = evidence.plain_runs(pd.concat([planted.test, alike]))
    assert len(plain) == len(evidence.plain_runs(planted.test))
    assert not (evidence.under_settings(alike).setting == row_keys.AS_JOINT).any()


def test_lines_cross_where_they_were_planted():
    x = np.arange(6.0, 13.0)
    noise = np.random.default_rng(0).normal(0, 0.05, (2, 7, 1, 300))
    bigrec = 0.4 + noise[0]
    conventional = (0.4 + 0.05 * (x - 9))[:, None, None] + noise[1]
    users = np.arange(300)
    at = claims.crossing(training_sizes.Ladders(x, bigrec, conventional, users))
    assert at.low < 9 < at.high and at.mean == pytest.approx(9, abs=0.15) and at.high - at.low < 0.6
    assert claims.crossing(training_sizes.Ladders(x, conventional, bigrec, users)) is None


def test_every_row_of_c3_to_c5_by_the_means_of_its_runs(planted):
    means = main_runs(planted).groupby("method").ndcg.mean()
    popular, collaborative = (
        {model: means[f"{model}+{what}"] - means[model] for model in ("bigrec", "gru4rec-ce")}
        for what in ("popularity", "collaborative")
    )
    more = means["bigrec+collaborative"] - means["bigrec+popularity"]
    expected = {"C3": [popular["bigrec"], collaborative["bigrec"], more]}
    expected["C4"] = [adds["bigrec"] - adds["gru4rec-ce"] for adds in (popular, collaborative)]
    tuned = planted.test[(planted.test.dataset == "films") & (planted.test.n_train == 128)]
    tuned = evidence.by_own_llm(tuned[(tuned.method == "bigrec") & ~tuned.constrained])
    of = tuned.groupby(["tuned_on", "setting"]).ndcg.mean()
    joint, other = of["films+games", ""] / of["", ""] - 1, of["games", ""] - of["games", "shuffled"]
    expected["C5"] = [joint, other]
    for claim, values in expected.items():
        rows = [row for row in planted.rows[claim] if row["dataset"] == "films"]
        assert [row["estimate"] for row in rows] == pytest.approx(values), claim
        assert {(row["users"], row["n"]) for row in rows} == {(200, 400)}


def test_personal_gains_by_brute_force(planted):
    games = planted.gains[(planted.gains.dataset == "games") & (planted.gains.run == "n128-s1")]
    lists = evidence.read_lists(planted.folder)
    lists = lists[(lists.dataset == "games") & (lists.run == "n128-s1")]
    target = toy_results.targets("games", "test")
    for method in ("bigrec", "popularity"):
        shown = np.stack(lists[lists.method == method]["items"].to_numpy())
        found = games[games.method == method].set_index("example")
        for example in (0, 1, 250):
            worth = [
                sum(1 / np.log2(place + 2) for place in np.flatnonzero(other == target[example]))
                for other in shown
            ]
            others = [worth[i] for i in range(400) if i // 2 != example // 2]
            assert found.others[example] == pytest.approx(np.mean(others))
            assert found.own[example] == pytest.approx(worth[example])
    assert (games[games.method == "popularity"].gain == 0).all()  # no noise of rounding
    gain = claims.personal(games)
    assert (gain.seeds, gain.users, gain.n) == (1, 200, 400)


def test_namesakes_are_one_title_and_ties_are_not_won():
    keys = dict.fromkeys(row_keys.KEYS, "") | {"dataset": "d", "method": "m"}
    lists = pd.DataFrame(
        [keys | {"example": i, "items": np.array(row)} for i, row in enumerate(([1, 0], [2, 0]))]
    )
    items = {"d": pd.DataFrame({"title_group": [0, 1, 1]})}
    examples = {"d": pd.DataFrame({"example": [0, 1], "user": [0, 1], "target": [2, 0]})}
    found = evidence.personal_gains(lists, items, examples)
    assert found.own.tolist() == pytest.approx([1, 1 / np.log2(3)])
    assert found.others.tolist() == pytest.approx(found.own.tolist())
    found = evidence.scored(pd.DataFrame({"rank": [0, 0], "ties": [4, 40]}))
    assert found.ndcg.tolist() == [0.5, 0] and found.hr.tolist() == [1, 0]


def mean(value, error=0.01, seeds=5):
    return Mean(value, error, 50.0, seeds, 100, 100)


ONE_SIDED = 0.0185  # from a bound: the one-sided p-value of `mean` is below 0.05, p is not


@pytest.mark.parametrize(
    ("rule", "value", "side"),
    [
        ("better", 0.1, "supported"),
        ("better", -0.1, "contradicted"),
        ("better", ONE_SIDED, "not decided"),
        ("better", -ONE_SIDED, "not decided"),
        ("no worse", 0.1, "supported"),
        ("no worse", -rules.SAME + 0.1, "supported"),
        ("no worse", -rules.SAME + ONE_SIDED, "not decided"),
        ("no worse", -rules.SAME - ONE_SIDED, "not decided"),
        ("no worse", -rules.SAME - 0.1, "contradicted"),
        ("flat", 0.0, "supported"),
        ("flat", rules.FLAT - ONE_SIDED, "not decided"),
        ("flat", rules.FLAT + ONE_SIDED, "not decided"),
        ("flat", -rules.FLAT + ONE_SIDED, "not decided"),
        ("flat", -rules.FLAT - ONE_SIDED, "not decided"),
        ("flat", -rules.FLAT - 0.1, "contradicted"),
        ("flat", rules.FLAT + 0.1, "contradicted"),
    ],
)
def test_the_rule(rule, value, side):
    row = claims.row({"claim": "C1"}, mean(value), rule, {"guard": mean(0.1)})
    assert claims.judged([row], "", "").verdict.tolist() == [side]
    ends = mean(value).interval
    bounds = {"better": [0], "no worse": [-rules.SAME], "flat": [-rules.FLAT, rules.FLAT]}[rule]
    decided = not any(ends.low <= bound <= ends.high for bound in bounds)
    assert decided == (side != "not decided")  # interval and p-value say the same


@pytest.mark.parametrize("weak", [mean(-0.1), mean(ONE_SIDED), mean(0.0, 0.0)])
@pytest.mark.parametrize(
    ("rule", "value"), [("better", 0.1), ("no worse", 0.1), ("flat", 0.0)]
)  # fmt: skip
def test_a_guard_that_is_not_above_zero_keeps_a_claim_from_being_supported(rule, value, weak):
    guards = {"strong": mean(0.1), "weak": weak}
    row = claims.row({"claim": "C1"}, mean(value), rule, guards)
    found = claims.judged([row], "", "").iloc[0]
    assert found.verdict == "not decided" and "weak" in found.reason
    against = claims.row({"claim": "C1"}, mean(-0.9), rule, guards)
    assert claims.judged([against], "", "").verdict.tolist() == ["contradicted"]


def test_few_seeds_are_a_demonstration_and_p_values_are_corrected_within_a_claim():
    rows = [claims.row({"claim": "C1"}, mean(0.1, seeds=2), "better", {})]
    assert claims.judged(rows, "", "").verdict.tolist() == ["demonstration"]
    assert rules.verdict(0.05, True, rules.SEEDS) == "not decided"
    value = 0.0203  # p = 0.048
    rows = [
        claims.row({"claim": claim, "dataset": dataset}, mean(value), "better", {})
        for claim, dataset in (("C1", "films"), ("C3", "films"), ("C3", "games"))
    ]
    found = claims.judged(rows, "", "abc")
    assert found.verdict.tolist() == ["supported", "not decided", "not decided"]
    assert set(found.rule_commit) == {"abc"}


def test_what_is_not_decided_says_what_it_would_take():
    values = np.random.default_rng(0).normal(0.01, 0.1, (5, 300))
    found = mean_of(values, np.arange(300))
    row = claims.row({"claim": "C1"}, mean(0.01, 0.01), "better", {})
    text = claims.judged([row], "", "").reason.iloc[0]
    assert text == (
        f"{row['detectable']:.4f} from the bound is found with 80 % power; the 0.0100 seen would "
        f"take {(row['detectable'] / 0.01) ** 2:,.1f} times as many seeds and examples"
    )
    assert found.detectable > 0


def test_overlap_and_groups_by_brute_force():
    rng = np.random.default_rng(0)
    a, b = (np.stack([rng.permutation(30)[:8] for _ in range(9)]) for _ in range(2))
    slow = [len(set(x) & set(y)) / 8 for x, y in zip(a, b, strict=True)]
    assert metrics.overlap(a, b).tolist() == slow
    items = pd.DataFrame({"title_group": [0, 1, 2, 2, 4, 5], "train_count": [9, 1, 4, 4, 1, 30]})
    assert evidence.title_groups(items).to_dict() == {1: 0, 4: 1, 2: 2, 0: 3, 5: 4}


def test_whatever_is_missing_is_named(tmp_path):
    bare = read(toy_results.write_bare(tmp_path / "bare"))
    found = bare.judged()
    assert (found.verdict == "missing").all()
    assert found.reason.str.startswith("missing: ").all() and list(found) == claims.COLUMNS
    assert found.claim.value_counts().to_dict() == {"C1": 4, "C2": 2, "C3": 3, "C4": 2, "C5": 2}


def test_a_notebooks_claims_stand_in_its_folder(tmp_path):
    p = parameters.OverallPerformance(study="toy", root=str(tmp_path))
    rows = [{"claim": "C1", "dataset": "films", "reason": "missing: all"}]
    claims.publish(claims.judged(rows, "n#c", ""), p)
    written = pd.read_csv(p.output / "claims.csv")
    assert written.claim.tolist() == ["C1"] and written.verdict.tolist() == ["missing"]


def test_the_commit_of_the_rule_is_named(tmp_path):
    import subprocess

    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, check=True)
        return done.stdout.decode().strip()

    assert rules.commit(tmp_path) == ""
    place = tmp_path / "bigrec_lib" / "findings" / "rules.py"
    place.parent.mkdir(parents=True)
    place.write_text("RULE = 1")
    (place.parent / "claims.py").write_text("ROWS = 1")
    git("init", "-q")
    assert rules.commit(tmp_path) == "uncommitted"
    git("add", "."), git("commit", "-qm", "The rule")
    first = git("rev-parse", "HEAD")
    git("commit", "-qm", "Another", "--allow-empty")
    assert rules.commit(tmp_path) == first
    (place.parent / "claims.py").write_text("ROWS = 2")  # another guard is another rule
    assert rules.commit(tmp_path) == "uncommitted"
    git("commit", "-qam", "A guard")
    assert rules.commit(tmp_path) == git("rev-parse", "HEAD") != first


def test_published_numbers_name_their_source():
    numbers = evidence.published_numbers()
    assert numbers.notna().all().all() and not numbers.duplicated().any()
    assert numbers.published.between(0, 1).all()
