"""What an LLM makes of samples: how likely it finds their answers, how hard they pull at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from bigrec_lib.method.adapters import add_adapter
from bigrec_lib.method.llm import LLM
from bigrec_lib.method.losses import learnt_logits, loss_sum, prepare, sound_attention
from bigrec_lib.method.samples import Sample, batches


@torch.inference_mode()
def log_likelihoods(
    llm: LLM, samples: Sequence[Sample], batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The log-likelihood of each answer after its prompt, (n,) float64, and the number of tokens
    that it is summed over, (n,) int64.

    These are the answer's tokens and the end of sequence, which are given to the LLM one after the
    other (teacher forcing). An adapter on the LLM counts. batch_size: samples at once. Raises
    StudyError for a sample that is longer than the model has positions.
    """
    causal = getattr(llm.model, "get_base_model", lambda: llm.model)().eval()
    data = prepare(replace(llm, model=causal), samples, learn_prompt=False, may_share=True)
    sums = np.zeros(len(samples))
    parts = batches(data.lengths, batch_size)
    for numbers in tqdm(parts, desc="likelihood", unit="batch", leave=False):
        batch = data.batch(numbers, llm)
        losses = nn.functional.cross_entropy(*learnt_logits(causal, batch), reduction="none")
        row = (batch.labels != -100).nonzero()[:, 0].cpu().numpy()
        sums[numbers] = -np.bincount(row, losses.cpu().numpy(), minlength=len(numbers))
    return sums, np.array([sample.learnt for sample in data.encoded])


def efforts(llm: LLM, samples: Sequence[Sample], rank: int, alpha: int, seed: int) -> np.ndarray:
    """DEALRec's effort: the length of the gradient of each sample's mean loss, (n,) float64.

    With respect to B of a fresh LoRA adapter on `v_proj` of the last layer; a fresh B is zero, and
    so is the gradient with respect to A. rank, alpha, seed: of that adapter. The LLM is left as it
    was; torch's seed is set. Raises StudyError if it has no `v_proj`, or for a sample that is
    longer than the model has positions.
    """
    model = add_adapter(llm, rank, alpha, 0.0, ("v_proj",), seed)
    data = prepare(llm, samples, learn_prompt=False, may_share=False)
    weight = [weight for name, weight in model.named_parameters() if "lora_B" in name][-1]
    for parameter in model.parameters():
        parameter.requires_grad_(parameter is weight)
    lengths = []
    try:
        with sound_attention():
            for number in tqdm(range(len(samples)), desc="effort", unit="sample", leave=False):
                loss = loss_sum(model, data.batch([number], llm)) / data.tokens([number])
                (gradient,) = torch.autograd.grad(loss, [weight])
                lengths.append(float(gradient.float().norm()))
    finally:
        model.unload()
    return np.array(lengths)
