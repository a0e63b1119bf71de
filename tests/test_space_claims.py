"""Q2 and the factorial of 14 on planted studies: what is planted is found, and nothing else."""

import numpy as np
import pandas as pd
import pytest
import toy_results

from bigrec_lib.findings import claims, evidence, rules, spaces
from bigrec_lib.method import metrics
from bigrec_lib.study.row_keys import KEYS

WORLDS = ("planted", "random", "shuffled")
UNITED, ALONE = (spaces.SINGLE, spaces.UNION, spaces.USUAL), spaces.BASE


def rows_of(folder):
    items, examples = (evidence.read_data(folder, name) for name in ("items", "examples"))
    gains = evidence.personal_gains(spaces.listed(folder), items, examples)
    return spaces.q2(evidence.read_scores(folder), gains)


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """World -> the folder of its published study; one training size."""
    folder = tmp_path_factory.mktemp("spaces")
    return {
        world: toy_results.write(folder / world, ladder=(128,), world=world) for world in WORLDS
    }


@pytest.fixture(scope="module")
def ranks(studies):
    return spaces.cells(evidence.read_scores(studies["planted"]))


def test_what_is_no_worse_is_found_to_be(studies):
    found = claims.judged(rows_of(studies["planted"]), "n#c", "")
    assert found.dataset.tolist() == ["films"] * 2 + ["games"] * 2
    assert (found.verdict == rules.SUPPORTED).all(), found.to_string()
    assert found.guards.str.startswith(claims.PERSONAL).all()


def test_the_own_model_is_the_one_tuned_like_the_joint_model(studies):
    """Of that model a hit in four is lost, so what is compared with it is better."""
    folder = studies["planted"]
    test, lists = evidence.read_scores(folder), evidence.every_list(folder)
    items, examples = (evidence.read_data(folder, name) for name in ("items", "examples"))
    both = []
    for frame in (test, lists):
        own = (frame.tuned_on == "") & (frame.setting == "") & (frame.n_train == 128)
        own &= frame.method.isin(spaces.CATALOGUES) & (frame.lm == "") & (frame.embedded_by == "")
        alike = frame[own & ~frame.constrained].assign(setting="as_joint")
        if "ndcg" in frame:
            alike = alike.assign(ndcg=alike.ndcg.mask(alike.example % 4 == 0, 0.0))
        united = frame.method.isin(toy_results.UNITED) & own
        both.append(pd.concat([frame[~united], alike]))
    test, lists = both
    frame = spaces.cells(lists)
    lists = lists.loc[frame.index[frame.cell.isin(list(spaces.COMPARED))]]
    gains = evidence.personal_gains(lists, items, examples)
    found = claims.judged(spaces.q2(test, gains), "n#c", "")
    assert (found.verdict == rules.SUPPORTED).all() and len(found) == 4
    own = spaces.cells(test).query("cell == @ALONE and dataset == 'films'")
    assert set(own.setting) == {"as_joint"}
    alone = test[(test.setting == "as_joint") & (test.dataset == "films")]
    means = alone.groupby("method").ndcg.mean()
    assert found.estimate[0] == pytest.approx(means["bigrec-union"] / means["bigrec"] - 1)


@pytest.mark.parametrize("users", [8, 9, 200])
def test_a_catalogue_that_changes_nothing_is_no_worse_if_enough_users_are_hit(studies, users):
    """0.7^8 = 0.058 and 0.7^9 = 0.040, before it is corrected for two rows."""
    folder = studies["planted"]
    test = evidence.read_scores(folder)
    test = test[(test.dataset == "films") & (test.method != "bigrec-union")]
    base = spaces.cells(test).query("cell == @ALONE")
    hit = sorted(base.user[base.ndcg > 0].unique())[:users]
    test = test.assign(ndcg=test.ndcg.where(test.user.isin(hit), 0.0))
    same = test[test.index.isin(base.index)].assign(method="bigrec-union")
    items, examples = (evidence.read_data(folder, name) for name in ("items", "examples"))
    gains = evidence.personal_gains(spaces.listed(folder), items, examples)
    found = spaces.q2(pd.concat([test, same]), gains)[0]
    assert found["estimate"] == 0 and found["rule"] == "no worse"
    if users == 8:
        assert found["reason"] == claims.CONSTANT
    else:
        assert found["p_own"] == pytest.approx(0.7 ** len(hit))
        assert found["p"] >= found["p_own"] and "reason" not in found
        assert claims.judged([found], "", "").verdict.tolist() == [rules.SUPPORTED]


@pytest.mark.parametrize("world", ["random", "shuffled"])
def test_a_recommender_that_knows_nothing_is_not_supported(studies, world):
    found = claims.judged(rows_of(studies[world]), "n#c", "")
    assert len(found) == 4 and rules.SUPPORTED not in set(found.verdict)


def test_a_planted_loss_is_found(studies):
    """Half of what was hit within all domains' titles is hit no more."""
    folder = studies["planted"]
    test = evidence.read_scores(folder)
    lost = (test.method == "bigrec-union") & (test.example % 4 < 2)
    test = test.assign(ndcg=test.ndcg.mask(lost, 0))
    items, examples = (evidence.read_data(folder, name) for name in ("items", "examples"))
    gains = evidence.personal_gains(spaces.listed(folder), items, examples)
    found = claims.judged(spaces.q2(test, gains), "n#c", "")
    assert (found.verdict == rules.CONTRADICTED).all() and len(found) == 4
    table = spaces.factorial(spaces.cells(test)).set_index(["dataset", *spaces.CELL])
    assert table.verdict.loc[("films", *UNITED)] == "worse"


def test_two_seeds_decide_nothing_and_a_bare_study_says_what_is_missing(tmp_path):
    few = toy_results.write(tmp_path / "few", seeds=(0, 1), ladder=(128,))
    assert set(claims.judged(rows_of(few), "", "").verdict) == {rules.DEMONSTRATION}
    bare = claims.judged(rows_of(toy_results.write_bare(tmp_path / "bare")), "", "")
    assert (bare.verdict == rules.MISSING).all() and len(bare) == 2
    assert bare.reason.str.startswith("missing: the ").all()


def test_the_relative_difference_by_hand(studies, ranks):
    test = evidence.read_scores(studies["planted"])
    group = ranks[ranks.dataset == "films"]
    own = test[(test.dataset == "films") & (test.n_train == 128) & (test.worded == "")]
    own = own[(own.setting == "") & (own.tuned_on == "") & (own.lm == "") & (own.embedded_by == "")]
    own = own[~own.constrained & ~own.run.str.startswith("full")]
    means = own.groupby("method").ndcg.mean()
    expected = means["bigrec-union"] / means["bigrec"] - 1
    assert claims.relative(group, UNITED, spaces.BASE, by="cell").value == pytest.approx(expected)
    apart = spaces.combination(group, {UNITED: 1.0, ALONE: -1.0})
    assert apart[0].value == pytest.approx(means["bigrec-union"] - means["bigrec"])
    assert apart[1] == ""
    assert spaces.combination(group, {("of nobody", spaces.OWN, spaces.USUAL): 1.0}) is None


def test_every_cell_has_its_place(ranks):
    found = ranks[ranks.dataset == "films"].groupby(spaces.CELL).seed.nunique()
    united = {spaces.UNION, spaces.SOME, spaces.CONTROL}
    expected = {(spaces.SINGLE, name, spaces.USUAL) for name in {spaces.OWN} | united}
    expected |= {(spaces.JOINT, name, spaces.USUAL) for name in {spaces.OWN} | united}
    expected |= {(spaces.SINGLE, name, spaces.WRONG) for name in (spaces.OWN, spaces.UNION)}
    expected |= {(spaces.AVERAGE, spaces.OWN, spaces.USUAL), ("of games", spaces.OWN, spaces.USUAL)}
    assert set(found.index) == expected and (found == 4).all()


def test_models_by_hand():
    rows = pd.DataFrame(
        [
            {**KEYS, "n_train": n, "tuned_on": tuned_on, "setting": setting}
            for n, tuned_on, setting in (
                (12, "", ""), (12, "a+b", ""), (6, "a+b", ""), (4, "a+b+c", ""), (6, "a+b+c", ""),
                (12, "a+b", "merged"), (12, "b", ""), (12, "", "shuffled"), (12, "b", "shuffled"),
                (6, "", ""), (0, "", ""),
            )
        ]
    )  # fmt: skip
    expected = [spaces.SINGLE, spaces.JOINT, spaces.TOTAL, spaces.TOTAL, "", spaces.AVERAGE]
    expected += ["of b", "", "", "", ""]
    assert spaces.models(rows, pd.Series(12, rows.index)).tolist() == expected
    alike = rows.assign(setting=rows.setting.replace("shuffled", "as_joint"), dataset="a")
    other = rows.head(1).assign(dataset="b")  # its settings are the joint model's
    both = pd.concat([alike, other], ignore_index=True)
    found = spaces.models(both, pd.Series(12, both.index)).tolist()
    assert found == ["", *expected[1:7], spaces.SINGLE, *expected[8:], spaces.SINGLE]


def test_places_lost_by_hand():
    def ranked(catalogue, places):
        return pd.DataFrame(
            {"dataset": "d", "model": spaces.SINGLE, "prompt": spaces.USUAL, "seed": 0,
             "catalogue": catalogue, "example": range(4), "rank": places, "ties": 0}
        )  # fmt: skip

    rows = pd.concat([ranked(spaces.OWN, [0, 5, 19, 30]), ranked(spaces.UNION, [0, 7, 21, 40])])
    (found,) = spaces.displacement(rows).to_dict("records")
    assert found | {"mean": 3.5, "median": 2, "moved": 0.75, "lost": 0.25} == found
    assert metrics.effective_rank(rows).max() == 40


def test_titles_of_other_data_sets_by_hand(studies):
    values = spaces.cells(evidence.read_values(studies["planted"]))
    found = spaces.domains_of_lists(values)
    mean = np.mean([0, 0.25, 0.5, 0.75])
    assert found.off_domain.to_numpy() == pytest.approx(0.4 * mean)
    assert found.nearest_foreign.to_numpy() == pytest.approx(0.2 * mean)
    assert found.foreign_title.to_numpy() == pytest.approx(0.1 * mean)
    assert len(found) == 2 * 3 and (found.low < found.off_domain).all()


def test_tables_of_catalogues_and_cosines(studies):
    measures = spaces.cells(evidence.read_measures(studies["planted"]))
    assert spaces.catalogues(measures)["in both"].tolist() == [7, 7]
    cosines = spaces.read_cosines(studies["planted"]).iloc[0]
    assert cosines["all"] == pytest.approx(0.115) and cosines.q_proj == pytest.approx(0.2)
    assert (cosines.low, cosines.high) == pytest.approx((0.1, 0.13))


def test_what_other_jobs_found_of_the_same_runs_changes_nothing(studies):
    """16a and 17a measure the same runs, and those of data sets that share no catalogue."""
    values = evidence.read_values(studies["planted"])
    measures = evidence.read_measures(studies["planted"])
    other = {"what": "of another job", "value": 9.0}
    alone = values[values.method == "bigrec"].assign(dataset="apart", **other)
    more = pd.concat([values, values.assign(**other), alone])
    found, expected = (spaces.domains_of_lists(spaces.cells(each)) for each in (more, values))
    pd.testing.assert_frame_equal(found, expected)
    own = measures[measures.method == "bigrec"].assign(**other)
    more = pd.concat([measures, own, own.assign(dataset="apart")])
    found, expected = (spaces.catalogues(spaces.cells(each)) for each in (more, measures))
    pd.testing.assert_frame_equal(found, expected)


def test_no_effect_is_seen_where_nothing_changes(ranks):
    """The toy's texts under a wrong prompt are the same, so every difference is zero."""
    found = spaces.effects(ranks)
    wrong = found[found.effect.str.contains(f"{spaces.OWN}: {spaces.WRONG}")]
    assert len(wrong) == 2 and (wrong.difference == 0).all()
    assert (wrong.gap == "nothing differs").all() and wrong[["low", "high", "p"]].isna().all(None)
    table = spaces.factorial(ranks).query("model == @spaces.SINGLE and prompt == @spaces.WRONG")
    same = table[table.catalogue == spaces.OWN]
    assert (same.verdict == "nothing differs").all() and same.relative_low.isna().all()
    nothing = pd.DataFrame(columns=["catalogue", "prompt", "kind", "all"])
    told = spaces.told(found, nothing, nothing)
    assert len(told) <= 5 and any("0 are lower and 0 higher" in line for line in told)
    assert "names a wrong domain" in str(told) and "names no domain" not in str(told)
    assert any(
        "films **nothing differs**" in line
        for line in spaces.told(
            found.assign(effect=f"{spaces.SINGLE}: {spaces.UNION}' titles − own"), nothing, nothing
        )
    )


def test_lists_with_foreign_titles_stay_out_of_the_other_analyses(studies):
    lists = evidence.read_lists(studies["planted"])
    assert not set(lists.method) & set(toy_results.UNITED)
    assert set(spaces.listed(studies["planted"]).method) == {"bigrec-union"}


def test_a_foreign_title_in_a_list_is_no_target():
    keys = dict.fromkeys(KEYS, "") | {"dataset": "d", "method": "m"}
    lists = pd.DataFrame(
        [keys | {"example": i, "items": np.array(row)} for i, row in enumerate(([-1, 2], [-1, -1]))]
    )
    items = {"d": pd.DataFrame({"title_group": [0, 1, 2]})}
    examples = {"d": pd.DataFrame({"example": [0, 1], "user": [0, 1], "target": [2, 2]})}
    found = evidence.personal_gains(lists, items, examples)
    assert found.own.tolist() == pytest.approx([1 / np.log2(3), 0])
    assert found.others.tolist() == pytest.approx([0, 1 / np.log2(3)])
