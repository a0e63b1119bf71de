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
    """Every space, PUBLISHED first: what is centred differs in its cosines alone."""
    kinds = [(PLAIN, L2), (PLAIN, COSINE), (CENTRED, COSINE)]
    kinds += list(product((WHITENED, REMOVED), (L2, COSINE)))
    found = [Variant(*key, *kind) for key in product(llms, (LAST, MEAN), layers) for kind in kinds]
    return [PUBLISHED, *(variant for variant in found if variant != PUBLISHED)]


def further(space: Variant) -> list[Variant]:
    """The same space with other beams, and with or without the history."""
    ways = product((FIRST, NEAREST, WEIGHTED), (WITH, WITHOUT))
    found = [replace(space, beams=beams, history=history) for beams, history in ways]
    return [variant for variant in found if variant != space]


@dataclass(frozen=True)
class World:
    """All spaces of one run: states by (llm, pooling, layer), (N, d) each, the row of each text in
    them, and the titles (I) of the catalogue; how spaces are whitened, and of what freed."""

    states: dict[tuple[str, str, float], np.ndarray]
    row: dict[str, int]
    titles: Sequence[str]
    shrinkage: float
    components: int

    def vectors(self, variant: Variant, *texts: np.ndarray) -> list[np.ndarray]:
        """The vectors of the titles, (I, d) float32, and of further arrays of texts, (..., d)."""
        states = self.states[variant.llm, variant.pooling, variant.layer]
        of_titles = states[[self.row[title] for title in self.titles]]
        into = transform_of(variant, of_titles, self.shrinkage, self.components)
        found = [into(of_titles)]
        for each in texts:
            rows = [self.row[text] for text in np.ravel(each)]
            found.append(into(states[rows]).reshape(*np.shape(each), -1))
        return found


def transform_of(
    variant: Variant, titles: np.ndarray, shrinkage: float, components: int
) -> Transform:
    """The transform of a variant's space, by what its titles (I, d) are like."""
    plain: Transform = geometry.unchanged
    if variant.transform == CENTRED:
        plain = geometry.centring(titles)
    elif variant.transform == WHITENED:
        plain = geometry.whitening(titles, shrinkage)
    elif variant.transform == REMOVED:
        plain = geometry.removal(titles, components)
    if variant.metric == L2:
        return plain
    return lambda vectors: geometry.directions(plain(vectors)).astype(np.float32)


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
    places, lists = [], []
    for start in tqdm(range(0, n, step), desc=variant.name, unit="block", leave=False):
        rows = slice(start, start + step)
        far = grounding.distances(
            queries[rows].reshape(-1, d), vectors, np.repeat(targets[rows], beams)
        )
        keys = merged(variant.beams, far.reshape(-1, beams, len(vectors)), scores[rows])
        if variant.history == WITHOUT:
            for key, items, target in zip(keys, seen[rows], targets[rows], strict=True):
                key[np.setdiff1d(items, target)] = np.inf
        places.append(grounding.counted(keys, targets[rows]))
        lists.append(grounding.first(keys, k))
    return pd.concat(places, ignore_index=True), np.concatenate(lists)


def merged(beams: str, far: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Keys (n, I) from distances (n, B, I) and scores (n, B), by the beams that count."""
    if beams == NEAREST:
        return grounding.nearest_beam(far)
    return grounding.weighted_beams(far, scores) if beams == WEIGHTED else far[:, 0]


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
    ranks: np.ndarray, named: Sequence[list[int]], nearest: np.ndarray, k: int = 20
) -> np.ndarray:
    """What became of each example, (n,) of OUTCOMES.

    hit: the target is among the first k, by its rank (n,). Else wrong text: it names no title;
    wrong place: it names some, but the nearest is another; wrong user: it names the nearest title,
    which is not what the user went on to. named: the candidates that each text names (`Names`);
    nearest: (n,) the candidate nearest to it.
    """
    missed = [
        1 if not names else 3 if near in names else 2
        for names, near in zip(named, nearest, strict=True)
    ]
    return np.array(OUTCOMES)[np.where(ranks < k, 0, missed)]


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
        far = grounding.distances(queries[rows.start : rows.stop], vectors)
        low, high = far.min(1, keepdims=True), far.max(1, keepdims=True)
        far = (far - low) / np.where(high > low, high - low, 1)
        for number, row in zip(rows, far, strict=True):
            own[number] = row[targets[number]]
            same = row[targets[users == users[number]]]
            others[number] = (row @ counts - same.sum()) / (len(targets) - len(same))
    return own, others
