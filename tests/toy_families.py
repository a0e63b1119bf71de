"""Tiny LLMs of other families: random weights, and tokenizers made as theirs are."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from toy import toy_titles
from toy_samples import toy_samples
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    ByT5Tokenizer,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from bigrec_lib.method.llm import LLM

TITLES = toy_titles(50)
SAMPLES = toy_samples(24)
TEXTS = [sample.prompt + sample.answer for sample in SAMPLES]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

# ------------------------------------------------------------------------------------ tokenizers


def byte_level(split: str | None = None, trim: bool = False, **special: str):
    """GPT-2's kind: letters stand for bytes. split: a pattern of what is never merged, else
    GPT-2's own. trim: whether the offsets of tokens leave out their spaces."""
    tokenizer = Tokenizer(models.BPE())
    parts = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split:
        parts.insert(0, pre_tokenizers.Split(Regex(split), "isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=sorted(set(special.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def sentencepiece(texts: list[str], normalizer, pre_tokenizer, decoder, **special: str):
    """SentencePiece's kind: ▁ stands for a space, bytes for letters that are not in `texts`, and a
    token for the beginning of each text."""
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=400)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.train_from_iterator(texts, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    unknown, *others = special.values()
    tokens = [unknown, *others, *BYTES, *sorted(trained["vocab"], key=trained["vocab"].get)]
    vocab = {token: number for number, token in enumerate(tokens)}
    merges = [tuple(pair) for pair in trained["merges"]]
    tokenizer.model = models.BPE(vocab, merges, byte_fallback=True, unk_token=unknown)
    tokenizer.decoder = decoder
    begin = special["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, vocab[begin])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def spaces_back(*more) -> decoders.Decoder:
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *more]
    return decoders.Sequence(parts)


def llama_like(texts: list[str]):
    """A space before each text, which decoding takes away again."""
    return sentencepiece(
        texts,
        None,
        pre_tokenizers.Metaspace(prepend_scheme="first"),
        spaces_back(decoders.Strip(" ", 1, 0)),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )


class InPython(ByT5Tokenizer):
    """A token for each byte; without the end of sequence that T5 has after each text."""

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        return token_ids_0


QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TOKENIZERS = {
    "qwen2": lambda: byte_level(QWEN2, eos_token="<|im_end|>", pad_token="<|endoftext|>"),
    "gemma3": lambda: sentencepiece(
        TEXTS,
        normalizers.Replace(" ", "▁"),
        pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split("\n", "isolated"),
                pre_tokenizers.Split("▁", "merged_with_next"),
            ]
        ),
        spaces_back(),
        unk_token="<unk>",
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
    ),
    "gpt2": lambda: byte_level(bos_token="<|endoftext|>", eos_token="<|endoftext|>"),
    "llama": lambda: llama_like([text.replace("\n", " ") for text in TEXTS]),
    "offsets without spaces": lambda: byte_level(trim=True, eos_token="<|endoftext|>"),
    "in Python": InPython,
    "tokens across lines": lambda: llama_like(TEXTS),
}

# ---------------------------------------------------------------------------------------- models

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ROTARY = SIZES | {"intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.3}


def gemma3(window: int, vocab: int) -> Gemma3TextConfig:
    return Gemma3TextConfig(
        vocab_size=vocab,
        **ROTARY | {"num_key_value_heads": 1},
        head_dim=8,
        query_pre_attn_scalar=1,
        tie_word_embeddings=False,  # else every token would be followed by itself
        sliding_window=window,
        layer_types=["sliding_attention", "full_attention"],
    )


def gemma3_with_pictures(vocab: int) -> Gemma3ForConditionalGeneration:
    """What the hub's larger Gemma-3 models are."""
    vision = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    vision |= {"hidden_size": 16, "intermediate_size": 16}
    marks = dict.fromkeys(("boi_token_index", "eoi_token_index", "image_token_index"), vocab - 1)
    text = gemma3(16, vocab).to_dict()
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, **marks)
    return Gemma3ForConditionalGeneration(config)


def gpt2(vocab: int) -> GPT2LMHeadModel:
    off = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    ends = dict.fromkeys(("bos_token_id", "eos_token_id"), 0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab, **SIZES, **off, **ends, initializer_range=0.3)
    )


def bloom(vocab: int) -> BloomForCausalLM:
    """ALiBi in place of positions, and so no most length."""
    return BloomForCausalLM(
        BloomConfig(vocab_size=vocab, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3)
    )


def mpt(vocab: int) -> MptForCausalLM:
    """ALiBi, too; `max_seq_len` is what it was trained with."""
    return MptForCausalLM(
        MptConfig(vocab_size=vocab, d_model=32, n_layers=2, n_heads=4, initializer_range=0.3)
    )


@dataclass(frozen=True)
class Family:
    """A tokenizer, a model for a vocabulary of some size, the layers to adapt, and why its beams
    cannot share a cache, if they cannot."""

    tokenizer: str
    model: Callable[[int], torch.nn.Module]
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    problem: str = ""


FAMILIES = {
    "qwen2": Family(
        "qwen2", lambda vocab: Qwen2ForCausalLM(Qwen2Config(vocab_size=vocab, **ROTARY))
    ),
    "gemma3": Family(
        "gemma3", lambda vocab: Gemma3ForCausalLM(gemma3(16, vocab)), problem="window 16"
    ),
    "gemma3, window wider than any text": Family(
        "gemma3", lambda vocab: Gemma3ForCausalLM(gemma3(512, vocab))
    ),
    "gemma3 with pictures": Family("gemma3", gemma3_with_pictures, problem="window 16"),
    "gpt2": Family("gpt2", gpt2, ("c_attn", "c_fc")),
    "bloom": Family("gpt2", bloom, ("query_key_value",), problem="positions that cannot be told"),
    "mpt": Family("gpt2", mpt, ("Wqkv", "up_proj"), problem="positions that cannot be told"),
    "llama": Family(
        "llama", lambda vocab: LlamaForCausalLM(LlamaConfig(vocab_size=vocab, **ROTARY))
    ),
}


def make(name: str) -> LLM:
    """An LLM of this family; biases and norms are random, too, and some tokens have no text."""
    family = FAMILIES[name]
    tokenizer = TOKENIZERS[family.tokenizer]()
    torch.manual_seed(0)
    model = family.model(len(tokenizer) + 3).eval()
    for weight in model.parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, weight.mean().item(), 0.3)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LLM(name, model, tokenizer)
