"""Which title a generated text stands for, by the text alone: a finder names one, or none.

`add` puts one more title in; `size` is the memory a finder holds, in bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from bigrec_lib.method import bm25, census


class Finder(Protocol):
    def find(self, text: str) -> int | None:
        """The candidate that a text stands for, if any."""

    def add(self, title: str) -> None: ...

    @property
    def size(self) -> int: ...


class Equal:
    """The title that is the text itself."""

    def __init__(self, titles: Sequence[str]):
        self.candidate = {title: number for number, title in enumerate(titles)}

    def find(self, text: str) -> int | None:
        return self.candidate.get(text)

    def add(self, title: str) -> None:
        self.candidate[title] = len(self.candidate)

    @property
    def size(self) -> int:
        return sum(len(title.encode()) + 4 for title in self.candidate)


class Spelled:
    """The title that differs from the text in case, accents, punctuation and spaces at most.

    The first, if there are several. Texts and titles without a letter or digit match nothing.
    """

    def __init__(self, titles: Sequence[str]):
        self.count = 0
        self.candidate: dict[str, int] = {}
        for title in titles:
            self.add(title)

    def find(self, text: str) -> int | None:
        return self.candidate.get(census.normalised(text))

    def add(self, title: str) -> None:
        form = census.normalised(title)
        if form:
            self.candidate.setdefault(form, self.count)
        self.count += 1

    @property
    def size(self) -> int:
        return sum(len(form.encode()) + 4 for form in self.candidate)


class Grams:
    """The title whose character n-grams are most alike: cosine of their TF-IDF weights.

    A gram's weight is its count times 1 + log((1 + I) / (1 + titles that have it)); case is
    ignored, and a space before and after the text makes its ends grams, too.
    """

    def __init__(self, titles: Sequence[str], n: int):
        self.titles, self.n = list(titles), n
        self.index()

    def index(self) -> None:
        from scipy import sparse

        counts = [self.grams(title) for title in self.titles]
        title_counts = Counter(gram for bag in counts for gram in bag)
        self.column = {gram: number for number, gram in enumerate(title_counts)}
        frequencies = np.array(list(title_counts.values()), dtype=np.float64)
        self.idf = 1 + np.log((1 + len(counts)) / (1 + frequencies))
        row = np.repeat(np.arange(len(counts)), [len(bag) for bag in counts])
        column = np.array([self.column[gram] for bag in counts for gram in bag], dtype=np.int64)
        weight = np.array([bag[gram] for bag in counts for gram in bag]) * self.idf[column]
        norm = np.sqrt(np.bincount(row, weights=weight**2, minlength=len(counts)))
        shape = (len(counts), len(title_counts))
        self.weights = sparse.csc_matrix((weight / norm[row], (row, column)), shape)

    def grams(self, text: str) -> Counter[str]:
        padded = f" {text.casefold()} "
        return Counter(padded[i : i + self.n] for i in range(len(padded) - self.n + 1))

    def scores(self, text: str) -> np.ndarray:
        """The cosine with every title, (I,) float64, times the norm of the text's weights.

        0 for a text that shares no gram with any title.
        """
        counts = self.grams(text)
        grams = [gram for gram in counts if gram in self.column]
        if not grams:
            return np.zeros(len(self.titles))
        columns = [self.column[gram] for gram in grams]
        return self.weights[:, columns] @ (
            np.array([counts[gram] for gram in grams]) * self.idf[columns]
        )

    def find(self, text: str) -> int | None:
        return best(self.scores(text))

    def add(self, title: str) -> None:
        """Index everything anew: one more title changes every gram's weight."""
        self.titles.append(title)
        self.index()

    @property
    def size(self) -> int:
        arrays = (self.weights.data, self.weights.indices, self.weights.indptr, self.idf)
        return sum(array.nbytes for array in arrays) + sum(len(g.encode()) + 4 for g in self.column)


class Words:
    """The title whose words are most alike: BM25."""

    def __init__(self, titles: Sequence[str]):
        self.titles = list(titles)
        self.index = bm25.index_of(self.titles)

    def scores(self, text: str) -> np.ndarray:
        """The score of every title, (I,) float32; 0 for a text that shares no word with any."""
        return bm25.scores_of(text, self.index, len(self.titles))

    def find(self, text: str) -> int | None:
        return best(self.scores(text))

    def add(self, title: str) -> None:
        """Index everything anew: one more title changes every word's weight."""
        self.titles.append(title)
        self.index = bm25.index_of(self.titles)

    @property
    def size(self) -> int:
        if self.index is None:
            return 0
        sizes = [np.asarray(self.index.scores[name]).nbytes for name in ("data", "indices")]
        return sum(sizes) + sum(len(word.encode()) + 4 for word in self.index.vocab_dict)


class Fuzzy:
    """The title that the fewest insertions and deletions turn into the text, relative to their
    lengths (rapidfuzz's ratio); case is ignored. None for a text that shares no character with
    any title."""

    def __init__(self, titles: Sequence[str]):
        self.titles = [title.casefold() for title in titles]

    def find(self, text: str) -> int | None:
        from rapidfuzz import fuzz, process

        _, similarity, candidate = process.extractOne(
            text.casefold(), self.titles, scorer=fuzz.ratio
        )
        return candidate if similarity > 0 else None

    def add(self, title: str) -> None:
        self.titles.append(title.casefold())

    @property
    def size(self) -> int:
        return sum(len(title.encode()) for title in self.titles)


def best(scores: np.ndarray) -> int | None:
    """The candidate with the highest score, the first of equals; None if no score is above 0."""
    candidate = int(scores.argmax())
    return candidate if scores[candidate] > 0 else None
