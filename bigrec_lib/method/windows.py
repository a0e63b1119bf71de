"""Samples as candidate numbers, for models that know no titles, and what follows from any scores.

A model is a `Scorer`: it gives every candidate a score for a history. How it computes the score is
for `baselines` and `networks`; ranks, ties and lists come about in the same way for all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from bigrec_lib.files import StudyError, atomic
from bigrec_lib.method import metrics

BLOCK = 1024  # windows scored at once, ...
SCORES = 1 << 26  # ... or fewer, for at most so many scores
ROWS = 1 << 18  # windows built or scanned at once

Scorer = Callable[[np.ndarray], np.ndarray]
"""histories (n, L) of `Windows` -> scores (n, I) float32, higher is better."""


class BaselineError(StudyError):
    """A baseline cannot be trained."""


@dataclass(frozen=True, eq=False)
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

    def take(self, rows) -> Windows:
        return Windows(
            self.users[rows],
            self.times[rows],
            self.histories[rows],
            self.targets[rows],
            self.n_items,
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all fields."""
        hasher = hashlib.sha256(f"{self.histories.shape} {self.n_items} ".encode())
        for array in (self.users, self.times, self.histories, self.targets):
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.hexdigest()


def windows(table: pa.Table, candidates: np.ndarray, length: int) -> Windows:
    """Examples as windows of the newest `length` items of their histories.

    table: columns example, user, history, target, time.
    candidates: (items,) the candidate of each item, from `prepared.candidates`.
    Raises BaselineError for an empty history.
    """
    sizes = pc.list_value_length(table["history"]).to_numpy()
    if not sizes.all():
        raise BaselineError(f"example {table['example'][int(sizes.argmin())]} has no history")
    items = pc.list_flatten(table["history"]).to_numpy()
    pad = int(candidates.max()) + 1
    ends = np.cumsum(sizes)
    histories = np.empty((len(sizes), length), dtype=np.int64)
    for rows in blocks(len(sizes), ROWS):
        positions = ends[rows, None] - length + np.arange(length)
        real = np.arange(length) >= length - sizes[rows, None]
        histories[rows] = np.where(real, candidates[items[np.maximum(positions, 0)]], pad)
    return Windows(
        users=table["user"].to_numpy(),
        times=table["time"].to_numpy(),
        histories=histories,
        targets=candidates[table["target"].to_numpy()],
        n_items=pad,
    )


def blocks(n: int, size: int) -> list[slice]:
    """The rows 0 ... n-1, `size` at a time."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def scored(samples: Windows) -> list[Windows]:
    """Windows in blocks whose scores fit into memory."""
    size = max(1, min(BLOCK, SCORES // samples.n_items))
    return [samples.take(rows) for rows in blocks(len(samples), size)]


@lru_cache(maxsize=1)
def steps(samples: Windows) -> Windows:
    """Every step "these items, then that one" inside the windows, each once a user.

    Windows of one user overlap: of equal steps the one with the longest history is kept. Its time
    is that of the sample it is taken from.
    """
    length = samples.histories.shape[1]
    parts = []
    for user_rows in tqdm(whole_users(samples.users), desc="steps", delay=2, leave=False):
        row, place = distinct_steps(samples.take(user_rows))
        parts.append(user_rows[row] * length + place)
    row, place = np.divmod(np.sort(np.concatenate(parts)), length)
    histories = np.empty((len(row), length), dtype=np.int64)
    targets = np.empty(len(row), dtype=np.int64)
    for block in blocks(len(row), ROWS):
        rows, start = samples.take(row[block]).rows, place[block, None]
        padded = np.pad(rows, ((0, 0), (length - 1, 0)), constant_values=samples.n_items)
        histories[block] = np.take_along_axis(padded, start + np.arange(length), axis=1)
        targets[block] = np.take_along_axis(rows, start + 1, axis=1)[:, 0]
    return Windows(samples.users[row], samples.times[row], histories, targets, samples.n_items)


def whole_users(users: np.ndarray) -> list[np.ndarray]:
    """The numbers of all rows, in parts of about ROWS, each with all rows of its users, in order.

    users: (n,), of each row.
    """
    by_user = np.argsort(users, kind="stable")
    starts = np.flatnonzero(np.diff(users[by_user])) + 1
    cuts = starts.searchsorted(np.arange(ROWS, len(users), ROWS))
    return np.split(by_user, starts[np.unique(cuts[cuts < len(starts)])])


def distinct_steps(samples: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Row and place of each distinct step, the longest history of equal ones, then the first."""
    rows = samples.rows
    row, place = np.nonzero(rows[:, :-1] != samples.n_items)
    shortfall = samples.histories.shape[1] - place + (rows == samples.n_items).sum(1)[row]
    order = np.argsort(shortfall.astype(np.uint16), kind="stable")
    _, user = np.unique(samples.users, return_inverse=True)
    key = (user[row] * samples.n_items + rows[row, place]) * samples.n_items + rows[row, place + 1]
    indices = order[~pd.Series(key[order]).duplicated().to_numpy()]
    return row[indices], place[indices]


def ranks(score: Scorer, samples: Windows, unseen: bool = False) -> pd.DataFrame:
    """Each target's place among the candidates: columns rank and ties, int32.

    unseen: leave out the titles of the history (`ranks_of_keys`).
    """
    parts = [ranks_of_keys(-score(block.histories), block, unseen) for block in scored(samples)]
    return pd.concat(parts, ignore_index=True)


def ranks_of_keys(keys: np.ndarray, samples: Windows, unseen: bool = False) -> pd.DataFrame:
    """`ranks` from keys (n, I), smaller is better.

    unseen: titles of the history are no candidates, except the target, which always is one.
    """
    from bigrec_lib.method import grounding  # which loads torch

    frame = grounding.counted(keys, samples.targets)
    if unseen:
        row, seen = left_out(samples)
        goal = keys[row, samples.targets[row]]
        for column, mask in (("rank", keys[row, seen] < goal), ("ties", keys[row, seen] == goal)):
            frame[column] -= np.bincount(row[mask], minlength=len(samples)).astype(np.int32)
    return frame


def left_out(samples: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (window, candidate of its history), each once, without the target."""
    real = (samples.histories != samples.n_items) & (samples.histories != samples.targets[:, None])
    row, place = np.nonzero(real)
    pairs = np.unique(np.column_stack((row, samples.histories[row, place])), axis=0)
    return pairs[:, 0], pairs[:, 1]


def valid_ndcg(score: Scorer, valid: Windows) -> float:
    """NDCG@20 on the validation windows, by which everything is chosen."""
    return float(metrics.ndcg(metrics.effective_rank(ranks(score, valid)), 20).mean())


def lists(score: Scorer, samples: Windows, k: int = 20) -> np.ndarray:
    """The first candidates of each window, (n, k) int64, best first."""
    return np.concatenate([first(-score(block.histories), k) for block in scored(samples)])


def first(keys: np.ndarray, k: int = 20) -> np.ndarray:
    """The k candidates with the smallest keys, (n, k), smallest first; of equals the lower."""
    return np.argsort(keys, axis=1, kind="stable")[:, :k]


def save_scores(score: Scorer, samples: Windows, path: Path) -> None:
    """Write the scores of all windows, (n, I) float32, for `load_scores`."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(samples), samples.n_items)}
    with atomic(path) as partial, open(partial, "wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for block in scored(samples):
            stream.write(score(block.histories).astype("<f4").tobytes())


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
