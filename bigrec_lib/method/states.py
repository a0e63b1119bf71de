"""Vectors of texts from several layers of an LLM at once: the last token's state, or the mean.

`embedding` has the published kind, last token and last layer; this is for comparing others with it.
Padding and batches are as there, so that the published kind comes out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from bigrec_lib.method import embedding
from bigrec_lib.method.embedding import EmbeddingError

if TYPE_CHECKING:
    from bigrec_lib.method.llm import LLM

LAST, MEAN = "last token", "mean"


def pooled(
    llm: LLM, texts: Sequence[str], batch_size: int, layers: Sequence[float], path: Path
) -> dict[tuple[str, float], np.ndarray]:
    """(LAST or MEAN, layer) -> vectors (len(texts), d) float32; kept in the file `path`.

    layers: shares of the model's depth, 1.0 for the last one, whose states are normalised. texts:
    all different. Raises EmbeddingError as `embedding.embed` does.
    """
    kinds = [(pooling, layer) for layer in layers for pooling in (LAST, MEAN)]
    if not path.exists():
        states = compute(llm, embedding.tokenise(llm, list(texts)), batch_size, layers)
        bad = [number for number in range(len(texts)) if not np.isfinite(states[:, number]).all()]
        if bad:
            raise EmbeddingError(
                f"the embedding of {texts[bad[0]]!r} is not finite: try dtype float32"
            )
        embedding.save(path, states=states)
    return dict(zip(kinds, embedding.load(path)["states"], strict=True))


@torch.inference_mode()
def compute(
    llm: LLM, tokens: Sequence[list[int]], batch_size: int, layers: Sequence[float]
) -> np.ndarray:
    """States of token lists, (2 len(layers), N, d) float32: of each layer last token, then mean."""
    decoder = llm.model.get_decoder()
    width = llm.model.config.get_text_config().hidden_size
    vectors = np.empty((2 * len(layers), len(tokens), width), dtype=np.float32)
    with tqdm(total=len(tokens), desc="states", unit="text") as bar:
        for batch in embedding.batches(tokens, batch_size, llm.device):
            states = decoder(input_ids=batch.ids, use_cache=False, output_hidden_states=True)
            rows = torch.arange(len(batch.rows), device=llm.device)
            places = torch.arange(batch.ids.shape[1], device=llm.device)
            real = places < batch.lengths[:, None]  # (R, width)
            for number, layer in enumerate(layers):
                depth = round(layer * (len(states.hidden_states) - 1))
                state = states.hidden_states[depth][rows].float()  # (R, width, d)
                mean = (state * real[:, :, None]).sum(1) / batch.lengths[:, None]
                vectors[2 * number, batch.rows] = state[rows, batch.lengths - 1].cpu().numpy()
                vectors[2 * number + 1, batch.rows] = mean.cpu().numpy()
            bar.update(len(batch.rows))
    return vectors
