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

from __future__ import annotations

import fcntl

import numpy as np
import pandas as pd

from bigrec_lib import files
from bigrec_lib.findings import plots, significance
from bigrec_lib.method import metrics
from bigrec_lib.study import runs

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
NOTEBOOKS = ("overall_performance", "training_size", "statistical_information", "cross_domain")

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


def publish(frame: pd.DataFrame, p: runs.Parameters) -> pd.DataFrame:
    """Write a notebook's claims into its folder and gather all notebooks' in claims.csv above.

    claims.csv is no single notebook's, so no manifest lists it. The lock keeps two notebooks from
    gathering at once.
    """
    files.write_text(frame.to_csv(index=False), p.output / "claims.csv")
    lock = p.runs / "locks" / "claims"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        parts = [p.results / name / "claims.csv" for name in NOTEBOOKS]
        gathered = pd.concat([pd.read_csv(path) for path in parts if path.exists()])
        files.write_text(gathered.to_csv(index=False), p.results / "claims.csv")
    files.WRITTEN.discard(p.results / "claims.csv")
    return frame


def p_text(p: float) -> str:
    """A corrected p-value as text."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def told(frame: pd.DataFrame) -> str:
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


# --------------------------------------------------------- what the rows are computed from


def scored(ranks: pd.DataFrame) -> pd.DataFrame:
    """`runs.read_ranks` with NDCG@20 and HR@20 of every example: columns ndcg, hr."""
    rank = metrics.effective_rank(ranks)
    return ranks.assign(ndcg=metrics.ndcg(rank, 20), hr=metrics.hr(rank, 20))


def own(frame: pd.DataFrame) -> pd.DataFrame:
    """Few-shot runs tuned on their own data set as the study does it, with free generation."""
    special = (frame.tuned_on != "") | (frame.setting != "") | frame.constrained
    special |= frame.run.str.startswith("full")
    return frame[~special]


def main_size(frame: pd.DataFrame) -> int:
    """The training size with the most seeds, the largest of those; 0 if nothing was tuned."""
    seeds = frame[frame.n_train > 0].groupby("n_train").seed.nunique()
    return int(seeds[seeds == seeds.max()].index.max()) if len(seeds) else 0


def preferred(valid: pd.DataFrame) -> str:
    """The conventional model with the highest mean NDCG@20 on validation; '' for none."""
    means = valid[valid.method.isin(CONVENTIONAL)].groupby("method").ndcg.mean()
    return str(means.idxmax()) if len(means) else ""


def c1(test: pd.DataFrame, valid: pd.DataFrame) -> list[dict]:
    """C1 on every data set. test, valid: `scored` ranks of a study."""
    rows = []
    for dataset, group in own(test).groupby("dataset", sort=False):
        size = main_size(group)
        group = group[group.n_train == size]
        before = own(valid).query("dataset == @dataset and n_train == @size")
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


def minus(method: str, against: str) -> str:
    """What is compared, in the names that tables and figures print."""
    subtracted = plots.label(against)
    return f"{plots.label(method)} − " + (f"({subtracted})" if "+" in subtracted else subtracted)


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


def ladder(group: pd.DataFrame, methods: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """NDCG@20 over training sizes, mean of `methods`: log2 sizes (m,), and (m, S, n).

    Only sizes, seeds and examples that all the methods have. A size with fewer seeds than three
    others is left out: it would cost those their seeds.
    """
    group = group[group.method.isin(methods) & (group.n_train > 0)]
    cells = group.groupby(["n_train", "seed", "example"], as_index=False)
    mean = cells.agg(ndcg=("ndcg", "mean"), methods=("method", "nunique"))
    mean = mean[mean.methods == len(methods)]
    seeds = mean.groupby("n_train").seed.nunique()
    mean = mean[mean.n_train.isin(seeds.index[seeds >= seeds.nlargest(3).min()])]
    if mean.n_train.nunique() < 2:
        return np.empty(0), np.empty((0, 0, 0))
    tables = significance.crossed(mean, "ndcg", by="n_train")
    sizes = sorted(tables)
    return np.log2(sizes), np.stack([tables[size].to_numpy() for size in sizes])


def slope_weights(x: np.ndarray) -> np.ndarray:
    """Weights (m,) whose sum with values at x is the least-squares slope."""
    centred = x - x.mean()
    return centred / (centred**2).sum()


def ladders(group: pd.DataFrame) -> tuple[np.ndarray, dict[str, np.ndarray], str]:
    """log2 sizes, values (m, S, n) of 'bigrec' and 'conventional', and what is missing.

    Conventional models are those that were trained at every size that has any.
    """
    group = group[group.n_train > 0]
    cells = group[group.method == "bigrec"][["n_train", "seed"]].drop_duplicates()
    models = group[group.method.isin(CONVENTIONAL)].merge(cells, on=["n_train", "seed"])
    sizes = models.groupby("method").n_train.nunique()
    trained = list(sizes.index[sizes == models.n_train.nunique()])
    if not trained:
        return np.empty(0), {}, "conventional models over training sizes"
    both = group.merge(models[["n_train", "seed"]].drop_duplicates(), on=["n_train", "seed"])
    x, bigrec = ladder(both, ["bigrec"])
    steps, conventional = ladder(models, trained)
    if len(x) < 2 or not np.array_equal(x, steps) or bigrec.shape != conventional.shape:
        return np.empty(0), {}, "two training sizes or more with the same seeds"
    return x, {"bigrec": bigrec, "conventional": conventional}, ""


def c2(test: pd.DataFrame) -> list[dict]:
    """C2 on every data set. test: `scored` ranks of a study."""
    rows = []
    for dataset, group in own(test).groupby("dataset", sort=False):
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
    for dataset, group in own(test).groupby("dataset", sort=False):
        group = group[group.n_train == main_size(group)]
        for method, against in pairs:
            keys = {"claim": "C3", "dataset": dataset, "metric": "NDCG@20"}
            keys["statement"] = minus(method, against)
            rows.append(difference(keys, group, "ndcg", method, against))
    return rows


def title_groups(items: pd.DataFrame) -> pd.Series:
    """Popularity group (0 = rarest fifth of the titles ... 4) of each title group.

    items: results' items.parquet. Ties go by number, as in probe.parquet.
    """
    counts = items.groupby("title_group").train_count.sum().sort_index()
    order = counts.sort_values(kind="stable").index
    return pd.Series(np.arange(len(order)) * 5 // len(order), index=order).sort_index()


def popular_share(lists: pd.DataFrame, group_of: pd.Series, k: int = 20) -> pd.DataFrame:
    """Share of each popularity group among the first k: columns 0 ... 4, rows as `lists`."""
    listed = np.stack([items[:k] for items in lists["items"]])
    groups = group_of.reindex(listed.ravel()).to_numpy().reshape(listed.shape)
    shares = {g: (groups == g).mean(1) for g in range(5)}
    return pd.DataFrame(shares, index=lists.index)


def overlap(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Share of the first k that two methods have in common, (n,), from lists (n, k)."""
    return (ours[:, :, None] == theirs[:, None, :]).any(2).mean(1)


def listed(group: pd.DataFrame) -> dict[str, dict[int, pd.Series]]:
    """method -> seed -> lists by example, of one data set and size."""
    found: dict[str, dict[int, pd.Series]] = {}
    for (method, seed), each in group.groupby(["method", "seed"], sort=False):
        found.setdefault(method, {})[seed] = each.set_index("example")["items"].sort_index()
    return found


def overlaps(
    group: pd.DataFrame, pairs: list[tuple[str, str]]
) -> dict[tuple[str, str], np.ndarray]:
    """Overlap of each pair, (S seeds, n examples), on the seeds and examples all have.

    group: `runs.read_lists` of one data set and size.
    """
    found = listed(group)
    wanted = {method for pair in pairs for method in pair}
    seeds = sorted(set.intersection(*(set(found[method]) for method in wanted)))
    examples = sorted(
        set.intersection(*(set(found[m][seed].index) for m in wanted for seed in seeds))
    )
    stacked = {m: [np.stack(found[m][s].loc[examples]) for s in seeds] for m in wanted}
    return {
        (a, b): np.stack([overlap(*each) for each in zip(stacked[a], stacked[b], strict=True)])
        for a, b in pairs
    }


def c4(lists: pd.DataFrame, items: dict[str, pd.DataFrame], datasets: list[str]) -> list[dict]:
    """C4 on every data set. lists: `runs.read_lists`; items: data set -> items.parquet."""
    rows = []
    for dataset in datasets:
        group = own(lists[lists.dataset == dataset])
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
            share = popular_share(group, title_groups(items[dataset]))[4]
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


def origins(test: pd.DataFrame, dataset: str, method: str = "bigrec") -> pd.DataFrame:
    """Ranks of one data set by what the adapter was tuned on: column `origin` instead of ''."""
    found = test[(test.dataset == dataset) & (test.method == method) & ~test.constrained]
    found = found[(found.setting == "") & ~found.run.str.startswith("full")]
    return found.assign(origin=found.tuned_on.where(found.tuned_on != "", dataset))


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
