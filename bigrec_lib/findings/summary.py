"""The sentences that open the findings page: what was run, and what BIGRec reached."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bigrec_lib.findings import evidence, leaderboard, rules
from bigrec_lib.findings.alts import counted, listed
from bigrec_lib.findings.claims import difference, over_untuned
from bigrec_lib.findings.differences import NOTHING
from bigrec_lib.findings.methods import METHODS, label
from bigrec_lib.findings.significance import Interval, mean_of_rows
from bigrec_lib.method import metrics
from bigrec_lib.study import manifests

KINDS = ("popularity", "statistic", "network", "last")
OTHERS = [method.name for method in METHODS if method.kind in KINDS]
"""What learns without an LLM: the conventional models, on every step or targets only, and
popularity."""
RARE = 0.02  # share of lists with a hit, the lowest of the simulated studies
WIDTH = 1e-12  # below it, an interval has none
NO_GAIN = Interval(math.nan, math.nan, math.nan)
ALL = "all"  # the part of a data set that is the whole of it
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Part:
    """BIGRec beside the best model without an LLM on some of a data set's test examples: how many,
    mean NDCG@20 of both, and their difference, without an interval where one of them has no hit."""

    examples: int
    bigrec: float
    best: float
    lead: Interval


@dataclass(frozen=True)
class Level:
    """What BIGRec reached on a data set, beside other values; NaN where one is missing.

    bigrec, best_value, random: mean NDCG@20 of BIGRec, of the best model without an LLM that learnt
    from the same samples, and as expected of a random order. hits: how many of `lists` have the
    truth among the first 20, on how many different examples (`hit_examples`); chance, best_hits:
    how many would by chance, and by that model. gain: personal, in NDCG@20, with its 95 % interval.
    parts: what both have on each of `leaderboard.kinds`, and on ALL. tuned: BIGRec − its untuned
    LLM. full, full_value: the best model without an LLM that learnt from all samples.
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
    hit_examples: int
    lists: int
    chance: float
    best_hits: int
    gain: Interval
    parts: dict[str, Part] = field(default_factory=dict)
    tuned: Interval = NO_GAIN
    full: str = ""
    full_value: float = math.nan


def number(value: float, relative: bool = False) -> str:
    """A signed number with a real minus sign; relative: in per cent.

    >>> number(-0.03277), number(0.158, relative=True)
    ('−0.0328', '+16 %')
    """
    text = f"{100 * value:+.{int(abs(value) < 0.01)}f} %" if relative else f"{value:+.4f}"
    return text.replace("-", MINUS)


def signed(interval: Interval, relative: bool = False) -> str:
    """A difference with its interval, or why there is none: without spread nothing is certain."""
    mean, low, high = (number(v, relative) for v in (interval.mean, interval.low, interval.high))
    if interval.high - interval.low > WIDTH:
        return f"{mean} [{low}, {high}]"
    return NOTHING if abs(interval.mean) < WIDTH else f"{mean}, no interval"


def levels(folder: Path) -> list[Level]:
    """What was reached on each data set, at its main size. Raises StudyError without ranks."""
    every = evidence.read_scores(folder)
    scores, full = evidence.plain_runs(every), every[evidence.on_all_samples(every)]
    items, examples = (evidence.read_data(folder, name) for name in ("items", "examples"))
    lists = evidence.plain_runs(evidence.read_lists(folder))
    gains = evidence.personal_gains(lists[lists.method == "bigrec"], items, examples)
    results = []
    for dataset, group in scores.groupby("dataset"):
        size = evidence.main_size(group)
        untuned, group = group[group.n_train == 0], group[group.n_train == size]
        best, best_value = best_other(group)
        full_best, full_value = best_other(full[full.dataset == dataset])
        bigrec, rival = (group[group.method == name] for name in ("bigrec", best))
        tuned = over_untuned(group, untuned)
        gain = gains[(gains.dataset == dataset) & (gains.n_train == size)]
        kinds = leaderboard.kinds(str(dataset), items, examples)
        results.append(
            Level(
                dataset=str(dataset),
                samples=size,
                seeds=group.seed.nunique(),
                examples=group.example.nunique(),
                bigrec=float(bigrec.ndcg.mean()),
                best=label(best) if best else "",
                best_value=best_value,
                random=by_chance(metrics.ndcg, items, str(dataset)),
                hits=int(bigrec.hr.sum()),
                hit_examples=bigrec.example[bigrec.hr > 0].nunique(),
                lists=len(bigrec),
                chance=len(bigrec) * by_chance(metrics.hr, items, str(dataset)),
                best_hits=int(rival.hr.sum()),
                gain=mean_of_rows(gain, "gain").interval if len(gain) else NO_GAIN,
                parts={ALL: part_of(group, best)}
                | {
                    kind: part_of(group[group.example.isin(chosen)], best)
                    for kind, chosen in kinds.items()
                },
                tuned=tuned.interval if tuned else NO_GAIN,
                full=label(full_best) if full_best else "",
                full_value=full_value,
            )
        )
    return results


def best_other(scores: pd.DataFrame) -> tuple[str, float]:
    """Of OTHERS the one with the highest mean NDCG@20, and that; '' and NaN without any."""
    means = scores[scores.method.isin(OTHERS)].groupby("method").ndcg.mean()
    return (str(means.idxmax()), float(means.max())) if len(means) else ("", math.nan)


def part_of(scores: pd.DataFrame, best: str) -> Part:
    """What BIGRec and the best model without an LLM have on some examples; NaN where one lacks."""
    means = scores.groupby("method").ndcg.mean()
    ours, theirs = (float(means.get(name, math.nan)) for name in ("bigrec", best))
    found = difference(scores, "bigrec", best)
    lead = found.interval if found else NO_GAIN
    if 0 in (ours, theirs):
        lead = Interval(lead.mean, lead.mean, lead.mean)
    return Part(scores.example.nunique(), ours, theirs, lead)


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
    run = "; ".join(f"{name}: {size}" for name, size in sizes.items())
    if len(results) > 1 and len(set(sizes.values())) == 1:
        run = f"Each data set: {min(sizes.values())}"
    lines = [f"LLM: {llm}. {run}." if llm else f"{run}."]
    undecided = [level.dataset for level in results if level.seeds < rules.SEEDS]
    if undecided:
        where = "" if len(undecided) == len(results) else f" on {listed(undecided)}"
        lines[0] += (
            f" With fewer than {rules.SEEDS} seeds nothing is decided{where}: "
            "a “demonstration” shows what these runs gave."
        )
    sentence = f"BIGRec has the truth among its first 20 in {listed(list(map(hits_of, results)))}."
    said = (sentence, beside_the_best(results), fit_of_lists(results))
    leads = [level for level in results if level.bigrec > level.best_value]
    doubted = (*map(where_it_leads, leads), rivals(leads), tied(results, leads), few_hits(results))
    return [*lines, *(" ".join(filter(None, part)) for part in (said, doubted) if any(part))]


def hits_of(level: Level) -> str:
    """In how many lists BIGRec has the truth, beside chance and the best model without an LLM."""
    beside = [f"{level.chance:.1f} by chance"] * (level.chance == level.chance)
    beside += [f"{level.best_hits:,} by {level.best}"] * bool(level.best)
    text = f"{level.hits:,} of {level.lists:,} lists on {level.dataset}"
    return f"{text} ({', '.join(beside)})" if beside else text


def fit_of_lists(results: list[Level]) -> str:
    """On which data sets the personal gain is shown; '' where it is not known."""
    measured = [level for level in results if level.gain.mean == level.gain.mean]
    names = [level.dataset for level in measured if level.gain.low > 0]
    if not measured:
        return ""
    if not names:
        return "Nowhere is it shown that a list fits its own user better than other users."
    found = f"A list fits its own user better than other users on {listed(names)}"
    unlearnt = [level for level in results if level.dataset in names and level.tuned.low <= 0]
    if not unlearnt:
        return f"{found}: a personal gain."
    like = [f"{level.dataset} ({signed(level.tuned)})" for level in unlearnt]
    return f"{found}, but on {listed(like)} BIGRec is not shown to be better than its untuned LLM."


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


def rivals(leads: list[Level]) -> str:
    """With whom C1 compares; '' if BIGRec is nowhere above the best model without an LLM."""
    return "C1 compares with the model that validation prefers; its cells name it." * bool(leads)


def tied(results: list[Level], leads: list[Level]) -> str:
    """How many targets have no order of their own, where `where_it_leads` does not say so."""
    counts = [
        f"{ties:,} of {level.examples:,} on {level.dataset}"
        for level in results
        if level not in leads and (ties := ties_of(level))
    ]
    return f"Targets with the same time as the last history item: {listed(counts)}." * bool(counts)


def ties_of(level: Level) -> int:
    """How many targets of a data set have the time of the last history item."""
    clear = level.parts.get("untied")
    return level.examples - clear.examples if clear else 0


def where_it_leads(level: Level) -> str:
    """On which targets BIGRec is above the best model without an LLM, if it is on the whole."""
    sentences = []
    if ALL in level.parts:
        lead = signed(level.parts[ALL].lead)
        sentences.append(f"On {level.dataset} BIGRec − {level.best} is {lead}.")
    clear, ties = level.parts.get("untied"), ties_of(level)
    if clear and 0 < ties < level.examples:
        sentences.append(
            f"There {ties:,} of {level.examples:,} targets have the same time as the last history "
            "item, so which came first is unknown. On the "
            f"others BIGRec has {clear.bigrec:.4f} and {level.best} {clear.best:.4f}, a difference "
            f"of {signed(clear.lead)}."
        )
    cold, warm = level.parts.get("cold"), level.parts.get("warm")
    if cold and warm and 0 < cold.examples < level.examples:
        sentences.append(
            f"On the {cold.examples:,} targets of {level.dataset} that do not occur in training "
            f"the difference is {lead_of(cold, level.best)}, on those that do "
            f"{lead_of(warm, level.best)}."
        )
    return " ".join(sentences)


def lead_of(part: Part, best: str) -> str:
    """The difference on a part, and whose hits it lacks where there is no interval."""
    if 0 not in (part.bigrec, part.best):
        return signed(part.lead)
    hitless = f"{best} has no hit" if part.bigrec else "BIGRec has no hit"
    if part.bigrec == part.best == 0:
        hitless = "neither has a hit"
    return f"{number(part.lead.mean)} ({hitless} there)"


def beside_the_best(results: list[Level]) -> str:
    """Where BIGRec is above the best model without an LLM that learnt from the same samples, and
    from all, and where below; the values stand in the table of levels."""
    leads = {
        "the same samples": {level.dataset: level.bigrec - level.best_value for level in results},
        "all samples": {level.dataset: level.bigrec - level.full_value for level in results},
    }
    sentences = [
        f"next to the best model without an LLM that learnt from {samples}, is {where}"
        for samples, lead in leads.items()
        if (where := sides(lead))
    ]
    return f"Its mean NDCG@20, {', and '.join(sentences)}." if sentences else ""


def sides(leads: dict[str, float]) -> str:
    """On which data sets a difference is above zero, and on which below; '' where all are NaN.

    >>> sides({"a": 0.1, "b": -0.1, "c": -0.2}), sides({"a": float("nan")})
    ('higher on a and lower on b and c', '')
    """
    named = {
        "higher": [name for name, lead in leads.items() if lead > 0],
        "lower": [name for name, lead in leads.items() if lead < 0],
    }
    return listed([f"{word} on {listed(names)}" for word, names in named.items() if names])


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
