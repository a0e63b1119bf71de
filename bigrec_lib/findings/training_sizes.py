"""NDCG@20 over training sizes: on the sizes, seeds and examples that all have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bigrec_lib.findings import evidence, significance
from bigrec_lib.findings.methods import CONVENTIONAL


def slope_weights(x: np.ndarray) -> np.ndarray:
    """Weights (m,) whose sum with values at x is the least-squares slope."""
    centred = x - x.mean()
    return centred / (centred**2).sum()


class Sized:
    """Values over training sizes x = log2(size), and who they are of."""

    x: np.ndarray  # (m,)
    users: np.ndarray  # (n,)

    def slope(self, values: np.ndarray) -> np.ndarray:
        """Each cell's slope per doubling, (S, n), from values (m, S, n)."""
        return np.tensordot(slope_weights(self.x), values, 1)

    def parts(self, values: np.ndarray) -> np.ndarray:
        """Slope and level of each cell, (2, S, n)."""
        return np.stack([self.slope(values), values.mean(0)])


@dataclass(frozen=True)
class Ladder(Sized):
    """NDCG@20 over training sizes: values (m, S, n); gap says what is missing, '' for nothing."""

    x: np.ndarray
    values: np.ndarray
    users: np.ndarray
    gap: str = ""


@dataclass(frozen=True)
class Ladders(Sized):
    """NDCG@20 of BIGRec and of the conventional models' mean, on the same sizes, seeds, examples.

    bigrec, conventional: (m, S, n); gap says what is missing, '' for nothing.
    """

    x: np.ndarray
    bigrec: np.ndarray
    conventional: np.ndarray
    users: np.ndarray
    gap: str = ""


NOBODY = np.empty(0)


def ladder(group: pd.DataFrame, methods: list[str]) -> Ladder:
    """NDCG@20 over training sizes, mean of `methods`: sizes, seeds and examples that all have.

    group: ranks of one data set.
    """
    rows = enough_seeds(mean_of_methods(group[group.n_train > 0], methods))
    if rows.n_train.nunique() < 2:
        gap = f"two training sizes or more of {', '.join(methods)}"
        return Ladder(NOBODY, np.empty((0, 0, 0)), NOBODY, gap)
    tables = significance.crossed(rows, "ndcg", by="n_train")
    sizes = sorted(tables)
    if not tables[sizes[0]].size or not sum(table.to_numpy().sum() for table in tables.values()):
        gap = f"a seed in common to the training sizes of {', '.join(methods)}, and a hit"
        return Ladder(NOBODY, np.empty((0, 0, 0)), NOBODY, gap)
    values = np.stack([tables[size].to_numpy() for size in sizes])
    return Ladder(np.log2(sizes), values, significance.users_of(tables[sizes[0]]))


def mean_of_methods(group: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """Mean NDCG@20 of methods where all have it: columns n_train, seed, user, example, ndcg."""
    cells = group[group.method.isin(methods)].groupby(
        ["n_train", "seed", "user", "example"], as_index=False
    )
    mean = cells.agg(ndcg=("ndcg", "mean"), methods=("method", "nunique"))
    return mean[mean.methods == len(methods)].drop(columns="methods")


def enough_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without sizes that have fewer seeds than at least three other sizes.

    Only seeds common to all sizes count, so such a size would cost the others theirs.
    """
    seeds = rows.groupby("n_train").seed.nunique()
    return rows[rows.n_train.isin(seeds.index[seeds >= seeds.nlargest(3).min()])]


def ladders(group: pd.DataFrame, setting: str = "") -> Ladders:
    """BIGRec over training sizes beside the mean of the models that were trained at every size.

    group: ranks of one data set. setting: of BIGRec's adapters; MATCHED has the same number of
    steps at every size, and at the main size is the study's own.
    """
    plain = evidence.plain_runs(group[group.n_train > 0])
    own = plain[plain.method == "bigrec"]
    if setting:
        group = evidence.by_own_llm(group)
        tuned = group[(group.setting == setting) & (group.tuned_on == "") & ~group.constrained]
        own = pd.concat(
            [own[own.n_train == evidence.main_size(own)], tuned[tuned.method == "bigrec"]]
        )
    runs = own[["n_train", "seed"]].drop_duplicates()
    models = plain[plain.method.isin(CONVENTIONAL)].merge(runs, on=["n_train", "seed"])
    sizes = models.groupby("method").n_train.nunique()
    trained = list(sizes.index[sizes == models.n_train.nunique()])
    theirs = mean_of_methods(models, trained)
    shared = theirs[["n_train", "seed"]].drop_duplicates()
    both = pd.concat([own.assign(of="bigrec"), theirs.assign(of="conventional")])
    rows = enough_seeds(both.merge(shared, on=["n_train", "seed"]))
    if rows.n_train.nunique() < 2:
        words = f" of the setting {setting}" if setting else ""
        gap = f"BIGRec{words} and conventional models at two training sizes with the same seeds"
        return Ladders(NOBODY, NOBODY, NOBODY, NOBODY, gap)
    rows = rows.assign(cell=list(zip(rows.of, rows.n_train, strict=True)))
    tables = significance.crossed(rows, "ndcg", by="cell")
    steps = sorted(rows.n_train.unique())
    bigrec, conventional = (
        np.stack([tables[of, size].to_numpy() for size in steps])
        for of in ("bigrec", "conventional")
    )
    users = significance.users_of(tables["bigrec", steps[0]])
    if not (bigrec.sum() > 0 and conventional.sum() > 0):
        gap = (
            "a seed in common to the training sizes, and hits of BIGRec and of conventional models"
        )
        return Ladders(NOBODY, NOBODY, NOBODY, NOBODY, gap)
    return Ladders(np.log2(steps), bigrec, conventional, users)
