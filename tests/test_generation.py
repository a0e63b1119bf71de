"""Beam search equals `generate`, with adapters, other architectures and tries too."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from toy_llms import (
    ALIBI,
    FAST,
    SLOW,
    TEXTS,
    TITLES,
    adapted,
    assert_same,
    by_generate,
    load,
    of_another_make,
    search_of,
    toy_prompts,
)

from bigrec_lib.method import generation, prompts, tree_cache
from bigrec_lib.method.beams import GenerationError, Trie, answer_tokens

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -1])
@pytest.mark.parametrize("beams", [2, 4, 7])
def test_beams_are_those_of_generate(tiny_llm, common_token, beams, length_penalty):
    llm = load(tiny_llm, common_token)
    search = search_of(14, beams, 16, length_penalty)
    texts = TEXTS if (beams, length_penalty) == (4, 1.0) else TEXTS[:16]
    expected = by_generate(llm, texts, search)
    assert_same(generation.generate(llm, texts, search), expected, 1e-3)
    lengths = {len(llm.tokenizer(text)["input_ids"]) for texts, _ in expected for text in texts}
    assert len(lengths) > 2 or length_penalty == 2.0, "the end should come at several lengths"


@pytest.mark.parametrize("limit", [1, 6])
def test_beams_that_reach_the_limit_are_those_of_generate(tiny, limit):
    search = search_of(limit)
    assert_same(generation.generate(tiny, TEXTS, search), by_generate(tiny, TEXTS, search))


def test_one_beam_is_greedy_decoding(tiny_llm, common_token):
    llm = load(tiny_llm, common_token)
    generated = generation.generate(llm, TEXTS[:16], search_of(14, beams=1))
    for text, (beam,) in zip(TEXTS, generated, strict=False):
        ids = llm.tokenizer(text, return_tensors="pt")["input_ids"]
        out = llm.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=14,
            do_sample=False,
            eos_token_id=common_token,
            pad_token_id=common_token,
        )
        written = out[0, ids.shape[1] :].tolist()
        if common_token in written:
            written = written[: written.index(common_token)]
        assert beam.text == llm.tokenizer.decode(written, skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 5, 9, 64])
def test_neither_batch_size_nor_order_matters_in_float32(tiny, batch_size, monkeypatch):
    expected = generation.generate(tiny, TEXTS, search_of(8, batch_size=16))
    monkeypatch.setattr(generation, "PREFILL", 300)
    monkeypatch.setattr(tree_cache, "ENTRIES", 1)
    monkeypatch.setattr(tree_cache, "ROOM", {1: 9, 5: 4}.get(batch_size, 1))  # cleared all the time
    order = np.random.default_rng(1).permutation(len(TEXTS))
    shuffled = [TEXTS[i] for i in order]
    generated = generation.generate(tiny, shuffled, search_of(8, batch_size=batch_size))
    assert_same(
        generated, [([b.text for b in expected[i]], [b.score for b in expected[i]]) for i in order]
    )


def test_who_is_done_makes_room_for_the_next(tiny_llm, common_token, monkeypatch):
    llm, search = load(tiny_llm, common_token), search_of(14, 4, batch_size=10)
    monkeypatch.setattr(tree_cache, "ROOM", 8)
    monkeypatch.setattr(tree_cache, "ENTRIES", 1)
    texts = TEXTS[:40]  # one portion
    longest = max(len(ids) for ids in llm.tokenizer(texts)["input_ids"])
    taken, rows, waited = [], [], []
    read, step = generation.read, generation.Batch.step

    def reading(model, prefix, prompts, fill):
        taken.append(len(prompts))
        return read(model, prefix, prompts, fill)

    def stepping(batch):
        done, seen = ~batch.hypotheses.open, batch.tree.lineage.sum(2)
        step(batch)
        lineage = batch.tree.lineage
        rows.append(len(done))
        waited.append(done.any())
        assert (lineage.sum(2) <= seen.amax(1, keepdim=True))[done].all(), "done is done"
        assert lineage.shape[2] == batch.tree.cache.get_seq_length()
        assert lineage.shape[2] <= longest + 3 * 14 + 8, "what nobody sees is dropped"

    monkeypatch.setattr(generation, "read", reading)
    monkeypatch.setattr(generation.Batch, "step", stepping)
    expected = by_generate(llm, texts, search)
    assert_same(generation.generate(llm, texts, search), expected, 1e-3)
    assert sum(taken) == 40 and len(taken) > 4 and any(waited)
    assert rows == sorted(rows, reverse=True), "places are filled again until nobody is waiting"
    assert rows[0] == 10 and rows[-1] < 10


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([100], [1]),
        ([2000, 1500, 10], [1, 1, 1]),
        ([500, 500, 500, 500, 100, 90, 80], [2, 2, 2, 1]),
        ([100] * 16, [8, 8]),
    ],
)
def test_prompts_are_read_by_powers_of_two(lengths, expected):
    parts = generation.neighbours(lengths, 1536)
    assert [part.stop - part.start for part in parts] == expected
    assert [at for part in parts for at in range(len(lengths))[part]] == list(range(len(lengths)))


def test_few_shapes_whatever_the_number_of_prompts(tiny_llm, common_token, monkeypatch):
    """Matrix products are compiled for each shape, and kept."""
    llm, search, shapes = load(tiny_llm, common_token), search_of(14, 4, batch_size=16), set()
    original = generation.beam_search

    def note(_, args, kwargs):
        shapes.add((*kwargs["input_ids"].shape, kwargs["attention_mask"].shape[-1]))

    def noted(model, *args):
        hook = model.register_forward_pre_hook(note, with_kwargs=True)
        try:
            return original(model, *args)
        finally:
            hook.remove()

    monkeypatch.setattr(generation, "beam_search", noted)
    generation.generate(llm, toy_prompts(512, seed=1), search)
    before = len(shapes)
    generation.generate(llm, toy_prompts(512, seed=2), search)
    assert len(shapes) < 1.2 * before, "as many prompts again bring hardly any new ones"
    steps = {shape for shape in shapes if shape[1] == search.beams}
    assert {rows for rows, _, _ in steps} <= set(range(2, 18, 2))  # an eighth at a time
    assert {rows for rows, _, _ in shapes - steps} <= {1, 2, 4, 8, 16}
    assert all(width % tree_cache.WIDTH == 0 for _, width, _ in shapes - steps)
    assert all(entries % tree_cache.ENTRIES == 0 for _, _, entries in shapes)


def test_equal_prompts_and_a_single_one(tiny):
    search = search_of(6)
    expected = by_generate(tiny, TEXTS[:1], search)
    assert_same(generation.generate(tiny, TEXTS[:1] * 3, search), expected * 3)
    assert_same(generation.generate(tiny, TEXTS[:1], search), expected)
    assert generation.generate(tiny, [], search) == []


def test_prompts_with_nothing_in_common(tiny):
    texts = ["Red River (1950)", *TEXTS[:2], "Q"]
    search = search_of(6, batch_size=2)
    assert_same(generation.generate(tiny, texts, search), by_generate(tiny, texts, search))
    assert generation.shared_prefix([[1, 2, 3], [1, 2, 4, 5]]) == [1, 2]
    assert generation.shared_prefix([[1, 2], [1, 2, 4]]) == [1]
    assert generation.shared_prefix([[1], [1]]) == []


@pytest.mark.parametrize("kind", FAST)
def test_other_architectures_take_the_fast_path(tiny, kind):
    llm = of_another_make(FAST[kind], tiny.tokenizer)
    search = search_of(6, 3, batch_size=9)
    expected = by_generate(llm, TEXTS[:20], search)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert_same(generation.generate(llm, TEXTS[:20], search), expected)


@pytest.mark.parametrize("kind", SLOW)
def test_a_model_without_a_plain_cache_is_left_to_generate_and_it_says_so(tiny, kind):
    llm = of_another_make(SLOW[kind], tiny.tokenizer)
    search = search_of(6, 3, batch_size=4)
    expected = by_generate(llm, TEXTS[:8], search)
    with pytest.warns(UserWarning, match="slower `generate`: "):
        assert_same(generation.generate(llm, TEXTS[:8], search), expected)
    with (
        pytest.raises(GenerationError, match="2 beams or more"),
        pytest.warns(UserWarning, match="slower"),
    ):
        generation.generate(llm, TEXTS[:1], search_of(6, 1))


# ---------------------------------------------------------------------------------------- adapters


def test_an_adapter_is_used_and_every_layer_comes_back_as_it_was(tiny):
    plain = generation.generate(tiny, TEXTS[:8], search_of(6))
    llm = adapted(tiny)
    layers = dict(llm.model.named_modules())
    weights = {name: value.clone() for name, value in llm.model.state_dict().items()}
    expected = by_generate(llm, TEXTS[:8], search_of(6))
    generated = generation.generate(llm, TEXTS[:8], search_of(6))
    assert_same(generated, expected)
    assert generated != plain
    assert dict(llm.model.named_modules()) == layers
    for name, value in llm.model.state_dict().items():
        assert torch.equal(value, weights[name])
    assert llm.model.config._attn_implementation == "sdpa"


def test_layers_come_back_after_an_error_too(tiny, monkeypatch):
    llm = adapted(tiny)
    layers = dict(llm.model.named_modules())
    monkeypatch.setattr(generation, "advance", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generation.generate(llm, TEXTS[:2], search_of(6))
    assert dict(llm.model.named_modules()) == layers
    assert llm.model.config._attn_implementation == "sdpa"


def test_a_layer_that_is_no_plain_linear_one_keeps_its_adapter_separate(tiny):
    llm = adapted(tiny)

    class Quantised(torch.nn.Linear):
        pass

    for module in llm.model.modules():
        if type(module) is torch.nn.Linear and module.weight.shape == (32, 32):
            module.__class__ = Quantised
    expected = by_generate(llm, TEXTS[:4], search_of(6))
    with generation.plain(llm.model) as model:
        assert any("lora_A" in name for name, _ in model.named_modules())
    assert_same(generation.generate(llm, TEXTS[:4], search_of(6)), expected)


# -------------------------------------------------------------------------------------------- trie


def test_only_titles_come_out_of_a_trie_and_the_best_are_the_best_of_all(tiny):
    titles = TITLES[:20]
    answers = answer_tokens(tiny.tokenizer, titles)
    trie = Trie(answers)
    generated = generation.generate(tiny, TEXTS[:4], search_of(trie.depth, beams=20), trie)
    for text, beams in zip(TEXTS, generated, strict=False):
        prompt = tiny.tokenizer(text)["input_ids"]
        scores = {}
        for title, answer in zip(titles, answers, strict=True):  # every title, one by one
            logits = tiny.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            likelihood = logits.log_softmax(-1)[range(len(answer)), answer].sum().item()
            scores[prompts.answer(title)] = likelihood / len(answer)
        best = sorted(scores, key=scores.get, reverse=True)
        assert [beam.text for beam in beams] == best
        np.testing.assert_allclose([b.score for b in beams], [scores[t] for t in best], atol=1e-4)


def test_constrained_search_is_that_of_generate(tiny):
    trie = Trie(answer_tokens(tiny.tokenizer, TITLES))
    search = search_of(trie.depth + 2, 4, batch_size=5)
    generated = generation.generate(tiny, TEXTS[:24], search, trie)
    assert_same(generated, by_generate(tiny, TEXTS[:24], search, trie))
    assert {beam.text for beams in generated for beam in beams} <= set(map(prompts.answer, TITLES))


@pytest.mark.filterwarnings("ignore:.*slower `generate`")
def test_a_catalogue_smaller_than_the_beams_gives_fewer_generations(tiny):
    trie = Trie(answer_tokens(tiny.tokenizer, TITLES[:3]))
    search = search_of(trie.depth, 4)
    generated = generation.generate(tiny, TEXTS[:5], search, trie)
    assert all(
        {b.text for b in beams} == set(map(prompts.answer, TITLES[:3])) for beams in generated
    )
    slow = of_another_make(SLOW[ALIBI], tiny.tokenizer)
    left = generation.generate(slow, TEXTS[:5], search, trie)
    assert all(
        sorted(b.text for b in beams) == sorted(map(prompts.answer, TITLES[:3])) for beams in left
    )


# --------------------------------------------------------------------------------------- bad input


def test_bad_input_is_refused(tiny):
    with pytest.raises(GenerationError, match=r"prompt 1 has \d+ tokens, .* room for 24 before"):
        generation.generate(tiny, ["short", TEXTS[0]], search_of(1000))
    with pytest.raises(GenerationError, match="prompt 0 has 0 tokens"):
        generation.generate(tiny, [""], search_of(4))
    with pytest.raises(GenerationError, match="longest title needs 3"):
        generation.generate(tiny, TEXTS[:1], search_of(2), Trie([[5, 6, 1]]))
    tiny.tokenizer.eos_token = None
    with pytest.raises(GenerationError, match="no end-of-sequence token"):
        generation.generate(tiny, TEXTS[:1], search_of(4))


def test_a_tokenizer_without_padding_will_do(tiny):
    expected = generation.generate(tiny, TEXTS[:8], search_of(6))
    tiny.tokenizer.pad_token = None
    assert generation.generate(tiny, TEXTS[:8], search_of(6)) == expected


# ----------------------------------------------------------------------------------- what came out


def test_what_generations_are_by_hand():
    titles = ["Alien (1979)", "Brazil (1985)", "Casablanca (1942)"]
    examples = pd.DataFrame({"example": [4, 9], "history": [[0, 1], [2]]})
    generations = pd.DataFrame(
        {
            "example": [4, 4, 9, 9],
            "beam": [0, 1, 0, 1],
            "text": ['"Brazil (1985)"', '"Brazil (1985)"\nand more', '"Brazil (1984)', ""],
            "score": [-0.1, -0.2, -0.1, -0.3],
        }
    )
    generated = generation.judged(generations, examples, titles)
    assert generated.title.tolist() == ["Brazil (1985)", "Brazil (1985)", "Brazil (1984)", ""]
    assert generated.real.tolist() == [True, True, False, False]
    assert generated.repeats.tolist() == [True, True, False, False]
    assert generation.validity(generated) == {
        "generations": 4,
        "real": 0.5,
        "distinct": 3,
        "most frequent": 0.5,
        "repeats": 0.5,
    }


@pytest.mark.parametrize(
    "kind", [{}, {"use_dora": True}, {"lora_bias": True}, {"use_rslora": True}]
)
def test_every_kind_of_adapter_is_the_model_that_writes(tiny_llm, kind):
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], **kind)
    model = get_peft_model(load(tiny_llm).model, config).eval()
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        wanted = model(ids).logits
        with generation.plain(model) as plain:
            torch.testing.assert_close(plain(ids).logits, wanted, atol=1e-4, rtol=1e-4)
        assert torch.equal(model(ids).logits, wanted)


def test_more_beams_than_there_are_tokens_for_are_refused(tiny):
    with pytest.raises(GenerationError, match="beams is 201: 200 at most"):
        generation.generate(tiny, TEXTS[:1], search_of(3, beams=201))


def test_a_title_in_which_the_end_of_sequence_stands_is_written_whole(tiny):
    odd = f"Tom {tiny.tokenizer.eos_token} Jerry"
    answers = answer_tokens(tiny.tokenizer, [odd, "Heat"])
    assert all(answer.index(tiny.tokenizer.eos_token_id) == len(answer) - 1 for answer in answers)
    trie = Trie(answers)
    (beams,) = generation.generate(tiny, TEXTS[:1], search_of(trie.depth, beams=2), trie)
    assert {prompts.title_of(beam.text) for beam in beams} == {odd, "Heat"}
