"""A small published study with planted truths."""

import json
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.files import write_json, write_parquet
from bigrec_lib.study.parameters import KEYS

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


@dataclass
class Study:
    """Rows of the published tables, and manifests, while they are put together."""

    ranks: list = field(default_factory=list)
    lists: list = field(default_factory=list)
    metrics: list = field(default_factory=list)
    curves: list = field(default_factory=list)
    items: list = field(default_factory=list)
    examples: list = field(default_factory=list)
    jobs: dict = field(default_factory=dict)

    def job(self, notebook, keys, facts=None, seconds_of=None, **parameters):
        """Note down a finished job."""
        name = f"{keys['dataset']}.{keys['run']}.{notebook}"
        given = {"learning_rate": 0.001, "epochs": 1.0, "target_modules": ["q_proj", "v_proj"]}
        self.jobs[name] = {
            "notebook": notebook,
            "keys": keys,
            "parameters": given | {"learn_prompt": False} | parameters,
            "facts": facts or {},
            "outputs": {},
            "seconds": 12.5,
            "seconds_of": seconds_of or {},
        }

    def rank(self, methods, keys):
        """Add ranks, lists and metrics of these methods."""
        n_train, tuned_on, seed = keys["n_train"], keys["tuned_on"], keys["seed"]
        for split, method in product(("valid", "test"), methods):
            luck = draws(0, split).random(EXAMPLES)  # easy and hard examples, the same for all
            noise = draws(seed, f"{method}{n_train}{tuned_on}{split}").random(EXAMPLES)
            hit = 0.9 * luck + 0.1 * noise < hits(method, n_train, tuned_on)
            rank = np.where(hit, (luck * 97 % 1 * 20).astype(int), 50).astype(np.int32)
            rows = {"split": split, "method": method, "example": np.arange(EXAMPLES)}
            self.ranks.append(pd.DataFrame(keys | rows | {"rank": rank, "ties": np.int32(0)}))
        for method in methods:
            rng = draws(seed, f"list {method}")
            # conventional models list the 30 most popular titles, the LLM any of them
            pool = np.arange(ITEMS - 30, ITEMS) if method in TRAINED else np.arange(ITEMS)
            items = [rng.permutation(pool)[:20].astype(np.int32) for _ in range(EXAMPLES)]
            rows = {"method": method, "example": np.arange(EXAMPLES), "items": items}
            self.lists.append(pd.DataFrame(keys | rows))
            self.metrics += [
                keys | {"method": method, "model": "tiny", "protocol": "corrected",
                        "split": "test", "metric": metric, "k": k, "value": 0.1, "n": EXAMPLES}
                for metric in ("HR", "NDCG") for k in (1, 3, 5, 10, 20)
            ]  # fmt: skip

    def tune(self, keys, **parameters):
        """A finished tuning, and what its generations are like."""
        setting = {"setting": keys["setting"]}
        self.job("02_tune_llm", keys, {"valid_loss": 1.5}, **setting, **parameters)
        first = {"generations": EXAMPLES, "real": 0.5, "distinct": 30}
        beams = {"valid": first, "test": first | {"distinct": 40}}
        self.job("03_generate_titles", keys, {"first_beams": beams}, **setting)

    def publish(self, results: Path) -> Path:
        tables = {
            "ranks.parquet": self.ranks,
            "lists.parquet": self.lists,
            "curves.parquet": self.curves,
            "items.parquet": self.items,
            "examples.parquet": self.examples,
        }
        for name, frames in tables.items():
            if frames:
                write_parquet(pd.concat(frames, ignore_index=True), results / name)
        results.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(self.metrics).to_csv(results / "metrics.csv", index=False)
        write_json({"jobs": json.loads(json.dumps(self.jobs)), "files": {}},
                   results / "manifests.json")  # fmt: skip
        return results


def keys(dataset, run, n_train, seed, **special):
    known = {"dataset": dataset, "run": run, "n_train": n_train, "seed": seed}
    return KEYS | known | special


def catalogue(study, dataset):
    """Items that are the more popular the higher their number; histories of rising popularity."""
    items = {"item": np.arange(ITEMS, dtype=np.int32), "title_group": np.arange(ITEMS)}
    items |= {"title": [f"title {n}" for n in range(ITEMS)], "train_count": np.arange(ITEMS)}
    study.items.append(pd.DataFrame({"dataset": dataset} | items))
    target = draws(0, dataset).integers(0, ITEMS, EXAMPLES).astype(np.int32)
    rows = {"dataset": dataset, "split": "test", "example": np.arange(EXAMPLES)}
    rows |= {
        "user": np.arange(EXAMPLES),
        "history": [[5, 25, 27, 45, 47, 65, 67, 85, 87, 89]] * 400,
    }
    study.examples.append(pd.DataFrame(rows | {"target": target, "time": 0}))


def write(results, seeds=(0, 1), ladder=LADDER, datasets=DATASETS):
    """A study of two data sets: main size 128 with all seeds, a ladder with the first one."""
    study = Study()
    for dataset in datasets:
        catalogue(study, dataset)
        (other,) = [name for name in DATASETS if name != dataset]
        for n, seed in product(ladder, seeds):
            if seed == seeds[0] or n == 128:
                main_run(study, keys(dataset, f"n{n}-s{seed}", n, seed))
        for seed, tuned_on in product(seeds, (other, "+".join(DATASETS))):
            run = keys(dataset, f"n128-s{seed}-on-{tuned_on}", 128, seed, tuned_on=tuned_on)
            study.rank(["bigrec", *["bigrec-two-catalogues"] * ("+" in tuned_on)], run)
            study.job("03_generate_titles", run, {"foreign_titles": {other: 0.25}})
        study.rank(["bigrec"], keys(dataset, "n0-s0", 0, 0))
        tried = keys(dataset, f"n128-s{seeds[0]}-as-steep", 128, seeds[0], setting="steep")
        study.rank(["bigrec"], tried)
        study.tune(tried, learning_rate=0.01)
        for seed in seeds:
            study.rank(
                ["bigrec"],
                keys(dataset, f"n128-s{seed}-constrained", 128, seed, constrained=True),
            )
            study.rank(TRAINED, keys(dataset, f"full-s{seed}", 4096, seed))
    return study.publish(results)


def main_run(study, run):
    """Everything there is at one training size and seed."""
    study.rank(["bigrec", *INJECTED, "popularity", *TRAINED], run)
    study.tune(run)
    seconds = dict(zip(TRAINED, (1.0, 20.0, 30.0), strict=True))
    study.job("06_train_baselines", run, seconds_of=seconds)
    study.job("05_reweight_by_statistics", run, collaborative="sasrec-ce")
    for split in ("valid", "test"):
        rows = {"split": split, "gamma": [0.0, 1.0, 10.0], "metric": "NDCG", "k": 20}
        value = [0.1, 0.15, 0.12 + run["seed"] / 100]
        for weights, more in {"popularity": 0, "popularity-all": 0.1}.items():
            of_weights = {"weights": weights, "value": np.add(value, more)}
            study.curves.append(pd.DataFrame(run | rows | of_weights))


def write_bare(results, lists=True):
    """BIGRec of one size and one seed on one data set, and nothing else."""
    study = Study()
    if lists:
        catalogue(study, "films")
    run = keys("films", "n128-s0", 128, 0)
    study.rank(["bigrec"], run)
    study.job("04_ground_to_items", run)
    if not lists:
        study.lists.clear()
    return study.publish(results)
