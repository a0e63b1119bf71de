"""Whether the distance means what BIGRec needs (16): tables, the claim V1, and its sentences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.findings import claims, differences, evidence, prose, significance
from bigrec_lib.findings.claims import PERSONAL, compared, difference, per_dataset, personal
from bigrec_lib.findings.evidence import plain_runs
from bigrec_lib.findings.methods import label, minus
from bigrec_lib.findings.significance import Mean, crossed, mean_of, mean_of_rows, users_of
from bigrec_lib.method import geometry, metrics, variants

CHOSEN = "bigrec-corrected+"
"""The grounding that validation prefers, as 16a writes it."""
CHOSEN_UNSEEN = f"{CHOSEN}-unseen"
"""The same without the titles of the history."""

OWN, OTHERS = "distance to the own target", "distance to others' targets"
OUTCOME, LADDER = "outcome: ", "ladder: "
NAMES_TARGET, NAMES_SEEN = "names the target", "names a title of the history"
LIKELY, LIKELY_SUM, BEST_TITLE = "llm-likelihood", "llm-likelihood-sum", "bigrec-likeliest-title"
COMPARED = [CHOSEN, "bigrec", CHOSEN_UNSEEN, "bigrec-unseen"]
RANK, FOUND = "rank", "beam search found the likeliest title"
VALID, TEST, PREFERRED = "valid NDCG@20", "test NDCG@20", "preferred"
PUBLISHED = variants.PUBLISHED.name
WAYS = {
    LIKELY: "Every title by its likelihood per token",
    LIKELY_SUM: "Every title by its likelihood",
    BEST_TITLE: "The likeliest title, grounded",
    "bigrec": "BIGRec: the first beam, grounded",
}


# ----------------------------------------------------------------------------- rows of 16a


def ladder_rows(rungs: pd.DataFrame, ranks: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Values of the ladder: a title is the example. ranks: method -> ranks of the rungs' texts."""
    return pd.concat(
        pd.DataFrame(
            {
                "split": "titles",
                "what": LADDER + rungs.rung,
                "method": method,
                "example": rungs.title,
                "value": metrics.effective_rank(frame),
            }
        )
        for method, frame in ranks.items()
    )


def example_rows(numbers: np.ndarray, columns: dict[tuple[str, str], np.ndarray]) -> pd.DataFrame:
    """Values of test examples: (what, method) -> (n,)."""
    return pd.concat(
        pd.DataFrame(
            {
                "split": "test",
                "what": what,
                "method": method,
                "example": numbers,
                "value": np.asarray(column, float),
            }
        )
        for (what, method), column in columns.items()
    )


def measure_rows(measures: dict[str, pd.DataFrame], comparison: str = "") -> pd.DataFrame:
    """Measures of geometry: space -> `geometry.held_against`; null and p become measures too.

    comparison: what the space is compared with, put after the name of the measure.
    """
    frames = []
    for space, frame in measures.items():
        for suffix, column in {"": "value", ", null": "null", ", p": "p"}.items():
            names = frame.what + comparison + suffix
            frames.append(pd.DataFrame({"what": names, "method": space, "value": frame[column]}))
    return pd.concat(frames).dropna(subset="value")


# ------------------------------------------------------------------------------------ tables


def read_ladder(folder: Path) -> pd.DataFrame:
    """Rows of the ladder: `row_keys.KEYS`, method, rung, example (a title), value (its rank)."""
    rows = evidence.rows_of(folder, "values.parquet", evidence.VALUES, split="titles")
    return plain_runs(rows.assign(rung=rows.what.str.removeprefix(LADDER)))


def ladder(rows: pd.DataFrame) -> pd.DataFrame:
    """Where the true title stands for each rung: columns dataset, method, rung, titles, median
    (titles before it, over titles and seeds), first and twenty (shares of rank 0 and below 20)."""
    cells = rows.groupby(["dataset", "method", "rung"], sort=False)
    table = cells.agg(
        titles=("example", "nunique"),
        median=("value", "median"),
        first=("value", lambda rank: (rank == 0).mean()),
        twenty=("value", lambda rank: (rank < 20).mean()),
    ).reset_index()
    places = {rung: i for i, rung in enumerate(geometry.RUNGS)}
    table = table.assign(place=table.rung.map(places))
    table = table.sort_values(["dataset", "method", "place"], ignore_index=True)
    return table.drop(columns="place")


def outcomes(values: pd.DataFrame) -> pd.DataFrame:
    """Share of test examples with each outcome, with its interval: columns dataset, outcome, share,
    low, high, NaN where all have it or none. values: `evidence.read_values`.

    Then, of the examples with this outcome, the shares whose text names the target, and a title of
    the history: columns NAMES_TARGET, NAMES_SEEN; NaN without any, or where it was not measured.
    """
    rows = []
    values = plain_runs(values)
    example = ["dataset", "run", "example"]
    named = {
        what: values[values.what == what].set_index(example).value
        for what in (NAMES_TARGET, NAMES_SEEN)
    }
    outcome_rows = values[values.what.str.startswith(OUTCOME)]
    for (dataset, what), group in outcome_rows.groupby(["dataset", "what"], sort=False):
        mean = mean_of_rows(group, "value")
        ends = {"low": max(mean.interval.low, 0.0), "high": min(mean.interval.high, 1.0)}
        if mean.value in (0.0, 1.0):  # nothing varies
            ends = dict.fromkeys(ends, np.nan)
        row = {"dataset": dataset, "outcome": what.removeprefix(OUTCOME), "share": mean.value}
        these = group[group.value == 1].set_index(example).index
        row |= {what: names_one.reindex(these).mean() for what, names_one in named.items()}
        rows.append(row | ends)
    columns = ["dataset", "outcome", "share", "low", "high", NAMES_TARGET, NAMES_SEEN]
    return pd.DataFrame(rows, columns=columns)


def tried(measures: pd.DataFrame) -> pd.DataFrame:
    """Every variant of grounding, best on validation first: columns dataset, variant, seeds, valid,
    test (mean NDCG@20 over seeds), preferred (by how many seeds).

    Spaces are measured under every seed, other beams only in the best space of a seed; variants
    with fewer seeds come last.
    """
    rows = plain_runs(measures)
    rows = rows[rows.what.isin((VALID, TEST, PREFERRED))]
    wide = rows.pivot_table(
        index=["dataset", "method"], columns="what", values="value", aggfunc="mean", sort=False
    ).reindex(columns=[VALID, TEST])
    counts = rows[rows.what == VALID].groupby(["dataset", "method"]).seed.nunique()
    wins = rows[rows.what == PREFERRED].groupby(["dataset", "method"]).seed.nunique()
    table = pd.DataFrame(
        {
            "seeds": counts.reindex(wide.index),
            "valid": wide[VALID],
            "test": wide[TEST],
            "preferred": wins.reindex(wide.index, fill_value=0),
        }
    ).reset_index(names=["dataset", "variant"])
    order = ["dataset", "seeds", "valid"]
    return table.sort_values(order, ascending=[True, False, False], ignore_index=True)


def preferred(measures: pd.DataFrame, valid: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """What each seed's validation prefers, beside BIGRec's own: columns dataset, seed, variant,
    valid_hits (of CHOSEN among the first 20), and NDCG@20 on test of COMPARED.

    The history is in the ranking of the first two of COMPARED, and left out of the others'.
    measures: `evidence.read_measures`; valid, test: `evidence.read_scores`.
    """
    keys = ["dataset", "run", "seed"]
    best = plain_runs(measures[measures.what == PREFERRED])
    best = best[[*keys, "method"]].rename(columns={"method": "variant"})
    chosen = valid[valid.method == CHOSEN]
    hits = chosen.groupby(keys).hr.sum().astype(int).rename("valid_hits")
    compared = test[test.method.isin(COMPARED)]
    means = compared.pivot_table(index=keys, columns="method", values="ndcg", aggfunc="mean")
    means = means.reindex(columns=COMPARED)
    rows = best.merge(hits.reset_index(), on=keys).merge(means.reset_index(), on=keys)
    return rows.drop(columns="run")


def likelihoods(values: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The LLM's own ranking of all titles, beside BIGRec, on the examples that were ranked.

    values: `evidence.read_values`; scores: `evidence.read_scores`. Columns dataset, way, n, median
    (titles before the target), ndcg, difference (in NDCG@20 to BIGRec), low, high, p, gap
    (`differences.ends`; '' for BIGRec itself) and corrected (p by `holm` over all rows).
    """
    ranked = plain_runs(values[(values.what == RANK) & values.method.isin(WAYS)])
    ranked = ranked.rename(columns={"value": "rank"}).assign(ties=0).drop(columns="what")
    keys = ["dataset", "run", "example"]
    bigrec = plain_runs(scores[scores.method == "bigrec"])
    bigrec = bigrec.merge(ranked[keys].drop_duplicates(), on=keys)
    ranks = pd.concat([ranked, bigrec[list(ranked)]], ignore_index=True)
    ranks["place"] = metrics.effective_rank(ranks)
    ranks["ndcg"] = metrics.ndcg(ranks.place, 20)
    rows = []
    for dataset, group in ranks.groupby("dataset", sort=False):
        tables = crossed(group, "ndcg")
        for way in (name for name in WAYS if name in tables):
            ours, theirs = tables[way].to_numpy(), tables["bigrec"].to_numpy()
            mean = mean_of(ours - theirs, users_of(tables[way]))
            row = {"dataset": dataset, "way": WAYS[way], "n": mean.n}
            row |= {"median": group.place[group.method == way].median()}
            row |= {"ndcg": ours.mean(), "difference": mean.value}
            if way != "bigrec":
                row |= differences.ends(mean, differences.gap(ours, theirs))
            rows.append(row)
    columns = "dataset way n median ndcg difference low high p gap".split()
    frame = pd.DataFrame(rows, columns=columns).fillna({"gap": ""})
    return frame.assign(corrected=significance.holm(frame.p.astype(float)))


def share_found(values: pd.DataFrame) -> dict[str, float]:
    """Data set -> share of ranked examples whose first beam is the likeliest title of all."""
    rows = plain_runs(values[values.what == FOUND])
    return {str(name): float(group.value.mean()) for name, group in rows.groupby("dataset")}


def spaces(measures: pd.DataFrame) -> pd.DataFrame:
    """Geometry of the spaces that have a null: columns dataset, space, what, value, null, p.

    Means over seeds; of p, the largest.
    """
    rows = plain_runs(measures)
    wide = rows.assign(
        what=rows.what.str.replace(r", (null|p)$", "", regex=True),
        part=rows.what.str.extract(r", (null|p)$")[0].fillna("value"),
    )
    index = ["dataset", "method", "what"]
    means = wide.pivot_table(index=index, columns="part", values="value", sort=False)
    means = means.reindex(columns=["value", "null", "p"])
    largest = wide[wide.part == "p"].groupby(index).value.max()
    means["p"] = largest.reindex(means.index)
    table = means.dropna().reset_index().rename(columns={"method": "space"})
    table.columns.name = None
    return table


def points(measures: pd.DataFrame) -> pd.DataFrame:
    """Each space's geometry and NDCG@20: columns dataset, space, test, and one a measure."""
    rows = plain_runs(measures)
    rows = rows[rows.what.isin((TEST, *geometry.MEASURES))]
    wide = rows.pivot_table(index=["dataset", "method"], columns="what", values="value", sort=False)
    wide = wide.reindex(columns=[TEST, *geometry.MEASURES]).dropna().reset_index()
    wide.columns.name = None
    return wide.rename(columns={"method": "space", TEST: "test"})


def predicting(table: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of each measure with NDCG@20 over the spaces: dataset, what, rho, spaces.

    table: `points`. NaN where a measure, or NDCG@20, is the same in all.
    """
    rows = []
    for dataset, group in table.groupby("dataset", sort=False):
        ranks = group[["test", *geometry.MEASURES]].rank()
        for measure in geometry.MEASURES:
            varied = ranks[measure].nunique() > 1 and ranks.test.nunique() > 1
            rho = float(np.corrcoef(ranks[measure], ranks.test)[0, 1]) if varied else np.nan
            rows.append({"dataset": dataset, "what": measure, "rho": rho, "spaces": len(group)})
    return pd.DataFrame(rows, columns=["dataset", "what", "rho", "spaces"])


# ------------------------------------------------------------------------------------- claim V1


def v1(test: pd.DataFrame, gains: pd.DataFrame, values: pd.DataFrame) -> list[dict]:
    """V1 on every data set, by the rule of `rules`.

    test: `evidence.read_scores`; gains: `evidence.personal_gains`; values: `evidence.read_values`.
    """
    rows = []
    for dataset, _, group, gain, value in per_dataset(test, gains, values):
        keys = {"claim": "V1", "dataset": dataset}
        labels = {
            "statement": "distance to others' targets − to the own",
            "metric": "normalised L2",
        }
        guards = {PERSONAL: personal(gain)}
        rows.append(compared(keys | labels, nearer(value), "distances (alignment)", guards))
        labels = {"statement": minus(CHOSEN, "bigrec"), "metric": "NDCG@20"}
        guards = {PERSONAL: personal(gain, CHOSEN)}
        mean = difference(group, CHOSEN, "bigrec")
        rows.append(compared(keys | labels, mean, label(CHOSEN), guards))
    return rows


def nearer(values: pd.DataFrame) -> Mean | None:
    """How much nearer texts are to their own target than to others' targets; None without both."""
    distances = values[(values.method == "bigrec") & values.what.isin((OWN, OTHERS))]
    tables = crossed(distances, "value", by="what") if distances.what.nunique() == 2 else {}
    if not tables or not tables[OWN].size:
        return None
    return mean_of((tables[OTHERS] - tables[OWN]).to_numpy(), users_of(tables[OWN]))


# ------------------------------------------------------------------------------ what this shows


def sentences(
    rungs: pd.DataFrame, shares: pd.DataFrame, likely: pd.DataFrame, judged: pd.DataFrame,
    rho: pd.DataFrame,
) -> str:  # fmt: skip
    """What 16 shows, as a Markdown list, one line a question, all data sets in it.

    rungs: `ladder`; shares: `outcomes`; likely: `likelihoods`; judged: claims; rho: `predicting`.
    """
    lines = []
    changes = rungs[(rungs.method == "bigrec") & (rungs.rung != "random")]
    parts = [
        f"{dataset}: {row.rung} (in the median {row.median:,.0f} titles before it)"
        for dataset, group in changes.groupby("dataset", sort=False)
        for row in group.nlargest(1, "median").itertuples()
    ]
    lines.append(f"**The change that hides a title most**: {'; '.join(parts) or 'missing'}.")
    misses = shares[(shares.outcome != variants.OUTCOMES[0]) & (shares.share > 0)]
    parts = [
        f"{dataset}: {row.outcome} ({row.share:.0%}"
        + (f" [{row.low:.0%}, {row.high:.0%}]" if row.low == row.low else "")
        + (
            f"; of these texts {row[NAMES_TARGET]:.1%} name the target, "
            f"{row[NAMES_SEEN]:.0%} a title of the history)"
            if row[NAMES_SEEN] == row[NAMES_SEEN]
            else ")"
        )
        for dataset, group in misses.groupby("dataset", sort=False)
        for _, row in group.nlargest(1, "share").iterrows()
    ]
    text = "; ".join(parts) or "missing"
    lines.append(f"**The most frequent miss**, as a share of all examples: {text}.")
    parts = []
    for row in likely[likely.way == WAYS[LIKELY]].itertuples():
        interval = significance.Interval(row.difference, row.low, row.high)
        words = ("better than", "worse than", "not told apart from")
        word = differences.word(interval, row.corrected, *words)
        finding = row.gap or f"{word} BIGRec, {prose.signed(interval)}"
        parts.append(f"{row.dataset}: {finding} (n = {row.n})")
    lines.append(f"**The LLM's own ranking**: {'; '.join(parts) or 'missing'}.")
    parts = [
        f"{row.dataset}, {row.statement}: {row.verdict}"
        + (f", {row.estimate:+.4f} [{row.low:+.4f}, {row.high:+.4f}]" * (row.n == row.n))
        for row in judged.astype({"n": float}).itertuples()
    ]
    lines.append(f"**V1**: {'; '.join(parts)}.")
    parts = [
        f"{dataset}: {row.what} (rank correlation {row.rho:+.2f} over {row.spaces} spaces)"
        for dataset, group in rho.dropna().groupby("dataset", sort=False)
        for row in group.loc[[group.rho.abs().idxmax()]].itertuples()
    ]
    lines.append(
        f"**The geometry that goes with NDCG@20 most**, of {len(geometry.MEASURES)} measures: "
        f"{'; '.join(parts) or 'missing'}."
    )
    return "\n".join(f"- {line}" for line in lines)


def judge(rows: list[dict], rule_commit: str) -> pd.DataFrame:
    """Verdicts on V1, as 16 shows and publishes them."""
    return claims.judged(rows, "16_embedding_alignment#claims", rule_commit)
