"""LLMs with random weights, prompts for them, and Hugging Face `generate` to compare with."""

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from toy import toy_titles
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
from bigrec_lib.method.beams import Rules, Search
from bigrec_lib.method.llm import LLM

TITLES = toy_titles(50)
SIZES = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_LIKE = {**SIZES, "intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.3}
FAST = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**LLAMA_LIKE)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**LLAMA_LIKE, sliding_window=4096)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SIZES, initializer_range=0.3)),
}
ALIBI = "alibi, which counts positions itself"
SLOW = {
    "a window shorter than the prompts": lambda: MistralForCausalLM(
        MistralConfig(**LLAMA_LIKE, sliding_window=32)
    ),
    ALIBI: lambda: BloomForCausalLM(
        BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    ),
}


def toy_prompts(count, seed=0):
    """Prompts of very different lengths."""
    rng = np.random.default_rng(seed)
    histories = [rng.choice(50, rng.integers(1, 11), replace=False) for _ in range(count)]
    return [
        prompts.prompt([TITLES[item] for item in history], prompts.DOMAINS["movies"])
        for history in histories
    ]


TEXTS = toy_prompts(64)


def search_of(max_new_tokens, beams=4, batch_size=32, length_penalty=1.0):
    """Settings of a search, most of them as good as any."""
    return Search(
        max_new_tokens=max_new_tokens,
        beams=beams,
        batch_size=batch_size,
        length_penalty=length_penalty,
    )


def load(folder, eos=None, dtype=torch.float32):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if eos is not None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(eos)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    return LLM("tiny", model, tokenizer)


def of_another_make(make, tokenizer):
    """An LLM of another architecture with this tokenizer."""
    torch.manual_seed(0)
    return LLM("other", make().eval(), tokenizer)


def adapted(llm, seed=0):
    """The LLM with a LoRA adapter of random, not tiny, weights."""
    model = get_peft_model(llm.model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return LLM("tiny", model.eval(), llm.tokenizer)


def common_token_of(folder):
    """A token the random model likes to write: as end of sequence it ends beams at all lengths."""
    llm = load(folder)
    ids = llm.tokenizer(TEXTS[:16])["input_ids"]
    rules = Rules(search_of(12), llm.tokenizer.eos_token_id)
    tokens, counts = np.unique(
        [
            token
            for beams in generation.hugging_face(llm.model, ids, rules)
            for tokens, _ in beams
            for token in tokens
        ],
        return_counts=True,
    )
    return int(tokens[counts.argmax()])


def by_generate(llm, texts, search, trie=None):
    """(texts, scores) of all beams by Hugging Face."""
    tokenizer = llm.tokenizer
    rules = Rules(search, tokenizer.eos_token_id, trie)
    return [
        (
            [tokenizer.decode(tokens, skip_special_tokens=True) for tokens, _ in beams],
            [score for _, score in beams],
        )
        for beams in generation.hugging_face(llm.model, tokenizer(texts)["input_ids"], rules)
    ]


def assert_same(generated, expected, tolerance=1e-4):
    """Beams as by `generate`: the same texts, and scores within the tolerance."""
    assert [[b.text for b in beams] for beams in generated] == [texts for texts, _ in expected]
    for beams, (_, scores) in zip(generated, expected, strict=True):
        np.testing.assert_allclose([beam.score for beam in beams], scores, atol=tolerance)
