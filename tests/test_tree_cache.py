"""The cache of a tree keeps what is seen."""

import pytest
import torch
from toy_llms import TEXTS, load

from bigrec_lib.method import tree_cache


@pytest.fixture
def tiny(tiny_llm):
    return load(tiny_llm)


def test_a_cache_keeps_what_is_seen_at_its_end():
    layer = tree_cache.RoomyLayer()
    states = torch.arange(3 * 2 * 6 * 1.0).view(3, 2, 6, 1)  # (R, H, S, d)
    layer.update(states, -states)
    entries = torch.tensor([[1, 5], [0, 3]])
    layer.keep(torch.tensor([2, 0]), entries, 3)
    expected = torch.stack([states[2][:, entries[0]], states[0][:, entries[1]]])
    assert torch.equal(layer.keys, expected) and torch.equal(layer.values, -expected)
    assert layer.room() >= 3
    more = torch.full((2, 2, 1, 1), 7.0)
    keys, values = layer.update(more, -more)
    assert torch.equal(layer.keys, torch.cat((expected, more), 2))
    assert torch.equal(keys[:, :, :3], layer.keys) and torch.equal(values[:, :, :3], layer.values)
    assert keys.shape == values.shape == (2, 2, tree_cache.ENTRIES, 1)
    assert keys.isfinite().all() and values.isfinite().all()


def test_a_cache_that_outgrows_its_room_has_only_numbers_after_it():
    states = torch.ones(2, 1, 5, 3)
    layer = tree_cache.RoomyLayer()
    torch.use_deterministic_algorithms(True)  # what is left empty becomes NaN
    try:
        for length in range(5, 200, 5):
            keys, values = layer.update(states, states)
            assert keys.shape[2] == tree_cache.rounded_up(length, tree_cache.ENTRIES)
            assert torch.equal(keys[:, :, :length], torch.ones(2, 1, length, 3))
            assert keys.isfinite().all() and torch.equal(values, keys)
    finally:
        torch.use_deterministic_algorithms(False)


def test_rounding_up():
    assert [tree_cache.rounded_up(length, 8) for length in (0, 1, 8, 9)] == [0, 8, 8, 16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_beams_that_see_each_other_are_noticed_and_rounding_is_not(tiny, dtype, monkeypatch):
    model, prompt = tiny.model.to(dtype), tiny.tokenizer(TEXTS[0])["input_ids"]
    assert tree_cache.tree_problem(model, prompt, 300) == ""
    additive = tree_cache.additive
    monkeypatch.setattr(tree_cache, "additive", lambda seen, kind: additive(seen | True, kind))
    assert "its logits differ by" in tree_cache.tree_problem(model, prompt, 300)


def test_rounding_after_single_pieces_of_the_prompt_is_no_problem(tiny, monkeypatch):
    prompt, usual = list(range(2, 82)), tree_cache.logits_in_tree

    def problem(wrong):
        pieces = []

        def perturbed(model, piece, beams):
            pieces.append(piece)
            return usual(model, piece, beams) * (2 if len(pieces) <= wrong else 1)

        monkeypatch.setattr(tree_cache, "logits_in_tree", perturbed)
        found = tree_cache.tree_problem(tiny.model, prompt, 300)
        assert sum(reversed(pieces), []) == prompt
        return found

    assert problem(wrong=2) == ""
    assert "its logits differ by 100%" in problem(wrong=3)
