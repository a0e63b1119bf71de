"""The paper's claims (docs/method.md, section 7): the evidence for each, by the rule of `rules`.

A claim is a list of rows. `row` makes one from its mean and its guards, `judged` gives verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.files import write_text
from bigrec_lib.findings import alts, rules, significance
from bigrec_lib.findings.evidence import (
    comparator,
    injected_model,
    main_size,
    origins,
    plain_runs,
    preferred,
)
from bigrec_lib.findings.methods import CONVENTIONAL, LAST, label, minus
from bigrec_lib.findings.significance import (
    Interval,
    Mean,
    as_columns,
    crossed,
    mean_of,
    mean_of_rows,
    ratio_of,
    relative_of,
    users_of,
)
from bigrec_lib.findings.tables import steady
from bigrec_lib.findings.training_sizes import Ladders, ladders
from bigrec_lib.study.parameters_analyses import Analysis

COLUMNS = (
    "claim dataset statement metric estimate low high p_own p corrected seeds users n detectable "
    "rule guards verdict where rule_commit reason"
).split()
CONSTANT = "nothing varies that an error could be estimated from"
FEW = "too few users are hit at any size:"  # then how many
UNMET = "it rests on a guard that is not shown to be above zero: "  # then the guard
SHOWN = "claim dataset statement metric estimate low high corrected n verdict".split()

# --------------------------------------------------------------------------- rows and verdicts


def row(keys: dict, mean: Mean, rule: str, guards: dict[str, Mean]) -> dict:
    """The evidence for one comparison.

    keys: claim, dataset, statement, metric. guards: what must be above zero as well, by name.
    """
    unguarded = rules.RULES[rule](mean)
    finding = rules.guarded(unguarded, guards)
    sizes = {"seeds": mean.seeds, "users": mean.users, "n": mean.n}
    return (
        keys
        | as_columns(mean, "estimate")
        | sizes
        | {"p_own": unguarded.p, "p": finding.p, "favours": finding.favours, "away": finding.away}
        | {"detectable": mean.detectable}
        | {"rule": rule, "guards": guards_text(guards), "weakest": finding.weakest}
    )


def guards_text(guards: dict[str, Mean]) -> str:
    """Guards as claims.csv has them; `guards_in` reads them again."""
    return "; ".join(f"{name} {mean.interval}, p = {mean.p:.4f}" for name, mean in guards.items())


def guards_in(text: str) -> dict[str, Interval]:
    """Guards by name, from a text of `guards_text`."""
    number = r"(-?[\d.]+|nan)"
    guard = rf"(.+?) {number} \[{number}, {number}\], p = {number}(?:; |$)"
    return {name: Interval(*map(float, ends)) for name, *ends, _ in re.findall(guard, text)}


def missing(keys: dict, *gaps: str) -> dict:
    """The row of a claim whose data is not there."""
    return keys | {"reason": f"missing: {', '.join(gaps)}"}


def judged(rows: list[dict], where: str, rule_commit: str) -> pd.DataFrame:
    """Rows with corrected p-values, verdicts and reasons: the claims of one notebook, COLUMNS.

    where: the notebook, with '#' and the id of the cell that computes the rows. p-values are
    corrected within each claim.
    """
    frame = pd.DataFrame(rows).reindex(columns=[*COLUMNS, "favours", "away", "weakest"])
    frame = frame.astype({"seeds": "Int64", "users": "Int64", "n": "Int64"})
    frame["where"], frame["rule_commit"] = where, rule_commit
    families = frame.p.astype(float).groupby(frame.claim, sort=False)
    frame["corrected"] = families.transform(significance.holm)
    columns = ["reason", "rule", "guards", "weakest"]
    frame[columns] = frame[columns].fillna("")
    frame["verdict"] = [
        rules.verdict(claim.corrected, bool(claim.favours), claim.seeds)
        for claim in frame.itertuples()
    ]
    unexplained = (frame.verdict == rules.OPEN) & (frame.reason == "")
    frame.loc[unexplained, "reason"] = [
        would_take(claim) for claim in frame[unexplained].itertuples()
    ]
    demonstrations = frame.verdict == rules.DEMONSTRATION
    frame.loc[demonstrations, "reason"] = [
        f"{alts.counted(claim.seeds, 'seed')}: nothing is decided with fewer than {rules.SEEDS}"
        for claim in frame[demonstrations].itertuples()
    ]
    return frame[COLUMNS]


def would_take(claim) -> str:
    """What it would take to decide a row: seeds and examples, from how far it is from its bound."""
    if claim.weakest:
        return f"{UNMET}{claim.weakest}"
    power = f"{claim.detectable:.4f} from the bound is found with 80 % power"
    if not claim.away:
        return power
    seen = f"{power}; the {claim.away:.4f} seen"
    factor = (claim.detectable / claim.away) ** 2
    if factor <= 1:
        return f"{seen} is left open by the correction for several comparisons"
    if factor > 100:
        return f"{seen} is too little to be decided"
    return f"{seen} would take {factor:,.1f} times as many seeds and examples"


def publish(rows: pd.DataFrame, p: Analysis) -> pd.DataFrame:
    """Write a notebook's claims into its folder; a study's claims.csv gathers them."""
    write_text(steady(rows).to_csv(index=False), p.output / "claims.csv")
    return rows


def p_text(p: float) -> str:
    """A corrected p-value in a sentence."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def p_value(p: float) -> str:
    """A p-value with as many digits as tell its side of `significance.LEVEL`.

    >>> p_value(0.0502), p_value(0.1234), p_value(0.00001)
    ('0.0502', '0.123', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.{4 if round(p, 2) == significance.LEVEL else 3}f}"


def sentences(frame: pd.DataFrame) -> str:
    """Claims as a Markdown list: the verdict first, then what it rests on."""
    lines = []
    for claim in frame.itertuples():
        estimate = ""
        if claim.estimate == claim.estimate:
            estimate = f": {claim.estimate:+.4f} [{claim.low:+.4f}, {claim.high:+.4f}]"
            if claim.verdict != rules.DEMONSTRATION:
                estimate += f", corrected {p_text(claim.corrected)}"
        reason = f" ({claim.reason})" if claim.reason else ""
        lines.append(
            f"- **{claim.claim}, {claim.dataset}: {claim.verdict}**. {claim.statement}, "
            f"{claim.metric}{estimate}{reason}."
        )
    return "\n".join(lines)


# ------------------------------------------------------------------------------- ingredients


def pair(
    group: pd.DataFrame, one: Hashable, other: Hashable, metric: str = "ndcg", by: str = "method"
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """`metric` of two values of the column `by`, as seeds x examples (`crossed`); None without a
    seed and examples in common."""
    if not {one, other} <= set(group[by].unique()):
        return None
    tables = crossed(group[group[by].isin([one, other])], metric, by)
    return (tables[one], tables[other]) if tables[one].size else None


def difference(
    group: pd.DataFrame, one: Hashable, other: Hashable, metric: str = "ndcg", by: str = "method"
) -> Mean | None:
    """one − other, of `pair`; None without a pair."""
    tables = pair(group, one, other, metric, by)
    return mean_of((tables[0] - tables[1]).to_numpy(), users_of(tables[0])) if tables else None


def relative(
    group: pd.DataFrame, one: Hashable, other: Hashable, by: str = "method"
) -> Mean | None:
    """one / other − 1 in NDCG@20, of `pair`; None without a pair, or without a hit of the other."""
    tables = pair(group, one, other, by=by)
    if tables is None or not tables[1].to_numpy().sum() > 0:
        return None
    return relative_of(tables[0].to_numpy(), tables[1].to_numpy(), users_of(tables[1]))


def personal(gains: pd.DataFrame, method: str = "bigrec") -> Mean | None:
    """The personal gain in NDCG@20 of one method; None where a study has no lists of it.

    gains: `evidence.personal_gains` of one data set and size.
    """
    rows = gains[gains.method == method]
    return None if rows.empty else mean_of_rows(rows, "gain")


def compared(
    keys: dict,
    mean: Mean | None,
    gap: str,
    guards: dict[str, Mean | None],
    rule: str = "better",
    users_hit: int = 0,
) -> dict:
    """The row of a mean and its guards, or what is missing of them.

    gap: what is missing where there is no mean. users_hit: for a relative difference of zero
    everywhere, the users whom the method compared with hits.
    """
    gaps = [gap] * (mean is None) + [name for name, guard in guards.items() if guard is None]
    if mean is None or gaps:
        return missing(keys, *gaps)
    there = {name: guard for name, guard in guards.items() if guard}
    found = row(keys, mean, rule, there)
    if mean.varies:
        return found
    same = rules.unchanged(users_hit if mean.value == 0 else 0)
    if same.p >= significance.LEVEL:
        return found | {"reason": CONSTANT}
    finding = rules.guarded(same, there)
    return found | {"p_own": same.p, "p": finding.p, "weakest": finding.weakest}


def per_dataset(*frames: pd.DataFrame):
    """(data set, main size, the rows of each frame at it) for every data set of the first frame.

    Rows are of `plain_runs` only.
    """
    tables = [plain_runs(frame) for frame in frames]
    for dataset, group in tables[0].groupby("dataset", sort=False):
        size = main_size(group)
        rows = [table[(table.dataset == dataset) & (table.n_train == size)] for table in tables]
        yield dataset, size, *rows


PERSONAL = "personal gain"

# ------------------------------------------------------------------------------------ claims


def c1(test: pd.DataFrame, valid: pd.DataFrame, gains: pd.DataFrame) -> list[dict]:
    """C1 on every data set. test, valid: `scored` ranks; gains: `personal_gains` of a study."""
    rows = []
    for dataset, size, group, validation, gain in per_dataset(test, valid, gains):
        for form, models in {"same targets": LAST, "same interactions": CONVENTIONAL}.items():
            rival = preferred(validation, models)
            for metric in ("ndcg", "hr"):
                keys = {
                    "claim": "C1",
                    "dataset": dataset,
                    "metric": f"{metric.upper()}@20",
                    "statement": f"{minus('bigrec', rival or 'conventional')}, "
                    f"{form} of {size:,} samples",
                }
                mean = difference(group, "bigrec", rival, metric)
                gap = f"conventional models that learn the {form}"
                if rival:
                    gap = f"test ranks of {label(rival)} under a seed of BIGRec's"
                rows.append(compared(keys, mean, gap, {PERSONAL: personal(gain)}))
    return rows


GROWTH = "slope of the conventional models' mean"
STEEPER, FLAT = f"{GROWTH} − BIGRec's", "BIGRec's slope"


def c2(test: pd.DataFrame, gains: pd.DataFrame) -> list[dict]:
    """C2 on every data set. test: `scored` ranks; gains: `personal_gains` of a study."""
    rows = []
    for dataset, size, group, gain in per_dataset(test, gains):
        keys = {"claim": "C2", "dataset": dataset, "metric": "share of NDCG@20 per doubling"}
        of_dataset = test[test.dataset == dataset]
        curves = ladders(of_dataset)
        if curves.gap:
            rows += [missing(keys | {"statement": name}, curves.gap) for name in (STEEPER, FLAT)]
            continue
        learnt = f"BIGRec of {size:,} samples − untuned"
        guards = {PERSONAL: personal(gain), learnt: over_untuned(group, of_dataset)}
        theirs, ours = curves.parts(curves.conventional), curves.parts(curves.bigrec)
        growing = guards | {GROWTH: mean_of(theirs[0], curves.users)}
        head = keys | {"statement": f"{STEEPER}, {curves.sizes}"}
        steeper = compared(head, ratio_of(theirs, curves.users, minus=ours), "", growing)
        head = keys | {"statement": f"{FLAT}, {curves.sizes}"}
        flat = compared(head, ratio_of(ours, curves.users), "", guards, "flat")
        rows += [with_enough_hits(found, curves.users_hit) for found in (steeper, flat)]
    return rows


def with_enough_hits(found: dict, users_hit: int) -> dict:
    """A row on slopes that is not decided if fewer users are hit than `rules.HIT_USERS`."""
    if users_hit >= rules.HIT_USERS or "p" not in found:
        return found
    return found | {"p": 1.0, "reason": f"{FEW} {users_hit}, of at least {rules.HIT_USERS}"}


def over_untuned(tuned: pd.DataFrame, group: pd.DataFrame) -> Mean | None:
    """NDCG@20 of BIGRec's adapters minus that of its LLM as it is, on the examples of both.

    tuned, group: ranks of one data set; in `group` the untuned LLM is looked for, which no seed
    changes, so it stands beside each. None without it.
    """
    untuned = plain_runs(group[group.n_train == 0])
    ours, theirs = (rows[rows.method == "bigrec"] for rows in (tuned, untuned))
    beside = [theirs.assign(method="untuned", seed=seed) for seed in ours.seed.unique()]
    return difference(pd.concat([ours, *beside]), "bigrec", "untuned")


def crossing(curves: Ladders) -> Interval | None:
    """Training size, as log2, where the fitted lines of BIGRec and the conventional models cross.

    None where BIGRec's line does not fall behind: its slope is not below theirs.
    """
    lead = curves.bigrec - curves.conventional  # (m, S, n)
    slope, level = curves.parts(lead)
    if slope.mean() >= 0:
        return None
    ratio = ratio_of(np.stack([level, -slope]), curves.users).interval
    middle = curves.x.mean()
    return Interval(*(float(middle + shift) for shift in (ratio.mean, ratio.low, ratio.high)))


def c3(test: pd.DataFrame, gains: pd.DataFrame, folder: Path) -> list[dict]:
    """C3 on every data set. test: `scored` ranks; gains: `personal_gains` of a study."""
    model = injected_model(folder)
    rows = []
    for dataset, _, group, gain in per_dataset(test, gains):
        keys = {"claim": "C3", "dataset": dataset, "metric": "NDCG@20"}
        for method, against, injected in (
            ("bigrec+popularity", "bigrec", "popularity"),
            ("bigrec+collaborative", "bigrec", model),
            ("bigrec+collaborative", "bigrec+popularity", model),
        ):
            head = keys | {"statement": minus(method, against)}
            guards = {
                minus(method, injected or "its scores"): difference(group, method, injected),
                PERSONAL: personal(gain),
            }
            gaps = [
                label(name) for name in (method, against) if name not in set(group.method.unique())
            ]
            gap = ", ".join(gaps) or "a seed and examples in common"
            rows.append(compared(head, difference(group, method, against), gap, guards))
    return rows


INJECTIONS = {"popularity": "popularity", "collaborative": "collaborative scores"}


def c4(test: pd.DataFrame, gains: pd.DataFrame, folder: Path) -> list[dict]:
    """C4 on every data set. test: `scored` ranks; gains: `personal_gains` of a study."""
    injected = {"popularity": "popularity", "collaborative": injected_model(folder)}
    rows = []
    for dataset, _, group, gain in per_dataset(test, gains):
        keys = {"claim": "C4", "dataset": dataset, "metric": "NDCG@20"}
        for kind, model in injected.items():
            rival = comparator(group, kind)
            ours, theirs = f"bigrec+{kind}", f"{rival}+{kind}"
            models = minus("bigrec", rival or "a conventional model")
            statement = f"gain from {INJECTIONS[kind]}: {models}"
            guards = {
                minus(ours, model or "its scores"): difference(group, ours, model),
                PERSONAL: personal(gain),
            }
            mean = None
            if rival and {"bigrec", ours, rival, theirs} <= set(group.method.unique()):
                runs = group[group.method.isin(("bigrec", ours, rival, theirs))]
                tables = crossed(runs, "ndcg")
                contrast = tables[ours] - tables["bigrec"] - (tables[theirs] - tables[rival])
                mean = mean_of(contrast.to_numpy(), users_of(contrast)) if contrast.size else None
            gap = f"{kind} injected into BIGRec and into a conventional model"
            rows.append(compared(keys | {"statement": statement}, mean, gap, guards))
    return rows


def c5(test: pd.DataFrame, gains: pd.DataFrame) -> list[dict]:
    """C5 on every data set. test: `scored` ranks; gains: `personal_gains` of a study."""
    rows = []
    for dataset in test.dataset.unique():
        group, gain = (origins(frame, dataset) for frame in (test, gains))
        untuned, size = test[test.dataset == dataset], main_size(group[group.origin == dataset])
        group, gain = (frame[frame.n_train == size] for frame in (group, gain))
        keys = {"claim": "C5", "dataset": dataset, "metric": "NDCG@20"}
        rows.append(joint(keys, group, gain, untuned, size))
        names = [name for name in group.origin.unique() if not re.search(r"[+*=]", name)]
        others = [name for name in names if name != dataset]
        for other in others or ["another domain"]:
            head = keys | {"statement": f"tuned on {other} − on others' answers there"}
            mean = difference(group, other, f"{other}*", by="origin")
            at_home = origins(test, other)
            at_home = at_home[at_home.n_train == size]
            guards = {
                PERSONAL: personal(gain[gain.origin == other]),
                f"tuned on {other} − untuned": over_untuned(group[group.origin == other], untuned),
                f"the same on {other}": difference(at_home, other, f"{other}*", by="origin"),
            }
            gap = "a model tuned on another domain, and one tuned there on others' answers"
            rows.append(compared(head, mean, gap, guards))
    return rows


def joint(
    keys: dict, group: pd.DataFrame, gain: pd.DataFrame, untuned: pd.DataFrame, size: int
) -> dict:
    """The "no worse" row of the joint model against the data set's own; against that with the joint
    model's settings, where there is one."""
    alike = f"{keys['dataset']}="
    single = alike if alike in set(group.origin) else keys["dataset"]
    statement = f"joint / single − 1, {size:,} samples of each domain"
    head = keys | {"statement": statement + ", tuned alike" * (single == alike)}
    names = [name for name in group.origin.unique() if "+" in name]
    if not names:
        return missing(head, "joint model")
    guards = {
        PERSONAL: personal(gain[gain.origin == names[0]]),
        "joint − untuned": over_untuned(group[group.origin == names[0]], untuned),
    }
    mean = relative(group, names[0], single, by="origin")
    gap = "single-domain model with the same seeds, and a hit of it"
    return compared(head, mean, gap, guards, "no worse")
