"""Verdicts follow the declared rule and find planted truths; lacking data is named."""

import numpy as np
import pandas as pd
import pytest
import toy_results

from bigrec_lib.findings import claims, evidence
from bigrec_lib.method import metrics
from bigrec_lib.study import parameters


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return toy_results.write(tmp_path_factory.mktemp("toy") / "results" / "toy")


@pytest.fixture(scope="module")
def test(results):
    return evidence.read_scores(results)


@pytest.fixture(scope="module")
def valid(results):
    return evidence.read_scores(results, "valid")


def verdicts(rows):
    return claims.judged(rows, "notebook#cell").verdict.tolist()


def test_bigrec_beats_the_model_that_validation_prefers(test, valid):
    rows = claims.c1(test, valid)
    assert {row["statement"] for row in rows} == {"BIGRec − DROS, 128 samples each"}
    assert verdicts(rows) == ["supported"] * 4 and all(row["seeds"] == 2 for row in rows)
    truth = toy_results.hits("bigrec", 128, "") - toy_results.hits("dros", 128, "")
    found = [row["estimate"] for row in rows if row["metric"] == "HR@20"]
    assert found == pytest.approx([truth] * 2, abs=0.1)


def test_the_opposite_truth_is_contradicted(test, valid):
    swap = {"bigrec": "dros", "dros": "bigrec"}
    assert verdicts(claims.c1(test.assign(method=test.method.replace(swap)), valid)) == (
        ["contradicted"] * 4
    )


def test_a_flat_and_a_steep_curve(test):
    steeper, level = claims.judged(claims.c2(test)[:2], "").itertuples()
    assert steeper.verdict == "supported" and level.verdict == "supported"
    x, found, gap = evidence.ladders(evidence.plain_runs(test[test.dataset == "films"]))
    assert gap == "" and x.tolist() == [6, 7, 8]
    slope = np.polyfit(x, found["conventional"].mean((1, 2)), 1)[0]
    assert evidence.slope_weights(x) @ found["conventional"].mean((1, 2)) == pytest.approx(slope)


def test_sizes_and_models_that_lack_seeds_or_sizes_cost_the_others_nothing(test):
    films = evidence.plain_runs(test[(test.dataset == "films") & (test.seed == 0)])
    films = pd.concat([films, films.assign(seed=1)])
    x, found, _ = evidence.ladders(films)
    assert x.tolist() == [6, 7, 8] and found["bigrec"].shape[:2] == (3, 2)
    largest = films[films.n_train == 256]
    single = largest[largest.seed == 0].assign(n_train=512)
    once = largest[largest.method == "dros"].assign(method="caser-ce")
    more, same, _ = evidence.ladders(pd.concat([films, single, once]))
    assert more.tolist() == [6, 7, 8] and all((same[name] == found[name]).all() for name in found)


def test_lines_cross_where_they_were_planted():
    x = np.arange(6.0, 13.0)
    noise = np.random.default_rng(0).normal(0, 0.05, (2, 7, 1, 300))
    bigrec = 0.4 + noise[0]
    conventional = (0.4 + 0.05 * (x - 9))[:, None, None] + noise[1]
    low, at, high = claims.crossing(x, {"bigrec": bigrec, "conventional": conventional})
    assert low < 512 < high and at == pytest.approx(512, rel=0.1) and high / low < 1.5
    back = claims.crossing(x, {"bigrec": conventional, "conventional": bigrec})
    assert np.isnan(back).all()


def test_injection_helps_and_collaborative_more(test):
    assert verdicts(claims.c3(test)) == ["supported"] * 6


def test_little_statistics_in_what_the_llm_recommends(results):
    lists = evidence.read_lists(results)
    rows = claims.c4(lists, evidence.read_data(results, "items"), ["films"])
    assert verdicts(rows) == ["supported"] * 2
    share, common = (row["estimate"] for row in rows)
    assert share == pytest.approx(20 / 30 - 0.2, abs=0.02)  # of 30 popular titles, 20 are top
    assert common == pytest.approx(20 / 30 - 30 * 0.2 * (2 / 3) / 20, abs=0.02)


def test_overlap_and_groups_by_brute_force():
    rng = np.random.default_rng(0)
    a, b = (np.stack([rng.permutation(30)[:8] for _ in range(9)]) for _ in range(2))
    slow = [len(set(x) & set(y)) / 8 for x, y in zip(a, b, strict=True)]
    assert metrics.overlap(a, b).tolist() == slow
    items = pd.DataFrame({"title_group": [0, 1, 2, 2, 4, 5], "train_count": [9, 1, 4, 4, 1, 30]})
    assert evidence.title_groups(items).to_dict() == {1: 0, 4: 1, 2: 2, 0: 3, 5: 4}


def test_the_joint_model_is_no_worse_and_transfer_helps(test):
    rows = claims.c5(test)
    assert verdicts(rows) == ["supported"] * 4
    assert [row["rule"] for row in rows] == ["no worse", "better"] * 2


@pytest.mark.parametrize(
    ("rule", "low", "high", "verdict"),
    [
        ("better", 0.1, 0.2, "supported"),
        ("better", -0.2, -0.1, "contradicted"),
        ("better", -0.1, 0.2, "not decided at this scale"),
        ("no worse", -0.05, 0.3, "supported"),
        ("no worse", -0.3, -0.15, "contradicted"),
        ("no worse", -0.15, 0.3, "not decided at this scale"),
        ("flat", -0.05, 0.05, "supported"),
        ("flat", 0.12, 0.3, "contradicted"),
        ("flat", -0.05, 0.3, "not decided at this scale"),
    ],
)
def test_the_rule(rule, low, high, verdict):
    row = {"low": low, "high": high, "corrected": 0.04}
    assert claims.RULES[rule](row) == verdict
    assert claims.RULES[rule](row | {"corrected": 0.06}) == "not decided at this scale"


def test_whatever_is_missing_is_named(results, tmp_path):
    bare = toy_results.write_bare(tmp_path / "bare")
    test = evidence.read_scores(bare)
    lists = evidence.read_lists(bare)
    rows = claims.c1(test, test) + claims.c2(test) + claims.c3(test) + claims.c5(test)
    rows += claims.c4(lists, {}, ["films"]) + claims.c4(lists.iloc[:0], {}, ["films"])
    found = claims.judged(rows, "notebook#cell")
    assert (found.verdict == "not decided at this scale").all()
    assert found.reason.str.startswith("missing: ").all() and list(found) == claims.COLUMNS
    assert len(found) == 2 + 2 + 3 + 2 + 2 + 2


def test_a_notebooks_claims_stand_in_its_folder(tmp_path):
    p = parameters.OverallPerformance(study="toy", root=str(tmp_path))
    rows = [{"claim": "C1", "dataset": "films", "reason": "missing: all"}]
    claims.publish(claims.judged(rows, "n#c"), p)
    written = pd.read_csv(p.output / "claims.csv")
    assert written.claim.tolist() == ["C1"]
    assert (written.verdict == "not decided at this scale").all()


def test_published_numbers_name_their_source():
    numbers = evidence.published_numbers()
    assert numbers.notna().all().all() and not numbers.duplicated().any()
    assert numbers.published.between(0, 1).all()
