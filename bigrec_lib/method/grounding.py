"""Step 2: from the text an LLM wrote to the place of every catalogue item, by L2 distance.

A rank is the number of candidates strictly nearer than the target, counted over the whole
catalogue; nothing is sorted. `ties` is the number of other candidates exactly as near.

Candidates are titles, not rows: namesakes have one embedding, so they are one candidate
(`prepared.candidates`). The authors' code ranks rows, and so does `reference_ranks`
(docs/method.md, quirk 6).

Ranks are those of distances in fp64, taken from differences. Subtracting the mean title changes no
distance, but makes the numbers small, so that one fp32 matrix product decides almost every
comparison. The few candidates whose distance differs from the target's by no more than a generous
bound on the rounding of the product (`l2.rounding`) are measured again in fp64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from bigrec_lib.files import StudyError
from bigrec_lib.method import l2, prompts


class GroundingError(StudyError):
    """Generations cannot be grounded to the catalogue."""


# -------------------------------------------------------------------------------- distances


def distances(queries, vectors, targets: np.ndarray | None = None) -> np.ndarray:
    """L2 distance of every query to every candidate, (n, I) float64; an exact match gives 0.

    queries: (n, d), vectors: (I, d), arrays or tensors of floats. targets: (n,) candidates; those
    as near as a query's target get exactly its distance.
    """
    queries, vectors = checked(queries, "queries"), checked(vectors, "vectors")
    same_width(queries, vectors)
    goal = torch.zeros(len(queries), dtype=torch.float64)
    if targets is not None:
        columns = checked_targets(targets, len(queries), len(vectors))
        goal = l2.squared_distance(queries, torch.arange(len(queries)), vectors, columns)
    return l2.squared_distances(queries, vectors, goal).sqrt_().numpy()


# ------------------------------------------------------------------------------------ ranks


def ranks(
    queries, vectors, targets: np.ndarray, seen: Sequence[np.ndarray] | None = None
) -> pd.DataFrame:
    """Each query's target among all candidates: columns rank and ties, int32, one row a query.

    queries: (n, d), vectors: (I, d), arrays or tensors of floats (bf16 tensors too); targets:
    (n,) candidate numbers. seen: candidates to leave out, per query; the target always stays in.
    Memory besides the arguments: two copies of the queries, a few blocks of l2.ROWS x l2.COLUMNS.
    Raises GroundingError for values that are not finite, other shapes, or unknown targets.
    """
    queries, vectors = checked(queries, "queries"), checked(vectors, "vectors")
    same_width(queries, vectors)
    targets = checked_targets(targets, len(queries), len(vectors))
    goal = l2.squared_distance(queries, torch.arange(len(queries)), vectors, targets)  # (n,) fp64
    nearer, ties = torch.zeros((2, len(queries)), dtype=torch.int64)

    def settle(row: Tensor, column: Tensor, sign: int) -> None:
        """Count pairs by their exact distance."""
        exact = l2.squared_distance(queries, row, vectors, column)
        nearer.index_add_(0, row, sign * (exact < goal[row]).long())
        ties.index_add_(0, row, sign * (exact == goal[row]).long())

    different, of_query = distinct(queries)
    for rows, start, score, norms, error in l2.products(different, vectors):
        asking = ((of_query >= rows.start) & (of_query < rows.stop)).nonzero().flatten()
        which = of_query[asking] - rows.start
        middle, error = goal[asking] - norms[which, 0], error[which, 0]
        low, high = (middle - error).float(), (middle + error).float()
        counts, row, column = l2.compared(score, which, low, high)
        nearer[asking] += counts
        settle(asking[row], start + column, +1)
    if seen is not None:
        settle(*left_out(seen, targets), -1)
    return frame(nearer, ties - 1)  # the target ties with itself


def distinct(queries: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of (n, d), and which of them each row is, (n,) int64.

    Users who are told the same need one product between them.
    """
    numbers: dict[bytes, int] = {}
    rows = queries.contiguous().view(torch.uint8).numpy()
    of_query = [numbers.setdefault(row.tobytes(), len(numbers)) for row in rows]
    _, firsts = np.unique(of_query, return_index=True)
    return queries[torch.from_numpy(firsts)], torch.tensor(of_query)


def left_out(seen: Sequence[np.ndarray], targets: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs (query, candidate) to leave out: each once, and never the target."""
    lists = [np.setdiff1d(items, target) for items, target in zip(seen, targets, strict=True)]
    row = np.repeat(np.arange(len(lists)), [len(items) for items in lists])
    column = np.concatenate([*lists, np.empty(0)]).astype(np.int64)
    return torch.from_numpy(row), torch.from_numpy(column)


def counted(keys: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """Each target's place where a smaller key is better: columns rank and ties, int32.

    keys: (n, I), or (I,) if they are the same for every example: distances, or scores negated.
    Raises GroundingError for NaN keys or unknown targets.
    """
    keys = np.atleast_2d(keys)
    bad = np.isnan(keys).any(axis=1)
    if bad.any():
        raise GroundingError(f"row {int(bad.argmax())} of the keys holds NaN: score it again")
    targets = checked_targets(targets, len(targets), keys.shape[1]).numpy()
    if len(keys) == 1:
        ascending, goal = np.sort(keys[0]), keys[0, targets]
        nearer = np.searchsorted(ascending, goal)
        ties = np.searchsorted(ascending, goal, side="right") - nearer - 1
    else:
        goal = np.take_along_axis(keys, targets[:, None], axis=1)
        nearer, ties = (keys < goal).sum(1), (keys == goal).sum(1) - 1
    return frame(nearer, ties)


def frame(rank, ties) -> pd.DataFrame:
    """Ranks and ties (n,) as columns of int32."""
    return pd.DataFrame({"rank": np.asarray(rank, np.int32), "ties": np.asarray(ties, np.int32)})


def reference_ranks(rows: pd.DataFrame, namesakes: np.ndarray, policy: str) -> pd.DataFrame:
    """Ranks as the authors' code has them, from those over all rows (namesakes not merged).

    rows: columns rank and ties. namesakes: (n,) number of other rows with the target's title, which
    tie with it. policy: 'last' (movies: a title stands for its last row, which comes after its
    namesakes) or 'best' (games: the best-placed namesake counts).
    """
    shift = {"last": namesakes, "best": 0}[policy]
    return frame(rows["rank"] + shift, rows["ties"] - namesakes)


# ------------------------------------------------------------------------- several generations


def texts(generations: pd.DataFrame, examples: Sequence[int]) -> np.ndarray:
    """The titles generated for each example, best beam first, (n, B) str.

    generations: columns example, beam, text. Raises GroundingError for an example without all
    its beams.
    """
    return of_beams(generations, examples, "text").map(prompts.title_of).to_numpy().astype(str)


def beam_scores(generations: pd.DataFrame, examples: Sequence[int]) -> np.ndarray:
    """The score of each beam, sum of log-probabilities / length**length_penalty: (n, B) float64.

    By default that is the mean of a token. Arguments and errors are those of `texts`.
    """
    return of_beams(generations, examples, "score").to_numpy(np.float64)


def of_beams(generations: pd.DataFrame, examples: Sequence[int], column: str) -> pd.DataFrame:
    """A column of the generations as a table: a row per example, a column per beam."""
    table = generations.pivot(index="example", columns="beam", values=column).reindex(examples)
    missing = table.isna().any(axis=1).to_numpy()
    if missing.any():
        raise GroundingError(
            f"example {examples[int(missing.argmax())]} has not all its generations: generate the "
            "titles again"
        )
    return table


def all_beams(
    queries: np.ndarray, vectors: np.ndarray, scores: np.ndarray, targets: np.ndarray, k: int
) -> tuple[dict[str, pd.DataFrame], dict[str, np.ndarray]]:
    """The catalogue ranked by all beams of an example together, in each of the `merged` ways.

    queries: (n, B, d), vectors: (I, d), scores: (n, B) of the beams, targets: (n,).
    Returns two dictionaries by the name of the way: each target's place (columns rank and ties,
    int32), and the first k candidates (n, k) int64; of equals the one with the smaller number
    comes first.
    """
    n, beams, d = queries.shape
    step = max(1, 2**23 // (beams * len(vectors)))
    places: dict[str, list[pd.DataFrame]] = {}
    lists: dict[str, list[np.ndarray]] = {}
    for start in tqdm(range(0, n, step), desc="all beams", unit="block"):
        rows = slice(start, start + step)
        block, beam_targets = queries[rows].reshape(-1, d), targets[rows].repeat(beams)
        beam_distances = distances(block, vectors, beam_targets).reshape(-1, beams, len(vectors))
        for way, keys in merged(beam_distances, scores[rows]).items():
            places.setdefault(way, []).append(counted(keys, targets[rows]))
            lists.setdefault(way, []).append(first(keys, k))
    return (
        {way: pd.concat(parts, ignore_index=True) for way, parts in places.items()},
        {way: np.concatenate(parts) for way, parts in lists.items()},
    )


def merged(beam_distances: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Keys (n, I) of each way to merge the beams, from distances (n, B, I) and scores (n, B)."""
    return {
        "nearest-beam": nearest_beam(beam_distances),
        "interleaved": interleaved(beam_distances),
        "weighted-beams": weighted_beams(beam_distances, scores),
    }


def nearest_beam(beam_distances: np.ndarray) -> np.ndarray:
    """Keys (n, I) from distances (n, B, I): a candidate is as near as its nearest beam."""
    return beam_distances.min(axis=1)


def interleaved(beam_distances: np.ndarray) -> np.ndarray:
    """Keys (n, I) from distances (n, B, I): the beams' lists merged in turn.

    The first of each list in the order of the beams, then the second of each, and so on; a
    candidate stands where it appears first.
    """
    order = beam_distances.argsort(axis=2)
    ascending = np.take_along_axis(beam_distances, order, axis=2)
    rises = np.diff(ascending, axis=2, prepend=-np.inf) > 0
    firsts = np.where(rises, np.arange(beam_distances.shape[2]), 0)
    firsts = np.maximum.accumulate(firsts, axis=2)  # equally near candidates share a place
    places = np.empty_like(order)
    np.put_along_axis(places, order, firsts, axis=2)
    beams = beam_distances.shape[1]
    return (places * beams + np.arange(beams)[:, None]).min(axis=1)


def weighted_beams(beam_distances: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Keys (n, I) from distances (n, B, I) and scores (n, B): a candidate's mean distance.

    A beam weighs as much as the softmax of the example's scores says.
    """
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    return (chances[:, :, None] * beam_distances).sum(axis=1)


def contrastive(titles: np.ndarray, scores: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """The beam of each example that is likely for it, and rare elsewhere, (n,) int64.

    titles: (n, B) of `texts`, scores: (n, B), prior: (m, B) titles of many examples. It is the beam
    with the highest score minus log(1 + how often its title is in the prior); of equals the first.
    This way is ours: the paper takes the first beam.
    """
    counts = pd.Series(prior.ravel()).value_counts().reindex(titles.ravel(), fill_value=0)
    return (scores - np.log1p(counts.to_numpy().reshape(titles.shape))).argmax(axis=1)


# -------------------------------------------------------------------------------------- lists


def nearest(queries, vectors, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest candidates of each query, nearest first: numbers (n, k) int64, and their L2
    distances (n, k) float64.

    queries: (n, d), vectors: (I, d); lists are (n, I) if k is larger than I. Of equal distances the
    candidate with the smaller number comes first. Raises GroundingError for values that are not
    finite.
    """
    queries, vectors = checked(queries, "queries"), checked(vectors, "vectors")
    k, step = min(k, len(vectors)), max(1, 2**22 // len(vectors))
    parts = [nearest_of_few(block, vectors, k) for block in queries.split(step)]
    return (
        np.concatenate([numbers for numbers, _ in parts]),
        np.concatenate([l2_distances for _, l2_distances in parts]),
    )


def nearest_of_few(queries: Tensor, vectors: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """`nearest` for queries whose distances to all candidates fit into memory."""
    rough = l2.rough_squares(queries, vectors)
    scores = torch.cat([block for _, block in l2.blocks(rough.scores, len(queries))], 1).numpy()
    kth = np.partition(scores, k - 1, axis=1)[:, k - 1 : k]
    limit = kth + 2 * rough.error.numpy()[:, None]  # of what may be among the first k
    row, column = np.nonzero(scores <= limit)
    pairs = queries, torch.from_numpy(row), vectors, torch.from_numpy(column)
    l2_distances = l2.squared_distance(*pairs).sqrt_().numpy()
    top = smallest(row, l2_distances, k)
    return column[top].reshape(-1, k), l2_distances[top].reshape(-1, k)


def first(keys: np.ndarray, k: int) -> np.ndarray:
    """The k candidates with the smallest keys, (n, k) int64, from keys (n, I), smallest first.

    Of equal keys the candidate with the smaller number comes first. Lists are (n, I) if k is larger
    than I.
    """
    k = min(k, keys.shape[1])
    row, column = np.nonzero(keys <= np.partition(keys, k - 1, axis=1)[:, k - 1 : k])
    return column[smallest(row, keys[row, column], k)].reshape(-1, k)


def smallest(row: np.ndarray, key: np.ndarray, k: int) -> np.ndarray:
    """Which of some pairs (row, key) hold the k smallest keys of each row, in order; the first of
    equals. row: (P,) rising, each number at least k times; key: (P,)."""
    order = np.lexsort((key, row))
    return order[np.arange(len(row)) - np.searchsorted(row, row) < k]


def unseen(
    lists: np.ndarray, seen: Sequence[np.ndarray], targets: np.ndarray, k: int
) -> np.ndarray:
    """The first k of longer lists (n, K) without what each user has seen; the target stays in.

    (n, k), or as many columns as every list has left. seen, targets: as in `ranks`.
    """
    mask = np.stack([np.isin(*pair) for pair in zip(lists, seen, strict=True)])  # (n, K)
    mask &= lists != targets[:, None]
    width = min(k, int((~mask).sum(1).min()))
    places = np.argsort(mask, axis=1, kind="stable")[:, :width]
    return np.take_along_axis(lists, places, axis=1)


# ------------------------------------------------------------------------------------ bad input


def checked(vectors, name: str) -> Tensor:
    """A (n, d) tensor of finite numbers, not copied."""
    vectors = torch.as_tensor(vectors)
    if vectors.ndim != 2 or not len(vectors):
        raise GroundingError(f"{name} must be a matrix with a row each, not {tuple(vectors.shape)}")
    for start in range(0, len(vectors), l2.COLUMNS):
        total = vectors[start : start + l2.COLUMNS].sum(1, dtype=torch.float32)
        if not total.isfinite().all():
            row = start + int((~total.isfinite()).nonzero()[0])
            raise GroundingError(f"row {row} of {name} holds NaN or infinity: embed it again")
    return vectors


def same_width(queries: Tensor, vectors: Tensor) -> None:
    if queries.shape[1] != vectors.shape[1]:
        raise GroundingError(
            f"queries have {queries.shape[1]} dimensions and candidates {vectors.shape[1]}: "
            "embed both with the same model"
        )


def checked_targets(targets: np.ndarray, n: int, n_items: int) -> Tensor:
    """Targets as (n,) int64, all of them candidates."""
    targets = torch.tensor(np.asarray(targets), dtype=torch.int64)
    if targets.shape != (n,):
        raise GroundingError(f"{n} queries need {n} targets, not {tuple(targets.shape)}")
    outside = (targets < 0) | (targets >= n_items)
    if outside.any():
        raise GroundingError(
            f"target {int(targets[outside][0])} of row {int(outside.nonzero()[0])} is not in the "
            f"catalogue of {n_items} candidates"
        )
    return targets
