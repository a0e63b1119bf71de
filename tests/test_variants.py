"""Other ways to ground: the published one as 04 has it, the others by definition."""

import numpy as np
import pytest
import torch
from toy_llms import TITLES

from bigrec_lib.method import embedding, grounding, states, variants
from bigrec_lib.method.variants import PUBLISHED, Variant

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(30, 6)).astype(np.float32)
QUERIES = RNG.normal(size=(12, 3, 6)).astype(np.float32)
QUERIES[0, 0] = VECTORS[4]
SCORES = -RNG.random((12, 3))
TARGETS = RNG.integers(0, 30, 12)
SEEN = [RNG.choice(30, 5, replace=False) for _ in range(12)]


@pytest.fixture
def pooled(tiny, tmp_path):
    return states.pooled(tiny, sorted(set(TITLES)), 8, [0.5, 1.0], tmp_path)


def test_last_token_of_the_last_layer_is_the_published_embedding(tiny, pooled):
    wanted = embedding.embed(tiny, sorted(set(TITLES)), 8)
    np.testing.assert_array_equal(pooled[states.LAST, 1.0], wanted)


def test_states_are_those_of_a_text_read_alone(tiny, pooled):
    for number, title in enumerate(sorted(set(TITLES))[:5]):
        ids = torch.tensor([tiny.tokenizer(title)["input_ids"]])
        with torch.inference_mode():
            hidden = tiny.model(input_ids=ids, output_hidden_states=True).hidden_states
        for layer, state in {0.5: hidden[1], 1.0: hidden[2]}.items():
            own = state[0].numpy()
            np.testing.assert_allclose(pooled[states.LAST, layer][number], own[-1], atol=1e-5)
            np.testing.assert_allclose(pooled[states.MEAN, layer][number], own.mean(0), atol=1e-5)


def test_states_are_kept(tiny, tmp_path, pooled, monkeypatch):
    monkeypatch.setattr(states, "compute", pytest.fail)
    again = states.pooled(tiny, sorted(set(TITLES), reverse=True), 8, [0.5, 1.0], tmp_path)
    assert all(np.array_equal(again[kind], pooled[kind][::-1]) for kind in pooled)


def test_the_published_way_is_what_04_does():
    places, lists = variants.ranked(PUBLISHED, QUERIES, SCORES, VECTORS, TARGETS, SEEN)
    assert places.equals(grounding.ranks(QUERIES[:, 0], VECTORS, TARGETS))
    assert np.array_equal(lists, grounding.nearest(QUERIES[:, 0], VECTORS, 20)[0])


@pytest.mark.parametrize("beams", [variants.FIRST, variants.NEAREST, variants.WEIGHTED])
@pytest.mark.parametrize("history", [variants.WITH, variants.WITHOUT])
def test_beams_and_history_by_definition(beams, history):
    variant = Variant(*("base", states.LAST, 1.0, "as it is", "L2"), beams, history)
    places, lists = variants.ranked(variant, QUERIES, SCORES, VECTORS, TARGETS, SEEN)
    for row in range(12):
        far = np.linalg.norm(QUERIES[row][:, None] - VECTORS, axis=2)  # (3, 30)
        weights = np.exp(SCORES[row]) / np.exp(SCORES[row]).sum()
        key = {"first beam": far[0], "nearest beam": far.min(0), "weighted beams": weights @ far}
        left = set(range(30)) - (set(SEEN[row]) if history == variants.WITHOUT else set())
        order = sorted(left | {TARGETS[row]}, key=lambda item: key[beams][item])
        assert places["rank"][row] == order.index(TARGETS[row])
        assert lists[row].tolist() == order[:20]


def test_every_space_once_and_the_published_first():
    found = variants.spaces(["base", "tuned"], [0.5, 1.0])
    assert found[0] == PUBLISHED and len(set(found)) == len(found) == 2 * 2 * 2 * 7
    others = variants.further(PUBLISHED)
    assert [variant.beams for variant in others] == [variants.NEAREST, variants.WEIGHTED]
    assert {variant.history for variant in [*found, *others]} == {variants.WITH}
    assert [Variant.of(variant.name) for variant in found] == found


def test_cosine_ranks_by_cosine():
    variant = Variant("base", states.LAST, 1.0, variants.CENTRED, variants.COSINE)
    into = variants.transform_of(variant, VECTORS, 0.1, 1)
    places = grounding.ranks(into(QUERIES[:, 0]), into(VECTORS), TARGETS)["rank"]
    away, query = VECTORS - VECTORS.mean(0), QUERIES[:, 0] - VECTORS.mean(0)
    cosines = query @ away.T / np.linalg.norm(away, axis=1)
    goal = cosines[np.arange(12), TARGETS]
    assert places.tolist() == (cosines > goal[:, None]).sum(1).tolist()


def test_outcomes_by_hand():
    ranks, named = np.array([0, 25, 25, 25]), [[], [], [7], [2, 7]]
    found = variants.outcomes(ranks, named, np.array([3, 3, 3, 7]))
    assert found.tolist() == ["hit", "wrong text", "wrong place", "wrong user"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("matrix the 1999", [0]),
        ("The Matrix (1994)", [0]),
        ("The Matrix", [0]),
        ("Titanic", [1, 2]),
        ("Titanic (1953)", [2]),
        ("Matrix", []),
        ("", []),
        ("(1999)", []),
        ("Okami", [3]),
    ],
)
def test_what_a_text_names(text, named):
    titles = ["Matrix, The (1999)", "Titanic (1997)", "Titanic (1953)", "Okami - PlayStation 2"]
    assert variants.Names(titles).of(text) == named


def test_own_and_others_by_definition():
    users = np.repeat(np.arange(4), 3)
    own, others = variants.own_and_others(QUERIES[:, 0], VECTORS, TARGETS, users)
    for row in range(12):
        far = np.linalg.norm(QUERIES[row, 0] - VECTORS, axis=1)
        far = (far - far.min()) / (far.max() - far.min())
        assert own[row] == pytest.approx(far[TARGETS[row]], abs=1e-6)
        assert others[row] == pytest.approx(far[TARGETS[users != users[row]]].mean(), abs=1e-6)


def test_a_world_has_the_transformed_vectors_of_titles_and_texts():
    row = {f"t{number}": number for number in range(40)}
    every = RNG.normal(size=(40, 6)).astype(np.float32)
    states_of = {("base", states.LAST, 1.0): every}
    world = variants.World(states_of, row, [f"t{n}" for n in range(30)], 0.1, 2)
    variant = Variant("base", states.LAST, 1.0, variants.REMOVED, variants.L2)
    of_titles, of_texts = world.vectors(variant, np.array([["t35", "t3"], ["t0", "t39"]]))
    into = variants.transform_of(variant, every[:30], 0.1, 2)
    np.testing.assert_array_equal(of_titles, into(every[:30]))
    np.testing.assert_array_equal(of_texts, into(every[[35, 3, 0, 39]]).reshape(2, 2, 6))
