"""The paper's claims (docs/method.md, section 7) and the rule that decides each.

RULE is the text that notebooks and pages print; the functions below do what it says.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bigrec_lib.files import write_text
from bigrec_lib.findings import significance
from bigrec_lib.findings.evidence import (
    group_shares,
    ladder,
    ladders,
    main_size,
    origins,
    overlaps,
    plain_runs,
    preferred,
    slope_weights,
    title_groups,
)
from bigrec_lib.findings.methods import CONVENTIONAL, minus
from bigrec_lib.study.parameters import Analysis

RULE = """\
A claim gets one row a data set and comparison, and a verdict by a rule fixed beforehand:

* **Directional** claims ("A is better than B"): `supported` if the mean paired difference has a
  95 % interval above zero and its p-value, corrected by Holm over the claims of its notebook, is
  below 0.05; `contradicted` if the interval is below zero and the corrected p-value is below 0.05;
  else `not decided at this scale`.
* **Bounded** claims ("A is no worse than B", "the curve is flat") compare relative to a level, with
  a margin of 10 % of it: `supported` if the whole interval lies within the margin, `contradicted`
  if the whole interval lies outside, both with a corrected p-value below 0.05; else `not decided
  at this scale`. "No worse" has a margin on the lower side only.

Lacking data is never a verdict about the claim: the row says `missing: ...`. A row that is not
decided says how large a difference would have been found with 80 % power.

* C1: BIGRec - the conventional model that validation prefers, same samples, NDCG@20 and HR@20.
* C2: slope of NDCG@20 over log2(training samples): that of the mean of the conventional models that
  every size has - that of BIGRec (directional); BIGRec's slope / its mean level (bounded on both
  sides: "flat"). Sizes with fewer seeds than three others are left out. (What every size has, and
  what is left out, was settled when one seed of studies/standard.yaml was known.)
* C3: BIGRec with popularity, or with collaborative scores - BIGRec; collaborative - popularity.
* C4: share of the most popular fifth among the first 20: conventional models' mean - BIGRec's; and
  share of the first 20 in common: among conventional models - BIGRec with them (both directional).
* C5: joint model / single-domain model - 1 (bounded below: "no worse"), at the same number of
  samples of each domain; model tuned on another domain - the untuned LLM (directional).
"""

LEVEL = 0.05
MARGIN = 0.10
SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "not decided at this scale"
COLUMNS = (
    "claim dataset statement metric estimate low high p corrected seeds n detectable rule "
    "verdict where reason"
).split()
SHOWN = "claim dataset statement metric estimate low high corrected verdict".split()


def directional(row: dict) -> str:
    """The verdict on a difference claimed to be above zero."""
    if not row["corrected"] < LEVEL:
        return OPEN
    return SUPPORTED if row["low"] > 0 else CONTRADICTED if row["high"] < 0 else OPEN


def no_worse(row: dict) -> str:
    """The verdict on a relative difference claimed to be above -MARGIN."""
    if not row["corrected"] < LEVEL:
        return OPEN
    return SUPPORTED if row["low"] > -MARGIN else CONTRADICTED if row["high"] < -MARGIN else OPEN


def flat(row: dict) -> str:
    """The verdict on a relative slope claimed to be within ±MARGIN."""
    if not row["corrected"] < LEVEL:
        return OPEN
    if row["low"] > -MARGIN and row["high"] < MARGIN:
        return SUPPORTED
    return CONTRADICTED if row["low"] > MARGIN or row["high"] < -MARGIN else OPEN


RULES = {"better": directional, "no worse": no_worse, "flat": flat}


def directional_row(keys: dict, differences: np.ndarray) -> dict:
    """Evidence for a directional claim from differences (S seeds, n examples)."""
    found = significance.contrast(differences)
    return keys | {"rule": "better", "estimate": found.pop("difference")} | found


def relative_row(keys: dict, parts: np.ndarray, rule: str) -> dict:
    """Evidence for a bounded claim: mean(parts[0]) / mean(parts[1]), its interval and p.

    parts: (2, S, n). p is the share of bootstrap samples on the wrong side of the margin, with one
    added: the smaller of that for the claim and that against it. NaN where a mean is zero.
    """
    level = parts[1].mean()
    if level <= 0:
        return keys | {"rule": rule, "reason": "missing: a hit to compare with"}
    samples = significance.resample(parts)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(samples[:, 0] / samples[:, 1])  # a sample without a hit: very large
    low, high = significance.limits(ratio)
    within = ratio > -MARGIN if rule == "no worse" else np.abs(ratio) < MARGIN
    wrong = min((~within).sum(), within.sum())
    return keys | {
        "rule": rule,
        "estimate": float(parts[0].mean() / level),
        "low": low,
        "high": high,
        "p": min(1.0, 2 * (wrong + 1) / (len(ratio) + 1)),
        "seeds": parts.shape[1],
        "n": parts.shape[2],
        "detectable": significance.POWER * (high - low) / significance.WIDTH,
    }


def missing(keys: dict, *what: str) -> dict:
    """The row of a claim whose data is not there."""
    return keys | {"reason": f"missing: {', '.join(what)}"}


def judged(rows: list[dict], where: str) -> pd.DataFrame:
    """Rows with corrected p-values, verdicts and reasons: the claims of one notebook, COLUMNS.

    where: the notebook, with '#' and the id of the cell that computes the rows.
    """
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
    frame = frame.astype({"seeds": "Int64", "n": "Int64"})
    frame["where"] = where
    frame["corrected"] = significance.holm(frame.p.astype(float))
    frame["reason"] = frame.reason.fillna("")
    frame["rule"] = frame.rule.fillna("")
    frame["verdict"] = [
        RULES[row["rule"]](row) if row["estimate"] == row["estimate"] and row["rule"] else OPEN
        for row in frame.to_dict("records")
    ]
    quiet = (frame.verdict == OPEN) & (frame.reason == "")
    frame.loc[quiet, "reason"] = [
        f"n = {row.n}, {row.seeds} seed(s): a difference of {row.detectable:.4f} would "
        "have been found with 80 % power"
        for row in frame[quiet].itertuples()
    ]
    alone = (frame.verdict != OPEN) & (frame.seeds == 1)
    frame.loc[alone, "reason"] = "one seed: holds for these trained models"
    return frame


def publish(rows: pd.DataFrame, p: Analysis) -> pd.DataFrame:
    """Write a notebook's claims into its folder; a study's claims.csv gathers them."""
    write_text(rows.to_csv(index=False), p.output / "claims.csv")
    return rows


def p_text(p: float) -> str:
    """A corrected p-value as text."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def sentences(frame: pd.DataFrame) -> str:
    """Claims as a Markdown list: the verdict first, then what it rests on."""
    lines = []
    for row in frame.itertuples():
        found = "" if row.estimate != row.estimate else (
            f": {row.estimate:+.4f} [{row.low:+.4f}, {row.high:+.4f}], corrected "
            f"{p_text(row.corrected)}"
        )  # fmt: skip
        because = f" ({row.reason})" if row.reason else ""
        lines.append(
            f"- **{row.claim}, {row.dataset}: {row.verdict}**. {row.statement}, "
            f"{row.metric}{found}{because}."
        )
    return "\n".join(lines)


def c1(test: pd.DataFrame, valid: pd.DataFrame) -> list[dict]:
    """C1 on every data set. test, valid: `scored` ranks of a study."""
    rows = []
    for dataset, group in plain_runs(test).groupby("dataset", sort=False):
        size = main_size(group)
        group = group[group.n_train == size]
        before = plain_runs(valid).query("dataset == @dataset and n_train == @size")
        rival = preferred(before)
        for metric in ("ndcg", "hr"):
            keys = {
                "claim": "C1",
                "dataset": dataset,
                "metric": f"{metric.upper()}@20",
                "statement": f"{minus('bigrec', rival or 'conventional')}, {size:,} samples each",
            }
            rows.append(difference(keys, group, metric, "bigrec", rival))
    return rows


def difference(keys: dict, group: pd.DataFrame, metric: str, method: str, against: str) -> dict:
    """The directional row of two methods in one frame, or what is missing."""
    lacking = [name for name in (method, against) if name not in set(group.method)]
    if lacking:
        return missing(keys, *(name or "conventional models of these samples" for name in lacking))
    found = significance.crossed(group[group.method.isin((method, against))], metric)
    values = found[method].to_numpy() - found[against].to_numpy()
    if not values.size:
        return missing(keys, "a seed and examples in common")
    return directional_row(keys, values)


def c2(test: pd.DataFrame) -> list[dict]:
    """C2 on every data set. test: `scored` ranks of a study."""
    rows = []
    for dataset, group in plain_runs(test).groupby("dataset", sort=False):
        keys = {"claim": "C2", "dataset": dataset, "metric": "NDCG@20 per doubling"}
        steeper = keys | {"statement": "slope of the conventional models' mean − BIGRec's"}
        level = keys | {"statement": "BIGRec's slope / its mean level"}
        x, found, gap = ladders(group)
        if gap:
            rows.append(missing(steeper, gap))
        else:
            apart = found["conventional"] - found["bigrec"]
            rows.append(directional_row(steeper, np.tensordot(slope_weights(x), apart, 1)))
        x, bigrec = ladder(group, ["bigrec"])
        if len(x) < 2:
            rows.append(missing(level, "two training sizes or more of bigrec"))
        else:
            slope = np.tensordot(slope_weights(x), bigrec, 1)
            rows.append(relative_row(level, np.stack([slope, bigrec.mean(0)]), "flat"))
    return rows


def crossing(x: np.ndarray, found: dict[str, np.ndarray]) -> tuple[float, float, float]:
    """Training size where the fitted lines of 'bigrec' and 'conventional' cross: low, size, high.

    Each end within the sizes that were run; NaN where a bootstrap sample's lines cross from the
    other side in more than half of the samples, or in the fit itself.
    """
    apart = found["bigrec"] - found["conventional"]  # (m, S, n)
    fit = np.stack([slope_weights(x), np.full(len(x), 1 / len(x))])  # slope, mean
    parts = np.tensordot(fit, apart, 1)  # (2, S, n)
    samples = np.concatenate([parts.mean((1, 2))[None], significance.resample(parts)])
    slope, mean = samples.T
    with np.errstate(divide="ignore"):
        at = 2 ** np.clip(x.mean() - mean / slope, x.min(), x.max())
    usual = slope < 0
    if not usual[0] or usual[1:].mean() < 0.5:
        return float("nan"), float("nan"), float("nan")
    low, high = significance.limits(at[1:][usual[1:]])
    return low, float(at[0]), high


def c3(test: pd.DataFrame) -> list[dict]:
    """C3 on every data set. test: `scored` ranks of a study."""
    pairs = [
        ("bigrec+popularity", "bigrec"),
        ("bigrec+collaborative", "bigrec"),
        ("bigrec+collaborative", "bigrec+popularity"),
    ]
    rows = []
    for dataset, group in plain_runs(test).groupby("dataset", sort=False):
        group = group[group.n_train == main_size(group)]
        for method, against in pairs:
            keys = {"claim": "C3", "dataset": dataset, "metric": "NDCG@20"}
            keys["statement"] = minus(method, against)
            rows.append(difference(keys, group, "ndcg", method, against))
    return rows


def c4(lists: pd.DataFrame, items: dict[str, pd.DataFrame], datasets: list[str]) -> list[dict]:
    """C4 on every data set. lists: `runs.read_lists`; items: data set -> items.parquet."""
    rows = []
    for dataset in datasets:
        group = plain_runs(lists[lists.dataset == dataset])
        group = group[group.n_train == main_size(group)]
        keys = {"claim": "C4", "dataset": dataset, "metric": "first 20"}
        popular = keys | {"statement": "share of the most popular fifth: conventional − BIGRec"}
        alike = keys | {"statement": "in common: conventional with each other − with BIGRec"}
        networks = [m for m in CONVENTIONAL if m in set(group.method)]
        lacking = [
            name
            for name, there in {
                "lists of bigrec": "bigrec" in set(group.method),
                "lists of two conventional models or more": len(networks) > 1,
            }.items()
            if not there
        ]
        if lacking:
            rows += [missing(popular, *lacking), missing(alike, *lacking)]
            continue
        group = group[group.method.isin([*networks, "bigrec"])]
        if dataset in items:
            share = group_shares(group, title_groups(items[dataset]))[4]
            tables = significance.crossed(group.assign(share=share), "share")
            theirs = np.mean([tables[m].to_numpy() for m in networks], axis=0)
            rows.append(directional_row(popular, theirs - tables["bigrec"].to_numpy()))
        else:
            rows.append(missing(popular, "items.parquet"))
        among = [(a, b) for i, a in enumerate(networks) for b in networks[i + 1 :]]
        pairs = overlaps(group, [*among, *(("bigrec", m) for m in networks)])
        ours = np.mean([pairs["bigrec", m] for m in networks], axis=0)
        rows.append(directional_row(alike, np.mean([pairs[p] for p in among], axis=0) - ours))
    return rows


def c5(test: pd.DataFrame) -> list[dict]:
    """C5 on every data set. test: `scored` ranks of a study."""
    rows = []
    for dataset in test.dataset.unique():
        group = origins(test, dataset)
        tuned = group[group.n_train > 0]
        size = main_size(group[group.origin == dataset])
        keys = {"claim": "C5", "dataset": dataset, "metric": "NDCG@20"}
        at = tuned[tuned.n_train == size]
        joint = [name for name in at.origin.unique() if "+" in name]
        said = keys | {"statement": f"joint / single − 1, {size:,} samples of each domain"}
        rows.append(
            relative(said, at, joint[0], dataset) if joint else missing(said, "joint model")
        )
        others = [name for name in at.origin.unique() if "+" not in name and name != dataset]
        untuned = group[group.n_train == 0]
        for other in others or [""]:
            said = keys | {"statement": f"tuned on {other or 'another domain'} − untuned LLM"}
            lacking = ["a model tuned on another domain"] * (not other)
            lacking += ["the untuned LLM (zero_shot)"] * untuned.empty
            if lacking:
                rows.append(missing(said, *lacking))
                continue
            moved = at[at.origin == other]
            tables = [
                each.pivot(index="seed", columns="example", values="ndcg").dropna(axis=1)
                for each in (moved, untuned)
            ]
            examples = tables[0].columns.intersection(tables[1].columns)
            base = tables[1][examples].mean().to_numpy()  # there is nothing to learn, so no seeds
            rows.append(directional_row(said, tables[0][examples].to_numpy() - base))
    return rows


def relative(keys: dict, group: pd.DataFrame, joint: str, single: str) -> dict:
    """The "no worse" row of one origin against another."""
    tables = significance.crossed(group[group.origin.isin((joint, single))], "ndcg", by="origin")
    if len(tables) < 2 or not tables[joint].size:
        return missing(keys, "single-domain model with the same seeds")
    ours, theirs = tables[joint].to_numpy(), tables[single].to_numpy()
    return relative_row(keys, np.stack([ours - theirs, theirs]), "no worse")
