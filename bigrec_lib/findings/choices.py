"""Whether chosen samples beat as many drawn at random (13, Q1): evidence, rows, tables.

Draws and tuning seeds are nested: the LLM is tuned on each draw of samples under a few seeds. The
independent unit is a draw, and its seeds are repeated measurements; of an arm that does not draw,
the unit is a seed. The error of a mean over *units* is that of `significance.mean_of`, with units
in place of seeds; the error of a difference of two arms is of the units of both (`contrast`). An
arm that always chooses the same samples is one draw, however many seeds it has: what draws vary by
is taken from the random ones. Else any fixed set of samples that happens to be good would pass.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import product

import numpy as np
import pandas as pd

from bigrec_lib.findings import alts, claims, evidence, prose, rules, significance
from bigrec_lib.findings.significance import FLOOR, Mean, as_columns, clustered, mean_of, users_of
from bigrec_lib.study import manifests, steps
from bigrec_lib.study.row_keys import PICKED

RANDOM = "random"
LABELS = {
    RANDOM: "At random",
    "one_a_user": "One a user",
    "by_popularity": "Strata of popularity",
    "by_history": "Strata of history length",
    "by_recency": "Strata of time",
    "newest": "Newest",
    "k_centre": "k-centre",
    "k_means": "k-means medoids",
    "herding": "Herding",
    "optimal_transport": "Optimal transport",
    "loss_top": "Loss, highest",
    "loss_middle": "Loss, middle",
    "loss_bottom": "Loss, lowest",
    "el2n_top": "EL2N, highest",
    "el2n_middle": "EL2N, middle",
    "el2n_bottom": "EL2N, lowest",
    "grand_top": "GraNd, highest",
    "grand_middle": "GraNd, middle",
    "grand_bottom": "GraNd, lowest",
    "dealrec": "DEALRec",
    "dealrec_influence": "DEALRec, influence alone",
    "dealrec_effort": "DEALRec, effort alone",
    "dealrec_random": "DEALRec, random score",
}
"""Every arm as tables and figures print it, in their order."""

NDCG, LIKELIHOOD = "ndcg", "likelihood"
ENDPOINTS = {NDCG: "NDCG@20", LIKELIHOOD: "log-likelihood of the title"}

# ------------------------------------------------------------------------------------ evidence


def picked(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of adapters that learnt chosen samples, with columns arm, draw and budget.

    rows: with the columns of `row_keys.KEYS` and method, such as ranks.
    """
    mask = rows.setting.astype(str).str.startswith(PICKED) & (rows.tuned_on == "")
    frame = evidence.by_own_llm(rows[mask & ~rows.constrained & (rows.method == "bigrec")])
    choice = frame.setting.astype(str).str.extract(r"(\w+)\.(\d+)$").to_numpy()
    return frame.assign(arm=choice[:, 0], draw=choice[:, 1].astype(int), budget=frame.n_train)


def likelihoods(values: pd.DataFrame) -> pd.DataFrame:
    """The log-likelihood of every title, and how much the user's own history adds to it.

    values: `evidence.read_values`. Columns dataset, arm, draw, budget, seed, user, example,
    likelihood, knows (likelihood minus that after another user's history), tokens.
    """
    rows = picked(values)
    keys = ["dataset", "arm", "draw", "budget", "seed", "user", "example"]
    wide = rows.pivot_table(index=keys, columns="what", values="value", aggfunc="first")
    wide = wide.reindex(columns=[steps.OWN, steps.OTHER, steps.TOKENS]).reset_index()
    return wide.assign(knows=wide[steps.OWN] - wide[steps.OTHER]).rename(
        columns={steps.OWN: LIKELIHOOD, steps.TOKENS: "tokens"}
    )


def units(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """One arm's values, independent units x examples: its draws, each the mean of its seeds; its
    seeds where it has only one draw. Columns are (user, example)."""
    unit = "draw" if rows.draw.nunique() > 1 else "seed"
    return rows.pivot_table(value, unit, ["user", "example"]).dropna(axis=1)


def contrast(
    ours: np.ndarray, theirs: np.ndarray, users: np.ndarray, drawn: np.ndarray | None = None
) -> Mean:
    """mean(ours) − mean(theirs) of independent units (A, n) and (B, n) on the same n examples.

    users: (n,). As `significance.mean_of`, but each side has its own units. A single unit says
    nothing of others: that side adds no variance of units. drawn: where our units are seeds on one
    set of samples, units (D, n) as which that set varies; equal to theirs, they count once.
    Mean.seeds: the smaller number of units.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (ours, theirs)]
    _, user = np.unique(users, return_inverse=True)
    sizes, n = np.bincount(user), len(users)
    value = float(sides[0].mean() - sides[1].mean())
    v_users = clustered(sides[0].mean(0) - sides[1].mean(0) - value, user) / n**2
    df_users = max((sizes**2).sum() ** 2 / (sizes**4).sum() - 1, 1.0)
    v_units, v_both, denominator = 0.0, 0.0, v_users**2 / df_users
    varying = [(side, 1 / len(side)) for side in sides]  # with the share of a unit's variance
    if drawn is not None and np.array_equal(drawn, theirs):
        varying = [(sides[1], 1 + 1 / len(theirs))]
    elif drawn is not None:
        varying[0] = (np.asarray(drawn, dtype=np.float64), 1.0)
    varying = [(side, share) for side, share in varying if len(side) > 1]
    for side, share in varying:
        df_units, unit_means = len(side) - 1, side.mean(1)
        weight = share / df_units
        residuals = side - unit_means[:, None] - side.mean(0) + side.mean()
        between = ((unit_means - side.mean()) ** 2).sum() * weight
        interaction = sum(clustered(row, user) for row in residuals) * weight / n**2
        denominator += between**2 / df_units + interaction**2 / (df_units * df_users)
        v_units, v_both = v_units + between, v_both + interaction
    variance = v_users + max(v_units - v_both, FLOOR * min(v_both, v_users))
    df = variance**2 / denominator if denominator else 0.0
    df_min = min((len(side) - 1 for side, _ in varying), default=df_users)
    df = max(df * df_min / (df_min + 0.5), min(df_min, df_users))
    return Mean(value, variance**0.5, float(df), min(map(len, sides)), len(sizes), n)


def relative(
    ours: np.ndarray, theirs: np.ndarray, users: np.ndarray, drawn: np.ndarray | None = None
) -> Mean | None:
    """mean(ours) / mean(theirs) − 1 with its first-order error; None without a level above 0.

    drawn: as for `contrast`.
    """
    level = np.mean(theirs)
    if not level > 0:
        return None
    ratio = float(np.mean(ours) / level)
    drawn = None if drawn is None else drawn / level
    mean = contrast(np.asarray(ours) / level, ratio * np.asarray(theirs) / level, users, drawn)
    return replace(mean, value=ratio - 1)


def shared(*tables: pd.DataFrame) -> tuple[list[np.ndarray], np.ndarray]:
    """Tables of `units` on the examples of all, and their users."""
    examples = reduce(pd.Index.intersection, (table.columns for table in tables))
    return [table[examples].to_numpy() for table in tables], users_of(tables[0][examples])


class Arms:
    """The values of one data set: arm and budget -> units x examples.

    single: those whose samples were drawn once, so that their units are seeds.
    """

    def __init__(self, rows: pd.DataFrame, value: str):
        groups = dict(list(rows.groupby(["arm", "budget"], sort=False)))
        self.of = {key: units(group, value) for key, group in groups.items()}
        self.single = {key for key, group in groups.items() if group.draw.nunique() == 1}

    def against(self, arm: str, budget: int, random_budget: int = 0) -> Mean | None:
        """An arm minus random; with random_budget, arm / random of that − 1; None if missing."""
        keys = [(arm, budget), (RANDOM, random_budget or budget), (RANDOM, budget)]
        if not all(key in self.of for key in keys):
            return None
        (ours, theirs, drawn), users = shared(*(self.of[key] for key in keys))
        if not users.size:
            return None
        as_drawn = drawn if keys[0] in self.single else None
        if random_budget:
            mean = relative(ours, theirs, users, as_drawn)
        else:
            mean = contrast(ours, theirs, users, as_drawn)
        once = self.single & set(keys[1:])
        return replace(mean, seeds=1) if mean and once else mean

    def mean(self, arm: str, budget: int) -> Mean | None:
        """The mean of an arm itself; None if it is missing."""
        values = self.of.get((arm, budget))
        if values is None or not values.size:
            return None
        return mean_of(values.to_numpy(), users_of(values))


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by data set, budget and arm, the arms as in LABELS."""
    place = {arm: i for i, arm in enumerate(LABELS)}
    frame = rows.assign(place=rows.arm.map(place))
    return frame.sort_values(["dataset", "budget", "place"], kind="stable").drop(columns="place")


def every_arm(ranks: pd.DataFrame, dataset: str) -> tuple[list[str], list[int]]:
    """The arms and budgets of a data set, in order. ranks: `picked`."""
    rows = ranks[ranks.dataset == dataset]
    arms = [arm for arm in LABELS if arm in set(rows.arm)]
    return arms, sorted(int(budget) for budget in rows.budget.unique())


# --------------------------------------------------------------------------------------- Q1

KNOWS = "gain in log-likelihood from the user's own history"


def q1(ranks: pd.DataFrame, likely: pd.DataFrame, gains: pd.DataFrame) -> list[dict]:
    """Q1 on every data set.

    ranks: `picked` of scored ranks; likely: `likelihoods`; gains: `picked` of
    `evidence.personal_gains`.
    """
    rows = []
    for dataset in ranks.dataset.unique():
        arms, budgets = every_arm(ranks, dataset)
        values = arms_of(ranks, likely, gains, dataset)
        selections = [arm for arm in arms if arm != RANDOM]
        for arm, budget in product(selections, budgets):
            keys = {"claim": "Q1", "dataset": dataset}
            keys |= {"statement": f"{LABELS[arm]} − at random, {budget:,} samples"}
            for metric, (guard, name) in {
                NDCG: ("gain", claims.PERSONAL), LIKELIHOOD: ("knows", KNOWS)
            }.items():  # fmt: skip
                head = keys | {"metric": ENDPOINTS[metric]}
                gap = f"{ENDPOINTS[metric]} of {arm} and of random samples"
                guards = {
                    name: values[guard].mean(arm, budget),
                    f"{name} − at random": values[guard].against(arm, budget),
                }
                rows.append(claims.compared(head, values[metric].against(arm, budget), gap, guards))
        for arm, small in product(selections, budgets[:-1]):
            large = budgets[-1]
            keys = {"claim": "Q1", "dataset": dataset, "metric": "share of NDCG@20"}
            keys |= {"statement": f"{small:,} samples, {LABELS[arm]} / {large:,} at random − 1"}
            mean = values[NDCG].against(arm, small, large)
            gap = f"NDCG@20 of {arm} and of random samples, and a hit"
            guards = {
                claims.PERSONAL: values["gain"].mean(arm, small),
                f"{LABELS[arm]} − at random, {small:,} samples": values[NDCG].against(arm, small),
            }
            rows.append(claims.compared(keys, mean, gap, guards, "no worse"))
    return rows


def arms_of(
    ranks: pd.DataFrame, likely: pd.DataFrame, gains: pd.DataFrame, dataset: str
) -> dict[str, Arms]:
    """Measure -> its values by arm and budget, of one data set."""
    frames = {NDCG: ranks, LIKELIHOOD: likely, "knows": likely, "gain": gains}
    return {value: Arms(frame[frame.dataset == dataset], value) for value, frame in frames.items()}


# ----------------------------------------------------------------------------------- tables


def table(
    ranks: pd.DataFrame, likely: pd.DataFrame, gains: pd.DataFrame, seconds: pd.DataFrame
) -> pd.DataFrame:
    """A row a data set, budget and arm; ranks, likely, gains: as for `q1`; seconds: `seconds_of`.

    Columns dataset, budget, arm, draws, seeds (of each draw), n and n_likelihood (examples of the
    one endpoint and of the other); ndcg and likelihood, each with
    _difference to random, _low and _high; gain and knows with _low and _high; selecting, tuning
    and total seconds.
    """
    rows = []
    for dataset in ranks.dataset.unique():
        arms, budgets = every_arm(ranks, dataset)
        values = arms_of(ranks, likely, gains, dataset)
        for budget, arm in product(budgets, arms):
            runs = ranks[(ranks.dataset == dataset) & (ranks.arm == arm) & (ranks.budget == budget)]
            if runs.empty:
                continue
            row = {"dataset": dataset, "budget": budget, "arm": arm, "draws": runs.draw.nunique()}
            row |= {"seeds": runs.seed.nunique(), "n": runs.example.nunique()}
            arm_likely = likely[(likely.dataset == dataset) & (likely.arm == arm)]
            row["n_likelihood"] = arm_likely[arm_likely.budget == budget].example.nunique()
            for metric in ENDPOINTS:
                level = values[metric].mean(arm, budget)
                difference = values[metric].against(arm, budget) if arm != RANDOM else None
                row[metric] = level.value if level else np.nan
                row |= as_columns(difference, f"{metric}_difference", f"{metric}_")
            for guard in ("gain", "knows"):
                row |= as_columns(values[guard].mean(arm, budget), guard, f"{guard}_")
            rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.merge(seconds, "left", on=["dataset", "budget", "arm"]) if rows else frame


def seconds_of(folder) -> pd.DataFrame:
    """What choosing and tuning took: columns dataset, budget, arm, selecting, tuning, total.

    Choosing is charged with all that an arm needs; tuning is the mean of an arm's runs.
    """
    selections = [
        {"dataset": job["keys"]["dataset"], "arm": arm, "budget": int(budget), "selecting": seconds}
        for job in manifests.published_jobs(folder, "13a_select_samples")
        for name, seconds in job["seconds_of"].items()
        for arm, _, budget in [name.partition(", ")]
        if budget.isdigit()
    ]
    tunings = [
        job["keys"] | {"method": "bigrec", "tuning": evidence.tuning_seconds(job)}
        for job in manifests.published_jobs(folder, "02_tune_llm")
    ]
    keys = ["dataset", "budget", "arm"]
    if not selections or not tunings:
        return pd.DataFrame(columns=[*keys, "selecting", "tuning", "total"])
    tuning = picked(pd.DataFrame(tunings)).groupby(keys, as_index=False).tuning.mean()
    cost = pd.DataFrame(selections).merge(tuning, on=keys)
    return cost.assign(total=cost.selecting + cost.tuning)[[*keys, "selecting", "tuning", "total"]]


def variances(ranks: pd.DataFrame, likely: pd.DataFrame) -> pd.DataFrame:
    """How much runs of an arm differ by their draw, and by the seed of their tuning.

    A row a data set, budget, arm and endpoint: columns dataset, budget, arm, metric, draws, seeds,
    of_draws and of_seeds, standard deviations of a run's mean (`components`).
    """
    rows = []
    for metric, frame in {NDCG: ranks, LIKELIHOOD: likely}.items():
        for keys, group in in_order(frame).groupby(["dataset", "budget", "arm"], sort=False):
            runs = group.pivot_table(metric, "draw", "seed")
            if not runs.size:
                continue
            draw_sd, seed_sd = components(runs.to_numpy())
            row = dict(zip(("dataset", "budget", "arm"), keys, strict=True))
            row |= {"metric": ENDPOINTS[metric], "draws": len(runs), "seeds": runs.shape[1]}
            rows.append(row | {"of_draws": draw_sd, "of_seeds": seed_sd})
    columns = "dataset budget arm metric draws seeds of_draws of_seeds".split()
    return pd.DataFrame(rows, columns=columns)


def components(runs: np.ndarray) -> tuple[float, float]:
    """Standard deviations of draws and of seeds within a draw, from means of runs (D, S).

    The variance of draws is what their means vary by beyond what seeds account for (analysis of
    variance), 0 at least. NaN where there is one draw, or one seed a draw; in the latter case
    draws account for all of it.
    """
    draws, seeds = runs.shape
    within = float(runs.var(axis=1, ddof=1).mean()) if seeds > 1 else np.nan
    between = float(runs.mean(axis=1).var(ddof=1)) if draws > 1 else np.nan
    excess = between - (within / seeds if seeds > 1 else 0.0)
    return float(np.sqrt(max(excess, 0.0))) if draws > 1 else np.nan, float(np.sqrt(within))


def bands(ranks: pd.DataFrame, likely: pd.DataFrame) -> pd.DataFrame:
    """Where random draws lie: columns dataset, budget, metric, low, mean, high, draws; low and high
    are of the means of single draws."""
    rows = []
    for metric, frame in {NDCG: ranks, LIKELIHOOD: likely}.items():
        random_rows = frame[frame.arm == RANDOM]
        for (dataset, budget), group in random_rows.groupby(["dataset", "budget"], sort=False):
            draws = group.pivot_table(metric, "draw", ["user", "example"]).dropna(axis=1)
            means = draws.mean(axis=1)
            row = {"dataset": dataset, "budget": budget, "metric": metric, "draws": len(means)}
            rows.append(row | {"low": means.min(), "mean": means.mean(), "high": means.max()})
    return pd.DataFrame(rows, columns="dataset budget metric draws low mean high".split())


# ------------------------------------------------------------------------------ what it shows


def sentences(rows: pd.DataFrame, arms: pd.DataFrame, spread: pd.DataFrame) -> list[str]:
    """What 13 shows, five sentences at most. rows: judged claims; arms: `table`; spread:
    `variances`."""
    if arms.empty:
        return [
            "No adapter has learnt chosen samples: `selection` in the study file asks for them."
        ]
    lines = [" ".join(filter(None, (counted(rows), apart_from_chance(rows))))]
    for metric, name in ENDPOINTS.items():
        contrasts = arms[arms[f"{metric}_difference"].notna()]
        if len(contrasts):
            best = contrasts.loc[contrasts[f"{metric}_difference"].idxmax()]
            lines.append(best_of(best, metric, name, len(contrasts)))
    gains = arms[arms.knows.notna()]
    if len(gains):
        lines.append(
            f"In **{int((gains.knows_low > 0).sum())} of {len(gains)}** arms and budgets the title "
            "is likelier after the user's own history than after another user's, by the interval "
            "of `knows`."
        )
    random_rows = spread[(spread.arm == RANDOM) & (spread.metric == ENDPOINTS[NDCG])]
    for row in random_rows[random_rows.budget == random_rows.budget.max()].head(1).itertuples():
        lines.append(
            f"NDCG@20 of {row.budget:,} random samples of {row.dataset} has a standard deviation "
            f"of {number(row.of_draws)} between {alts.counted(row.draws, 'draw')} and of "
            f"{number(row.of_seeds)} between {alts.counted(row.seeds, 'seed')} on one draw."
        )
    return lines


def counted(rows: pd.DataFrame) -> str:
    """How many comparisons were decided, and how."""
    if not len(rows):
        return "There is no arm besides random, so nothing is compared."
    verdicts = rows.verdict.value_counts()
    if set(verdicts.index) <= {rules.DEMONSTRATION, rules.MISSING}:
        return (
            f"**Nothing is decided**: of {len(rows)} comparisons none has the {rules.SEEDS} "
            "independent draws or seeds that a verdict takes."
        )
    tally = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
    finding = "No choice of samples is shown to beat chance"
    if verdicts.get(rules.SUPPORTED, 0):
        finding = "Choosing samples helps in places"
    return f"**{finding}**: of {len(rows)} comparisons, {tally}."


def apart_from_chance(rows: pd.DataFrame) -> str:
    """The comparisons that leave out zero after correction, whatever the verdict; '' for none."""
    rejections = rows[(rows.rule == "better") & (rows.corrected.astype(float) < significance.LEVEL)]
    clauses = []
    for row in rejections.itertuples():
        interval = significance.Interval(row.estimate, row.low, row.high)
        word = interval.verdict("higher", "lower", "")
        if word:
            clauses.append(
                f"{row.dataset}, {row.statement}: {row.metric} **{word}**, "
                f"{prose.signed(interval)}, corrected {claims.p_text(row.corrected)}"
            )
    return f"Apart from chance after correction: {'; '.join(clauses)}." if clauses else ""


def best_of(best: pd.Series, metric: str, name: str, n: int) -> str:
    numbers = (best[f"{metric}_{column}"] for column in ("difference", "low", "high"))
    interval = significance.Interval(*numbers)
    word = interval.verdict("above chance", "below chance", "not told apart from chance")
    return (
        f"{name}: of {n} arms and budgets the best is {LABELS[best.arm]} with {best.budget:,} "
        f"samples of {best.dataset}, by {interval} against random ones: **{word}**, before any "
        f"correction for picking the best; choosing took {number(best.selecting, 1)} s and tuning "
        f"{number(best.tuning, 1)} s."
    )


def number(value: float, digits: int = 4) -> str:
    return "unknown" if value != value else f"{value:,.{digits}f}"
