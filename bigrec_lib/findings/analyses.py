"""What 07 to 11 compute from a published study: a function a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.findings import claims, evidence, significance, training_sizes
from bigrec_lib.findings.methods import CONVENTIONAL, INJECTED, MAIN, METHODS, label
from bigrec_lib.findings.significance import Interval
from bigrec_lib.method import metrics
from bigrec_lib.study import manifests
from bigrec_lib.study.row_keys import AS_JOINT, SHUFFLED


def mean_interval(frame: pd.DataFrame, value: str = "ndcg") -> dict[str, float]:
    """value, low, high of `significance.mean_of_rows`."""
    return significance.as_columns(significance.mean_of_rows(frame, value), "value")


def relative_gain(group: pd.DataFrame, method: str, against: str) -> Interval:
    """Mean NDCG@20 of `method` / that of `against` - 1 with its interval; NaN if there is none."""
    mean = claims.relative(group, method, against)
    return mean.interval if mean else Interval(*[float("nan")] * 3)


def points(test: pd.DataFrame) -> pd.DataFrame:
    """NDCG@20 of every method at every training size, with an interval for BIGRec's.

    Seeds and examples are those of `training_sizes.curves`, as is the column budget.
    """
    rows = []
    keys = ["method", "budget", "n_train"]
    for dataset, ranks in test.groupby("dataset", sort=False):
        for values, group in training_sizes.curves(ranks).groupby(keys, sort=False):
            point = {"dataset": dataset} | dict(zip(keys, values, strict=True))
            band = {"value": group.ndcg.mean(), "low": float("nan"), "high": float("nan")}
            band = mean_interval(group) if point["method"] == "bigrec" else band
            sizes = {"seeds": group.seed.nunique(), "n": group.example.nunique()}
            rows.append(point | sizes | band)
    columns = ["dataset", *keys, "seeds", "n", "value", "low", "high"]
    return pd.DataFrame(rows, columns=columns).sort_values(["dataset", "n_train"], kind="stable")


def slopes(test: pd.DataFrame) -> pd.DataFrame:
    """Slope of NDCG@20 per doubling of the training samples, a row a data set, method and budget.

    Of `training_sizes.curves`. relative: the slope as a share of the level, with its interval.
    """
    rows = []
    for dataset, ranks in test.groupby("dataset", sort=False):
        curves = training_sizes.curves(ranks)
        for (method, budget), group in curves.groupby(["method", "budget"], sort=False):
            ladder = training_sizes.ladder(group, [method])
            keys = {"dataset": dataset, "method": method, "budget": budget}
            keys["sizes"] = len(ladder.x)
            if ladder.gap or not ladder.values.sum() > 0:
                rows.append(keys | {"gap": f"missing: {ladder.gap or 'a hit'}"})
                continue
            contrast = significance.contrast(ladder.slope(ladder.values), ladder.users)
            contrast["slope"] = contrast.pop("difference")
            share = significance.ratio_of(ladder.parts(ladder.values), ladder.users).interval
            relative = {"relative": share.mean, "relative_low": share.low}
            rows.append(keys | contrast | relative | {"relative_high": share.high, "gap": ""})
    columns = (
        "dataset method budget sizes seeds n slope low high p relative relative_low relative_high "
        "gap"
    ).split()
    return pd.DataFrame(rows).reindex(columns=columns).astype({"seeds": "Int64", "n": "Int64"})


def crossings(test: pd.DataFrame) -> pd.DataFrame:
    """Where BIGRec's line and that of the conventional models' mean cross, a row a data set.

    slope with slope_low, slope_high: BIGRec's slope per doubling minus theirs. Lines whose slopes
    are not told apart, or where BIGRec's is the steeper one, have no crossing.
    """
    rows = []
    for dataset, group in test.groupby("dataset", sort=False):
        ladders = training_sizes.ladders(group)
        row = {"dataset": dataset}
        if ladders.gap:
            rows.append(row | {"gap": f"missing: {ladders.gap}"})
            continue
        first, last = (round(2 ** ladders.x[end]) for end in (0, -1))
        slope = significance.mean_of(
            ladders.slope(ladders.bigrec - ladders.conventional), ladders.users
        ).interval
        row |= {"slope": slope.mean, "slope_low": slope.low, "slope_high": slope.high}
        row |= {"smallest": first, "largest": last, "gap": ""}
        crossing = claims.crossing(ladders)
        if crossing is None or slope.high >= 0:
            gap = slope.verdict(
                "BIGRec's line is steeper than the conventional models'", "",
                "the slopes of BIGRec and of the conventional models are not told apart",
            )  # fmt: skip
            rows.append(row | {"gap": gap})
            continue
        low, middle, high = (
            float(2 ** np.clip(end, ladders.x[0], ladders.x[-1]))
            for end in (crossing.low, crossing.mean, crossing.high)
        )
        if round(middle) in (first, last):
            leader = "the conventional models'" if round(middle) == first else "BIGRec's"
            row["gap"] = f"{leader} line is ahead from {first:,} to {last:,} samples"
        rows.append(row | {"crossing": middle, "low": low, "high": high})
    columns = "dataset slope slope_low slope_high crossing low high smallest largest gap".split()
    frame = pd.DataFrame(rows).reindex(columns=columns)
    return frame.astype({"smallest": "Int64", "largest": "Int64"})


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of counts (I,) ≥ 0: 0 if all are equal, (I - 1) / I if one has all."""
    counts = np.sort(np.asarray(counts, dtype=np.float64))
    n = len(counts)
    return float((2 * np.arange(1, n + 1) - n - 1) @ counts / (n * counts.sum()))


def exposure(lists: pd.DataFrame, items: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How recommendations spread over the catalogue: a row a data set, size and method.

    All rows of a data set are of the same examples, as many as `lists`, since more lists name more
    titles. Each measure is one seed's; what is shown is the mean over `seeds`. distinct_first:
    different first recommendations; of the first 20: coverage (share of titles ever listed), gini
    over all titles, popularity_rank (mean place among titles, 1 = most popular).
    """
    rows = []
    keys = ["dataset", "n_train", "method"]
    for dataset, of_dataset in lists[lists.dataset.isin(items)].groupby("dataset", sort=False):
        counts = items[dataset].groupby("title_group").train_count.sum()
        groups = of_dataset.groupby(["n_train", "method", "seed"], sort=False)
        shared = set.intersection(*(set(group.example) for _, group in groups))
        for (n_train, method, _), group in groups:
            same = group[group.example.isin(shared)]
            if len(same):
                rows.append(
                    {"dataset": dataset, "n_train": n_train, "method": method, "lists": len(same)}
                    | exposed(np.stack(same["items"].to_numpy()), counts)
                )
    measures = "lists distinct_first coverage gini popularity_rank".split()
    groups = pd.DataFrame(rows, columns=[*keys, *measures]).groupby(keys, sort=False)
    means = groups[measures].mean()
    return in_order(groups.size().rename("seeds").to_frame().join(means).reset_index())


def exposed(lists: np.ndarray, counts: pd.Series) -> dict[str, float]:
    """The measures of `exposure` of one seed's lists (n, k); counts: by title group."""
    places = (-counts).rank(method="average")
    frequency = pd.Series(lists.ravel()).value_counts().reindex(counts.index, fill_value=0)
    return {
        "distinct_first": float(len(np.unique(lists[:, 0]))),
        "coverage": float((frequency > 0).mean()),
        "gini": gini(frequency.to_numpy()),
        "popularity_rank": float(places.reindex(lists.ravel()).mean()),
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
    ranks = test.merge(pd.concat(targets), on=["dataset", "example"])
    keys = ["dataset", "n_train", "method"]
    wide = ranks.pivot_table(index=keys, columns="group", values="ndcg", sort=False)
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
        mask = (lists.dataset == dataset) & (lists.n_train == n_train)
        plain_lists = evidence.plain_runs(lists[mask])
        for method in CONVENTIONAL:
            keys = {"dataset": dataset, "n_train": n_train, "method": method}
            if not n_train or not {"bigrec", method} <= set(ranks.method.unique()):
                rows.append(keys | {"gap": "missing: ranks of both"})
                continue
            tables = significance.crossed(
                ranks.assign(place=metrics.effective_rank(ranks))[
                    ranks.method.isin(("bigrec", method))
                ],
                "place",
            )
            bigrec, other = tables["bigrec"].to_numpy(), tables[method].to_numpy()
            names = ("rank_correlation", "only_bigrec", "only_other")
            row = keys | dict(zip(names, evidence.alike(bigrec, other), strict=True)) | {"gap": ""}
            if {"bigrec", method} <= set(plain_lists.method.unique()):
                pair = ("bigrec", method)
                pair_lists = plain_lists[plain_lists.method.isin(pair)]
                row["overlap"] = float(evidence.overlaps(pair_lists, [pair])[pair].mean())
            else:
                row["gap"] = "missing: lists of both"
            rows.append(row)
    columns = "dataset n_train method overlap rank_correlation only_bigrec only_other gap".split()
    table = pd.DataFrame(rows).reindex(columns=columns)
    return table[table.n_train > 0]


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
            tables = significance.crossed(group[group.method.isin(("bigrec", method))], "ndcg")
            change = tables[method].to_numpy() - tables["bigrec"].to_numpy()
            gain = {"gain": float((change > 0).mean()), "lose": float((change < 0).mean())}
            rows.append(keys | gain | {"mean": float(change.mean()), "gap": ""})
    return pd.DataFrame(rows).reindex(columns="dataset n_train method gain lose mean gap".split())


def origin_matrix(test: pd.DataFrame, datasets: list[str]) -> pd.DataFrame:
    """NDCG@20 tested on each data set, by origin: untuned, each data set with the users' own
    answers and with those of others, the data set itself with the joint model's settings where
    these are others, joint (two sizes).

    At the main size of the single-domain model; 'joint, n in total' is the joint model with that
    many samples in all. Columns dataset, origin, n_each, seeds, n (the examples that all origins of
    a data set have), value, low, high, difference to the single-domain model (of a joint one, to
    that with its settings) with its interval, and gap.
    """
    rows = []
    joints = sorted(name for name in test.tuned_on.unique() if "+" in name)
    joint = joints[0] if joints else "+".join(datasets)
    for dataset in datasets:
        group = evidence.origins(test, dataset)
        size = evidence.main_size(group[group.origin == dataset])
        origins = [("untuned", dataset, 0), *((name, name, size) for name in datasets)]
        origins += [(f"{name}, others' answers", f"{name}*", size) for name in datasets]
        like = f"{dataset}="
        origins += [(f"{dataset}, tuned as joint", like, size)] * (like in set(group.origin))
        if len(datasets) > 1:
            half = size // (joint.count("+") + 1)
            origins += [("joint, n each", joint, size), ("joint, n in total", joint, half)]
        group = on_shared_examples(group, [(origin, n) for _, origin, n in origins])
        alike = group[(group.origin == like) & (group.n_train == size)]
        single = group[(group.origin == dataset) & (group.n_train == size)]
        for name, origin, n in origins:
            ranks = group[(group.origin == origin) & (group.n_train == n)]
            row = {"dataset": dataset, "origin": name, "n_each": n}
            if ranks.empty:
                rows.append(row | {"gap": f"missing: {name}, {n:,} samples"})
                continue
            row |= {"seeds": ranks.seed.nunique(), "n": ranks.example.nunique(), "gap": ""}
            row |= mean_interval(ranks)
            base = alike if name.startswith("joint") and len(alike) else single
            frame = pd.concat([base.assign(of="single"), ranks.assign(of="this")])
            tables = significance.crossed(frame, "ndcg", by="of")
            if name not in (dataset, "untuned") and tables["this"].size:
                difference = tables["this"] - tables["single"]
                contrast = significance.contrast(
                    difference.to_numpy(), significance.users_of(difference)
                )
                row |= {"difference": contrast["difference"], "difference_low": contrast["low"]}
                row |= {"difference_high": contrast["high"], "p": contrast["p"]}
            rows.append(row)
    columns = (
        "dataset origin n_each seeds n value low high difference difference_low difference_high p "
        "gap"
    ).split()
    return pd.DataFrame(rows).reindex(columns=columns).astype({"seeds": "Int64", "n": "Int64"})


def on_shared_examples(ranks: pd.DataFrame, origins: list[tuple[str, int]]) -> pd.DataFrame:
    """Ranks of these origins and sizes, on the examples that all that are there have."""
    cells = pd.MultiIndex.from_frame(ranks[["origin", "n_train"]])
    ranks = ranks[cells.isin(origins)]
    examples = ranks.groupby(["origin", "n_train"]).example.unique()
    shared = set.intersection(*map(set, examples)) if len(examples) else set()
    return ranks[ranks.example.isin(shared)]


def foreign_titles(folder: Path) -> pd.DataFrame:
    """How often a model tuned elsewhere, or on several domains, writes titles of another domain."""
    rows = [
        job["keys"] | {"titles_of": name, "share": share}
        for job in manifests.published_jobs(folder, "03_generate_titles")
        if not any(job["keys"].get(key) for key in ("worded", "setting", "lm"))
        for name, share in job["facts"].get("foreign_titles", {}).items()
    ]
    columns = ["dataset", "tuned_on", "n_train", "seed", "titles_of", "share"]
    return pd.DataFrame(rows, columns=columns)


TUNED_WITH = ("learning_rate", "epochs", "rank", "target_modules", "learn_prompt")


def joint_settings(folder: Path) -> list[str]:
    """Where a joint model is compared with one tuned with other settings: a sentence each."""
    jobs = manifests.published_jobs(folder, "02_tune_llm")
    tunings = {
        job["keys"]["dataset"]: job["parameters"]
        for setting in ("", AS_JOINT)
        for job in jobs
        if job["keys"].get("setting", "") == setting and not job["keys"].get("lm")
    }
    own = {name: tuning for name, tuning in tunings.items() if not tuning["also"]}
    said = {}
    for names, joint in tunings.items():
        for dataset in {*names.split("+")} & own.keys() if joint["also"] else ():
            pairs = {name: (joint[name], own[dataset][name]) for name in TUNED_WITH}
            apart = [
                f"{name.replace('_', ' ')} {setting_text(ours)}, not {setting_text(theirs)}"
                for name, (ours, theirs) in pairs.items()
                if ours != theirs
            ]
            said[dataset] = (
                f"The joint model was tuned with other settings than that of {dataset} "
                f"({'; '.join(apart)}), so the samples are not all that they differ in."
            ) * bool(apart)
    return [said[dataset] for dataset in sorted(said) if said[dataset]]


def setting_text(value) -> str:
    """A tuning setting as text."""
    return " ".join(value) if isinstance(value, list) else str(value)


def settings(folder: Path) -> pd.DataFrame:
    """What each tuning setting brings on the validation examples, a row a data set and setting.

    Columns: dataset, setting, what was set, minutes of tuning, valid_loss, real (share of first
    beams that are titles), distinct (how many different ones), most_frequent (share of the most
    frequent one), n, ndcg (NDCG@20) with its interval, and chosen: the highest of its data set
    among those that learn the users' own answers.
    """
    names = [*TUNED_WITH, "shuffled"]
    jobs = {
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
        tuning = jobs["02_tune_llm"][dataset, run]
        first_beams = jobs["03_generate_titles"][dataset, run]["facts"]["first_beams"]["valid"]
        ndcg = significance.interval(group.ndcg.to_numpy(), group.user.to_numpy())
        values = {name: tuning["parameters"].get(name) for name in names}
        rows.append(
            {"dataset": dataset, "setting": setting}
            | values
            | {"target_modules": setting_text(values["target_modules"])}
            | {"minutes": evidence.tuning_seconds(tuning) / 60}
            | {"valid_loss": tuning["facts"]["valid_loss"]}
            | {"real": first_beams["real"], "distinct": int(first_beams["distinct"])}
            | {"most_frequent": first_beams["most frequent"], "n": len(group)}
            | {"ndcg": ndcg.mean, "low": ndcg.low, "high": ndcg.high}
        )
    columns = [
        "dataset",
        "setting",
        *names,
        *"minutes valid_loss real distinct most_frequent n".split(),
    ]
    frame = pd.DataFrame(rows, columns=[*columns, "ndcg", "low", "high"])
    eligible = frame.ndcg.where(frame.setting != SHUFFLED)
    return frame.assign(chosen=eligible == eligible.groupby(frame.dataset).transform("max"))


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows by data set, size, and method in the order of `METHODS`."""
    place = {method.name: number for number, method in enumerate(METHODS)}
    return frame.sort_values(
        ["dataset", "n_train", "method"],
        key=lambda column: column.astype(str).map(place) if column.name == "method" else column,
        kind="stable",
    )


def every_run(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a data set, training size, and method of a run; a column a metric and K; test split.

    rows: metrics.csv; ways of grounding are left out. Mean over seeds.
    """
    frame = in_order(rows[(rows.split == "test") & rows.method.isin(MAIN)])
    frame = frame.assign(
        column=frame.metric + "@" + frame.k.astype(str),
        method=[label(*pair) for pair in zip(frame.method, frame.run, strict=True)],
    )
    columns = frame.sort_values(["metric", "k"]).column.unique()
    keys = ["dataset", "n_train", "method"]
    wide = frame.pivot_table(index=keys, columns="column", values="value", sort=False)
    return wide[columns].reset_index()
