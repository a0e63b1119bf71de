"""Cheaper ways from a generated text to items than embedding it and scanning the catalogue.

A way answers one request at a time, as a recommender in use does: `ground` takes the text and a
function that embeds it, and gives the first k candidates, best first. Whether it called that
function is noted, as embedding costs a pass of the LLM. `add` puts one more title in; `size` is the
memory it holds, in bytes.

The lossless way: a text that equals a title has that title's vector, so its list is known before
anybody asks. The others are compared with the exact list, which `Scan` finds.

Odd input: a text that is empty, or like no title, is embedded and scanned for by a `Cascade`; for
`Scored` all titles are then alike, and the first k by number are listed. With fewer than k titles
in the catalogue, lists are as long as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from bigrec_lib.files import StudyError
from bigrec_lib.method import grounding, l2
from bigrec_lib.method.finders import Finder, Grams, Words

BLOCK = 256  # titles whose rows are computed together

Vector = Callable[[], np.ndarray]
"""Gives the vector (d,) of a request's text; asking for it costs a pass of the LLM."""


class CheaperError(StudyError):
    """Ways from texts to items cannot be measured."""


class Way(Protocol):
    def ground(self, text: str, vector: Vector) -> np.ndarray:
        """The first k candidates, (k,) int64, best first."""

    def add(self, title: str, vector: np.ndarray) -> None:
        """Take in one more title; its candidate number is the next one."""

    @property
    def size(self) -> int: ...


# ------------------------------------------------------------------------- the exact way


class Scan:
    """The exact way: the distance to every candidate.

    Finds what `grounding.nearest` finds, faster for a single query: one product in fp32, then
    differences in fp64 for the few candidates that its rounding leaves in doubt. Holds the vectors
    twice, once less their mean.
    """

    def __init__(self, vectors: np.ndarray, k: int):
        self.vectors = grounding.checked(vectors, "vectors").float()  # (I, d)
        self.k = k
        self.shift = l2.mean(self.vectors)
        self.centred = self.vectors - self.shift
        self.norms = self.centred.square().sum(1)  # (I,)
        self.longest = self.norms.max().sqrt()

    def ground(self, text: str, vector: Vector) -> np.ndarray:
        return self.nearest(vector())

    def nearest(self, query: np.ndarray) -> np.ndarray:
        """The k nearest candidates of one query (d,); of equals the smaller number first."""
        vector = torch.from_numpy(query)
        centred = vector - self.shift
        scores = torch.addmv(self.norms, self.centred, centred, alpha=-2)
        error = l2.rounding(len(centred)) * (centred.norm() + self.longest).square()
        limit = scores.kthvalue(min(self.k, len(scores))).values + 2 * error
        candidates = (scores <= limit).nonzero().flatten()
        row = torch.zeros_like(candidates)
        distances = l2.squared_distance(vector[None], row, self.vectors, candidates).sqrt_()
        return candidates[distances.argsort(stable=True)[: self.k]].numpy()

    def add(self, title: str, vector: np.ndarray) -> None:
        """The shift stays that of the first titles: any shift leaves distances as they are."""
        row = torch.from_numpy(vector)[None]
        self.vectors = torch.cat([self.vectors, row])
        self.centred = torch.cat([self.centred, row - self.shift])
        self.norms = torch.cat([self.norms, self.centred[-1:].square().sum(1)])
        self.longest = self.norms.max().sqrt()

    @property
    def size(self) -> int:
        return sum(tensor.nbytes for tensor in (self.vectors, self.centred, self.norms))


class Rows:
    """The first k candidates of every title's row of distances, computed beforehand."""

    def __init__(self, vectors: np.ndarray, k: int):
        self.scan = Scan(vectors, k)
        self.k = k
        starts = tqdm(range(0, len(vectors), BLOCK), desc="rows of titles", unit="block")
        parts = [grounding.nearest(vectors[i : i + BLOCK], vectors, k) for i in starts]
        self.lists = np.concatenate([candidates for candidates, _ in parts])  # (I, k) int64
        self.far = np.concatenate([distances for _, distances in parts])  # (I, k) float64

    def add(self, title: str, vector: np.ndarray) -> None:
        """A row for the new title, and its place in the rows of the others."""
        self.scan.add(title, vector)
        query = torch.from_numpy(vector)[None]
        count = len(self.scan.vectors)
        distances = l2.squared_distance(
            query, torch.zeros(count, dtype=torch.int64), self.scan.vectors, torch.arange(count)
        ).sqrt_()
        self.lists, self.far = merged(self.lists, self.far, distances[:-1].numpy(), self.k)
        candidates = distances.argsort(stable=True)[: self.lists.shape[1]]
        self.lists = np.vstack([self.lists, candidates.numpy()])
        self.far = np.vstack([self.far, distances[candidates].numpy()])

    @property
    def size(self) -> int:
        """Numbers in four bytes each, as a service would hold them, and what the scan holds.

        The distances of the lists do not count: only `add` needs them.
        """
        return 4 * self.lists.size + self.scan.size


def merged(
    lists: np.ndarray, distances: np.ndarray, new_distances: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lists (I, k) and their distances with candidate I put in, at its `new_distances` (I,).

    It comes after candidates that are as near: its number is larger.
    """
    lists = np.column_stack([lists, np.full(len(lists), len(lists))])
    distances = np.column_stack([distances, new_distances])
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(lists, order, 1), np.take_along_axis(distances, order, 1)


# ------------------------------------------------------------------- by the text alone


class Cascade:
    """The row of the title that the first successful finder names; else the exact way."""

    def __init__(self, finders: Sequence[Finder], rows: Rows):
        self.finders, self.rows = finders, rows

    def find(self, text: str) -> int | None:
        candidates = (finder.find(text) for finder in self.finders)
        return next((candidate for candidate in candidates if candidate is not None), None)

    def ground(self, text: str, vector: Vector) -> np.ndarray:
        candidate = self.find(text)
        return self.rows.scan.nearest(vector()) if candidate is None else self.rows.lists[candidate]

    def add(self, title: str, vector: np.ndarray) -> None:
        for finder in self.finders:
            finder.add(title)
        self.rows.add(title, vector)

    @property
    def size(self) -> int:
        return self.rows.size + sum(finder.size for finder in self.finders)


class Scored:
    """The catalogue in the order of a text's scores; no vector is ever asked for."""

    def __init__(self, scorer: Grams | Words, k: int):
        self.scorer, self.k = scorer, k

    def ground(self, text: str, vector: Vector) -> np.ndarray:
        return grounding.first(-self.scorer.scores(text)[None], self.k)[0]

    def add(self, title: str, vector: np.ndarray) -> None:
        self.scorer.add(title)

    @property
    def size(self) -> int:
        return self.scorer.size


# ----------------------------------------------------------------- fewer numbers, or an index


class Reduced:
    """An exact scan of vectors with fewer dimensions. reduce: (…, d) -> (…, m)."""

    def __init__(self, vectors: np.ndarray, k: int, reduce: Callable[[np.ndarray], np.ndarray]):
        self.reduce = reduce
        self.scan = Scan(np.ascontiguousarray(reduce(vectors)), k)

    def ground(self, text: str, vector: Vector) -> np.ndarray:
        return self.scan.nearest(np.ascontiguousarray(self.reduce(vector())))

    def add(self, title: str, vector: np.ndarray) -> None:
        self.scan.add(title, np.ascontiguousarray(self.reduce(vector)))

    @property
    def size(self) -> int:
        return self.scan.size


def first_dimensions(m: int) -> Callable[[np.ndarray], np.ndarray]:
    """The first m numbers of a vector, or all if it has fewer."""
    return lambda vectors: vectors[..., :m]


def principal(vectors: np.ndarray, m: int) -> Callable[[np.ndarray], np.ndarray]:
    """The coordinates of a vector along the m directions in which the vectors (I, d) vary most."""
    centre = vectors.mean(0, dtype=np.float64)
    spread = vectors - centre
    _, axes = np.linalg.eigh(spread.T @ spread)  # rising variance
    directions = axes[:, ::-1][:, :m]
    return lambda x: ((x - centre) @ directions).astype(np.float32)


class Indexed:
    """A FAISS index over the vectors less their mean. build: the vectors -> the index, filled.

    It uses one thread, as for a request, so that it is the same each time. Where a search finds
    fewer than k, the rest are the first titles of the catalogue that it has not found.
    """

    def __init__(self, vectors: np.ndarray, k: int, build: Callable[[np.ndarray], Any]):
        import faiss

        faiss.omp_set_num_threads(1)
        self.k = k
        self.shift = l2.mean(grounding.checked(vectors, "vectors")).numpy()
        self.index = build(vectors - self.shift)

    def ground(self, text: str, vector: Vector) -> np.ndarray:
        _, candidates = self.index.search((vector() - self.shift)[None], self.k)
        return filled(candidates[0], min(self.k, self.index.ntotal))

    def add(self, title: str, vector: np.ndarray) -> None:
        self.index.add((vector - self.shift)[None])

    @property
    def size(self) -> int:
        import faiss

        return faiss.serialize_index(self.index).nbytes


def filled(candidates: np.ndarray, k: int) -> np.ndarray:
    """The first k of the candidates found (-1: none), then of all others by number.

    >>> filled(np.array([4, 1, -1, -1]), 4).tolist()
    [4, 1, 0, 2]
    """
    candidates = candidates[candidates >= 0][:k]
    rest = np.setdiff1d(np.arange(k + len(candidates)), candidates)
    return np.concatenate([candidates, rest[: k - len(candidates)]])


def hnsw(vectors: np.ndarray, links: int, breadth: int):
    """A graph that ties each title to `links` near ones; a search keeps the best `breadth`."""
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], links)
    index.hnsw.efSearch = breadth
    index.add(vectors)
    return index


def ivf(vectors: np.ndarray, probes: int):
    """An inverted file of √I cells, of which a search reads the nearest `probes`."""
    import faiss

    d, cells = vectors.shape[1], max(1, int(len(vectors) ** 0.5))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, cells)
    index.cp.min_points_per_centroid = 1  # a small catalogue is no mistake
    index.train(vectors)
    index.add(vectors)
    index.nprobe = min(probes, cells)
    return index


def pq(vectors: np.ndarray, codes: int):
    """Product quantisation: vectors cut into parts, each replaced by the nearest of 256 such parts.

    There are at most `codes` parts, as many as divide the dimensions evenly; with fewer than 256
    titles, there are fewer to replace a part by.
    """
    import faiss

    d = vectors.shape[1]
    parts = max(m for m in range(1, min(codes, d) + 1) if d % m == 0)
    bits = min(8, max(1, len(vectors).bit_length() - 1))
    index = faiss.IndexPQ(d, parts, bits)
    index.pq.cp.min_points_per_centroid = 1  # a small catalogue is no mistake
    index.train(np.resize(vectors, (max(len(vectors), 2**bits), d)))
    index.add(vectors)
    return index


# ------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Served:
    """What a way answered to n requests.

    lists: (n, k) candidates. embedded: (n,) bool, whether the text had to be embedded. seconds:
    (n,) without that embedding. build: seconds to build the way from given vectors; size: the bytes
    it holds.
    """

    way: Way
    lists: np.ndarray
    embedded: np.ndarray
    seconds: np.ndarray
    build: float
    size: int


def serve(build: Callable[[], Way], texts: Sequence[str], queries: np.ndarray) -> Served:
    """Build a way and put every request to it, one after the other. queries: (n, d) of the texts.

    Raises CheaperError if there is no request.
    """
    if not len(texts):
        raise CheaperError("no request to serve: the test split is empty")
    start = time.perf_counter()
    way = build()
    duration = time.perf_counter() - start
    way.ground(texts[0], lambda: queries[0])  # warms up
    embedded = np.zeros(len(texts), dtype=bool)
    seconds = np.zeros(len(texts))
    lists = []

    def vector(number: int) -> Vector:
        def ask() -> np.ndarray:
            embedded[number] = True
            return queries[number]

        return ask

    for number, text in enumerate(tqdm(texts, desc="requests", leave=False)):
        start = time.perf_counter()
        candidates = way.ground(text, vector(number))
        seconds[number] = time.perf_counter() - start
        lists.append(candidates)
    return Served(way, np.stack(lists), embedded, seconds, duration, way.size)


def seconds_to_add(way: Way, title: str, vector: np.ndarray) -> float:
    """Seconds to take in one more title with a given vector."""
    start = time.perf_counter()
    way.add(title, vector)
    return time.perf_counter() - start


def listed_ranks(lists: np.ndarray, targets: np.ndarray, candidates: int) -> pd.DataFrame:
    """Each target's place in a list (n, k), best first: columns rank and ties, int32.

    A target that is not listed comes after the list, tied with all other candidates outside it.
    """
    hits = lists == targets[:, None]
    listed, k = hits.any(1), lists.shape[1]
    rank = np.where(listed, hits.argmax(1), k)
    return grounding.frame(rank, np.where(listed, 0, max(candidates - k - 1, 0)))


def recall(lists: np.ndarray, queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Share of each list (n, k) that is no farther than the k-th nearest candidate, (n,) float64.

    Of candidates that are equally near, any will do. queries: (n, d), vectors: (I, d).
    """
    n, k = lists.shape
    _, distances = grounding.nearest(queries, vectors, k)
    row, column = torch.arange(n).repeat_interleave(k), torch.from_numpy(lists.ravel())
    squares = l2.squared_distance(torch.from_numpy(queries), row, torch.from_numpy(vectors), column)
    return (squares.sqrt_().numpy().reshape(n, k) <= distances[:, -1:]).mean(1)


# --------------------------------------------------------------------------- large catalogues


def invented(vectors: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Vectors (n, d) float32 that vary as those of the catalogue (I, d) do.

    Each is a title's vector plus half the difference of two others.
    """
    base, plus, minus = rng.integers(len(vectors), size=(3, n))
    return vectors[base] + (vectors[plus] - vectors[minus]) / 2


def growing(
    vectors: np.ndarray,
    sizes: Sequence[int],
    builders: dict[str, Callable[[np.ndarray], Way]],
    requests: int,
    limit: float,
) -> pd.DataFrame:
    """Ways over invented catalogues of growing size, a row for each size and way.

    vectors: (I, d) of real titles; builders: name -> vectors -> way. Columns items, method, build,
    p50, p95 (seconds), recall, size (bytes), gap: why a way is left out, which is where building it
    would take longer than `limit` seconds at the pace of its last size.
    """
    rng = np.random.default_rng(0)
    queries = invented(vectors, requests, rng)
    pace = dict.fromkeys(builders, 0.0)  # seconds to build, per item
    rows = []
    for items in sorted(sizes):
        catalogue = invented(vectors, items, rng)
        for name, build in builders.items():
            row = {"items": items, "method": name, "gap": ""}
            if pace[name] * items > limit:
                rows.append(row | {"gap": f"would take {pace[name] * items:,.0f} s to build"})
                continue
            served = serve(partial(build, catalogue), [""] * requests, queries)
            pace[name] = served.build / items
            p50, p95 = np.quantile(served.seconds, [0.5, 0.95])
            mean_recall = recall(served.lists, queries, catalogue).mean()
            rows.append(
                row
                | {"build": served.build, "p50": p50, "p95": p95}
                | {"recall": mean_recall, "size": served.size}
            )
    columns = ["items", "method", "build", "p50", "p95", "recall", "size", "gap"]
    return pd.DataFrame(rows, columns=columns)
