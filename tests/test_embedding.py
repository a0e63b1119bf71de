"""Vectors are the last token's last hidden state, whatever shares the batch; the cache is exact."""

import numpy as np
import pytest
import torch
from toy import toy_titles

from bigrec_lib.method import embedding
from bigrec_lib.method.embedding import EmbeddingError, embed
from bigrec_lib.method.llm import LLM, load_llm

TEXTS = [*toy_titles(40), "x", "a much longer text than any title of the toy corpus " * 3, ""]


@pytest.fixture(scope="module")
def llm(tiny_llm):
    return load_llm(str(tiny_llm), dtype="float32")


def test_each_vector_is_that_of_the_text_alone(llm):
    found = embed(llm, TEXTS, batch_size=7)
    for text, vector in zip(TEXTS, found, strict=True):
        ids = llm.tokenizer(text)["input_ids"] or [llm.tokenizer.eos_token_id]
        with torch.inference_mode():
            out = llm.model(torch.tensor([ids]), output_hidden_states=True)
        np.testing.assert_allclose(vector, out.hidden_states[-1][0, -1], rtol=1e-4, atol=1e-5)


def test_batch_size_and_order_change_nothing_beyond_rounding(llm):
    found = embed(llm, TEXTS, batch_size=64)
    np.testing.assert_allclose(embed(llm, TEXTS, batch_size=1), found, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(embed(llm, TEXTS[::-1])[::-1], found, rtol=1e-4, atol=1e-5)


def test_equal_texts_have_equal_vectors(llm):
    found = embed(llm, [*TEXTS, *TEXTS])
    assert (found[: len(TEXTS)] == found[len(TEXTS) :]).all()


def test_the_cache_gives_back_the_same_bits_and_only_missing_texts_are_computed(
    llm, tmp_path, monkeypatch
):
    first = embed(llm, TEXTS[:20], cache=tmp_path)
    computed = []
    compute = embedding.compute
    monkeypatch.setattr(
        embedding,
        "compute",
        lambda model, tokens, *rest: computed.extend(tokens) or compute(model, tokens, *rest),
    )
    both = embed(llm, TEXTS[:25], cache=tmp_path)
    assert len(computed) == 5
    assert (both[:20] == first).all()
    other = LLM("other", load_llm(llm.name, dtype="bfloat16").model, llm.tokenizer)
    embed(other, TEXTS[:3], cache=tmp_path)
    assert len(computed) == 8


def test_a_damaged_cache_and_broken_weights_are_named(llm, tmp_path):
    embed(llm, TEXTS[:3], cache=tmp_path)
    (part,) = tmp_path.glob("*/*.safetensors")
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(EmbeddingError, match="damaged"):
        embed(llm, TEXTS[:3], cache=tmp_path)
    broken = load_llm(llm.name, dtype="float32")
    with torch.no_grad():
        broken.model.model.norm.weight[0] = np.nan
    with pytest.raises(EmbeddingError, match="is not finite"):
        embed(broken, TEXTS[:3])
