"""What analyses and claims take from a published study: a function a kind of evidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.files import StudyError
from bigrec_lib.findings.methods import CONVENTIONAL, UNITED
from bigrec_lib.method import metrics, sequences
from bigrec_lib.study import manifests, results
from bigrec_lib.study.row_keys import AS_JOINT, FULL, KEYS, MATCHED, OWN, PICKED, SHUFFLED

# ------------------------------------------------------------------------- ranks, and which runs


def read_scores(folder: Path, split: str = "test") -> pd.DataFrame:
    """`results.read_ranks` with the user of every example, its NDCG@20 and HR@20 (`scored`)."""
    return scored(with_users(results.read_ranks(folder, split), folder, split))


def with_users(frame: pd.DataFrame, folder: Path, split: str = "test") -> pd.DataFrame:
    """Rows with the user of their example; every example is its own user where a study has none."""
    try:
        examples = results.read(folder, "examples.parquet", split=split)
    except StudyError:
        return frame.assign(user=frame.example)
    users = examples[["dataset", "example", "user"]]
    rows = frame.merge(users, "left", on=["dataset", "example"], validate="many_to_one")
    unmatched = rows.user.isna()
    if unmatched.any():
        names = ", ".join(rows.dataset[unmatched].unique())
        raise StudyError(f"{folder}: examples.parquet lacks {split} examples of {names}")
    return rows


def scored(ranks: pd.DataFrame) -> pd.DataFrame:
    """Ranks with NDCG@20 and HR@20 of every example: columns ndcg, hr."""
    rank = metrics.effective_rank(ranks)
    return ranks.assign(ndcg=metrics.ndcg(rank, 20), hr=metrics.hr(rank, 20))


def personal_gains(
    lists: pd.DataFrame, items: dict[str, pd.DataFrame], examples: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    """NDCG@20 of every list, and what the lists of other users give the same target on average.

    lists: `read_lists`; items, examples: `read_data`. Columns as in `lists`, but for items; user,
    own, others, gain (own - others). A list has no ties: of candidates with equal scores one comes
    first.
    """
    gains = metrics.ndcg(np.arange(20), 20)
    frames = []
    for keys, group in lists.groupby([*KEYS, "method"], sort=False, dropna=False):
        dataset = keys[0]
        if dataset not in items or dataset not in examples:
            continue
        if examples[dataset].user.nunique() < 2:  # no other user's list to compare with
            continue
        targets = examples[dataset][["example", "user", "target"]]
        group = group.merge(targets, on="example", validate="many_to_one")
        titles = items[dataset].title_group.to_numpy()
        titles = np.append(titles, titles.max() + 1)  # item -1, of another data set, is no target
        top = titles[np.stack([row[:20] for row in group["items"]])]
        own, others = metrics.own_and_others(
            top, titles[group.target], group.user.to_numpy(), gains[: top.shape[1]]
        )
        frames.append(
            group.drop(columns=["items", "target"]).assign(
                own=own, others=others, gain=np.round(own - others, 12)
            )
        )
    empty = lists.iloc[:0].drop(columns="items")
    return pd.concat(frames) if frames else empty.assign(user=0, own=0.0, others=0.0, gain=0.0)


def plain_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs as the study has them: of its own LLM, settings and data set, generating freely, and not
    on all samples. Size 0, the untuned LLM, is among them."""
    special = (frame.tuned_on != "") | (frame.setting != "") | frame.constrained
    return by_own_llm(frame[~special & ~on_all_samples(frame)])


def on_all_samples(frame: pd.DataFrame) -> pd.Series:
    """Which rows are of models that learnt the whole training split."""
    return frame.run.astype(str).str.startswith(FULL)


def by_own_llm(frame: pd.DataFrame) -> pd.DataFrame:
    """Runs whose texts the study's own LLM wrote, for the usual prompts, and embedded; 12 and 14
    show the others."""
    return frame[(frame.lm == "") & (frame.embedded_by == "") & (frame.worded == "")]


def main_size(frame: pd.DataFrame) -> int:
    """The training size with the most seeds, the largest of those; 0 if nothing was tuned."""
    seeds = frame[frame.n_train > 0].groupby("n_train").seed.nunique()
    return int(seeds[seeds == seeds.max()].index.max()) if len(seeds) else 0


def main_sizes(ranks: pd.DataFrame) -> dict[str, int]:
    """Data set -> the `main_size` of its plain runs."""
    return {name: main_size(group) for name, group in plain_runs(ranks).groupby("dataset")}


def preferred(valid: pd.DataFrame, models: list[str]) -> str:
    """The model with the highest mean NDCG@20 on validation; '' for none."""
    means = valid[valid.method.isin(models)].groupby("method").ndcg.mean()
    return str(means.idxmax()) if len(means) else ""


def comparator(group: pd.DataFrame, injected: str) -> str:
    """The conventional model that gets the same injection as BIGRec; '' for none."""
    methods = group.method.unique()
    names = (name.removesuffix(f"+{injected}") for name in methods if name.endswith(f"+{injected}"))
    return next((name for name in names if name in CONVENTIONAL and name in methods), "")


def variants(ranks: pd.DataFrame, main: dict[str, int]) -> pd.DataFrame:
    """Ranks at the main size of each data set, with other ways to use the LLM as methods.

    main: data set -> size. 'bigrec-constrained' is BIGRec inside a tree of all titles;
    'bigrec-untuned' the LLM as it is, which no seed changes, so it stands beside each of them;
    'bigrec-shuffled' the LLM tuned on other users' answers.
    """
    ranks = by_own_llm(ranks)
    at_size = ranks[ranks.n_train == ranks.dataset.map(main)]
    runs = plain_runs(at_size)
    plain = (at_size.tuned_on == "") & (at_size.setting == "") & (at_size.method == "bigrec")
    constrained = at_size[plain & at_size.constrained].assign(method="bigrec-constrained")
    shuffled = at_size[(at_size.setting == SHUFFLED) & (at_size.tuned_on == "")]
    shuffled = shuffled[shuffled.method == "bigrec"].assign(method="bigrec-shuffled")
    frames = [runs, constrained, shuffled]
    untuned = ranks[(ranks.n_train == 0) & (ranks.method == "bigrec") & ~ranks.constrained]
    for (dataset, seed), _ in runs.groupby(["dataset", "seed"]):
        group = untuned[untuned.dataset == dataset]
        frames.append(group.assign(method="bigrec-untuned", seed=seed, n_train=main[dataset]))
    return pd.concat(frames, ignore_index=True).astype({"method": "category"})


def few_and_all(rows: pd.DataFrame, main: dict[str, int]) -> pd.DataFrame:
    """`variants` as samples 'few', and what learnt all training samples as samples 'all'."""
    full = rows[on_all_samples(rows)]
    frame = pd.concat([variants(rows, main).assign(samples="few"), full.assign(samples="all")])
    return frame.astype({"method": "category", "samples": "category"})


def under_settings(ranks: pd.DataFrame) -> pd.DataFrame:
    """Ranks of the runs that tuning settings are compared by: those tried, and the study's own.

    The study's own run of the same size and seed gets the setting OWN; there is no row of it where
    no setting was tried. Runs on other users' answers, where there are any, stand beside them.
    """
    ranks = by_own_llm(ranks)
    plain = (ranks.tuned_on == "") & ~ranks.constrained & ~on_all_samples(ranks)
    plain &= ~ranks.setting.isin((MATCHED, AS_JOINT)) & ~ranks.setting.str.startswith(PICKED)
    ranks = ranks[plain & (ranks.n_train > 0)]
    tried = ~ranks.setting.isin(("", SHUFFLED))
    runs = ranks.loc[tried, ["dataset", "n_train", "seed"]].drop_duplicates()
    frame = ranks.merge(runs, on=["dataset", "n_train", "seed"])
    return frame.assign(setting=frame.setting.replace("", OWN))


def origins(test: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """BIGRec's ranks on one data set by what the adapter was tuned on: column `origin`.

    A name with '*' is of an adapter that learnt other users' answers there, one with '=' of an
    adapter that was tuned with the joint model's settings.
    """
    test = by_own_llm(test)
    ranks = test[(test.dataset == dataset) & (test.method == "bigrec") & ~test.constrained]
    marks = {"": "", SHUFFLED: "*", AS_JOINT: "="}
    ranks = ranks[ranks.setting.isin(marks) & ~on_all_samples(ranks)]
    origin = ranks.tuned_on.where(ranks.tuned_on != "", dataset)
    return ranks.assign(origin=origin + ranks.setting.map(marks))


# --------------------------------------------------------------------- lists and popularity


def rows_of(folder: Path, table: str, columns: list[str], **values: object) -> pd.DataFrame:
    """`results.read`; `columns` without a row where a study has not published the table."""
    try:
        return results.read(folder, table, **values)
    except StudyError:
        return pd.DataFrame(columns=columns)


def read_lists(folder: Path) -> pd.DataFrame:
    """`results.read_lists` whose titles are of one data set; its columns without a row where a
    study has no lists."""
    lists = every_list(folder)
    return lists[~lists.method.isin(UNITED)]


def every_list(folder: Path) -> pd.DataFrame:
    """As `read_lists`, with lists that name titles of other data sets, too, as item -1."""
    try:
        return results.read_lists(folder)
    except StudyError:
        return pd.DataFrame(columns=[*KEYS, "method", "example", "items"])


def read_first_beams(folder: Path) -> pd.DataFrame:
    """What was written first for every test example: `row_keys.KEYS`, example, text; without a
    row where a study has no generations. The method is 'bigrec'."""
    columns = [*KEYS, "example", "text"]
    rows = rows_of(folder, "generations.parquet", columns, split="test", beam=0)
    return rows.assign(method="bigrec")


def read_measures(folder: Path) -> pd.DataFrame:
    """What measuring jobs counted: `row_keys.KEYS`, what, method, value (float)."""
    columns = [*KEYS, "what", "method", "value"]
    return rows_of(folder, "measures.csv", columns).astype({"value": float})


VALUES = [*KEYS, "what", "method", "example", "value", "split"]  # of values.parquet


def read_values(folder: Path) -> pd.DataFrame:
    """What measuring jobs found of each test example, with its user.

    `row_keys.KEYS`, what, method, example, value, user.
    """
    rows = rows_of(folder, "values.parquet", VALUES, split="test")
    return with_users(rows.drop(columns="split"), folder)


def read_data(folder: Path, name: str) -> dict[str, pd.DataFrame]:
    """Data set -> its rows of items.parquet, or of examples.parquet (the test split)."""
    filters = {"split": "test"} if name == "examples" else {}
    rows = rows_of(folder, f"{name}.parquet", ["dataset"], **filters)
    return {dataset: group.reset_index(drop=True) for dataset, group in rows.groupby("dataset")}


def title_groups(items: pd.DataFrame) -> pd.Series:
    """Popularity group (0 = rarest fifth of the titles ... 4) of each title group.

    items: columns title_group, train_count.
    """
    counts = items.groupby("title_group").train_count.sum()
    return pd.Series(sequences.popularity_groups(counts.to_numpy()), index=counts.index)


def history_shares(items: pd.DataFrame, examples: pd.DataFrame) -> np.ndarray:
    """Share of each popularity group in the histories of the test examples, (5,)."""
    titles = items.title_group.to_numpy()[np.concatenate(examples.history.to_numpy())]
    groups = title_groups(items).reindex(titles).to_numpy()
    return np.bincount(groups, minlength=5) / len(groups)


def group_shares(lists: pd.DataFrame, group_of: pd.Series, k: int = 20) -> pd.DataFrame:
    """Share of each popularity group among the first k: columns 0 ... 4, rows as `lists`."""
    titles = np.stack([items[:k] for items in lists["items"]])
    groups = group_of.reindex(titles.ravel()).to_numpy().reshape(titles.shape)
    shares = {g: (groups == g).mean(1) for g in range(5)}
    return pd.DataFrame(shares, index=lists.index)


def lists_by_seed(group: pd.DataFrame) -> dict[str, dict[int, pd.Series]]:
    """method -> seed -> lists by example, of one data set and size."""
    lists: dict[str, dict[int, pd.Series]] = {}
    for (method, seed), rows in group.groupby(["method", "seed"], sort=False):
        lists.setdefault(method, {})[seed] = rows.set_index("example")["items"].sort_index()
    return lists


def overlaps(
    group: pd.DataFrame, pairs: list[tuple[str, str]]
) -> dict[tuple[str, str], np.ndarray]:
    """Overlap of each pair, (S seeds, n examples), on the seeds and examples that all have.

    group: lists of one data set and size.
    """
    lists = lists_by_seed(group)
    methods = {method for pair in pairs for method in pair}
    seeds = sorted(set.intersection(*(set(lists[method]) for method in methods)))
    examples = sorted(
        set.intersection(*(set(lists[m][seed].index) for m in methods for seed in seeds))
    )
    arrays = {m: [np.stack(lists[m][s].loc[examples]) for s in seeds] for m in methods}
    return {
        (a, b): np.stack(
            [metrics.overlap(*seed_lists) for seed_lists in zip(arrays[a], arrays[b], strict=True)]
        )
        for a, b in pairs
    }


def alike(places: np.ndarray, others: np.ndarray, k: int = 20) -> tuple[float, float, float]:
    """How alike two methods rank the same targets: Spearman's correlation of the places, and the
    shares of targets that only the first and only the second has among its first k.

    places, others: of the same shape, 0 for the top.
    """
    orders = [pd.Series(values.ravel()).rank() for values in (places, others)]
    correlation = round(orders[0].corr(orders[1]), 9)  # threads change later digits
    hits, other_hits = places < k, others < k
    return correlation, float((hits & ~other_hits).mean()), float((other_hits & ~hits).mean())


# ------------------------------------------------------------------------- what jobs recorded


def training_seconds(folder: Path) -> pd.DataFrame:
    """Seconds of training: the LLM's tuning, and each conventional model's whole grid.

    Columns dataset, run, n_train, seed, method, seconds (`tuning_seconds` of the LLM). Not of
    further LLMs, nor of the tuning settings that a study tries.
    """
    tunings = manifests.published_jobs(folder, "02_tune_llm")
    rows = [
        job["keys"] | {"method": "bigrec", "seconds": tuning_seconds(job)}
        for job in tunings
        if not (job["keys"]["setting"] or job["keys"].get("lm"))
    ]
    for job in manifests.published_jobs(folder, "06_train_baselines"):
        times = job["seconds_of"].items()
        rows += [job["keys"] | {"method": name, "seconds": s} for name, s in times]
    columns = ["dataset", "run", "n_train", "seed", "method", "seconds"]
    return pd.DataFrame(rows, columns=columns).sort_values(columns[:2], kind="stable")


def tuning_seconds(tuning: dict) -> float:
    """Seconds of all steps of a tuning, from the manifest of its 02; NaN if they are not in it.

    A job that finds its adapter finished only reads it, so its own seconds say nothing of tuning.
    """
    return float(tuning["seconds_of"].get("tuning", np.nan))


def injected_model(folder: Path) -> str:
    """The conventional model whose scores 'bigrec+collaborative' injects; '' for none."""
    for job in manifests.published_jobs(folder, "05_reweight_by_statistics"):
        return str(job["parameters"]["collaborative"])
    return ""


def gamma_curves(folder: Path) -> pd.DataFrame:
    """NDCG@20 over the γ of popularity: columns dataset, seed, split, gamma, value; main size."""
    columns = ["dataset", "seed", "split", "gamma", "value"]
    curves = rows_of(folder, "curves.parquet", [*KEYS, *columns[2:]], metric="NDCG", k=20)
    curves = plain_runs(curves)
    curves = curves[curves.n_train > 0]
    return curves.loc[curves.n_train == curves.dataset.map(main_sizes(curves)), columns]


def domains(folder: Path) -> dict[str, str]:
    """Data set -> its domain, as far as the study recorded it."""
    jobs = manifests.published_jobs(folder, "01_prepare_data")
    return {job["keys"]["dataset"]: job["facts"].get("domain", "") for job in jobs}


def published_at(domain_of: dict[str, str]) -> pd.DataFrame:
    """NDCG@20 that others report of BIGRec on LLaMA-7B, beside each data set of the same domain.

    Columns dataset (of the study), on (theirs), parameters, published, source.
    """
    rows = published_numbers()
    rows = rows[rows.method.str.startswith("BIGRec") & (rows.metric == "NDCG@20")]
    rows = rows.rename(columns={"dataset": "on"}).assign(parameters=LLAMA)
    rows["source"] = rows.method + ": " + rows.source
    frames = [
        rows[rows.on.map(DOMAIN_OF) == domain].assign(dataset=dataset)
        for dataset, domain in domain_of.items()
    ]
    columns = ["dataset", "on", "parameters", "published", "source"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


LLAMA = 6.74e9  # parameters of LLaMA-7B
DOMAIN_OF = {"Games": "games", "ML-10M": "movies"}  # of published.csv


def published_numbers() -> pd.DataFrame:
    """What others report (docs/method.md, section 6).

    Columns dataset, method, metric, published, source.
    """
    return pd.read_csv(Path(__file__).with_name("published.csv"))
