"""What cheaper ways to ground lose in quality and save in seconds (15)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bigrec_lib.findings import rules, significance
from bigrec_lib.findings.significance import LEVEL
from bigrec_lib.method import cheaper, metrics
from bigrec_lib.method.cheaper import Scored, Served

EXACT = "bigrec"
"""The way that the others are held against."""

IDENTICAL, SAME, OPEN = "identical", f"the same within ±{rules.SAME:.0%}", "not decided"


def quality(
    lists: dict[str, np.ndarray],
    recalls: dict[str, np.ndarray],
    targets: np.ndarray,
    users: np.ndarray,
    candidates: int,
) -> pd.DataFrame:
    """Each way's lists against the exact ones, EXACT among them, on the same examples.

    lists: way -> (n, k); recalls: way -> (n,), of those that ground the same texts; targets, users:
    (n,). Columns method, recall, ndcg, difference (to the exact way) with low and high, p
    (`p_same`), corrected (by `holm` over all ways) and verdict.
    """
    ndcg = {
        name: metrics.ndcg(
            metrics.effective_rank(cheaper.listed_ranks(shown, targets, candidates)), 20
        )
        for name, shown in lists.items()
    }
    rows = []
    for name, values in ndcg.items():
        apart = significance.interval(values - ndcg[EXACT], users)
        row = {"method": name, "recall": recalls[name].mean() if name in recalls else np.nan}
        row |= {"ndcg": values.mean(), "difference": apart.mean}
        row |= {"low": apart.low, "high": apart.high}
        same_lists = np.array_equal(lists[name], lists[EXACT])
        p = np.nan if same_lists else p_same(values, ndcg[EXACT], users)
        rows.append(row | {"p": p, "verdict": IDENTICAL if same_lists else ""})
    frame = pd.DataFrame(rows)
    frame.insert(7, "corrected", significance.holm(frame.p))
    return frame.assign(verdict=[row.verdict or verdict(row) for row in frame.itertuples()])


def p_same(values: np.ndarray, exact: np.ndarray, users: np.ndarray) -> float:
    """p-value of "the mean is within ±`rules.SAME` of the exact way's": two one-sided tests.

    values, exact: (n,) NDCG@20. 0 where no example differs; NaN where the exact way has no hit.
    """
    if not exact.any():
        return np.nan
    if np.array_equal(values, exact):
        return 0.0
    ratio = significance.ratio_of(np.stack([values - exact, exact])[:, None], users)
    return max(ratio.p_above(-rules.SAME), ratio.p_below(rules.SAME))


def verdict(row) -> str:
    """What a row of `quality` shows whose lists are not identical to the exact ones."""
    if row.p != row.p:
        return "missing: a hit of the exact way"
    if row.corrected < LEVEL:
        return SAME
    return significance.Interval(row.difference, row.low, row.high).verdict("better", "worse", OPEN)


def requests(
    served: dict[str, Served], embedding: np.ndarray, writing: dict[str, float]
) -> pd.DataFrame:
    """What each way takes for one request, in seconds, a row a way.

    embedding: (m,) seconds to embed the text of each of the first m requests; writing: way ->
    seconds to write a text. Columns method; embedded (share of requests whose text is); search_p50,
    search_p95 (without embedding); p50, p95 (with it, over the first m); writing, embedding and
    search, typical of a stage (`typical`); request, their sum; per_second (how many requests one
    process grounds at that pace).
    """
    rows = []
    for name, found in served.items():
        m = len(embedding)
        whole = found.seconds[:m] + found.embedded[:m] * embedding
        row = {"method": name, "embedded": found.embedded.mean()}
        for stage, seconds in {"search_": found.seconds, "": whole}.items():
            row |= {f"{stage}p50": np.median(seconds), f"{stage}p95": np.quantile(seconds, 0.95)}
        of_embedding = row["embedded"] * np.median(embedding)
        search = typical(found.seconds, found.embedded)
        row |= {"writing": writing[name], "embedding": of_embedding, "search": search}
        row |= {"request": writing[name] + of_embedding + search}
        rows.append(row | {"per_second": 1 / (of_embedding + search)})
    return pd.DataFrame(rows)


def typical(seconds: np.ndarray, embedded: np.ndarray) -> float:
    """The median of the requests whose text is embedded and that of the others, by their shares.

    Means would tell what else the machine did at the time.
    """
    kinds = (seconds[embedded], seconds[~embedded])
    return sum(np.median(kind) * len(kind) for kind in kinds if len(kind)) / len(seconds)


def stages(found: pd.DataFrame) -> pd.DataFrame:
    """Each stage's seconds of a request of the exact way and their share, the largest first.

    found: `requests`. Columns stage, seconds, share.
    """
    seconds = found.set_index("method").loc[EXACT, ["writing", "embedding", "search"]]
    frame = pd.DataFrame({"stage": seconds.index, "seconds": seconds.to_numpy(np.float64)})
    frame = frame.assign(share=frame.seconds / frame.seconds.sum())
    return frame.sort_values("seconds", ascending=False, ignore_index=True)


def costs(
    served: dict[str, Served],
    adding: dict[str, float],
    embedding: np.ndarray,
    rows_of_titles: float,
    candidates: int,
) -> pd.DataFrame:
    """What each way takes before the first request, and for one more title; a row a way.

    adding: way -> seconds, the new title's vector given; embedding: seconds an LLM takes for a
    text; rows_of_titles: seconds to work out the rows that all cascades share. Columns method,
    vectors (seconds to embed the catalogue, title by title), build (seconds, the vectors given), mb
    (10^6 bytes held), add (seconds, with embedding).
    """
    rows = []
    for name, found in served.items():
        vector = 0.0 if isinstance(found.way, Scored) else np.median(embedding)
        build = found.build + rows_of_titles * isinstance(found.way, cheaper.Cascade)
        row = {"method": name, "vectors": vector * candidates, "build": build}
        rows.append(row | {"mb": found.size / 1e6, "add": adding[name] + vector})
    return pd.DataFrame(rows)


def flat(frame: pd.DataFrame) -> dict[str, float]:
    """A table of seconds, a row a way, as names and numbers: 'bigrec, p50'."""
    return {
        f"{name}, {column}": round(float(value), 7)
        for name, row in frame.set_index("method").iterrows()
        for column, value in row.items()
    }
