"""Attention that repeats no key: for beams that share a cache, and for gradients on a CPU.

Where query heads share a key head (grouped-query attention), transformers repeats the keys for
each of them. Here they become further queries of that head, and nothing is repeated.

In shapes, R is the number of texts, H of query heads, K of key heads, Q of queries, S of keys, d of
a head's values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import dropout as dropped
from torch.nn.functional import scaled_dot_product_attention

from bigrec_lib.method.llm import without_notices

with without_notices():
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

GROUPED, LEAN, EAGER = "grouped", "lean", "eager"  # ways of attention
UNKNOWN = ("softcap", "s_aux", "position_bias")  # what changes scores in a way unknown here
TRIAL = 16  # tokens on which a model is tried


@contextmanager
def attending(model: PreTrainedModel, way: str) -> Iterator[None]:
    """Let the model attend in this way within the block."""
    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionInterface.register(LEAN, lean_attention)
    AttentionMaskInterface.register(LEAN, eager_mask)
    usual = model.config._attn_implementation
    try:
        model.set_attn_implementation(way)
        yield
    finally:
        model.set_attn_implementation(usual)


def refuse_unknown(options: dict) -> None:
    """Raise NotImplementedError for a model that changes attention scores in a way unknown here."""
    for name in UNKNOWN:
        if options.get(name) is not None:
            raise NotImplementedError(f"attention with {name}")


# -------------------------------------------------------------------------------------- for beams


def grouped_attention(
    module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, scaling, **options
) -> tuple[Tensor, None]:
    """Attention of a few queries of each text.

    query: (R, H, Q, d). key, value: (R, K, S, d), H a multiple of K.
    attention_mask: (R, 1, Q, S), added to the scores. Returns (R, Q, H, d), and no weights.
    On a CPU this takes half the time of the fused kernel.
    Raises NotImplementedError as `refuse_unknown` does.
    """
    refuse_unknown(options)
    rows, heads, queries, size = query.shape
    groups = heads // key.shape[1]
    query = query.reshape(rows, key.shape[1], groups * queries, size)
    if query.device.type == "cpu":
        out = plain_attention(query, key, value, attention_mask, scaling)
    else:
        mask = attention_mask.repeat(1, 1, groups, 1)
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return out.reshape(rows, heads, queries, -1).transpose(1, 2).contiguous(), None


def plain_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float
) -> Tensor:
    """query (R, K, G Q, d), key and value (R, K, S, d), mask (R, 1, Q, S) -> (R, K, G Q, d).

    torch copies the right factor of a product if it is transposed and part of a larger array. With
    the few queries of a step, that would be the keys of the whole cache: so the keys are the left
    factor. With many queries the copy does not matter.
    """
    rows, heads, queries, _ = query.shape
    query, key, value = (states.flatten(0, 1) for states in (query, key, value))
    if 4 * queries < key.shape[1]:
        scores = torch.bmm(key, query.transpose(1, 2)).transpose(1, 2)
    else:
        scores = torch.bmm(query, key.transpose(1, 2))
    scores = scores.reshape(rows, -1, *mask.shape[2:]).float().mul_(scaling).add_(mask)
    weights = scores.softmax(-1).to(value.dtype).view(rows * heads, queries, -1)
    return torch.bmm(weights, value).unflatten(0, (rows, heads))


# ---------------------------------------------------------------------------------- for gradients


def lean_attention(
    module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    dropout: float = 0.0,
    **options,
) -> tuple[Tensor, None]:
    """Attention whose gradient takes a CPU half as long as that of `eager`.

    Scores stay in the model's dtype; within softmax, PyTorch computes in fp32 whatever that is.
    Shapes and errors are those of `grouped_attention`.
    """
    refuse_unknown(options)
    rows, heads, queries, size = query.shape
    query = (query * scaling).reshape(rows * key.shape[1], -1, size)  # (R K, G Q, d)
    scores = torch.bmm(query, key.flatten(0, 1).transpose(1, 2))
    scores = scores.view(rows, heads, queries, -1) + attention_mask
    weights = dropped(scores.softmax(-1), dropout, module.training)
    out = torch.bmm(weights.view(len(query), query.shape[1], -1), value.flatten(0, 1))
    return out.view(rows, heads, queries, -1).transpose(1, 2).contiguous(), None


def for_gradients(model: PreTrainedModel) -> str:
    """The way of attention whose gradient a CPU computes fastest: LEAN, or EAGER for a model that
    writes other logits with it."""
    bound = torch.finfo(model.dtype).eps ** 0.5
    try:
        logits = {way: trial_logits(model, way) for way in (EAGER, LEAN)}
    except Exception:  # whatever a model of another make does not support
        return EAGER
    return LEAN if (logits[LEAN] - logits[EAGER]).norm() < bound * logits[EAGER].norm() else EAGER


@torch.inference_mode()
def trial_logits(model: PreTrainedModel, way: str) -> Tensor:
    """The logits of two short texts, one of them padded, in this way of attention."""
    ids = torch.arange(2 * TRIAL, device=model.device).view(2, TRIAL)
    mask = torch.ones_like(ids)
    mask[1, : TRIAL // 2] = 0
    with attending(model, way):
        logits = model(input_ids=ids, attention_mask=mask).logits.float()
    return logits[mask.bool()]
