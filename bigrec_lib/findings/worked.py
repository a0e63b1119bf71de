"""The few test examples that the analyses work through by hand, and the words for them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bigrec_lib.files import StudyError
from bigrec_lib.findings import evidence
from bigrec_lib.method import metrics, prompts
from bigrec_lib.study import results


def targets(folder: Path, dataset: str, split: str = "test") -> dict[int, str]:
    """Example -> the title its user went on to; none where a study published no examples."""
    try:
        items = results.read(folder, "items.parquet", dataset=dataset)
        examples = results.read(folder, "examples.parquet", dataset=dataset, split=split)
    except StudyError:
        return {}
    title = items.set_index("item").title
    return dict(zip(examples.example, title.reindex(examples.target), strict=True))


def by_title(table: pd.DataFrame, titles: dict[int, str]) -> pd.DataFrame:
    """A table whose rows are examples, with the titles of their targets in their place."""
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
    real = set(items[dataset].title) if dataset in items else set()
    texts = ranks.example.map(beams.map(prompts.title_of))
    invented = texts.notna() & ~texts.isin(real)
    rank = metrics.effective_rank(ranks)
    chosen = metrics.showcase(rank, ranks.user.to_numpy(), invented.to_numpy())
    return {kind: int(ranks.example.iloc[row]) for kind, row in chosen.items()}
