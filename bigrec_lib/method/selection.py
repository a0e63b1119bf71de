"""Which training samples to learn from: an arm takes candidates and a budget, and returns rows.

    at random     random, one_a_user, and from strata: by_popularity, by_history, by_recency
    by time       newest
    by vectors    k_centre, k_means, herding, of the titles of history and target;
                  optimal_transport, of histories alone, towards those of validation
    by scores     loss, EL2N and GraNd of a small network (`surrogates`): top, middle, bottom
    DEALRec       influence and effort, drawn from bins; and its parts

The same candidates, budget and seed give the same rows. Ties of a score are drawn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse
from tqdm import tqdm

from bigrec_lib.files import StudyError
from bigrec_lib.method import sequences
from bigrec_lib.method.census import words
from bigrec_lib.method.windows import Windows

STRATA = 5  # equally wide parts into which the range of a number is cut
DROPPED, BINS = 0.1, 50  # of DEALRec: share with the highest scores left out; bins of the others


class SelectionError(StudyError):
    """Samples cannot be chosen."""


def nothing() -> np.ndarray:
    return np.empty((0, 0), dtype=np.float32)


@dataclass(frozen=True)
class Candidates:
    """Samples to choose from, n of them, and what is known of each.

    vectors: (n, 2d) float32 of `vectors_of`, history and target. wanted: (m, d) of validation
    histories. scores: name -> (n,), higher is more.
    """

    users: np.ndarray  # (n,)
    times: np.ndarray  # (n,) of the targets
    lengths: np.ndarray  # (n,) titles of the histories
    popularity: np.ndarray  # (n,) group of the target's title, 0 is the rarest fifth
    vectors: np.ndarray = field(default_factory=nothing)
    wanted: np.ndarray = field(default_factory=nothing)
    scores: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: np.ndarray) -> Candidates:
        """Some of the candidates, as long as they have no vectors and scores yet."""
        arrays = ("users", "times", "lengths", "popularity")
        return replace(self, **{name: getattr(self, name)[rows] for name in arrays})


Choose = Callable[[Candidates, int, int], np.ndarray]
"""candidates, budget, seed -> rows (budget,). First choice first where an arm ranks or picks one by
one; group by group where it draws from groups; by number of the row with optimal transport."""


@dataclass(frozen=True)
class Arm:
    """A way to choose. needs: what has to be measured of the candidates first; "pool" stands for
    nothing, but that it chooses from the pool, as whatever has needs does. draws: whether another
    seed makes another choice, and does not merely break ties differently."""

    choose: Choose
    needs: tuple[str, ...] = ()
    draws: bool = False


def select(arm: str, candidates: Candidates, budget: int, seed: int) -> np.ndarray:
    """The rows of the candidates that an arm of ARMS chooses, (budget,) int64, ordered as `Choose`.

    Raises SelectionError for an unknown arm, a budget that is too large or none, vectors that the
    arm needs and that are missing, and scores that are missing or not finite.
    """
    if arm not in ARMS:
        raise SelectionError(f"unknown arm {arm!r}: choose from {', '.join(ARMS)}")
    if not 0 < budget <= len(candidates):
        raise SelectionError(
            f"{arm}: {budget:,} of {len(candidates):,} candidates cannot be chosen: lower the "
            "budget, or raise `pool`"
        )
    for name in ("vectors", "wanted"):
        if name in ARMS[arm].needs and not getattr(candidates, name).size:
            raise SelectionError(f"{arm} needs {name} of the candidates: measure them first")
    rows = ARMS[arm].choose(candidates, budget, seed)
    return np.asarray(rows, dtype=np.int64)


def needed(arms: Sequence[str]) -> set[str]:
    """What has to be measured for these arms."""
    return {part for arm in arms for part in ARMS[arm].needs}


def every_choice(
    draws: dict[str, int],
    budgets: Sequence[int],
    candidates: Candidates,
    pool: Candidates,
    pool_rows: np.ndarray,
    seed: int,
) -> tuple[pd.DataFrame, dict[tuple[str, int], float]]:
    """What every arm chooses: columns arm, budget, draw, place (0 first), row (of candidates).

    draws: arm -> how many. Arms that need something measured choose from the pool, whose rows in
    candidates are pool_rows, the others from all candidates. Also returns the seconds of one choice
    by arm and budget, without the measuring.
    """
    frames, seconds = [], {}
    todo = [(arm, budget) for arm in draws for budget in budgets]
    for arm, budget in tqdm(todo, desc="choosing", leave=False):
        from_pool = bool(ARMS[arm].needs)
        start = time.perf_counter()
        for draw in range(draws[arm]):
            draw_seed = int(np.random.SeedSequence([seed, draw, budget]).generate_state(1)[0])
            rows = select(arm, pool if from_pool else candidates, budget, draw_seed)
            frames.append(
                pd.DataFrame(
                    {"place": np.arange(budget), "row": pool_rows[rows] if from_pool else rows}
                ).assign(arm=arm, budget=budget, draw=draw)
            )
        seconds[arm, budget] = (time.perf_counter() - start) / draws[arm]
    choices = pd.concat(frames, ignore_index=True)
    return choices[["arm", "budget", "draw", "place", "row"]], seconds


# ------------------------------------------------------------------------- what is known for free


def candidates_of(samples: Windows, groups: np.ndarray) -> Candidates:
    """Windows as candidates. groups: (I,) of `sequences.popularity_groups`."""
    lengths = (samples.histories != samples.n_items).sum(1)
    return Candidates(samples.users, samples.times, lengths, groups[samples.targets])


def vectors_of(
    titles: np.ndarray, samples: Windows, scaled_as: Windows | None = None
) -> np.ndarray:
    """Each window's history (mean of its titles) beside its target, (n, 2d) float32.

    titles: (I, d) vectors. The mean title is subtracted, since what all LLM vectors share would
    drown the rest; then each half is scaled to a mean length of 1, so that both count.
    scaled_as: windows by whose lengths the halves are scaled in place of their own.
    """
    halves = halves_of(titles, samples)
    scales = halves if scaled_as is None else halves_of(titles, scaled_as)
    lengths = [np.linalg.norm(half, axis=1).mean() or 1 for half in scales]
    return np.hstack([half / length for half, length in zip(halves, lengths, strict=True)])


def halves_of(titles: np.ndarray, samples: Windows) -> list[np.ndarray]:
    """The mean title of each window's history, and its target, (n, d) each, without what all titles
    share."""
    centred = titles - titles.mean(0)
    row, place = np.nonzero(samples.histories != samples.n_items)
    share = 1 / np.bincount(row, minlength=len(samples))[row]
    shape = (len(samples), samples.n_items)
    histories = sparse.csr_array(
        (share.astype(np.float32), (row, samples.histories[row, place])), shape
    )
    return [histories @ centred, centred[samples.targets]]


def shared_words(samples: Windows, titles: Sequence[str]) -> np.ndarray:
    """The share of the words of each target that occur in its history, (n,) float64."""
    title_words = [words(title) for title in titles] + [set()]
    return np.array(
        [
            len(title_words[target] & set().union(*(title_words[item] for item in history)))
            / max(len(title_words[target]), 1)
            for history, target in zip(samples.histories, samples.targets, strict=True)
        ]
    )


# ----------------------------------------------------------------------------- at random, by time


def at_random(candidates: Candidates, budget: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(len(candidates))[:budget]


def one_a_user(candidates: Candidates, budget: int, seed: int) -> np.ndarray:
    """No user gives a second sample before every user gave one, and so on."""
    table = pa.table({"user": candidates.users, "row": np.arange(len(candidates))})
    choice = sequences.drawn(table, budget, len(candidates), seed)
    return choice["row"].to_numpy()[np.argsort(choice["draw"].to_numpy())]


def quotas(sizes: np.ndarray, budget: int) -> np.ndarray:
    """How many of each group are taken: an equal share of what is left, from the smallest group on.

    So what a small group lacks, larger ones make up for.

    >>> quotas(np.array([10, 0, 2]), 9).tolist()
    [7, 0, 2]
    """
    counts = np.zeros(len(sizes), dtype=np.int64)
    for place, group in enumerate(np.argsort(sizes, kind="stable")):
        share = (budget - counts.sum()) // (len(sizes) - place)
        counts[group] = min(sizes[group], share)
    return counts


def from_groups(groups: np.ndarray, budget: int, seed: int, n_groups: int) -> np.ndarray:
    """Rows drawn from each group by `quotas`. groups: (n,) the group of each row, below n_groups.

    A group without a row gives none.
    """
    order = np.random.default_rng(seed).permutation(len(groups))
    counts = quotas(np.bincount(groups, minlength=n_groups), budget)
    return np.concatenate(
        [order[groups[order] == group][:count] for group, count in enumerate(counts)]
    )


def cells(values: np.ndarray, n: int) -> np.ndarray:
    """Which of n equally wide parts of their range each value is in, (k,); 0 where all are equal.

    >>> cells(np.array([1.0, 2.0, 5.0]), 4).tolist()
    [0, 1, 3]
    """
    width = np.ptp(values) or 1
    return np.minimum((values - values.min()) * n // width, n - 1).astype(np.int64)


def strata(name: str) -> Choose:
    """As many from each stratum of a number that candidates have: the field with this name."""

    def choose(candidates: Candidates, budget: int, seed: int) -> np.ndarray:
        groups = cells(getattr(candidates, name), STRATA)
        return from_groups(groups, budget, seed, STRATA)

    return choose


def newest(candidates: Candidates, budget: int, seed: int) -> np.ndarray:
    return in_order(-candidates.times, seed)[:budget]


# ------------------------------------------------------------------------------------- by vectors


def k_centre(candidates: Candidates, budget: int, seed: int) -> np.ndarray:
    """Farthest first (Gonzalez 1985), from the candidate that is nearest to the mean."""
    vectors = candidates.vectors
    picks = [int(np.argmin(squared(vectors, vectors.mean(0))))]
    distances = squared(vectors, vectors[picks[0]])  # of each candidate to the nearest pick
    for _ in tqdm(range(budget - 1), desc="k_centre", leave=False, delay=2):
        distances[picks] = -1  # so that none is picked twice where vectors are equal
        picks.append(int(np.argmax(distances)))
        distances = np.minimum(distances, squared(vectors, vectors[picks[-1]]))
    return np.array(picks)


def squared(vectors: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Squared distances of (n, d) to (d,)."""
    differences = vectors - centre
    return np.einsum("nd,nd->n", differences, differences)


def k_means(candidates: Candidates, budget: int, seed: int) -> np.ndarray:
    """The candidate nearest to the mean of each cluster, of as many clusters as the budget says.

    Larger clusters come first; each mean takes the nearest of those that are left.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances

    clusters = KMeans(budget, n_init=1, random_state=seed).fit(candidates.vectors)
    sizes = np.bincount(clusters.labels_, minlength=budget)
    order = np.argsort(-sizes, kind="stable")
    distances = pairwise_distances(clusters.cluster_centers_[order], candidates.vectors)
    picks: list[int] = []
    for row in distances:
        row[picks] = np.inf
        picks.append(int(np.argmin(row)))
    return np.array(picks)


def herding(candidates: Candidates, budget: int, seed: int) -> np.ndarray:
    """The candidates whose running mean follows the mean of all (Welling 2009), none twice."""
    vectors = candidates.vectors.astype(np.float64)
    mean, weights = vectors.mean(0), vectors.mean(0)
    penalties = np.zeros(len(vectors))  # -inf for what is picked already
    picks: list[int] = []
    for _ in tqdm(range(budget), desc="herding", leave=False, delay=2):
        picks.append(int(np.argmax(vectors @ weights + penalties)))
        penalties[picks[-1]] = -np.inf
        weights = weights + mean - vectors[picks[-1]]
    return np.array(picks)


def optimal_transport(candidates: Candidates, budget: int, seed: int) -> np.ndarray:
    """The set whose histories are nearest, by optimal transport, to histories of validation.

    As many of those as the budget has samples, repeated where there are fewer. Each candidate is
    moved to one of them or left out, so the best set and the best transport are one linear program,
    whose vertices are whole numbers: this is the exact optimum, where GORACS is greedy.
    """
    import ot
    from sklearn.metrics import pairwise_distances

    vectors, histories = candidates.vectors, candidates.wanted
    histories = histories[np.arange(budget) % len(histories)]
    distances = pairwise_distances(vectors[:, : histories.shape[1]], histories)
    rest = len(vectors) - budget
    cost = np.hstack([distances, np.zeros((len(vectors), 1))]).astype(np.float64)
    room = np.r_[np.ones(budget), rest]
    plan, log = ot.emd(np.ones(len(vectors)), room, cost, numItermax=10**8, log=True)
    if log["warning"]:
        raise SelectionError(f"optimal_transport was not solved: {log['warning']}")
    return np.flatnonzero(plan[:, :budget].sum(1) > 0.5)


# -------------------------------------------------------------------------------------- by scores


def score_of(candidates: Candidates, name: str) -> np.ndarray:
    """A score of every candidate. Raises SelectionError if it is missing or not finite."""
    if name not in candidates.scores:
        raise SelectionError(f"{name} of the candidates is needed: measure it first")
    score = candidates.scores[name]
    if count := int((~np.isfinite(score)).sum()):
        raise SelectionError(
            f"{count:,} of {len(score):,} scores of {name} are not finite: lower the learning rate "
            "of the surrogate, or leave out the arms that need it"
        )
    return score


def in_order(score: np.ndarray, seed: int) -> np.ndarray:
    """Rows from the lowest score to the highest; the order of equal ones is drawn."""
    return np.lexsort((np.random.default_rng(seed).random(len(score)), score))


def top(name: str) -> Choose:
    return lambda c, budget, seed: in_order(-score_of(c, name), seed)[:budget]


def bottom(name: str) -> Choose:
    return lambda c, budget, seed: in_order(score_of(c, name), seed)[:budget]


def middle(name: str) -> Choose:
    """As many candidates score lower as higher."""

    def choose(candidates: Candidates, budget: int, seed: int) -> np.ndarray:
        start = (len(candidates) - budget) // 2
        return in_order(score_of(candidates, name), seed)[start : start + budget]

    return choose


def binned(score: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """DEALRec's draw: without the highest tenth, from bins of equal width, by `quotas`.

    Raises SelectionError if the budget is more than the other nine tenths.
    """
    rows = in_order(score, seed)[: len(score) - int(DROPPED * len(score))]
    if budget > len(rows):
        raise SelectionError(
            f"DEALRec leaves {len(rows):,} candidates, so {budget:,} cannot be chosen: lower the "
            "budget, or raise `pool`"
        )
    return rows[from_groups(cells(score[rows], BINS), budget, seed, BINS)]


def unit(score: np.ndarray) -> np.ndarray:
    """A score between 0 and 1; 0 where all are equal."""
    return (score - score.min()) / (np.ptp(score) or 1)


def dealrec(influence: np.ndarray, effort: np.ndarray, weight: float) -> np.ndarray:
    """DEALRec's score of each sample, (n,): influence + weight · effort, each between 0 and 1."""
    return unit(influence) + weight * unit(effort)


def bins_of(name: str) -> Choose:
    return lambda c, budget, seed: binned(score_of(c, name), budget, seed)


def random_bins(candidates: Candidates, budget: int, seed: int) -> np.ndarray:
    """DEALRec's bins of a random score: what its way of drawing does without its scores."""
    score = np.random.default_rng([seed, 1]).random(len(candidates))
    return binned(score, budget, seed)


ARMS: dict[str, Arm] = {
    "random": Arm(at_random, draws=True),
    "one_a_user": Arm(one_a_user, draws=True),
    "by_popularity": Arm(strata("popularity"), draws=True),
    "by_history": Arm(strata("lengths"), draws=True),
    "by_recency": Arm(strata("times"), draws=True),
    "newest": Arm(newest),
    "k_centre": Arm(k_centre, ("vectors",)),
    "k_means": Arm(k_means, ("vectors",), draws=True),
    "herding": Arm(herding, ("vectors",)),
    "optimal_transport": Arm(optimal_transport, ("vectors", "wanted")),
    **{
        f"{score}_{part}": Arm(choose(score), needs)
        for score, needs in {
            "loss": ("surrogate",),
            "el2n": ("early", "el2n"),
            "grand": ("early", "grand"),
        }.items()
        for part, choose in {"top": top, "middle": middle, "bottom": bottom}.items()
    },
    "dealrec": Arm(bins_of("dealrec"), ("surrogate", "influence", "effort"), draws=True),
    "dealrec_influence": Arm(bins_of("influence"), ("surrogate", "influence"), draws=True),
    "dealrec_effort": Arm(bins_of("effort"), ("effort",), draws=True),
    "dealrec_random": Arm(random_bins, ("pool",), draws=True),
}
