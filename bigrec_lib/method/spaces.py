"""One recommendation space for several data sets: their titles as one catalogue.

The titles of the data set under test come first, so its candidates keep their numbers; what follows
are titles of other data sets, which are never a target.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bigrec_lib.method import census, grounding


@dataclass(frozen=True)
class Catalogue:
    """Titles (I,) and their vectors (I, d); the first `own` are of the data set under test."""

    titles: list[str]
    vectors: np.ndarray
    own: int

    @property
    def added(self) -> int:
        """How many titles of other data sets there are."""
        return len(self.titles) - self.own


def union(
    titles: Sequence[str], vectors: np.ndarray, others: Sequence[tuple[Sequence[str], np.ndarray]]
) -> Catalogue:
    """A data set's titles, and those of others that it lacks, each once.

    vectors: (I, d) of the titles; others: the titles and vectors of each other data set. Where none
    of their titles is new, nothing is added.
    All vectors have to be of one LLM. Raises GroundingError for those of another width, or that are
    not finite.
    """
    title_set, all_titles, parts = set(titles), list(titles), [vectors]
    for their_titles, their_vectors in others:
        grounding.same_width(grounding.checked(vectors, "own titles"),
                             grounding.checked(their_vectors, "other titles"))  # fmt: skip
        numbers = [number for number, title in enumerate(their_titles) if title not in title_set]
        title_set.update(their_titles[number] for number in numbers)
        all_titles += [their_titles[number] for number in numbers]
        parts.append(their_vectors[numbers])
    return Catalogue(all_titles, np.concatenate(parts), len(titles))


def with_some(catalogue: Catalogue, k: int, seed: int) -> Catalogue:
    """The same with only k of the titles of other data sets, drawn under `seed`."""
    draw = np.random.default_rng(seed).permutation(catalogue.added)[:k]
    numbers = [*range(catalogue.own), *(catalogue.own + np.sort(draw))]
    titles = [catalogue.titles[number] for number in numbers]
    return Catalogue(titles, catalogue.vectors[numbers], catalogue.own)


def off_domain(lists: np.ndarray, n_own: int) -> np.ndarray:
    """Share of each list (n, k) that is of other data sets, (n,) float64; n_own: Catalogue.own."""
    return (lists >= n_own).mean(1)


def own_or_none(lists: np.ndarray, n_own: int) -> np.ndarray:
    """Lists (n, k) with -1 in place of every title of another data set; n_own: Catalogue.own."""
    return np.where(lists < n_own, lists, -1)


def identical(titles: Sequence[str], others: Sequence[str]) -> int:
    """How many titles two catalogues have in common."""
    return len(set(titles) & set(others))


def spelled_alike(catalogue: Catalogue) -> int:
    """How many titles of other data sets differ from an own title at most in case, accents,
    punctuation and spaces."""
    forms = {census.normalised(title) for title in catalogue.titles[: catalogue.own]} - {""}
    return sum(census.normalised(title) in forms for title in catalogue.titles[catalogue.own :])


def beside_foreign(catalogue: Catalogue, n: int, seed: int) -> float:
    """Share of n own titles, drawn under `seed`, whose nearest other title is another data set's.

    Were titles spread without regard to their data set, it would be added / (I - 1). NaN for a
    catalogue of a single title.
    """
    if len(catalogue.titles) < 2:
        return float("nan")
    draw = np.random.default_rng(seed).permutation(catalogue.own)[:n]
    pairs, _ = grounding.nearest(catalogue.vectors[draw], catalogue.vectors, 2)
    neighbour = np.where(pairs[:, 0] == draw, pairs[:, 1], pairs[:, 0])
    return float((neighbour >= catalogue.own).mean())
