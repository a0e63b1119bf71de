"""Samples as batches, and the loss over the tokens that are learnt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bigrec_lib.files import StudyError
from bigrec_lib.method.llm import cache_problem, positions, waits_for_starts, without_notices
from bigrec_lib.method.processes import add_up, process
from bigrec_lib.method.samples import BUCKET, Encoded, Sample, batches, encode, shared_tokens

with without_notices():
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from bigrec_lib.method.llm import LLM


# All of attention but cuDNN's, whose gradients held NaN where samples are padded: seen with
# Qwen2.5-0.5B in bfloat16, PyTorch 2.11, on an H200.
KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class Batch:
    """Samples for the model, padded on the left so that all end together."""

    shared: Tensor  # (1, P) the tokens that open every sample
    rest: Tensor  # (B, T) the others
    real: Tensor  # (B, T) 1 for a token, 0 for padding
    labels: Tensor  # (B, A) of the last A positions; -100 is not learnt


def collate(encoded: Sequence[Encoded], shared: int, pad: int, device) -> Batch:
    """Samples as one batch; the number of tokens after the shared ones is a multiple of BUCKET."""
    length = -(-(max(len(sample.ids) for sample in encoded) - shared) // BUCKET) * BUCKET
    rest = np.full((len(encoded), length), pad)
    real = np.zeros((len(encoded), length), dtype=np.int64)
    labels = np.full((len(encoded), max(sample.learnt for sample in encoded)), -100)
    for row, sample in enumerate(encoded):
        tokens = sample.ids[shared:]
        rest[row, -len(tokens) :] = tokens
        real[row, -len(tokens) :] = 1
        labels[row, -sample.learnt :] = sample.ids[-sample.learnt :]
    arrays = (encoded[0].ids[None, :shared], rest, real, labels)
    return Batch(*(torch.from_numpy(array).to(device) for array in arrays))


def loss_sum(model: PeftModel, batch: Batch) -> Tensor:
    """Sum of the cross-entropies of all learnt tokens, in fp32."""
    logits, tokens = learnt_logits(model.get_base_model(), batch)
    return nn.functional.cross_entropy(logits, tokens, reduction="sum")


def learnt_logits(causal: PreTrainedModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """The logits before every learnt token, in fp32, and the token: (N, V) and (N,), row by row.

    What comes after the output layer, such as a scale or a cap of the logits, is the model's own.
    """
    rows, shared = len(batch.rest), batch.shared.shape[1]
    cache = None
    if shared:
        cache = causal.base_model(input_ids=batch.shared, use_cache=True).past_key_values
        cache.batch_repeat_interleave(rows)  # keys and values: (1, H, P, d) -> (B, H, P, d)
    mask = batch.labels != -100
    with only_before(causal.get_output_embeddings(), mask), seeing_padding():
        logits = causal(
            input_ids=batch.rest,
            attention_mask=torch.cat([batch.real.new_ones(rows, shared), batch.real], dim=1),
            position_ids=shared + (batch.real.cumsum(1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=cache is not None,
        ).logits  # (N, V)
    return logits.float(), batch.labels[mask]


@contextmanager
def only_before(output: nn.Module, mask: Tensor) -> Iterator[None]:
    """Within the block, give the output layer only the states before learnt tokens: (B, T, d) is
    gathered into (N, d).

    mask: (B, A) bool, which of the last A positions are learnt. Given a slice of the batch in place
    of one matrix, PyTorch would copy the output weights once per row.
    """

    def gathered(_, inputs: tuple[Tensor]) -> Tensor:
        return inputs[0][:, -mask.shape[1] - 1 : -1][mask]

    hook = output.register_forward_pre_hook(gathered)
    try:
        yield
    finally:
        hook.remove()


def sound_attention() -> AbstractContextManager[None]:
    """Within the block, which has to span the gradient too, attention takes only `KERNELS`."""
    return sdpa_kernel(KERNELS)


@contextmanager
def seeing_padding() -> Iterator[None]:
    """Within the block, padding that would see nothing sees everything.

    Nothing looks at padding, so no result changes. But for a position without anything to see,
    fused attention on a GPU returns NaN, and NaN times nothing is NaN.
    """

    def mask(*args, **kwargs) -> Tensor | None:
        visible = sdpa_mask(*args, **kwargs)  # (B, 1, T, S) bool; None for plain causal attention
        return visible if visible is None else visible | ~visible.any(-1, keepdim=True)

    ALL_MASK_ATTENTION_FUNCTIONS["sdpa"] = mask
    try:
        yield
    finally:
        del ALL_MASK_ATTENTION_FUNCTIONS["sdpa"]


@dataclass(frozen=True)
class Data:
    """Encoded samples, and how many tokens of each the model reads only once per batch."""

    encoded: list[Encoded]
    shared: int

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(sample.ids) for sample in self.encoded])

    def batch(self, numbers: Sequence[int] | np.ndarray, llm: LLM) -> Batch:
        samples = [self.encoded[i] for i in numbers]
        return collate(samples, self.shared, llm.tokenizer.pad_token_id, llm.device)

    def tokens(self, numbers: Sequence[int] | np.ndarray) -> int:
        """How many tokens of these samples are learnt."""
        return sum(self.encoded[i].learnt for i in numbers)


def prepare(llm: LLM, samples: Sequence[Sample], learn_prompt: bool, may_share: bool) -> Data:
    """Encode samples, and find out how many first tokens they share, if they may.

    On a GPU that waits for the starts of products, each sample is read whole: a second pass would
    take longer to start than the tokens take.
    Raises StudyError for a sample that is longer than the model has positions.
    """
    encoded = [encode(llm.tokenizer, sample, learn_prompt) for sample in samples]
    longest = max(len(sample.ids) for sample in encoded)
    room = positions(llm.model)
    if longest > room:
        raise StudyError(
            f"a sample has {longest} tokens with its answer, and {llm.name} has room for {room}: "
            "lower max_tokens of the prompts, or max_title of 01_prepare_data"
        )
    padded = longest + BUCKET - 1  # padding stands in the cache, and a window counts it
    share = may_share and not waits_for_starts(llm) and not cache_problem(llm.model, padded)
    return Data(encoded, shared_tokens(encoded) if share else 0)


def evaluate(llm: LLM, model: PeftModel, data: Data, size: int) -> float:
    """Mean loss per learnt token, over all processes."""
    rank, processes = process()
    total = torch.zeros((), device=llm.device)
    model.eval()
    with torch.inference_mode():
        for numbers in batches(data.lengths, size):
            part = numbers[rank::processes]
            if len(part):
                total += loss_sum(model, data.batch(part, llm))
    add_up([total])
    return total.item() / data.tokens(range(len(data.encoded)))
