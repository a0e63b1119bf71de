"""Ranks, lists and metrics: the one way a job writes them, and the one way they are read.

A job's files hold its own rows. What a study publishes is the same files of all jobs, one below
the other, with the columns of `row_keys.KEYS` in front (`publish`).

    ranks.parquet        split, method, example, rank, ties
    lists.parquet        method, example, items: its first candidates on the test split, best first;
                         -1 is a title of another data set
    generations.parquet  split, example, beam, text, score
    curves.parquet       split, weights, gamma, metric, k, value, n: HR and NDCG over the γ of
                         popularity; 'own' and 'theirs' of all weights (`reweighting.own_or_theirs`)
    explorer.parquet     example, weights, gamma (the chosen one), prompt; low, high (its smallest
                         and largest distance); items, logs (log D̂), pulls (log(1 + W)) of its
                         contenders; gammas, and the target's rank and ties at each
    grid.csv             conventional models: each point of the grid, and which was chosen
    data.csv             what, value: a data set in numbers
    measures.csv         what, method, value: what a measuring job counted
    values.parquet       split, what, method, example, value: what it measured of each example
    selections.parquet   arm, budget, draw, place, example; popularity, length, age, words: what
                         13a has chosen, in its order, and what it is like
    items.parquet        item, title, title_group, train_count
    examples.parquet     split, example, user, history, target, time, tied, draw
    metrics.csv          `metrics.COLUMNS`
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.files import StudyError, write_parquet, write_text
from bigrec_lib.method import metrics
from bigrec_lib.method.prepared import Prepared
from bigrec_lib.study.parameters_runs import RunParameters
from bigrec_lib.study.row_keys import KEYS

EXPLORED = 200
"""Test examples that can be explored, the first of the drawing."""

Ranks = dict[tuple[str, str], pd.DataFrame]
"""(method, split) -> columns rank and ties, int32, a row an example."""


def write(
    p: RunParameters,
    model: str,
    data: Prepared,
    examples: dict[str, np.ndarray],
    ranks: Ranks,
    lists: dict[str, np.ndarray],
    extra: dict[tuple[str, str], pd.DataFrame] | None = None,
) -> None:
    """Write a job's ranks, lists and metrics.

    examples: split -> the examples that ranks and lists are of, in their order. lists: method ->
    (n, K) candidates of the test examples, best first; each is listed as the first item that bears
    its title; -1, a title of another data set, stays -1. extra: (method, split) ->
    `metrics.summary` of what has no ranks of its own.
    """
    write_parquet(rank_rows(ranks, examples), p.output / "ranks.parquet")
    first_items = np.unique(data.items.title_group).astype(np.int32)
    write_parquet(list_rows(lists, examples["test"], first_items), p.output / "lists.parquet")
    summaries = {key: metrics.summary(frame) for key, frame in ranks.items()} | (extra or {})
    write_text(metrics.long(summaries, model).to_csv(index=False), p.output / "metrics.csv")


def write_measures(
    p: RunParameters, measures: pd.DataFrame, values: pd.DataFrame | None = None
) -> None:
    """Write what a measuring job counted, beside ranks and lists; seconds go into its manifest.

    measures: columns what, method ('' where it is of none), value (a number). values: columns
    split, what, method, example, value; written as float32.
    """
    write_text(measures[["what", "method", "value"]].to_csv(index=False), p.output / "measures.csv")
    if values is None:
        return
    rows = values[["split", "what", "method", "example", "value"]]
    rows = rows.astype({"example": np.int32, "value": np.float32})
    write_parquet(rows.reset_index(drop=True), p.output / "values.parquet")


def write_explorer(
    p: RunParameters,
    data: Prepared,
    contenders: pd.DataFrame,
    examples: np.ndarray,
    prompts: list[str],
    gamma_of: dict[str, float],
    gammas: np.ndarray,
) -> None:
    """Write what it takes to rank some examples again at any γ.

    contenders: `contenders.table`; examples, prompts: (n,) of its rows, in their order; gamma_of:
    weights -> the chosen γ; gammas: (G,).
    """
    first_items = np.unique(data.items.title_group).astype(np.int32)
    _, places = np.unique(contenders.row, return_inverse=True)
    columns = ["example", "weights", "gamma", "prompt", "low", "high"]
    columns += ["items", "logs", "pulls", "gammas", "rank", "ties"]
    frame = contenders.assign(
        example=examples[places],
        gamma=contenders.weights.map(gamma_of),
        prompt=[prompts[place] for place in places],
        items=[first_items[candidates] for candidates in contenders.candidates],
        gammas=[gammas] * len(places),
    )
    write_parquet(frame[columns], p.output / "explorer.parquet")


def rank_rows(ranks: Ranks, examples: dict[str, np.ndarray]) -> pd.DataFrame:
    """All ranks in one frame: columns split, method, example, rank, ties."""
    columns = ["split", "method", "example", "rank", "ties"]
    return pd.concat(
        [
            frame.assign(split=split, method=method, example=examples[split])[columns]
            for (method, split), frame in ranks.items()
        ],
        ignore_index=True,
    )


def list_rows(
    lists: dict[str, np.ndarray], examples: np.ndarray, first_items: np.ndarray
) -> pd.DataFrame:
    """All lists in one frame: columns method, example, items.

    lists: method -> (n, K) candidates; first_items: (I,) the first item of each candidate.
    """
    item_of = np.append(first_items, np.int32(-1))  # -1 stays -1
    frames = [
        pd.DataFrame({"method": method, "example": examples, "items": list(item_of[candidates])})
        for method, candidates in lists.items()
    ]
    return pd.concat(frames, ignore_index=True)


def read(results: Path, name: str, **values: object) -> pd.DataFrame:
    """A published table, such as ranks.parquet, or its rows whose columns have these `values`.

    Keys that are younger than the study get the value that means nothing (`row_keys.KEYS`).
    Raises StudyError if the study has published no such table.
    """
    path = results / name
    if not path.exists():
        raise StudyError(f"no {name} in {results}: run the study first")
    if path.suffix == ".csv":
        words = {key: str for key, default in KEYS.items() if default == ""}
        frame = pd.read_csv(path, keep_default_na=False, na_values=["nan"], dtype=words)
        for column, value in values.items():
            frame = frame[frame[column] == value]
        frame = frame.reset_index(drop=True)
    else:
        filters = [(column, "=", value) for column, value in values.items()] or None
        frame = pd.read_parquet(path, filters=filters)
    defaults = {key: default for key, default in KEYS.items() if key not in frame}
    return frame.assign(**defaults) if "run" in frame else frame


def read_ranks(results: Path, split: str = "test") -> pd.DataFrame:
    """Every method's ranks of a study: `row_keys.KEYS`, method, example, rank, ties.

    Methods are a category: comparing millions of strings takes a tenth of a second each time.
    """
    ranks = read(results, "ranks.parquet", split=split).drop(columns="split")
    return ranks.astype({"method": "category"})


def read_lists(results: Path) -> pd.DataFrame:
    """Every method's first candidates: `row_keys.KEYS`, method, example, items."""
    return read(results, "lists.parquet").astype({"method": "category"})
