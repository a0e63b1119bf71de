"""Windows made on the spot, and settings of networks, for the tests of baselines."""

import numpy as np
import pyarrow as pa

from bigrec_lib.method import windows
from bigrec_lib.method.networks import Settings
from bigrec_lib.method.windows import Windows
from bigrec_lib.study.parameters import TrainBaselines

PAD = 9  # of nine candidates


def windows_of(rows, users=None, n_items=PAD, length=3, times=None) -> Windows:
    """Windows from lists of items, the last of which is the target."""
    users = range(len(rows)) if users is None else users
    times = range(len(rows)) if times is None else times
    table = pa.table(
        {
            "example": pa.array(range(len(rows)), pa.int64()),
            "user": pa.array(users, pa.int32()),
            "history": pa.array([row[:-1] for row in rows], pa.list_(pa.int32())),
            "target": pa.array([row[-1] for row in rows], pa.int32()),
            "time": pa.array(times, pa.int64()),
        }
    )
    return windows.windows(table, np.arange(n_items), length)


def markov_corpus(n, sure=0.8, n_items=20, length=5, seed=0):
    """Windows of a chain whose items are followed by one fixed item with probability `sure`.

    The best attainable HR@1 is sure + (1 - sure) / n_items.
    """
    rng = np.random.default_rng(seed)
    successor = np.random.default_rng(99).permutation(n_items)
    rows = rng.integers(n_items, size=(n, length + 1))
    for at in range(length):
        rows[:, at + 1] = np.where(rng.random(n) < sure, successor[rows[:, at]], rows[:, at + 1])
    return Windows(np.arange(n), np.arange(n), rows[:, :-1], rows[:, -1], n_items)


def settings_with(*some, **changes) -> Settings:
    """Settings of a network: the study's defaults, but for what is given."""
    p = TrainBaselines()
    default = {
        "learning_rate": p.learning_rates[0],
        "weight_decay": p.weight_decays[0],
        "dropout": p.dropouts[0],
        "width": p.widths[0],
        "epochs": p.epochs,
        "patience": p.patience,
        "batch_size": p.batch_size,
        "seed": p.seed,
    }
    return Settings(**{**default, **dict(zip(default, some, strict=False)), **changes})


def films_corpus(users, seed, n_items=120, length=10, per_user=20) -> Windows:
    """Windows of made-up users who, like those of MovieLens, never see a film twice.

    Films have genres, and a few are seen by most. A user likes two genres; the next film is a
    sequel of the last one, one of a genre the user likes, or just a popular one.
    """
    world = np.random.default_rng(7)
    genre = world.integers(8, size=n_items)
    sequel = world.permutation(n_items)
    fame = 1 / (1 + world.permutation(n_items)) ** 0.7
    rng = np.random.default_rng(seed)
    rows = np.empty((users, per_user), dtype=np.int64)
    for row in rows:
        liked = rng.choice(8, size=2, replace=False)
        weight = fame * np.where(np.isin(genre, liked), 10.0, 1.0)
        for at in range(per_user):
            chance = weight / weight.sum()
            if at:
                chance = 0.75 * chance + 0.25 * (np.arange(n_items) == sequel[row[at - 1]])
                chance[row[:at]] = 0
            row[at] = rng.choice(n_items, p=chance / chance.sum())
            weight[row[at]] = 0
    starts = np.arange(per_user - length)
    windows_ = rows[:, starts[:, None] + np.arange(length + 1)].reshape(-1, length + 1)
    user = np.repeat(np.arange(users), len(starts))
    return Windows(user, np.arange(len(user)), windows_[:, :-1], windows_[:, -1], n_items)
