"""The paper's claims (docs/method.md, section 7): the evidence for each, by the rule of `rules`.

A claim is a list of rows. `row` makes one from its mean and its guards, `judged` gives verdicts.
"""

from __future__ import annotations

import re
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
from bigrec_lib.findings.significance import Interval, Mean, crossed, mean_of, ratio_of, users_of
from bigrec_lib.findings.tables import steady
from bigrec_lib.findings.training_sizes import Ladders, ladder, ladders, slope_weights
from bigrec_lib.study.parameters_analyses import Analysis
from bigrec_lib.study.row_keys import MATCHED

COLUMNS = (
    "claim dataset statement metric estimate low high p_own p corrected seeds users n detectable "
    "rule guards verdict where rule_commit reason"
).split()
UNMET = "it rests on a guard that is not above zero for sure: "  # then the guard
SHOWN = "claim dataset statement metric estimate low high corrected verdict".split()

# --------------------------------------------------------------------------- rows and verdicts


def row(keys: dict, mean: Mean, rule: str, guards: dict[str, Mean]) -> dict:
    """The evidence for one comparison.

    keys: claim, dataset, statement, metric. guards: what must be above zero as well, by name.
    """
    own = rules.RULES[rule](mean)
    finding = rules.guarded(own, guards)
    shown = [f"{name} {each.interval}, p = {each.p:.4f}" for name, each in guards.items()]
    sizes = {"seeds": mean.seeds, "users": mean.users, "n": mean.n}
    ends = {"estimate": mean.value, "low": mean.interval.low, "high": mean.interval.high}
    return (
        keys
        | ends
        | sizes
        | {"p_own": own.p, "p": finding.p, "favours": finding.favours, "away": finding.away}
        | {"detectable": mean.detectable}
        | {"rule": rule, "guards": "; ".join(shown), "weakest": finding.weakest}
    )


def missing(keys: dict, *what: str) -> dict:
    """The row of a claim whose data is not there."""
    return keys | {"reason": f"missing: {', '.join(what)}"}


def judged(rows: list[dict], where: str, rule_commit: str) -> pd.DataFrame:
    """Rows with corrected p-values, verdicts and reasons: the claims of one notebook, COLUMNS.

    where: the notebook, with '#' and the id of the cell that computes the rows. p-values are
    corrected within each claim.
    """
    frame = pd.DataFrame(rows).reindex(columns=[*COLUMNS, "favours", "away", "weakest"])
    frame = frame.astype({"seeds": "Int64", "users": "Int64", "n": "Int64"})
    frame["where"], frame["rule_commit"] = where, rule_commit
    of_claim = frame.p.astype(float).groupby(frame.claim, sort=False)
    frame["corrected"] = of_claim.transform(significance.holm)
    text = ["reason", "rule", "guards", "weakest"]
    frame[text] = frame[text].fillna("")
    frame["verdict"] = [
        rules.verdict(each.corrected, bool(each.favours), each.seeds) for each in frame.itertuples()
    ]
    quiet = (frame.verdict == rules.OPEN) & (frame.reason == "")
    frame.loc[quiet, "reason"] = [would_take(each) for each in frame[quiet].itertuples()]
    few = frame.verdict == rules.DEMONSTRATION
    frame.loc[few, "reason"] = [
        f"{alts.counted(each.seeds, 'seed')}: nothing is decided with fewer than {rules.SEEDS}"
        for each in frame[few].itertuples()
    ]
    return frame[COLUMNS]


def would_take(undecided) -> str:
    """What it would take to decide a row: seeds and examples, from how far it is from its bound."""
    if undecided.weakest:
        return f"{UNMET}{undecided.weakest}"
    said = f"{undecided.detectable:.4f} would have been found with 80 % power"
    if not undecided.away:
        return said
    times = (undecided.detectable / undecided.away) ** 2
    if times <= 1:
        return f"{said}; the correction for several comparisons leaves it open"
    if times > 100:
        return f"{said}; what is seen is too near to the bound to be decided"
    return f"{said}; what is seen takes {times:,.1f} times as many seeds and as many examples"


def publish(rows: pd.DataFrame, p: Analysis) -> pd.DataFrame:
    """Write a notebook's claims into its folder; a study's claims.csv gathers them."""
    write_text(steady(rows).to_csv(index=False), p.output / "claims.csv")
    return rows


def p_text(p: float) -> str:
    """A corrected p-value as text."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def sentences(frame: pd.DataFrame) -> str:
    """Claims as a Markdown list: the verdict first, then what it rests on."""
    lines = []
    for each in frame.itertuples():
        found = ""
        if each.estimate == each.estimate:
            found = f": {each.estimate:+.4f} [{each.low:+.4f}, {each.high:+.4f}]"
            if each.verdict != rules.DEMONSTRATION:
                found += f", corrected {p_text(each.corrected)}"
        because = f" ({each.reason})" if each.reason else ""
        lines.append(
            f"- **{each.claim}, {each.dataset}: {each.verdict}**. {each.statement}, "
            f"{each.metric}{found}{because}."
        )
    return "\n".join(lines)


# ------------------------------------------------------------------------------- ingredients


def difference(group: pd.DataFrame, method: str, against: str, metric: str = "ndcg") -> Mean | None:
    """The mean paired difference of two methods in one frame; None without a pair in common."""
    if not {method, against} <= set(group.method.unique()):
        return None
    tables = crossed(group[group.method.isin((method, against))], metric)
    if not tables[method].size:
        return None
    return mean_of((tables[method] - tables[against]).to_numpy(), users_of(tables[method]))


def relative(group: pd.DataFrame, method: str, against: str, metric: str = "ndcg") -> Mean | None:
    """method / against − 1 on the seeds and examples of both; None without any, or without a hit of
    `against`."""
    if not {method, against} <= set(group.method.unique()):
        return None
    tables = crossed(group[group.method.isin((method, against))], metric)
    theirs = tables[against].to_numpy()
    if not theirs.sum() > 0:
        return None
    parts = np.stack([tables[method].to_numpy() - theirs, theirs])
    return ratio_of(parts, users_of(tables[against]))


def personal(gains: pd.DataFrame, method: str = "bigrec") -> Mean | None:
    """The personal gain in NDCG@20 of one method; None where a study has no lists of it.

    gains: `evidence.personal_gains` of one data set and size.
    """
    own = gains[gains.method == method]
    if own.empty:
        return None
    table = crossed(own, "gain")[method]
    return mean_of(table.to_numpy(), users_of(table))


def compared(
    keys: dict, mean: Mean | None, what: str, guards: dict[str, Mean | None], rule: str = "better"
) -> dict:
    """The row of a mean and its guards, or what is missing of them.

    what: how the mean's ingredients are called where they are missing.
    """
    lacking = [what] * (mean is None) + [name for name, found in guards.items() if found is None]
    if mean is None or lacking:
        return missing(keys, *lacking)
    return row(keys, mean, rule, {name: found for name, found in guards.items() if found})


def per_dataset(*frames: pd.DataFrame):
    """(data set, main size, the rows of each frame at it) for every data set of the first frame.

    Runs as the study has them (`plain_runs`).
    """
    plain = [plain_runs(frame) for frame in frames]
    for dataset, group in plain[0].groupby("dataset", sort=False):
        size = main_size(group)
        rows = [each[(each.dataset == dataset) & (each.n_train == size)] for each in plain]
        yield dataset, size, *rows


PERSONAL = "personal gain"

# ------------------------------------------------------------------------------------ claims


def c1(test: pd.DataFrame, valid: pd.DataFrame, gains: pd.DataFrame) -> list[dict]:
    """C1 on every data set. test, valid: `scored` ranks; gains: `personal_gains` of a study."""
    rows = []
    for dataset, size, group, before, gain in per_dataset(test, valid, gains):
        for form, models in {"same targets": LAST, "same interactions": CONVENTIONAL}.items():
            rival = preferred(before, models)
            for metric in ("ndcg", "hr"):
                keys = {
                    "claim": "C1",
                    "dataset": dataset,
                    "metric": f"{metric.upper()}@20",
                    "statement": f"{minus('bigrec', rival or 'conventional')}, "
                    f"{form} of {size:,} samples",
                }
                mean = difference(group, "bigrec", rival, metric)
                what = f"conventional models that learn the {form}"
                if rival:
                    what = f"test ranks of {label(rival)} under a seed of BIGRec's"
                rows.append(compared(keys, mean, what, {PERSONAL: personal(gain)}))
    return rows


def c2(test: pd.DataFrame, gains: pd.DataFrame) -> list[dict]:
    """C2 on every data set. test: `scored` ranks; gains: `personal_gains` of a study."""
    rows = []
    for dataset, _, _, gain in per_dataset(test, gains):
        group = test[test.dataset == dataset]
        guards = {PERSONAL: personal(gain)}
        keys = {"claim": "C2", "dataset": dataset}
        found = ladders(group)
        rows.append(steeper(keys, found, guards))
        rows.append(relatively_steeper(keys, found, guards))
        matched = ladders(group, MATCHED)
        rows.append(relatively_steeper(keys, matched, guards, ", same budget of steps"))
        own = ladder(plain_runs(group), ["bigrec"])
        said = keys | SHARE | {"statement": "BIGRec's slope / its level"}
        mean = None if own.gap else ratio_of(own.parts(own.values), own.users)
        rows.append(compared(said, mean, own.gap, guards, "flat"))
    return rows


SHARE = {"metric": "share of NDCG@20 per doubling"}


def steeper(keys: dict, found: Ladders, guards: dict[str, Mean | None]) -> dict:
    """The row of the conventional models' slope minus BIGRec's, in NDCG@20 per doubling."""
    said = {"statement": "slope of the conventional models' mean − BIGRec's"}
    said |= {"metric": "NDCG@20 per doubling"}
    mean = None
    if not found.gap:
        mean = mean_of(found.slope(found.conventional - found.bigrec), found.users)
    return compared(keys | said, mean, found.gap, guards)


def relatively_steeper(
    keys: dict, found: Ladders, guards: dict[str, Mean | None], more: str = ""
) -> dict:
    """The row of the same difference, each slope as a share of its level."""
    said = {"statement": f"relative slope of the conventional models' mean − BIGRec's{more}"}
    mean = None
    if not found.gap:
        theirs, ours = found.parts(found.conventional), found.parts(found.bigrec)
        mean = ratio_of(theirs, found.users, minus=ours)
    return compared(keys | SHARE | said, mean, found.gap, guards)


def crossing(found: Ladders) -> Interval | None:
    """Training size, as log2, where the fitted lines of BIGRec and the conventional models cross.

    None where BIGRec's line does not fall behind: its slope is not below theirs.
    """
    apart = found.bigrec - found.conventional  # (m, S, n)
    fit = np.stack([slope_weights(found.x), np.full(len(found.x), 1 / len(found.x))])
    slope, level = np.tensordot(fit, apart, 1)  # (S, n) each
    if slope.mean() >= 0:
        return None
    at = ratio_of(np.stack([level, -slope]), found.users).interval
    middle = found.x.mean()
    return Interval(*(float(middle + end) for end in (at.mean, at.low, at.high)))


def c3(test: pd.DataFrame, gains: pd.DataFrame, folder: Path) -> list[dict]:
    """C3 on every data set. test: `scored` ranks; gains: `personal_gains` of a study."""
    scores = injected_model(folder)
    rows = []
    for dataset, _, group, gain in per_dataset(test, gains):
        keys = {"claim": "C3", "dataset": dataset, "metric": "NDCG@20"}
        for method, against, alone in (
            ("bigrec+popularity", "bigrec", "popularity"),
            ("bigrec+collaborative", "bigrec", scores),
            ("bigrec+collaborative", "bigrec+popularity", scores),
        ):
            said = keys | {"statement": minus(method, against)}
            guards = {
                minus(method, alone or "its scores"): difference(group, method, alone),
                PERSONAL: personal(gain),
            }
            lacking = [label(m) for m in (method, against) if m not in set(group.method.unique())]
            what = ", ".join(lacking) or "a seed and examples in common"
            rows.append(compared(said, difference(group, method, against), what, guards))
    return rows


def c4(test: pd.DataFrame, gains: pd.DataFrame, folder: Path) -> list[dict]:
    """C4 on every data set. test: `scored` ranks; gains: `personal_gains` of a study."""
    alone = {"popularity": "popularity", "collaborative": injected_model(folder)}
    rows = []
    for dataset, _, group, gain in per_dataset(test, gains):
        keys = {"claim": "C4", "dataset": dataset, "metric": "NDCG@20"}
        for what, scores in alone.items():
            rival = comparator(group, what)
            ours, theirs = f"bigrec+{what}", f"{rival}+{what}"
            said = f"what {what} adds to BIGRec − to {label(rival or 'a conventional model')}"
            guards = {
                minus(ours, scores or "its scores"): difference(group, ours, scores),
                PERSONAL: personal(gain),
            }
            mean = None
            if rival and {"bigrec", ours, rival, theirs} <= set(group.method.unique()):
                wanted = group[group.method.isin(("bigrec", ours, rival, theirs))]
                tables = crossed(wanted, "ndcg")
                added = tables[ours] - tables["bigrec"] - (tables[theirs] - tables[rival])
                mean = mean_of(added.to_numpy(), users_of(added)) if added.size else None
            missed = f"{what} injected into BIGRec and into a conventional model"
            rows.append(compared(keys | {"statement": said}, mean, missed, guards))
    return rows


def c5(test: pd.DataFrame, gains: pd.DataFrame) -> list[dict]:
    """C5 on every data set. test: `scored` ranks; gains: `personal_gains` of a study."""
    rows = []
    for dataset in test.dataset.unique():
        group, gain = (origins(frame, dataset) for frame in (test, gains))
        size = main_size(group[group.origin == dataset])
        group, gain = (frame[frame.n_train == size] for frame in (group, gain))
        keys = {"claim": "C5", "dataset": dataset, "metric": "NDCG@20"}
        rows.append(joint(keys, group, gain, dataset, size))
        names = [name for name in group.origin.unique() if not re.search(r"[+*]", name)]
        others = [name for name in names if name != dataset]
        for other in others or ["another domain"]:
            said = keys | {"statement": f"tuned on {other} − on others' answers there"}
            mean = difference_of_origins(group, other, f"{other}*")
            guards = {PERSONAL: personal(gain[gain.origin == other])}
            what = "a model tuned on another domain, and one tuned there on others' answers"
            rows.append(compared(said, mean, what, guards))
    return rows


def joint(keys: dict, group: pd.DataFrame, gain: pd.DataFrame, dataset: str, size: int) -> dict:
    """The "no worse" row of the joint model against the data set's own."""
    said = keys | {"statement": f"joint / single − 1, {size:,} samples of each domain"}
    names = [name for name in group.origin.unique() if "+" in name]
    if not names:
        return missing(said, "joint model")
    guard = personal(gain[gain.origin == names[0]])
    mean = relative(group.assign(method=group.origin), names[0], dataset)
    what = "single-domain model with the same seeds, and a hit of it"
    return compared(said, mean, what, {PERSONAL: guard}, "no worse")


def difference_of_origins(group: pd.DataFrame, origin: str, against: str) -> Mean | None:
    """As `difference`, between two origins of an adapter."""
    named = group.assign(method=group.origin)
    return difference(named, origin, against)
