"""What the findings page says: levels, the grid of verdicts, and what a study lacks."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bigrec_lib.files import StudyError
from bigrec_lib.findings import evidence, making, rules, summary, worked
from bigrec_lib.findings.alts import counted, listed
from bigrec_lib.findings.claims import FEW, UNMET, guards_in, p_value
from bigrec_lib.findings.questions import ONE_SUFFICES, QUESTIONS
from bigrec_lib.findings.significance import LEVEL, Interval
from bigrec_lib.findings.summary import MINUS, WIDTH, signed
from bigrec_lib.method import metrics
from bigrec_lib.study import manifests

WEAKEST_FIRST = (
    rules.CONTRADICTED,
    rules.OPEN,
    rules.DEMONSTRATION,
    rules.SUPPORTED,
    rules.MISSING,
)
IN_PART = "supported in part"
FOUND = (rules.CONTRADICTED, rules.SUPPORTED, IN_PART, rules.OPEN)
READING = (
    "A claim is tried by several comparisons on each data set, its rows. A cell shows the row that "
    f"is worst for the claim ({' and '.join(ONE_SUFFICES)}, which say “some”: the best), with a "
    "95 % interval over seeds and users and an arrow: the interval "
    "lies above zero (↑), below (↓), or holds it (↔). A verdict takes more than an arrow: p-values "
    "are corrected for all rows of a claim, and guards, differences that must be above zero as "
    "well, keep random or impersonal lists from passing."
)
CHOICE = (
    "The worst row: contradicted comes before not decided, not decided before supported, so "
    "“supported” means that every judged row is. Of rows with the same verdict it is the one whose "
    "estimate, or failing guard, lies furthest on the wrong side of its bound, or least far on the "
    "right side, counted in half intervals. The best row: the other way round, so “contradicted” "
    "means that every judged row is; the best of many looks better than it is, and only its "
    "corrected p-value counts. “2 of 4 rows”: the others lack data. “2 supported”, “2 "
    "contradicted”: so many rows are, although the cell is not. Where nothing differs, or one side "
    "has no hit, there is no interval."
)
BOUNDS = {
    "no worse": f"no worse: above {MINUS}{rules.SAME:.0%}".replace("%", " %"),
    "flat": f"flat: within ±{rules.FLAT:.0%}".replace("%", " %"),
}
"""Rule -> what a row by it has to reach; the others have to be above zero."""
MEASURES = {
    f"HR@{metrics.HIT}": f"share of lists with the truth among the first {metrics.HIT}",
    f"NDCG@{metrics.HIT}": "1 for a list with the truth at its top, less the further down it "
    f"stands, 0 beyond the {metrics.HIT}th place",
    "Personal gain": f"NDCG@{metrics.HIT} minus that of the same lists handed to other users",
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
CAVEATS = {
    ("C4", rules.CONTRADICTED): "the other model may be so weak that it takes over what is "
    "injected, so BIGRec need not have the information",
}
"""Claim and verdict -> what the verdict does not say."""
NO_HIT = "too few hits: one side has none"


@dataclass(frozen=True)
class Row:
    """One row of claims.csv as a reader sees it. size: its seeds and test examples; where:
    'page#cell' of its evidence; unmet: the guard that keeps it from being decided, with where it
    lies and its interval, '' where none does; standing: how far the estimate and its guards are on
    the claim's side of their bounds (`standing_of`)."""

    number: int
    claim: str
    dataset: str
    statement: str
    metric: str
    rule: str
    size: str
    verdict: str
    arrow: str
    value: str
    corrected: str
    guards: str
    reason: str
    where: str
    unmet: str
    standing: float

    def compares(self, usual: str) -> str:
        """What a row compares, by which measure and bound, on what if it is not as `usual`, the
        guard that fails, what its verdict does not say, or how few users are hit."""
        parts = [f"{self.statement}, {self.metric}", BOUNDS.get(self.rule, "")]
        parts += [self.size] * (self.size != usual)
        parts += [self.unmet, CAVEATS.get((self.claim, self.verdict), "")]
        parts += [self.reason] * self.reason.startswith(FEW)
        return "; ".join(filter(None, parts))


@dataclass(frozen=True)
class Cell:
    """A claim on a data set: the row that stands for all, what it compares, and how many rows there
    are, and could not be judged; better, worse: how many are supported, or contradicted, although
    the cell is not."""

    row: Row
    compares: str
    rows: int
    missing: int
    better: int
    worse: int


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
    unmet = row.reason.partition(UNMET)[2]
    guards = guards_in(row.guards) if unmet else {}
    if unmet in guards:
        below = guards[unmet].high < 0
        unmet = with_minus(f"{unmet} {guards[unmet]}")
        unmet = f"below zero: {unmet}" if below else f"not shown to be above zero: {unmet}"
    return Row(
        number=n,
        claim=row.claim,
        dataset=row.dataset,
        statement=row.statement,
        metric=row.metric,
        rule=row.rule,
        size=size_of(row.seeds, row.n) if row.n == row.n else "",
        verdict=row.verdict,
        arrow=arrow,
        value=value_of(row),
        corrected=p_value(row.corrected) if row.corrected == row.corrected else "",
        guards=with_minus(row.guards),
        reason=row.reason,
        where=row._asdict()["where"],
        unmet=unmet,
        standing=standing_of(row, list(guards.values())),
    )


def with_minus(text: str) -> str:
    """Text whose negative numbers have a true minus sign."""
    return re.sub(r"(?<!\w)-(?=\d)", MINUS, text)


def size_of(seeds: float, examples: float) -> str:
    """On how much a row rests, in words."""
    return f"{counted(int(seeds), 'seed')}, {examples:,.0f} examples"


def value_of(row) -> str:
    """The estimate of a row of claims.csv as `signed` has it; '' if missing."""
    if row.estimate != row.estimate:
        return ""
    relative = row.rule in ("no worse", "flat") or row.metric.startswith("share")
    if relative and row.estimate == -1 and not spread(row):
        return NO_HIT
    return signed(Interval(row.estimate, row.low, row.high), relative)


def standing_of(row, guards: list[Interval]) -> float:
    """How far a row is on its claim's side, in half intervals; NaN if missing.

    Of its estimate or of one of its guards, whichever stands worst. guards: of a row that a guard
    keeps from being decided.
    """
    if row.estimate != row.estimate:
        return math.nan
    margin = {
        "better": row.estimate,
        "no worse": row.estimate + rules.SAME,
        "flat": rules.FLAT - abs(row.estimate),
    }[row.rule]
    margins = [(margin, row.low, row.high), *((each.mean, each.low, each.high) for each in guards)]
    return min(half_intervals(*each) for each in margins)


def half_intervals(margin: float, low: float, high: float) -> float:
    """A margin in halves of an interval; infinite without one, unless there is no margin."""
    if high - low > WIDTH:
        return 2 * margin / (high - low)
    return math.copysign(math.inf, margin) if margin else 0.0


def spread(row) -> bool:
    """Whether the interval of a row has a width, beyond rounding."""
    return row.high - row.low > WIDTH


def grid(rows: list[Row], columns: dict[str, str]) -> list[Claim]:
    """Every claim of QUESTIONS, then any other that has rows; columns: data set -> its usual size,
    as `size_of` words it, or ''."""
    names = [*QUESTIONS, *dict.fromkeys(row.claim for row in rows if row.claim not in QUESTIONS)]
    return [
        Claim(
            name,
            QUESTIONS.get(name, name),
            {dataset: cell(rows, name, dataset, usual) for dataset, usual in columns.items()},
        )
        for name in names
    ]


def cell(rows: list[Row], claim: str, dataset: str, usual: str = "") -> Cell | None:
    """The cell of a claim on a data set, as CHOICE says; None without a row."""
    group = [row for row in rows if (row.claim, row.dataset) == (claim, dataset)]
    if not group:
        return None
    worst_first = sorted(group, key=lambda row: (WEAKEST_FIRST.index(row.verdict), row.standing))
    could_be = [row for row in worst_first if row.verdict != rules.MISSING] or worst_first
    shown = could_be[-1 if claim in ONE_SUFFICES else 0]
    verdicts = [row.verdict for row in group]
    others = [verdict for verdict in verdicts if verdict != shown.verdict]
    return Cell(
        row=shown,
        compares=shown.compares(usual),
        rows=len(group),
        missing=verdicts.count(rules.MISSING),
        better=others.count(rules.SUPPORTED),
        worse=others.count(rules.CONTRADICTED),
    )


def judged(claim: Claim) -> bool:
    """Whether a claim could be judged on any data set."""
    return any(entry and entry.row.verdict != rules.MISSING for entry in claim.cells.values())


def found(claims: list[Claim]) -> dict[str, list[str]]:
    """Each of FOUND -> the claims that have this verdict, and where; without those that none has.

    What is not decided though some of its rows are supported is supported in part.
    """
    said: dict[str, list[str]] = {}
    for verdict in FOUND:
        for claim in claims:
            cells = [(name, entry) for name, entry in claim.cells.items() if entry]
            where = [place(name, entry) for name, entry in cells if in_short(entry) == verdict]
            if where:
                said.setdefault(verdict, []).append(f"{claim.name} {claim.title} ({listed(where)})")
    return said


def in_short(entry: Cell) -> str:
    """The verdict of a cell, one of FOUND where it is decided or open."""
    in_part = entry.row.verdict == rules.OPEN and entry.better
    return IN_PART if in_part else entry.row.verdict


def place(dataset: str, entry: Cell) -> str:
    """A data set, with how many rows are supported if only some are."""
    if in_short(entry) != IN_PART:
        return dataset
    return f"{dataset}: {entry.better} of {counted(entry.rows, 'row')}"


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
    sizes = {each.dataset: size_of(each.seeds, each.examples) for each in page["levels"]}
    claims = grid(rows, {dataset: sizes.get(dataset, "") for dataset in domains})
    judged_claims = [claim for claim in claims if judged(claim)]
    return page | {
        "rows": rows,
        "domains": domains,
        "claims": judged_claims,
        "waiting": [claim for claim in claims if claim not in judged_claims],
        "found": found(judged_claims),
        "code": making.code_of(folder),
        "lacks": gaps,
        "measures": MEASURES,
        "reading": READING,
        "choice": CHOICE,
        "meanings": MEANINGS,
        "hit": metrics.HIT,
        "near": metrics.NEAR,
        "arrows": ARROWS,
    }
