"""P5-style: BIGRec's LLM, samples and prompt, with a number in place of every title.

The numbers follow the order of training (Hua et al., "How to index item IDs for recommendation
foundation models", SIGIR-AP 2023); beam search inside a tree of all numbers gives the candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bigrec_lib.method import beams, llm, portions, prompts, samples, tuning
from bigrec_lib.method.windows import BaselineError, Windows

if TYPE_CHECKING:
    import pyarrow as pa

    from bigrec_lib.method.llm import LLM
    from bigrec_lib.method.prepared import Prepared
    from bigrec_lib.method.samples import Sample

BEAMS = 20  # candidates of an example; the rest of the catalogue ties for the last place
BATCH = 32  # prompts that are searched together
ADAPTER, WRITTEN = "p5-adapter", "p5-beams"  # subfolders of the work


@dataclass(frozen=True)
class P5:
    """What P5 gave. example: its first training sample. keys: split -> (n, I) float32, smaller is
    better. seconds: of the tuning."""

    example: Sample
    keys: dict[str, np.ndarray]
    seconds: float


def p5(
    base: LLM,
    data: Prepared,
    examples: Mapping[str, pa.Table],
    windows: Windows,
    settings: tuning.Tuning,
    max_tokens: int,
    folder: Path,
) -> P5:
    """Tune the LLM on identifiers and let it write them for the validation and test examples.

    examples: train, valid and test; windows: the training examples as numbers. Work that `folder`
    holds is not repeated. The adapter stays on `base`.
    """
    names = identifiers(windows)
    item_names = [names[candidate] for candidate in data.of_item]
    splits = {
        split: samples.samples(
            table.to_pandas(), item_names, data.words, base.tokenizer, max_tokens
        )
        for split, table in examples.items()
    }
    log = tuning.tune(base, splits["train"], splits["valid"], settings, folder / ADAPTER)
    tuned = llm.LLM(base.name, llm.with_adapter(base.model, folder / ADAPTER), base.tokenizer)
    trie = beams.Trie(beams.answer_tokens(base.tokenizer, names))
    search = beams.Search(trie.depth, BEAMS, BATCH)
    keys = {}
    for split in ("valid", "test"):
        numbers = examples[split]["example"].to_pylist()
        prompt_texts = dict(zip(numbers, [sample.prompt for sample in splits[split]], strict=True))
        path = folder / WRITTEN / f"{split}.parquet"
        portions.generate_file(tuned, prompt_texts, path, search, trie)
        keys[split] = beam_keys(pd.read_parquet(path), numbers, names)
    return P5(splits["train"][0], keys, float(log.seconds.iloc[-1]))


def identifiers(windows: Windows) -> list[str]:
    """A number for each candidate, (I,): sequential indexing, from training order only.

    User by user, in the order of their samples, each candidate not met before takes the next
    number, so that those consumed together share leading digits; candidates that are in no sample
    follow in the order of the catalogue. All numbers have the same number of digits.

    >>> users, histories = np.array([4, 2, 4]), np.array([[1], [3], [0]])
    >>> identifiers(Windows(users, np.arange(3), histories, np.array([2, 1, 1]), n_items=4))
    ['1003', '1001', '1002', '1000']
    """
    sequence = windows.rows[np.argsort(windows.users, kind="stable")].ravel()
    candidates, places = np.unique(sequence[sequence != windows.n_items], return_index=True)
    order = candidates[np.argsort(places)]
    order = np.r_[order, np.setdiff1d(np.arange(windows.n_items), order)]
    start = 10 ** max(3, len(str(windows.n_items)))
    names = np.empty(windows.n_items, dtype=np.int64)
    names[order] = start + np.arange(windows.n_items)
    return names.astype(str).tolist()


def beam_keys(
    generations: pd.DataFrame, examples: Sequence[int], names: Sequence[str]
) -> np.ndarray:
    """Keys (n, I) float32, smaller is better, from the identifiers written for each example.

    generations: columns example, beam, text, score. What is in no beam comes last, all tied.
    Raises BaselineError for text that is no identifier.
    """
    number = pd.Series(range(len(names)), index=names)
    row = pd.Series(range(len(examples)), index=examples)
    texts = generations.text.map(prompts.title_of)
    unknown = ~texts.isin(number.index)
    if unknown.any():
        raise BaselineError(
            f"{texts[unknown].iloc[0]!r} is no identifier: decode with a trie of all identifiers"
        )
    keys = np.full((len(examples), len(names)), np.inf, dtype=np.float32)
    keys[row[generations.example], number[texts]] = -generations.score
    return keys
