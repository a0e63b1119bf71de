"""What the notebooks from 07 on compute from a published study: a function a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.findings import claims, evidence, significance, training_sizes
from bigrec_lib.findings.methods import CONVENTIONAL, INJECTED, MAIN, METHODS, label
from bigrec_lib.findings.significance import Interval, Mean
from bigrec_lib.method import metrics
from bigrec_lib.study import manifests
from bigrec_lib.study.row_keys import MERGED, SHUFFLED


def mean_of_rows(frame: pd.DataFrame, value: str) -> Mean:
    """The mean of one method's rows, of the examples that every seed has."""
    table = significance.crossed(frame.assign(method=""), value)[""]
    return significance.mean_of(table.to_numpy(), significance.users_of(table))


def mean_interval(frame: pd.DataFrame, value: str = "ndcg") -> dict[str, float]:
    """value, low, high of `mean_of_rows`."""
    found = mean_of_rows(frame, value).interval
    return {"value": found.mean, "low": found.low, "high": found.high}


def relative_gain(group: pd.DataFrame, method: str, against: str) -> Interval:
    """Mean NDCG@20 of `method` / that of `against` - 1 with its interval; NaN if there is none."""
    nothing = Interval(*[float("nan")] * 3)
    if not {method, against} <= set(group.method.unique()):
        return nothing
    found = significance.crossed(group[group.method.isin((method, against))], "ndcg")
    theirs = found[against].to_numpy()
    if not theirs.sum() > 0:
        return nothing
    parts = np.stack([found[method].to_numpy() - theirs, theirs])
    return significance.ratio_of(parts, significance.users_of(found[method])).interval


def points(test: pd.DataFrame) -> pd.DataFrame:
    """NDCG@20 of every method at every training size, with an interval for BIGRec's."""
    rows = []
    kept = test[test.method.isin(["bigrec", *CONVENTIONAL]) & (test.n_train > 0)]
    keys = ["dataset", "method", "n_train"]
    for (dataset, method, n_train), group in evidence.plain_runs(kept).groupby(keys, sort=False):
        at = {"dataset": dataset, "method": method, "n_train": n_train}
        band = {"value": group.ndcg.mean(), "low": float("nan"), "high": float("nan")}
        band = mean_interval(group) if method == "bigrec" else band
        rows.append(at | {"seeds": group.seed.nunique()} | band)
    columns = [*keys, "seeds", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sort_values(keys[::2])


def slopes(test: pd.DataFrame) -> pd.DataFrame:
    """Slope of NDCG@20 per doubling of the training samples, a row a data set and method.

    relative: the slope as a share of the level, with its interval.
    """
    rows = []
    for dataset, group in evidence.plain_runs(test).groupby("dataset", sort=False):
        for method in ["bigrec", *CONVENTIONAL]:
            found = training_sizes.ladder(group, [method])
            keys = {"dataset": dataset, "method": method, "sizes": len(found.x)}
            if found.gap or not found.values.sum() > 0:
                rows.append(keys | {"gap": f"missing: {found.gap or 'a hit'}"})
                continue
            of_slope = significance.contrast(found.slope(found.values), found.users)
            of_slope["slope"] = of_slope.pop("difference")
            share = significance.ratio_of(found.parts(found.values), found.users).interval
            relative = {"relative": share.mean, "relative_low": share.low}
            rows.append(keys | of_slope | relative | {"relative_high": share.high, "gap": ""})
    columns = (
        "dataset method sizes seeds n slope low high p relative relative_low relative_high gap"
    ).split()
    return pd.DataFrame(rows).reindex(columns=columns).astype({"seeds": "Int64", "n": "Int64"})


def crossings(test: pd.DataFrame) -> pd.DataFrame:
    """Where BIGRec's line and that of the conventional models' mean cross, a row a data set.

    slope with slope_low, slope_high: BIGRec's slope per doubling minus theirs. Lines whose slopes
    are not told apart, or where BIGRec's is the steeper one, have no crossing.
    """
    rows = []
    for dataset, group in test.groupby("dataset", sort=False):
        found = training_sizes.ladders(group)
        row = {"dataset": dataset}
        if found.gap:
            rows.append(row | {"gap": f"missing: {found.gap}"})
            continue
        first, last = (round(2 ** found.x[end]) for end in (0, -1))
        apart = significance.mean_of(
            found.slope(found.bigrec - found.conventional), found.users
        ).interval
        row |= {"slope": apart.mean, "slope_low": apart.low, "slope_high": apart.high}
        row |= {"smallest": first, "largest": last, "gap": ""}
        at = claims.crossing(found)
        if at is None or apart.high >= 0:
            gap = apart.verdict(
                "BIGRec's line is steeper than the conventional models'", "",
                "the slopes of BIGRec and of the conventional models are not told apart",
            )  # fmt: skip
            rows.append(row | {"gap": gap})
            continue
        low, middle, high = (
            float(2 ** np.clip(end, found.x[0], found.x[-1])) for end in (at.low, at.mean, at.high)
        )
        if round(middle) in (first, last):
            ahead = "the conventional models'" if round(middle) == first else "BIGRec's"
            row["gap"] = f"{ahead} line is ahead from {first:,} to {last:,} samples"
        rows.append(row | {"crossing": middle, "low": low, "high": high})
    columns = "dataset slope slope_low slope_high crossing low high smallest largest gap".split()
    frame = pd.DataFrame(rows).reindex(columns=columns)
    return frame.astype({"smallest": "Int64", "largest": "Int64"})


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of non-negative counts (I,): 0 all equal, (I - 1) / I one has all."""
    counts = np.sort(np.asarray(counts, dtype=np.float64))
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum()))


def exposure(lists: pd.DataFrame, items: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How recommendations spread over the catalogue: a row a data set, size and method.

    Each measure is one seed's; what is shown is the mean over `seeds`. distinct_first: different
    first recommendations; of the first 20: coverage (share of titles ever listed), gini over all
    titles, popularity_rank (mean place among titles, 1 = most popular).
    """
    rows = []
    keys = ["dataset", "n_train", "method"]
    for (dataset, n_train, method, _), group in lists.groupby([*keys, "seed"], sort=False):
        if dataset not in items:
            continue
        counts = items[dataset].groupby("title_group").train_count.sum()
        rows.append(
            {"dataset": dataset, "n_train": n_train, "method": method}
            | exposed(np.stack(group["items"].to_numpy()), counts)
        )
    measures = "distinct_first coverage gini popularity_rank".split()
    of_seeds = pd.DataFrame(rows, columns=[*keys, *measures]).groupby(keys, sort=False)
    means = of_seeds[measures].mean()
    return in_order(of_seeds.size().rename("seeds").to_frame().join(means).reset_index())


def exposed(shown: np.ndarray, counts: pd.Series) -> dict[str, float]:
    """The measures of `exposure` of one seed's lists (n, k); counts: of each title, by group."""
    place = (-counts).rank(method="average")
    often = pd.Series(shown.ravel()).value_counts().reindex(counts.index, fill_value=0)
    return {
        "distinct_first": float(len(np.unique(shown[:, 0]))),
        "coverage": float((often > 0).mean()),
        "gini": gini(often.to_numpy()),
        "popularity_rank": float(place.reindex(shown.ravel()).mean()),
    }


def group_differences(
    lists: pd.DataFrame, items: dict[str, pd.DataFrame], examples: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """Share of each popularity group in the first 1, 5, 20 minus its share in the histories.

    items, examples: `evidence.read_data`. Columns dataset, n_train, method, k, group
    (0 = rarest), share, difference.
    """
    rows = []
    for (dataset, n_train, method), group in lists.groupby(
        ["dataset", "n_train", "method"], sort=False
    ):
        if dataset not in items or dataset not in examples:
            continue
        history = evidence.history_shares(items[dataset], examples[dataset])
        group_of = evidence.title_groups(items[dataset])
        for k in (1, 5, 20):
            shares = evidence.group_shares(group, group_of, k).mean()
            rows += [
                {"dataset": dataset, "n_train": n_train, "method": method, "k": k, "group": g,
                 "share": shares[g], "difference": shares[g] - history[g]}
                for g in range(5)
            ]  # fmt: skip
    columns = "dataset n_train method k group share difference".split()
    return in_order(pd.DataFrame(rows, columns=columns))


def by_target_group(
    test: pd.DataFrame, items: dict[str, pd.DataFrame], examples: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """Mean NDCG@20 by the popularity group of the target; columns 1 (rarest) ... 5."""
    targets = []
    for dataset in [name for name in items if name in examples]:
        title = items[dataset].title_group.to_numpy()[examples[dataset].target]
        group = evidence.title_groups(items[dataset]).reindex(title).to_numpy() + 1
        targets.append(examples[dataset][["example"]].assign(dataset=dataset, group=group))
    if not targets:
        return pd.DataFrame(columns=["dataset", "n_train", "method", *range(1, 6)])
    known = test.merge(pd.concat(targets), on=["dataset", "example"])
    keys = ["dataset", "n_train", "method"]
    wide = known.pivot_table(index=keys, columns="group", values="ndcg", sort=False)
    return in_order(wide.reindex(columns=range(1, 6)).reset_index())


def agreement(lists: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """BIGRec next to each conventional model, a row a data set, size and model.

    overlap: share of the first 20 in common; rank_correlation: Spearman's, of the target's rank
    over examples; only_bigrec, only_other: share of the examples that one of them hits in the
    first 20 and the other does not.
    """
    rows = []
    for (dataset, n_train), ranks in evidence.plain_runs(test).groupby(
        ["dataset", "n_train"], sort=False
    ):
        at = (lists.dataset == dataset) & (lists.n_train == n_train)
        shown = evidence.plain_runs(lists[at])
        for method in CONVENTIONAL:
            keys = {"dataset": dataset, "n_train": n_train, "method": method}
            if not n_train or not {"bigrec", method} <= set(ranks.method.unique()):
                rows.append(keys | {"gap": "missing: ranks of both"})
                continue
            both = significance.crossed(
                ranks.assign(place=metrics.effective_rank(ranks))[
                    ranks.method.isin(("bigrec", method))
                ],
                "place",
            )
            ours, theirs = both["bigrec"].to_numpy(), both[method].to_numpy()
            ordered = [pd.Series(each.ravel()).rank() for each in (ours, theirs)]
            row = keys | {
                "rank_correlation": round(ordered[0].corr(ordered[1]), 9),  # threads round, too
                "only_bigrec": float(((ours < 20) & (theirs >= 20)).mean()),
                "only_other": float(((ours >= 20) & (theirs < 20)).mean()),
                "gap": "",
            }
            if {"bigrec", method} <= set(shown.method.unique()):
                pair = ("bigrec", method)
                kept = shown[shown.method.isin(pair)]
                row["overlap"] = float(evidence.overlaps(kept, [pair])[pair].mean())
            else:
                row["gap"] = "missing: lists of both"
            rows.append(row)
    columns = "dataset n_train method overlap rank_correlation only_bigrec only_other gap".split()
    found = pd.DataFrame(rows).reindex(columns=columns)
    return found[found.n_train > 0]


def who_gains(test: pd.DataFrame) -> pd.DataFrame:
    """Share of examples whose NDCG@20 rises or falls when statistics are injected."""
    rows = []
    for (dataset, n_train), group in evidence.plain_runs(test).groupby(
        ["dataset", "n_train"], sort=False
    ):
        for method in INJECTED:
            keys = {"dataset": dataset, "n_train": n_train, "method": method}
            if not {"bigrec", method} <= set(group.method.unique()):
                rows.append(keys | {"gap": f"missing: {method}"})
                continue
            both = significance.crossed(group[group.method.isin(("bigrec", method))], "ndcg")
            change = both[method].to_numpy() - both["bigrec"].to_numpy()
            gain = {"gain": float((change > 0).mean()), "lose": float((change < 0).mean())}
            rows.append(keys | gain | {"mean": float(change.mean()), "gap": ""})
    return pd.DataFrame(rows).reindex(columns="dataset n_train method gain lose mean gap".split())


def origin_matrix(test: pd.DataFrame, datasets: list[str]) -> pd.DataFrame:
    """NDCG@20 tested on each data set, by origin: untuned, each data set with the users' own
    answers and with those of others, joint (two sizes).

    The main size of the single-domain model; 'joint, n in total' is the joint model with that many
    samples in all. Columns dataset, origin, n_each, seeds, value, low, high, difference to the
    single-domain model with its interval, and gap.
    """
    rows = []
    joints = sorted(name for name in test.tuned_on.unique() if "+" in name)
    together = joints[0] if joints else "+".join(datasets)
    for dataset in datasets:
        group = evidence.origins(test, dataset)
        size = evidence.main_size(group[group.origin == dataset])
        wanted = [("untuned", dataset, 0), *((name, name, size) for name in datasets)]
        wanted += [(f"{name}, others' answers", f"{name}*", size) for name in datasets]
        if len(datasets) > 1:
            half = size // (together.count("+") + 1)
            wanted += [("joint, n each", together, size), ("joint, n in total", together, half)]
        single = group[(group.origin == dataset) & (group.n_train == size)]
        for name, origin, n in wanted:
            each = group[(group.origin == origin) & (group.n_train == n)]
            row = {"dataset": dataset, "origin": name, "n_each": n}
            if each.empty:
                rows.append(row | {"gap": f"missing: {name}, {n:,} samples"})
                continue
            row |= {"seeds": each.seed.nunique(), "gap": ""} | mean_interval(each)
            both = pd.concat([single.assign(of="single"), each.assign(of="this")])
            if name not in (dataset, "untuned"):
                pair = significance.crossed(both, "ndcg", by="of")
                difference = pair["this"] - pair["single"]
                apart = significance.contrast(
                    difference.to_numpy(), significance.users_of(difference)
                )
                row |= {"difference": apart["difference"], "difference_low": apart["low"]}
                row |= {"difference_high": apart["high"], "p": apart["p"]}
            rows.append(row)
    columns = (
        "dataset origin n_each seeds value low high difference difference_low difference_high p gap"
    ).split()
    return pd.DataFrame(rows).reindex(columns=columns).astype({"seeds": "Int64"})


def foreign_titles(folder: Path) -> pd.DataFrame:
    """How often a model tuned elsewhere, or on several domains, writes titles of another domain."""
    rows = [
        job["keys"] | {"titles_of": name, "share": share}
        for job in manifests.published_jobs(folder, "03_generate_titles")
        if not job["keys"].get("worded") and job["keys"].get("setting") != MERGED
        for name, share in job["facts"].get("foreign_titles", {}).items()
    ]
    columns = ["dataset", "tuned_on", "n_train", "seed", "titles_of", "share"]
    return pd.DataFrame(rows, columns=columns)


def settings(folder: Path) -> pd.DataFrame:
    """What each tuning setting brings on the validation examples, a row a data set and setting.

    Columns: dataset, setting, what was set, minutes of tuning, valid_loss, real (share of first
    beams that are titles), distinct (how many different ones), most_frequent (share of the most
    frequent one), n, ndcg (NDCG@20) with its interval, and chosen: the highest of its data set
    among those that learn the users' own answers.
    """
    names = ["learning_rate", "epochs", "rank", "target_modules", "learn_prompt", "shuffled"]
    by_run = {
        notebook: {
            (job["keys"]["dataset"], job["keys"]["run"]): job
            for job in manifests.published_jobs(folder, notebook)
        }
        for notebook in ("02_tune_llm", "03_generate_titles")
    }
    valid = evidence.read_scores(folder, "valid").query("method == 'bigrec'")
    rows = []
    for (dataset, run, setting), group in evidence.under_settings(valid).groupby(
        ["dataset", "run", "setting"], sort=False
    ):
        tuning = by_run["02_tune_llm"][dataset, run]
        first = by_run["03_generate_titles"][dataset, run]["facts"]["first_beams"]["valid"]
        ndcg = significance.interval(group.ndcg.to_numpy(), group.user.to_numpy())
        set_to = {name: tuning["parameters"].get(name) for name in names}
        rows.append(
            {"dataset": dataset, "setting": setting}
            | set_to
            | {"target_modules": " ".join(set_to["target_modules"])}
            | {"minutes": evidence.tuning_seconds(tuning) / 60}
            | {"valid_loss": tuning["facts"]["valid_loss"]}
            | {"real": first["real"], "distinct": int(first["distinct"])}
            | {"most_frequent": first["most frequent"], "n": len(group)}
            | {"ndcg": ndcg.mean, "low": ndcg.low, "high": ndcg.high}
        )
    columns = [
        "dataset",
        "setting",
        *names,
        *"minutes valid_loss real distinct most_frequent n".split(),
    ]
    frame = pd.DataFrame(rows, columns=[*columns, "ndcg", "low", "high"])
    tried = frame.ndcg.where(frame.setting != SHUFFLED)
    return frame.assign(chosen=tried == tried.groupby(frame.dataset).transform("max"))


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows by data set, size, and method in the order of `METHODS`."""
    place = {method.name: number for number, method in enumerate(METHODS)}
    return frame.sort_values(
        ["dataset", "n_train", "method"],
        key=lambda name: name.astype(str).map(place) if name.name == "method" else name,
        kind="stable",
    )


def every_run(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a data set, training size, and method of a run; a column a metric and K; test split.

    rows: metrics.csv; ways of grounding are left out. Mean over seeds.
    """
    kept = in_order(rows[(rows.split == "test") & rows.method.isin(MAIN)])
    kept = kept.assign(
        column=kept.metric + "@" + kept.k.astype(str),
        method=[label(*each) for each in zip(kept.method, kept.run, strict=True)],
    )
    columns = kept.sort_values(["metric", "k"]).column.unique()
    keys = ["dataset", "n_train", "method"]
    wide = kept.pivot_table(index=keys, columns="column", values="value", sort=False)
    return wide[columns].reset_index()
