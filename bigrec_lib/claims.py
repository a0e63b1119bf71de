"""The paper's claims (method.md section 7), the rule that decides each, and published numbers.

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
* C2: slope of NDCG@20 over log2(training samples): that of the conventional models' mean - that of
  BIGRec (directional); BIGRec's slope / its mean level (bounded on both sides: "flat").
* C3: BIGRec with popularity, or with collaborative scores - BIGRec; collaborative - popularity.
* C4: share of the most popular fifth among the first 20: conventional models' mean - BIGRec's; and
  share of the first 20 in common: among conventional models - BIGRec with them (both directional).
* C5: joint model / single-domain model - 1 (bounded below: "no worse"), at the same number of
  samples of each domain; model tuned on another domain - the untuned LLM (directional).
"""

from __future__ import annotations

import fcntl
from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib import files, significance

LEVEL = 0.05
MARGIN = 0.10
SUPPORTED, CONTRADICTED, OPEN = "supported", "contradicted", "not decided at this scale"
COLUMNS = (
    "claim dataset statement metric estimate low high p corrected seeds n detectable rule "
    "verdict where reason"
).split()
CONVENTIONAL = (
    "recent-popularity item-knn markov gru4rec-ce gru4rec-bce caser-ce caser-bce sasrec-ce "
    "sasrec-bce dros"
).split()
NOTEBOOKS = ("overall", "training_size", "statistical_information", "cross_domain")

DLLM2REC = "DLLM2Rec (RecSys'24), LLaMA2-7B, larger training sets"
DEALREC = "DEALRec (SIGIR'24), LLaMA-7B"
COVE = "CoVE (arXiv 2506.19993), as it quotes BIGRec"
DECODING = "DecodingMatters README, Qwen2-0.5B, recent time window"
PUBLISHED = pd.DataFrame(
    [
        ("Games", "BIGRec", "HR@20", 0.0532, DLLM2REC),
        ("Games", "BIGRec", "NDCG@20", 0.0341, DLLM2REC),
        ("Games", "GRU4Rec", "HR@20", 0.0305, DLLM2REC),
        ("Games", "GRU4Rec", "NDCG@20", 0.0150, DLLM2REC),
        ("Games", "SASRec", "HR@20", 0.0346, DLLM2REC),
        ("Games", "SASRec", "NDCG@20", 0.0190, DLLM2REC),
        ("Games", "DROS", "HR@20", 0.0473, DLLM2REC),
        ("Games", "DROS", "NDCG@20", 0.0267, DLLM2REC),
        ("ML-10M", "BIGRec", "HR@20", 0.0541, DLLM2REC),
        ("ML-10M", "BIGRec", "NDCG@20", 0.0370, DLLM2REC),
        ("ML-10M", "GRU4Rec", "HR@20", 0.0608, DLLM2REC),
        ("ML-10M", "GRU4Rec", "NDCG@20", 0.0236, DLLM2REC),
        ("ML-10M", "SASRec", "HR@20", 0.0626, DLLM2REC),
        ("ML-10M", "SASRec", "NDCG@20", 0.0228, DLLM2REC),
        ("ML-10M", "DROS", "HR@20", 0.0852, DLLM2REC),
        ("ML-10M", "DROS", "NDCG@20", 0.0363, DLLM2REC),
        ("Games", "BIGRec, 1,024 samples", "HR@20", 0.0241, DEALREC),
        ("Games", "BIGRec, 1,024 samples", "NDCG@20", 0.0122, DEALREC),
        ("Games", "BIGRec, full data", "HR@20", 0.0233, DEALREC),
        ("Games", "BIGRec, full data", "NDCG@20", 0.0120, DEALREC),
        ("Games", "BIGRec", "NDCG@5", 0.0189, COVE),
        ("Games", "BIGRec", "HR@10", 0.0329, COVE),
        ("Games", "BIGRec", "HR@20", 0.0457, COVE),
        ("Games", "BIGRec (perhaps constrained)", "NDCG@10", 0.052, DECODING),
        ("Games", "BIGRec (perhaps constrained)", "HR@10", 0.085, DECODING),
    ],
    columns=["dataset", "method", "metric", "published", "source: another model and scale"],
)


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
    if -MARGIN < row["low"] and row["high"] < MARGIN:
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
    ratio = samples[:, 0] / np.maximum(samples[:, 1], np.finfo(float).tiny)
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
        "detectable": significance.POWER * float(ratio.std()),
    }


def missing(keys: dict, *what: str) -> dict:
    """The row of a claim whose data is not there."""
    return keys | {"reason": f"missing: {', '.join(what)}"}


def judged(rows: list[dict], where: str) -> pd.DataFrame:
    """Rows with corrected p-values, verdicts and reasons: the claims of one notebook, COLUMNS.

    where: the notebook, with '#' and the id of the cell that computes the rows.
    """
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS)
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
        f"n = {row.n:.0f}, {row.seeds:.0f} seed(s): a difference of {row.detectable:.4f} would "
        "have been found with 80 % power"
        for row in frame[quiet].itertuples()
    ]
    return frame


def publish(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Write a notebook's claims into its folder and gather all notebooks' in claims.csv above.

    claims.csv is no single notebook's, so no manifest lists it.
    """
    files.write_text(frame.to_csv(index=False), folder / "claims.csv")
    results = folder.parent
    with open(results / ".claims", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        parts = [results / name / "claims.csv" for name in NOTEBOOKS]
        gathered = pd.concat([pd.read_csv(path) for path in parts if path.exists()])
        files.write_text(gathered.to_csv(index=False), results / "claims.csv")
    files.WRITTEN.discard(results / "claims.csv")
    return frame


def told(frame: pd.DataFrame) -> str:
    """Claims as a Markdown list: the verdict first, then what it rests on."""
    lines = []
    for row in frame.itertuples():
        found = "" if row.estimate != row.estimate else (
            f": {row.estimate:+.4f} [{row.low:+.4f}, {row.high:+.4f}], corrected p = "
            f"{row.corrected:.3f}"
        )  # fmt: skip
        because = f" ({row.reason})" if row.reason else ""
        lines.append(
            f"- **{row.claim}, {row.dataset}: {row.verdict}**. {row.statement}, "
            f"{row.metric}{found}{because}."
        )
    return "\n".join(lines)
