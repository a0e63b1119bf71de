"""Conventional recommenders under BIGRec's protocol: same samples, catalogue, examples and ties.

Yardsticks     random, popularity: there is nothing to choose.
Statistics     recent popularity, item kNN, Markov chain: nothing is trained.
Networks       GRU4Rec, Caser, SASRec, DROS (`networks`).

Each learns from the windows of its samples. A window holds several steps "these items, then that
one". Networks and the Markov chain learn each of them (`windows.steps`): the same interactions as
BIGRec's LLM. In their form '-last' they learn only the last step of each window, its target: the
same targets as the LLM. Settings are chosen on the validation examples, from as many points for
each network, and what was trained is kept.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from bigrec_lib.files import claim, remove, write_json
from bigrec_lib.method import networks
from bigrec_lib.method.networks import BEGUN, HEADS, NETWORKS, Diverged, Settings
from bigrec_lib.method.windows import (
    BaselineError,
    Scorer,
    Windows,
    steps,
    valid_ndcg,
    whole_users,
)

GRID = ("learning_rate", "weight_decay", "dropout", "width")  # what is chosen on validation
MANY = 1 << 20  # consumed items from which on similarities are computed once, ...
PRODUCTS = 1 << 28  # ... if there are at most so many
FEW_TIMES = 10  # different times; with so few, samples are not in the order of their time

# ----------------------------------------------------------------------------------- statistics


def consumed(samples: Windows) -> sparse.csr_array:
    """Who has which candidate in a window, (users, I), ones and zeros."""
    ids, user = np.unique(samples.users, return_inverse=True)
    parts = []
    for numbers in whole_users(samples.users):
        rows = samples.take(numbers).rows
        pairs = user[numbers, None] * samples.n_items + rows
        parts.append(np.sort(pd.unique(pairs[rows != samples.n_items])))
    row, column = np.divmod(np.concatenate(parts), samples.n_items)
    starts = np.searchsorted(row, np.arange(len(ids) + 1))
    ones = np.ones(len(row), dtype=np.float32)
    return sparse.csr_array((ones, column, starts), shape=(len(ids), samples.n_items))


def popularity(samples: Windows) -> np.ndarray:
    """How many users have each candidate in a window, (I,) float64."""
    return consumed(samples).sum(axis=0, dtype=np.float64)


def most_popular(samples: Windows) -> Scorer:
    """The same for everybody: what most users have."""
    return always(popularity(samples))


def random(n_items: int, seed: int) -> Scorer:
    """Random scores, drawn for each history: the same history always gets the same ones."""

    def score(histories: np.ndarray) -> np.ndarray:
        scores = [np.random.default_rng([seed, *row]).random(n_items) for row in histories]
        return np.array(scores, dtype=np.float32)

    return score


def recently_popular(samples: Windows, share: float) -> Scorer:
    """What most users have in the last part of the samples' time span. share: that part of it.

    Ties are broken by what most users have in all samples, as far as float32 tells scores apart.
    """
    first, last = samples.times.min(), samples.times.max()
    recent = popularity(samples.take(samples.times >= last - share * (last - first)))
    overall = popularity(samples)
    return always(recent + overall / (overall.sum() + 1))


def timed(samples: Windows) -> bool:
    """Whether the samples have times that tell the latest from the others."""
    return len(np.unique(samples.times)) > FEW_TIMES


def always(scores: np.ndarray) -> Scorer:
    return lambda histories: np.tile(scores.astype(np.float32), (len(histories), 1))


def item_knn(samples: Windows, decay: float) -> Scorer:
    """Cosine similarity, over users, to the items of the history.

    An item counts `decay` times as much as the one after it, and nothing for itself.
    """
    unit, cosines = cosine_parts(samples)
    diagonal = unit.sum(axis=0) > 0  # of the cosines: an item's with itself

    def score(histories: np.ndarray) -> np.ndarray:
        n, length = histories.shape
        row, place = np.nonzero(histories != samples.n_items)
        weights = (decay ** (length - 1 - place)).astype(np.float32)
        items = sparse.csr_array(
            (weights, (row, histories[row, place])), shape=(n, samples.n_items)
        )
        sums = (items @ unit.T) @ unit if cosines is None else items @ cosines
        return (sums - items.multiply(diagonal)).toarray().astype(np.float32)

    return score


@lru_cache(maxsize=1)
def cosine_parts(samples: Windows) -> tuple[sparse.csr_array, sparse.csr_array | None]:
    """Who has what, every column of length 1, (users, I); and the products of all columns, (I, I).

    The products are None where they gain little, or could be too many for the memory: each score is
    then a sum over users.
    """
    ones = consumed(samples)
    lengths = np.sqrt(ones.sum(axis=0))
    unit = ones.multiply(1 / np.maximum(lengths, 1)).tocsr()
    bound = min(samples.n_items**2, (ones.sum(axis=1, dtype=np.float64) ** 2).sum())
    return unit, unit.T @ unit if ones.nnz >= MANY and bound <= PRODUCTS else None


def markov(training: Windows, smoothing: float) -> Scorer:
    """The chance of each item after the newest one, smoothed (Dirichlet) towards its chance after
    any. smoothing: how many observations that is worth."""
    size = (training.n_items, training.n_items)
    pairs = (training.histories[:, -1], training.targets)
    transitions = sparse.csr_array((np.ones(len(training)), pairs), shape=size)
    prior = np.bincount(training.targets, minlength=training.n_items) / len(training)

    def score(histories: np.ndarray) -> np.ndarray:
        counts = transitions[histories[:, -1]].toarray()
        total = counts.sum(axis=1, keepdims=True) + smoothing
        return ((counts + smoothing * prior) / total).astype(np.float32)

    return score


STATISTICS: dict[str, tuple[Callable[[Windows, float], Scorer], tuple[float, ...]]] = {
    "recent-popularity": (recently_popular, (0.01, 0.03, 0.1, 0.3, 0.6, 1.0)),
    "item-knn": (item_knn, (0.3, 0.5, 0.7, 0.8, 0.9, 1.0)),
    "markov": (markov, (1.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)),
}
"""Method -> what makes its scorer, and the values of its one setting that are tried."""

LAST = "-last"
STEPWISE = ("markov", *(name for name in NETWORKS if name != BEGUN))
"""Conventional models that learn steps, and so have a form LAST."""


def forms(models: Sequence[str], samples: Windows, full: bool) -> list[str]:
    """The methods to search: each model, and unless `full` its form LAST if it has one.

    Leaves out recent popularity, and says so, if the samples have no real times.
    """
    methods = []
    for model in models:
        if model == "recent-popularity" and not timed(samples):
            print(
                f"recent-popularity is left out: {len(samples):,} samples have "
                f"{len(np.unique(samples.times))} different times, so none is recent"
            )
            continue
        methods.append(model)
        if model in STEPWISE and not full:
            methods.append(model + LAST)
    return methods


# -------------------------------------------------------------------------- the choice of settings


@dataclass(frozen=True)
class Found:
    """A method with what was chosen for it.

    grid: a row for every point: method, its settings, epochs, valid_ndcg, chosen. curve: of the
    chosen point: method, epoch, train_loss, valid_ndcg. seconds: of all points together.
    """

    score: Scorer
    grid: pd.DataFrame
    curve: pd.DataFrame
    seconds: float


def grid(
    learning_rates: Sequence[float],
    weight_decays: Sequence[float],
    dropouts: Sequence[float],
    widths: Sequence[int],
    **fixed: int,
) -> list[Settings]:
    """Every combination, the same for all networks.

    fixed: epochs, patience, batch_size and seed. Raises BaselineError for an empty list, or a width
    that HEADS does not divide.
    """
    lists = (learning_rates, weight_decays, dropouts, widths)
    empty = [f"{name}s" for name, values in zip(GRID, lists, strict=True) if not values]
    if empty:
        raise BaselineError(f"the grid is empty: give at least one value for {', '.join(empty)}")
    misfits = [width for width in widths if width % HEADS]
    if misfits:
        raise BaselineError(f"width {misfits[0]} does not divide into the {HEADS} heads of SASRec")
    return [Settings(*point, **fixed) for point in itertools.product(*lists)]


def search(
    method: str,
    points: Sequence[Settings],
    samples: Windows,
    valid: Windows,
    folder: Path,
    device: str = "cpu",
    vectors: np.ndarray | None = None,
) -> Found:
    """Try a method's settings and keep what has the best validation NDCG@20.

    method: of STATISTICS or NETWORKS, or one of STEPWISE in its form LAST. samples: what is learnt
    from; valid: what settings are chosen on. points: the settings of a network; a statistic has its
    own. vectors: (I, D) of the candidates, which networks.BEGUN starts from. Each point is stored
    in `folder` as soon as it is tried, and not tried again. A run that diverges stays in the table,
    its valid_ndcg NaN. Raises BaselineError if every point diverges, for an unknown method, an
    empty grid and networks.BEGUN without vectors; StudyError if `folder` holds other work.
    """
    model = model_of(method)
    tries = settings_of(model, points)
    identity = {
        "method": method,
        "tries": json.loads(json.dumps([shown(settings) for settings in tries])),
        "samples": samples.digest,
        "valid": valid.digest,
    }
    if model == BEGUN:
        if vectors is None:
            raise BaselineError(f"{method} starts from vectors of the titles: give them")
        identity["vectors"] = hashlib.sha256(vectors.tobytes()).hexdigest()
    claim(folder / "work.json", identity)
    start = vectors if model == BEGUN else None
    training = steps(samples) if method in (*STEPWISE, BEGUN) else samples
    results = [
        stored(folder / f"{number}.json", model, settings, training, valid, device, start)
        for number, settings in enumerate(tries)
    ]
    best = best_of(method, results)
    for number in set(range(len(tries))) - {best}:
        remove(folder / f"{number}.safetensors")
    return Found(
        scorer_of(model, tries[best], training, folder / f"{best}.safetensors", device),
        rows_of(method, tries, results).assign(chosen=np.arange(len(tries)) == best),
        pd.DataFrame(results[best]["curve"]).astype({"train_loss": float}).assign(method=method),
        sum(result["seconds"] for result in results),
    )


def tried(folder: Path) -> list[dict[str, Any]]:
    """The result of each point that `search` has stored in `folder`, in the order of the grid."""
    n = len(json.loads((folder / "work.json").read_text(encoding="utf-8"))["tries"])
    return [json.loads((folder / f"{i}.json").read_text(encoding="utf-8")) for i in range(n)]


def reopened(method: str, samples: Windows, folder: Path, device: str = "cpu") -> Scorer:
    """The scorer that `search` chose, from what it has stored; nothing is trained.

    samples: those that it learnt from.
    """
    tries = json.loads((folder / "work.json").read_text(encoding="utf-8"))["tries"]
    best = best_of(method, tried(folder))
    model = model_of(method)
    settings = tries[best]["value"] if model in STATISTICS else Settings(**tries[best])
    training = steps(samples) if method in (*STEPWISE, BEGUN) else samples
    return scorer_of(model, settings, training, folder / f"{best}.safetensors", device)


def model_of(method: str) -> str:
    """A method without its form. Raises BaselineError if there is no such method."""
    if method in [*STATISTICS, *NETWORKS, *(model + LAST for model in STEPWISE)]:
        return method.removesuffix(LAST)
    names = ", ".join([*STATISTICS, *NETWORKS])
    raise BaselineError(
        f"unknown method {method!r}: choose from {names}; of {', '.join(STEPWISE)} also '...{LAST}'"
    )


def best_of(method: str, results: Sequence[dict[str, Any]]) -> int:
    """The number of the first point with the best valid_ndcg, from the results of `stored`.

    Raises BaselineError if all diverged.
    """
    values = [-1.0 if r["valid_ndcg"] is None else r["valid_ndcg"] for r in results]
    if max(values) < 0:
        raise BaselineError(f"{method}: every point of the grid diverged: lower the learning rates")
    return values.index(max(values))


def rows_of(
    method: str, tries: Sequence[Settings | float], results: Sequence[dict[str, Any]]
) -> pd.DataFrame:
    """A row for every point: method, its settings, epochs, valid_ndcg (NaN if it diverged)."""
    rows = [
        {"method": method}
        | searched(settings)
        | {name: result[name] for name in ("epochs", "valid_ndcg")}
        for settings, result in zip(tries, results, strict=True)
    ]
    return pd.DataFrame(rows).astype({"valid_ndcg": float})


def settings_of(model: str, points: Sequence[Settings]) -> list[Settings | float]:
    """The settings to try: those of the grid, or the values of a statistic."""
    if model in STATISTICS:
        return list(STATISTICS[model][1])
    if not points:
        raise BaselineError(f"{model}: the grid is empty")
    return list(points)


def shown(settings: Settings | float) -> dict[str, Any]:
    """All settings of one point."""
    return asdict(settings) if isinstance(settings, Settings) else {"value": settings}


def searched(settings: Settings | float) -> dict[str, Any]:
    """The settings that the grid is over."""
    values = shown(settings)
    return {name: values[name] for name in GRID} if isinstance(settings, Settings) else values


def stored(
    path: Path,
    model: str,
    settings: Settings | float,
    training: Windows,
    valid: Windows,
    device: str,
    vectors: np.ndarray | None,
) -> dict[str, Any]:
    """The result of a point of the grid: epochs, valid_ndcg, curve, seconds; from `path` if there.

    valid_ndcg is None if it diverged. A network's weights are written beside `path`.
    """
    if not path.exists():
        start = time.perf_counter()
        try:
            curve = attempt(
                path.with_suffix(".safetensors"), model, settings, training, valid, device, vectors
            )
        except Diverged as error:
            print(f"left out: {error}, with {searched(settings)}")
            curve = pd.DataFrame(columns=["epoch", "train_loss", "valid_ndcg"])
        rows = curve.astype(object).where(curve.notna(), None).to_dict("records")
        result = {
            "epochs": len(curve),
            "valid_ndcg": float(curve.valid_ndcg.max()) if len(curve) else None,
            "curve": rows,
            "seconds": round(time.perf_counter() - start, 2),
        }
        write_json(result, path)
    return json.loads(path.read_text(encoding="utf-8"))


def attempt(
    weights: Path,
    model: str,
    settings: Settings | float,
    training: Windows,
    valid: Windows,
    device: str,
    vectors: np.ndarray | None,
) -> pd.DataFrame:
    """Train a network and write its weights, or evaluate a statistic; the curve of validation."""
    if isinstance(settings, Settings):
        network, curve = networks.train(model, training, valid, settings, device, vectors)
        networks.save(network, weights)
        return curve
    score = STATISTICS[model][0](training, settings)
    return pd.DataFrame(
        [{"epoch": 0, "train_loss": math.nan, "valid_ndcg": valid_ndcg(score, valid)}]
    )


def scorer_of(
    model: str, settings: Settings | float, training: Windows, weights: Path, device: str
) -> Scorer:
    """A model as a scorer, with the settings that were chosen."""
    if isinstance(settings, Settings):
        return networks.scorer(networks.load(model, weights, training, settings, device))
    return STATISTICS[model][0](training, settings)
