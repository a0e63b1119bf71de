"""Beam search equals `generate`; files survive kill -9, shards and damage; a trie holds."""

import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import toy_titles
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from bigrec_lib.method import generation, prompts
from bigrec_lib.method.generation import GenerationError, Search, Trie
from bigrec_lib.method.llm import LLM
from bigrec_lib.method.tuning import Sample, encode

TITLES = toy_titles(50)


def toy_prompts(count, seed=0):
    """Prompts of very different lengths."""
    rng = np.random.default_rng(seed)
    histories = [rng.choice(50, rng.integers(1, 11), replace=False) for _ in range(count)]
    return [
        prompts.prompt([TITLES[item] for item in history], prompts.DOMAINS["movies"])
        for history in histories
    ]


TEXTS = toy_prompts(64)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads cost more than they bring in a tiny model."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def load(folder, eos=None, dtype=torch.float32):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if eos is not None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(eos)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    return LLM("tiny", model, tokenizer)


@pytest.fixture
def tiny(tiny_llm):
    return load(tiny_llm)


@pytest.fixture(scope="module")
def common_token(tiny_llm):
    """A token the random model likes to write: as end of sequence it ends beams at all lengths."""
    llm = load(tiny_llm)
    ids = llm.tokenizer(TEXTS[:16])["input_ids"]
    found = generation.hugging_face(llm.model, ids, Search(12), llm.tokenizer.eos_token_id)
    tokens, counts = np.unique(
        [token for beams in found for tokens, _ in beams for token in tokens], return_counts=True
    )
    return int(tokens[counts.argmax()])


def by_generate(llm, texts, search, trie=None):
    """(texts, scores) of all beams by Hugging Face."""
    tokenizer = llm.tokenizer
    ids = tokenizer(texts)["input_ids"]
    found = generation.hugging_face(llm.model, ids, search, tokenizer.eos_token_id, trie)
    return [
        (
            [tokenizer.decode(tokens, skip_special_tokens=True) for tokens, _ in beams],
            [score for _, score in beams],
        )
        for beams in found
    ]


def assert_same(found, expected, tolerance=1e-4):
    assert [[beam.text for beam in beams] for beams in found] == [texts for texts, _ in expected]
    for beams, (_, scores) in zip(found, expected, strict=True):
        np.testing.assert_allclose([beam.score for beam in beams], scores, atol=tolerance)


@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -1])
@pytest.mark.parametrize("beams", [2, 4, 7])
def test_beams_are_those_of_generate(tiny_llm, common_token, beams, length_penalty):
    llm = load(tiny_llm, common_token)
    search = Search(14, beams, length_penalty, batch_size=16)
    texts = TEXTS if (beams, length_penalty) == (4, 1.0) else TEXTS[:16]
    expected = by_generate(llm, texts, search)
    assert_same(generation.generate(llm, texts, search), expected, 1e-3)
    lengths = {len(llm.tokenizer(text)["input_ids"]) for texts, _ in expected for text in texts}
    assert len(lengths) > 2 or length_penalty == 2.0, "the end should come at several lengths"


@pytest.mark.parametrize("limit", [1, 6])
def test_beams_that_reach_the_limit_are_those_of_generate(tiny, limit):
    search = Search(limit)
    assert_same(generation.generate(tiny, TEXTS, search), by_generate(tiny, TEXTS, search))


def test_one_beam_is_greedy_decoding(tiny_llm, common_token):
    llm = load(tiny_llm, common_token)
    found = generation.generate(llm, TEXTS[:16], Search(14, beams=1))
    for text, (beam,) in zip(TEXTS, found, strict=False):
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
    expected = generation.generate(tiny, TEXTS, Search(8, batch_size=16))
    monkeypatch.setattr(generation, "PREFILL", 300)
    monkeypatch.setattr(generation, "ENTRIES", 1)
    monkeypatch.setattr(generation, "ROOM", {1: 9, 5: 4}.get(batch_size, 1))  # cleared all the time
    order = np.random.default_rng(1).permutation(len(TEXTS))
    shuffled = [TEXTS[i] for i in order]
    found = generation.generate(tiny, shuffled, Search(8, batch_size=batch_size))
    assert_same(
        found, [([b.text for b in expected[i]], [b.score for b in expected[i]]) for i in order]
    )


def test_who_is_done_makes_room_for_the_next(tiny_llm, common_token, monkeypatch):
    llm, search = load(tiny_llm, common_token), Search(14, 4, batch_size=10)
    monkeypatch.setattr(generation, "ROOM", 8)
    monkeypatch.setattr(generation, "ENTRIES", 1)
    texts = TEXTS[:40]  # one portion
    longest = max(len(ids) for ids in llm.tokenizer(texts)["input_ids"])
    taken, rows, waited = [], [], []
    read, step = generation.read, generation.step

    def reading(model, prefix, prompts, fill):
        taken.append(len(prompts))
        return read(model, prefix, prompts, fill)

    def stepping(model, batch, *rest):
        done, seen = ~batch.beams.open, batch.lineage.sum(2)
        step(model, batch, *rest)
        rows.append(len(done))
        waited.append(done.any())
        assert (batch.lineage.sum(2) <= seen.amax(1, keepdim=True))[done].all(), "done is done"
        assert batch.lineage.shape[2] == batch.cache.get_seq_length()
        assert batch.lineage.shape[2] <= longest + 3 * 14 + 8, "what nobody sees is dropped"

    monkeypatch.setattr(generation, "read", reading)
    monkeypatch.setattr(generation, "step", stepping)
    expected = by_generate(llm, texts, search)
    assert_same(generation.generate(llm, texts, search), expected, 1e-3)
    assert sum(taken) == 40 and len(taken) > 4 and any(waited)
    assert rows == sorted(rows, reverse=True), "places are filled again until nobody is waiting"
    assert rows[0] == 10 and rows[-1] < 10


def test_a_cache_keeps_what_is_seen_at_its_end():
    layer = generation.RoomyLayer()
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
    assert keys.shape == values.shape == (2, 2, generation.ENTRIES, 1)
    assert keys.isfinite().all() and values.isfinite().all()


def test_a_cache_that_outgrows_its_room_has_only_numbers_after_it():
    states = torch.ones(2, 1, 5, 3)
    layer = generation.RoomyLayer()
    torch.use_deterministic_algorithms(True)  # what is left empty becomes NaN
    try:
        for length in range(5, 200, 5):
            keys, values = layer.update(states, states)
            assert keys.shape[2] == generation.rounded_up(length, generation.ENTRIES)
            assert torch.equal(keys[:, :, :length], torch.ones(2, 1, length, 3))
            assert keys.isfinite().all() and torch.equal(values, keys)
    finally:
        torch.use_deterministic_algorithms(False)


def test_rounding_up():
    assert [generation.rounded_up(length, 8) for length in (0, 1, 8, 9)] == [0, 8, 8, 16]


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
    parts = generation.neighbours(lengths)
    assert [part.stop - part.start for part in parts] == expected
    assert [at for part in parts for at in range(len(lengths))[part]] == list(range(len(lengths)))


def test_few_shapes_whatever_the_number_of_prompts(tiny_llm, common_token, monkeypatch):
    """Matrix products are compiled for each shape, and kept."""
    llm, search, shapes = load(tiny_llm, common_token), Search(14, 4, batch_size=16), set()
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
    assert all(width % generation.WIDTH == 0 for _, width, _ in shapes - steps)
    assert all(entries % generation.ENTRIES == 0 for _, _, entries in shapes)


@pytest.mark.parametrize("queries", [1, 4, 40])
def test_attention_by_plain_products_is_that_of_torch(queries):
    random = torch.Generator().manual_seed(0)
    query = torch.randn(3, 6, queries, 8, generator=random)
    room = torch.randn(2, 3, 2, 80, 8, generator=random)
    key, value = room[0, :, :, :64], room[1, :, :, :64]  # parts of larger arrays, as in a cache
    mask = generation.additive(torch.rand(3, queries, 50, generator=random) < 0.5, query.dtype)
    assert (mask[:, :, :, 50:] < -1e30).all(), "nobody sees what rounding adds"
    found, _ = generation.grouped_attention(None, query, key, value, mask, 0.3)
    repeated = [states.repeat_interleave(3, dim=1) for states in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, *repeated, attn_mask=mask, scale=0.3
    )
    np.testing.assert_allclose(found, expected.transpose(1, 2), atol=2e-6)


def test_attention_with_more_to_it_is_refused():
    states = torch.zeros(1, 1, 1, 4)
    with pytest.raises(NotImplementedError, match="attention with softcap"):
        generation.grouped_attention(None, states, states, states, None, 0.5, softcap=50.0)


def test_equal_prompts_and_a_single_one(tiny):
    search = Search(6)
    expected = by_generate(tiny, TEXTS[:1], search)
    assert_same(generation.generate(tiny, TEXTS[:1] * 3, search), expected * 3)
    assert_same(generation.generate(tiny, TEXTS[:1], search), expected)
    assert generation.generate(tiny, [], search) == []


def test_prompts_with_nothing_in_common(tiny):
    texts = ["Red River (1950)", *TEXTS[:2], "Q"]
    search = Search(6, batch_size=2)
    assert_same(generation.generate(tiny, texts, search), by_generate(tiny, texts, search))
    assert generation.shared_prefix([[1, 2, 3], [1, 2, 4, 5]]) == [1, 2]
    assert generation.shared_prefix([[1, 2], [1, 2, 4]]) == [1]
    assert generation.shared_prefix([[1], [1]]) == []


SIZES = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_LIKE = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.3}
FAST = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA_LIKE)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**LLAMA_LIKE, sliding_window=4096)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SIZES, initializer_range=0.3)),
}
SLOW = {
    "a window shorter than the prompts": lambda: MistralForCausalLM(
        MistralConfig(**LLAMA_LIKE, sliding_window=32)
    ),
    "alibi, which reads positions from a 2-D mask": lambda: BloomForCausalLM(
        BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    ),
}


def of_another_make(make, tokenizer):
    torch.manual_seed(0)
    model = make().eval()
    if not hasattr(model.config, "max_position_embeddings"):
        model.config.max_position_embeddings = 1024
    return LLM("other", model, tokenizer)


@pytest.mark.parametrize("kind", FAST)
def test_other_architectures_take_the_fast_path(tiny, kind):
    llm = of_another_make(FAST[kind], tiny.tokenizer)
    search = Search(6, 3, batch_size=9)
    expected = by_generate(llm, TEXTS[:20], search)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert_same(generation.generate(llm, TEXTS[:20], search), expected)


@pytest.mark.parametrize("kind", SLOW)
def test_a_model_without_a_plain_cache_is_left_to_generate_and_it_says_so(tiny, kind):
    llm = of_another_make(SLOW[kind], tiny.tokenizer)
    search = Search(6, 3, batch_size=4)
    expected = by_generate(llm, TEXTS[:8], search)
    with pytest.warns(UserWarning, match="slower `generate`: "):
        assert_same(generation.generate(llm, TEXTS[:8], search), expected)
    with (
        pytest.raises(GenerationError, match="2 beams or more"),
        pytest.warns(UserWarning, match="slower"),
    ):
        generation.generate(llm, TEXTS[:1], Search(6, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_beams_that_see_each_other_are_noticed_and_rounding_is_not(tiny, dtype, monkeypatch):
    model, prompt = tiny.model.to(dtype), tiny.tokenizer(TEXTS[0])["input_ids"]
    assert generation.tree_problem(model, prompt, 300) == ""
    additive = generation.additive
    monkeypatch.setattr(generation, "additive", lambda seen, kind: additive(seen | True, kind))
    assert "its logits differ by" in generation.tree_problem(model, prompt, 300)


# ------------------------------------------------------------------------------- adapters


def adapted(llm, seed=0):
    """The LLM with a LoRA adapter of random, not tiny, weights."""
    model = get_peft_model(llm.model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return LLM("tiny", model.eval(), llm.tokenizer)


def test_an_adapter_is_used_and_every_layer_comes_back_as_it_was(tiny):
    plain = generation.generate(tiny, TEXTS[:8], Search(6))
    llm = adapted(tiny)
    layers = dict(llm.model.named_modules())
    weights = {name: value.clone() for name, value in llm.model.state_dict().items()}
    expected = by_generate(llm, TEXTS[:8], Search(6))
    found = generation.generate(llm, TEXTS[:8], Search(6))
    assert_same(found, expected)
    assert found != plain
    assert dict(llm.model.named_modules()) == layers
    for name, value in llm.model.state_dict().items():
        assert torch.equal(value, weights[name])
    assert llm.model.config._attn_implementation == "sdpa"


def test_layers_come_back_after_an_error_too(tiny, monkeypatch):
    llm = adapted(tiny)
    layers = dict(llm.model.named_modules())
    monkeypatch.setattr(generation, "advance", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generation.generate(llm, TEXTS[:2], Search(6))
    assert dict(llm.model.named_modules()) == layers
    assert llm.model.config._attn_implementation == "sdpa"


def test_a_layer_that_is_no_plain_linear_one_keeps_its_adapter_separate(tiny):
    llm = adapted(tiny)

    class Quantised(torch.nn.Linear):
        pass

    for module in llm.model.modules():
        if type(module) is torch.nn.Linear and module.weight.shape == (32, 32):
            module.__class__ = Quantised
    expected = by_generate(llm, TEXTS[:4], Search(6))
    with generation.plain(llm.model) as model:
        assert any("lora_A" in name for name, _ in model.named_modules())
    assert_same(generation.generate(llm, TEXTS[:4], Search(6)), expected)


# ----------------------------------------------------------------------------------- trie


def test_only_titles_come_out_of_a_trie_and_the_best_are_the_best_of_all(tiny):
    titles = TITLES[:20]
    answers = generation.answer_tokens(tiny.tokenizer, titles)
    trie = Trie(answers)
    found = generation.generate(tiny, TEXTS[:4], Search(trie.depth, beams=20), trie)
    for text, beams in zip(TEXTS, found, strict=False):
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
    trie = Trie(generation.answer_tokens(tiny.tokenizer, TITLES))
    search = Search(trie.depth + 2, 4, batch_size=5)
    found = generation.generate(tiny, TEXTS[:24], search, trie)
    assert_same(found, by_generate(tiny, TEXTS[:24], search, trie))
    assert {beam.text for beams in found for beam in beams} <= set(map(prompts.answer, TITLES))


@pytest.mark.filterwarnings("ignore:.*slower `generate`")
def test_a_catalogue_smaller_than_the_beams_gives_fewer_generations(tiny, tmp_path):
    trie = Trie(generation.answer_tokens(tiny.tokenizer, TITLES[:3]))
    search = Search(trie.depth, 4)
    found = generation.generate(tiny, TEXTS[:5], search, trie)
    assert all({b.text for b in beams} == set(map(prompts.answer, TITLES[:3])) for beams in found)
    slow = of_another_make(SLOW["alibi, which reads positions from a 2-D mask"], tiny.tokenizer)
    left = generation.generate(slow, TEXTS[:5], search, trie)
    assert all(
        sorted(b.text for b in beams) == sorted(map(prompts.answer, TITLES[:3])) for beams in left
    )
    generation.generate_file(tiny, range(5), TEXTS[:5], tmp_path / "few.parquet", search, trie)
    assert len(pd.read_parquet(tmp_path / "few.parquet")) == 15


def test_a_trie_by_hand():
    trie = Trie([[1, 2, 0], [1, 3, 0], [1, 2, 4, 0], [5, 0]])
    assert trie.children(trie.root, 0).tolist() == [1, 5]
    one = trie.child(trie.root, 0, 1)
    assert trie.children(one, 1).tolist() == [2, 3]
    assert trie.children(trie.child(one, 1, 2), 2).tolist() == [0, 4]
    nothing = trie.child(one, 1, 9)
    assert trie.children(nothing, 2).tolist() == []
    assert trie.child(nothing, 4, 9) == nothing, "beyond the longest answer there is nothing"
    end = trie.child(trie.child(trie.root, 0, 5), 1, 0)
    assert trie.children(end, 2).tolist() == []
    with pytest.raises(GenerationError, match="at least one title"):
        Trie([])


def test_answers_are_tokenised_as_tuning_does(tiny):
    answers = generation.answer_tokens(tiny.tokenizer, TITLES)
    for title, answer in zip(TITLES, answers, strict=True):
        learnt = encode(tiny.tokenizer, Sample(TEXTS[0], prompts.answer(title)))
        assert answer == learnt.ids[-learnt.learnt :].tolist()
    assert generation.room_for(answers, 1.0) == max(map(len, answers))
    assert generation.room_for([[0] * n for n in range(1, 1001)], 0.999) == 1000
    assert generation.room_for([[0] * n for n in range(1, 1002)], 0.999) == 1000


# ----------------------------------------------------------------------------------- files

EXAMPLES = [1000 + 7 * i % 64 for i in range(64)]  # not in order
FEW = Search(8, 4, batch_size=2)
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import test_generation as t
from bigrec_lib import generation
generation.PORTION = 2
llm = t.load({llm!r}, {eos}, torch.bfloat16)
generation.generate_file(llm, t.EXAMPLES, t.TEXTS, Path({path!r}), t.FEW, shard={shard!r})
"""


@pytest.fixture
def coarse(tiny_llm, common_token, monkeypatch):
    """In bfloat16, where another composition of batches rounds differently; 16 portions of 4."""
    monkeypatch.setattr(generation, "PORTION", 2)
    return load(tiny_llm, common_token, torch.bfloat16)


@pytest.fixture
def uninterrupted(coarse, tmp_path_factory):
    """The bytes of the file that one run without any trouble writes."""
    path = tmp_path_factory.mktemp("whole") / "test.parquet"
    generation.generate_file(coarse, EXAMPLES, TEXTS, path, FEW)
    assert not path.with_suffix(".parts").exists()
    return path.read_bytes()


def child(path, tiny_llm, eos, shard=(1, 1)):
    """A process of its own that generates into `path`."""
    from pathlib import Path

    code = CHILD.format(
        tests=str(Path(__file__).parent), llm=str(tiny_llm), eos=eos, path=str(path), shard=shard
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)


def test_the_file_holds_what_generate_gives(coarse, uninterrupted, tmp_path):
    path = tmp_path / "test.parquet"
    path.write_bytes(uninterrupted)
    frame = pd.read_parquet(path)
    assert frame.dtypes.astype(str).to_dict() | {"text": ""} == {
        "example": "int64",
        "beam": "int8",
        "text": "",
        "score": "float32",
    }
    expected = generation.generate(coarse, TEXTS, FEW)
    rows = [
        (example, rank, beam.text, np.float32(beam.score))
        for example, beams in sorted(zip(EXAMPLES, expected, strict=True), key=lambda r: r[0])
        for rank, beam in enumerate(beams)
    ]
    assert list(frame.itertuples(index=False, name=None)) == rows


def test_a_killed_run_goes_on_and_the_file_is_the_same_to_the_byte(
    coarse, tiny_llm, common_token, uninterrupted, tmp_path
):
    path = tmp_path / "test.parquet"
    part = tmp_path / "test.parts" / "1-of-1.jsonl"
    process = child(path, tiny_llm, common_token)
    while process.poll() is None:
        if part.exists() and part.read_bytes().count(b"\n") >= 5:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    assert process.wait() == -signal.SIGKILL
    assert not path.exists()
    done = part.read_bytes()
    assert 5 <= done.count(b"\n") < 16
    part.write_bytes(done[:-1] + b'\n1234abcd [15, [["torn')
    with pytest.warns(UserWarning, match=r"1-of-1.jsonl: dropped 1 damaged of \d+ portions"):
        generation.generate_file(coarse, EXAMPLES, TEXTS, path, FEW)
    assert path.read_bytes() == uninterrupted
    assert not part.parent.exists()


def test_shards_in_processes_of_their_own_give_the_same_file(
    coarse, tiny_llm, common_token, uninterrupted, tmp_path, monkeypatch
):
    path = tmp_path / "test.parquet"
    processes = [child(path, tiny_llm, common_token, (i, 2)) for i in (1, 2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert not path.exists()
    monkeypatch.setattr(generation, "beam_search", lambda *_: 1 / 0)  # nothing is left to do
    generation.generate_file(coarse, EXAMPLES, TEXTS, path, FEW)
    assert path.read_bytes() == uninterrupted


def test_damage_in_the_middle_costs_one_portion(coarse, uninterrupted, tmp_path, monkeypatch):
    path = tmp_path / "test.parquet"
    generation.generate_file(coarse, EXAMPLES, TEXTS, path, FEW, shard=(1, 2))
    part = tmp_path / "test.parts" / "1-of-2.jsonl"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    calls = []
    search_once = generation.beam_search
    monkeypatch.setattr(
        generation, "beam_search", lambda *args: calls.append(1) or search_once(*args)
    )
    with pytest.warns(UserWarning, match="dropped 1 damaged of 8 portions"):
        generation.generate_file(coarse, EXAMPLES, TEXTS, path, FEW)
    assert len(calls) == 16 - 7
    assert path.read_bytes() == uninterrupted


def test_another_shards_file_is_never_rewritten(tiny, tmp_path):
    folder = tmp_path / "test.parts"
    folder.mkdir()
    torn = folder / "2-of-2.jsonl"
    torn.write_text("half a li")
    generation.generate_file(
        tiny, EXAMPLES, TEXTS, tmp_path / "test.parquet", Search(4, 2), shard=(1, 2)
    )
    assert torn.read_text() == "half a li"


def test_work_with_other_parameters_is_refused_by_name(tiny, tmp_path, monkeypatch):
    path = tmp_path / "test.parquet"
    generation.generate_file(tiny, EXAMPLES, TEXTS, path, Search(8, 4), shard=(1, 2))
    with pytest.raises(GenerationError, match=r"\(max_new_tokens 8, now 6; beams 4, now 2\)"):
        generation.generate_file(tiny, EXAMPLES, TEXTS, path, Search(6, 2))
    with monkeypatch.context() as patch, pytest.raises(GenerationError, match="portion 4, now 3"):
        patch.setattr(generation, "PORTION", 3)
        generation.generate_file(tiny, EXAMPLES, TEXTS, path, Search(8, 4))
    for examples, texts, llm, trie, name in (
        (EXAMPLES[::-1], TEXTS, tiny, None, "examples"),
        (EXAMPLES, TEXTS[::-1], tiny, None, "prompts"),
        (EXAMPLES, TEXTS, tiny, Trie([[5, 1]]), "titles"),
        (EXAMPLES, TEXTS, None, None, "weights"),
    ):
        llm = llm or adapted(tiny)
        with pytest.raises(GenerationError, match=rf"parameters \({name} '"):
            generation.generate_file(llm, examples, texts, path, Search(8, 4), trie)


# ------------------------------------------------------------------------------- bad input


def test_bad_input_is_refused_before_any_work(tiny, tmp_path):
    path = tmp_path / "test.parquet"
    with pytest.raises(GenerationError, match=r"prompt 1 has \d+ tokens, .* room for 24 before"):
        generation.generate(tiny, ["short", TEXTS[0]], Search(1000))
    with pytest.raises(GenerationError, match="prompt 0 has 0 tokens"):
        generation.generate(tiny, [""], Search(4))
    with pytest.raises(GenerationError, match="longest title needs 3"):
        generation.generate(tiny, TEXTS[:1], Search(2), Trie([[5, 6, 1]]))
    with pytest.raises(GenerationError, match="shard 3/2"):
        generation.generate_file(tiny, [1], TEXTS[:1], path, Search(4), shard=(3, 2))
    with pytest.raises(GenerationError, match="1 distinct examples for 2 prompts"):
        generation.generate_file(tiny, [1, 1], TEXTS[:2], path, Search(4))
    tiny.tokenizer.eos_token = None
    with pytest.raises(GenerationError, match="no end-of-sequence token"):
        generation.generate(tiny, TEXTS[:1], Search(4))
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_without_padding_will_do(tiny):
    expected = generation.generate(tiny, TEXTS[:8], Search(6))
    tiny.tokenizer.pad_token = None
    assert generation.generate(tiny, TEXTS[:8], Search(6)) == expected


def test_titles_of_any_script_survive_the_file(tiny, tmp_path, monkeypatch):
    text = '"Amélie\u2028 \x85 東京\ufffd\n'
    monkeypatch.setattr(generation, "beam", lambda *_: generation.Beam(text, -0.1))
    generation.generate_file(tiny, [3], TEXTS[:1], tmp_path / "one.parquet", Search(4, 2))
    assert pd.read_parquet(tmp_path / "one.parquet").text.tolist() == [text] * 2


def test_no_examples_give_an_empty_file(tiny, tmp_path):
    generation.generate_file(tiny, [], [], tmp_path / "none.parquet", Search(4))
    frame = pd.read_parquet(tmp_path / "none.parquet")
    assert frame.empty and list(frame) == ["example", "beam", "text", "score"]


# ---------------------------------------------------------------------------- what came out


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
    found = generation.judged(generations, examples, titles)
    assert found.title.tolist() == ["Brazil (1985)", "Brazil (1985)", "Brazil (1984)", ""]
    assert found.real.tolist() == [True, True, False, False]
    assert found.repeats.tolist() == [True, True, False, False]
    assert generation.validity(found) == {
        "generations": 4,
        "real": 0.5,
        "distinct": 3,
        "most frequent": 0.5,
        "repeats": 0.5,
    }
