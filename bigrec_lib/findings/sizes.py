"""What a larger LLM buys (12): BIGRec by several LLMs on the same samples, seeds and examples."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.findings import (
    alts,
    differences,
    evidence,
    leaderboard,
    prose,
    rules,
    significance,
    training_sizes,
)
from bigrec_lib.findings.significance import Interval, Mean, as_columns, mean_of, mean_of_rows
from bigrec_lib.method import metrics
from bigrec_lib.study import manifests
from bigrec_lib.study.row_keys import KEYS, OWN

PAPERS = 7e9  # parameters of the paper's LLM, LLaMA-7B
KEY = ["dataset", "lm", "tuned"]
OTHER_SEED = "itself, another seed"  # what an LLM is compared with besides others


def spoken(rows: pd.DataFrame, sizes: dict[str, int]) -> pd.DataFrame:
    """Rows of BIGRec by every LLM, untuned and tuned at the main size, with a column tuned.

    rows: with the columns of `row_keys.KEYS` and method, such as ranks; sizes: data set -> main
    size. In the column lm the study's own LLM is called OWN.
    """
    mask = (rows.method == "bigrec") & (rows.setting == "") & (rows.tuned_on == "")
    mask &= ~rows.constrained & (rows.embedded_by == "") & (rows.worded == "")
    mask &= (rows.n_train == 0) | (rows.n_train == rows.dataset.map(sizes))
    frame = rows[mask & ~evidence.on_all_samples(rows)]
    return frame.assign(lm=frame.lm.replace("", OWN), tuned=frame.n_train > 0)


def shared(rows: pd.DataFrame) -> pd.DataFrame:
    """`spoken` rows on the seeds and examples that all LLMs of a data set have; where they have
    none in common, as they are. Tuned LLMs and those as they are each for themselves."""
    parts = [rows.head(0)]
    for _, group in rows.groupby(["dataset", "tuned"], sort=False):
        llms = group.groupby(["seed", "example"]).lm.nunique()
        common = llms.index[llms == group.lm.nunique()]
        cells = pd.MultiIndex.from_frame(group[["seed", "example"]])
        parts.append(group[cells.isin(common)] if len(common) else group)
    return pd.concat(parts)


def language_facts(folder: Path, sizes: dict[str, int]) -> pd.DataFrame:
    """What jobs recorded of every LLM, mean of seeds, a row a data set, LLM and tuned or not.

    Columns dataset, lm, tuned, model, parameters (NaN if the study did not count them), real (share
    of first beams that are titles, test examples), seconds to tune on one sample once and to write
    for one example, and the most memory either took, in GB; these are NaN where a data set's jobs
    ran on several kinds of machines.
    """
    rows = []
    for job in manifests.published_jobs(folder, "03_generate_titles"):
        facts = job["facts"]
        rows.append(
            KEYS
            | job["keys"]
            | {"model": job["parameters"]["model"], "real": facts["first_beams"]["test"]["real"]}
            | {"parameters": facts.get("parameters", np.nan), "writing_gb": job["peak_gb"]}
            | {"seconds_an_example": seconds_an_example(job), "host": job["host"]}
        )
    for job in manifests.published_jobs(folder, "02_tune_llm"):
        settings = job["parameters"]
        passes = settings["n_train"] * settings["epochs"] * (1 + len(settings["also"]))
        seconds = evidence.tuning_seconds(job)
        rows.append(
            KEYS
            | job["keys"]
            | {"seconds_a_sample": seconds / passes, "host": job["host"]}
            | {"tuning_gb": job["peak_gb"]}
        )
    columns = [*KEYS, "model", "parameters", "real", "seconds_a_sample", "seconds_an_example"]
    frame = pd.DataFrame(rows, columns=[*columns, "tuning_gb", "writing_gb", "host"])
    frame = spoken(frame.assign(method="bigrec"), sizes)
    mixed = frame.groupby("dataset").host.transform("nunique") > 1
    frame.loc[mixed, ["seconds_a_sample", "seconds_an_example", "tuning_gb", "writing_gb"]] = np.nan
    groups = frame.groupby(KEY, sort=False)
    numbers = groups[columns[-3:] + ["parameters", "tuning_gb", "writing_gb"]].mean()
    return numbers.assign(model=groups.model.first()).reset_index()


def seconds_an_example(writing: dict) -> float:
    """Seconds that 03 took per example, in batches, loading the model and drawing figures included.

    writing: its manifest.
    """
    beams = writing["facts"]["first_beams"].values()
    return writing["seconds"] / sum(facts["generations"] for facts in beams)


def table(
    ranks: pd.DataFrame, lists: pd.DataFrame, gains: pd.DataFrame, facts: pd.DataFrame
) -> pd.DataFrame:
    """A row a data set, LLM and tuned or not, the smallest LLM first.

    ranks, lists: `shared`; gains: `evidence.personal_gains` of those lists; facts:
    `language_facts`. Columns of facts; seeds, n; ndcg with low and high, hr, gain with gain_low and
    gain_high (personal gain); distinct, most_frequent (first titles, mean of seeds).
    """
    firsts = leaderboard.variety(lists.assign(samples=lists.tuned, method=lists.lm))
    firsts = firsts.rename(columns={"samples": "tuned", "method": "lm"})
    rows = []
    for keys, group in ranks.groupby(KEY, sort=False):
        mean = mean_of_rows(group, "ndcg")
        row = dict(zip(KEY, keys, strict=True)) | {"seeds": mean.seeds, "n": mean.n}
        row |= as_columns(mean, "ndcg") | {"hr": group.hr.mean()}
        llm_gains = gains[(gains[KEY] == keys).all(axis=1)]
        if len(llm_gains):
            row |= as_columns(mean_of_rows(llm_gains, "gain"), "gain", "gain_")
        rows.append(row)
    columns = [*KEY, *"seeds n ndcg low high hr gain gain_low gain_high".split()]
    frame = pd.DataFrame(rows, columns=columns)
    frame = frame.merge(firsts, "left", on=KEY).merge(facts, "left", on=KEY)
    order = ["dataset", "tuned", "parameters"]
    return frame.sort_values(order, kind="stable", ignore_index=True)


def trends(ranks: pd.DataFrame, facts: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """NDCG@20 as a straight line over log10(parameters): a row a data set, and tuned or not.

    ranks: `spoken`, facts: `language_facts`, gains: `evidence.personal_gains`. On the seeds and
    examples that all LLMs have. Columns dataset, tuned, llms, seeds, n; slope (per tenfold
    parameters) with slope_low, slope_high and slope_p; gain_slope with gain_slope_low and
    gain_slope_high, of the personal gain; p, of a slope above zero the larger of the two
    (`rules.guarded`), as an LLM may rank better for everybody alike; corrected (by `holm` over all
    rows); smallest, start: fitted NDCG@20 of the smallest LLM; far with far_low, far_high: that
    of a model of far_at parameters (PAPERS), if the line went on. Intervals are of examples and
    seeds: that LLMs differ in more than size is in none of them.
    """
    rows = []
    for (dataset, tuned), group in ranks.groupby(["dataset", "tuned"], sort=False):
        parameters = (
            facts[(facts.dataset == dataset) & (facts.tuned == tuned)].set_index("lm").parameters
        )
        parameters = parameters[parameters.notna() & parameters.index.isin(group.lm)].sort_values()
        if parameters.nunique() < 2:
            continue
        fits = fitted(group, "ndcg", parameters)
        if not fits:
            continue
        slope, start, far = fits
        own_gains = gains[(gains.dataset == dataset) & (gains.tuned == tuned)]
        of_gains = fitted(own_gains, "gain", parameters)
        row = {"dataset": dataset, "tuned": tuned, "llms": len(parameters), "seeds": slope.seeds}
        row |= {"n": slope.n, "slope_p": slope.p} | as_columns(slope, "slope", "slope_")
        row |= differences.guarded(slope, of_gains[0] if of_gains else None, "gain_slope")
        row |= {"smallest": parameters.iloc[0], "start": start.value, "far_at": PAPERS}
        rows.append(row | as_columns(far, "far", "far_"))
    columns = (
        "dataset tuned llms seeds n slope slope_low slope_high slope_p gain_slope gain_slope_low "
        "gain_slope_high p corrected smallest start far far_low far_high far_at"
    ).split()
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(corrected=significance.holm(frame.p.astype(float)))


def fitted(rows: pd.DataFrame, value: str, parameters: pd.Series) -> list[Mean]:
    """`line` over log10(parameters) of LLMs' values: its slope, its height at the smallest LLM and
    at PAPERS; [] where LLMs have no seed and examples in common.

    rows: columns as for `significance.crossed`, with lm; parameters: LLM -> parameters.
    """
    rows = rows[rows.lm.isin(parameters.index)]
    if rows.lm.nunique() < len(parameters):
        return []
    cells = significance.crossed(rows, value, by="lm")
    values = np.stack([cells[name].to_numpy() for name in parameters.index])  # (LLMs, S, n)
    if not values.size:
        return []
    users = significance.users_of(cells[parameters.index[0]])
    lines = line(np.log10(parameters.to_numpy()), np.log10(PAPERS))
    return [mean_of(np.tensordot(weights, values, 1), users) for weights in lines]


def line(x: np.ndarray, far: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (m,) of values at x (m,) that give the slope of their least-squares line, and its
    height at the smallest x and at `far`."""
    slope, mean = training_sizes.slope_weights(x), np.full(len(x), 1 / len(x))
    return slope, mean + (x.min() - x.mean()) * slope, mean + (far - x.mean()) * slope


def agreement(ranks: pd.DataFrame, lists: pd.DataFrame) -> pd.DataFrame:
    """Each pair of tuned LLMs on the same seeds and examples, and each LLM beside itself under
    another seed, which shows what chance alone sets apart: a row a data set and pair.

    Columns dataset, lm, against (OTHER_SEED: itself); overlap: share of the first 20 in common;
    same_first: share of examples with the same first title; rank_correlation: Spearman's, of the
    target's rank; only_lm, only_against: share of examples that one of them hits in the first 20
    alone.
    """
    rows = []
    for dataset, group in ranks[ranks.tuned].groupby("dataset", sort=False):
        tuned_lists = lists[(lists.dataset == dataset) & lists.tuned].assign(user=0)
        tuned_lists = tuned_lists.assign(first=[items[0] for items in tuned_lists["items"]])
        places = group.assign(place=metrics.effective_rank(group))
        llms = list(group.lm.unique())
        pairs = list(combinations(llms, 2)) + [(name, OTHER_SEED) for name in llms if len(llms) > 1]
        for pair in pairs:
            row = {"dataset": dataset, "lm": pair[0], "against": pair[1]}
            found = compared(two(places, pair), two(tuned_lists, pair), pair)
            rows += [row | found] if found else []
    columns = "dataset lm against overlap same_first rank_correlation only_lm only_against"
    return pd.DataFrame(rows, columns=columns.split())


def two(rows: pd.DataFrame, pair: tuple[str, str]) -> pd.DataFrame:
    """Rows of a pair of LLMs; OTHER_SEED has those of the first under the seed after each."""
    if pair[1] != OTHER_SEED:
        return rows[rows.lm.isin(pair)]
    own = rows[rows.lm == pair[0]]
    seeds = sorted(own.seed.unique())
    before = dict(zip(seeds[1:], seeds, strict=False))
    others = own[own.seed.isin(before)].assign(lm=OTHER_SEED, seed=lambda f: f.seed.map(before))
    return pd.concat([own, others])


def compared(places: pd.DataFrame, lists: pd.DataFrame, pair: tuple[str, str]) -> dict[str, float]:
    """The measures of `agreement`, on the seeds and examples of both; {} where they share none.

    places: column place; lists: columns items, first.
    """
    if places.lm.nunique() < 2:
        return {}
    tables = significance.crossed(places, "place", by="lm")
    a, b = (tables[name].to_numpy().ravel() for name in pair)
    if not a.size:
        return {}
    names = ("rank_correlation", "only_lm", "only_against")
    found = dict(zip(names, evidence.alike(a, b), strict=True))
    if lists.lm.nunique() < 2:
        return found
    firsts = significance.crossed(lists, "first", by="lm")
    overlap = evidence.overlaps(lists.assign(method=lists.lm), [pair])[pair].mean()
    same_first = (firsts[pair[0]] == firsts[pair[1]]).to_numpy().mean()
    return found | {"overlap": overlap, "same_first": same_first}


def spaces(ranks: pd.DataFrame, sizes: dict[str, int]) -> pd.DataFrame:
    """Texts of one LLM grounded by another: a row a data set, writing and embedding LLM.

    ranks: of a study; what counts are seeds and examples that all spaces of an LLM's texts have.
    Columns dataset, lm (which wrote), space (which embedded), seeds, n, ndcg, and its difference to
    grounding by the LLM that wrote, with low, high.
    """
    plain = spoken(ranks, sizes)
    native = plain[plain.tuned].assign(space=lambda frame: frame.lm)
    foreign = ranks[(ranks.embedded_by != "") & (ranks.method == "bigrec")]
    foreign = foreign[foreign.n_train == foreign.dataset.map(sizes)]
    foreign = foreign.assign(lm=foreign.lm.replace("", OWN), space=foreign.embedded_by)
    rows = []
    for (dataset, writer), group in foreign.groupby(["dataset", "lm"], sort=False):
        home = native[(native.dataset == dataset) & (native.lm == writer)]
        cells = significance.crossed(pd.concat([home, group]), "ndcg", by="space")
        users = significance.users_of(cells[writer])
        for space, values in cells.items():
            contrast = significance.contrast((values - cells[writer]).to_numpy(), users)
            row = {"dataset": dataset, "lm": writer, "space": space}
            row |= {"ndcg": values.to_numpy().mean()}
            names = ["seeds", "n"] + ["difference", "low", "high"] * (space != writer)
            rows.append(row | {name: contrast[name] for name in names})
    columns = "dataset lm space seeds n ndcg difference low high".split()
    return pd.DataFrame(rows, columns=columns)


def sentences(
    trend_table: pd.DataFrame, main_table: pd.DataFrame, space_table: pd.DataFrame
) -> str:
    """What 12 shows, as a Markdown list, from the tables of `trends`, `table` and `spaces`."""
    lines = []
    for row in trend_table.itertuples():
        slope = Interval(row.slope, row.slope_low, row.slope_high)
        words = ("**rises**", "**falls**", "**is not shown to rise or fall**")
        word = differences.word(slope, row.corrected, *words)
        if row.tuned and row.seeds < rules.SEEDS:
            word = f"(**nothing is decided** with fewer than {rules.SEEDS} seeds) changes"
        state = "tuned" if row.tuned else "as it is"
        way = "with the size of the LLM" if row.llms > 2 else "from the smaller LLM to the larger"
        lines.append(
            f"{row.dataset}, {state}: NDCG@20 {word} {way}, by {slope} for ten times the "
            f"parameters ({row.llms} LLMs, {alts.counted(row.seeds, 'seed')}, n = {row.n:,})."
        )
    known = ("know their users", "do worse than for others", "are not shown to know their users")
    tuned = main_table[main_table.tuned & main_table.gain.notna()]
    for dataset, group in tuned.groupby("dataset", sort=False):
        gains = {row.lm: Interval(row.gain, row.gain_low, row.gain_high)
                 for row in group.itertuples()}  # fmt: skip
        verdicts = {name: (gain.verdict(*known), gain) for name, gain in gains.items()}
        lines += [
            f"{dataset}: tuned LLMs whose lists **{verdict}**, by their personal gain: {names}."
            for verdict, names in prose.by_verdict(verdicts).items()
        ]
    for row in space_table[space_table.difference.notna()].itertuples():
        difference = Interval(row.difference, row.low, row.high)
        word = difference.verdict("better than", "worse than", prose.APART)
        lines.append(
            f"{row.dataset}: what {row.lm} writes, grounded by {row.space}, is **{word}** its own "
            f"space, {prose.signed(difference)}."
        )
    return prose.bullets(lines)
