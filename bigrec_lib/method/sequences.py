"""Corpus -> time-ordered examples, their split, seeded samples, leakage checks.

docs/method.md, section 3, has the protocol. Examples live in columns, never as Python lists: the
histories of millions of examples are one array of items and one of offsets, in a pyarrow table.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bigrec_lib.method.corpus import Corpus, DataError

SPLITS = ("train", "valid", "test")
SHARES = (0.8, 0.1, 0.1)


def examples(corpus: Corpus, history: int = 10, first: str = "full") -> pa.Table:
    """Samples of every user, up to `history` items -> the next one, at every position from `first`.

    first: 'full' begins at the position that has a full history (the authors' movie rule);
        'any' begins at min(history, length - 1), so that every user with two interactions or
        more gives a sample (their games rule).
    Where the corpus comes with a split, a column `split` says which one the target is in.
    Columns: example int64 (the row number; rows are sorted by target time, then user, then
    position), user int32, history list<int32> oldest first, target int32, time int64, tied bool
    (the target has the time of the last history item, so their order is that of the file).
    Raises DataError if no user has enough interactions, or histories hold 2^31 items together.
    """
    user = corpus.interactions.user.to_numpy()
    item = corpus.interactions["item"].to_numpy()
    time = corpus.interactions.time.to_numpy()
    starts = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    lengths = np.diff(np.r_[starts, len(user)])
    position = np.arange(len(user)) - np.repeat(starts, lengths)
    begins = np.full(len(lengths), history)
    if first == "any":
        begins = np.maximum(np.minimum(history, lengths - 1), 1)
    targets = np.flatnonzero(position >= np.repeat(begins, lengths))
    if not targets.size:
        raise DataError(
            f"{corpus.name}: no user has {history + 1 if first == 'full' else 2} interactions, "
            "so there is no example: lower `history` or take more data"
        )
    targets = targets[np.argsort(time[targets], kind="stable")]
    sizes = np.minimum(position[targets], history)
    offsets = np.r_[0, np.cumsum(sizes)]
    if offsets[-1] >= 2**31:
        raise DataError(f"{corpus.name}: {offsets[-1]} history titles are too many: lower history")
    windows = np.empty((len(targets), history), dtype=item.dtype)  # right-aligned
    for place, lag in enumerate(range(history, 0, -1)):
        windows[:, place] = item[np.maximum(targets - lag, 0)]
    values = windows.reshape(-1)
    if sizes.min() < history:  # else the mask would copy all of it
        values = windows[sizes[:, None] >= np.arange(history, 0, -1)]
    table = pa.table(
        {
            "example": pa.array(np.arange(len(targets), dtype=np.int64)),
            "user": pa.array(user[targets]),
            "history": pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values),
            "target": pa.array(item[targets]),
            "time": pa.array(time[targets]),
            "tied": pa.array(time[targets] == time[targets - 1]),
        }
    )
    if "split" in corpus.interactions:
        labels = corpus.interactions.split.to_numpy()[targets]
        table = table.append_column("split", pa.array(labels))
    return table


def split(table: pa.Table) -> dict[str, pa.Table]:
    """Train, valid and test: as the examples say, or else the first 80 %, then 10 %, then 10 %.

    Examples are sorted by time, so the cut by count is one in time. Raises DataError if a part
    would be empty.
    """
    if "split" in table.column_names:
        rows = table.drop_columns("split")
        parts = {name: rows.filter(pc.equal(table["split"], name)) for name in SPLITS}
    else:
        valid_start = int(len(table) * SHARES[0])
        test_start = int(len(table) * (SHARES[0] + SHARES[1]))
        parts = {
            "train": table.slice(0, valid_start),
            "valid": table.slice(valid_start, test_start - valid_start),
            "test": table.slice(test_start),
        }
    empty = [name for name, part in parts.items() if not len(part)]
    if empty:
        raise DataError(f"{len(table)} examples are too few to split: {', '.join(empty)} is empty")
    return parts


def sample(table: pa.Table, n: int, seed: int) -> pa.Table:
    """`n` rows drawn without replacement under a seed, in their old order.

    Raises DataError if there are fewer.
    """
    if n > len(table):
        raise DataError(
            f"{n} training samples are asked for, but there are {len(table)}: lower n_train"
        )
    rows = np.random.default_rng(seed).choice(len(table), size=n, replace=False)
    return table.take(pa.array(np.sort(rows)))


def drawn(table: pa.Table, n: int, per_user: int, seed: int) -> pa.Table:
    """Up to `n` rows drawn under a seed from as many users as possible, at most `per_user` of each.

    No user is drawn twice before every user was drawn once, and so on. Rows keep their old order;
    a column `draw` int32 has the place of each in the drawing, so the first m of it are what a
    drawing of m would give.
    """
    user = table["user"].to_numpy()
    chance = np.random.default_rng(seed).random(len(table))
    user_order = np.lexsort((chance, user))
    is_first = np.r_[True, np.diff(user[user_order]) != 0]
    start = np.flatnonzero(is_first)[is_first.cumsum() - 1]
    turn = np.empty(len(table), dtype=np.int64)
    turn[user_order] = np.arange(len(table)) - start
    order = np.lexsort((chance, turn))
    order = order[turn[order] < per_user][:n]
    places = np.argsort(order)
    return table.take(pa.array(order[places])).append_column(
        "draw", pa.array(places.astype(np.int32))
    )


def first_users(table: pa.Table | pd.DataFrame, n: int) -> np.ndarray:
    """Rows (m,) of one example each of the first `n` users of a drawing (`drawn`), in its order.

    These are shown wherever examples are picked before anything is known of them.
    """
    order = np.argsort(table["draw"].to_numpy())
    _, places = np.unique(table["user"].to_numpy()[order], return_index=True)
    return order[np.sort(places)[:n]]


def strangers(users: np.ndarray, seed: int) -> np.ndarray:
    """For each example another one, of another user, (n,) int64; each serves once.

    users: (n,). Where one user has more than half of the examples, some stay among that user.
    """
    user_order = np.lexsort((np.random.default_rng(seed).random(len(users)), users))
    shift = np.unique(users, return_counts=True)[1].max()
    others = np.empty(len(users), dtype=np.int64)
    others[user_order] = np.roll(user_order, shift)
    return others


def check(parts: dict[str, pa.Table], corpus: Corpus, n_checked: int = 200) -> None:
    """Check that targets are in the catalogue, and splits are disjoint and in time order.

    For `n_checked` examples of each split, the history must be what the user did just before the
    target. A split that came with the corpus need not be in time order.
    Raises DataError that names the split.
    """
    labelled = "split" in corpus.interactions
    latest = None
    for name, part in parts.items():
        target = part["target"].to_numpy()
        if target.min() < 0 or target.max() >= len(corpus.items):
            raise DataError(f"{name}: a target is not in the catalogue of {len(corpus.items)}")
        time = part["time"].to_numpy()
        if not labelled and latest is not None and time.min() < latest:
            raise DataError(f"{name}: an example is older than the split before it")
        latest = time.max()
        rows = np.unique(np.linspace(0, len(part) - 1, n_checked).astype(np.int64))
        for row in part.take(pa.array(rows)).to_pylist():
            if not follows(row, corpus.interactions):
                raise DataError(f"{name}: example {row['example']} has seen what comes after it")
    ids = np.concatenate([part["example"].to_numpy() for part in parts.values()])
    if (np.diff(np.sort(ids, kind="stable")) == 0).any():
        raise DataError("an example is in two splits")


def follows(row: dict, events: pd.DataFrame) -> bool:
    """Whether an example's history is what its user did just before an event like its target."""
    user = events.user.to_numpy()
    low, high = user.searchsorted(np.array([row["user"], row["user"] + 1], dtype=user.dtype))
    items = events["item"].to_numpy()[low:high]
    times = events.time.to_numpy()[low:high]
    size = len(row["history"])
    return any(
        place >= size and items[place - size : place].tolist() == row["history"]
        for place in np.flatnonzero((items == row["target"]) & (times == row["time"]))
    )


def train_counts(corpus: Corpus, parts: dict[str, pa.Table]) -> np.ndarray:
    """Interactions of each item in the training period, (items,) int64.

    The period is what the corpus labels so, or else all up to the last training target, without
    the targets of later splits at the same time.
    """
    events, size = corpus.interactions, len(corpus.items)
    if "split" in events:
        return np.bincount(events["item"][events.split == "train"], minlength=size)
    end = parts["train"]["time"].to_numpy().max()
    counts = np.bincount(events["item"][events.time <= end], minlength=size)
    for name in ("valid", "test"):
        targets = parts[name]["target"].to_numpy()[parts[name]["time"].to_numpy() <= end]
        counts -= np.bincount(targets, minlength=size)
    return counts


def popularity_groups(counts: np.ndarray, groups: int = 5) -> np.ndarray:
    """The group 0 ... groups-1 of each candidate, (I,), rarest first, equal in size (IFairLRS).

    Candidates with equal counts are in the order of their numbers.
    """
    place = np.empty(len(counts), dtype=np.int64)
    place[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    return place * groups // len(counts)
