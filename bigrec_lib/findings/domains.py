"""Where BIGRec gains and where it loses, over the traits of examples and of data sets (18)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.findings import claims, differences, evidence, significance
from bigrec_lib.findings.methods import CONVENTIONAL, label, minus
from bigrec_lib.findings.significance import Interval, Mean, crossed, mean_of, users_of
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

BINS = {"continuity": (0.0, 0.5), "new": (0.5,), "words": (2, 4)}
"""Upper edges of bins; other traits are cut into thirds."""


def traits(
    items: pd.DataFrame, examples: pd.DataFrame, generality: pd.Series | None = None
) -> pd.DataFrame:
    """Traits of each test example of one data set: example and the columns of TRAITS, as floats.

    items, examples: `evidence.read_data` of it; generality: by example, where it was measured; a
    trait that was not is left out.
    """
    titles = items.set_index("item").title
    histories, targets = examples.history.tolist(), examples.target.tolist()
    counts = items.groupby("title_group").train_count.sum()
    group = items.set_index("item").title_group[targets]
    seen = counts.reindex(group).to_numpy()
    found = {
        "example": examples.example.to_numpy(),
        "continuity": census.continuity(histories, targets, titles),
        "new": (seen == 0).astype(float),
        "popularity": np.log10(1 + seen),
        "words": np.array([float(len(census.words(titles[item]))) for item in targets]),
    }
    if generality is not None:
        found["generality"] = generality.reindex(examples.example).to_numpy()
    return pd.DataFrame(found)


def known(
    folder: Path, items: dict[str, pd.DataFrame], examples: dict[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Data set -> `traits` of its test examples, which are the index.

    folder: a study's results, where 16a has measured how general titles are.
    """
    measured = evidence.read_values(folder)
    general = measured[measured.what == GENERALITY]
    found = {}
    for dataset in [name for name in items if name in examples]:
        of_data = general[general.dataset == dataset].drop_duplicates("example")
        values = of_data.set_index("example").value if len(of_data) else None
        found[dataset] = traits(items[dataset], examples[dataset], values).set_index("example")
    return found


def pair(test: pd.DataFrame, rival: str) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """NDCG@20 of BIGRec and of a rival, seeds x examples (`crossed`); None without a pair."""
    if not {"bigrec", rival} <= set(test.method.unique()):
        return None
    tables = crossed(test[test.method.isin(("bigrec", rival))], "ndcg")
    return (tables["bigrec"], tables[rival]) if tables[rival].size else None


def apart(test: pd.DataFrame, rival: str) -> pd.DataFrame | None:
    """BIGRec − the rival, of `pair`; None without a pair."""
    both = pair(test, rival)
    return both[0] - both[1] if both else None


def coefficients(values: pd.DataFrame, known: pd.DataFrame) -> dict[str, Mean]:
    """Least squares of the values of examples on their traits, one Mean a trait.

    values: seeds x examples (`crossed`); known: index example, a column a trait. What a cell adds
    to a coefficient is its weight times what the fit leaves of it; so errors are of users and
    seeds, as everywhere. A trait that does not vary, or follows from those before it, is left out.
    """
    at = known.loc[values.columns.get_level_values("example")]
    names: list[str] = []
    x = np.ones((len(at), 1))  # (n, traits + 1)
    for name in at.columns[at.notna().all()]:
        more = np.column_stack([x, at[name].to_numpy(np.float64)])
        if np.linalg.matrix_rank(more) > x.shape[1]:
            names, x = [*names, name], more
    weights = np.linalg.pinv(x)  # (traits + 1, n)
    y = values.to_numpy()  # (S, n)
    fitted = weights @ y.mean(0)
    left = y - x @ fitted
    return {
        name: mean_of(fitted[n] + weights[n] * len(at) * left, users_of(values))
        for n, name in enumerate(names, start=1)
    }


def slope(values: pd.DataFrame | None, known: pd.DataFrame, trait: str) -> Mean | None:
    """The coefficient of one trait alone; None without values, or where the trait is the same."""
    if values is None or trait not in known:
        return None
    return coefficients(values, known[[trait]]).get(trait)


def of_gains(gain: pd.DataFrame) -> pd.DataFrame | None:
    """BIGRec's personal gains as seeds x examples; None without any."""
    own = gain[gain.method == "bigrec"]
    return None if own.empty else crossed(own, "gain")["bigrec"]


def v3(
    test: pd.DataFrame, valid: pd.DataFrame, gains: pd.DataFrame, known: dict[str, pd.DataFrame]
) -> list[dict]:
    """V3 on every data set. test, valid: `scored` ranks; gains: `personal_gains`.

    known: data set -> `traits`, with the example as index.
    """
    rows = []
    for dataset, _, group, before, gain in claims.per_dataset(test, valid, gains):
        rival = evidence.preferred(before, CONVENTIONAL)
        for trait in CLAIMED:
            what = f"{minus('bigrec', rival or 'conventional')}, slope over {TRAITS[trait]}"
            keys = {"claim": "V3", "dataset": dataset, "metric": "NDCG@20", "statement": what}
            at = known.get(str(dataset), pd.DataFrame())
            mean = slope(apart(group, rival), at, trait)
            guards = {f"slope of the {claims.PERSONAL}": slope(of_gains(gain), at, trait)}
            lacking = "a conventional model with BIGRec's seeds, and targets that differ in this"
            rows.append(claims.compared(keys, mean, lacking, guards))
    return rows


def bins(values: np.ndarray, trait: str) -> np.ndarray:
    """The bin of each value of a trait, 0, 1, …; equal values are in the same one."""
    edges = BINS.get(trait) or np.unique(np.quantile(values, [1 / 3, 2 / 3]))
    return np.searchsorted(np.asarray(edges, dtype=np.float64), values)


def binned(test: pd.DataFrame, valid: pd.DataFrame, known: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """BIGRec − the conventional model that validation prefers, on examples of like traits.

    test, valid: `scored` ranks; known: as for `v3`. Columns dataset, trait, bin, at (mean of the
    trait), n, share (of the examples), bigrec, rival (mean NDCG@20), difference with low, high and
    gap (`differences.ends`).
    """
    rows = []
    for dataset, _, group, before in claims.per_dataset(test, valid):
        rival = evidence.preferred(before, CONVENTIONAL)
        both = pair(group, rival)
        if both is None or dataset not in known:
            continue
        ours, theirs = (table.to_numpy() for table in both)
        users = users_of(both[0])
        at = known[str(dataset)].loc[both[0].columns.get_level_values("example")]
        for trait in at.columns[at.notna().all()]:
            of_bin = bins(at[trait].to_numpy(), trait)
            for number in np.unique(of_bin):
                there = of_bin == number
                pieces = ours[:, there], theirs[:, there]
                mean = mean_of(pieces[0] - pieces[1], users[there])
                row = {"dataset": dataset, "trait": trait, "bin": int(number)}
                row |= {"at": at[trait][there].mean(), "n": mean.n, "share": there.mean()}
                row |= {"bigrec": pieces[0].mean(), "rival": pieces[1].mean()}
                row |= {"difference": mean.value}
                rows.append(row | differences.ends(mean, differences.gap(*pieces)))
    columns = "dataset trait bin at n share bigrec rival difference low high gap".split()
    return pd.DataFrame(rows, columns=columns)


def points(test: pd.DataFrame, valid: pd.DataFrame, known: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row a data set: the mean of each trait, and BIGRec − the preferred conventional model.

    Columns dataset, rival, seeds, n, difference, low, high, p, gap (`differences.ends`), corrected
    (p by `holm` over the data sets), and those of TRAITS.
    """
    rows = []
    for dataset, _, group, before in claims.per_dataset(test, valid):
        rival = evidence.preferred(before, CONVENTIONAL)
        both = pair(group, rival)
        if both is None or dataset not in known:
            continue
        ours, theirs = (table.to_numpy() for table in both)
        mean = mean_of(ours - theirs, users_of(both[0]))
        row = {"dataset": dataset, "rival": rival, "seeds": mean.seeds, "n": mean.n}
        row |= {"difference": mean.value} | differences.ends(mean, differences.gap(ours, theirs))
        rows.append(row | known[str(dataset)].mean().to_dict())
    columns = "dataset rival seeds n difference low high p corrected gap".split()
    frame = pd.DataFrame(rows, columns=[*columns, *TRAITS])
    return frame.assign(corrected=significance.holm(frame.p.astype(float)))


def model(test: pd.DataFrame, valid: pd.DataFrame, known: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """All traits at once: what one standard deviation more of each adds to the difference.

    Columns dataset, trait, coefficient, low, high, p and corrected (by `holm` over all rows).
    """
    rows = []
    for dataset, _, group, before in claims.per_dataset(test, valid):
        values = apart(group, evidence.preferred(before, CONVENTIONAL))
        if values is None or dataset not in known:
            continue
        at = known[str(dataset)]
        scaled = (at - at.mean()) / at.std().replace(0, 1)
        for trait, mean in coefficients(values, scaled).items():
            row = {"dataset": dataset, "trait": trait, "coefficient": mean.value}
            rows.append(row | {"low": mean.interval.low, "high": mean.interval.high, "p": mean.p})
    frame = pd.DataFrame(rows, columns="dataset trait coefficient low high p".split())
    return frame.assign(corrected=significance.holm(frame.p.astype(float)))


def sentences(points: pd.DataFrame, model: pd.DataFrame, bins: pd.DataFrame) -> list[str]:
    """What 18 shows, in words that corrected p-values choose: Markdown list items.

    bins: `binned`. Nothing is said of new targets where neither side hits one.
    """
    lines = []
    for row in points.itertuples():
        lines.append(
            f"- {row.dataset}: BIGRec {differences.ahead(label(row.rival), row)} in NDCG@20; "
            f"{row.continuity:.0%} of a target's words are in the history, and {row.new:.0%} of "
            "the targets are new."
        )
    unhit = bins[(bins.trait == "new") & (bins["bin"] == 1) & (bins.gap == differences.NEITHER)]
    for row in unhit.itertuples():
        lines.append(
            f"- {row.dataset}: on the {row.n} new targets neither BIGRec nor the other has a hit, "
            "so **nothing can be said** of them."
        )
    words = ("**gains** on", "**loses** on", "is not shown to gain or lose on")
    told = ~((model.trait == "new") & model.dataset.isin(unhit.dataset))
    for trait, group in model[told & model.trait.isin(CLAIMED)].groupby("trait", sort=False):
        said: dict[str, list[str]] = {}
        for row in group.itertuples():
            slope_of = Interval(row.coefficient, row.low, row.high)
            word = differences.word(slope_of, row.corrected, *words)
            said.setdefault(word, []).append(row.dataset)
        parts = [f"{word} {', '.join(names)}" for word, names in said.items()]
        lines.append(f"- All else equal, by {TRAITS[trait]}: BIGRec {'; '.join(parts)}.")
    return lines
