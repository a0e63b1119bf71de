"""What the findings page says: levels, the grid of verdicts, and what a study lacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bigrec_lib.files import StudyError
from bigrec_lib.findings import evidence, rules, worked
from bigrec_lib.findings.methods import CONVENTIONAL, label
from bigrec_lib.findings.questions import QUESTIONS
from bigrec_lib.method import metrics
from bigrec_lib.study import manifests

WEAKEST_FIRST = (
    rules.CONTRADICTED,
    rules.OPEN,
    rules.DEMONSTRATION,
    rules.SUPPORTED,
    rules.MISSING,
)
READING = (
    "A claim has several rows a data set. The cell shows the row that is worst for the claim among "
    "those that could be judged (contradicted before not decided, not decided before supported; "
    "the first of equals), so “supported” means that every judged row is. “2 of 4 rows”: the data "
    "of the others is missing; the cell is “missing” only where no row could be judged. The "
    "estimate stands with its 95 % interval; the arrow says whether that interval lies above "
    "zero (↑), below (↓), or holds it (↔)."
)
ARROWS = {"↑": "above zero", "↓": "below zero", "↔": "holds zero", "–": "no estimate"}
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Row:
    """One row of claims.csv as a reader sees it. where: 'page#cell' of its evidence."""

    number: int
    claim: str
    dataset: str
    statement: str
    metric: str
    verdict: str
    arrow: str
    value: str
    corrected: str
    guards: str
    reason: str
    where: str


@dataclass(frozen=True)
class Cell:
    """A claim on a data set: the row that stands for all, and how many there are and could not be
    judged."""

    row: Row
    rows: int
    missing: int


@dataclass(frozen=True)
class Claim:
    """A line of the grid: data set -> its cell; None where the study has no row."""

    name: str
    title: str
    cells: dict[str, Cell | None]


@dataclass(frozen=True)
class Level:
    """NDCG@20 of BIGRec, of the conventional model with the highest mean, and of a random order."""

    dataset: str
    samples: int
    seeds: int
    examples: int
    bigrec: float
    best: str
    best_value: float
    random: float


def read_rows(folder: Path) -> list[Row]:
    """All rows of claims.csv, in its order; [] where there is none."""
    path = folder / "claims.csv"
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        return []
    text = ["reason", "guards", "rule"]
    frame = pd.read_csv(path)
    frame[text] = frame[text].fillna("")
    return [row_of(n, each) for n, each in enumerate(frame.itertuples(), 1)]


def row_of(n: int, each) -> Row:
    """Row n of claims.csv, its numbers as text."""
    relative = each.rule in ("no worse", "flat") or each.metric.startswith("share")
    shown = [number(value, relative) for value in (each.estimate, each.low, each.high)]
    there = each.estimate == each.estimate
    arrow = "↑" if each.low > 0 else "↓" if each.high < 0 else "↔" if there else "–"
    return Row(
        number=n,
        claim=each.claim,
        dataset=each.dataset,
        statement=each.statement,
        metric=each.metric,
        verdict=each.verdict,
        arrow=arrow,
        value=f"{shown[0]} [{shown[1]}, {shown[2]}]" if there else "",
        corrected=f"{each.corrected:.3f}" if each.corrected == each.corrected else "",
        guards=each.guards.replace("-", MINUS),
        reason=each.reason,
        where=each._asdict()["where"],
    )


def number(value: float, relative: bool = False) -> str:
    """A signed number with a real minus sign; relative: in per cent.

    >>> number(-0.03277), number(0.158, relative=True)
    ('−0.0328', '+16 %')
    """
    text = f"{100 * value:+.{int(abs(value) < 0.01)}f} %" if relative else f"{value:+.4f}"
    return text.replace("-", MINUS)


def grid(rows: list[Row], datasets: list[str]) -> list[Claim]:
    """Every claim of QUESTIONS, and whatever else there are rows of, on every data set."""
    names = [*QUESTIONS, *dict.fromkeys(row.claim for row in rows if row.claim not in QUESTIONS)]
    return [
        Claim(name, QUESTIONS.get(name, name), {d: cell(rows, name, d) for d in datasets})
        for name in names
    ]


def cell(rows: list[Row], claim: str, dataset: str) -> Cell | None:
    """The cell of a claim on a data set, as READING says; None without a row."""
    here = [row for row in rows if (row.claim, row.dataset) == (claim, dataset)]
    if not here:
        return None
    worst = min(here, key=lambda row: WEAKEST_FIRST.index(row.verdict))
    return Cell(worst, len(here), sum(row.verdict == rules.MISSING for row in here))


def counts(claims: list[Claim]) -> dict[str, int]:
    """Verdict -> cells of the grid; a cell without a row is missing."""
    cells = [cell for claim in claims for cell in claim.cells.values()]
    said = [cell.row.verdict if cell else rules.MISSING for cell in cells]
    return {verdict: said.count(verdict) for verdict in ORDER}


ORDER = (rules.SUPPORTED, rules.CONTRADICTED, rules.OPEN, rules.DEMONSTRATION, rules.MISSING)


def datasets(folder: Path, rows: list[Row]) -> dict[str, str]:
    """Data set -> its domain, of all that were prepared or that a claim speaks of."""
    known = evidence.domains(folder) if (folder / manifests.PUBLISHED).exists() else {}
    return known | {row.dataset: known.get(row.dataset, "") for row in rows}


def levels(folder: Path) -> list[Level]:
    """What was reached on each data set, at its main size. Raises StudyError without ranks."""
    scores = evidence.plain_runs(evidence.read_scores(folder))
    found = []
    for dataset, group in scores.groupby("dataset"):
        size = evidence.main_size(group)
        group = group[group.n_train == size]
        means = group.groupby("method").ndcg.mean()
        models = means[means.index.isin(CONVENTIONAL)]
        best = str(models.idxmax()) if len(models) else ""
        found.append(
            Level(
                dataset=str(dataset),
                samples=size,
                seeds=group.seed.nunique(),
                examples=group.example.nunique(),
                bigrec=float(means.get("bigrec", float("nan"))),
                best=label(best) if best else "",
                best_value=float(models.max()) if best else float("nan"),
                random=float(means.get("random", float("nan"))),
            )
        )
    return found


def contents(folder: Path) -> dict:
    """All that the findings page shows; `lacks` names what is not there."""
    rows = read_rows(folder)
    domains = datasets(folder, rows)
    lacks = [] if rows else ["verdicts: no analysis with claims has been published"]
    found: dict = {"levels": [], "examples": [], "of": ""}
    try:
        found["levels"] = levels(folder)
        found["of"] = found["levels"][0].dataset if found["levels"] else ""
        found["examples"] = worked.examples(folder, found["of"]) if found["of"] else []
    except StudyError as error:
        lacks.append(f"worked examples: {str(error).replace(str(folder), folder.name)}")
    if found["examples"] and len(found["examples"]) < 3:
        kinds = {each.kind for each in found["examples"]}
        lacks += [f"a {kind}" for kind in ("hit", "near miss", "failure") if kind not in kinds]
    if not (folder / "figures" / "overall.png").exists():
        lacks.append("the figure of all methods (07_overall_performance)")
    claims = grid(rows, list(domains))
    return found | {
        "rows": rows,
        "domains": domains,
        "claims": claims,
        "counts": counts(claims),
        "lacks": lacks,
        "reading": READING,
        "hit": metrics.HIT,
        "near": metrics.NEAR,
        "arrows": ARROWS,
    }


def overall(levels: list[Level]) -> str:
    """What the figure of all methods shows, from its numbers."""
    said = ["NDCG@20 of every method, with 95 % intervals."]
    for each in levels:
        parts = [f"BIGRec {each.bigrec:.4f}"]
        if each.best:
            parts.append(f"{each.best}, the best conventional model, {each.best_value:.4f}")
        parts += [f"a random order {each.random:.4f}"] * (each.random == each.random)
        said.append(f"{each.dataset}: {'; '.join(parts)}.")
    return " ".join(said)
