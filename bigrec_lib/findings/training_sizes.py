"""NDCG@20 over training sizes: on the sizes, seeds and examples that all have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bigrec_lib.findings import evidence, significance
from bigrec_lib.findings.methods import CONVENTIONAL
from bigrec_lib.study.row_keys import MATCHED


def slope_weights(x: np.ndarray) -> np.ndarray:
    """Weights (m,) whose sum with values at x is the least-squares slope."""
    centred = x - x.mean()
    return centred / (centred**2).sum()


class Sized:
    """Values over training sizes x = log2(size), and the users of their examples."""

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

    @property
    def sizes(self) -> str:
        """The smallest and the largest size, as text."""
        smallest, largest = (round(2 ** self.x[end]) for end in (0, -1))
        return f"{smallest:,} to {largest:,} samples"

    @property
    def users_hit(self) -> int:
        """How many users BIGRec, or any conventional model, hits at some size and seed: the fewer
        of the two."""
        sides = (self.bigrec, self.conventional)
        return min(len(set(self.users[(side > 0).any((0, 1))])) for side in sides)


NOBODY = np.empty(0)
STEPS, EPOCHS = "steps", "epochs"
"""What BIGRec's adapters of all sizes have as many of: steps, below the main size, or epochs."""


def as_many_steps(group: pd.DataFrame) -> pd.DataFrame:
    """BIGRec's rows of one data set by training size: below the main size of the adapters that are
    tuned for as many steps as there, from it on of the study's own."""
    ours = group[(group.method == "bigrec") & (group.n_train > 0)]
    plain, tuned = evidence.plain_runs(ours), evidence.by_own_llm(ours)
    matched = tuned[(tuned.setting == MATCHED) & (tuned.tuned_on == "") & ~tuned.constrained]
    smaller = matched.n_train.max() if len(matched) else evidence.main_size(plain) - 1
    return pd.concat([plain[plain.n_train > smaller], matched])


def curves(group: pd.DataFrame) -> pd.DataFrame:
    """Rows of BIGRec and the conventional models over training sizes, of one data set.

    Column budget: STEPS or EPOCHS of BIGRec at several sizes, else ''. Only the seeds and examples
    that BIGRec has at each of its sizes, so that points of a curve differ in nothing else.
    """
    plain = evidence.plain_runs(group[group.n_train > 0])
    own, steps = plain[plain.method == "bigrec"], as_many_steps(group)
    budgets = {EPOCHS if own.n_train.nunique() > 1 else "": own}
    budgets |= {STEPS: steps} if steps.n_train.nunique() > 1 else {}
    ours = pd.concat([enough_seeds(rows).assign(budget=name) for name, rows in budgets.items()])
    if ours.empty:
        return plain[plain.method.isin(CONVENTIONAL)].assign(budget="")
    cell = list(zip(ours.budget, ours.n_train, strict=True))
    table = next(iter(significance.crossed(ours.assign(cell=cell), "ndcg", by="cell").values()))
    theirs = plain[plain.method.isin(CONVENTIONAL) & plain.n_train.isin(ours.n_train)]
    rows = pd.concat([ours, theirs.assign(budget="")])
    return rows[rows.seed.isin(table.index) & rows.example.isin(table.columns.unique("example"))]


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
    means = cells.agg(ndcg=("ndcg", "mean"), methods=("method", "nunique"))
    return means[means.methods == len(methods)].drop(columns="methods")


def enough_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without sizes that have fewer seeds than at least three other sizes.

    Only seeds common to all sizes count, so such a size would take seeds from the others.
    """
    seeds = rows.groupby("n_train").seed.nunique()
    return rows[rows.n_train.isin(seeds.index[seeds >= seeds.nlargest(3).min()])]


def ladders(group: pd.DataFrame) -> Ladders:
    """BIGRec over training sizes beside the mean of the models that were trained at every size.

    group: ranks of one data set. BIGRec's are those of `as_many_steps`.
    """
    ours = as_many_steps(group)
    our_runs = ours[["n_train", "seed"]].drop_duplicates()
    plain = evidence.plain_runs(group)
    models = plain[plain.method.isin(CONVENTIONAL)].merge(our_runs, on=["n_train", "seed"])
    size_counts = models.groupby("method").n_train.nunique()
    methods = list(size_counts.index[size_counts == models.n_train.nunique()])
    theirs = mean_of_methods(models, methods)
    their_runs = theirs[["n_train", "seed"]].drop_duplicates()
    table = pd.concat([ours.assign(of="bigrec"), theirs.assign(of="conventional")])
    rows = enough_seeds(table.merge(their_runs, on=["n_train", "seed"]))
    if rows.n_train.nunique() < 2:
        gap = (
            "BIGRec, tuned for as many steps, and conventional models at two training sizes with "
            "the same seeds"
        )
        return Ladders(NOBODY, NOBODY, NOBODY, NOBODY, gap)
    rows = rows.assign(cell=list(zip(rows.of, rows.n_train, strict=True)))
    tables = significance.crossed(rows, "ndcg", by="cell")
    sizes = sorted(rows.n_train.unique())
    bigrec, conventional = (
        np.stack([tables[side, size].to_numpy() for size in sizes])
        for side in ("bigrec", "conventional")
    )
    users = significance.users_of(tables["bigrec", sizes[0]])
    if not (bigrec.sum() > 0 and conventional.sum() > 0):
        gap = (
            "a seed in common to the training sizes, and hits of BIGRec and of conventional models"
        )
        return Ladders(NOBODY, NOBODY, NOBODY, NOBODY, gap)
    return Ladders(np.log2(sizes), bigrec, conventional, users)
