"""Samples in numbers of candidates, for models that know no titles; what any score gives.

A model is a `Scorer`: it gives every candidate a score for a history. How it comes by it is for
`baselines` and `networks`; ranks, ties and lists are the same for all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bigrec_lib.files import StudyError, atomic
from bigrec_lib.method import metrics

BLOCK = 1024  # windows scored at once

Scorer = Callable[[np.ndarray], np.ndarray]
"""histories (n, L) of `Windows` -> scores (n, I) float32, higher is better."""


class BaselineError(StudyError):
    """A baseline cannot be trained."""


@dataclass(frozen=True)
class Windows:
    """Samples in numbers of candidates, in the order of their time.

    A history shorter than the window is filled up on the left with the number I, which is no
    candidate. times are those of the targets.
    """

    users: np.ndarray  # (n,) int32
    times: np.ndarray  # (n,) int64
    histories: np.ndarray  # (n, L) int64, newest last
    targets: np.ndarray  # (n,) int64
    n_items: int

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def rows(self) -> np.ndarray:
        """Histories with their targets, (n, L + 1)."""
        return np.column_stack((self.histories, self.targets))

    def take(self, chosen) -> Windows:
        return Windows(
            self.users[chosen],
            self.times[chosen],
            self.histories[chosen],
            self.targets[chosen],
            self.n_items,
        )

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        arrays = (self.users, self.times, self.histories, self.targets)
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
        return hashlib.sha256(f"{self.histories.shape} {self.n_items} ".encode() + data).hexdigest()


def windows(table: pa.Table, of_item: np.ndarray, length: int) -> Windows:
    """Examples as windows of the newest `length` items of their histories.

    table: columns example, user, history, target, time.
    of_item: (items,) the candidate of each item, from `prepared.candidates`.
    Raises BaselineError for an empty history.
    """
    sizes = pc.list_value_length(table["history"]).to_numpy()
    if not sizes.all():
        raise BaselineError(f"example {table['example'][int(sizes.argmin())]} has no history")
    values = of_item[pc.list_flatten(table["history"]).to_numpy()]
    pad = int(of_item.max()) + 1
    place = np.cumsum(sizes)[:, None] - length + np.arange(length)  # (n, L)
    real = np.arange(length) >= length - sizes[:, None]
    return Windows(
        users=table["user"].to_numpy(),
        times=table["time"].to_numpy(),
        histories=np.where(real, values[np.maximum(place, 0)], pad),
        targets=of_item[table["target"].to_numpy()],
        n_items=pad,
    )


def steps(samples: Windows) -> Windows:
    """Every step "these items, then that one" inside the windows, each once a user.

    Windows of one user overlap: of equal steps the one with the longest history is kept. Its time
    is that of the sample it is taken from.
    """
    rows, length = samples.rows, samples.histories.shape[1]
    row, at = np.nonzero(rows[:, :-1] != samples.n_items)
    size = at - (rows == samples.n_items).sum(1)[row]
    key = np.column_stack((samples.users[row], rows[row, at], rows[row, at + 1]))
    order = np.lexsort((-size, *key.T))
    new = np.r_[True, (np.diff(key[order], axis=0) != 0).any(axis=1)]
    kept = np.sort(order[new])
    row, at = row[kept], at[kept]
    padded = np.pad(rows, ((0, 0), (length - 1, 0)), constant_values=samples.n_items)
    return Windows(
        users=samples.users[row],
        times=samples.times[row],
        histories=padded[row[:, None], at[:, None] + np.arange(length)],
        targets=rows[row, at + 1],
        n_items=samples.n_items,
    )


def scores(score: Scorer, samples: Windows) -> np.ndarray:
    """Scores of all windows, (n, I) float32."""
    blocks = range(0, len(samples), BLOCK)
    return np.concatenate([score(samples.histories[at : at + BLOCK]) for at in blocks])


def ranks(score: Scorer, samples: Windows, unseen: bool = False) -> pd.DataFrame:
    """Each target's place among the candidates: columns rank and ties, int32.

    unseen: leave out the titles of the history (`ranks_of_keys`).
    """
    parts = []
    for at in range(0, len(samples), BLOCK):
        block = samples.take(slice(at, at + BLOCK))
        parts.append(ranks_of_keys(-score(block.histories), block, unseen))
    return pd.concat(parts, ignore_index=True)


def ranks_of_keys(keys: np.ndarray, samples: Windows, unseen: bool = False) -> pd.DataFrame:
    """`ranks` from keys (n, I), smaller is better.

    unseen: what stands in the history is no candidate, but for the target, which always is.
    """
    from bigrec_lib.method import grounding  # which loads torch

    frame = grounding.counted(keys, samples.targets)
    if unseen:
        row, seen = left_out(samples)
        goal = keys[row, samples.targets[row]]
        for column, gone in (("rank", keys[row, seen] < goal), ("ties", keys[row, seen] == goal)):
            frame[column] -= np.bincount(row[gone], minlength=len(samples)).astype(np.int32)
    return frame


def left_out(samples: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (window, candidate) of what stands in a history, each once, without the target."""
    real = (samples.histories != samples.n_items) & (samples.histories != samples.targets[:, None])
    row, at = np.nonzero(real)
    pairs = np.unique(np.column_stack((row, samples.histories[row, at])), axis=0)
    return pairs[:, 0], pairs[:, 1]


def valid_ndcg(score: Scorer, valid: Windows) -> float:
    """NDCG@20 by which everything is chosen."""
    return float(metrics.ndcg(metrics.effective_rank(ranks(score, valid)), 20).mean())


def lists(score: Scorer, samples: Windows, k: int = 20) -> np.ndarray:
    """The first candidates of each window, (n, k) int64, best first."""
    blocks = range(0, len(samples), BLOCK)
    return np.concatenate([first(-score(samples.histories[at : at + BLOCK]), k) for at in blocks])


def first(keys: np.ndarray, k: int = 20) -> np.ndarray:
    """The k candidates with the smallest keys, (n, k), smallest first; of equals the lower."""
    return np.argsort(keys, axis=1, kind="stable")[:, :k]


def save_scores(score: Scorer, samples: Windows, path: Path) -> None:
    """Write the scores of all windows, (n, I) float32, for `load_scores`."""
    with atomic(path) as partial, open(partial, "wb") as stream:
        np.save(stream, scores(score, samples), allow_pickle=False)


def load_scores(folder: Path, split: str) -> np.ndarray:
    """The scores that 06 kept of the model `folder` is named after, (n, I) float32, memory-mapped.

    Raises BaselineError if it kept none.
    """
    path = folder / f"{split}.npy"
    if not path.exists():
        raise BaselineError(
            f"no scores of {folder.name} in {folder.parent}: name it in `models` and in "
            "`collaborative` of 06_train_baselines"
        )
    return np.load(path, mmap_mode="r", allow_pickle=False)
