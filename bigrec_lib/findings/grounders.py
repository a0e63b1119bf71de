"""What cheaper ways to ground lose in quality and save in seconds: one run (15a), all runs (15)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.findings import claims, differences, evidence, rules, significance
from bigrec_lib.findings.methods import CHEAPER, label
from bigrec_lib.findings.significance import LEVEL
from bigrec_lib.method import cheaper, metrics
from bigrec_lib.method.cheaper import Scored, Served
from bigrec_lib.study import manifests

EXACT = "bigrec"
"""The way that the others are held against."""

CONSTRAINED = "bigrec-constrained"
"""The way that writes other texts, inside a tree of all titles."""
SILENT = "bigrec-l2d"  # writes no text

IDENTICAL, SAME, OPEN = "identical lists", f"the same within ±{rules.SAME:.0%}", "not decided"


def quality(
    lists: dict[str, np.ndarray],
    recalls: dict[str, np.ndarray],
    targets: np.ndarray,
    users: np.ndarray,
    candidates: int,
) -> pd.DataFrame:
    """Each way's lists against the exact ones, on the same examples; EXACT is among the ways.

    lists: way -> (n, k); recalls: way -> (n,), of ways that ground the same texts; targets, users:
    (n,). Columns method, recall, ndcg, difference (to the exact way) with low and high, p
    (`p_same`) and corrected, p_apart (of a difference), both by `holm` over all ways, and verdict,
    or its `differences.gap`.
    """
    ndcg = {
        name: metrics.ndcg(
            metrics.effective_rank(cheaper.listed_ranks(ranking, targets, candidates)), 20
        )
        for name, ranking in lists.items()
    }
    rows = []
    for name, values in ndcg.items():
        mean = significance.mean_of((values - ndcg[EXACT])[None], users)
        gap = differences.gap(values, ndcg[EXACT])
        row = {"method": name, "recall": recalls[name].mean() if name in recalls else np.nan}
        row |= {"ndcg": values.mean(), "difference": mean.value} | differences.ends(mean, gap)
        row["p_apart"] = row["p"]
        row["p"] = np.nan if gap else p_same(values, ndcg[EXACT], users)
        same_lists = np.array_equal(lists[name], lists[EXACT])
        rows.append(row | {"verdict": IDENTICAL if same_lists else row.pop("gap")})
    columns = "method recall ndcg difference low high p p_apart verdict".split()
    frame = pd.DataFrame(rows, columns=columns)
    frame.insert(7, "corrected", significance.holm(frame.p))
    frame["p_apart"] = significance.holm(frame.p_apart)
    return frame.assign(verdict=[row.verdict or verdict(row) for row in frame.itertuples()])


def p_same(values: np.ndarray, exact: np.ndarray, users: np.ndarray) -> float:
    """p-value of "the mean is within ±`rules.SAME` of the exact way's": two one-sided tests.

    values, exact: (n,) NDCG@20, which differ (`differences.gap`).
    """
    ratio = significance.ratio_of(np.stack([values - exact, exact])[:, None], users)
    return max(ratio.p_above(-rules.SAME), ratio.p_below(rules.SAME))


def verdict(row) -> str:
    """What a row of `quality` with an interval shows."""
    if row.corrected < LEVEL:
        return SAME
    interval = significance.Interval(row.difference, row.low, row.high)
    return differences.word(interval, row.p_apart, "better", "worse", OPEN)


def requests(served: dict[str, Served], embedding: dict[str, np.ndarray]) -> pd.DataFrame:
    """What each way takes to ground the text of one request, in seconds, a row a way.

    embedding: way -> (m,) seconds to embed the text of each of the first m requests. Columns
    method; embedded (share of requests whose text is); search_p50, search_p95 (without embedding);
    p50, p95 (with it, over the first m); embedding and search, typical of a stage (`typical`);
    grounding, their sum; per_second (how many requests one process grounds at that pace).
    """
    rows = []
    for name, record in served.items():
        m = len(embedding[name])
        totals = record.seconds[:m] + record.embedded[:m] * embedding[name]
        row = {"method": name, "embedded": record.embedded.mean()}
        for stage, seconds in {"search_": record.seconds, "": totals}.items():
            row |= {f"{stage}p50": np.median(seconds), f"{stage}p95": np.quantile(seconds, 0.95)}
        embed_seconds = row["embedded"] * np.median(embedding[name])
        search = typical(record.seconds, record.embedded)
        grounding = embed_seconds + search
        row |= {"embedding": embed_seconds, "search": search, "grounding": grounding}
        rows.append(row | {"per_second": 1 / grounding})
    return pd.DataFrame(rows)


def typical(seconds: np.ndarray, embedded: np.ndarray) -> float:
    """The median of the requests whose text is embedded and that of the others, by their shares.

    A mean would also measure what else the machine did at the time.
    """
    kinds = (seconds[embedded], seconds[~embedded])
    return sum(np.median(kind) * len(kind) for kind in kinds if len(kind)) / len(seconds)


def costs(
    served: dict[str, Served],
    adding: dict[str, float],
    embedding: dict[str, np.ndarray],
    rows_of_titles: float,
    candidates: int,
) -> pd.DataFrame:
    """What each way takes before the first request, and for one more title; a row a way.

    adding: way -> seconds, the new title's vector given; embedding: way -> seconds of some texts'
    vectors; rows_of_titles: seconds to work out the rows that all cascades share. Columns method,
    vectors (seconds to embed the catalogue, title by title), build (seconds, the vectors given), mb
    (10^6 bytes held), add (seconds, with embedding).
    """
    rows = []
    for name, record in served.items():
        vector = 0.0 if isinstance(record.way, Scored) else np.median(embedding[name])
        build = record.build + rows_of_titles * isinstance(record.way, cheaper.Cascade)
        row = {"method": name, "vectors": vector * candidates, "build": build}
        rows.append(row | {"mb": record.size / 1e6, "add": adding[name] + vector})
    return pd.DataFrame(rows)


def measured(
    served: dict[str, Served], recalls: dict[str, np.ndarray], growth: pd.DataFrame
) -> pd.DataFrame:
    """What is counted of the ways, not timed: columns what, method, value (`write_measures`).

    growth: `cheaper.growing`.
    """
    rows = [("recall", name, values.mean()) for name, values in recalls.items()]
    for name, record in served.items():
        rows += [("embedded", name, record.embedded.mean()), ("bytes", name, record.size)]
    points = growth[growth.p50.notna()]
    for row in points.itertuples():
        size = f"of {row.items:,} titles"
        rows += [
            (f"recall {size}", row.method, row.recall),
            (f"bytes {size}", row.method, row.size),
        ]
    return pd.DataFrame(rows, columns=["what", "method", "value"])


def timed(seconds: pd.DataFrame, setup: pd.DataFrame, growth: pd.DataFrame) -> dict[str, float]:
    """Seconds of `requests`, `costs` and `cheaper.growing` by name, such as 'bigrec, p50'."""
    times: dict[str, float] = {}
    for frame in (seconds.drop(columns=["embedded", "per_second"]), setup.drop(columns="mb")):
        for name, row in frame.set_index("method").iterrows():
            times |= {f"{name}, {column}": round(float(v), 7) for column, v in row.items()}
    points = growth[growth.p50.notna()]
    for row in points.itertuples():
        size = f"of {row.items:,} titles"
        times |= {f"{row.method}, search_p50 {size}": round(row.p50, 7)}
        times |= {f"{row.method}, search_p95 {size}": round(row.p95, 7)}
        times |= {f"{row.method}, build {size}": round(row.build, 7)}
    return times


# --------------------------------------------------------------------------- over all runs

JOB = "15a_measure_grounders"


def variants(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of main runs, the ways of 15a among them; constrained decoding as one more way.

    rows: with the columns of `row_keys.KEYS` and method, such as ranks.
    """
    sizes = evidence.main_sizes(rows)
    ways = evidence.variants(rows[rows.method.isin((EXACT, *CHEAPER)) | rows.constrained], sizes)
    ways = ways[ways.method.isin((EXACT, *CHEAPER, CONSTRAINED))]
    return ways.assign(method=ways.method.cat.remove_unused_categories())


def published_seconds(folder: Path) -> pd.DataFrame:
    """What 15a timed: columns dataset, n_train, seed, method, what, seconds."""
    rows = [
        {name: job["keys"][name] for name in ("dataset", "n_train", "seed")}
        | dict(zip(("method", "what"), name.split(", ", 1), strict=True))
        | {"seconds": value}
        for job in manifests.published_jobs(folder, JOB)
        for name, value in job["seconds_of"].items()
    ]
    columns = "dataset n_train seed method what seconds".split()
    return pd.DataFrame(rows, columns=columns)


def over_runs(test: pd.DataFrame, seconds: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """Every way against the exact one, over the seeds of a study: a row a data set and way.

    test: `variants` of scored ranks; seconds: `published_seconds`; measures: `read_measures`.
    Columns dataset, method, seeds, n, recall, embedded, ndcg, difference with low, high and gap
    (`differences.ends`), identical_ranks (of targets among the first 20; further ones count alike),
    grounding (seconds of embedding and search, median of the seeds) and ratio (to the exact way's
    under the same seed, median).
    """
    rows = []
    test = test.assign(place=np.minimum(metrics.effective_rank(test), 20))
    of_seeds = seconds[seconds.what.isin(("embedding", "search"))].pivot_table(
        "seconds", ["dataset", "n_train", "seed"], "method", aggfunc="sum"
    )
    of_seeds = of_seeds.reindex(columns=list(dict.fromkeys([EXACT, *test.method])))
    timings = {"grounding": of_seeds, "ratio": of_seeds.div(of_seeds[EXACT], axis=0)}
    timings = {name: frame.groupby("dataset").median() for name, frame in timings.items()}
    for (dataset, method), group in test.groupby(["dataset", "method"], sort=False):
        pair = test[(test.dataset == dataset) & test.method.isin((method, EXACT))]
        tables = {name: significance.crossed(pair, name) for name in ("ndcg", "place")}
        difference = tables["ndcg"][method] - tables["ndcg"][EXACT]
        if not difference.size:
            continue
        users = significance.users_of(difference)
        row = {"dataset": dataset, "method": method}
        mean = significance.mean_of(difference.to_numpy(), users)
        row |= {"seeds": mean.seeds, "n": mean.n, "difference": mean.value}
        values = (tables["ndcg"][name].to_numpy() for name in (method, EXACT))
        row |= differences.ends(mean, differences.gap(*values))
        row |= {"ndcg": group.ndcg.mean()}
        row["identical_ranks"] = tables["place"][method].equals(tables["place"][EXACT])
        counts = measures[(measures.dataset == dataset) & (measures.method == method)]
        row |= {what: counts.value[counts.what == what].mean() for what in ("recall", "embedded")}
        row |= {name: frame[method].get(dataset, np.nan) for name, frame in timings.items()}
        rows.append(row)
    columns = "dataset method seeds n recall embedded ndcg difference low high gap".split()
    return pd.DataFrame(rows, columns=[*columns, "identical_ranks", "grounding", "ratio"])


def written(table: pd.DataFrame, request_costs: pd.DataFrame) -> pd.DataFrame:
    """`over_runs` with writing and request, its sum with grounding: seconds of requests one by one
    as 17a timed them, NaN where it did not.

    request_costs: `costs.published`.
    """
    rows = request_costs[request_costs.lm == ""].reindex(columns=["dataset", "method", "writing"])
    lookup = rows.set_index(["dataset", "method"]).writing
    methods = table.method.where(table.method == CONSTRAINED, EXACT)
    writing = lookup.reindex(pd.MultiIndex.from_arrays([table.dataset, methods])).to_numpy()
    writing = np.where(table.method == SILENT, 0.0, writing)
    return table.assign(writing=writing, request=writing + table.grounding)


def half(table: pd.DataFrame) -> dict[str, list[str]]:
    """Data set -> the ways that take at most half the exact way's time to ground, writing aside.

    table: `over_runs`. Ways with identical ranks, which lose nothing, are not among them.
    """
    quick = table[(table.ratio <= 0.5) & ~table.identical_ranks]
    return {str(dataset): rows.method.tolist() for dataset, rows in quick.groupby("dataset")}


def q3(test: pd.DataFrame, gains: pd.DataFrame, table: pd.DataFrame) -> list[dict]:
    """Q3 on every data set. test, gains: `variants` of scored ranks and of `personal_gains`."""
    rows = []
    ways = half(table)
    for dataset in test.dataset.unique():
        keys = {"claim": "Q3", "dataset": dataset, "metric": "NDCG@20"}
        if not ways.get(dataset):
            head = keys | {"statement": "a cheaper way / the exact way − 1"}
            rows.append(claims.missing(head, "ways in half the time (`cheaper` in the study file)"))
        group, gain = (frame[frame.dataset == dataset] for frame in (test, gains))
        for method in ways.get(dataset, []):
            head = keys | {"statement": f"{label(method)} / the exact way − 1"}
            mean = claims.relative(group, method, EXACT)
            guards = {claims.PERSONAL: claims.personal(gain, method)}
            rows.append(claims.compared(head, mean, "a hit of the exact way", guards, "no worse"))
    return rows


def sentences(table: pd.DataFrame, decided: pd.DataFrame, largest: pd.DataFrame) -> list[str]:
    """What 15 shows, as Markdown list items, data set after data set.

    table: `written`; decided: claims of `q3`; largest: columns dataset, method, items, seconds of
    a search among as many invented titles.
    """
    lines = []
    for dataset, group in table.groupby("dataset", sort=False):
        ways = group.set_index("method")
        timed = bool(ways.writing[EXACT] > 0)
        if timed:
            share = ways.writing[EXACT] / ways.request[EXACT]
            stage = "writing the text" if share > 0.5 else "grounding it"
            lines.append(
                f"- {dataset}: a request takes {ways.request[EXACT]:.3f} s, and **{stage} "
                f"dominates**: writing is {share:.1%} of it, so that a cheaper way to ground the "
                f"same text saves {1 - share:.1%} at most."
            )
        else:
            lines.append(
                f"- {dataset}: to ground a text takes {ways.grounding[EXACT]:.3f} s; missing: "
                "writing it (`cost` in the study file)."
            )
        lossless = group[group.identical_ranks & (group.method != EXACT)]
        for row in lossless.itertuples():
            lines.append(
                f"- {dataset}: **{label(row.method)} loses nothing**: all ranks are identical, and "
                f"{1 - row.embedded:.1%} of the texts need no embedding."
            )
        verdicts = decided[(decided.dataset == dataset) & (decided.verdict != rules.MISSING)]
        supported = verdicts[verdicts.verdict == rules.SUPPORTED]
        names = ", ".join(supported.statement.str.removesuffix(" / the exact way − 1"))
        lines.append(
            f"- {dataset}: of {len(verdicts)} ways in half the time or less, writing aside, "
            f"{len(supported)} "
            + (
                f"are shown to be no worse within {rules.SAME:.0%}: **{names}**."
                if names
                else f"**are shown to be no worse** within {rules.SAME:.0%}."
            )
        )
        if SILENT in ways.index:
            lines.append(
                f"- {dataset}: {label(SILENT)} **writes no text**, and takes "
                f"{ways.request[SILENT]:.3f} s in all; Q3, which leaves writing aside, does not "
                "judge what that saves."
            )
        if timed and ways.writing.get(CONSTRAINED, np.nan) > 0:
            lines.append(
                f"- {dataset}: {label(CONSTRAINED)} takes {ways.writing[CONSTRAINED]:.3f} s to "
                f"write, free decoding {ways.writing[EXACT]:.3f} s; grounded, "
                f"{ways.request[CONSTRAINED]:.3f} and {ways.request[EXACT]:.3f} s."
            )
        exact = largest[(largest.dataset == dataset) & (largest.method == EXACT)]
        for row in exact.itertuples():
            lines.append(
                f"- {dataset}: among {row.items:,} titles the exact search takes "
                f"{row.seconds * 1000:.1f} ms"
                + f", {row.seconds / ways.request[EXACT]:.1%} of a request" * timed
                + "."
            )
    return lines


def searches(seconds: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """Searches among invented titles: columns dataset, method, items, seconds (p50), recall."""
    rows = []
    pattern = re.compile(r"search_p50 of ([\d,]+) titles")
    for row in seconds.itertuples():
        if size := pattern.fullmatch(row.what):
            mask = (measures.dataset == row.dataset) & (measures.method == row.method)
            recalls = measures[mask & (measures.what == f"recall of {size[1]} titles")]
            rows.append(
                {"dataset": row.dataset, "method": row.method, "seconds": row.seconds}
                | {"items": int(size[1].replace(",", "")), "recall": recalls.value.mean()}
            )
    return pd.DataFrame(rows, columns="dataset method items seconds recall".split())
