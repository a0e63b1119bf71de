"""Step 2 from the same generations in other ways: the space, its metric, the beams, the history.

A variant says whose states the vectors are (base or tuned LLM), of which tokens and layer, how the
space is transformed, by what distance is measured, which beams count, and whether titles of the
history stay in the ranking. BIGRec's own is PUBLISHED.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from tqdm import tqdm

from bigrec_lib.method import census, geometry, grounding
from bigrec_lib.method.geometry import Transform
from bigrec_lib.method.states import LAST, MEAN

BASE, TUNED = "base", "tuned"
PLAIN, CENTRED, WHITENED, REMOVED = "as it is", "centred", "whitened", "components removed"
L2, COSINE = "L2", "cosine"
FIRST, NEAREST, WEIGHTED = "first beam", "nearest beam", "weighted beams"
WITH, WITHOUT = "with history", "without history"


@dataclass(frozen=True)
class Variant:
    """A way to ground; `name` is how measures and tables call it."""

    llm: str
    pooling: str
    layer: float
    transform: str
    metric: str
    beams: str = FIRST
    history: str = WITH

    @property
    def name(self) -> str:
        return " / ".join(map(str, astuple(self)))

    @classmethod
    def of(cls, name: str) -> Variant:
        """
        >>> Variant.of(PUBLISHED.name) == PUBLISHED
        True
        """
        llm, pooling, layer, *rest = name.split(" / ")
        return cls(llm, pooling, float(layer), *rest)


PUBLISHED = Variant(BASE, LAST, 1.0, PLAIN, L2)


def spaces(llms: Sequence[str], layers: Sequence[float]) -> list[Variant]:
    """Every space, PUBLISHED first; centring comes with cosine only, as it leaves L2 unchanged."""
    kinds = [(PLAIN, L2), (PLAIN, COSINE), (CENTRED, COSINE)]
    kinds += list(product((WHITENED, REMOVED), (L2, COSINE)))
    grid = [Variant(*key, *kind) for key in product(llms, (LAST, MEAN), layers) for kind in kinds]
    return [PUBLISHED, *(variant for variant in grid if variant != PUBLISHED)]


def further(space: Variant) -> list[Variant]:
    """The same space with other beams than the first."""
    return [replace(space, beams=beams) for beams in (NEAREST, WEIGHTED)]


@dataclass(frozen=True)
class World:
    """All spaces of one run: states by (llm, pooling, layer), (N, d) each, the row of each text in
    them, and the titles (I) of the catalogue; the shrinkage of whitening, and how many components
    are removed."""

    states: dict[tuple[str, str, float], np.ndarray]
    row: dict[str, int]
    titles: Sequence[str]
    shrinkage: float
    components: int

    def vectors(self, variant: Variant, *texts: np.ndarray) -> list[np.ndarray]:
        """The vectors of the titles, (I, d) float32, and of further arrays of texts, (..., d)."""
        states = self.states[variant.llm, variant.pooling, variant.layer]
        title_states = states[[self.row[title] for title in self.titles]]
        transform = transform_of(variant, title_states, self.shrinkage, self.components)
        results = [transform(title_states)]
        for array in texts:
            rows = [self.row[text] for text in np.ravel(array)]
            results.append(transform(states[rows]).reshape(*np.shape(array), -1))
        return results


def transform_of(
    variant: Variant, titles: np.ndarray, shrinkage: float, components: int
) -> Transform:
    """The transform of a variant's space, fitted to the vectors of its titles (I, d)."""
    transform: Transform = geometry.unchanged
    if variant.transform == CENTRED:
        transform = geometry.centring(titles)
    elif variant.transform == WHITENED:
        transform = geometry.whitening(titles, shrinkage)
    elif variant.transform == REMOVED:
        transform = geometry.removal(titles, components)
    if variant.metric == L2:
        return transform
    return lambda vectors: geometry.directions(transform(vectors)).astype(np.float32)


def ranked(
    variant: Variant,
    queries: np.ndarray,
    scores: np.ndarray,
    vectors: np.ndarray,
    targets: np.ndarray,
    seen: Sequence[np.ndarray],
    k: int = 20,
) -> tuple[pd.DataFrame, np.ndarray]:
    """Each target's place (columns rank and ties, int32) and the first k candidates (n, k) int64.

    queries: (n, B, d), vectors: (I, d), both transformed; scores: (n, B) of the beams; targets:
    (n,); seen: the candidates of each history, which a variant without history leaves out, but for
    the target.
    """
    n, beams, d = queries.shape
    if variant.beams == FIRST:
        queries, beams = queries[:, :1], 1
    step = max(1, 2**23 // (beams * len(vectors)))
    frames, lists = [], []
    for start in tqdm(range(0, n, step), desc=variant.name, unit="block", leave=False):
        rows = slice(start, start + step)
        distances = grounding.distances(
            queries[rows].reshape(-1, d), vectors, np.repeat(targets[rows], beams)
        )
        keys = merged(variant.beams, distances.reshape(-1, beams, len(vectors)), scores[rows])
        if variant.history == WITHOUT:
            for key, items, target in zip(keys, seen[rows], targets[rows], strict=True):
                key[np.setdiff1d(items, target)] = np.inf
        frames.append(grounding.counted(keys, targets[rows]))
        lists.append(grounding.first(keys, k))
    return pd.concat(frames, ignore_index=True), np.concatenate(lists)


def merged(beams: str, distances: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Keys (n, I) from distances (n, B, I) and scores (n, B), by the beams that count."""
    if beams == NEAREST:
        return grounding.nearest_beam(distances)
    return grounding.weighted_beams(distances, scores) if beams == WEIGHTED else distances[:, 0]


# ------------------------------------------------------------- what becomes of single examples

OUTCOMES = ("hit", "wrong text", "wrong place", "wrong user")


class Names:
    """Which titles a text names: those it equals, but for case, accents, punctuation and spaces;
    if there are none, those with the same words in any order, a year or platform at the end left
    out ("The Matrix" names "Matrix, The (1999)")."""

    def __init__(self, titles: Sequence[str]):
        self.spelled: dict[str, list[int]] = {}
        self.worded: dict[tuple[str, ...], list[int]] = {}
        for number, title in enumerate(titles):
            self.spelled.setdefault(census.normalised(title), []).append(number)
            self.worded.setdefault(self.words(title), []).append(number)

    @staticmethod
    def words(title: str) -> tuple[str, ...]:
        return tuple(sorted(re.findall(r"\w+", geometry.TAIL.sub("", title).casefold())))

    def of(self, text: str) -> list[int]:
        """The numbers of the titles that a text names; none for a text without a word."""
        words = self.words(text)
        return (
            self.spelled.get(census.normalised(text), self.worded.get(words, [])) if words else []
        )


def outcomes(
    ranks: np.ndarray, mentions: Sequence[list[int]], nearest: np.ndarray, k: int = 20
) -> np.ndarray:
    """What became of each example, (n,) of OUTCOMES.

    hit: the target is among the first k, by its rank (n,). Else wrong text: it names no title;
    wrong place: it names some, but the nearest is another; wrong user: it names the nearest title,
    which is not what the user went on to. mentions: the candidates that each text names
    (`Names`); nearest: (n,) the candidate nearest to it.
    """
    misses = [
        1 if not candidates else 3 if near in candidates else 2
        for candidates, near in zip(mentions, nearest, strict=True)
    ]
    return np.array(OUTCOMES)[np.where(ranks < k, 0, misses)]


def own_and_others(
    queries: np.ndarray, vectors: np.ndarray, targets: np.ndarray, users: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Normalised distance (docs/method.md, section 2: 0 is the nearest title, 1 the farthest) of
    each text to its target, and on average to the targets of other users' examples, (n,) each.

    queries: (n, d), vectors: (I, d), targets and users: (n,), of two users at least.
    """
    own, others = np.empty(len(queries)), np.empty(len(queries))
    step = max(1, 2**23 // len(vectors))
    counts = np.bincount(targets, minlength=len(vectors)).astype(np.float64)
    for start in range(0, len(queries), step):
        rows = range(start, min(start + step, len(queries)))
        distances = grounding.distances(queries[rows.start : rows.stop], vectors)
        low, high = distances.min(1, keepdims=True), distances.max(1, keepdims=True)
        distances = (distances - low) / np.where(high > low, high - low, 1)
        for number, row in zip(rows, distances, strict=True):
            own[number] = row[targets[number]]
            same_user = row[targets[users == users[number]]]
            others[number] = (row @ counts - same_user.sum()) / (len(targets) - len(same_user))
    return own, others
