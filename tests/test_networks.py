"""Networks that learn and cannot cheat; losses by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from toy_windows import PAD, markov_corpus, settings_with, windows_of

from bigrec_lib.method import metrics, networks, windows
from bigrec_lib.method.networks import Diverged

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = sorted(networks.NETWORKS)
MODELS = {make.__name__: make for make, _ in networks.NETWORKS.values()}


def trained(*args):
    """A trained network as a scorer, and its curve."""
    model, curve = networks.train(*args)
    return networks.scorer(model), curve


def hr1(score, samples):
    return metrics.hr(metrics.effective_rank(windows.ranks(score, samples)), 1).mean()


@pytest.mark.parametrize("method", NETWORKS)
def test_each_model_learns_32_sequences_by_heart(method):
    rng = np.random.default_rng(0)
    rows = [rng.permutation(40)[:6] for _ in range(32)]
    samples = windows_of(rows, n_items=40, length=5)
    settings = settings_with(0.01, 0.0, 0.0, 32, epochs=300, patience=300, batch_size=32)
    score, _ = trained(method, samples, samples, settings)
    assert hr1(score, samples) >= 0.95


def test_embeddings_start_along_the_directions_in_which_vectors_vary():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(PAD, 3)) @ np.diag([9, 3, 1]) @ rng.normal(size=(3, 20)) + 7
    model = untrained("SASRec")
    networks.begin(model, vectors.astype(np.float32))
    found = model.items.weight.detach().double().numpy()
    assert (found[PAD] == 0).all() and (np.abs(found[:-1, 3:]) < 1e-6).all()
    assert found[:-1, :3].std() > 0 and found[:-1, :8][:, :3].shape == (PAD, 3)

    def apart(rows):
        return np.linalg.norm(rows[:, None] - rows[None], axis=2)

    wanted, ours = apart(vectors - vectors.mean(0)), apart(found[:-1])
    scale = ours.sum() / wanted.sum()
    assert ours == pytest.approx(scale * wanted, rel=1e-4, abs=1e-6)  # but for their scale
    assert np.sqrt((found[:-1] ** 2).mean()) == pytest.approx(networks.STD, rel=1e-4)


def test_what_it_starts_from_makes_another_network():
    samples, settings = markov_corpus(100), settings_with(epochs=1, width=16)
    vectors = np.random.default_rng(0).normal(size=(samples.n_items, 24)).astype(np.float32)
    plain, started, again = (
        networks.train("sasrec-llm", samples, samples, settings, "cpu", given)[0]
        for given in (None, vectors, vectors)
    )
    weights = [model.items.weight for model in (plain, started, again)]
    assert torch.equal(weights[1], weights[2]) and not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("method", ["sasrec-ce", "gru4rec-ce"])
def test_a_planted_chain_is_found(method):
    train, valid, test = (markov_corpus(n, seed=s) for s, n in enumerate((2000, 500, 4000)))
    settings = settings_with(0.005, 0.0, 0.1, 32, epochs=12, patience=3, batch_size=128)
    score, _ = trained(method, train, valid, settings)
    assert hr1(score, test) >= 0.95 * (0.8 + 0.2 / 20)
    shuffled = replace(test, targets=np.roll(test.targets, 1))
    assert hr1(score, shuffled) < 0.15  # and the measure can fail


def untrained(name, length=5):
    torch.manual_seed(0)
    model = MODELS[name](PAD, length, settings_with(width=8)).eval()
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
    settings = settings_with(epochs=2, width=16, seed=3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    score, curve = trained(method, samples, samples, settings)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    again, same = trained(method, samples, samples, settings)
    pd.testing.assert_frame_equal(curve, same)
    assert (score(samples.histories) == again(samples.histories)).all()
    other, _ = trained(method, samples, samples, settings_with(epochs=2, width=16, seed=4))
    assert (score(samples.histories) != other(samples.histories)).any()


@pytest.mark.parametrize("method", ["caser-ce", "gru4rec-bce", "dros"])
def test_a_network_scores_the_same_after_it_was_written_and_read(method, tmp_path):
    samples, settings = markov_corpus(100), settings_with(epochs=1, width=16)
    model, _ = networks.train(method, samples, samples, settings)
    networks.save(model, tmp_path / "a.safetensors")
    again = networks.load(method, tmp_path / "a.safetensors", samples, settings, "cpu")
    histories = samples.histories
    assert (networks.scorer(model)(histories) == networks.scorer(again)(histories)).all()


def test_the_best_epoch_is_kept_and_patience_ends_training():
    samples, valid = markov_corpus(300), markov_corpus(200, sure=0.0, seed=5)  # nothing to learn
    settings = settings_with(0.01, width=16, epochs=40, patience=2)
    score, curve = trained("sasrec-ce", samples, valid, settings)
    assert len(curve) == curve.valid_ndcg.argmax() + 1 + settings.patience < 40
    assert windows.valid_ndcg(score, valid) == pytest.approx(curve.valid_ndcg.max(), abs=1e-9)


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
    p = networks.nominal(windows_of([[0, 1], [0, 1], [2, 3]], n_items=4))
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


def test_a_score_that_is_not_finite_counts_as_divergence():
    model = untrained("GRU4Rec")
    model.bias.data[3] = torch.nan
    with pytest.raises(Diverged):
        networks.scorer(model)(np.array([[1, 2, 3, 4, 5]]))
