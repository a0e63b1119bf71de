"""What quality costs: training, requests, memory, beside NDCG@20 (17)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.findings import claims, evidence, sizes
from bigrec_lib.findings.methods import CONVENTIONAL, label, minus
from bigrec_lib.findings.significance import Interval, as_columns, mean_of_rows
from bigrec_lib.study import manifests
from bigrec_lib.study.row_keys import OWN

JOB = "17a_measure_cost"
KEY = ["dataset", "samples", "method", "lm"]


def published(folder: Path) -> pd.DataFrame:
    """What 17a measured: a row a data set, LLM and contestant, a column a number.

    Columns dataset, lm, method, and as `cost_job.table` and `cost_job.training` have them; disk in
    bytes. lm is '' for the study's own LLM, and for what needs none.
    """
    rows: dict[tuple, dict] = {}
    for job in manifests.published_jobs(folder, JOB):
        for name, value in (job["seconds_of"] | job["facts"]["disk"]).items():
            method, _, measure = name.partition(", ")
            key = (job["keys"]["dataset"], job["keys"].get("lm", ""), method)
            rows.setdefault(key, dict(zip(("dataset", "lm", "method"), key, strict=True)))
            rows[key][measure or "disk"] = value
    return pd.DataFrame(list(rows.values()), columns=None if rows else ["dataset", "lm", "method"])


def levels(ranks: pd.DataFrame) -> pd.DataFrame:
    """NDCG@20 with its interval of every contestant: few samples, all samples, every LLM.

    ranks: `scored` ranks of a study. Columns KEY, seeds, n, ndcg, low, high.
    """
    main = evidence.main_sizes(ranks)
    runs = evidence.few_and_all(ranks, main).assign(lm="")
    llms = sizes.spoken(ranks, main)
    other_llms = llms[llms.tuned & (llms.lm != OWN)].assign(samples="few")
    rows = []
    for keys, group in pd.concat([runs, other_llms]).groupby(KEY, sort=False):
        mean = mean_of_rows(group, "ndcg")
        row = dict(zip(KEY, keys, strict=True)) | {"seeds": mean.seeds, "n": mean.n}
        rows.append(row | as_columns(mean, "ndcg"))
    return pd.DataFrame(rows, columns=[*KEY, "seeds", "n", "ndcg", "low", "high"])


def trained(folder: Path, ranks: pd.DataFrame) -> pd.DataFrame:
    """Seconds of training, every point of a grid included, mean of seeds: KEY and seconds.

    Of BIGRec the tuning of each LLM: as 17a timed it, or else as 02 recorded it. Of conventional
    models what 06 recorded, perhaps beside other jobs; where 17a measured a data set, and they were
    trained under its seed, only under that one: further seeds may have run on other machines.
    """
    main = evidence.main_sizes(ranks)
    rows = evidence.training_seconds(folder)
    full = evidence.on_all_samples(rows)
    timings = rows[full | (rows.n_train == rows.dataset.map(main))]
    timings = timings.assign(samples=np.where(full[timings.index], "all", "few"), lm="")
    keys = (job["keys"] for job in manifests.published_jobs(folder, JOB))
    seeds = {key["dataset"]: key["seed"] for key in keys if not key.get("lm")}
    measured = timings.seed == timings.dataset.map(seeds)
    other = ~measured.groupby([timings[name] for name in KEY]).transform("any")
    timings = timings[measured | other]
    other_llms = [
        job["keys"]
        | {"samples": "few", "method": "bigrec", "seconds": evidence.tuning_seconds(job)}
        for job in manifests.published_jobs(folder, "02_tune_llm")
        if job["keys"].get("lm") and not job["keys"]["setting"]
    ]
    frame = pd.concat([timings, pd.DataFrame(other_llms)]).groupby(KEY, sort=False).seconds.mean()
    frame = frame.reset_index()
    tunings = published(folder).reindex(columns=["dataset", "lm", "method", "training"])
    tunings = tunings[tunings.method == "bigrec"].assign(samples="few")
    frame = frame.merge(tunings, "left", on=KEY)
    return frame.assign(seconds=frame.training.fillna(frame.seconds))[[*KEY, "seconds"]]


def table(costs: pd.DataFrame, quality: pd.DataFrame, seconds: pd.DataFrame) -> pd.DataFrame:
    """Quality beside cost: the rows of `quality` that were measured, and models on all samples
    whose training was timed.

    costs: `published`; quality: `levels`; seconds: `trained`. Requests were timed only for models
    on the few samples. The cached and the constrained BIGRec were tuned as BIGRec is, and the ranks
    of the cached one are BIGRec's. Rows of a data set stand together.
    """
    quality = quality[quality.method != "bigrec-cached"]
    tuned = seconds[seconds.method == "bigrec"]
    variants = [tuned.assign(method=name) for name in ("bigrec-cached", "bigrec-constrained")]
    cached = quality[quality.method == "bigrec"].assign(method="bigrec-cached")
    frame = pd.concat([quality, cached])
    frame = frame.merge(pd.concat([seconds, *variants]), "left", on=KEY)
    frame = frame.merge(costs.assign(samples="few"), "left", on=KEY)
    learn_all = (frame.samples == "all") & frame.dataset.isin(costs.dataset)
    measured = frame.p50.notna() | (frame.seconds.notna() & learn_all)
    order = {name: place for place, name in enumerate(quality.dataset.unique())}
    places = frame.dataset.map(order)[measured].sort_values(kind="stable")
    return frame.loc[places.index].reset_index(drop=True)


def fronts(costs: pd.DataFrame) -> pd.DataFrame:
    """costs (`table`) with columns front_of_training and front_of_requests: whether nothing beats a
    row in NDCG@20 and in seconds of training, or of the median request."""
    frame = costs.copy()
    for name, cost in {"front_of_training": "seconds", "front_of_requests": "p50"}.items():
        by_dataset = [front(group, cost) for _, group in costs.groupby("dataset", sort=False)]
        frame[name] = pd.concat(by_dataset) if by_dataset else False
    return frame


def said_of(costs: pd.DataFrame) -> list[str]:
    """What 17 reports but a study has not measured, and how to get it. costs: `table`."""
    missing = []
    if "joules" not in costs or costs.joules.isna().all():
        missing.append("missing: energy (no counter could be read on this machine)")
    if not (costs.samples == "all").any():
        missing.append(
            "missing: conventional models that learn all samples (`baselines: {full: …}` in the "
            "study file)"
        )
    return missing


def front(rows: pd.DataFrame, cost: str) -> pd.Series:
    """Whether nothing beats a row in both, no other having more NDCG@20 at no more cost; bool."""
    return pd.Series(
        [
            not ((rows.ndcg > row.ndcg) & (rows[cost] <= getattr(row, cost))).any()
            and getattr(row, cost) == getattr(row, cost)
            for row in rows.itertuples()
        ],
        index=rows.index,
        dtype=bool,
    )


def pays_off(training: float, request: float, other_training: float, other_request: float) -> float:
    """Requests until cheaper requests make up for dearer training; inf for never, 0 where training
    costs no more.

    >>> pays_off(100, 1, 20, 3), pays_off(20, 3, 100, 1), pays_off(100, 3, 20, 1)
    (40.0, 0.0, inf)
    """
    if training <= other_training:
        return 0.0
    saving = other_request - request
    return (training - other_training) / saving if saving > 0 else float("inf")


def rivals(folder: Path, valid: pd.DataFrame) -> pd.DataFrame:
    """Every conventional model whose training was timed, the best on validation first: columns
    dataset, method, samples, valid (NDCG@20, mean of seeds), seconds (`trained`), of_tuning (their
    share of BIGRec's) and allowed (whether that is no more than 1).

    valid: `scored` ranks of validation. Training is the whole search for settings, BIGRec's a
    single tuning.
    """
    seconds = trained(folder, valid)
    seconds = seconds[seconds.lm == ""]
    tuned = seconds[seconds.method == "bigrec"].groupby("dataset").seconds.max()
    models = seconds[seconds.method.isin(CONVENTIONAL)]
    keys = ["dataset", "method", "samples"]
    ranks = evidence.few_and_all(valid, evidence.main_sizes(valid))
    means = ranks.groupby(keys).ndcg.mean().rename("valid").reset_index()
    frame = models.merge(means, on=keys)
    frame["of_tuning"] = frame.seconds / frame.dataset.map(tuned)
    frame = frame.assign(allowed=frame.of_tuning <= 1)
    frame = frame.sort_values(["dataset", "valid"], ascending=[True, False], kind="stable")
    return frame[[*keys, "valid", "seconds", "of_tuning", "allowed"]].reset_index(drop=True)


def within(folder: Path, valid: pd.DataFrame, dataset: str) -> tuple[str, str]:
    """The conventional model that validation prefers among those trained in no more time than
    BIGRec was tuned (`rivals`): its name and its samples, 'few' or 'all'; '' and '' for none."""
    frame = rivals(folder, valid)
    frame = frame[frame.allowed & (frame.dataset == dataset)]
    return (frame.method.iloc[0], frame.samples.iloc[0]) if len(frame) else ("", "")


def v2(test: pd.DataFrame, valid: pd.DataFrame, gains: pd.DataFrame, folder: Path) -> list[dict]:
    """V2 on every data set. test, valid: `scored` ranks; gains: `personal_gains`."""
    rows = []
    for dataset, size, _, gain in claims.per_dataset(test, gains):
        rival, samples = within(folder, valid, str(dataset))
        words = f"{minus('bigrec', rival or 'conventional')}, trained on {samples or 'any'} samples"
        keys = {"claim": "V2", "dataset": dataset, "metric": "NDCG@20"}
        keys |= {"statement": f"{words} in no more time"}
        ranks = evidence.few_and_all(test[test.dataset == dataset], {str(dataset): size})
        plain = (ranks.method == "bigrec") & (ranks.samples == "few")
        pair = ranks[plain | ((ranks.method == rival) & (ranks.samples == samples))]
        mean = claims.difference(pair, "bigrec", rival)
        needs = "a conventional model trained in no more time, and test ranks under BIGRec's seeds"
        rows.append(claims.compared(keys, mean, needs, {claims.PERSONAL: claims.personal(gain)}))
    return rows


def sentences(costs: pd.DataFrame) -> list[str]:
    """What 17 shows, as items of a Markdown list. costs: `table`."""
    lines = []
    for dataset, group in costs.groupby("dataset", sort=False):
        rows = group[(group.method == "bigrec") & (group.lm == "") & (group.samples == "few")]
        others = group[group.method.isin(CONVENTIONAL) & group.p50.notna()]
        if rows.empty or others.empty:
            continue
        bigrec, rival = next(rows.itertuples()), next(others.nlargest(1, "ndcg").itertuples())
        ratio = float(f"{bigrec.p50 / rival.p50:.2g}")
        name = label(rival.method)
        level = Interval(bigrec.ndcg, bigrec.low, bigrec.high)
        lines.append(
            f"- {dataset}: a request of BIGRec takes {bigrec.p50:.2f} s at the median, "
            f"**about {ratio:,.0f} times** as long as one of {name}, the conventional model on the "
            f"same samples with the highest NDCG@20 ({rival.ndcg:.4f}; BIGRec {level})."
        )
        expenses = {"seconds": "training time", "p50": "request time, of models that were timed"}
        for cost, expense in expenses.items():
            on_front = front(group, cost)
            word = "lies" if on_front[rows.index[0]] else "does not lie"
            lines.append(
                f"- {dataset}: BIGRec **{word}** on the front of NDCG@20 against {expense}."
            )
        if rival.seconds == rival.seconds and bigrec.seconds == bigrec.seconds:
            lines.append(f"- {dataset}: compared with BIGRec, {name} {break_even(rival, bigrec)}.")
    return lines


def break_even(rival, bigrec) -> str:
    """From how many requests on a conventional model has cost less than BIGRec, training included.

    rival, bigrec: seconds (of training) and p50 (of a request).
    """
    cheap, fast = rival.seconds <= bigrec.seconds, rival.p50 <= bigrec.p50
    if cheap and fast:
        return "takes **no longer to train and no longer to answer**, so there is no break-even"
    if not cheap and not fast:
        return "takes **longer to train and longer to answer**: it never pays off"
    if fast:
        n = pays_off(rival.seconds, rival.p50, bigrec.seconds, bigrec.p50)
        return (
            f"takes longer to train, which faster answers make up for after **{n:,.0f} requests**"
        )
    n = pays_off(bigrec.seconds, bigrec.p50, rival.seconds, rival.p50)
    return f"takes less time to train and longer to answer: it is ahead for **{n:,.0f} requests**"
