"""Vectors of texts from several layers of an LLM at once: the last token's state, or the mean.

`embedding` has the published kind, last token and last layer; this is for comparing others with it.
Padding and batches are as there, so that this kind comes out the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from bigrec_lib.method import embedding
from bigrec_lib.method.embedding import WIDTH, EmbeddingError

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
        found = compute(llm, embedding.tokenise(llm, list(texts)), batch_size, layers)
        bad = [number for number in range(len(texts)) if not np.isfinite(found[:, number]).all()]
        if bad:
            raise EmbeddingError(
                f"the embedding of {texts[bad[0]]!r} is not finite: try dtype float32"
            )
        embedding.save(path, states=found)
    return dict(zip(kinds, embedding.load(path)["states"], strict=True))


@torch.inference_mode()
def compute(
    llm: LLM, tokens: Sequence[list[int]], batch_size: int, layers: Sequence[float]
) -> np.ndarray:
    """States of token lists, (2 len(layers), N, d) float32: of each layer last token, then mean."""
    decoder = llm.model.get_decoder()
    order = sorted(range(len(tokens)), key=lambda number: len(tokens[number]))
    found: np.ndarray | None = None
    with tqdm(total=len(order), desc="states", unit="text") as bar:
        while bar.n < len(order):
            width = -(-len(tokens[order[bar.n]]) // WIDTH) * WIDTH
            part = [n for n in order[bar.n : bar.n + batch_size] if len(tokens[n]) <= width]
            rows = [tokens[n] + tokens[n][-1:] * (width - len(tokens[n])) for n in part]
            rows += rows[-1:] * (batch_size - len(part))
            ids = torch.tensor(rows, device=llm.device)  # (batch_size, width)
            states = decoder(input_ids=ids, use_cache=False, output_hidden_states=True)
            ends = torch.tensor([len(tokens[n]) for n in part], device=llm.device)
            real = torch.arange(width, device=llm.device) < ends[:, None]  # (b, width)
            vectors = []
            for layer in layers:
                depth = round(layer * (len(states.hidden_states) - 1))
                state = states.hidden_states[depth][: len(part)].float()  # (b, width, d)
                vectors.append(state[torch.arange(len(part), device=llm.device), ends - 1])
                vectors.append((state * real[:, :, None]).sum(1) / ends[:, None])
            block = torch.stack(vectors).cpu().numpy()  # (2 len(layers), b, d)
            if found is None:
                found = np.empty((len(block), len(order), block.shape[2]), dtype=np.float32)
            found[:, part] = block
            bar.update(len(part))
    return found if found is not None else np.empty((2 * len(layers), 0, 0), np.float32)
