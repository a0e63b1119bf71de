"""Conventional recommenders against second implementations: RecBole's networks, plain loops."""

import json
from pathlib import Path

import numpy as np
import pytest
from toy_windows import films_corpus, settings_with

from bigrec_lib.method import baselines, networks, windows

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "recbole.json").read_text())
METHODS = {"SASRec": "sasrec-ce", "GRU4Rec": "gru4rec-ce", "Caser": "caser-ce"}


@pytest.fixture(scope="module")
def films():
    """The corpus that RecBole's models learnt: steps to learn, validation, test."""
    return {split: films_corpus(**FIXTURE["corpus"][split]) for split in ("train", "valid", "test")}


def test_the_corpus_is_the_one_that_the_second_implementation_learnt(films):
    assert {split: part.digest for split, part in films.items()} == FIXTURE["digests"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("model", list(METHODS))
def test_a_network_is_as_good_as_that_of_recbole(model, films):
    """At its declared settings, under one seed, on the same steps, chosen in the same way.

    Not below RecBole's mean by more than four standard deviations of its seeds, or 5 %. It may be
    better, but not than the best of RecBole's by 15 %: it would have seen the answers.
    """
    of_recbole = {
        name: np.array([run["test"] for run in FIXTURE["runs"] if run["model"] == name])
        for name in METHODS
    }
    mean, spread = of_recbole[model].mean(), of_recbole[model].std(ddof=1)
    settings = settings_with(**FIXTURE["ours"], seed=0)
    network, _ = networks.train(
        METHODS[model], windows.steps(films["train"]), films["valid"], settings
    )
    found = windows.valid_ndcg(networks.scorer(network), films["test"])
    assert found >= mean - max(4 * spread, 0.05 * mean)
    assert found <= 1.15 * max(seeds.mean() for seeds in of_recbole.values())


def test_item_knn_by_plain_loops():
    samples = films_corpus(users=15, seed=3)
    owners = [
        {int(u) for u, r in zip(samples.users, samples.rows, strict=True) if i in r}
        for i in range(samples.n_items)
    ]

    def cosine(a, b):
        size = (len(owners[a]) * len(owners[b])) ** 0.5
        return len(owners[a] & owners[b]) / size if size else 0.0

    histories = samples.histories[::40].copy()
    histories[0, :7] = samples.n_items
    found = baselines.item_knn(samples, 0.7)(histories)
    for history, scores in zip(histories, found, strict=True):
        for candidate in range(0, samples.n_items, 7):
            wanted = sum(
                0.7 ** (len(history) - 1 - at) * cosine(candidate, item)
                for at, item in enumerate(history)
                if item not in (candidate, samples.n_items)
            )
            assert scores[candidate] == pytest.approx(wanted, abs=1e-5)


def test_the_markov_chain_by_plain_loops():
    samples = films_corpus(users=15, seed=4)
    pairs = {
        (int(user), int(before), int(after))
        for user, row in zip(samples.users, samples.rows, strict=True)
        for before, after in zip(row[:-1], row[1:], strict=True)
    }
    every = [(before, after) for _, before, after in pairs]
    last = [(int(r[-2]), int(r[-1])) for r in samples.rows]
    for learnt, of_pairs in ((windows.steps(samples), every), (samples, last)):
        found = baselines.markov(learnt, 5.0)(samples.histories[:20])
        for history, scores in zip(samples.histories[:20], found, strict=True):
            after_newest = [after for before, after in of_pairs if before == history[-1]]
            for candidate in range(0, samples.n_items, 7):
                share = sum(after == candidate for _, after in of_pairs) / len(of_pairs)
                wanted = (after_newest.count(candidate) + 5 * share) / (len(after_newest) + 5)
                assert scores[candidate] == pytest.approx(wanted, abs=1e-6)
