"""Calibration: does the inference keep its level, and how large must a study be?

Every error rate below is a share of studies of simulated models (`simulation`), on which `mean_of`,
`ratio_of` and `rules` are called as claims call them.

    python -m bigrec_lib.findings.calibration [--quick]     (make calibrate)
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from bigrec_lib.files import write_text
from bigrec_lib.findings import rules, simulation, tables, training_sizes
from bigrec_lib.findings.significance import LEVEL, Mean, mean_of, ratio_of, relative_of
from bigrec_lib.method import metrics

USERS = {600: 166, 2000: 1169, 5000: 1169, 15_000: 1169}  # with a test example: ML-100K, ML-1M
SIZES = 2.0 ** np.arange(6, 13)  # training samples of the ladder
POWER = 0.8
LEVELS = (0.012, 0.03)  # NDCG@20: about BIGRec's in results so far, and a higher one
VARIATIONS = (0.1, 0.3)  # of seeds: below and above BIGRec's in results so far

Row = dict[str, Any]


def rng_of(*cell: object) -> np.random.Generator:
    """The random numbers of a cell: the same whatever other cells there are."""
    return np.random.default_rng(list(repr(cell).encode()))


def error_of(share: float, repetitions: int) -> float:
    """Monte-Carlo standard error of a share."""
    return (share * (1 - share) / repetitions) ** 0.5


def level_cell(
    n: int, n_users: int, seeds: int, variation: float, rate: float, models: str, repetitions: int
) -> Row:
    """Type-I error of the two-sided test, and coverage where one model has 1.5 times the hits."""
    keys = dict(
        examples=n, users=n_users, seeds=seeds, variation=variation, hit_rate=rate, models=models
    )
    rng, users = rng_of("level", *keys.values()), simulation.users_of(n, n_users)
    truth = 0.5 * rate * simulation.WORTH.mean()
    rejections = covered = 0
    for _ in range(repetitions):
        first, second = simulation.pair(rng, users, seeds, variation, models)
        base = second.at(rate)
        rejections += mean_of(first.at(rate) - base, users).p < LEVEL
        interval = mean_of(first.at(1.5 * rate) - base, users).interval
        covered += interval.low <= truth <= interval.high
    error, coverage = rejections / repetitions, covered / repetitions
    return keys | {
        "error": error,
        "error_se": error_of(LEVEL, repetitions),
        "coverage": coverage,
        "repetitions": repetitions,
    }


def guard_cell(n: int, n_users: int, seeds: int, kind: str, repetitions: int) -> Row:
    """How often lists that know nothing of their user have a personal gain, or a loss."""
    keys = dict(lists=kind, examples=n, users=n_users, seeds=seeds)
    rng, users = rng_of("guard", *keys.values()), simulation.users_of(n, n_users)
    stock = simulation.stock_of(rng)
    passes = failures = 0
    for _ in range(repetitions):
        targets = rng.choice(len(simulation.POPULARITY), n, p=simulation.POPULARITY)
        lists = simulation.impersonal(rng, stock, targets, seeds, kind)
        parts = [
            metrics.own_and_others(seed_lists, targets, users, simulation.WORTH)
            for seed_lists in lists
        ]
        mean = mean_of(np.stack([own - others for own, others in parts]), users)
        passes += mean.p < LEVEL and mean.value > 0
        failures += mean.p < LEVEL and mean.value < 0
    return keys | {
        "passes": passes / repetitions,
        "error": (passes + failures) / repetitions,
        "error_se": error_of(LEVEL, repetitions),
        "repetitions": repetitions,
    }


def slope(models: list[simulation.Model], rate: float, share: float, users: np.ndarray) -> Mean:
    """Slope per doubling as a share of the level, of models whose true one is `share`."""
    sizes = training_sizes.Ladder(np.log2(SIZES), np.empty(0), users)
    rates = rate * (1 + share * (sizes.x - sizes.x.mean()))
    values = np.stack([model.at(size_rate) for model, size_rate in zip(models, rates, strict=True)])
    return ratio_of(sizes.parts(values), users)


def decided(finding: rules.Finding) -> str:
    """supported, contradicted or not decided, before any correction."""
    return rules.verdict(finding.p, finding.favours, rules.SEEDS)


def boundary_cell(
    n: int, n_users: int, seeds: int, variation: float, level: float, rule: str, repetitions: int
) -> Row:
    """How often "no worse" or "flat" is decided where the truth is at its very margin."""
    keys = dict(rule=rule, examples=n, users=n_users, seeds=seeds, variation=variation, level=level)
    rng, users, rate = (
        rng_of("boundary", *keys.values()),
        simulation.users_of(n, n_users),
        level / simulation.WORTH.mean(),
    )
    verdicts = []
    for _ in range(repetitions):
        if rule == "no worse":
            first, second = simulation.pair(rng, users, seeds, variation, "related")
            mean = relative_of(first.at((1 - rules.SAME) * rate), second.at(rate), users)
        else:
            mean = slope(ladder(rng, users, seeds, variation), rate, rules.FLAT, users)
        verdicts.append(decided(rules.RULES[rule](mean)))
    supported, contradicted = (
        verdicts.count(verdict) / repetitions for verdict in (rules.SUPPORTED, rules.CONTRADICTED)
    )
    return keys | {
        "supported": supported,
        "contradicted": contradicted,
        "share_se": error_of(LEVEL / 2, repetitions),
        "repetitions": repetitions,
    }


def ladder(rng, users: np.ndarray, seeds: int, variation: float) -> list[simulation.Model]:
    """Related models, one a training size."""
    shared = simulation.difficulty(rng, users)
    return [simulation.Model(rng, shared, users, seeds, variation) for _ in SIZES]


MARGINS = (0.10, 0.15, 0.20, 0.25, 0.30, 0.33)
GAINS = (0.15, 0.3, 0.5, 0.8, 1.2, 1.8, 2.6)  # differences tried, as shares of the level


def power_cell(
    n: int, n_users: int, seeds: int, variation: float, level: float, repetitions: int
) -> Row:
    """What a study of this size finds: smallest differences, equal models, a flat slope."""
    keys = dict(examples=n, users=n_users, seeds=seeds, variation=variation, level=level)
    rng, users, rate = (
        rng_of("power", *keys.values()),
        simulation.users_of(n, n_users),
        level / simulation.WORTH.mean(),
    )
    finds = {models: np.zeros(len(GAINS)) for models in ("unrelated", "related")}
    margin_counts, flat = np.zeros(len(MARGINS)), 0
    for _ in range(repetitions):
        for models, counts in finds.items():
            first, second = simulation.pair(rng, users, seeds, variation, models)
            base = second.at(rate)
            for index, gain in enumerate(GAINS):
                mean = mean_of(first.at((1 + gain) * rate) - base, users)
                counts[index] += mean.p < LEVEL and mean.value > 0
        ratio = relative_of(first.at(rate), base, users)
        margin_counts += [ratio.p_above(-margin) < LEVEL / 2 for margin in MARGINS]
        slopes = slope(ladder(rng, users, seeds, variation), rate, 0.0, users)
        flat += decided(rules.flat(slopes)) == rules.SUPPORTED
    return (
        keys
        | {
            f"found_{models}": level * smallest(counts / repetitions)
            for models, counts in finds.items()
        }
        | {
            f"no_worse_{margin:.0%}": share
            for margin, share in zip(MARGINS, margin_counts / repetitions, strict=True)
        }
        | {"flat": flat / repetitions, "power_se": error_of(POWER, repetitions)}
        | {"repetitions": repetitions}
    )


EFFECT = 0.002  # NDCG@20: the size of published effects (docs/method.md)


def effect_cell(n: int, n_users: int, seeds: int, models: str, repetitions: int) -> Row:
    """How often a difference of EFFECT is found, at the lower level and variation."""
    keys = dict(examples=n, users=n_users, seeds=seeds, models=models)
    rng, users = rng_of("effect", *keys.values()), simulation.users_of(n, n_users)
    low, high = (level / simulation.WORTH.mean() for level in (LEVELS[0], LEVELS[0] + EFFECT))
    count = 0
    for _ in range(repetitions):
        first, second = simulation.pair(rng, users, seeds, VARIATIONS[0], models)
        mean = mean_of(first.at(high) - second.at(low), users)
        count += mean.p < LEVEL and mean.value > 0
    share = count / repetitions
    return keys | {
        "power": share,
        "power_se": error_of(share, repetitions),
        "repetitions": repetitions,
    }


def smallest(power: np.ndarray) -> float:
    """The gain, as a share of the level, found with a power of 80 %: interpolated between GAINS.

    NaN where not even the largest is found that often.
    """
    if power[-1] < POWER:
        return float("nan")
    curve = np.maximum.accumulate(power)
    return float(np.interp(POWER, np.r_[0, curve], np.r_[0, GAINS]))


# ----------------------------------------------------------------------------------- all of them

SEEDS = (3, 5, 10)
REPETITIONS = {600: 2000, 2000: 1000, 5000: 1000, 15_000: 400}  # of a cell, by its examples
QUICK = 40  # times fewer
EACH = [(n, n_users) for n in (600, 5000) for n_users in (USERS[n], n)]
TRIED = [(600, 3), (2000, 5), (5000, 5), (5000, 10), (5000, 20), (15_000, 10), (15_000, 20)]
FEW = [(n, USERS[n]) for n in (600, 5000)]
TABLES: dict[str, tuple[Callable[..., Row], list[tuple]]] = {
    "level": (
        level_cell,
        [
            (*size, *rest)
            for size in EACH
            for rest in product(SEEDS, (0.0, 0.3, 0.7), (0.02, 0.05), ("unrelated", "related"))
        ],
    ),
    "guard": (
        guard_cell,
        [(*size, *rest) for size in EACH[:2] for rest in product(SEEDS, ("random", "shuffled"))],
    ),
    "boundary": (
        boundary_cell,
        [
            (*size, *rest)
            for size in FEW
            for rest in product(SEEDS, VARIATIONS, LEVELS, ("no worse", "flat"))
        ],
    ),
    "power": (
        power_cell,
        [
            (n, USERS[n], *rest)
            for n in (600, 2000, 5000)
            for rest in product(SEEDS, VARIATIONS, LEVELS)
        ],
    ),
    "effect": (
        effect_cell,
        [(n, USERS[n], seeds, models) for n, seeds in TRIED for models in ("unrelated", "related")],
    ),
}


def run(job: Callable[[], Row]) -> Row:
    return job()


def calibrate(quick: bool = False) -> dict[str, pd.DataFrame]:
    """All tables, a row a cell; the same whatever the number of processors."""
    jobs = []
    for name, (cell, settings) in TABLES.items():
        for setting in settings:
            divisor = (QUICK if quick else 1) * (2 if name == "power" else 1)
            repetitions = REPETITIONS[setting[0]] // divisor
            jobs.append((name, partial(cell, *setting, repetitions)))
    longest_first = sorted(range(len(jobs)), key=lambda number: -jobs[number][1].args[0])
    with ProcessPoolExecutor() as pool:
        rows = pool.map(run, [jobs[number][1] for number in longest_first])
        rows = tqdm(rows, total=len(jobs), desc="calibration", unit="cell")
        row_of = dict(zip(longest_first, rows, strict=True))
    return {
        name: pd.DataFrame(
            [row_of[number] for number, (table, _) in enumerate(jobs) if table == name]
        )
        for name in TABLES
    }


HEADINGS = {
    "level": "### Level and coverage",
    "guard": "### Guards",
    "boundary": "### Margins",
    "power": "### Power",
    "effect": "### Small effects",
}


def span(values: Iterable[float]) -> str:
    """Mean and range of shares, as text."""
    values = list(values)
    return f"{np.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"


def summaries(frames: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables as a page shows them: cells that differ in what matters less are one row.

    Of power, the rows of the lower level.
    """
    level = frames["level"].groupby(["variation", "seeds"])
    guard = frames["guard"].groupby(["lists", "seeds"])
    boundary = frames["boundary"].groupby(["rule", "seeds"])
    views = {
        "level": level.agg({"error": span, "coverage": span}).reset_index(),
        "guard": guard.agg({"passes": span, "error": span}).reset_index(),
        "boundary": boundary.agg({"supported": span, "contradicted": span}).reset_index(),
        "power": shown_power(frames["power"]),
        "effect": shown_effect(frames["effect"]),
    }
    for frame in views.values():
        frame.columns = frame.columns.str.replace("_", " ")
        if "variation" in frame:
            frame["variation"] = frame.variation.map(str)
    return views


def shown_power(power: pd.DataFrame) -> pd.DataFrame:
    power = power[power.level == LEVELS[0]].sort_values(["variation", "examples", "seeds"])
    shares = [column for column in power if column.startswith(("no_worse", "flat"))]
    power = power.assign(**{column: power[column].map("{:.0%}".format) for column in shares})
    return power.drop(columns=["users", "level", "power_se", "repetitions"])


def shown_effect(effect: pd.DataFrame) -> pd.DataFrame:
    power = effect.assign(power=effect.power.map("{:.0%}".format))
    power = power.pivot(index=["examples", "seeds"], columns="models", values="power")
    return power[["unrelated", "related"]].reset_index()


def write(frames: dict[str, pd.DataFrame], docs: Path) -> None:
    """Write calibration/*.csv, and the summaries into the tables of protocol.md."""
    page = docs / "protocol.md"
    text = page.read_text(encoding="utf-8")
    for name, frame in frames.items():
        tables.save(frame, docs / "calibration", name)
    for name, frame in summaries(frames).items():
        text = put(text, HEADINGS[name], tables.markdown(frame, 4))
    write_text(text, page)


def put(text: str, heading: str, table: str) -> str:
    """A Markdown page whose first table after a heading is another one.

    >>> put("### A\\n\\n| old |\\n|--|\\n\\nend", "### A", "| new |\\n")
    '### A\\n\\n| new |\\n\\nend'
    """
    before, heading, after = text.partition(heading + "\n")
    return before + heading + re.sub(r"(?:^\|.*\n)+", lambda _: table, after, count=1, flags=re.M)


if __name__ == "__main__":
    quick = "--quick" in sys.argv[1:]
    found = calibrate(quick)
    for name, frame in found.items():
        print(f"\n{name}\n{frame.round(4).to_string(index=False)}")
    if not quick:
        write(found, Path(__file__).parents[2] / "docs")
