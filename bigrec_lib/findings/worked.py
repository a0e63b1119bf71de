"""The few test examples that the analyses work through by hand, and the words for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bigrec_lib.files import StudyError
from bigrec_lib.findings import evidence
from bigrec_lib.method import metrics, prompts
from bigrec_lib.study import results

SHOWN = 3  # grounded items of each example


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


def targets(folder: Path, dataset: str, split: str = "test") -> dict[int, str]:
    """Example -> the title its user went on to; none where a study published no examples."""
    try:
        items = results.read(folder, "items.parquet", dataset=dataset)
        samples = results.read(folder, "examples.parquet", dataset=dataset, split=split)
    except StudyError:
        return {}
    titles = items.set_index("item").title
    return dict(zip(samples.example, titles.reindex(samples.target), strict=True))


def by_title(table: pd.DataFrame, titles: dict[int, str]) -> pd.DataFrame:
    """A table whose rows are examples, with the titles of their targets as its index."""
    names = [titles.get(example, f"example {example}") for example in table.index]
    return table.set_axis(pd.Index(names, name="the user went on to"))


def kinds(folder: Path, ranks: pd.DataFrame) -> dict[str, int]:
    """Kind -> example: the hit, the near miss and the failure of one run (`metrics.showcase`).

    ranks: BIGRec's `scored` test ranks of the run, as 04 wrote them: columns dataset, run, user,
    example, rank, ties. A study without generations counts nothing as invented.
    """
    if ranks.empty:
        return {}
    ranks = ranks.sort_values("example", kind="stable")
    dataset, run = ranks[["dataset", "run"]].iloc[0]
    beams = evidence.read_first_beams(folder)
    beams = beams[(beams.dataset == dataset) & (beams.run == run)].set_index("example").text
    items = evidence.read_data(folder, "items")
    catalogue = set(items[dataset].title) if dataset in items else set()
    texts = ranks.example.map(beams.map(prompts.title_of))
    invented = texts.notna() & ~texts.isin(catalogue)
    rank = metrics.effective_rank(ranks)
    rows = metrics.showcase(rank, ranks.user.to_numpy(), invented.to_numpy())
    return {kind: int(ranks.example.iloc[row]) for kind, row in rows.items()}


def examples(folder: Path, dataset: str) -> list[Worked]:
    """The test examples of a data set as `kinds` has them, of BIGRec's first seed at its main size.

    Raises StudyError if the study has published no ranks, items or examples.
    """
    ranks = evidence.plain_runs(results.read_ranks(folder))
    ranks = ranks[(ranks.dataset == dataset) & (ranks.method == "bigrec")]
    ranks = ranks[ranks.n_train == evidence.main_size(ranks)]
    run = ranks.loc[ranks.seed == ranks.seed.min(), "run"].min()
    ranks = ranks[ranks.run == run]
    items = results.read(folder, "items.parquet", dataset=dataset).set_index("item").sort_index()
    samples = results.read(folder, "examples.parquet", dataset=dataset, split="test")
    ranks = ranks.merge(samples[["example", "user", "history", "target"]], on="example")
    showcase = kinds(folder, ranks)
    ranks = ranks.assign(rank=metrics.effective_rank(ranks)).set_index("example")
    lists = rows_of(evidence.read_lists(folder), dataset, run)
    beams = rows_of(evidence.read_first_beams(folder), dataset, run)
    cases = []
    for kind, example in showcase.items():
        row = ranks.loc[example]
        grounded = lists["items"].get(example, ())
        cases.append(
            Worked(
                kind=kind,
                example=example,
                user=int(row.user),
                run=run,
                history=[items.title[item] for item in row.history],
                text=prompts.title_of(beams.text.get(example, "")),
                grounded=[items.title[item] for item in grounded[:SHOWN]],
                target=items.title[row.target],
                rank=float(row["rank"]),
                catalogue=items.title_group.nunique(),
            )
        )
    return cases


def rows_of(frame: pd.DataFrame, dataset: str, run: str) -> pd.DataFrame:
    """BIGRec's rows of one run, by example."""
    mask = (frame.dataset == dataset) & (frame.run == run) & (frame.method == "bigrec")
    return frame[mask].set_index("example")
