"""Three real users of a study to follow by hand: a hit, a near miss and a failure of BIGRec."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bigrec_lib.findings import evidence
from bigrec_lib.method import metrics
from bigrec_lib.study import results

SHOWN = 3  # grounded items of each example
K = 20  # places of a list


@dataclass(frozen=True)
class Worked:
    """One example as a reader follows it.

    kind: hit, near miss or failure. history: titles, oldest first. text: what the LLM wrote first;
    '' where the study has no generations. grounded: titles of the nearest items. rank: of the
    target, 0 is the first; ties count with their mean. catalogue: distinct titles.
    """

    kind: str
    example: int
    user: int
    run: str
    history: list[str]
    text: str
    grounded: list[str]
    target: str
    rank: float
    catalogue: int


def choose(ranks: pd.DataFrame) -> dict[str, int]:
    """Kind -> example, of different users, from one run's rows (example, user, rank).

    The hit is the best rank below 20, the near miss the best one from 20 on, and the failure the
    middle one of the rest; the smaller example of equals. A kind that a run lacks is left out.
    """
    left = ranks.sort_values(["rank", "example"])
    chosen = {}
    for kind in ("hit", "near miss", "failure"):
        of_kind = left[left["rank"] < K] if kind == "hit" else left[left["rank"] >= K]
        if of_kind.empty:
            continue
        one = of_kind.iloc[len(of_kind) // 2 if kind == "failure" else 0]
        chosen[kind] = int(one.example)
        left = left[left.user != one.user]
    return chosen


def examples(folder: Path, dataset: str) -> list[Worked]:
    """The three test examples of a data set, from the first seed of BIGRec at its main size.

    Raises StudyError if the study has published no ranks, items or examples.
    """
    ranks = evidence.plain_runs(results.read_ranks(folder))
    ranks = ranks[(ranks.dataset == dataset) & (ranks.method == "bigrec")]
    ranks = ranks[ranks.n_train == evidence.main_size(ranks)]
    run = ranks.loc[ranks.seed == ranks.seed.min(), "run"].min()
    ranks = ranks[ranks.run == run]
    ranks = ranks.assign(rank=metrics.effective_rank(ranks))
    items = results.read(folder, "items.parquet", dataset=dataset).set_index("item").sort_index()
    samples = results.read(folder, "examples.parquet", dataset=dataset, split="test")
    ranks = ranks.merge(samples[["example", "user", "history", "target"]], on="example")
    lists = rows_of(evidence.read_lists(folder), dataset, run)
    beams = rows_of(evidence.read_first_beams(folder), dataset, run)
    shown = []
    for kind, example in choose(ranks).items():
        row = ranks.set_index("example").loc[example]
        grounded = lists["items"].get(example, ())
        shown.append(
            Worked(
                kind=kind,
                example=example,
                user=int(row.user),
                run=run,
                history=[items.title[item] for item in row.history],
                text=beams.text.get(example, "").strip().strip('"'),
                grounded=[items.title[item] for item in grounded[:SHOWN]],
                target=items.title[row.target],
                rank=float(row["rank"]),
                catalogue=items.title_group.nunique(),
            )
        )
    return shown


def rows_of(frame: pd.DataFrame, dataset: str, run: str) -> pd.DataFrame:
    """BIGRec's rows of one run, by example."""
    wanted = (frame.dataset == dataset) & (frame.run == run) & (frame.method == "bigrec")
    return frame[wanted].set_index("example")
