"""The main table, and what every method in it is held against.

A random order, the method's own lists handed to other users, and the subsets of examples where a
hit is easy: a number that these reach says nothing about a recommender.
"""

from __future__ import annotations

import pandas as pd

from bigrec_lib.findings import significance
from bigrec_lib.findings.analyses import in_order, mean_interval
from bigrec_lib.findings.methods import label, of
from bigrec_lib.method import metrics

ALL = "all training samples"
ROW = ["dataset", "samples", "method"]


def levels(ranks: pd.DataFrame) -> pd.DataFrame:
    """Mean NDCG@20 with its interval: columns dataset, samples, method, value, low, high.

    ranks: columns dataset, samples ('few' or 'all'), seed, method, user, example, ndcg.
    """
    groups = ranks.groupby(ROW, sort=False)
    rows = [dict(zip(ROW, keys, strict=True)) | mean_interval(group) for keys, group in groups]
    return pd.DataFrame(rows, columns=[*ROW, "value", "low", "high"])


def references(gains: pd.DataFrame, items: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Each method's NDCG@20 beside that of its lists handed to other users, and of a random order.

    gains: `evidence.personal_gains` with a column samples. Columns dataset, samples, method, own,
    handed_on, random (expected), gain (own - handed_on) with its interval low, high; personal:
    whether the interval is above zero. Own and handed_on are read from lists, in which ties stand
    in the order of the catalogue, where ranks count them as their mean place.
    """
    rows = []
    for keys, group in gains.groupby(ROW, sort=False):
        gain = mean_interval(group, "gain")
        candidates = items[keys[0]].title_group.nunique()
        rows.append(
            dict(zip(ROW, keys, strict=True))
            | {"own": group.own.mean(), "handed_on": group.others.mean()}
            | {"random": metrics.of_random(metrics.ndcg, 20, candidates)}
            | {"gain": gain["value"], "low": gain["low"], "high": gain["high"]}
        )
    columns = [*ROW, "own", "handed_on", "random", "gain", "low", "high"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(personal=frame.low.astype(float) > 0)


def variety(lists: pd.DataFrame) -> pd.DataFrame:
    """How many titles come first, mean over seeds: distinct, and the share of the most frequent.

    lists: columns dataset, samples, seed, method, items.
    """
    firsts = lists.assign(first=[items[0] for items in lists["items"]])
    by_seed = firsts.groupby([*ROW, "seed"], sort=False)["first"]
    frame = pd.DataFrame(
        {
            "distinct": by_seed.nunique().astype(float),
            "most_frequent": by_seed.agg(lambda titles: titles.value_counts(normalize=True).max()),
        }
    )
    return frame.groupby(ROW, sort=False).mean().reset_index()


def overall(
    ranks: pd.DataFrame,
    methods: dict[str, list[str]],
    marks: set[tuple],
    gains: pd.DataFrame,
    firsts: pd.DataFrame,
) -> pd.DataFrame:
    """The main table: a row a data set, amount of training data and method, a column a metric.

    ranks: columns dataset, samples ('few' or 'all'), seed, method and rank (effective). methods: by
    samples, those that should be there; one that is not, or lacks a seed another one has, is named
    in the column gap. gains: `references`; firsts: `variety`. Cells are means over seeds of the
    mean over examples, ± their standard deviation where there are several; the best of a column is
    bold among its data set and samples. marks: (dataset, samples, method) whose NDCG@20 gets a
    dagger. A method that is not personal (`references`) gets a ring, ∘.
    """
    gain_of = gains.set_index(ROW)
    variety_of = firsts.set_index(ROW)
    rows = []
    for (dataset, samples), group in ranks.groupby(["dataset", "samples"], sort=False):
        seeds = set(group.seed)
        cells = {name: cells_of(group[group.method == name]) for name in methods[samples]}
        best = {
            column: max(numbers.get(column, (0, 0, 0))[0] for numbers in cells.values())
            for column in COLUMNS
        }
        for method, numbers in cells.items():
            own_seeds = set(group.seed[group.method == method])
            missing = ", ".join(f"seed {seed}" for seed in sorted(seeds - own_seeds))
            gap = "" if not missing else f"missing: {'all' if not own_seeds else missing}"
            texts = {
                column: spread(*cell, bold=cell[0] == best[column] > 0)
                for column, cell in numbers.items()
            }
            key = dataset, samples, method
            texts |= {"NDCG@20": texts["NDCG@20"] + "†"} if key in marks and texts else {}
            row = {"dataset": dataset, "samples": samples, "method": label(method)}
            row |= {"learns": ALL if samples == "all" else of(method).learns} | texts
            if key in gain_of.index:
                gain = gain_of.loc[key]
                text = f"{gain.gain:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
                row["personal gain"] = text + ("" if gain.personal else " ∘")
            if key in variety_of.index:
                row["distinct first"] = round(variety_of.loc[key].distinct)
                row["most frequent"] = f"{variety_of.loc[key].most_frequent:.0%}"
            rows.append(row | {"gap": gap})
    extras = ["personal gain", "distinct first", "most frequent"]
    columns = ["dataset", "samples", "method", "learns", *COLUMNS, *extras, "gap"]
    return pd.DataFrame(rows, columns=columns).astype({"distinct first": "Int64"})


COLUMNS = [f"{name}@{k}" for name in metrics.METRICS for k in metrics.KS]


def cells_of(ranks: pd.DataFrame) -> dict[str, tuple[float, float, int]]:
    """Of one method: column -> mean over seeds, its standard deviation, number of seeds."""
    cells = {}
    for name, metric in metrics.METRICS.items():
        for k in metrics.KS if len(ranks) else ():
            values = ranks.assign(value=metric(ranks["rank"], k)).groupby("seed").value.mean()
            cells[f"{name}@{k}"] = (values.mean(), values.std(), len(values))
    return cells


def headline(main: pd.DataFrame) -> pd.DataFrame:
    """The main table at K = 20: a row a method; a column a data set, amount of data and metric."""
    suffixes = {"few": "", "all": ", all samples"}
    wide = {}
    for dataset, group in main.groupby("dataset", sort=False):
        for samples, metric in (("few", "NDCG@20"), ("few", "personal gain"), ("all", "NDCG@20")):
            cells = group[group.samples == samples].set_index("method")[metric]
            if cells.notna().any():
                wide[f"{dataset} {metric}{suffixes[samples]}"] = cells
    frame = pd.DataFrame(wide).reindex(main.method.unique()).dropna(how="all")
    learners = main[main.samples == "few"].drop_duplicates("method").set_index("method")
    frame.insert(0, "learns", learners.learns.reindex(frame.index))
    return frame.fillna("").rename_axis("method").reset_index()


def spread(mean: float, deviation: float, seeds: int, bold: bool = False) -> str:
    """A mean over seeds as text, with its spread where there is one."""
    text = f"{mean:.4f}" + (f" ± {deviation:.4f}" if seeds > 1 else "")
    return f"**{text}**" if bold else text


def unseen(ranks: pd.DataFrame) -> pd.DataFrame:
    """What each method gains by leaving the history's titles out of the ranking.

    ranks: as for `levels`. Columns dataset, samples, method, plain and unseen (NDCG@20), difference
    with its interval low, high.
    """
    rows = []
    for (dataset, samples), group in ranks.groupby(["dataset", "samples"], sort=False):
        methods = group.method.unique()
        for method in methods:
            pair = (method, f"{method}-unseen")
            if pair[1] not in methods:
                continue
            tables = significance.crossed(group[group.method.isin(pair)], "ndcg")
            plain, without = (tables[name] for name in pair)
            contrast = significance.contrast(
                (without - plain).to_numpy(), significance.users_of(plain)
            )
            keys = {"dataset": dataset, "samples": samples, "method": method}
            means = {"plain": plain.to_numpy().mean(), "unseen": without.to_numpy().mean()}
            rows.append(
                keys | means | {name: contrast[name] for name in ("difference", "low", "high")}
            )
    return pd.DataFrame(rows, columns=[*ROW, "plain", "unseen", "difference", "low", "high"])


def kinds(
    dataset: str, items: dict[str, pd.DataFrame], examples: dict[str, pd.DataFrame]
) -> dict[str, pd.Series]:
    """Kinds of a data set's test examples -> which these are.

    warm: the target occurs in training; cold: it does not; tied: it has the time of the last
    history item, so that their order says nothing; untied: it has not. Empty without the data.
    """
    if dataset not in items or dataset not in examples:
        return {}
    test = examples[dataset]
    counts = items[dataset].groupby("title_group").train_count.sum()
    titles = items[dataset].title_group.to_numpy()[test.target]
    cold = counts.reindex(titles).to_numpy() == 0
    masks = {"warm": ~cold, "cold": cold}
    if "tied" in test:
        tied = test.tied.to_numpy(bool)
        masks |= {"untied": ~tied, "tied": tied}
    return {kind: test.example[mask] for kind, mask in masks.items()}


def ahead_on_kinds(
    ranks: pd.DataFrame,
    rivals: dict[str, str],
    items: dict[str, pd.DataFrame],
    examples: dict[str, pd.DataFrame],
) -> pd.DataFrame:
    """BIGRec − a rival of each data set in NDCG@20, on each of `kinds`.

    ranks: scores at one size. Columns dataset, kind and those of `significance.compare`, corrected
    over all rows.
    """
    tables = [
        significance.compare(
            group[group.example.isin(chosen)], [("bigrec", rivals[str(dataset)])], "ndcg"
        ).assign(kind=kind)
        for dataset, group in ranks.groupby("dataset", sort=False)
        for kind, chosen in kinds(str(dataset), items, examples).items()
        if len(chosen)
    ]
    if not tables:
        return pd.DataFrame()
    table = pd.concat(tables, ignore_index=True)
    return table.assign(corrected=significance.holm(table.p))


def subsets(
    ranks: pd.DataFrame, items: dict[str, pd.DataFrame], examples: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """Mean NDCG@20 on each of `kinds`, and of how many examples, `n`. ranks: as for `levels`."""
    rows: list[pd.DataFrame] = []
    for dataset, group in ranks.groupby("dataset", sort=False):
        for kind, chosen in kinds(str(dataset), items, examples).items():
            part = group[group.example.isin(chosen)]
            groups = part.groupby(["samples", "n_train", "method"], sort=False)
            means = groups.agg(n=("example", "nunique"), ndcg=("ndcg", "mean")).reset_index()
            rows.append(means.assign(dataset=dataset, kind=kind))
    columns = ["dataset", "samples", "n_train", "method", "kind", "n", "ndcg"]
    table = pd.concat([pd.DataFrame(columns=columns), *rows], ignore_index=True)
    return in_order(table[columns]).drop(columns="n_train")


def ways(valid: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """What each tuning setting, and each way to ground its beams, knows of the user.

    valid: `evidence.under_settings` of validation scores; gains: `evidence.personal_gains` of lists
    of the test examples under settings. A row a data set, setting and method of both: valid_ndcg
    (NDCG@20 on validation), own, handed_on and gain (own - handed_on) with its interval low, high.
    """
    rows = []
    keys = ["dataset", "setting", "method"]
    means = valid.groupby(keys).ndcg.mean()
    for key, group in gains.groupby(keys, sort=False):
        if key not in means.index or of(key[2]).kind not in ("bigrec", "grounding"):
            continue
        if key[2].endswith("-unseen"):  # without the own history only the own list gains
            continue
        interval = significance.interval(group.gain.to_numpy(), group.user.to_numpy())
        rows.append(
            dict(zip(keys, key, strict=True))
            | {"valid_ndcg": means[key], "own": group.own.mean(), "handed_on": group.others.mean()}
            | {"gain": interval.mean, "low": interval.low, "high": interval.high}
        )
    return pd.DataFrame(
        rows, columns=[*keys, "valid_ndcg", "own", "handed_on", "gain", "low", "high"]
    )
