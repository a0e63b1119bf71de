"""Other families tune, generate and embed as plain transformers and PEFT do, one text at a time.

Whatever a model's own generation settings say, the search is the one that was asked for.
"""

import inspect
import json
import re
import warnings

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from toy import fresh_adapter, tuning_settings
from toy_families import FAMILIES, SAMPLES, TITLES, TOKENIZERS, make
from toy_llms import search_of
from tqdm import tqdm
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from bigrec_lib.files import StudyError
from bigrec_lib.method import adapters, beams, embedding, generation, prompts, samples, tuning
from bigrec_lib.method.beams import Trie
from bigrec_lib.method.embedding import EmbeddingError, embed
from bigrec_lib.method.llm import LLM, load_tokenizer, with_adapter
from bigrec_lib.method.samples import Sample

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [sample.prompt for sample in SAMPLES[:5]]
ODD = ["Café  Noir", "日本 x", " lead", "trail ", '"q"', "Who 's There , Max ?", "'Til", "…And"]
family = pytest.mark.parametrize("name", FAMILIES)


# ------------------------------------------------------------------------------------------ tokens


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_an_answer_is_learnt_behind_the_very_tokens_that_generation_goes_on_from(kind):
    tokenizer = TOKENIZERS[kind]()
    llm = LLM(kind, make("qwen2").model, tokenizer)
    titles = [*TITLES[:20], *ODD]
    for sample in (Sample(PROMPTS[0], prompts.answer(title)) for title in titles):
        encoded = samples.encode(tokenizer, sample)
        prompt, answer = encoded.ids[: -encoded.learnt], encoded.ids[-encoded.learnt :]
        (read,) = generation.Work.plan(llm, [sample.prompt], search_of(4), None).tokens
        assert prompt.tolist() == read == tokenizer(sample.prompt)["input_ids"]
        begins = [tokenizer.bos_token_id] if "▁" in "".join(tokenizer.get_vocab()) else []
        assert prompt[: len(begins)].tolist() == begins
        special = [token for token in encoded.ids.tolist() if token in tokenizer.all_special_ids]
        assert special == [*begins, tokenizer.eos_token_id] and answer[-1] == special[-1]
        assert prompts.decode(tokenizer, answer[:-1]) == sample.answer
        assert prompts.decode(tokenizer, encoded.ids).endswith(sample.answer)
    learnt = [samples.encode(tokenizer, Sample(PROMPTS[1], prompts.answer(t))) for t in titles]
    expected = [each.ids[-each.learnt :].tolist() for each in learnt]
    assert beams.answer_tokens(tokenizer, titles) == expected


def test_a_tokenizer_that_cleans_its_texts_up_leaves_titles_as_they_are():
    tokenizer = TOKENIZERS["gpt2"]()
    tokenizer.clean_up_tokenization_spaces = True
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    (tokens,) = beams.answer_tokens(tokenizer, ["Who 's There , Max ?"])
    assert tokenizer.decode(tokens[:-1]) == '"Who\'s There, Max?"'
    assert prompts.decode(tokenizer, tokens[:-1]) == '"Who \'s There , Max ?"'


@pytest.mark.parametrize("told", ["GPT2Tokenizer", "LlamaTokenizer", "Qwen2Tokenizer", "Nothing"])
@pytest.mark.parametrize("kind", [kind for kind in TOKENIZERS if kind != "in Python"])
def test_texts_are_cut_as_tokenizer_json_says_whatever_class_is_named(kind, told, tmp_path):
    """`tokenizers` reads the file by itself; digits are where classes differ most."""
    TOKENIZERS[kind]().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": told}))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    stored = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(str(tmp_path))
    for text in [*PROMPTS, *TITLES[:20], *ODD, "2023 650841823"]:
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokens == stored.encode(text, add_special_tokens=False).ids
        assert prompts.decode(tokenizer, tokens) == stored.decode(tokens)


# ------------------------------------------------------------------------------------------ tuning


@family
def test_the_losses_of_a_tuning_are_those_of_peft(name, tmp_path):
    """Four steps with nothing but transformers, PEFT and PyTorch, one unpadded sample at a time."""
    settings = tuning_settings(
        epochs=4,
        batch_size=6,
        dropout=0.0,
        warmup=0,
        schedule="constant",
        learning_rate=0.01,
        target_modules=FAMILIES[name].targets,
    )
    llm = make(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        log = tuning.tune(llm, SAMPLES[:6], SAMPLES[6:9], settings, tmp_path)

    model = make(name).model
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules=list(settings.target_modules)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(model, config)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=0.01, weight_decay=0.0)
    learnt, held_out = (one_by_one(llm.tokenizer, some) for some in (SAMPLES[:6], SAMPLES[6:9]))
    for row in log.itertuples():
        loss = mean_loss(model, learnt)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        assert row.train_loss == pytest.approx(loss.item(), rel=1e-4)
        assert row.valid_loss == pytest.approx(mean_loss(model, held_out).item(), rel=1e-4)
    assert len(log) == 4 and log.train_loss.iloc[-1] < 0.97 * log.train_loss.iloc[0]
    sharing = tuning.prepare(llm, SAMPLES[:6], False, True).shared > 30
    assert sharing == (not FAMILIES[name].problem)


def one_by_one(tokenizer, some):
    """Token ids and labels of each sample, (1, T) int64 each."""
    rows = []
    for sample in some:
        encoded = samples.encode(tokenizer, sample)
        ids = torch.from_numpy(encoded.ids)[None]
        labels = ids.clone()
        labels[:, : -encoded.learnt] = -100
        rows.append((ids, labels))
    return rows


def mean_loss(model, rows):
    """The mean loss of all labels by the model's own `loss`, in float32."""
    counts = [int((labels != -100).sum()) for _, labels in rows]
    sums = [
        model(input_ids=ids, labels=labels).loss * count
        for (ids, labels), count in zip(rows, counts, strict=True)
    ]
    return sum(sums) / sum(counts)


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [
        ("gpt2", ("q_proj", "v_proj"), "q_proj, v_proj match nothing .*c_attn, c_fc, c_proj"),
        ("gpt2", ("attn.c_attn", "o_proj"), "target_modules o_proj match nothing .*all-linear"),
        ("qwen2", ("q_proj", "mlp"), "target_modules mlp match nothing .* q_proj, up_proj"),
        ("qwen2", ("all-linear", "q_proj"), "target_modules all-linear match nothing"),
    ],
)
def test_a_target_module_that_the_model_lacks_is_named_with_those_it_has(name, targets, message):
    llm = make(name)
    with pytest.raises(StudyError, match=message):
        fresh_adapter(llm, target_modules=targets)
    assert not any("lora" in part for part, _ in llm.model.named_modules())


def test_all_linear_are_all_layers_but_the_output(tmp_path):
    model = fresh_adapter(make("gpt2"), target_modules=("all-linear",), rank=2)
    # two layers: c_attn (32, 96), c_proj (32, 32), c_fc (32, 128), c_proj (128, 32)
    expected = 2 * 2 * ((32 + 96) + (32 + 32) + 2 * (32 + 128))
    assert adapters.count_parameters(model)[0] == expected


# -------------------------------------------------------------------------------------- generation


def tuned(llm, folder):
    """The LLM with an adapter of random, not tiny, weights, saved and read again."""
    model = fresh_adapter(llm, target_modules=FAMILIES[llm.name].targets)
    torch.manual_seed(1)
    for part, weight in model.named_parameters():
        if "lora_" in part:
            torch.nn.init.normal_(weight, std=0.2)
    adapters.save_adapter(model, folder)
    return LLM(llm.name, with_adapter(model.unload(), folder).eval(), llm.tokenizer)


def by_transformers(llm, search):
    """Beams of each prompt, alone: tokens up to the end of sequence, and score."""
    results, eos = [], llm.tokenizer.eos_token_id
    for text in PROMPTS:
        ids = torch.tensor([llm.tokenizer(text)["input_ids"]])
        out = llm.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=search.max_new_tokens,
            num_beams=search.beams,
            num_return_sequences=search.beams,
            length_penalty=search.length_penalty,
            do_sample=False,
            eos_token_id=eos,
            pad_token_id=eos,
            return_dict_in_generate=True,
            output_scores=True,
        )
        new = out.sequences[:, ids.shape[1] :].tolist()
        tokens = [row[: row.index(eos)] if eos in row else row for row in new]
        results.append(list(zip(tokens, out.sequences_scores.tolist(), strict=True)))
    return results


def ended_by(llm, token):
    """The same LLM, for which this token ends an answer."""
    llm.tokenizer.eos_token = llm.tokenizer.convert_ids_to_tokens(token)
    return llm


def likely_token(llm):
    """A token that it writes often: as end of sequence, it ends beams at several lengths."""
    written = [tokens for beams in by_transformers(llm, search_of(8)) for tokens, _ in beams]
    known = [token for tokens in written for token in tokens if token < len(llm.tokenizer)]
    return int(np.bincount(known).argmax())


@pytest.mark.parametrize("adapter", [False, True])
@family
def test_beams_are_those_of_transformers(name, adapter, tmp_path):
    llm = make(name)
    if adapter:
        llm = tuned(llm, tmp_path)
    llm, search = ended_by(llm, likely_token(llm)), search_of(8, 3, 3, length_penalty=0.0)
    expected = by_transformers(llm, search)
    assert len({len(tokens) for beams in expected for tokens, _ in beams}) > 1
    work = generation.Work.plan(llm, PROMPTS, search, None)
    with warnings.catch_warnings(record=True) as said, generation.plain(llm.model) as model:
        warnings.simplefilter("always")
        generated = generation.searcher(name, model, work)(work.rows(0))
    for position, found in zip(work.portions[0], generated, strict=True):
        assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected[position]]
        scores = [[score for _, score in each] for each in (found, expected[position])]
        np.testing.assert_allclose(*scores, atol=1e-4)
    problem = FAMILIES[name].problem
    assert [bool(re.search(f"slower.*{problem}", str(each.message))) for each in said] == (
        [True] if problem else []
    )


@pytest.mark.filterwarnings("ignore:.*slower `generate`")
@family
def test_titles_come_out_of_a_trie_as_they_are(name):
    llm = make(name)
    titles = [*TITLES[:4], *ODD]
    trie = Trie(beams.answer_tokens(llm.tokenizer, titles))
    search = search_of(trie.depth, len(titles))
    (found,) = generation.generate(llm, PROMPTS[:1], search, trie)
    assert sorted(beam.text for beam in found) == sorted(map(prompts.answer, titles))


SETTINGS = {
    "sampling": {"do_sample": True, "temperature": 5.0, "top_k": 5, "top_p": 0.5},
    "a repetition penalty": {"repetition_penalty": 5.0},
    "an encoder repetition penalty": {"encoder_repetition_penalty": 5.0},
    "suppressed tokens": {"suppress_tokens": "likely"},
    "tokens suppressed at the beginning": {"begin_suppress_tokens": "first"},
    "forbidden words": {"bad_words_ids": "likely words"},
    "a forced end": {"forced_eos_token_id": 7},
    "a forced beginning": {"forced_bos_token_id": 7},
    "no repeated pair": {"no_repeat_ngram_size": 1},
    "a bias of tokens": {"sequence_bias": [[[7], 50.0]]},
    "other beams": {"num_beams": 2, "num_return_sequences": 1},
    "another length penalty": {"length_penalty": -3.0},
    "early stopping": {"early_stopping": True},
    "another most length": {"max_length": 3, "max_new_tokens": 2},
    "a least length": {"min_new_tokens": 6},
    "a penalty that grows with the length": {"exponential_decay_length_penalty": [1, 5.0]},
    "strings to stop at": {"stop_strings": ["e"]},
    "other ends of sequence": {"eos_token_id": "likely"},
    "another padding": {"pad_token_id": 7},
    "guidance": {"guidance_scale": 3.0},
    "scores made anew": {"renormalize_logits": True},
    "no cache": {"use_cache": False},
    "a static cache": {"cache_implementation": "static"},
    "a most time": {"max_time": 1e-9},
    "outputs": {"output_attentions": True, "output_hidden_states": True},
}


@pytest.fixture(scope="module")
def searched():
    """LLMs for the exact search and for its fallback, with what they write of themselves."""
    search, results = search_of(6, 3, batch_size=2), {}
    for name in ("qwen2", "gemma3"):
        llm = make(name)
        token = likely_token(llm)
        llm = ended_by(llm, token)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = generation.generate(llm, PROMPTS[:2], search)
        results[name] = (llm, search, written, tuning.greedy(llm, PROMPTS[:2], 6))
    return results


@pytest.mark.filterwarnings("ignore:.*slower `generate`")
@pytest.mark.parametrize("what", SETTINGS)
@pytest.mark.parametrize("name", ["qwen2", "gemma3"])
def test_a_models_own_generation_settings_change_nothing(name, what, searched):
    llm, search, written, greedy = searched[name]
    ids = [llm.tokenizer(beam.text, add_special_tokens=False)["input_ids"] for beam in written[0]]
    words = {
        "likely": sorted({token for tokens in ids for token in tokens}),
        "first": sorted({token for tokens in ids for token in tokens[:2]}),
        "likely words": sorted([token] for token in {t for tokens in ids for t in tokens}),
    }
    settings = {
        key: words.get(value, value) if isinstance(value, str) else value
        for key, value in SETTINGS[what].items()
    }
    preset = GenerationConfig(**settings)
    llm.model.generation_config = preset
    assert generation.generate(llm, PROMPTS[:2], search) == written
    assert tuning.greedy(llm, PROMPTS[:2], 6) == greedy
    assert llm.model.generation_config is preset


# --------------------------------------------------------------------------------------- embedding


@family
def test_an_embedding_is_that_of_the_text_alone_and_of_left_padded_batches(name):
    llm = make(name)
    texts = [*TITLES[:12], *ODD, "x", " ".join(TITLES[:9])]
    found = embed(llm, texts, batch_size=5)
    np.testing.assert_allclose(embed(llm, texts[::-1], 3)[::-1], found, rtol=1e-4, atol=1e-5)
    encoded = [llm.tokenizer(text)["input_ids"] for text in texts]
    width = max(map(len, encoded))
    ids, real = torch.zeros((2, len(texts), width), dtype=torch.int64)
    for row, tokens in enumerate(encoded):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        real[row, width - len(tokens) :] = 1
    told = {}
    if "position_ids" in inspect.signature(llm.model.base_model.forward).parameters:
        told["position_ids"] = (real.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        padded = llm.model(
            input_ids=ids, attention_mask=real, output_hidden_states=True, **told
        ).hidden_states[-1][:, -1]
        for text, tokens, vector in zip(texts, encoded, found, strict=True):
            alone = llm.model(torch.tensor([tokens]), output_hidden_states=True)
            np.testing.assert_allclose(
                vector, alone.hidden_states[-1][0, -1], rtol=1e-4, atol=1e-5, err_msg=text
            )
    np.testing.assert_allclose(found, padded, rtol=1e-4, atol=1e-5)


def test_a_text_that_the_model_has_no_room_for_is_named_in_a_line():
    llm = make("gpt2")
    room = llm.model.config.n_positions
    fitting = llm.tokenizer.decode([7] * room)
    assert len(llm.tokenizer(fitting)["input_ids"]) == room
    assert np.isfinite(embed(llm, ["x", fitting])).all()
    with pytest.raises(EmbeddingError, match="has .* tokens, and gpt2 reads 1024 .*max_title") as e:
        embed(llm, ["x", "var a = new Date(); " * 300])
    assert len(str(e.value)) < 200 and "\n" not in str(e.value)


def test_padding_takes_no_more_than_the_model_has_room_for():
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=64, n_positions=13, n_embd=8, n_layer=1, n_head=2)
    )
    llm = LLM("gpt2", model.eval(), make("gpt2").tokenizer)
    found = embedding.compute(llm, [[7] * 13, [7] * 3], 2, tqdm(disable=True))
    alone = model(torch.tensor([[7] * 13]), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(found[0], alone[0, -1].detach())


def test_a_sample_that_the_model_has_no_room_for_is_refused_before_tuning(tmp_path):
    llm, folder = make("gpt2"), tmp_path / "adapter"
    sample = Sample(PROMPTS[0], "word " * llm.model.config.n_positions)
    message = "a sample has .* tokens with its answer, and gpt2 has room for 1024: lower max_tokens"
    with pytest.raises(StudyError, match=message):
        tuning.tune(llm, [sample], SAMPLES[:1], tuning_settings(target_modules=("c_attn",)), folder)
