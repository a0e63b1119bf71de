"""Attention for beams and for gradients is that of torch and of transformers."""

import numpy as np
import pytest
import torch
from toy_families import make
from transformers import Gemma2Config, Gemma2ForCausalLM
from transformers.models.llama.modeling_llama import eager_attention_forward

from bigrec_lib.method import attention, tree_cache

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("queries", [1, 4, 40])
def test_attention_by_plain_products_is_that_of_torch(queries):
    random = torch.Generator().manual_seed(0)
    query = torch.randn(3, 6, queries, 8, generator=random)
    room = torch.randn(2, 3, 2, 80, 8, generator=random)
    key, value = room[0, :, :, :64], room[1, :, :, :64]  # parts of larger arrays, as in a cache
    mask = tree_cache.additive(torch.rand(3, queries, 50, generator=random) < 0.5, query.dtype)
    assert (mask[:, :, :, 50:] < -1e30).all(), "nobody sees what rounding adds"
    mixed, _ = attention.grouped_attention(None, query, key, value, mask, 0.3)
    repeated = [states.repeat_interleave(3, dim=1) for states in (key, value)]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, *repeated, attn_mask=mask, scale=0.3
    )
    np.testing.assert_allclose(mixed, expected.transpose(1, 2), atol=2e-6)


def test_attention_with_scores_changed_in_an_unknown_way_is_refused():
    states = torch.zeros(1, 1, 1, 4)
    with pytest.raises(NotImplementedError, match="attention with softcap"):
        attention.grouped_attention(None, states, states, states, None, 0.5, softcap=50.0)


class Layer:
    """What `eager_attention_forward` asks of a layer."""

    training = True

    def __init__(self, groups):
        self.num_key_value_groups = groups


def gradients(way, states, dtype, groups):
    """Output of attention, and the gradients of query, key and value, in double precision."""
    query, key, value, mask, pull = (state.to(dtype) for state in states)
    leaves = [leaf.requires_grad_() for leaf in (query, key, value)]
    out, _ = way(Layer(groups), *leaves, mask, scaling=0.3, dropout=0.0)
    found = [out, *torch.autograd.grad(out, leaves, pull)]
    return [array.detach().double() for array in found]


@pytest.mark.parametrize("groups", [1, 3])
def test_gradients_of_lean_attention_are_exact_or_no_further_off_than_those_of_eager(groups):
    random = torch.Generator().manual_seed(groups)
    rows, keys, queries, entries, size = 2, 2, 24, 40, 16
    shapes = [(rows, keys * groups, queries, size), *[(rows, keys, entries, size)] * 2]
    states = [torch.randn(shape, generator=random, dtype=torch.double) for shape in shapes]
    visible = torch.ones(rows, 1, queries, entries).tril(entries - queries).bool()
    visible[1, :, :, :10] = False  # padding on the left
    mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.bfloat16).min)
    pull = torch.randn(rows, queries, keys * groups, size, generator=random, dtype=torch.double)
    states += [mask.double(), pull]
    exact = gradients(eager_attention_forward, states, torch.double, groups)
    for dtype, bound in ((torch.double, 1e-6), (torch.float32, 1e-5)):  # eager's softmax is fp32
        for found, expected in zip(
            gradients(attention.lean_attention, states, dtype, groups), exact, strict=True
        ):
            np.testing.assert_allclose(found, expected, atol=bound)
    errors = {
        way: [
            float((found - expected).norm() / expected.norm())
            for found, expected in zip(
                gradients(way, states, torch.bfloat16, groups), exact, strict=True
            )
        ]
        for way in (attention.lean_attention, eager_attention_forward)
    }
    lean, eager = errors.values()
    assert max(lean) < 0.02 and np.less(lean, 1.5 * np.array(eager)).all()


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3", "gpt2"])
def test_models_of_many_makes_take_lean_attention(family):
    model = make(family).model
    usual = model.config._attn_implementation
    assert attention.for_gradients(model) == attention.LEAN
    assert model.config._attn_implementation == usual


def test_a_model_that_lean_attention_does_not_fit_attends_as_usual(monkeypatch):
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "head_dim": 8} | heads
    capped = Gemma2ForCausalLM(Gemma2Config(**sizes, attn_logit_softcapping=1.0)).eval()
    assert attention.for_gradients(capped) == attention.EAGER

    model, lean = make("llama").model, attention.lean_attention
    monkeypatch.setattr(
        attention, "lean_attention", lambda *states, scaling, **rest: lean(*states, 1.0, **rest)
    )
    assert attention.for_gradients(model) == attention.EAGER
