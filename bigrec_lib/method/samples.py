"""Prompt + answer: what the LLM reads and learns to write, as text, as tokens and in batches.

Every token id array is int64. docs/method.md, section 3, has the prompt, section 4 the loss.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bigrec_lib.files import StudyError
from bigrec_lib.method import prepared, prompts, sequences

if TYPE_CHECKING:
    import pandas as pd

    from bigrec_lib.method.prompts import Domain

BUCKET = 16  # padded lengths are multiples of this


@dataclass(frozen=True)
class Sample:
    """What the LLM reads and what it should write; the end-of-sequence token is added later."""

    prompt: str
    answer: str


def training(
    folders: Sequence[Path], tokenizer, max_tokens: int, n: int, seed: int, shuffled: bool = False
) -> list[Sample]:
    """`n` training examples of each prepared data set, drawn under `seed`, as samples.

    shuffled: each history gets the target of another user, so that an LLM can learn from the
    samples what answers look like, and which are frequent, but nothing about a user.
    Raises StudyError for a prompt that is too long even with one title.
    """
    result = []
    for folder in folders:
        data = prepared.read(folder)
        examples = sequences.sample(data.examples("train"), n, seed).to_pandas()
        if shuffled:
            others = sequences.strangers(examples.user.to_numpy(), seed)
            examples["target"] = examples.target.to_numpy()[others]
        result += samples(examples, data.titles, data.words, tokenizer, max_tokens)
    return result


def validation(folders: Sequence[Path], tokenizer, max_tokens: int, n: int) -> list[Sample]:
    """The first `n` validation examples of each prepared data set's drawing, as samples.

    Raises StudyError for a prompt that is too long even with one title.
    """
    result = []
    for folder in folders:
        data = prepared.read(folder)
        examples = data.examples("valid", n).to_pandas()
        result += samples(examples, data.titles, data.words, tokenizer, max_tokens)
    return result


def samples(
    examples: pd.DataFrame, titles: Sequence[str], words: Domain, tokenizer, max_tokens: int
) -> list[Sample]:
    """Examples as prompts of at most `max_tokens` tokens, with their answers.

    examples: columns history, target, numbers of items in `titles`. words: what the prompts say.
    Raises StudyError for a prompt that is too long even with one title.
    """
    return [
        Sample(
            prompts.fitted_prompt(tokenizer, [titles[i] for i in history], words, max_tokens),
            prompts.answer(titles[target]),
        )
        for history, target in zip(examples.history, examples.target, strict=True)
    ]


def instructions(path: Path, tokenizer, max_tokens: int) -> list[Sample]:
    """The samples of an alpaca-format file: a JSON list of {instruction, input, output}.

    Those longer than `max_tokens` are left out, since cutting one would cut its answer.
    Raises StudyError if the file is not of that format, or if nothing is left.
    """
    try:
        rows = [
            Sample(prompts.alpaca(row["instruction"], row.get("input", "")), row["output"])
            for row in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StudyError(
            f"{path} is not a readable JSON list of objects with `instruction`, `input` and "
            f"`output` ({type(error).__name__}: {error})"
        ) from None
    short_rows = [sample for sample in rows if len(encode(tokenizer, sample).ids) <= max_tokens]
    if not short_rows:
        raise StudyError(f"{path} has no sample of at most {max_tokens} tokens: raise max_tokens")
    return short_rows


@dataclass(frozen=True)
class Encoded:
    """Token ids of a sample (n,), and how many of the last ones are learnt."""

    ids: np.ndarray
    learnt: int


def encode(tokenizer, sample: Sample, learn_prompt: bool = False) -> Encoded:
    """The prompt's tokens as generation reads them, and the answer's as it is to write them."""
    (answer,) = prompts.encode_answers(tokenizer, [sample.answer])
    ids = np.array(tokenizer(sample.prompt)["input_ids"] + answer)
    return Encoded(ids, len(ids) - 1 if learn_prompt else len(answer))


def shared_tokens(encoded: Sequence[Encoded]) -> int:
    """How many tokens all samples begin with, leaving each at least one before the learnt ones."""
    limit = min(len(sample.ids) - sample.learnt - 1 for sample in encoded)
    matches = np.ones(limit + 1, dtype=bool)
    matches[limit] = False
    for sample in encoded:
        matches[:limit] &= sample.ids[:limit] == encoded[0].ids[:limit]
    return int(matches.argmin())


def batches(lengths: np.ndarray, size: int, seed: Sequence[int] | None = None) -> list[np.ndarray]:
    """Sample numbers in batches of similar length.

    lengths: (n,) tokens of each sample. Under a seed, the order and the composition of the batches
    are random; without one, they follow the lengths alone.
    """
    rng = np.random.default_rng(seed)
    order = np.arange(len(lengths)) if seed is None else rng.permutation(len(lengths))
    order = order[np.argsort(-(-lengths[order] // BUCKET), kind="stable")]
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    if seed is not None:
        rng.shuffle(parts)
    return parts
