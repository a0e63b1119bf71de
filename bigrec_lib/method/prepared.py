"""What 01_prepare_data wrote, opened for whoever works with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bigrec_lib.method.prompts import Domain


@dataclass(frozen=True)
class Prepared:
    """A prepared data set.

    items: one row per item, columns item, item_id, title, raw_title, title_group, train_count.
    titles: the title of every item, (items,). words: what its prompts say.
    candidates: the distinct titles, (I,): items with the same title have the same embedding, so
        they are one candidate. of_item: the candidate of each item, (items,) int64.
    """

    folder: Path
    items: pd.DataFrame
    titles: list[str]
    words: Domain
    candidates: list[str]
    of_item: np.ndarray

    def examples(self, split: str, n: int = 0) -> pa.Table:
        """The examples of a split, or the first `n` of its drawing (`sequences.drawn`).

        Columns example, user, history, target, time, tied; of valid and test also draw.
        """
        filters = [("draw", "<", n)] if n else None
        return pq.read_table(self.folder / "examples" / f"{split}.parquet", filters=filters)

    @property
    def counts(self) -> np.ndarray:
        """Training interactions of each candidate, summed over its items, (I,) int64."""
        return np.bincount(self.of_item, weights=self.items.train_count).astype(np.int64)


def read(folder: Path) -> Prepared:
    """Open the data set that 01_prepare_data wrote into `folder`."""
    items = pd.read_parquet(folder / "items.parquet")
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    titles, of_item = candidates(items)
    words = Domain(meta["one"], meta["many"], meta["consumed"])
    return Prepared(folder, items, items.title.tolist(), words, titles, of_item)


def candidates(items: pd.DataFrame) -> tuple[list[str], np.ndarray]:
    """The distinct titles of a catalogue, and which of them each item has, (items,) int64.

    items: columns title, title_group (equal for namesakes). Policy `title`: namesakes are one
    candidate (docs/method.md, quirk 6).
    """
    _, first, of_item = np.unique(items.title_group, return_index=True, return_inverse=True)
    return items.title.iloc[first].tolist(), of_item
