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
        """The guard for which a row is not decided; '' if it is not for a guard."""
        return self.reason.partition(UNMET)[2]


@dataclass(frozen=True)
class Cell:
    """A claim on a data set: the row that stands for all, how many there are and could not be
    judged, and how many are supported."""

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
        """What the first of its rows says is missing; that it was not run where there is none."""
        reasons = [cell.row.reason for cell in self.cells.values() if cell and cell.row.reason]
        return reasons[0] if reasons else "not run"


@dataclass(frozen=True)
class Level:
    """What BIGRec reached on a data set, and what it is held against; NaN where it is missing.

    bigrec, best_value, random: mean NDCG@20, also of the highest model without an LLM, and as
    expected of a random order. hits: of `lists`, how many have the truth among the first 20; by
    chance as many as `chance`. gain: personal, in NDCG@20, with its 95 % interval.
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
    text = ["reason", "guards", "rule"]
    frame = pd.read_csv(path)
    frame[text] = frame[text].fillna("")
    return [row_of(n, each) for n, each in enumerate(frame.itertuples(), 1)]


def row_of(n: int, each) -> Row:
    """Row n of claims.csv, its numbers as text."""
    arrow = "–" if not spread(each) else "↑" if each.low > 0 else "↓" if each.high < 0 else "↔"
    return Row(
        number=n,
        claim=each.claim,
        dataset=each.dataset,
        statement=each.statement,
        metric=each.metric,
        verdict=each.verdict,
        arrow=arrow,
        value=value_of(each),
        corrected=f"{each.corrected:.3f}" if each.corrected == each.corrected else "",
        guards=each.guards.replace("-", MINUS),
        reason=each.reason,
        where=each._asdict()["where"],
        standing=standing_of(each),
    )


def value_of(each) -> str:
    """The estimate of a row of claims.csv with its interval, or why there is none; '' if missing.

    An interval without width comes from no spread at all: that is no certainty.
    """
    if each.estimate != each.estimate:
        return ""
    relative = each.rule in ("no worse", "flat") or each.metric.startswith("share")
    mean, low, high = (number(value, relative) for value in (each.estimate, each.low, each.high))
    if spread(each):
        return f"{mean} [{low}, {high}]"
    if abs(each.estimate) < 1e-12:
        return NOTHING
    return NO_HIT if relative and each.estimate == -1 else f"{mean}, no interval"


def standing_of(each) -> float:
    """How far a row's estimate is on its claim's side of the bound of its rule, in half intervals.

    Infinite without an interval, unless the estimate is the bound; NaN if missing.
    """
    if each.estimate != each.estimate:
        return math.nan
    away = {
        "better": each.estimate,
        "no worse": each.estimate + rules.SAME,
        "flat": rules.FLAT - abs(each.estimate),
    }[each.rule]
    if spread(each):
        return 2 * away / (each.high - each.low)
    return math.copysign(math.inf, away) if away else 0.0


def spread(each) -> bool:
    """Whether the interval of a row has a width, beyond rounding."""
    return each.high - each.low > 1e-12


def number(value: float, relative: bool = False) -> str:
    """A signed number with a real minus sign; relative: in per cent.

    >>> number(-0.03277), number(0.158, relative=True)
    ('−0.0328', '+16 %')
    """
    text = f"{100 * value:+.{int(abs(value) < 0.01)}f} %" if relative else f"{value:+.4f}"
    return text.replace("-", MINUS)


def signed(found: Interval) -> str:
    """A difference with its interval, if there is any spread."""
    if found.high - found.low < 1e-12:
        return NOTHING if abs(found.mean) < 1e-12 else f"{number(found.mean)}, no interval"
    return f"{number(found.mean)} [{number(found.low)}, {number(found.high)}]"


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
    worst = min(here, key=lambda row: (WEAKEST_FIRST.index(row.verdict), row.standing))
    said = [row.verdict for row in here]
    return Cell(worst, len(here), said.count(rules.MISSING), said.count(rules.SUPPORTED))


def judged(claim: Claim) -> bool:
    """Whether a claim could be judged on any data set."""
    return any(cell and cell.row.verdict != rules.MISSING for cell in claim.cells.values())


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
    items, examples = (evidence.read_data(folder, name) for name in ("items", "examples"))
    lists = evidence.plain_runs(evidence.read_lists(folder))
    gains = evidence.personal_gains(lists[lists.method == "bigrec"], items, examples)
    found = []
    for dataset, group in scores.groupby("dataset"):
        size = evidence.main_size(group)
        group = group[group.n_train == size]
        means = group.groupby("method").ndcg.mean()
        others = means[means.index.isin(OTHERS)]
        best = str(others.idxmax()) if len(others) else ""
        own = group[group.method == "bigrec"]
        personal = gains[(gains.dataset == dataset) & (gains.n_train == size)]
        found.append(
            Level(
                dataset=str(dataset),
                samples=size,
                seeds=group.seed.nunique(),
                examples=group.example.nunique(),
                bigrec=float(own.ndcg.mean()),
                best=label(best) if best else "",
                best_value=float(others.max()) if best else math.nan,
                random=by_chance(metrics.ndcg, items, str(dataset)),
                hits=int(own.hr.sum()),
                lists=len(own),
                chance=len(own) * by_chance(metrics.hr, items, str(dataset)),
                gain=analyses.mean_of_rows(personal, "gain").interval if len(personal) else NO_GAIN,
            )
        )
    return found


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
    named = {job["parameters"].get("model", "") for job in jobs if not job["keys"].get("lm")}
    return ", ".join(sorted(named - {""}))


def summary(levels: list[Level], llm: str) -> list[str]:
    """What a reader should know before the grid: what was run, and what came of it."""
    if not levels:
        return []
    sizes = {each.dataset: f"{each.samples:,} samples, {counted(each.seeds, 'seed')}, "
             f"{each.examples:,} test examples" for each in levels}  # fmt: skip
    same = len(set(sizes.values())) == 1
    run = f"{levels[0].dataset if len(levels) == 1 else 'each data set'}: {min(sizes.values())}"
    if not same:
        run = "; ".join(f"{name}: {size}" for name, size in sizes.items())
    said = [f"LLM: {llm}. {run[0].upper()}{run[1:]}." if llm else f"{run[0].upper()}{run[1:]}."]
    few = [each.dataset for each in levels if each.seeds < rules.SEEDS]
    if few:
        where = "" if len(few) == len(levels) else f" on {listed(few)}"
        said[0] += (
            f" With fewer than {rules.SEEDS} seeds nothing is decided{where}: "
            "a “demonstration” shows what these runs gave."
        )
    hits = [
        f"{each.hits:,} of {each.lists:,} lists on {each.dataset}"
        + (f" (by chance {each.chance:.1f})" if each.chance == each.chance else "")
        for each in levels
    ]
    result = f"BIGRec has the truth among its first 20 in {listed(hits)}."
    return [*said, " ".join(filter(None, [result, personal(levels), held(levels)]))]


def personal(levels: list[Level]) -> str:
    """On which data sets the personal gain is shown; '' where it is not known."""
    known = [each for each in levels if each.gain.mean == each.gain.mean]
    shown = [each.dataset for each in known if each.gain.low > 0]
    if not known:
        return ""
    if not shown:
        return "Nowhere is it shown that a list fits its own user better than other users."
    return f"A list fits its own user better than other users on {listed(shown)}: a personal gain."


def held(levels: list[Level]) -> str:
    """Where the best model without an LLM has a higher mean than BIGRec, and where a lower."""
    words = {
        "above": [each for each in levels if each.bigrec > each.best_value],
        "below": [each for each in levels if each.bigrec < each.best_value],
    }
    said = [
        f"{word} that of the best model without an LLM on "
        + listed([f"{e.dataset} ({e.bigrec:.4f} and {e.best_value:.4f})" for e in those])
        for word, those in words.items()
        if those
    ]
    doubt = " C1 below says whether that is more than chance." if words["above"] else ""
    return f"Its mean NDCG@20 is {listed(said)}.{doubt}" if said else ""


def contents(folder: Path) -> dict:
    """All that the findings page shows; `lacks` names what is not there, `waiting` are claims that
    no data set has a verdict on."""
    rows = read_rows(folder)
    domains = datasets(folder, rows)
    lacks = [] if rows else ["verdicts: no analysis with claims has been published"]
    found: dict = {"levels": [], "examples": [], "of": "", "summary": []}
    try:
        found["levels"] = levels(folder)
        found["summary"] = summary(found["levels"], llm_of(folder))
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
    shown = [claim for claim in claims if judged(claim)]
    return found | {
        "rows": rows,
        "domains": domains,
        "claims": shown,
        "waiting": [claim for claim in claims if claim not in shown],
        "counts": counts(shown),
        "code": making.code_of(folder),
        "lacks": lacks,
        "reading": READING,
        "meanings": MEANINGS,
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
            parts.append(f"{each.best}, the highest without an LLM, {each.best_value:.4f}")
        parts += [f"expected of a random order {each.random:.4f}"] * (each.random == each.random)
        said.append(f"{each.dataset}: {'; '.join(parts)}.")
    return " ".join(said)
