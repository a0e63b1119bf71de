"""Other vectors of a text, which cost less than a pass of the whole LLM over it.

The first layers of the LLM; a small sentence encoder; the state of the tuned LLM where it has
written the text (`after_answer`), or where it is about to write (`after_prompt`): ranking by the
latter decodes nothing, and the vector of an item is the mean state before it in the training
samples whose answer it is (L2D, arXiv 2509.11524).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from bigrec_lib.files import StudyError
from bigrec_lib.method import assets, cheaper, embedding, prompts, samples

if TYPE_CHECKING:
    from bigrec_lib.method.llm import LLM
    from bigrec_lib.method.samples import Sample


# ------------------------------------------------------------------- part of the same LLM


@contextmanager
def first_layers(llm: LLM, k: int) -> Iterator[LLM]:
    """The LLM with its first k layers only, and the norm at its end.

    Raises StudyError if it has no more than k.
    """
    decoder = llm.model.get_decoder()
    name, layers = next(
        (name, part) for name, part in decoder.named_children() if isinstance(part, nn.ModuleList)
    )
    if k >= len(layers):
        raise StudyError(f"{llm.name} has {len(layers)} layers: set layers to fewer, not {k}")
    setattr(decoder, name, layers[:k])
    try:
        yield llm
    finally:
        setattr(decoder, name, layers)


def of_text(llm: LLM, text: str) -> np.ndarray:
    """The vector of one text, none from a cache, (d,) float32."""
    with tqdm(disable=True) as bar:
        return embedding.compute(llm, embedding.tokenise(llm, [text]), 1, bar)[0].float().numpy()


# -------------------------------------------------------------------- a sentence encoder


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder in Hugging Face's format whose vectors are means over tokens."""

    model: Any
    tokenizer: Any

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Vectors of length 1, (len(texts), d) float32; L2 ranks them as cosine does."""
        order = np.argsort([len(text) for text in texts], kind="stable")
        vectors = np.empty((len(texts), self.model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            inputs = self.tokenizer(
                [texts[i] for i in rows],
                padding=True,
                truncation=True,
                max_length=self.model.config.max_position_embeddings,
                return_tensors="pt",
            )
            mask = inputs["attention_mask"][..., None].float()  # (R, T, 1)
            hidden = self.model(**inputs).last_hidden_state.float()  # (R, T, d)
            means = (hidden * mask).sum(1) / mask.sum(1)
            vectors[rows] = nn.functional.normalize(means, dim=1).numpy()
        return vectors


def load_encoder(name: str) -> Encoder:
    """An encoder of `assets.ENCODERS`, or of a folder. Raises StudyError if it cannot be read."""
    from transformers import AutoModel, AutoTokenizer

    folder = assets.fetch(name) if name in assets.ENCODERS else name
    try:
        model = AutoModel.from_pretrained(folder, dtype=torch.float32)
        return Encoder(model.eval(), AutoTokenizer.from_pretrained(folder))
    except (OSError, ValueError) as error:
        raise StudyError(
            f"cannot load the encoder {name!r} ({str(error).splitlines()[0]}): give one of "
            f"{', '.join(assets.ENCODERS)}, or a folder"
        ) from None


# ------------------------------------------------------------------------ states in context


@torch.inference_mode()
def states(llm: LLM, tokens: Sequence[list[int]], places: np.ndarray, batch_size: int = 8):
    """The last hidden state at some places of each token list, (N, m, d) float32.

    places: (N, m), counted from 0.
    """
    decoder = llm.model.get_decoder()
    width = llm.model.config.get_text_config().hidden_size
    vectors = np.empty((*places.shape, width), dtype=np.float32)
    with tqdm(total=len(tokens), desc="states", unit="example") as bar:
        for batch in embedding.batches(tokens, batch_size, llm):
            hidden = decoder(input_ids=batch.ids, use_cache=False).last_hidden_state.cpu()
            index = torch.from_numpy(places[batch.rows])  # (R, m)
            vectors[batch.rows] = hidden[torch.arange(len(index))[:, None], index].float().numpy()
            bar.update(len(index))
    return vectors


def in_context(llm: LLM, pairs: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """The states of the LLM after each prompt, and after its answer, (N, d) float32 each."""
    encoded = [samples.encode(llm.tokenizer, sample) for sample in pairs]
    ends = [(len(sample.ids) - sample.learnt - 1, len(sample.ids) - 2) for sample in encoded]
    vectors = states(llm, [sample.ids[:-1].tolist() for sample in encoded], np.array(ends))
    return vectors[:, 0], vectors[:, 1]


def as_answers(llm: LLM, titles: Sequence[str]) -> np.ndarray:
    """The state of the LLM at the end of each title, written as an answer to nothing, (I, d)."""
    answers = prompts.encode_answers(llm.tokenizer, [prompts.answer(title) for title in titles])
    tokens = [answer[:-1] for answer in answers]
    return states(llm, tokens, np.array([[len(ids) - 1] for ids in tokens]), 32)[:, 0]


def means_by_target(vectors: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean state before each candidate that was a target: candidates (m,), vectors (m, d).

    vectors: (n, d) states after the prompts of training samples, targets: (n,) their candidates.
    """
    candidates, row = np.unique(targets, return_inverse=True)
    sums = np.zeros((len(candidates), vectors.shape[1]))
    np.add.at(sums, row, vectors)
    return candidates, (sums / np.bincount(row)[:, None]).astype(np.float32)


class Partly:
    """An exact scan of the candidates that have a vector; the others come behind, in order."""

    def __init__(self, vectors: np.ndarray, known: np.ndarray, candidates: int, k: int):
        self.scan = cheaper.Scan(vectors, k)
        self.known, self.candidates, self.k = known, candidates, k

    def ground(self, text: str, vector: cheaper.Vector) -> np.ndarray:
        nearest = self.known[self.scan.nearest(vector())]
        return cheaper.filled(nearest, min(self.k, self.candidates))

    def add(self, title: str, vector: np.ndarray) -> None:
        self.known = np.append(self.known, self.candidates)
        self.candidates += 1
        self.scan.add(title, vector)

    @property
    def size(self) -> int:
        return self.scan.size + self.known.nbytes


# ----------------------------------------------------------------------------------- seconds


def seconds_each(action: Callable[[Any], object], requests: Iterable) -> np.ndarray:
    """Seconds of an action on each request, one after the other, (n,) float64.

    The first request is also done once before, untimed, to warm up.
    """
    seconds = []
    for number, request in enumerate(tqdm(list(requests), desc="timing", leave=False)):
        if not number:
            action(request)
        start = time.perf_counter()
        action(request)
        seconds.append(time.perf_counter() - start)
    return np.array(seconds)
