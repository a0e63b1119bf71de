"""Vectors of texts: the last token's last hidden state, cached by content.

The authors embed with the base LLM, without the adapter (docs/method.md, section 4); load the model
that way to do the same.

Texts are padded on the right. Attention is causal, so the last token of a text never sees the
padding, and positions count from 0: the other texts of a batch make no difference. Batches have a
fixed number of rows, and their width follows from the text's own length, so that even the rounding
is the same whatever else is embedded, in whatever order, and whatever the cache holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from bigrec_lib.files import StudyError, atomic
from bigrec_lib.method.llm import fingerprint, positions

if TYPE_CHECKING:
    from bigrec_lib.method.llm import LLM

    Compute = Callable[[LLM, Sequence[list[int]], int, tqdm], torch.Tensor]

WIDTH = 8  # batches are as wide as a multiple of this many tokens
PART = 2048  # texts after which the cache is written, so that a killed run keeps them
POOLING = "last-token"  # opens the cache's folder names: vectors of another kind lie elsewhere


class EmbeddingError(StudyError):
    """Texts cannot be embedded, or their cache cannot be read."""


def embed(
    llm: LLM, texts: Sequence[str], batch_size: int = 32, cache: Path | None = None
) -> np.ndarray:
    """Embed texts with the model as it is loaded; equal texts get equal vectors.

    A text without a token is embedded as the end-of-sequence token alone. `cache` is a folder:
    what it holds for this very model is read, what is missing is computed and added.
    Returns (len(texts), d) float32. Raises EmbeddingError for a text the model has no room for,
    vectors that are not finite, or a cache that is damaged.
    """
    if not texts:
        return np.empty((0, llm.model.config.hidden_size), dtype=np.float32)
    folder = cache / f"{POOLING}-{fingerprint(llm)}" if cache else None
    return stored(llm, texts, batch_size, compute, folder).float().numpy()


def stored(
    llm: LLM, texts: Sequence[str], batch_size: int, compute: Compute, folder: Path | None
) -> torch.Tensor:
    """What `compute` makes of texts, one row each: read from a folder, or computed and added there.

    Raises EmbeddingError as `embed` does.
    """
    vectors = read(folder) if folder else {}
    keys = [hashlib.sha256(text.encode()).digest() for text in texts]
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
    for part in compute_missing(llm, missing, batch_size, compute):
        vectors |= part
        if folder:
            write(part, folder)
    return torch.stack([vectors[key] for key in keys])


def compute_missing(
    llm: LLM, texts: dict[bytes, str], batch_size: int, compute: Compute
) -> Iterator[dict[bytes, torch.Tensor]]:
    """What `compute` makes of texts, shortest first: key -> its row, at most PART at a time."""
    tokens = tokenise(llm, list(texts.values()))
    order = sorted(zip(texts, tokens, strict=True), key=lambda pair: len(pair[1]))
    with tqdm(total=len(order), desc="embedding", unit="text", disable=not order) as bar:
        for start in range(0, len(order), PART):
            part = order[start : start + PART]
            vectors = compute(llm, [ids for _, ids in part], batch_size, bar)
            for (key, _), vector in zip(part, vectors, strict=True):
                if not torch.isfinite(vector).all():
                    raise EmbeddingError(
                        f"the embedding of {texts[key]!r} is not finite: try dtype float32"
                    )
            yield {key: vector for (key, _), vector in zip(part, vectors, strict=True)}


def tokenise(llm: LLM, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, at least one. Raises EmbeddingError for a text that is too long."""
    if not texts:
        return []
    room = positions(llm.model)
    tokens = llm.tokenizer(texts)["input_ids"]
    for text, ids in zip(texts, tokens, strict=True):
        if len(ids) > room:
            raise EmbeddingError(
                f"the text {text!r:.60}… has {len(ids)} tokens, and {llm.name} reads {room} at "
                "most: lower max_title of 01_prepare_data"
            )
    return [ids or [llm.tokenizer.eos_token_id] for ids in tokens]


@dataclass(frozen=True)
class Batch:
    """Some token lists of nearly the same length, ready for the model.

    rows: (R,) which lists they are. lengths: (R,) how many tokens they have. ids: (batch_size,
    width) int64, each list padded on the right; rows after the R-th repeat it.
    """

    rows: np.ndarray
    lengths: torch.Tensor
    ids: torch.Tensor


def batches(tokens: Sequence[list[int]], batch_size: int, llm: LLM) -> Iterator[Batch]:
    """All token lists, shortest first."""
    order = sorted(range(len(tokens)), key=lambda row: len(tokens[row]))
    start = 0
    while start < len(order):
        width = int(min(-(-len(tokens[order[start]]) // WIDTH) * WIDTH, positions(llm.model)))
        rows = [row for row in order[start : start + batch_size] if len(tokens[row]) <= width]
        padded = [tokens[row] + tokens[row][-1:] * (width - len(tokens[row])) for row in rows]
        padded += padded[-1:] * (batch_size - len(rows))
        lengths = torch.tensor([len(tokens[row]) for row in rows], device=llm.device)
        yield Batch(np.array(rows), lengths, torch.tensor(padded, device=llm.device))
        start += len(rows)


@torch.inference_mode()
def compute(llm: LLM, tokens: Sequence[list[int]], batch_size: int, bar: tqdm) -> torch.Tensor:
    """Last token's last hidden state of each token list, (N, d) in the model's dtype."""
    decoder = llm.model.get_decoder()
    rows, vectors = [], []
    for batch in batches(tokens, batch_size, llm):
        states = decoder(input_ids=batch.ids, use_cache=False).last_hidden_state
        rows.append(batch.rows)
        vectors.append(states[torch.arange(len(batch.rows)), batch.lengths - 1].cpu())
        bar.update(len(batch.rows))
    return torch.cat(vectors)[np.argsort(np.concatenate(rows))]


def read(folder: Path) -> dict[bytes, torch.Tensor]:
    """SHA-256 of a text -> its row, from every part in a cache folder."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    vectors: dict[bytes, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            part = load_file(path)
        except SafetensorError as error:
            raise EmbeddingError(f"{path} is damaged ({error}): delete it") from None
        keys = part["texts"].numpy()  # (N, 32) uint8
        vectors |= {
            key.tobytes(): vector for key, vector in zip(keys, part["vectors"], strict=True)
        }
    return vectors


def write(vectors: dict[bytes, torch.Tensor], folder: Path) -> None:
    """Add one part, SHA-256 of a text -> its row, to a cache folder; its texts name it."""
    from safetensors.torch import save_file

    keys = b"".join(vectors)
    name = hashlib.sha256(keys).hexdigest()[:32]
    texts = torch.from_numpy(np.frombuffer(keys, dtype=np.uint8).reshape(-1, 32).copy())
    with atomic(folder / f"{name}.safetensors") as partial:
        save_file({"texts": texts, "vectors": torch.stack(list(vectors.values()))}, partial)


def save(path: Path, **arrays: np.ndarray) -> None:
    """Write named arrays as safetensors, atomically."""
    from safetensors.numpy import save_file

    with atomic(path) as partial:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, partial)


def load(path: Path) -> dict[str, np.ndarray]:
    """Named arrays from safetensors. Raises EmbeddingError if the file is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.exists():
        raise EmbeddingError(f"{path} is missing: run 04_ground_to_items with the same parameters")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise EmbeddingError(f"{path} is damaged ({error}): run 04_ground_to_items again") from None
