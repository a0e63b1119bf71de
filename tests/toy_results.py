"""A small results tree with planted truths, as a finished study would leave it."""

import json
from itertools import product

import numpy as np
import pandas as pd

from bigrec_lib.files import write_parquet

EXAMPLES, ITEMS = 400, 100
DATASETS = ("films", "games")
LADDER = (64, 128, 256)
TRAINED = ("markov", "sasrec-ce", "dros")
INJECTED = {"bigrec+popularity": 0.10, "bigrec+collaborative": 0.25, "bigrec+both": 0.27}


def hits(method: str, n_train: int, tuned_on: str) -> float:
    """The planted chance that the target is among the first 20."""
    if n_train == 0:
        return 0.02
    if method in TRAINED:
        return 0.05 * np.log2(n_train / 32) + 0.02 * TRAINED.index(method)
    away = -0.2 if tuned_on and "+" not in tuned_on else 0.02 if tuned_on else 0
    return 0.45 + INJECTED.get(method, 0) + away


def draws(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, *name.encode()])


def job(folder, stage, methods, n_train, seed, tuned_on="", facts=None, **parameters):
    """Write one finished job: ranks, lists and a manifest."""
    place = folder / stage
    for split, method in product(("valid", "test"), methods):
        luck = draws(0, split).random(EXAMPLES)  # easy and hard examples, the same for all
        noise = draws(seed, f"{method}{n_train}{tuned_on}{split}").random(EXAMPLES)
        hit = 0.9 * luck + 0.1 * noise < hits(method, n_train, tuned_on)
        rank = np.where(hit, (luck * 97 % 1 * 20).astype(int), 50).astype(np.int32)
        ranks = {"example": np.arange(EXAMPLES), "rank": rank, "ties": np.int32(0)}
        write_parquet(pd.DataFrame(ranks), place / "ranks" / split / f"{method}.parquet")
    for method in methods:
        rng = draws(seed, f"list {method}")
        # conventional models list the 30 most popular titles, the LLM any of them
        pool = np.arange(ITEMS - 30, ITEMS) if method in TRAINED else np.arange(ITEMS)
        items = [rng.permutation(pool)[:20].astype(np.int32) for _ in range(EXAMPLES)]
        lists = pd.DataFrame({"example": np.arange(EXAMPLES), "items": items})
        write_parquet(lists, place / "lists" / "test" / f"{method}.parquet")
    rows = [
        {"study": "toy", "dataset": folder.parent.name, "method": method, "model": "tiny",
         "n_train": n_train, "seed": seed, "protocol": "corrected", "split": "test",
         "metric": metric, "k": k, "value": 0.1, "n": EXAMPLES}
        for method in methods for metric in ("HR", "NDCG") for k in (1, 3, 5, 10, 20)
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(place / "metrics.csv", index=False)
    manifest(place, facts or {}, n_train=n_train, seed=seed, tuned_on=tuned_on, **parameters)


def manifest(place, facts, **parameters):
    place.mkdir(parents=True, exist_ok=True)
    told = {"parameters": parameters, "facts": facts, "outputs": {}, "seconds": 12.5}
    (place / "manifest.json").write_text(json.dumps(told))


def tuning(run, n_train, seed, **parameters):
    """Write one finished tuning, and what its generations are like."""
    given = {"learning_rate": 0.001, "epochs": 1.0, "target_modules": ["q_proj", "v_proj"]}
    given |= {"learn_prompt": False, "setting": ""} | parameters
    manifest(run / "tuning", {"valid_loss": 1.5}, n_train=n_train, seed=seed, **given)
    manifest(run / "generations", {}, n_train=n_train, seed=seed, setting=given["setting"])
    (run / "generations" / "validity.csv").write_text(
        "split,beams,generations,real,distinct\nvalid,first,400,0.5,30\ntest,first,400,0.6,40\n"
    )


def write(results, seeds=(0, 1), ladder=LADDER, datasets=DATASETS):
    """A study of two data sets: main size 128 with all seeds, a ladder with the first one."""
    for dataset in datasets:
        data = results / dataset / "data"
        items = {"item": np.arange(ITEMS), "title_group": np.arange(ITEMS)}
        items = pd.DataFrame(items | {"train_count": np.arange(ITEMS)})
        write_parquet(
            items.astype({"item": "int32", "title_group": "int32"}), data / "items.parquet"
        )
        target = draws(0, dataset).integers(0, ITEMS, EXAMPLES).astype(np.int32)
        probe = {"example": np.arange(EXAMPLES), "target": target}
        probe["history_groups"] = [[1, 2, 2, 2, 3]] * EXAMPLES
        write_parquet(pd.DataFrame(probe), data / "probe.parquet")
        (other,) = [each for each in DATASETS if each != dataset]
        runs_of = [(n, s) for n, s in product(ladder, seeds) if s == seeds[0] or n == 128]
        for n, seed in runs_of:
            run = results / dataset / f"n{n}-s{seed}"
            job(run, "grounding", ["bigrec"], n, seed)
            statistics = [*INJECTED, "popularity"]
            job(run, "reweighting", statistics, n, seed, collaborative="sasrec-ce")
            job(run, "baselines", TRAINED, n, seed)
            times = pd.DataFrame({"method": TRAINED, "seconds": [1.0, 20.0, 30.0]})
            times.to_csv(run / "baselines" / "times.csv", index=False)
            tuning(run, n, seed)
            for split in ("valid", "test"):
                curve = {"gamma": [0.0, 1.0, 10.0], "metric": "NDCG", "k": 20}
                curve = pd.DataFrame(curve | {"value": [0.1, 0.15, 0.12 + seed / 100]})
                curve.to_csv(run / "reweighting" / f"curves-{split}.csv", index=False)
        for seed, tuned_on in product(seeds, (other, "+".join(DATASETS))):
            run = results / dataset / f"n128-s{seed}-on-{tuned_on}"
            methods = ["bigrec", *["bigrec-two-catalogues"] * ("+" in tuned_on)]
            job(run, "grounding", methods, 128, seed, tuned_on)
            manifest(run / "generations", {"foreign_titles": {other: 0.25}}, n_train=128,
                     seed=seed, tuned_on=tuned_on)  # fmt: skip
        job(results / dataset / "n0-s0", "grounding", ["bigrec"], 0, 0)
        tried = results / dataset / f"n128-s{seeds[0]}-as-steep"
        job(tried, "grounding", ["bigrec"], 128, seeds[0], "", setting="steep")
        tuning(tried, 128, seeds[0], setting="steep", learning_rate=0.01)
        for seed in seeds:
            run = results / dataset / f"n128-s{seed}-constrained"
            job(run, "grounding", ["bigrec"], 128, seed, constrained=True)
            job(results / dataset / f"full-s{seed}", "baselines", TRAINED, 4096, seed, full=True)
    return results
