"""Where BIGRec gains and where it loses, over the traits of examples and of data sets (18)."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.findings import claims, differences, evidence, leaderboard, prose, significance
from bigrec_lib.findings.methods import CONVENTIONAL, label, minus
from bigrec_lib.findings.significance import (
    Interval,
    Mean,
    as_columns,
    crossed,
    mean_of,
    users_of,
)
from bigrec_lib.method import census

TRAITS = {
    "continuity": "share of the target's words in the history",
    "new": "whether the target is new",
    "popularity": "popularity of the target (log10 of 1 + its count)",
    "words": "words in the target's title",
    "generality": "log-likelihood of the title under the LLM as it is, per token",
}
"""What may explain who gains, and how it is put."""

GENERALITY = "log_likelihood_of_title"  # in values.parquet, per token

CLAIMED = ("continuity", "new")
"""The traits of the hypothesis: BIGRec gains where titles carry on, and where items are new."""

FEW = 20  # examples that each value of a trait with two has at least, for a slope
BINS = {"continuity": (0.0, 0.5), "new": (0.5,), "words": (2, 4)}
"""Upper edges of bins; other traits are cut into thirds."""


def traits(
    items: pd.DataFrame, examples: pd.DataFrame, generality: pd.Series | None = None
) -> pd.DataFrame:
    """Traits of each test example of one data set: example and the columns of TRAITS, as floats.

    items, examples: `evidence.read_data` of it; generality: by example; without it that trait
    is left out.
    """
    titles = items.set_index("item").title
    histories, targets = examples.history.tolist(), examples.target.tolist()
    counts = items.groupby("title_group").train_count.sum()
    groups = items.set_index("item").title_group[targets]
    target_counts = counts.reindex(groups).to_numpy()
    columns = {
        "example": examples.example.to_numpy(),
        "continuity": census.continuity(histories, targets, titles),
        "new": (target_counts == 0).astype(float),
        "popularity": np.log10(1 + target_counts),
        "words": np.array([float(len(census.words(titles[item]))) for item in targets]),
    }
    if generality is not None:
        columns["generality"] = generality.reindex(examples.example).to_numpy()
    return pd.DataFrame(columns)


def known(
    folder: Path, items: dict[str, pd.DataFrame], examples: dict[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Data set -> `traits` of its test examples, which are the index.

    folder: a study's results, where 16a has measured how general titles are.
    """
    rows = evidence.read_values(folder)
    scores = rows[rows.what == GENERALITY]
    tables = {}
    for dataset in [name for name in items if name in examples]:
        group = scores[scores.dataset == dataset].drop_duplicates("example")
        generality = group.set_index("example").value if len(group) else None
        tables[dataset] = traits(items[dataset], examples[dataset], generality).set_index("example")
    return tables


def apart(test: pd.DataFrame, rival: str) -> pd.DataFrame | None:
    """BIGRec − the rival in NDCG@20, seeds x examples; None without a pair."""
    tables = claims.pair(test, "bigrec", rival)
    return tables[0] - tables[1] if tables else None


def coefficients(values: pd.DataFrame, table: pd.DataFrame) -> dict[str, Mean]:
    """Least squares of the values of examples on their traits, one Mean a trait.

    values: seeds x examples (`crossed`); table: index example, a column a trait. A cell adds its
    weight times its residual to a coefficient; so errors are of users and seeds, as everywhere. A
    trait is left out that does not vary, that is a linear combination of those before it, or that
    has two values of which fewer than FEW examples have one: those would fit themselves, and the
    error would come out far too small.
    """
    rows = table.loc[values.columns.get_level_values("example")]
    names: list[str] = []
    x = np.ones((len(rows), 1))  # (n, traits + 1)
    for name in rows.columns[rows.notna().all()]:
        _, counts = np.unique(rows[name], return_counts=True)
        if len(counts) == 2 and counts.min() < FEW:
            continue
        design = np.column_stack([x, rows[name].to_numpy(np.float64)])
        if np.linalg.matrix_rank(design) > x.shape[1]:
            names, x = [*names, name], design
    weights = np.linalg.pinv(x)  # (traits + 1, n)
    y = values.to_numpy()  # (S, n)
    beta = weights @ y.mean(0)
    residuals = y - x @ beta
    return {
        name: mean_of(beta[n] + weights[n] * len(rows) * residuals, users_of(values))
        for n, name in enumerate(names, start=1)
    }


def slope(values: pd.DataFrame | None, table: pd.DataFrame, trait: str) -> Mean | None:
    """The coefficient of one trait alone; None without values, or a trait that varies."""
    if values is None or trait not in table:
        return None
    return coefficients(values, table[[trait]]).get(trait)


def of_gains(gain: pd.DataFrame) -> pd.DataFrame | None:
    """BIGRec's personal gains as seeds x examples; None without any."""
    rows = gain[gain.method == "bigrec"]
    return None if rows.empty else crossed(rows, "gain")["bigrec"]


def v3(
    test: pd.DataFrame, valid: pd.DataFrame, gains: pd.DataFrame, tables: dict[str, pd.DataFrame]
) -> list[dict]:
    """V3 on every data set. test, valid: `scored` ranks; gains: `personal_gains`.

    tables: data set -> `traits`, with the example as index.
    """
    rows = []
    for dataset, _, group, validation, gain in claims.per_dataset(test, valid, gains):
        rival = evidence.preferred(validation, CONVENTIONAL)
        for trait in CLAIMED:
            statement = f"{minus('bigrec', rival or 'conventional')}, slope over {TRAITS[trait]}"
            keys = {"claim": "V3", "dataset": dataset, "metric": "NDCG@20", "statement": statement}
            table = tables.get(str(dataset), pd.DataFrame())
            mean = slope(apart(group, rival), table, trait)
            guards = {f"slope of the {claims.PERSONAL}": slope(of_gains(gain), table, trait)}
            gap = "a conventional model with BIGRec's seeds, and enough targets that differ in this"
            rows.append(claims.compared(keys, mean, gap, guards))
    return rows


def by_order(
    test: pd.DataFrame,
    valid: pd.DataFrame,
    items: dict[str, pd.DataFrame],
    examples: dict[str, pd.DataFrame],
    tables: dict[str, pd.DataFrame],
) -> pd.DataFrame:
    """The slopes of V3 on all targets, on those that are later than the last history item
    (untied), and on those with its very time (tied), where nobody knows which came first.

    test, valid: `scored` ranks; items, examples: `evidence.read_data`; tables: as for `v3`. Columns
    dataset, trait, targets (all, untied, tied), n, slope, low, high, p.
    """
    rows = []
    for dataset, _, group, validation in claims.per_dataset(test, valid):
        values = apart(group, evidence.preferred(validation, CONVENTIONAL))
        kinds = leaderboard.kinds(str(dataset), items, examples)
        if values is None or not len(kinds.get("tied", [])):
            continue
        numbers = values.columns.get_level_values("example")
        parts = {"all": numbers, "untied": kinds["untied"], "tied": kinds["tied"]}
        for trait, (targets, chosen) in product(CLAIMED, parts.items()):
            part = values.loc[:, numbers.isin(chosen)]
            mean = slope(part, tables[str(dataset)], trait) if part.size else None
            if mean:
                row = {"dataset": dataset, "trait": trait, "targets": targets, "n": mean.n}
                rows.append(row | as_columns(mean, "slope") | {"p": mean.p})
    return pd.DataFrame(rows, columns="dataset trait targets n slope low high p".split())


def bins(values: np.ndarray, trait: str) -> np.ndarray:
    """The bin of each value of a trait, 0, 1, …; equal values are in the same one."""
    edges = BINS.get(trait) or np.unique(np.quantile(values, [1 / 3, 2 / 3]))
    return np.searchsorted(np.asarray(edges, dtype=np.float64), values)


def binned(
    test: pd.DataFrame, valid: pd.DataFrame, tables: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """BIGRec − the conventional model that validation prefers, in bins of examples by trait.

    test, valid: `scored` ranks; tables: as for `v3`. Columns dataset, trait, bin, at (mean of the
    trait), n, share (of the examples), bigrec, rival (mean NDCG@20), difference with low, high and
    gap (`differences.ends`).
    """
    rows = []
    for dataset, _, group, validation in claims.per_dataset(test, valid):
        rival = evidence.preferred(validation, CONVENTIONAL)
        scores = claims.pair(group, "bigrec", rival)
        if scores is None or dataset not in tables:
            continue
        ours, theirs = (frame.to_numpy() for frame in scores)
        users = users_of(scores[0])
        table = tables[str(dataset)].loc[scores[0].columns.get_level_values("example")]
        for trait in table.columns[table.notna().all()]:
            labels = bins(table[trait].to_numpy(), trait)
            for number in np.unique(labels):
                mask = labels == number
                sides = ours[:, mask], theirs[:, mask]
                mean = mean_of(sides[0] - sides[1], users[mask])
                row = {"dataset": dataset, "trait": trait, "bin": int(number)}
                row |= {"at": table[trait][mask].mean(), "n": mean.n, "share": mask.mean()}
                row |= {"bigrec": sides[0].mean(), "rival": sides[1].mean()}
                row |= {"difference": mean.value}
                rows.append(row | differences.ends(mean, differences.gap(*sides)))
    columns = "dataset trait bin at n share bigrec rival difference low high gap".split()
    return pd.DataFrame(rows, columns=columns)


def points(
    test: pd.DataFrame, valid: pd.DataFrame, tables: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """A row a data set: the mean of each trait, and BIGRec − the preferred conventional model.

    Columns dataset, rival, seeds, n, difference, low, high, p, gap (`differences.ends`), corrected
    (p by `holm` over the data sets), and those of TRAITS.
    """
    rows = []
    for dataset, _, group, validation in claims.per_dataset(test, valid):
        rival = evidence.preferred(validation, CONVENTIONAL)
        scores = claims.pair(group, "bigrec", rival)
        if scores is None or dataset not in tables:
            continue
        ours, theirs = (table.to_numpy() for table in scores)
        mean = mean_of(ours - theirs, users_of(scores[0]))
        row = {"dataset": dataset, "rival": rival, "seeds": mean.seeds, "n": mean.n}
        row |= {"difference": mean.value} | differences.ends(mean, differences.gap(ours, theirs))
        rows.append(row | tables[str(dataset)].mean().to_dict())
    columns = "dataset rival seeds n difference low high p corrected gap".split()
    frame = pd.DataFrame(rows, columns=[*columns, *TRAITS])
    return frame.assign(corrected=significance.holm(frame.p.astype(float)))


def model(
    test: pd.DataFrame, valid: pd.DataFrame, gains: pd.DataFrame, tables: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """All traits at once: what one standard deviation more of each adds to the difference.

    Popularity is left out: the new targets are those without any, so "all else equal" would not do.
    gains: `personal_gains`. Columns dataset, trait, coefficient, low, high; personal, what the same
    adds to BIGRec's personal gain, with personal_low and personal_high; p, of a coefficient above
    zero the larger of the two (`rules.guarded`), as on new targets anything is ahead of a model
    that cannot rank them; corrected (by `holm` over all rows). Without a slope of the personal gain
    there is no row.
    """
    rows = []
    for dataset, _, group, validation, gain in claims.per_dataset(test, valid, gains):
        values = apart(group, evidence.preferred(validation, CONVENTIONAL))
        own = of_gains(gain)
        if values is None or own is None or dataset not in tables:
            continue
        table = tables[str(dataset)].drop(columns="popularity", errors="ignore")
        scaled = (table - table.mean()) / table.std().replace(0, 1)
        personal = coefficients(own, scaled)
        for trait, mean in coefficients(values, scaled).items():
            guard = personal.get(trait)
            if guard is None:
                continue
            row = {"dataset": dataset, "trait": trait} | as_columns(mean, "coefficient")
            rows.append(row | differences.guarded(mean, guard, "personal"))
    columns = "dataset trait coefficient low high personal personal_low personal_high p".split()
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(corrected=significance.holm(frame.p.astype(float)))


def ahead(name: str, row) -> str:
    """BIGRec against a method called `name`: "is **behind** Item kNN, by 0.0222 [0.0003, 0.0441]".

    row: difference, low, high, corrected and gap, of NDCG@20.
    """
    if row.gap:
        return f"cannot be compared with {name}: **{row.gap}** (difference {row.difference:+.4f})"
    interval = Interval(row.difference, row.low, row.high)
    relation = differences.word(interval, row.corrected, "ahead of", "behind", prose.APART)
    if relation == "behind":
        interval = Interval(-interval.mean, -interval.high, -interval.low)
    distance = f"by {interval}" if relation != prose.APART else prose.signed(interval)
    return f"is **{relation}** {name}, {distance}"


def sentences(
    datasets: pd.DataFrame, slopes: pd.DataFrame, bin_rows: pd.DataFrame, orders: pd.DataFrame
) -> list[str]:
    """What 18 shows, in words that corrected p-values choose: Markdown list items.

    datasets: `points`; slopes: `model`; bin_rows: `binned`; orders: `by_order`. Nothing is said of
    new targets where neither side hits one.
    """
    lines = []
    for row in datasets.itertuples():
        lines.append(
            f"- {row.dataset}: BIGRec {ahead(label(row.rival), row)} in NDCG@20; "
            f"{row.continuity:.0%} of a target's words are in the history, and {row.new:.0%} of "
            "the targets are new."
        )
    unhit = bin_rows[
        (bin_rows.trait == "new") & (bin_rows["bin"] == 1) & (bin_rows.gap == differences.NEITHER)
    ]
    for row in unhit.itertuples():
        lines.append(
            f"- {row.dataset}: on the {row.n} new targets neither BIGRec nor the other has a hit, "
            "so **nothing can be said** of them."
        )
    words = ("**gains** on", "**loses** on", "is not shown to gain or lose on")
    mask = ~((slopes.trait == "new") & slopes.dataset.isin(unhit.dataset))
    for trait, group in slopes[mask & slopes.trait.isin(CLAIMED)].groupby("trait", sort=False):
        answers: dict[str, list[str]] = {}
        for row in group.itertuples():
            interval = Interval(row.coefficient, row.low, row.high)
            word = differences.word(interval, row.corrected, *words)
            answers.setdefault(word, []).append(row.dataset)
        clauses = [f"{word} {', '.join(names)}" for word, names in answers.items()]
        lines.append(f"- All else equal, by {TRAITS[trait]}: BIGRec {'; '.join(clauses)}.")
    return lines + known_order(orders)


def known_order(orders: pd.DataFrame) -> list[str]:
    """What is left of slopes above zero on targets that are later than the history."""
    found = orders.set_index(["targets", "dataset", "trait"])
    lines = []
    for row in orders[(orders.targets == "all") & (orders.low > 0)].itertuples():
        if ("untied", row.dataset, row.trait) in found.index:
            left = found.loc[("untied", row.dataset, row.trait)]
            lines.append(
                f"- {row.dataset}, slope over {TRAITS[row.trait]}: "
                f"{Interval(row.slope, row.low, row.high)} on all targets, "
                f"**{Interval(left.slope, left.low, left.high)}** on the {left.n:,.0f} of "
                f"{row.n:,} that are known to come after the history."
            )
    return lines
