"""From GGUF to Hugging Face: the weights and tokens of the file, tied where they were tied."""

import re

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from toy_gguf import EOS, PAD, TOKENS, weights, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from bigrec_lib.method import conversion
from bigrec_lib.method.conversion import ConversionError

EMBEDDING = weights()["token_embd.weight"]


def convert(folder, **options):
    """A tiny file, converted and loaded: model, tokenizer."""
    target = folder / "converted"
    target.mkdir()
    conversion.convert_gguf(write_gguf(folder / "toy.gguf", **options), target)
    return AutoModelForCausalLM.from_pretrained(target), AutoTokenizer.from_pretrained(target)


def packed(values, kind):
    """The values as they come out of a file, in bfloat16."""
    return torch.from_numpy(gguf.dequantize(gguf.quants.quantize(values, kind), kind)).bfloat16()


def tensors(folder):
    from safetensors import safe_open

    with safe_open(folder / "converted" / "model.safetensors", "pt") as file:
        return set(file.keys())


def test_tied_weights_that_are_there_twice_are_tied_again_and_the_finer_copy_stays(tmp_path):
    model, _ = convert(tmp_path, output=EMBEDDING)
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, packed(EMBEDDING, Kind.Q8_0))
    assert "lm_head.weight" not in tensors(tmp_path)
    assert sum(p.numel() for p in model.parameters()) == sum(w.size for w in weights().values())


def test_weights_that_are_there_once_stay_tied(tmp_path):
    model, _ = convert(tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, packed(EMBEDDING, Kind.Q4_0))
    assert "lm_head.weight" not in tensors(tmp_path)


def test_output_weights_of_their_own_stay_so(tmp_path):
    other = np.random.default_rng(1).normal(0, 0.3, EMBEDDING.shape).astype(np.float32)
    model, _ = convert(tmp_path, output=other)
    assert not model.config.tie_word_embeddings
    assert torch.equal(model.lm_head.weight, packed(other, Kind.Q8_0))
    assert torch.equal(model.model.embed_tokens.weight, packed(EMBEDDING, Kind.Q4_0))


def test_the_tokens_are_those_of_the_file(tmp_path):
    model, tokenizer = convert(tmp_path, output=EMBEDDING)
    assert (tokenizer.eos_token, tokenizer.pad_token) == (EOS, PAD)
    text = f"the cat's 12{EOS}"
    assert tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]) == [
        *["th", "e", "Ġ", "c", "a", "t", "'", "s", "Ġ", "1", "2"], EOS
    ]  # fmt: skip
    assert model.config.eos_token_id == model.generation_config.eos_token_id == TOKENS.index(EOS)
    assert not model.generation_config.do_sample
    assert model.generation_config.repetition_penalty in (None, 1.0)


@pytest.mark.parametrize("options", [{"architecture": "toyarch"}, {"tokenizer": "toytok"}])
def test_a_file_that_transformers_cannot_read_is_said_in_one_line(tmp_path, options):
    with pytest.raises(ConversionError, match="cannot read toy.gguf .*choose another") as caught:
        convert(tmp_path, **options)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "converted").iterdir()) == []


def test_an_end_of_text_that_is_not_the_files_is_refused(tmp_path, monkeypatch):
    """As transformers 5.17 reads one; titles would then never end."""

    def misread(*arguments, **options):
        tokenizer = read(*arguments, **options)
        tokenizer.eos_token = PAD
        return tokenizer

    read = AutoTokenizer.from_pretrained
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", misread)
    with pytest.raises(ConversionError, match=f"reads {re.escape(PAD)} .*update transformers"):
        convert(tmp_path, output=EMBEDDING)
    assert list((tmp_path / "converted").iterdir()) == []
