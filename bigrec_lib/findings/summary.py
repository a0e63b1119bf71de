"""The sentences that open the findings page: what was run, and what BIGRec reached."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from bigrec_lib.findings import analyses, evidence, leaderboard, rules
from bigrec_lib.findings.alts import counted, listed
from bigrec_lib.findings.claims import difference
from bigrec_lib.findings.differences import NOTHING
from bigrec_lib.findings.methods import METHODS, label
from bigrec_lib.findings.significance import Interval
from bigrec_lib.method import metrics
from bigrec_lib.study import manifests

KINDS = ("popularity", "statistic", "network", "last")
OTHERS = [method.name for method in METHODS if method.kind in KINDS]
"""What learns without an LLM: the conventional models, on every step or targets only, and
popularity."""
RARE = 0.01  # share of lists with a hit, far below those of the simulated studies
NO_GAIN = Interval(math.nan, math.nan, math.nan)
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Level:
    """What BIGRec reached on a data set, beside other values; NaN where one is missing.

    bigrec, best_value, random: mean NDCG@20 of BIGRec, of the best model without an LLM, and as
    expected of a random order. hits: how many of `lists` have the truth among the first 20; chance:
    how many would by chance. gain: personal, in NDCG@20, with its 95 % interval. untied: how many
    targets do not have the time of the last history item; on those `untied_bigrec`,
    `untied_best` and their difference `lead`.
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
    untied: int = 0
    untied_bigrec: float = math.nan
    untied_best: float = math.nan
    lead: Interval = NO_GAIN


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
        untied = leaderboard.kinds(str(dataset), items, examples).get("untied", [])
        clear = group[group.example.isin(untied)]
        clear_means = clear.groupby("method").ndcg.mean()
        lead = difference(clear, "bigrec", best)
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
                untied=len(untied),
                untied_bigrec=float(clear_means.get("bigrec", math.nan)),
                untied_best=float(clear_means.get(best, math.nan)),
                lead=lead.interval if lead else NO_GAIN,
            )
        )
    return results


def by_chance(metric, items: dict[str, pd.DataFrame], dataset: str) -> float:
    """What a random order of a data set's titles is expected to score; NaN without its items."""
    if dataset not in items:
        return math.nan
    return metrics.of_random(metric, 20, items[dataset].title_group.nunique())


def llm_of(folder: Path) -> str:
    """The LLM that the study tuned, as its jobs name it, and its size; '' if it is not recorded."""
    if not (folder / manifests.PUBLISHED).exists():
        return ""
    jobs = manifests.published_jobs(folder, "02_tune_llm")
    models = {job["parameters"].get("model", "") for job in jobs if not job["keys"].get("lm")}
    name = ", ".join(sorted(models - {""}))
    writing = manifests.published_jobs(folder, "03_generate_titles")
    sizes = {job["facts"].get("parameters") for job in writing if not job["keys"].get("lm")}
    if len(sizes) != 1 or None in sizes:
        return name
    millions = f"{max(sizes) / 1e6:,.0f} million parameters"
    return f"{name}, {millions} (the paper has LLaMA-7B); verdicts hold for this LLM and these data"


def opening(results: list[Level], llm: str) -> list[str]:
    """What a reader should know before the grid: what was run, what came of it, and what to keep
    in mind, if anything."""
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
    result = " ".join(filter(None, [sentence, fit_of_lists(results), beside_the_best(results)]))
    doubts = " ".join(filter(None, [*without_ties(results), rivals(results), few_hits(results)]))
    return [*lines, result, *[doubts] * bool(doubts)]


def fit_of_lists(results: list[Level]) -> str:
    """On which data sets the personal gain is shown; '' where it is not known."""
    measured = [level for level in results if level.gain.mean == level.gain.mean]
    names = [level.dataset for level in measured if level.gain.low > 0]
    if not measured:
        return ""
    if not names:
        return "Nowhere is it shown that a list fits its own user better than other users."
    return f"A list fits its own user better than other users on {listed(names)}: a personal gain."


def few_hits(results: list[Level]) -> str:
    """Where hits are too rare for intervals to have been tried on the like; '' for nowhere."""
    shares = [
        f"{level.dataset} ({level.hits / level.lists:.1%})"
        for level in results
        if level.hits < RARE * level.lists
    ]
    if not shares:
        return ""
    return (
        "Intervals were tried on simulated studies with hits in 2 to 5 % of the lists; there are "
        f"fewer on {listed(shares)}."
    )


def rivals(results: list[Level]) -> str:
    """With whom C1 compares, where BIGRec is above the best model without an LLM."""
    if not any(level.bigrec > level.best_value for level in results):
        return ""
    return "C1 below compares with the model that validation prefers, which may be another."


def without_ties(results: list[Level]) -> list[str]:
    """What is left where the order of target and history says something, if BIGRec leads."""
    return [
        f"On {level.dataset} {level.examples - level.untied:,} of {level.examples:,} targets have "
        "the time of the last history item, so that their order says nothing. On the others BIGRec "
        f"has {level.untied_bigrec:.4f} and {level.best} {level.untied_best:.4f}, a difference of "
        f"{signed(level.lead)}."
        for level in results
        if level.bigrec > level.best_value and 0 < level.untied < level.examples
    ]


def beside_the_best(results: list[Level]) -> str:
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
    return f"Its mean NDCG@20 is {listed(clauses)}." if clauses else ""


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
