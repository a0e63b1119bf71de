"""What quality costs: fronts by hand, and V2 against planted worlds."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import toy_results

from bigrec_lib.findings import claims, costs, evidence
from bigrec_lib.study.row_keys import KEYS


def test_the_front_by_hand():
    rows = pd.DataFrame(
        {"ndcg": [0.1, 0.2, 0.15, 0.2, 0.3], "p50": [1.0, 2.0, 3.0, 2.0, np.nan]}
    )  # fmt: skip
    assert costs.front(rows, "p50").tolist() == [True, True, False, True, False]


@pytest.mark.parametrize(
    ("told", "wanted"),
    [((100, 1, 20, 3), 40), ((20, 3, 100, 1), 0), ((100, 3, 20, 1), np.inf)],
)
def test_training_pays_off_where_requests_make_up_for_it(told, wanted):
    assert costs.pays_off(*told) == wanted


@pytest.mark.parametrize(
    ("rival", "said"),
    [
        ((20, 1), "no break-even"),
        ((100, 1), "after **30 requests**"),
        ((20, 5), "ahead for **10 requests**"),
        ((100, 5), "never pays off"),
    ],
)
def test_what_a_conventional_model_costs_beside_bigrec_in_words(rival, said):
    """BIGRec: 40 seconds of training, 3 of a request."""
    both = (SimpleNamespace(seconds=s, p50=p) for s, p in (rival, (40, 3)))
    assert said in costs.break_even(*both)


def test_each_front_is_named_and_what_was_not_measured_is_said():
    rows = pd.DataFrame(
        {"dataset": list("ddde"), "samples": "few", "ndcg": [0.1, 0.2, 0.15, 0.1],
         "seconds": [1.0, 5.0, 9.0, 99.0], "p50": [3.0, 3.0, 1.0, 99.0]}
    )  # fmt: skip
    found = costs.fronts(rows)
    assert found.front_of_training.tolist() == [True, True, False, True]
    assert found.front_of_requests.tolist() == [False, True, True, True]
    energy, models = costs.said_of(rows)
    assert "energy" in energy and "all samples" in models
    assert costs.said_of(rows.assign(joules=1.0, samples="all")) == []


def test_rows_of_a_data_set_stand_together():
    """bigrec-cached joins at the end, as BIGRec's own ranks stand for it."""
    rows = [(d, "few", m, "", 0.1) for d in ("z", "a") for m in ("markov", "bigrec")]
    levels = pd.DataFrame(rows, columns=[*costs.KEY, "ndcg"])
    timed = [(d, "", m, 1.0) for d in ("z", "a") for m in ("markov", "bigrec", "bigrec-cached")]
    timed = pd.DataFrame(timed, columns=["dataset", "lm", "method", "p50"])
    found = costs.table(timed, levels, levels.drop(columns="ndcg").assign(seconds=2.0))
    assert found.dataset.tolist() == ["z"] * 3 + ["a"] * 3
    assert found.method.tolist() == ["markov", "bigrec", "bigrec-cached"] * 2


def change(folder, seconds):
    """Give the conventional models other seconds of training (BIGRec takes 64)."""
    told = json.loads((folder / "manifests.json").read_text())
    for job in told["jobs"].values():
        if job["notebook"] == "06_train_baselines":
            job["seconds_of"] |= seconds
    (folder / "manifests.json").write_text(json.dumps(told))
    return folder


def judged(folder):
    test, valid = evidence.read_scores(folder), evidence.read_scores(folder, "valid")
    items, examples = (evidence.read_data(folder, name) for name in ("items", "examples"))
    gains = evidence.personal_gains(evidence.read_lists(folder), items, examples)
    return claims.judged(costs.v2(test, valid, gains, folder), "17_cost#claims", "")


@pytest.mark.parametrize("world", toy_results.WORLDS)
def test_bigrec_is_worth_its_time_only_where_it_is_better_and_knows_its_users(tmp_path, world):
    folder = toy_results.write(tmp_path, world=world)
    decided = judged(change(folder, {"gru4rec-ce": 12.0, "sasrec-ce": 12.0}))
    wanted = {"supported"} if world == "planted" else {"contradicted", "not decided"}
    assert set(decided.verdict) <= wanted and len(decided) == 2


def test_who_takes_longer_to_train_is_no_rival(tmp_path):
    folder = change(toy_results.write(tmp_path, world="null"), {"gru4rec-ce": 64.0})
    valid = evidence.read_scores(folder, "valid")
    assert costs.within(folder, valid, "films") == ("gru4rec-ce", "few")
    change(folder, {"gru4rec-ce": 64.1})
    assert costs.within(folder, valid, "films") == ("sasrec-ce", "few")
    change(folder, {"markov": 65.0, "sasrec-ce": 65.0})
    assert costs.within(folder, valid, "films") == ("", "")
    assert set(judged(folder).verdict) == {"missing"}


def test_a_rivals_seconds_are_those_of_the_seed_that_was_measured(tmp_path):
    """Seed 1 ran on a slow machine: with it, the mean would be above BIGRec's 64."""
    folder = toy_results.write(tmp_path, world="null")
    valid = evidence.read_scores(folder, "valid")
    told = json.loads((folder / "manifests.json").read_text())
    for job in told["jobs"].values():
        if job["notebook"] == "06_train_baselines" and job["keys"]["seed"] == 1:
            job["seconds_of"]["gru4rec-ce"] = 1000.0
    (folder / "manifests.json").write_text(json.dumps(told))
    assert costs.within(folder, valid, "films") == ("sasrec-ce", "few")
    run = {"dataset": "films", "run": "n128-s0", "n_train": 128, "seed": 0}
    told["jobs"]["films.cost"] = {"notebook": "17a_measure_cost", "facts": {"disk": {}}}
    told["jobs"]["films.cost"] |= {"keys": KEYS | run, "seconds_of": {"bigrec, p50": 2.0}}
    (folder / "manifests.json").write_text(json.dumps(told))
    assert costs.within(folder, valid, "films") == ("gru4rec-ce", "few")
    found = costs.rivals(folder, valid).set_index(["dataset", "method", "samples"])
    one = found.loc["films", "gru4rec-ce", "few"]
    assert one.of_tuning == one.seconds / 64 and one.allowed
    assert not found.loc["games", "gru4rec-ce", "few"].allowed
    assert found.groupby("dataset").valid.apply(lambda v: v.is_monotonic_decreasing).all()


def test_a_tuning_that_was_only_read_again_took_as_long_as_its_steps(tmp_path):
    """The job's own seconds are those of reading: neither tables nor the rival go by them."""
    folder = toy_results.write(tmp_path, world="null")
    valid = evidence.read_scores(folder, "valid")
    told = json.loads((folder / "manifests.json").read_text())
    for job in told["jobs"].values():
        if job["notebook"] == "02_tune_llm":
            job |= {"seconds": 0.5, "seconds_of": {"tuning": 40.0 + 10 * job["keys"]["seed"]}}
    (folder / "manifests.json").write_text(json.dumps(told))
    seconds = evidence.training_seconds(folder)
    own = seconds[seconds.method == "bigrec"]
    assert (own.seconds == 40.0 + 10 * own.seed).all() and own.seed.nunique() > 1
    means = costs.trained(folder, valid).query("method == 'bigrec'")
    assert means[(means.dataset == "films") & (means.lm == "")].seconds.tolist() == [55.0]
    assert costs.within(folder, valid, "films") == ("gru4rec-ce", "few")
    for job in told["jobs"].values():
        if job["notebook"] == "02_tune_llm":
            job["seconds_of"] = {}
    (folder / "manifests.json").write_text(json.dumps(told))
    assert evidence.training_seconds(folder).query("method == 'bigrec'").seconds.isna().all()
    assert costs.within(folder, valid, "films") == ("", "")


def test_a_tuning_takes_what_17a_timed_whatever_machine_02_ran_on(tmp_path):
    folder = toy_results.write(tmp_path, world="null")
    valid = evidence.read_scores(folder, "valid")
    told = json.loads((folder / "manifests.json").read_text())
    before = costs.trained(folder, valid)
    run = {"dataset": "films", "run": "n128-s0", "n_train": 128}
    timed = {"bigrec, p50": 2.0, "bigrec, training": 63.0, "gru4rec-ce, training": 9.0}
    told["jobs"]["films.cost"] = {"notebook": "17a_measure_cost", "facts": {"disk": {}}}
    told["jobs"]["films.cost"] |= {"keys": KEYS | run, "seconds_of": timed}
    (folder / "manifests.json").write_text(json.dumps(told))
    after = costs.trained(folder, valid)
    own = (after.method == "bigrec") & (after.dataset == "films") & (after.lm == "")
    assert after.seconds[own].tolist() == [63.0]
    pd.testing.assert_frame_equal(after[~own], before[~own])  # those of 06 count the whole grid
    change(folder, {"gru4rec-ce": 63.1, "sasrec-ce": 62.9})
    assert costs.within(folder, valid, "films") == ("sasrec-ce", "few")


def test_quality_and_cost_come_together(tmp_path):
    folder = toy_results.write(tmp_path)
    told = json.loads((folder / "manifests.json").read_text())
    timed = {f"{name}, p50": s for name, s in (("bigrec", 2.0), ("bigrec-cached", 1.5),
             ("markov", 0.001), ("popularity", 0.0001))}  # fmt: skip
    job = {"notebook": "17a_measure_cost", "facts": {"disk": {"bigrec": 1}}, "seconds_of": timed}
    run = {"dataset": "films", "run": "n128-s0", "n_train": 128}
    told["jobs"]["films.cost"] = job | {"keys": KEYS | run}
    timed = {"facts": {"disk": {}}, "seconds_of": {"bigrec, p50": 9.0}}
    told["jobs"]["films.large"] = job | timed | {"keys": KEYS | run | {"lm": "large"}}
    (folder / "manifests.json").write_text(json.dumps(told))
    ranks = evidence.read_scores(folder)
    levels, seconds = costs.levels(ranks), costs.trained(folder, ranks)
    found = costs.table(costs.published(folder), levels, seconds)
    assert set(found.dataset) == {"films"}
    few = found[found.samples == "few"].set_index(["method", "lm"])
    assert few.p50.to_dict() == {
        ("bigrec", ""): 2.0, ("bigrec", "large"): 9.0, ("bigrec-cached", ""): 1.5,
        ("markov", ""): 0.001, ("popularity", ""): 0.0001,
    }  # fmt: skip
    assert few.ndcg["bigrec-cached", ""] == few.ndcg["bigrec", ""]
    assert few.seconds["bigrec", ""] == 64 and few.seconds["markov", ""] == 1
    wanted = ranks[(ranks.method == "bigrec") & (ranks.run.str.fullmatch(r"n128-s\d"))]
    wanted = wanted[wanted.dataset == "films"].ndcg.mean()
    assert few.ndcg["bigrec", ""] == pytest.approx(wanted)
    said = "\n".join(costs.sentences(found))
    assert "**about 2,000 times** as long as one of Markov chain" in said
