"""Baselines: statistics by hand, networks that learn and cannot cheat, losses by hand."""

import math
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from bigrec_lib.files import StudyError
from bigrec_lib.method import baselines, grounding, metrics, networks, p5
from bigrec_lib.method import windows as rooms
from bigrec_lib.method.networks import Diverged, Settings
from bigrec_lib.method.windows import BaselineError, Windows
from bigrec_lib.study.parameters import Baseline, TrainBaselines

NETWORKS = sorted(networks.NETWORKS)
MODELS = {make.__name__: make for make, _ in networks.NETWORKS.values()}
PAD = 9  # of nine candidates


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def given(rows, users=None, n_items=PAD, length=3) -> Windows:
    """Windows from lists of items, the last of which is the target."""
    users = range(len(rows)) if users is None else users
    table = pa.table(
        {
            "example": pa.array(range(len(rows)), pa.int64()),
            "user": pa.array(users, pa.int32()),
            "history": pa.array([row[:-1] for row in rows], pa.list_(pa.int32())),
            "target": pa.array([row[-1] for row in rows], pa.int32()),
        }
    )
    return rooms.windows(table, np.arange(n_items), length)


def markov_corpus(n, sure=0.8, n_items=20, length=5, seed=0):
    """Windows of a chain whose items are followed by one fixed item with probability `sure`.

    The best attainable HR@1 is sure + (1 - sure) / n_items.
    """
    rng = np.random.default_rng(seed)
    successor = np.random.default_rng(99).permutation(n_items)
    rows = rng.integers(n_items, size=(n, length + 1))
    for at in range(length):
        rows[:, at + 1] = np.where(rng.random(n) < sure, successor[rows[:, at]], rows[:, at + 1])
    return Windows(np.arange(n), rows[:, :-1], rows[:, -1], n_items)


def of(*some, **changes) -> Settings:
    """Settings of a network: the study's defaults, but for what is given."""
    p = TrainBaselines()
    default = {
        "learning_rate": p.learning_rates[0],
        "weight_decay": p.weight_decays[0],
        "dropout": p.dropouts[0],
        "width": p.widths[0],
        "epochs": p.epochs,
        "patience": p.patience,
        "batch_size": p.batch_size,
        "seed": p.seed,
    }
    return Settings(**{**default, **dict(zip(default, some, strict=False)), **changes})


def grid(rates, decays, dropouts, widths, **changes):
    """`baselines.grid` with what a grid is not over at the study's defaults."""
    fixed = {name: getattr(of(), name) for name in ("epochs", "patience", "batch_size", "seed")}
    return baselines.grid(rates, decays, dropouts, widths, **{**fixed, **changes})


def trained(*args):
    """A trained network as a scorer, and its curve."""
    model, curve = networks.train(*args)
    return networks.scorer(model), curve


def hr1(score, windows):
    return metrics.hr(metrics.effective_rank(rooms.ranks(score, windows)), 1).mean()


# ------------------------------------------------------------------------------------ windows


def test_windows_keep_the_newest_items_as_candidates_filled_up_on_the_left():
    table = pa.table(
        {
            "example": [7, 8],
            "user": [3, 4],
            "history": pa.array([[0, 1, 2, 3], [4]], pa.list_(pa.int32())),
            "target": [2, 0],
        }
    )
    of_item = np.array([0, 1, 2, 2, 3])  # items 2 and 3 are namesakes
    found = rooms.windows(table, of_item, 3)
    assert found.histories.tolist() == [[1, 2, 2], [4, 4, 3]] and found.n_items == 4
    assert found.targets.tolist() == [2, 0] and found.users.tolist() == [3, 4]
    again = rooms.windows(pa.concat_tables([table, table]).slice(1, 2), of_item, 3)
    assert again.histories.tolist() == [[4, 4, 3], [1, 2, 2]]


def test_an_empty_history_is_refused():
    with pytest.raises(BaselineError, match="example 1 has no history"):
        given([[1, 2], [3]])


def test_steps_are_every_step_once_a_user_with_its_longest_history():
    rows = [[0, 1, 2, 3], [1, 2, 3, 4], [0, 1]]
    found = rooms.steps(given(rows, users=[5, 5, 6]))
    as_tuples = {
        (int(user), tuple(h[h != PAD].tolist()), int(target))
        for user, h, target in zip(found.users, found.histories, found.targets, strict=True)
    }
    assert as_tuples == {
        (5, (0,), 1),
        (5, (0, 1), 2),
        (5, (0, 1, 2), 3),
        (5, (1, 2, 3), 4),
        (6, (0,), 1),
    }
    assert len(found) == 5
    assert all((h[1:][h[:-1] != PAD] != PAD).all() for h in found.histories)  # filled on the left


def test_no_step_reaches_into_the_future():
    corpus = markov_corpus(50, n_items=200)
    whole = ["-".join(map(str, row)) for row in corpus.rows]
    found = rooms.steps(corpus)
    for history, target in zip(found.histories, found.targets, strict=True):
        real = "-".join(map(str, [*history[history != 200], target]))
        assert any(real in row for row in whole)


# ----------------------------------------------------------------------------------- statistics


def test_popularity_counts_a_user_once():
    samples = given([[0, 1, 2], [1, 2, 3], [1, 5]], users=[0, 0, 1])
    assert baselines.popularity(samples).tolist() == [1, 2, 1, 1, 0, 1, 0, 0, 0]


def test_recent_popularity_sees_the_latest_and_settles_ties_by_all():
    samples = given([[0, 1], [0, 1], [0, 1], [2, 3], [1, 4]])
    score = baselines.recently_popular(samples, 0.4)(samples.histories[:1])[0]
    assert np.argsort(-score, kind="stable")[:5].tolist() == [1, 2, 3, 4, 0]


def test_markov_by_hand():
    samples = given([[0, 1], [0, 1], [0, 2], [1, 3]])
    prior = np.array([3, 3, 1, 1, 0, 0, 0, 0, 0]) / 8
    score = baselines.markov(samples, 2.0)(np.array([[PAD, PAD, 0]]))[0]
    counts = np.array([0, 2, 1, 0, 0, 0, 0, 0, 0])
    assert score == pytest.approx((counts + 2 * prior) / 5)


def test_item_knn_is_the_cosine_over_users_for_others_only():
    samples = given([[0, 1], [0, 1], [0, 2], [3, 4]])
    score = baselines.item_knn(samples, 0.5)(np.array([[PAD, 1, 0]]))[0]
    cosine_01, cosine_02 = 2 / math.sqrt(3 * 2), 1 / math.sqrt(3 * 1)
    wanted = [0.5 * cosine_01, cosine_01, cosine_02, 0, 0, 0, 0, 0, 0]
    assert score == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("method", list(baselines.STATISTICS))
def test_statistics_score_what_they_never_saw_and_short_histories(method):
    make, values = baselines.STATISTICS[method]
    score = make(given([[0, 1], [1, 2]]), values[0])
    found = score(np.array([[PAD, PAD, 8], [PAD, 7, 0]]))
    assert found.shape == (2, PAD) and found.dtype == np.float32 and np.isfinite(found).all()


# ------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("method", NETWORKS)
def test_each_model_learns_32_sequences_by_heart(method):
    rng = np.random.default_rng(0)
    rows = [rng.permutation(40)[:6] for _ in range(32)]
    samples = given(rows, n_items=40, length=5)
    settings = of(0.01, 0.0, 0.0, 32, epochs=300, patience=300, batch_size=32)
    score, _ = trained(method, samples, samples, settings)
    assert hr1(score, samples) >= 0.95


@pytest.mark.parametrize("method", ["sasrec-ce", "gru4rec-ce"])
def test_a_planted_chain_is_found(method):
    train, valid, test = (markov_corpus(n, seed=s) for s, n in enumerate((2000, 500, 4000)))
    settings = of(0.005, 0.0, 0.1, 32, epochs=12, patience=3, batch_size=128)
    score, _ = trained(method, train, valid, settings)
    assert hr1(score, test) >= 0.95 * (0.8 + 0.2 / 20)
    shuffled = Windows(test.users, test.histories, np.roll(test.targets, 1), test.n_items)
    assert hr1(score, shuffled) < 0.15  # and the measure can fail


def untrained(name, length=5):
    torch.manual_seed(0)
    model = MODELS[name](PAD, length, of(width=8)).eval()
    for weight in model.parameters():
        if weight is not model.items.weight:
            torch.nn.init.normal_(weight, std=0.5)
    return model


@pytest.mark.parametrize("name", list(MODELS))
def test_padding_changes_nothing(name):
    model = untrained(name)
    short = torch.tensor([[3, 1, 4]])
    padded = torch.tensor([[PAD, PAD, 3, 1, 4]])
    among = torch.tensor([[0, 1, 2, 3, 4], [PAD, PAD, 3, 1, 4], [PAD, PAD, PAD, PAD, 7]])
    assert torch.allclose(model(short), model(padded), atol=1e-6)
    assert torch.allclose(model(among)[1:2], model(padded), atol=1e-6)
    assert not torch.allclose(model(torch.tensor([[2, 3, 3, 1, 4]])), model(padded), atol=1e-3)


@pytest.mark.parametrize("name", ["GRU4Rec", "SASRec"])
def test_a_later_item_changes_no_earlier_state(name):
    model = untrained(name)
    states = model.states if name == "GRU4Rec" else lambda histories: model.states(histories, 5)
    one = torch.tensor([[0, 1, 2, 3, 4]])
    other = torch.tensor([[0, 1, 2, 8, 7]])
    before, after = states(one), states(other)
    assert torch.allclose(before[:, :3], after[:, :3], atol=1e-6)
    assert not torch.allclose(before[:, 3:], after[:, 3:], atol=1e-3)


def test_the_state_of_the_newest_item_is_the_same_alone_and_among_all():
    model, window = untrained("SASRec"), torch.tensor([[PAD, 1, 2, 3, 4]])
    assert torch.allclose(model.states(window, 5)[:, -1], model.encode(window), atol=1e-6)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_item_of_the_window_counts(name):
    model, window = untrained(name), torch.tensor([[0, 1, 2, 3, 4]])
    for place in range(5):
        changed = window.clone()
        changed[0, place] = 8
        assert not torch.allclose(model(changed), model(window), atol=1e-4)


@pytest.mark.parametrize("method", NETWORKS)
def test_targets_never_reach_a_score_and_a_seed_fixes_everything(method):
    samples = markov_corpus(200)
    settings = of(epochs=2, width=16, seed=3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    score, curve = trained(method, samples, samples, settings)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    again, same = trained(method, samples, samples, settings)
    pd.testing.assert_frame_equal(curve, same)
    assert (score(samples.histories) == again(samples.histories)).all()
    other, _ = trained(method, samples, samples, of(epochs=2, width=16, seed=4))
    assert (score(samples.histories) != other(samples.histories)).any()


def test_the_best_epoch_is_kept_and_patience_ends_training():
    samples, valid = markov_corpus(300), markov_corpus(200, sure=0.0, seed=5)  # nothing to learn
    settings = of(0.01, width=16, epochs=40, patience=2)
    score, curve = trained("sasrec-ce", samples, valid, settings)
    assert len(curve) == curve.valid_ndcg.argmax() + 1 + settings.patience < 40
    assert rooms.valid_ndcg(score, valid) == pytest.approx(curve.valid_ndcg.max(), abs=1e-9)


# --------------------------------------------------------------------------------------- losses


def test_the_robust_term_by_hand():
    scores = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, 3.0]])
    p, beta = torch.tensor([0.5, 0.25, 1.0]), 2.0
    first = math.log(math.exp(0.5 * 1 / 2) + math.exp(0.25 * 1 / 2) + math.exp(0.25 / 2))
    second = math.log(math.exp(0) + math.exp(0.25 * 1 / 2) + math.exp(4 / 2))
    found = networks.robust_term(scores, torch.tensor([0, 2]), p, beta)
    assert found.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_the_robust_term_is_the_worst_case_over_distributions():
    rng = np.random.default_rng(0)
    scores, p, beta = torch.from_numpy(rng.normal(size=(1, 6))), rng.uniform(0.5, 1, 6), 0.7
    losses = p * np.square(np.eye(6)[2] - scores.numpy()[0])
    found = beta * networks.robust_term(scores, torch.tensor([2]), torch.from_numpy(p), beta)
    worst = np.exp(losses / beta) / np.exp(losses / beta).sum()

    def penalised(q):  # what the adversary gains, less β times its divergence from uniform
        return (q * losses).sum() - beta * (q * np.log(q * 6)).sum()

    assert penalised(worst) == pytest.approx(found.item() - beta * math.log(6))
    for q in rng.dirichlet(np.ones(6), size=200):
        assert penalised(q) <= penalised(worst) + 1e-12


def test_the_nominal_distribution_by_hand():
    p = networks.nominal(given([[0, 1], [0, 1], [2, 3]], n_items=4))
    assert p == pytest.approx((np.array([1, 3, 1, 2]) / 7) ** 0.05)


def test_losses_by_hand(monkeypatch):
    model = untrained("SASRec")
    encoded, targets = torch.randn(2, 8), torch.tensor([0, 8])
    every = encoded @ model.items.weight[:-1].T + model.bias
    by_hand = -every.log_softmax(1)[[0, 1], targets].mean()
    assert networks.ce(model, encoded, targets, None).item() == pytest.approx(by_hand.item())
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([0, 7]))  # -> 1 and 7
    yes, no = every[[0, 1], [0, 8]], every[[0, 1], [1, 7]]
    by_hand = -(yes.sigmoid().log() + (1 - no.sigmoid()).log()).mean() / 2
    assert networks.bce(model, encoded, targets, None).item() == pytest.approx(by_hand.item())


def test_a_sampled_item_is_never_the_target():
    model, drawn = untrained("SASRec"), []
    scores_of = model.scores_of
    model.scores_of = lambda encoded, chosen: drawn.append(chosen) or scores_of(encoded, chosen)
    targets = torch.arange(PAD).repeat(200)
    networks.bce(model, torch.zeros(len(targets), 8), targets, None)
    other = drawn[1]
    assert (other != targets).all() and other.min() == 0 and other.max() == PAD - 1


# --------------------------------------------------------------------------------- the small grid


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


def test_a_score_that_is_not_finite_counts_as_divergence():
    model = untrained("GRU4Rec")
    model.bias.data[3] = torch.nan
    with pytest.raises(Diverged):
        networks.scorer(model)(np.array([[1, 2, 3, 4, 5]]))


@pytest.mark.parametrize("method", ["markov", "gru4rec-ce"])
def test_the_best_point_on_validation_is_chosen(method, tmp_path):
    samples, valid = markov_corpus(300), markov_corpus(200, seed=1)
    points = grid([1e-5, 0.01], [0.0], [0.0], [16], epochs=3, batch_size=32)
    found = baselines.search(method, points, samples, valid, tmp_path)
    assert found.grid.chosen.sum() == 1
    assert found.grid.valid_ndcg[found.grid.chosen].item() == found.grid.valid_ndcg.max()
    assert rooms.valid_ndcg(found.score, valid) == pytest.approx(found.grid.valid_ndcg.max())


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


def test_unknown_methods_are_refused_and_parameters_name_the_known(tmp_path):
    with pytest.raises(BaselineError, match="choose from"):
        baselines.search("itemknn", [], markov_corpus(10), markov_corpus(10), tmp_path)
    known = [*baselines.STATISTICS, *networks.NETWORKS, "p5"]
    assert list(get_args(Baseline)) == known


# ---------------------------------------------------------------------- what comes out of a model


def test_ranks_lists_and_scores_agree_over_blocks(monkeypatch, tmp_path):
    monkeypatch.setattr(rooms, "BLOCK", 7)
    samples = markov_corpus(30)
    score = baselines.markov(samples, 100.0)
    rooms.save_scores(score, samples, tmp_path / "a" / "valid.npy")
    whole = rooms.load_scores(tmp_path / "a", "valid")
    assert whole.shape == (30, 20) and whole.dtype == np.float32
    pd.testing.assert_frame_equal(
        rooms.ranks(score, samples), grounding.counted(-whole, samples.targets)
    )
    listed = rooms.lists(score, samples, 5)
    for row, scores in zip(listed, whole, strict=True):
        assert row.tolist() == sorted(range(20), key=lambda i: (-scores[i], i))[:5]


def test_scores_that_were_not_kept_are_missed_by_name(tmp_path):
    with pytest.raises(BaselineError, match="dros .* `collaborative` of 06_train_baselines"):
        rooms.load_scores(tmp_path / "dros", "test")


def test_overlap_is_the_share_in_common():
    one, other = np.array([[0, 1], [2, 3]]), np.array([[1, 0], [3, 4]])
    assert metrics.overlap(one, other).mean() == 0.75


# --------------------------------------------------------------------------------------- P5-style


def test_identifiers_follow_training_order_user_by_user():
    samples = given([[7, 3], [5, 6], [3, 1]], users=[4, 2, 4])
    names = p5.identifiers(samples)
    assert [names.index(str(1000 + n)) for n in range(9)] == [5, 6, 7, 3, 1, 0, 2, 4, 8]


def test_identifiers_of_a_large_catalogue_have_as_many_digits():
    names = p5.identifiers(given([[0, 1]], n_items=1000))
    assert len(set(names)) == 1000 and {len(name) for name in names} == {5}


def test_what_no_beam_names_ties_for_the_last_place():
    names = [str(1000 + i) for i in range(6)]
    generations = pd.DataFrame(
        {
            "example": [10, 10, 11, 11],
            "beam": [0, 1, 0, 1],
            "text": ['"1004"', '"1001"', '"1000"', '"1005"'],
            "score": [-0.5, -1.5, -0.1, -0.2],
        }
    )
    keys = p5.beam_keys(generations, [11, 10], names)
    found = grounding.counted(keys, np.array([5, 3]))
    assert found.values.tolist() == [[1, 0], [2, 3]]
    with pytest.raises(BaselineError, match="no identifier"):
        p5.beam_keys(generations.assign(text="1009"), [11, 10], names)
