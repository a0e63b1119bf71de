"""What the findings page says: levels, the grid of verdicts, and what a study lacks."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bigrec_lib.files import StudyError
from bigrec_lib.findings import evidence, making, rules, summary, worked
from bigrec_lib.findings.claims import UNMET
from bigrec_lib.findings.differences import NOTHING
from bigrec_lib.findings.questions import QUESTIONS
from bigrec_lib.findings.significance import LEVEL
from bigrec_lib.findings.summary import MINUS, number
from bigrec_lib.method import metrics
from bigrec_lib.study import manifests

WIDTH = 1e-12  # below it, an interval has none
GUARD = re.compile(r"(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\], p = ")  # as `claims.row` writes it
WEAKEST_FIRST = (
    rules.CONTRADICTED,
    rules.OPEN,
    rules.DEMONSTRATION,
    rules.SUPPORTED,
    rules.MISSING,
)
READING = (
    "A claim has several rows a data set. The cell shows the row that is worst for the claim among "
    "those that could be judged, and names its comparison. Contradicted comes before not decided, "
    "not decided before supported, so “supported” means that every judged row is. Of rows with the "
    "same verdict it is the one whose estimate lies furthest on the wrong side of its rule's "
    "bound, or least far on the right side, counted in half intervals; where a guard alone keeps a "
    "row from being decided, the guard counts in the same way, and the cell names it. “2 of 4 "
    "rows”: the data of the others is missing; the cell is “missing” only where no row could be "
    "judged. “2 supported”: so many rows are, although the cell is not. A guard is a second "
    "difference that must be above zero as well, so that a random or impersonal list cannot pass. "
    "The estimate stands with its 95 % interval; the arrow says whether that interval lies above "
    "zero (↑), below (↓), or holds it (↔). An arrow is no verdict: that needs the corrected "
    "p-value and the guards as well. Where nothing differs, or one side has no hit, there is no "
    "interval."
)
MEASURES = {
    f"HR@{metrics.HIT}": f"share of lists with the truth among the first {metrics.HIT}",
    f"NDCG@{metrics.HIT}": "1 for a list with the truth at its top, less the further down it "
    f"stands, 0 beyond the {metrics.HIT}th place",
    "Personal gain": f"NDCG@{metrics.HIT} minus that of the same lists dealt out to other users",
}
ARROWS = {"↑": "above zero", "↓": "below zero", "↔": "holds zero", "–": "no interval"}
MEANINGS = {
    rules.SUPPORTED: f"the corrected p-value is below {LEVEL:g}, in favour of the claim.",
    rules.CONTRADICTED: f"the corrected p-value is below {LEVEL:g}, against the claim.",
    rules.OPEN: f"the corrected p-value, of the row or of its guards, is not below {LEVEL:g}.",
    rules.DEMONSTRATION: f"fewer than {rules.SEEDS} seeds: the rule decides nothing, and the cell "
    "shows what these runs gave.",
    rules.MISSING: "what the comparison needs was not run.",
}
NO_HIT = "too few hits: one side has none"


@dataclass(frozen=True)
class Row:
    """One row of claims.csv as a reader sees it. where: 'page#cell' of its evidence; standing: how
    far the estimate and its guards are on the claim's side of their bounds (`standing_of`)."""

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
    standing: float

    @property
    def unmet(self) -> str:
        """The guard that keeps a row from being decided; '' where none does."""
        return self.reason.partition(UNMET)[2]


@dataclass(frozen=True)
class Cell:
    """A claim on a data set: the row that stands for all, and how many rows there are, could not
    be judged, and are supported."""

    row: Row
    rows: int
    missing: int
    supported: int

    @property
    def better(self) -> int:
        """How many rows are supported although the cell is not."""
        return 0 if self.row.verdict == rules.SUPPORTED else self.supported


@dataclass(frozen=True)
class Claim:
    """A line of the grid: data set -> its cell; None where the study has no row."""

    name: str
    title: str
    cells: dict[str, Cell | None]

    @property
    def why_missing(self) -> str:
        """What the first row with a reason says is missing; 'not run' where none has one."""
        reasons = [entry.row.reason for entry in self.cells.values() if entry and entry.row.reason]
        return reasons[0] if reasons else "not run"


def read_rows(folder: Path) -> list[Row]:
    """All rows of claims.csv, in its order; [] where there is none."""
    path = folder / "claims.csv"
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        return []
    numbers = "estimate low high p_own p corrected seeds users n detectable".split()
    frame = pd.read_csv(
        path,
        keep_default_na=False,
        na_values={name: [""] for name in numbers},
        dtype={"dataset": str, "rule_commit": str},
    )
    return [row_of(n, row) for n, row in enumerate(frame.itertuples(), 1)]


def row_of(n: int, row) -> Row:
    """Row n of claims.csv, its numbers as text."""
    arrow = "–" if not spread(row) else "↑" if row.low > 0 else "↓" if row.high < 0 else "↔"
    return Row(
        number=n,
        claim=row.claim,
        dataset=row.dataset,
        statement=row.statement,
        metric=row.metric,
        verdict=row.verdict,
        arrow=arrow,
        value=value_of(row),
        corrected=f"{row.corrected:.3f}" if row.corrected == row.corrected else "",
        guards=re.sub(r"(?<!\w)-(?=\d)", MINUS, row.guards),
        reason=row.reason,
        where=row._asdict()["where"],
        standing=standing_of(row),
    )


def value_of(row) -> str:
    """The estimate of a row of claims.csv with its interval, or why there is none; '' if missing.

    An interval without width comes from no spread at all: that is no certainty.
    """
    if row.estimate != row.estimate:
        return ""
    relative = row.rule in ("no worse", "flat") or row.metric.startswith("share")
    mean, low, high = (number(value, relative) for value in (row.estimate, row.low, row.high))
    if spread(row):
        return f"{mean} [{low}, {high}]"
    if abs(row.estimate) < 1e-12:
        return NOTHING
    return NO_HIT if relative and row.estimate == -1 else f"{mean}, no interval"


def standing_of(row) -> float:
    """How far a row is on its claim's side, in half intervals; NaN if missing.

    For a row that a guard keeps from being decided, its estimate or its worst guard, whichever
    stands worse; for others, the estimate alone.
    """
    if row.estimate != row.estimate:
        return math.nan
    margin = {
        "better": row.estimate,
        "no worse": row.estimate + rules.SAME,
        "flat": rules.FLAT - abs(row.estimate),
    }[row.rule]
    texts = GUARD.findall(row.guards) if UNMET in row.reason else []
    guards = [map(float, numbers) for numbers in texts]
    return min([half_intervals(margin, row.low, row.high), *(half_intervals(*g) for g in guards)])


def half_intervals(margin: float, low: float, high: float) -> float:
    """A margin in halves of an interval; infinite without one, unless there is no margin."""
    if high - low > WIDTH:
        return 2 * margin / (high - low)
    return math.copysign(math.inf, margin) if margin else 0.0


def spread(row) -> bool:
    """Whether the interval of a row has a width, beyond rounding."""
    return row.high - row.low > WIDTH


def grid(rows: list[Row], columns: list[str]) -> list[Claim]:
    """Every claim of QUESTIONS, then any other that has rows; columns: the data sets."""
    names = [*QUESTIONS, *dict.fromkeys(row.claim for row in rows if row.claim not in QUESTIONS)]
    return [
        Claim(name, QUESTIONS.get(name, name), {d: cell(rows, name, d) for d in columns})
        for name in names
    ]


def cell(rows: list[Row], claim: str, dataset: str) -> Cell | None:
    """The cell of a claim on a data set, as READING says; None without a row."""
    group = [row for row in rows if (row.claim, row.dataset) == (claim, dataset)]
    if not group:
        return None
    worst = min(group, key=lambda row: (WEAKEST_FIRST.index(row.verdict), row.standing))
    verdicts = [row.verdict for row in group]
    return Cell(worst, len(group), verdicts.count(rules.MISSING), verdicts.count(rules.SUPPORTED))


def judged(claim: Claim) -> bool:
    """Whether a claim could be judged on any data set."""
    return any(entry and entry.row.verdict != rules.MISSING for entry in claim.cells.values())


def counts(claims: list[Claim]) -> dict[str, int]:
    """Verdict -> cells of the grid; a cell without a row is missing."""
    cells = [entry for claim in claims for entry in claim.cells.values()]
    verdicts = [entry.row.verdict if entry else rules.MISSING for entry in cells]
    return {verdict: verdicts.count(verdict) for verdict in ORDER}


ORDER = (rules.SUPPORTED, rules.CONTRADICTED, rules.OPEN, rules.DEMONSTRATION, rules.MISSING)


def datasets(folder: Path, rows: list[Row]) -> dict[str, str]:
    """Data set -> its domain, of all that were prepared or that a claim speaks of."""
    domains = evidence.domains(folder) if (folder / manifests.PUBLISHED).exists() else {}
    return domains | {row.dataset: domains.get(row.dataset, "") for row in rows}


def contents(folder: Path) -> dict:
    """All that the findings page shows; `lacks` names what is not there, `waiting` are the claims
    that could not be judged on any data set."""
    rows = read_rows(folder)
    domains = datasets(folder, rows)
    gaps = [] if rows else ["verdicts: no analysis with claims has been published"]
    page: dict = {"levels": [], "examples": [], "of": "", "summary": []}
    try:
        page["levels"] = summary.levels(folder)
        page["summary"] = summary.opening(page["levels"], summary.llm_of(folder))
        page["of"] = page["levels"][0].dataset if page["levels"] else ""
        page["examples"] = worked.examples(folder, page["of"]) if page["of"] else []
    except StudyError as error:
        gaps.append(f"worked examples: {str(error).replace(str(folder), folder.name)}")
    if page["examples"] and len(page["examples"]) < 3:
        kinds = {example.kind for example in page["examples"]}
        gaps += [f"a {kind}" for kind in ("hit", "near miss", "failure") if kind not in kinds]
    if not (folder / "figures" / "overall.png").exists():
        gaps.append("the figure of all methods (07_overall_performance)")
    claims = grid(rows, list(domains))
    judged_claims = [claim for claim in claims if judged(claim)]
    return page | {
        "rows": rows,
        "domains": domains,
        "claims": judged_claims,
        "waiting": [claim for claim in claims if claim not in judged_claims],
        "counts": counts(judged_claims),
        "code": making.code_of(folder),
        "lacks": gaps,
        "measures": MEASURES,
        "reading": READING,
        "meanings": MEANINGS,
        "hit": metrics.HIT,
        "near": metrics.NEAR,
        "arrows": ARROWS,
    }
