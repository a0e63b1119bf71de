"""Whether domains share a recommendation space (14): model × catalogue × what the prompt says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.findings import claims, differences, evidence, prose, rules, significance
from bigrec_lib.findings.significance import (
    Mean,
    as_columns,
    crossed,
    mean_of,
    mean_of_rows,
    users_of,
)
from bigrec_lib.method import adapters, metrics
from bigrec_lib.method.adapters import Update
from bigrec_lib.study import manifests
from bigrec_lib.study.row_keys import AS_JOINT, MERGED

SINGLE, JOINT, TOTAL = "the domain's own", "joint, n of each", "joint, n in total"
AVERAGE = "average of adapters"
OWN, UNION, SOME, CONTROL = "own", "all domains", "some of them", "as many of a further domain"
CATALOGUES = {
    "bigrec": OWN, "bigrec-union": UNION, "bigrec-union-few": SOME, "bigrec-union-control": CONTROL
}  # fmt: skip
"""Method -> the catalogue it ranks."""

USUAL, UNNAMED, WRONG = "as usual", "no domain named", "wrong domain named"
PROMPTS = {"": USUAL, "none": UNNAMED, "wrong": WRONG}

Cell = tuple[str, str, str]
"""A cell of the factorial: model, catalogue, prompt."""

BASE: Cell = (SINGLE, OWN, USUAL)
CELL = ["model", "catalogue", "prompt"]

OFF_DOMAIN = "share of the first 20 that are of other data sets"
NEAREST_FOREIGN = "nearest title is another data set's"
FOREIGN_TITLE = "is another data set's title"


# ------------------------------------------------------------------------------- the factorial


def cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the factorial, with columns model, catalogue, prompt, and cell, a tuple of these.

    rows: with the columns of `row_keys.KEYS` and method, such as ranks. n, by which `models` tells
    them apart, is the size of the single-domain model that was grounded in the union, or else the
    main size.
    """
    mask = rows.method.isin(CATALOGUES) & (rows.lm == "") & (rows.embedded_by == "")
    mask &= ~rows.constrained.astype(bool) & ~evidence.on_all_samples(rows)
    frame = rows[mask]
    united = frame[(frame.method == "bigrec-union") & (frame.tuned_on == "")]
    united = united.assign(setting=united.setting.replace(AS_JOINT, ""))
    sizes = evidence.main_sizes(frame) | evidence.main_sizes(united)
    frame = frame.assign(
        model=models(frame, frame.dataset.map(sizes).fillna(0)),
        catalogue=frame.method.map(CATALOGUES),
        prompt=frame.worded.map(PROMPTS),
    )
    frame = frame[frame.model != ""]
    return frame.assign(cell=list(frame[CELL].itertuples(index=False, name=None)))


def models(rows: pd.DataFrame, n: pd.Series) -> pd.Series:
    """The model of each row; '' for one that the factorial has no place for.

    The domain's own is the one that was tuned with the joint model's settings, where there is one.
    """
    domains = rows.tuned_on.str.count(r"\+") + 1
    joint = domains > 1
    plain, same = rows.setting == "", rows.n_train == n
    n_each, n_total = joint & same, joint & (rows.n_train * domains == n)
    alike = rows.dataset.isin(rows.dataset[rows.setting == AS_JOINT])
    own = plain.where(~alike, rows.setting == AS_JOINT)
    names = np.select(
        [
            own & same & (rows.tuned_on == ""),
            plain & n_each,
            plain & n_total,
            (rows.setting == MERGED) & n_each,
            plain & same & ~joint & (rows.tuned_on != ""),
        ],
        [SINGLE, JOINT, TOTAL, AVERAGE, "of " + rows.tuned_on.astype(str)],
        default="",
    )
    return pd.Series(np.where(n > 0, names, ""), rows.index)


def shared(rows: pd.DataFrame) -> list[str]:
    """The data sets whose texts were grounded in a union; all of them where there are none."""
    unions = rows[rows.method == "bigrec-union"]
    return list(dict.fromkeys((unions if len(unions) else rows).dataset))


def in_order(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows by data set, model, prompt and catalogue, in the order of this module's names."""
    names = [SINGLE, JOINT, TOTAL, AVERAGE, *sorted(set(frame.model))]
    names = [*names, *PROMPTS.values(), *CATALOGUES.values()]
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return frame.sort_values(
        ["dataset", "model", "prompt", "catalogue"],
        key=lambda column: column if column.name == "dataset" else column.map(place),
        ignore_index=True,
    )


def combination(group: pd.DataFrame, weights: dict[Cell, float]) -> tuple[Mean, str] | None:
    """The mean weighted sum of cells' NDCG@20, over pairs of seed and example; None without any.

    group: `cells` of one data set. With it, `differences.gap` between the cells weighted above zero
    and those weighted below.
    """
    if not set(weights) <= set(group.cell):
        return None
    tables = crossed(group[group.cell.isin(list(weights))], "ndcg", by="cell")
    users = users_of(tables[next(iter(weights))])
    if not len(users):
        return None
    plus, minus = (
        np.sum([abs(w) * tables[c].to_numpy() for c, w in weights.items() if w * sign > 0], axis=0)
        for sign in (1, -1)
    )
    return mean_of(plus - minus, users), differences.gap(plus, minus)


def factorial(ranks: pd.DataFrame) -> pd.DataFrame:
    """NDCG@20 of every cell, and its relative difference to BASE: a row a data set and cell.

    ranks: `cells` with ndcg. Columns dataset, model, catalogue, prompt; seeds, n, ndcg with low,
    high; relative with relative_low, relative_high; corrected (p of the rule "no worse", by `holm`
    over all rows) and verdict, by that rule without its guard, or `differences.gap`.
    """
    rows = []
    for dataset, group in ranks.groupby("dataset", sort=False):
        for cell, cell_ranks in group.groupby("cell", sort=False):
            mean = mean_of_rows(cell_ranks, "ndcg")
            row = {"dataset": dataset} | dict(zip(CELL, cell, strict=True))
            row |= {"seeds": mean.seeds, "n": mean.n} | as_columns(mean, "ndcg")
            rows.append(row | (against_base(group, cell) if cell != BASE else {}))
    columns = "seeds n ndcg low high relative relative_low relative_high p favours pairs gap"
    frame = pd.DataFrame(rows).reindex(columns=["dataset", *CELL, *columns.split()])
    frame["corrected"] = significance.holm(frame.p.astype(float))
    frame["verdict"] = [
        WORDS[rules.verdict(row.corrected, bool(row.favours), row.pairs)]
        for row in frame.itertuples()
    ]
    frame["verdict"] = frame.verdict.where(frame.gap.fillna("") == "", frame.gap)
    return in_order(frame.drop(columns=["p", "favours", "pairs", "gap"]))


def against_base(group: pd.DataFrame, cell: Cell) -> dict:
    """What `factorial` says of a cell compared with BASE; {} where there is no ratio."""
    ratio = claims.relative(group, cell, BASE, by="cell")
    difference = combination(group, {cell: 1.0, BASE: -1.0})
    if not ratio or not difference:
        return {}
    if difference[1]:
        return {"relative": ratio.value, "gap": difference[1]}
    finding = rules.no_worse(ratio)
    row = {"p": finding.p, "favours": finding.favours, "pairs": ratio.seeds, "gap": ""}
    return row | as_columns(ratio, "relative", "relative_")


WORDS = {
    rules.SUPPORTED: "no worse",
    rules.CONTRADICTED: "worse",
    rules.OPEN: rules.OPEN,
    rules.DEMONSTRATION: rules.DEMONSTRATION,
    rules.MISSING: "",
}


def effects(ranks: pd.DataFrame) -> pd.DataFrame:
    """What each factor does to NDCG@20, and how two do together: a row a data set and contrast.

    ranks: `cells` with ndcg. Columns dataset, effect, seeds, n, difference, low, high, p, gap
    (`differences.ends`) and corrected (by `holm` over all rows).
    """
    rows = []
    for dataset, group in ranks.groupby("dataset", sort=False):
        for name, weights in contrasts(list(dict.fromkeys(group.model))):
            contrast = combination(group, weights)
            if contrast:
                mean, gap = contrast
                row = {"dataset": dataset, "effect": name, "seeds": mean.seeds, "n": mean.n}
                rows.append(row | {"difference": mean.value} | differences.ends(mean, gap))
    columns = "dataset effect seeds n difference low high p gap".split()
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(corrected=significance.holm(frame.p.astype(float)))


def contrasts(names: list[str]) -> Iterator[tuple[str, dict[Cell, float]]]:
    """Name and weights of every effect that is looked at, for the models of these names."""
    for model in names:
        union = {(model, UNION, USUAL): 1.0, (model, OWN, USUAL): -1.0}
        yield f"{model}: {UNION}' titles − own", union
        control = {(model, SOME, USUAL): 1.0, (model, CONTROL, USUAL): -1.0}
        yield f"{model}: titles of the domains − {CONTROL}", control
        if model != SINGLE:
            single = {(SINGLE, UNION, USUAL): -1.0, (SINGLE, OWN, USUAL): 1.0}
            yield f"{model}, {UNION}' titles − own, less the same of {SINGLE}", union | single
        for prompt in (UNNAMED, WRONG):
            for catalogue in (OWN, UNION):
                pair = {(model, catalogue, prompt): 1.0, (model, catalogue, USUAL): -1.0}
                yield f"{model}, catalogue {catalogue}: {prompt} − {USUAL}", pair


# ---------------------------------------------------------------------- what stands in the lists


def domains_of_lists(values: pd.DataFrame) -> pd.DataFrame:
    """How often titles of other data sets come up: a row a data set and cell.

    values: `cells` of `evidence.read_values`. Columns dataset, model, catalogue, prompt; off_domain
    (OFF_DOMAIN) with low, high; nearest_foreign (NEAREST_FOREIGN), foreign_title (FOREIGN_TITLE).
    """
    rows = []
    subset = values[values.what.isin((OFF_DOMAIN, NEAREST_FOREIGN, FOREIGN_TITLE))]
    for (dataset, cell), group in subset.groupby(["dataset", "cell"], sort=False):
        means = group.groupby("what").value.mean()
        row = {"dataset": dataset} | dict(zip(CELL, cell, strict=True))
        row |= as_columns(mean_of_rows(group[group.what == OFF_DOMAIN], "value"), "off_domain")
        row |= {"nearest_foreign": means[NEAREST_FOREIGN], "foreign_title": means[FOREIGN_TITLE]}
        rows.append(row)
    columns = "off_domain low high nearest_foreign foreign_title".split()
    return in_order(pd.DataFrame(rows, columns=["dataset", *CELL, *columns]))


def displacement(ranks: pd.DataFrame) -> pd.DataFrame:
    """Places that the target loses to titles of other data sets: a row a data set and cell.

    ranks: `cells` of `evidence.read_scores`. Columns dataset, model, catalogue, prompt; mean and
    median places, moved (share of the examples that lose any), lost (share that were among the
    first 20 and are no more).
    """
    keys = ["dataset", "model", "prompt", "seed", "example"]
    frame = ranks.assign(place=metrics.effective_rank(ranks))[[*keys, "catalogue", "place"]]
    own_places = frame[frame.catalogue == OWN].drop(columns="catalogue")
    pairs = frame[frame.catalogue != OWN].merge(own_places, on=keys, suffixes=("", "_own"))
    pairs = pairs.assign(places=pairs.place - pairs.place_own)
    pairs = pairs.assign(moved=pairs.places > 0, lost=(pairs.place_own < 20) & (pairs.place >= 20))
    table = pairs.groupby(["dataset", *CELL], sort=False).agg(
        mean=("places", "mean"), median=("places", "median"), moved=("moved", "mean"),
        lost=("lost", "mean"),
    )  # fmt: skip
    return in_order(table.reset_index())


def catalogues(measures: pd.DataFrame) -> pd.DataFrame:
    """What 14b counted of each catalogue: a row a data set and catalogue, a column a number.

    measures: `cells` of `evidence.read_measures`; the single-domain model's first seed is used.
    """
    mask = measures.what.isin(measures.what[measures.catalogue != OWN])
    single = measures[mask & (measures.model == SINGLE) & (measures.prompt == USUAL)]
    first_seed = single[single.seed == single.seed.min()]
    wide = first_seed.pivot_table(
        index=["dataset", "catalogue"], columns="what", values="value", sort=False
    )
    return wide.reset_index()


# ------------------------------------------------------------------------- updates of the weights

SAME_SEED, OTHER_SEED = "other domain, same seed", "other domain, other seed"
NULL = "same domain, other seed"


def compared_updates(updates: dict[tuple[str, int], Update]) -> pd.DataFrame:
    """Cosines of every two adapters' weight updates, layer by layer.

    updates: by data set and seed. Columns first, second, kind (SAME_SEED, OTHER_SEED, NULL), layer
    (its number), module (such as q_proj; '' for all layers together) and cosine. Adapters of one
    seed begin with the same random A, so what NULL compares with is OTHER_SEED, not SAME_SEED.
    """
    rows = []
    for (first, a), (second, b) in combinations(updates.items(), 2):
        kind = SAME_SEED if first[1] == second[1] else OTHER_SEED
        kind = NULL if first[0] == second[0] else kind
        names = {"first": f"{first[0]}, {first[1]}", "second": f"{second[0]}, {second[1]}"}
        for layer, cosine in adapters.cosines(a, b).items():
            number = re.search(r"\.(\d+)\.", layer)
            place = {"layer": int(number[1]) if number else -1, "module": layer.rpartition(".")[2]}
            rows.append(names | {"kind": kind} | place | {"cosine": cosine})
    return pd.DataFrame(rows, columns="first second kind layer module cosine".split())


def mean_cosines(pairs: pd.DataFrame) -> dict[str, dict[str, float]]:
    """kind -> module ('' for all layers together) -> mean cosine of the pairs and layers.

    pairs: `compared_updates`.
    """
    means: dict[str, dict[str, float]] = {}
    cosines = pairs.dropna(subset="cosine")  # of two updates, both of which change the layer
    for (kind, module), cosine in cosines.groupby(["kind", "module"]).cosine.mean().items():
        means.setdefault(str(kind), {})[str(module)] = round(float(cosine), 6)
    return means


def read_cosines(folder: Path) -> pd.DataFrame:
    """The means of `mean_cosines` over all seeds of a study: a row a kind, a column a module.

    all: of all layers together; low, high: the lowest and the highest seed's.
    """
    jobs = manifests.published_jobs(folder, "14a_merge_adapters")
    rows = [
        {"kind": kind} | {module or "all": value for module, value in means.items()}
        for job in jobs
        for kind, means in job["facts"]["cosines"].items()
    ]
    if not rows:
        return pd.DataFrame(columns=["kind", "all", "low", "high"])
    groups = pd.DataFrame(rows).groupby("kind", sort=False)
    table = groups.mean()
    table.insert(0, "low", groups["all"].min())
    table.insert(1, "high", groups["all"].max())
    table.insert(0, "all", table.pop("all"))
    return table.reset_index()


# ---------------------------------------------------------------------------------------- claim

COMPARED: dict[Cell, str] = {
    (SINGLE, UNION, USUAL): f"the domain's own model in the titles of {UNION}",
    (JOINT, UNION, USUAL): f"the joint model, n samples of each, in the titles of {UNION}",
}
"""What Q2 compares with BASE."""

METHOD = {catalogue: method for method, catalogue in CATALOGUES.items()}


def q2(ranks: pd.DataFrame, gains: pd.DataFrame) -> list[dict]:
    """Q2 on every data set that shares a space. ranks: `evidence.read_scores`; gains:
    `evidence.personal_gains` of the same runs' lists."""
    rank_cells, gain_cells = cells(ranks), cells(gains)
    rows = []
    for dataset in shared(ranks):
        group = rank_cells[rank_cells.dataset == dataset]
        lists = gain_cells[gain_cells.dataset == dataset]
        of_dataset = ranks[ranks.dataset == dataset]
        users_hit = group[group.cell.isin([BASE]) & (group.ndcg > 0)].user.nunique()
        for cell, name in COMPARED.items():
            keys = {"claim": "Q2", "dataset": dataset, "metric": "NDCG@20"}
            claim = keys | {"statement": f"{name} / the domain's own model in its own titles − 1"}
            runs = group[group.cell.isin([cell])].assign(method="bigrec")
            guards = {
                claims.PERSONAL: claims.personal(lists[lists.cell.isin([cell])], METHOD[cell[1]]),
                "it − the untuned LLM": claims.over_untuned(runs, of_dataset),
            }
            needs = f"{name}, and the single-domain model with the same seeds and a hit"
            mean = claims.relative(group, cell, BASE, by="cell")
            rows.append(claims.compared(claim, mean, needs, guards, "no worse", users_hit))
    return rows


def listed(folder: Path) -> pd.DataFrame:
    """A study's lists that Q2's guards are computed from."""
    lists = evidence.every_list(folder)
    frame = cells(lists)
    return lists.loc[frame.index[frame.cell.isin(list(COMPARED))]]


# ------------------------------------------------------------------------------------ in words


def told(table: pd.DataFrame, shares: pd.DataFrame, cosines: pd.DataFrame) -> list[str]:
    """What the tables say, in at most five sentences as lines of a Markdown list.

    table: of `effects`; shares: of `domains_of_lists`; cosines: of `read_cosines`.
    """
    lines = [
        one_catalogue(f"{SINGLE}: {UNION}' titles − own", "the model of one domain", table),
        one_catalogue(f"{JOINT}: {UNION}' titles − own", "the joint model", table),
        strangers(shares),
        wording(table),
        directions(cosines),
    ]
    return [f"- {line}" for line in lines if line]


def one_catalogue(effect: str, model: str, table: pd.DataFrame) -> str:
    """What a catalogue of all domains costs a model, by data set. table: of `effects`."""
    parts = []
    for row in table[table.effect == effect].itertuples():
        if row.gap:
            parts.append(f"{row.dataset} **{row.gap}**")
            continue
        interval = significance.Interval(row.difference, row.low, row.high)
        words = ("helps", "costs", "makes no difference that is shown")
        word = differences.word(interval, row.corrected, *words)
        parts.append(f"{row.dataset} **{word}**, {prose.signed(interval)}")
    return f"One catalogue for all domains, {model}: {'; '.join(parts)}." if parts else ""


def strangers(shares: pd.DataFrame) -> str:
    """Which model lists titles of other domains most often, under the usual prompt."""
    rows = shares[(shares.catalogue == UNION) & (shares.prompt == USUAL)]
    if rows.empty:
        return ""
    parts = []
    for dataset, group in rows.groupby("dataset", sort=False):
        row = group.loc[group.off_domain.idxmax()]
        parts.append(f"{dataset} {row.off_domain:.1%} ({row.model})")
    return f"Of the first 20, at most so many are of other data sets: {'; '.join(parts)}."


def wording(table: pd.DataFrame) -> str:
    """For how many models the prompt's wording is shown to matter. table: of `effects`."""
    lines = []
    for prompt, words in {UNNAMED: "names no domain", WRONG: "names a wrong domain"}.items():
        rows = table[table.effect.str.contains(f"catalogue {OWN}: {prompt} − ", regex=False)]
        if len(rows):
            significant = rows[rows.corrected < significance.LEVEL]
            worse, better = (
                int((significant.difference < 0).sum()),
                int((significant.difference > 0).sum()),
            )
            lines.append(
                f"A prompt that {words}: of {len(rows)} comparisons with the usual prompt {worse} "
                f"are lower and {better} higher, by corrected p-values."
            )
    return " ".join(lines)


def directions(cosines: pd.DataFrame) -> str:
    """Whether updates of two domains are as similar as two of one domain."""
    means = cosines.set_index("kind")["all"]
    if SAME_SEED not in means:
        return ""
    line = f"Updates of two domains under one seed have a cosine of {means[SAME_SEED]:.3f}"
    if {NULL, OTHER_SEED} <= set(means.index):
        line += (
            f"; under two seeds, of {means[OTHER_SEED]:.3f}, and those of one domain of "
            f"{means[NULL]:.3f}"
        )
    return f"{line}."
