"""A small published study with planted truths, and others in which BIGRec knows nothing."""

import json
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from bigrec_lib.files import write_json, write_parquet
from bigrec_lib.study.row_keys import KEYS

EXAMPLES, ITEMS, K = 400, 400, 20
DATASETS = ("films", "games")
LADDER = (64, 128, 256)
TRAINED = ("markov", "sasrec-ce", "gru4rec-ce")
LAST = tuple(f"{model}-last" for model in TRAINED)
INJECTED = {
    "bigrec+popularity": 0.10,
    "bigrec+popularity-all": 0.11,
    "bigrec+collaborative": 0.25,
    "bigrec+both": 0.27,
}
SMALL, LARGE, LARGER = 10**8, 10**9, 0.2  # parameters of two LLMs; what the larger one hits more
UNITED = ["bigrec-union", "bigrec-union-few", "bigrec-union-control"]
COMPARED = {"gru4rec-ce+popularity": 0.0, "gru4rec-ce+collaborative": 0.01}
WORLDS = ("planted", "null", "random", "shuffled")
"""What BIGRec is: better than all by far; as good as the conventional models; a random order; lists
that hit well but say the same to everybody."""


def hits(
    method: str, n_train: int, tuned_on: str = "", setting: str = "", world="planted", lm: str = ""
):
    """The planted chance that a list made for its user has the target among the first 20."""
    model = method.partition("+")[0].removesuffix("-last").removesuffix("-unseen")
    if model in TRAINED:
        chance = 0.08 * np.log2(n_train / 32) + 0.02 * TRAINED.index(model)
        return chance * (0.5 if method.endswith("-last") else 1) + COMPARED.get(method, 0)
    if method in ("random", "popularity") or n_train == 0 or setting == "shuffled":
        return 0.0
    if world == "null":
        return hits(TRAINED[-1], n_train) + (0 if method == "bigrec" else 0.001)
    away = -0.2 if tuned_on and "+" not in tuned_on else 0.02 if tuned_on else 0
    return 0.45 + INJECTED.get(method, 0) + away + LARGER * bool(lm)


def knows_nothing(method: str, world: str) -> str:
    """What a method of BIGRec is in a world where the LLM knows nothing; '' elsewhere.

    Injected BIGRec becomes what is injected, as it does when γ is large.
    """
    if world not in ("random", "shuffled") or not method.startswith("bigrec"):
        return ""
    if "collaborative" in method or "both" in method:
        return "sasrec-ce"
    return "popularity" if "popularity" in method else world


def draws(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, *name.encode()])


def targets(dataset: str, split: str) -> np.ndarray:
    """The targets of a split, three in ten of them among the 20 most popular titles."""
    rng = draws(0, f"{dataset} {split}")
    popular = rng.integers(ITEMS - K, ITEMS, EXAMPLES)
    return np.where(rng.random(EXAMPLES) < 0.3, popular, rng.integers(0, ITEMS, EXAMPLES))


@dataclass
class Study:
    """Rows of the published tables, and manifests, while they are put together."""

    world: str = "planted"
    ranks: list = field(default_factory=list)
    lists: list = field(default_factory=list)
    metrics: list = field(default_factory=list)
    curves: list = field(default_factory=list)
    items: list = field(default_factory=list)
    examples: list = field(default_factory=list)
    generations: list = field(default_factory=list)
    values: list = field(default_factory=list)
    measures: list = field(default_factory=list)
    jobs: dict = field(default_factory=dict)

    def job(self, notebook, keys, facts=None, seconds_of=None, **parameters):
        """Note down a finished job."""
        name = f"{keys['dataset']}.{keys['run']}.{notebook}"
        given = {"learning_rate": 0.001, "epochs": 1.0, "target_modules": ["q_proj", "v_proj"]}
        given |= {"rank": 8, "shuffled": False}
        self.jobs[name] = {
            "notebook": notebook,
            "keys": keys,
            "parameters": given | {"learn_prompt": False} | parameters,
            "facts": facts or {},
            "outputs": {},
            "host": "Linux x86_64",
            "seconds": 12.5,
            "peak_gb": 1.5,
            "seconds_of": seconds_of or {},
        }

    def listed(self, method, keys, split):
        """What a method lists for every example, (EXAMPLES, K).

        A list made for its user has the target with the planted chance; examples are easy or hard,
        the same for all methods.
        """
        n_train, tuned_on, seed = keys["n_train"], keys["tuned_on"], keys["seed"]
        lm = keys["lm"] + keys["embedded_by"]
        target = targets(keys["dataset"], split)
        luck = draws(0, f"{keys['dataset']} {split} luck").random(EXAMPLES)
        instead = knows_nothing(method, self.world)
        name = f"{instead or method}{n_train}{tuned_on}{keys['setting']}{lm}{split}"
        rng = draws(seed, f"{keys['dataset']} {name}")
        if "popularity" in (method, instead):
            return np.tile(np.arange(ITEMS - K, ITEMS)[::-1], (EXAMPLES, 1))
        if instead == "shuffled":  # popular titles, in an order that has nothing to do with users
            return ITEMS - 1 - rng.permuted(np.tile(np.arange(2 * K), (EXAMPLES, 1)), axis=1)[:, :K]
        start, step = rng.integers(0, ITEMS, (EXAMPLES, 1)), rng.integers(0, 10, (EXAMPLES, 1))
        shown = (start + (20 * step + 7) * np.arange(K)) % ITEMS  # all different
        chance = hits(
            "sasrec-ce" if instead == "sasrec-ce" else method, n_train, tuned_on,
            keys["setting"], self.world, keys["lm"],
        )  # fmt: skip
        if instead == "random" or not chance:
            return shown
        shown = np.where(shown == target[:, None], (shown + 1) % ITEMS, shown)
        hit = 0.9 * luck + 0.1 * rng.random(EXAMPLES) < chance
        place = (luck * 97 % 1 * K).astype(int)
        shown[hit, place[hit]] = target[hit]
        return shown

    def rank(self, methods, keys):
        """Add ranks, lists and metrics of these methods."""
        for split, method in product(("valid", "test"), methods):
            shown = self.listed(method, keys, split)
            equal = shown == targets(keys["dataset"], split)[:, None]
            rank = np.where(equal.any(1), equal.argmax(1), 50).astype(np.int32)
            rows = {"split": split, "method": method, "example": np.arange(EXAMPLES)}
            self.ranks.append(pd.DataFrame(keys | rows | {"rank": rank, "ties": np.int32(0)}))
            if split == "valid":
                continue
            rows = {"method": method, "example": np.arange(EXAMPLES)}
            self.lists.append(pd.DataFrame(keys | rows | {"items": list(shown.astype(np.int32))}))
            if method == "bigrec":
                said = {"split": split, "example": np.arange(EXAMPLES), "beam": 0, "score": -1.0}
                said |= {"text": [f"title {item}" for item in shown[:, 0]]}
                self.generations.append(pd.DataFrame(keys | said))
            self.metrics += [
                keys | {"method": method, "model": "tiny", "protocol": "corrected",
                        "split": "test", "metric": metric, "k": k, "value": 0.1, "n": EXAMPLES}
                for metric in ("HR", "NDCG") for k in (1, 3, 5, 10, 20)
            ]  # fmt: skip

    def tune(self, keys, **parameters):
        """A finished tuning, and what its generations are like."""
        setting = {"setting": keys["setting"]}
        given = setting | {"n_train": keys["n_train"], "also": []} | parameters
        seconds = {"tuning": 64.0}
        self.job("02_tune_llm", keys, {"valid_loss": 1.5}, seconds, **given)
        self.write(keys)

    def write(self, keys, facts=None):
        """Finished generations."""
        first = {"generations": EXAMPLES, "real": 0.5, "distinct": 30, "most frequent": 0.1}
        beams = {"first_beams": {"valid": first, "test": first | {"distinct": 40}}}
        beams |= {"parameters": LARGE if keys["lm"] else SMALL}
        given = {"model": keys["lm"] or "tiny", "setting": keys["setting"]}
        self.job("03_generate_titles", keys, beams | (facts or {}), **given)

    def publish(self, results: Path) -> Path:
        tables = {
            "ranks.parquet": self.ranks,
            "lists.parquet": self.lists,
            "curves.parquet": self.curves,
            "items.parquet": self.items,
            "examples.parquet": self.examples,
            "generations.parquet": self.generations,
            "values.parquet": self.values,
        }
        for name, frames in tables.items():
            if frames:
                write_parquet(pd.concat(frames, ignore_index=True), results / name)
        results.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(self.metrics).to_csv(results / "metrics.csv", index=False)
        if self.measures:
            pd.concat(self.measures).to_csv(results / "measures.csv", index=False)
        write_json({"jobs": json.loads(json.dumps(self.jobs)), "files": {}},
                   results / "manifests.json")  # fmt: skip
        return results


def keys(dataset, run, n_train, seed, **special):
    known = {"dataset": dataset, "run": run, "n_train": n_train, "seed": seed}
    return KEYS | known | special


def catalogue(study, dataset):
    """Items that are the more popular the higher their number; histories of rising popularity.

    Every user has two examples.
    """
    items = {"item": np.arange(ITEMS, dtype=np.int32), "title_group": np.arange(ITEMS)}
    items |= {"title": [f"title {n}" for n in range(ITEMS)], "train_count": np.arange(ITEMS)}
    study.items.append(pd.DataFrame({"dataset": dataset} | items))
    for split in ("valid", "test"):
        rows = {"dataset": dataset, "split": split, "example": np.arange(EXAMPLES)}
        rows |= {"user": np.arange(EXAMPLES) // 2, "tied": np.arange(EXAMPLES) % 4 == 0}
        rows |= {"history": [[20, 100, 108, 180, 188, 260, 268, 340, 348, 356]] * EXAMPLES}
        target = targets(dataset, split).astype(np.int32)
        study.examples.append(pd.DataFrame(rows | {"target": target, "time": 0}))


def write(results, seeds=(0, 1, 2, 3), ladder=LADDER, datasets=DATASETS, world="planted"):
    """A study of two data sets: main size 128 with all seeds, the ladder with one less."""
    study = Study(world)
    for dataset in datasets:
        catalogue(study, dataset)
        (other,) = [name for name in DATASETS if name != dataset]
        for n, seed in product(ladder, seeds):
            if n != 128 and seed == seeds[-1]:
                continue
            main_run(study, keys(dataset, f"n{n}-s{seed}", n, seed), n == 128)
            if n < 128:
                matched = f"n{n}-s{seed}-as-matched"
                study.rank(["bigrec"], keys(dataset, matched, n, seed, setting="matched"))
        for seed, tuned_on in product(seeds, (other, "+".join(DATASETS))):
            run = keys(dataset, f"n128-s{seed}-on-{tuned_on}", 128, seed, tuned_on=tuned_on)
            study.rank(["bigrec", *UNITED * ("+" in tuned_on)], run)
            study.write(run, {"foreign_titles": {other: 0.25}})
        share(study, dataset, seeds)
        untuned = keys(dataset, "n0-s0", 0, 0)
        study.rank(["bigrec"], untuned)
        study.write(untuned)
        if dataset == "films":
            speak(study, seeds[:2])
        tried = keys(dataset, f"n128-s{seeds[0]}-as-steep", 128, seeds[0], setting="steep")
        study.rank(["bigrec"], tried)
        study.tune(tried, learning_rate=0.01)
        for seed in seeds:
            of_run = {"constrained": True}
            study.rank(["bigrec"], keys(dataset, f"n128-s{seed}-constrained", 128, seed, **of_run))
            of_run = {"setting": "shuffled"}
            name = f"n128-s{seed}-as-shuffled"
            study.rank(["bigrec"], keys(dataset, name, 128, seed, **of_run))
            study.tune(keys(dataset, name, 128, seed, **of_run), shuffled=True)
            of_run |= {"tuned_on": other}
            study.rank(["bigrec"], keys(dataset, f"{name}-on-{other}", 128, seed, **of_run))
            study.rank(["popularity", *TRAINED], keys(dataset, f"full-s{seed}", 4096, seed))
    return study.publish(results)


def share(study, dataset, seeds):
    """The average of both domains' adapters; prompts that name the wrong one; what is counted of
    the catalogues, and how often titles of the other domain come up."""
    together = "+".join(DATASETS)
    for seed in seeds:
        merged = {"setting": "merged", "tuned_on": together}
        run = keys(dataset, f"n128-s{seed}-as-merged-on-{together}", 128, seed, **merged)
        study.rank(["bigrec"], run)
        wrong = keys(dataset, f"n128-s{seed}-worded-wrong", 128, seed, worded="wrong")
        study.rank(["bigrec", "bigrec-union"], wrong)
        plain = keys(dataset, f"n128-s{seed}", 128, seed)
        study.measures.append(
            pd.DataFrame(plain | {"what": ["in both"], "method": "bigrec-union", "value": 7.0})
        )
        for what, method in product(FOREIGN, UNITED):
            value = np.arange(EXAMPLES) % 4 / 4 * FOREIGN[what]
            rows = {"split": "test", "what": what, "method": method, "value": value}
            study.values.append(pd.DataFrame(plain | rows | {"example": np.arange(EXAMPLES)}))
        of_merge = keys(together, f"n128-s{seed}-as-merged", 128, seed, setting="merged")
        alike = {"other domain, same seed": {"": 0.1 + seed / 100, "q_proj": 0.2}}
        study.job("14a_merge_adapters", of_merge, {"cosines": alike})


FOREIGN = {
    "share of the first 20 that are of other data sets": 0.4,
    "nearest title is another data set's": 0.2,
    "is another data set's title": 0.1,
}
"""What is measured of each example, and the share of it that is added in steps."""


def speak(study, seeds):
    """Films by a larger LLM, tuned and as it is, and the texts of either grounded by the other."""
    untuned = keys("films", "n0-s0-by-large", 0, 0, lm="large")
    study.rank(["bigrec"], untuned)
    study.write(untuned)
    for seed in seeds:
        tuned = keys("films", f"n128-s{seed}-by-large", 128, seed, lm="large")
        study.rank(["bigrec", *INJECTED], tuned)
        study.tune(tuned)
        name = f"n128-s{seed}-by-large-in-study"
        study.rank(["bigrec"], tuned | {"run": name, "embedded_by": "study"})
        name = f"n128-s{seed}-in-large"
        study.rank(["bigrec"], keys("films", name, 128, seed, embedded_by="large"))


def main_run(study, run, main):
    """Everything there is at one training size and seed; less of it at a further size."""
    further = ["random", "popularity", *LAST, *COMPARED, "bigrec-unseen", "sasrec-ce-unseen"]
    further += UNITED
    study.rank(["bigrec", *INJECTED, *TRAINED, *(further if main else ())], run)
    study.tune(run)
    seconds = dict(zip(TRAINED, (1.0, 20.0, 30.0), strict=True))
    study.job("06_train_baselines", run, seconds_of=seconds)
    study.job("05_reweight_by_statistics", run, collaborative="sasrec-ce")
    for split in ("valid", "test"):
        rows = {"split": split, "gamma": [0.0, 1.0, 10.0], "metric": "NDCG", "k": 20}
        rows |= {"weights": "popularity", "value": [0.1, 0.15, 0.12 + run["seed"] / 100]}
        study.curves.append(pd.DataFrame(run | rows))


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
