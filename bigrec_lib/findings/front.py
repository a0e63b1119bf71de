"""What the findings page says: levels, the grid of verdicts, and what a study lacks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bigrec_lib.files import StudyError
from bigrec_lib.findings import analyses, evidence, making, rules, worked
from bigrec_lib.findings.alts import counted, listed
from bigrec_lib.findings.claims import UNMET
from bigrec_lib.findings.differences import NOTHING
from bigrec_lib.findings.methods import METHODS, label
from bigrec_lib.findings.questions import QUESTIONS
from bigrec_lib.findings.significance import LEVEL, Interval
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
    "those that could be judged, and names its comparison. Contradicted comes before not decided, "
    "not decided before supported, so “supported” means that every judged row is. Of rows with the "
    "same verdict it is the one whose estimate lies furthest on the wrong side of its rule's "
    "bound, or least far on the right side, counted in half intervals. “2 of 4 rows”: the data of "
    "the others is missing; the cell is “missing” only where no row could be judged. “2 "
    "supported”: so many rows are, although the cell is not. The estimate stands with its 95 % "
    "interval; the arrow says whether that interval lies above zero (↑), below (↓), or holds it "
    "(↔). An arrow is no verdict: that needs the corrected p-value and the guards as well. Where "
    "nothing differs, or one side has no hit, there is no interval."
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
KINDS = ("popularity", "statistic", "network", "last")
OTHERS = [method.name for method in METHODS if method.kind in KINDS]
"""What learns without an LLM: the conventional models, on every step or targets only, and
popularity."""
NO_GAIN = Interval(math.nan, math.nan, math.nan)
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Row:
    """One row of claims.csv as a reader sees it. where: 'page#cell' of its evidence; standing: how
    far the estimate is on the claim's side of its bound (`standing_of`)."""

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


@dataclass(frozen=True)
class Level:
    """What BIGRec reached on a data set, beside other values; NaN where one is missing.

    bigrec, best_value, random: mean NDCG@20 of BIGRec, of the best model without an LLM, and as
    expected of a random order. hits: how many of `lists` have the truth among the first 20; chance:
    how many would by chance. gain: personal, in NDCG@20, with its 95 % interval.
    """

    dataset: str
    samples: int
    seeds: int
    examples: int
    bigrec: float
    best: str
    best_value: float
    random: float
    hits: int
    lists: int
    chance: float
    gain: Interval


def read_rows(folder: Path) -> list[Row]:
    """All rows of claims.csv, in its order; [] where there is none."""
    path = folder / "claims.csv"
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        return []
    columns = ["reason", "guards", "rule"]
    frame = pd.read_csv(path)
    frame[columns] = frame[columns].fillna("")
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
        guards=row.guards.replace("-", MINUS),
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
    """How far a row's estimate is on its claim's side of the bound of its rule, in half intervals.

    Infinite without an interval, unless the estimate is the bound; NaN if missing.
    """
    if row.estimate != row.estimate:
        return math.nan
    margin = {
        "better": row.estimate,
        "no worse": row.estimate + rules.SAME,
        "flat": rules.FLAT - abs(row.estimate),
    }[row.rule]
    if spread(row):
        return 2 * margin / (row.high - row.low)
    return math.copysign(math.inf, margin) if margin else 0.0


def spread(row) -> bool:
    """Whether the interval of a row has a width, beyond rounding."""
    return row.high - row.low > 1e-12


def number(value: float, relative: bool = False) -> str:
    """A signed number with a real minus sign; relative: in per cent.

    >>> number(-0.03277), number(0.158, relative=True)
    ('−0.0328', '+16 %')
    """
    text = f"{100 * value:+.{int(abs(value) < 0.01)}f} %" if relative else f"{value:+.4f}"
    return text.replace("-", MINUS)


def signed(interval: Interval) -> str:
    """A difference with its interval, if there is any spread."""
    if interval.high - interval.low < 1e-12:
        return NOTHING if abs(interval.mean) < 1e-12 else f"{number(interval.mean)}, no interval"
    return f"{number(interval.mean)} [{number(interval.low)}, {number(interval.high)}]"


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


def levels(folder: Path) -> list[Level]:
    """What was reached on each data set, at its main size. Raises StudyError without ranks."""
    scores = evidence.plain_runs(evidence.read_scores(folder))
    items, examples = (evidence.read_data(folder, name) for name in ("items", "examples"))
    lists = evidence.plain_runs(evidence.read_lists(folder))
    gains = evidence.personal_gains(lists[lists.method == "bigrec"], items, examples)
    results = []
    for dataset, group in scores.groupby("dataset"):
        size = evidence.main_size(group)
        group = group[group.n_train == size]
        means = group.groupby("method").ndcg.mean()
        others = means[means.index.isin(OTHERS)]
        best = str(others.idxmax()) if len(others) else ""
        bigrec = group[group.method == "bigrec"]
        gain = gains[(gains.dataset == dataset) & (gains.n_train == size)]
        results.append(
            Level(
                dataset=str(dataset),
                samples=size,
                seeds=group.seed.nunique(),
                examples=group.example.nunique(),
                bigrec=float(bigrec.ndcg.mean()),
                best=label(best) if best else "",
                best_value=float(others.max()) if best else math.nan,
                random=by_chance(metrics.ndcg, items, str(dataset)),
                hits=int(bigrec.hr.sum()),
                lists=len(bigrec),
                chance=len(bigrec) * by_chance(metrics.hr, items, str(dataset)),
                gain=analyses.mean_of_rows(gain, "gain").interval if len(gain) else NO_GAIN,
            )
        )
    return results


def by_chance(metric, items: dict[str, pd.DataFrame], dataset: str) -> float:
    """What a random order of a data set's titles is expected to score; NaN without its items."""
    if dataset not in items:
        return math.nan
    return metrics.of_random(metric, 20, items[dataset].title_group.nunique())


def llm_of(folder: Path) -> str:
    """The LLM that the study tuned, as its jobs name it; '' where it is not recorded."""
    if not (folder / manifests.PUBLISHED).exists():
        return ""
    jobs = manifests.published_jobs(folder, "02_tune_llm")
    models = {job["parameters"].get("model", "") for job in jobs if not job["keys"].get("lm")}
    return ", ".join(sorted(models - {""}))


def summary(results: list[Level], llm: str) -> list[str]:
    """What a reader should know before the grid: what was run, and what came of it."""
    if not results:
        return []
    sizes = {level.dataset: f"{level.samples:,} samples, {counted(level.seeds, 'seed')}, "
             f"{level.examples:,} test examples" for level in results}  # fmt: skip
    same = len(set(sizes.values())) == 1
    run = f"{results[0].dataset if len(results) == 1 else 'each data set'}: {min(sizes.values())}"
    if not same:
        run = "; ".join(f"{name}: {size}" for name, size in sizes.items())
    lines = [f"LLM: {llm}. {run[0].upper()}{run[1:]}." if llm else f"{run[0].upper()}{run[1:]}."]
    undecided = [level.dataset for level in results if level.seeds < rules.SEEDS]
    if undecided:
        where = "" if len(undecided) == len(results) else f" on {listed(undecided)}"
        lines[0] += (
            f" With fewer than {rules.SEEDS} seeds nothing is decided{where}: "
            "a “demonstration” shows what these runs gave."
        )
    hits = [
        f"{level.hits:,} of {level.lists:,} lists on {level.dataset}"
        + (f" (by chance {level.chance:.1f})" if level.chance == level.chance else "")
        for level in results
    ]
    sentence = f"BIGRec has the truth among its first 20 in {listed(hits)}."
    return [*lines, " ".join(filter(None, [sentence, personal(results), held(results)]))]


def personal(results: list[Level]) -> str:
    """On which data sets the personal gain is shown; '' where it is not known."""
    measured = [level for level in results if level.gain.mean == level.gain.mean]
    names = [level.dataset for level in measured if level.gain.low > 0]
    if not measured:
        return ""
    if not names:
        return "Nowhere is it shown that a list fits its own user better than other users."
    return f"A list fits its own user better than other users on {listed(names)}: a personal gain."


def held(results: list[Level]) -> str:
    """Where the best model without an LLM has a higher mean than BIGRec, and where a lower."""
    sides = {
        "above": [level for level in results if level.bigrec > level.best_value],
        "below": [level for level in results if level.bigrec < level.best_value],
    }
    clauses = [
        f"{word} that of the best model without an LLM on "
        + listed(
            [f"{level.dataset} ({level.bigrec:.4f} and {level.best_value:.4f})" for level in side]
        )
        for word, side in sides.items()
        if side
    ]
    doubt = " C1 below says whether that is more than chance." if sides["above"] else ""
    return f"Its mean NDCG@20 is {listed(clauses)}.{doubt}" if clauses else ""


def contents(folder: Path) -> dict:
    """All that the findings page shows; `lacks` names what is not there, `waiting` are the claims
    that could not be judged on any data set."""
    rows = read_rows(folder)
    domains = datasets(folder, rows)
    gaps = [] if rows else ["verdicts: no analysis with claims has been published"]
    page: dict = {"levels": [], "examples": [], "of": "", "summary": []}
    try:
        page["levels"] = levels(folder)
        page["summary"] = summary(page["levels"], llm_of(folder))
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


def overall(results: list[Level]) -> str:
    """What the figure of all methods shows, from its numbers."""
    lines = ["NDCG@20 of every method, with 95 % intervals."]
    for level in results:
        parts = [f"BIGRec {level.bigrec:.4f}"]
        if level.best:
            parts.append(f"{level.best}, the highest without an LLM, {level.best_value:.4f}")
        parts += [f"expected of a random order {level.random:.4f}"] * (level.random == level.random)
        lines.append(f"{level.dataset}: {'; '.join(parts)}.")
    return " ".join(lines)
