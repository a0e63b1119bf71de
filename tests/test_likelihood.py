"""The likelihood of every title: as each title read on its own, with `transformers` alone."""

import numpy as np
import pytest
import torch
from toy_llms import ALIBI, FAST, SLOW, TEXTS, TITLES, adapted, of_another_make

from bigrec_lib.method import beams, generation, likelihood
from bigrec_lib.method.beams import GenerationError


def one_by_one(llm, text, answers):
    """log p of each answer after a prompt: the prompt and the answer read as one text."""
    prompt = llm.tokenizer(text)["input_ids"]
    found = []
    with torch.inference_mode():
        for answer in answers:
            ids = torch.tensor([[*prompt, *answer]])
            steps = llm.model(input_ids=ids).logits[0].double().log_softmax(-1)
            places = range(len(prompt) - 1, ids.shape[1] - 1)
            found.append(sum(float(steps[at, ids[0, at + 1]]) for at in places))
    return np.array(found)


def ranked(llm, texts, folder, most=40):
    answers = beams.answer_tokens(llm.tokenizer, TITLES)
    parts = likelihood.blocks(answers, most)
    files = [folder / f"{number}.npy" for number in range(len(texts))]
    return likelihood.log_likelihoods(llm, texts, parts, files), answers


@pytest.mark.parametrize("most", [1, 40, 10_000])
def test_every_title_as_it_is_read_alone(tiny, tmp_path, most):
    llm = adapted(tiny)
    found, answers = ranked(llm, TEXTS[:2], tmp_path, most)
    for row, text in zip(found, TEXTS, strict=False):
        np.testing.assert_allclose(row, one_by_one(llm, text, answers), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", FAST)
def test_of_other_makes(tiny, tmp_path, name):
    llm = of_another_make(FAST[name], tiny.tokenizer)
    found, answers = ranked(llm, TEXTS[:1], tmp_path)
    np.testing.assert_allclose(found[0], one_by_one(llm, TEXTS[0], answers), atol=1e-4, rtol=1e-5)


def test_the_likeliest_title_is_what_a_wide_search_in_the_trie_writes_first(tiny, tmp_path):
    """Beams as many as titles find them all: their scores are the log-likelihoods, normalised."""
    found, answers = ranked(tiny, TEXTS[:1], tmp_path)
    trie = beams.Trie(answers)
    search = beams.Search(trie.depth, len(trie.table), 1, 1.0)
    (wide,) = generation.generate(tiny, TEXTS[:1], search, trie)
    lengths = np.array([len(answer) for answer in answers])
    scores = np.unique((found[0] / lengths).round(4))[::-1]
    assert len(wide) == len(scores) == len(set(TITLES))
    np.testing.assert_allclose([beam.score for beam in wide], scores, atol=2e-4)


def test_a_tree_by_hand():
    answers = [[7, 8, 1], [6, 1], [7, 9, 1], [7, 8, 1]]
    (block,) = likelihood.blocks(answers)
    assert block.titles.tolist() == [1, 0, 3, 2]
    assert block.tokens.tolist() == [6, 7, 8, 9] and block.depths.tolist() == [0, 0, 1, 1]
    assert block.visible.astype(int).tolist() == [
        [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]
    ]  # fmt: skip
    steps = list(zip(block.row, block.after, block.following, strict=True))
    assert steps[:2] == [(0, 0, 6), (0, 1, 1)] and steps[2:5] == [(1, 0, 7), (1, 2, 8), (1, 3, 1)]
    assert steps[5:8] == [(2, 0, 7), (2, 2, 8), (2, 3, 1)]
    assert steps[8:] == [(3, 0, 7), (3, 2, 9), (3, 4, 1)]


def test_blocks_have_every_title_once_and_keep_their_size():
    rng = np.random.default_rng(0)
    answers = [[*rng.integers(2, 6, rng.integers(1, 9)), 1] for _ in range(200)]
    parts = likelihood.blocks(answers, 30)
    assert sorted(number for block in parts for number in block.titles) == list(range(200))
    assert all(len(block.tokens) <= 30 for block in parts)
    for block in parts:
        wanted = {
            tuple(answers[n][:end]) for n in block.titles for end in range(1, len(answers[n]))
        }
        assert len(block.tokens) == len(wanted)


def test_what_is_stored_is_not_computed_again(tiny, tmp_path):
    first, _ = ranked(tiny, TEXTS[:2], tmp_path)
    np.save(tmp_path / "0.npy", first[1])
    again, _ = ranked(tiny, TEXTS[:2], tmp_path)
    assert again.tolist() == [first[1].tolist()] * 2


def test_a_model_that_shares_no_cache_is_refused(tiny, tmp_path):
    llm = of_another_make(SLOW[ALIBI], tiny.tokenizer)
    with pytest.raises(GenerationError, match="set ranked to 0"):
        ranked(llm, TEXTS[:1], tmp_path)
