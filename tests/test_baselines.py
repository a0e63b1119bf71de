"""Baselines: statistics by hand; settings chosen once, and kept."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from toy_windows import PAD, markov_corpus, settings_with, windows_of

from bigrec_lib.files import StudyError
from bigrec_lib.method import baselines, networks, windows
from bigrec_lib.method.windows import BaselineError
from bigrec_lib.study.parameters_steps import Baseline

pytestmark = pytest.mark.usefixtures("one_thread")


def grid(rates, decays, dropouts, widths, **changes):
    """`baselines.grid` with what a grid is not over at the study's defaults."""
    names = ("epochs", "patience", "batch_size", "seed")
    fixed = {name: getattr(settings_with(), name) for name in names}
    return baselines.grid(rates, decays, dropouts, widths, **{**fixed, **changes})


def test_popularity_counts_a_user_once():
    samples = windows_of([[0, 1, 2], [1, 2, 3], [1, 5]], users=[0, 0, 1])
    assert baselines.popularity(samples).tolist() == [1, 2, 1, 1, 0, 1, 0, 0, 0]


def test_recent_popularity_goes_by_time_and_settles_ties_by_all():
    rows = [[0, 1], [0, 1], [0, 1], [2, 3], [1, 4]]
    samples = windows_of(rows, times=[0, 1, 2, 100, 120])
    score = baselines.recently_popular(samples, 0.2)(samples.histories[:1])[0]
    assert np.argsort(-score, kind="stable")[:5].tolist() == [1, 2, 3, 4, 0]
    latest = baselines.recently_popular(samples, 0.1)(samples.histories[:1])[0]
    assert latest.round().tolist() == [0, 1, 0, 0, 1, 0, 0, 0, 0]
    whole = baselines.recently_popular(samples, 1.0)(samples.histories[:1])[0]
    assert (np.argsort(-whole, kind="stable") == np.argsort(-baselines.popularity(samples))).all()


def test_recent_popularity_needs_times_and_says_so(capsys):
    samples = markov_corpus(100)
    models = ["recent-popularity", "markov"]
    assert baselines.forms(models, samples, full=True) == models
    days = replace(samples, times=samples.times // 20)
    assert baselines.forms(models, days, full=True) == ["markov"]
    assert "100 samples have 5 different times" in capsys.readouterr().out


def test_models_that_learn_steps_have_two_forms_unless_they_learn_from_everything():
    models = ["item-knn", "markov", "sasrec-ce"]
    found = baselines.forms(models, markov_corpus(100), full=False)
    assert found == ["item-knn", "markov", "markov-last", "sasrec-ce", "sasrec-ce-last"]
    assert baselines.forms(models, markov_corpus(100), full=True) == models


def test_random_is_the_same_again_and_favours_nobody():
    rng = np.random.default_rng(0)
    histories = rng.integers(20, size=(3000, 10))
    score = baselines.random(20, seed=1)
    assert (score(histories[5:9]) == score(histories)[5:9]).all()
    assert (score(histories) != baselines.random(20, seed=2)(histories)).any()
    times_first = np.bincount(score(histories).argmax(1), minlength=20)
    assert abs(times_first - 150).max() < 4.5 * math.sqrt(150)


def test_markov_by_hand():
    samples = windows_of([[0, 1], [0, 1], [0, 2], [1, 3]])
    prior = np.array([0, 2, 1, 1, 0, 0, 0, 0, 0]) / 4
    score = baselines.markov(samples, 2.0)(np.array([[PAD, PAD, 0]]))[0]
    counts = np.array([0, 2, 1, 0, 0, 0, 0, 0, 0])
    assert score == pytest.approx((counts + 2 * prior) / 5)


def test_item_knn_is_the_cosine_over_users_for_others_only():
    samples = windows_of([[0, 1], [0, 1], [0, 2], [3, 4]])
    score = baselines.item_knn(samples, 0.5)(np.array([[PAD, 1, 0]]))[0]
    cosine_01, cosine_02 = 2 / math.sqrt(3 * 2), 1 / math.sqrt(3 * 1)
    wanted = [0.5 * cosine_01, cosine_01, cosine_02, 0, 0, 0, 0, 0, 0]
    assert score == pytest.approx(wanted, abs=1e-6)


def test_similarities_computed_once_give_what_sums_over_users_give(monkeypatch):
    samples = markov_corpus(80)
    histories = samples.histories[:30]
    sums = baselines.item_knn(samples, 0.7)(histories)
    monkeypatch.setattr(baselines, "MANY", 1)
    again = markov_corpus(80)
    assert baselines.cosine_parts(again)[1] is not None
    assert baselines.item_knn(again, 0.7)(histories) == pytest.approx(sums, abs=1e-5)
    monkeypatch.setattr(baselines, "PRODUCTS", 1)
    assert baselines.cosine_parts(markov_corpus(80))[1] is None


def test_who_has_what_is_the_same_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    rows = [rng.integers(PAD, size=rng.integers(2, 6)).tolist() for _ in range(40)]
    users = rng.integers(100, 107, size=40)
    samples = windows_of(rows, users=users)
    monkeypatch.setattr(windows, "ROWS", 7)
    wanted = np.zeros((len(set(users)), PAD))
    for user, row in zip(np.unique(users, return_inverse=True)[1], samples.rows, strict=True):
        wanted[user, row[row != PAD]] = 1
    assert (baselines.consumed(samples).toarray() == wanted).all()


@pytest.mark.parametrize("method", list(baselines.STATISTICS))
def test_statistics_score_what_they_never_saw_and_short_histories(method):
    make, values = baselines.STATISTICS[method]
    score = make(windows_of([[0, 1], [1, 2]]), values[0])
    found = score(np.array([[PAD, PAD, 8], [PAD, 7, 0]]))
    assert found.shape == (2, PAD) and found.dtype == np.float32 and np.isfinite(found).all()


def test_the_grid_is_every_combination_and_never_empty():
    points = grid([0.1, 0.2], [0.0], [0.3], [4, 8], seed=5)
    assert [(s.learning_rate, s.width, s.seed) for s in points] == [
        (0.1, 4, 5),
        (0.1, 8, 5),
        (0.2, 4, 5),
        (0.2, 8, 5),
    ]
    with pytest.raises(BaselineError, match="dropouts"):
        grid([0.1], [0.0], [], [4])
    with pytest.raises(BaselineError, match="width 5"):
        grid([0.1], [0.0], [0.0], [5])


def test_a_diverging_run_is_reported_and_never_chosen(capsys, tmp_path):
    samples = markov_corpus(100)
    points = grid([1e30, 0.01], [0.0], [0.0], [16], epochs=2)
    found = baselines.search("sasrec-bce", points, samples, samples, tmp_path / "two")
    assert found.grid.chosen.tolist() == [False, True]
    assert np.isnan(found.grid.valid_ndcg[0]) and found.grid.valid_ndcg[1] > 0
    assert "left out" in capsys.readouterr().out
    with pytest.raises(BaselineError, match="every point"):
        baselines.search("sasrec-bce", points[:1], samples, samples, tmp_path / "one")


@pytest.mark.parametrize("method", ["markov", "gru4rec-ce"])
def test_the_best_point_on_validation_is_chosen(method, tmp_path):
    samples, valid = markov_corpus(300), markov_corpus(200, seed=1)
    points = grid([1e-5, 0.01], [0.0], [0.0], [16], epochs=3, batch_size=32)
    found = baselines.search(method, points, samples, valid, tmp_path)
    assert found.grid.chosen.sum() == 1
    assert found.grid.valid_ndcg[found.grid.chosen].item() == found.grid.valid_ndcg.max()
    assert windows.valid_ndcg(found.score, valid) == pytest.approx(found.grid.valid_ndcg.max())


@pytest.mark.parametrize("model", ["markov", "caser-ce"])
def test_the_last_form_learns_targets_and_the_plain_one_every_step(model, tmp_path):
    samples, valid = markov_corpus(200), markov_corpus(100, seed=1)
    points = grid([0.01], [0.0], [0.0], [16], epochs=2)
    tries = baselines.settings_of(model, points)
    for method, learnt in ((model + "-last", samples), (model, windows.steps(samples))):
        found = baselines.search(method, points, samples, valid, tmp_path / method)
        curves = [
            baselines.attempt(
                tmp_path / "a.safetensors", model, settings, learnt, valid, "cpu", None
            )
            for settings in tries
        ]
        assert found.grid.valid_ndcg.tolist() == [curve.valid_ndcg.max() for curve in curves]
        assert set(found.grid.method) == {method}


@pytest.mark.parametrize("method", ["item-knn", "gru4rec-ce", "dros"])
def test_what_was_tried_is_kept_and_not_tried_again(method, tmp_path, monkeypatch):
    samples, valid = markov_corpus(200), markov_corpus(100, seed=1)
    points = grid([1e-3, 0.01], [0.0], [0.1], [16], epochs=2, batch_size=32)
    first = baselines.search(method, points, samples, valid, tmp_path)
    tried = []
    monkeypatch.setattr(baselines, "attempt", lambda *a: tried.append(a))
    again = baselines.search(method, points, samples, valid, tmp_path)
    assert not tried and again.seconds == first.seconds
    pd.testing.assert_frame_equal(again.grid, first.grid)
    pd.testing.assert_frame_equal(again.curve, first.curve)
    histories = valid.histories
    assert (again.score(histories) == first.score(histories)).all()
    assert len(list(tmp_path.glob("*.safetensors"))) == (method in networks.NETWORKS)
    with pytest.raises(StudyError, match="holds work with other samples"):
        baselines.search(method, points, valid, valid, tmp_path)
    (tmp_path / "1.json").unlink()
    with pytest.raises(AttributeError):  # the missing point is tried, and `attempt` gives nothing
        baselines.search(method, points, samples, valid, tmp_path)
    assert len(tried) == 1


def test_a_network_that_starts_from_vectors_is_another_work_with_other_vectors(tmp_path):
    samples, points = markov_corpus(100), grid([0.01], [0.0], [0.0], [16], epochs=1)
    vectors = np.random.default_rng(0).normal(size=(samples.n_items, 24)).astype(np.float32)
    told = ("sasrec-llm", points, samples, samples, tmp_path)
    with pytest.raises(BaselineError, match="starts from vectors of the titles: give them"):
        baselines.search(*told)
    found = baselines.search(*told, vectors=vectors)
    learnt = windows.steps(samples)
    wanted, _ = networks.train("sasrec-llm", learnt, samples, points[0], "cpu", vectors)
    histories = samples.histories
    assert (found.score(histories) == networks.scorer(wanted)(histories)).all()
    with pytest.raises(StudyError, match="holds work with other vectors"):
        baselines.search(*told, vectors=vectors + 1)


def test_unknown_methods_are_refused_and_parameters_name_the_known(tmp_path):
    for method in ("itemknn", "item-knn-last"):
        with pytest.raises(BaselineError, match="choose from"):
            baselines.search(method, [], markov_corpus(10), markov_corpus(10), tmp_path)
    known = [*baselines.STATISTICS, *networks.NETWORKS, "p5"]
    assert list(get_args(Baseline)) == known
