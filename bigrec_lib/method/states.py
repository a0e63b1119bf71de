"""Vectors of texts from several layers of an LLM at once: the last token's state, or the mean.

`embedding` has the published kind, last token and last layer; this is for comparing others with it.
Padding and batches are as there, so that the published kind comes out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from bigrec_lib.method import embedding
from bigrec_lib.method.llm import fingerprint

if TYPE_CHECKING:
    from tqdm import tqdm

    from bigrec_lib.method.llm import LLM

LAST, MEAN = "last token", "mean"


def pooled(
    llm: LLM, texts: Sequence[str], batch_size: int, layers: Sequence[float], cache: Path
) -> dict[tuple[str, float], np.ndarray]:
    """(LAST or MEAN, layer) -> vectors (len(texts), d) float32.

    layers: shares of the model's depth, 1.0 for the last one, whose states are normalised. cache: a
    folder; what it holds for this very model and these layers is read, what is missing is computed
    and added. Raises EmbeddingError as `embedding.embed` does.
    """
    kinds = [(pooling, layer) for layer in layers for pooling in (LAST, MEAN)]
    folder = cache / f"layers-{'-'.join(map(str, layers))}-{fingerprint(llm)}"
    of_layers = partial(compute, layers)
    states = embedding.stored(llm, texts, batch_size, of_layers, folder)  # (N, kinds, d)
    return dict(zip(kinds, states.movedim(1, 0).numpy(), strict=True))


@torch.inference_mode()
def compute(
    layers: Sequence[float], llm: LLM, tokens: Sequence[list[int]], batch_size: int, bar: tqdm
) -> torch.Tensor:
    """States of token lists, (N, 2 len(layers), d) float32: of each layer last token, then mean."""
    decoder = llm.model.get_decoder()
    width = llm.model.config.get_text_config().hidden_size
    vectors = torch.empty(len(tokens), 2 * len(layers), width)
    for batch in embedding.batches(tokens, batch_size, llm):
        states = decoder(input_ids=batch.ids, use_cache=False, output_hidden_states=True)
        rows = torch.arange(len(batch.rows), device=llm.device)
        places = torch.arange(batch.ids.shape[1], device=llm.device)
        real = places < batch.lengths[:, None]  # (R, width)
        for number, layer in enumerate(layers):
            depth = round(layer * (len(states.hidden_states) - 1))
            state = states.hidden_states[depth][rows].float()  # (R, width, d)
            mean = (state * real[:, :, None]).sum(1) / batch.lengths[:, None]
            vectors[batch.rows, 2 * number] = state[rows, batch.lengths - 1].cpu()
            vectors[batch.rows, 2 * number + 1] = mean.cpu()
        bar.update(len(batch.rows))
    return vectors
