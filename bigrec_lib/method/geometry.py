"""What a space of vectors is like, and what a text can lose before its title is no longer found.

Transforms are fitted to the titles of a space: centring, whitening (ZCA, with shrinkage), removal
of the components along which titles vary most. Measures: anisotropy, hubness, the gap between two
groups, and how alike two spaces of the same things are (mutual neighbours, unbiased CKA). Each has
a null to be compared with: its values under permutations. docs/method.md, section 8, has sources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from bigrec_lib.method import grounding, metrics

Transform = Callable[[np.ndarray], np.ndarray]
"""Vectors (n, d) -> vectors (n, d) float32."""

# ---------------------------------------------------------------------------------- the ladder

RUNGS = ("exact", "plain", "tail dropped", "word dropped", "typo", "truncated", "edition", "random")
TAIL = re.compile(r"\s*(\([^()]*\)|\[[^\[\]]*\]| - [^-]+)$")  # a year, a platform


def ladder(title: str, other: str, rng: np.random.Generator) -> dict[str, str]:
    """A title, changed in several ways: rung -> text, in the order of RUNGS.

    plain: no case, no punctuation. tail dropped: without the year or platform at the end. edition:
    another edition, which the catalogue may not have. random: `other`, another title. A later
    rung that leaves this title as it is, or leaves nothing of it, is left out.

    >>> ladder("Heat (1995)", "Fargo (1996)", np.random.default_rng(0))["edition"]
    'Heat: Special Edition (1995)'
    """
    words = title.split()
    stem = TAIL.sub("", title)
    texts = {
        "exact": title,
        "plain": " ".join(re.findall(r"\w+", title.casefold())),
        "tail dropped": stem,
        "word dropped": " ".join(np.delete(words, rng.integers(len(words)))) if words else "",
        "typo": swapped(title, rng),
        "truncated": " ".join(words[: len(words) // 2]),
        "edition": f"{stem}: Special Edition{title[len(stem) :]}",
        "random": other,
    }
    return {
        rung: texts[rung] for rung in RUNGS if rung == "exact" or texts[rung] not in ("", title)
    }


def ladders(titles: Sequence[str], count: int, seed: int) -> pd.DataFrame:
    """The ladders of `count` titles, or of all, drawn under a seed: columns title (its number),
    rung, text. There are two titles at least."""
    rng = np.random.default_rng(seed)
    numbers = np.sort(rng.permutation(len(titles))[:count])
    others = (numbers + rng.integers(1, len(titles), len(numbers))) % len(titles)
    rows = [
        (number, rung, text)
        for number, other in zip(numbers, others, strict=True)
        for rung, text in ladder(titles[number], titles[other], rng).items()
    ]
    return pd.DataFrame(rows, columns=["title", "rung", "text"])


def swapped(title: str, rng: np.random.Generator) -> str:
    """A title with two different neighbouring letters swapped, if it has any."""
    places = [
        i
        for i in range(len(title) - 1)
        if title[i].isalpha() and title[i + 1].isalpha() and title[i] != title[i + 1]
    ]
    if not places:
        return title
    i = places[rng.integers(len(places))]
    return title[:i] + title[i + 1] + title[i] + title[i + 2 :]


# ---------------------------------------------------------------------------------- transforms


def unchanged(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors, dtype=np.float32)


def centring(titles: np.ndarray) -> Transform:
    """Subtract the mean title. titles: (I, d). No L2 distance changes, but every cosine does."""
    mean = titles.mean(0, dtype=np.float64)
    return lambda vectors: (vectors - mean).astype(np.float32)


def whitening(titles: np.ndarray, shrinkage: float) -> Transform:
    """ZCA: centre, and turn the titles' covariance into the identity with the smallest change.

    shrinkage: the share of the mean variance that is mixed into the covariance first, so that
    directions in which titles hardly differ are not blown up.
    """
    mean = titles.mean(0, dtype=np.float64)
    variances, axes = np.linalg.eigh(np.cov(titles.astype(np.float64), rowvar=False))
    spectrum = (1 - shrinkage) * variances.clip(0) + shrinkage * variances.clip(0).mean()
    scale = np.where(
        spectrum > 1e-12 * spectrum.max(), 1 / np.sqrt(np.maximum(spectrum, 1e-300)), 0
    )
    matrix = (axes * scale) @ axes.T
    return lambda vectors: ((vectors - mean) @ matrix).astype(np.float32)


def removal(titles: np.ndarray, components: int) -> Transform:
    """Centre, and take out the components along which the titles vary most."""
    mean = titles.mean(0, dtype=np.float64)
    _, axes = np.linalg.eigh(np.cov(titles.astype(np.float64), rowvar=False))
    top = axes[:, -components:]
    return lambda vectors: ((vectors - mean) - (vectors - mean) @ top @ top.T).astype(np.float32)


def directions(vectors: np.ndarray) -> np.ndarray:
    """Vectors (n, d) of length 1, whose L2 distances rank as cosines do; zero stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


# ----------------------------------------------------------------------------------- one space


def mean_cosine(vectors: np.ndarray) -> float:
    """Mean cosine of two different rows of (n, d): 0 where directions are spread evenly."""
    n = len(vectors)
    total = directions(vectors.astype(np.float64)).sum(0)
    trace = (np.linalg.norm(vectors, axis=1) > 0).sum()  # cosines of rows with themselves
    return float((total @ total - trace) / (n * (n - 1)))


def first_share(vectors: np.ndarray) -> float:
    """Share of the variance of (n, d) that the first principal component has."""
    variances = np.linalg.eigvalsh(np.cov(vectors.astype(np.float64), rowvar=False))
    return float(variances[-1] / variances.sum())


def neighbours(vectors: np.ndarray, k: int) -> np.ndarray:
    """The k nearest other rows of each row by L2, nearest first, (n, k) int64, of (n, d); all
    others where there are fewer."""
    centred = vectors - vectors.mean(0, dtype=np.float64)
    norms = np.square(centred).sum(1)
    distances = norms - 2 * centred @ centred.T  # squared, less a constant of each row
    np.fill_diagonal(distances, np.inf)
    return grounding.first(distances, min(k, len(distances) - 1))


def hubness(lists: np.ndarray) -> dict[str, float]:
    """How unevenly rows serve as neighbours, from the lists (n, k) of `neighbours`.

    N_k of a row is how many others it is a neighbour of. skewness: of N_k, 0 where it is even;
    orphans: the share of rows that are nobody's neighbour.
    """
    counts = np.bincount(lists.ravel(), minlength=len(lists)).astype(np.float64)
    deviations, spread = counts - counts.mean(), counts.std()
    skewness = (deviations**3).mean() / spread**3 if spread else 0.0
    return {"skewness": float(skewness), "orphans": float((counts == 0).mean())}


def mixed_up(vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each dimension permuted on its own: its distribution stays, the rows are lost."""
    return rng.permuted(vectors, axis=0)


# ----------------------------------------------------------------- two groups, and two spaces


def gap(left: np.ndarray, right: np.ndarray) -> float:
    """Distance of the centroids of two groups (n, d), over the spread within them.

    The spread is the root of the mean squared distance of a row to the centroid of its group.
    """
    means = left.mean(0), right.mean(0)
    variances = [
        np.square(group - mean).sum(1).mean()
        for group, mean in zip((left, right), means, strict=True)
    ]
    distance, spread = np.linalg.norm(means[0] - means[1]), np.sqrt(np.mean(variances))
    return float(distance / spread) if spread else 0.0


def gap_nulls(
    left: np.ndarray, right: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """The gap, (draws,), where each pair of rows is put the other way round with chance 1/2."""
    flips = rng.random((draws, len(left), 1)) < 0.5
    return np.array([gap(np.where(f, right, left), np.where(f, left, right)) for f in flips])


def mutual(left: np.ndarray, right: np.ndarray) -> float:
    """Mean share of neighbours that the same row has in both of two spaces, (n, k) each."""
    return float(metrics.overlap(left, right).mean())


def mutual_nulls(
    left: np.ndarray, right: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """`mutual`, (draws,), where the rows of one space are given to others at random."""
    values = []
    for _ in range(draws):
        order = rng.permutation(len(right))  # row i is now what row order[i] was
        place = np.argsort(order)
        values.append(mutual(left, place[right[order]]))
    return np.array(values)


def centred_gram(vectors: np.ndarray) -> np.ndarray:
    """Products (n, n) of the rows of (n, d), as `hsic` takes them: diagonal zero."""
    centred = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    gram = centred @ centred.T
    np.fill_diagonal(gram, 0)
    return gram


def hsic(left: np.ndarray, right: np.ndarray) -> float:
    """The unbiased estimate of HSIC (Song et al. 2012) from two kernels (n, n), diagonals zero."""
    n = len(left)
    first = (left * right).sum()
    second = left.sum() * right.sum() / ((n - 1) * (n - 2))
    third = 2 * (left.sum(0) @ right.sum(0)) / (n - 2)
    return float((first + second - third) / (n * (n - 3)))


def cka(left: np.ndarray, right: np.ndarray) -> float:
    """Unbiased CKA from two kernels (n, n) with zero diagonals: 1 for equal ones, about 0 for
    unrelated ones."""
    product = hsic(left, left) * hsic(right, right)
    return hsic(left, right) / np.sqrt(product) if product > 0 else 0.0


def cka_nulls(
    left: np.ndarray, right: np.ndarray, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """`cka`, (draws,), where the rows of one space are given to others at random."""
    orders = [rng.permutation(len(right)) for _ in range(draws)]
    return np.array([cka(left, right[np.ix_(order, order)]) for order in orders])


def p_value(value: float, nulls: np.ndarray) -> float:
    """The share of nulls at least as large, where the value itself counts as one.

    >>> p_value(3.0, np.array([1.0, 2.0, 3.0]))
    0.5
    """
    return float((1 + (nulls >= value).sum()) / (1 + len(nulls)))


# ------------------------------------------------------------------------- all of them together

GAP, COSINE, FIRST = "centroid gap", "mean cosine", "first component"
HUBS, ORPHANS = "hubness", "orphans"
MUTUAL, CKA = "mutual neighbours", "CKA"
MEASURES = (GAP, COSINE, FIRST, HUBS, ORPHANS, MUTUAL, CKA)


def measured(
    titles: np.ndarray, texts: np.ndarray, goals: np.ndarray, k: int, draws: int, seed: int
) -> pd.DataFrame:
    """What a space is like: columns what (of MEASURES), value, null (its mean), p (`p_value`).

    titles: (I, d) of the catalogue; texts, goals: (n, d), what was written and the target that
    belongs to it. Neighbours are the k nearest. Nulls: pairs turned round (GAP); each dimension of
    the titles permuted on its own (COSINE, FIRST, HUBS, ORPHANS); goals given to other texts
    (MUTUAL, CKA). draws: the number of permutations; with 0, null and p are NaN.
    """
    rng = np.random.default_rng(seed)
    lists = neighbours(texts, k), neighbours(goals, k)
    grams = centred_gram(texts), centred_gram(goals)
    title_values = of_titles(titles, k)
    values = {GAP: gap(texts, goals)} | title_values | {MUTUAL: mutual(*lists), CKA: cka(*grams)}
    permuted = [of_titles(mixed_up(titles, rng), k) for _ in range(draws)]
    nulls = {name: np.array([draw[name] for draw in permuted]) for name in title_values}
    nulls[GAP] = gap_nulls(texts, goals, draws, rng)
    nulls[MUTUAL] = mutual_nulls(*lists, draws, rng)
    nulls[CKA] = cka_nulls(*grams, draws, rng)
    return held_against(values, nulls)


def of_titles(titles: np.ndarray, k: int) -> dict[str, float]:
    """The measures of one group of vectors (I, d)."""
    hubs = hubness(neighbours(titles, k))
    spread = {COSINE: mean_cosine(titles), FIRST: first_share(titles)}
    return spread | {HUBS: hubs["skewness"], ORPHANS: hubs["orphans"]}


def alike(left: np.ndarray, right: np.ndarray, k: int, draws: int, seed: int) -> pd.DataFrame:
    """MUTUAL and CKA of two spaces (n, d) and (n, d') of the same things, as in `measured`."""
    rng = np.random.default_rng(seed)
    lists = neighbours(left, k), neighbours(right, k)
    grams = centred_gram(left), centred_gram(right)
    values = {MUTUAL: mutual(*lists), CKA: cka(*grams)}
    nulls = {MUTUAL: mutual_nulls(*lists, draws, rng), CKA: cka_nulls(*grams, draws, rng)}
    return held_against(values, nulls)


def held_against(values: dict[str, float], nulls: dict[str, np.ndarray]) -> pd.DataFrame:
    """Columns what, value, null, p."""
    rows = [
        (name, value, nulls[name].mean(), p_value(value, nulls[name]))
        if len(nulls[name])
        else (name, value, np.nan, np.nan)
        for name, value in values.items()
    ]
    return pd.DataFrame(rows, columns=["what", "value", "null", "p"])
