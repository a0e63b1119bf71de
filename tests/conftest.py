"""A toy world made on the spot: a corpus in MovieLens-100K's format and a tiny random Llama."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import pytest

WORDS = "Red Blue Night Day River Moon Star City King Queen Lost Last Silent Golden Iron".split()


def toy_titles(n: int) -> list[str]:
    """`n` distinct titles of two or three words and a year; the last two are namesakes."""
    titles = [
        f"{WORDS[i % 15]} {WORDS[(i * 7 + i // 15 + 1) % 15]} ({1950 + i})" for i in range(n - 1)
    ]
    return [*titles, titles[-1]]


def write_ml_100k(folder, users=60, items=50, per_user=(14, 30), seed=0):
    """Write `u.data` and `u.item` in the native format of MovieLens-100K."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for user in range(1, users + 1):
        count = rng.integers(*per_user)
        for item in rng.choice(items, size=count, replace=False):
            time = 880_000_000 + int(rng.integers(0, 10_000_000))
            lines.append(f"{user}\t{item + 1}\t{rng.integers(1, 6)}\t{time}")
    (folder / "u.data").write_text("\n".join(lines) + "\n", encoding="latin-1")
    genres = "|".join(["0"] * 19)
    (folder / "u.item").write_text(
        "".join(
            f"{item}|{title}|01-Jan-1990||http://example.org|{genres}\n"
            for item, title in enumerate(toy_titles(items), 1)
        ),
        encoding="latin-1",
    )
    return folder


def make_tiny_llm(folder, seed=0, hidden=32):
    """Save a two-layer Llama with random weights and a byte-level BPE tokenizer; return folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from bigrec_lib import prompts

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [prompts.prompt(toy_titles(50), words) for words in prompts.DOMAINS.values()]
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.3,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    """Folder with a toy corpus in ml-100k's native format."""
    return write_ml_100k(tmp_path_factory.mktemp("toy") / "ml-100k")


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory):
    """Folder with a tiny randomly initialised Llama and its tokenizer."""
    return make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")
