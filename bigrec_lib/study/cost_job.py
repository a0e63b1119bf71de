"""The job of 17a: every contestant of a run, measured in a process of its own.

    python -m bigrec_lib.study.cost_job '<parameters of 17a as JSON>' <contestant>

prints a `services.Cost` as JSON in its last line, with the most memory that the process took;
for TUNING, the seconds of the run's tuning (`tuning_seconds`).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pandas as pd

from bigrec_lib.files import StudyError
from bigrec_lib.method import assets, prepared
from bigrec_lib.study import environment, manifests, provenance
from bigrec_lib.study.parameters import MeasureCost, TuneLLM
from bigrec_lib.study.parameters_steps import Baseline

if TYPE_CHECKING:
    from bigrec_lib.method.services import Service

BIGREC = ("bigrec", "bigrec-cached", "bigrec-constrained")
TUNING = "tuning"  # no contestant: how long the LLM's tuning takes
STEPS = 16  # of tuning that are timed


def contestants(p: MeasureCost) -> list[str]:
    """Who is measured: BIGRec, and what 06 trained on the same samples."""
    variants = [name for name in BIGREC if p.trie or name != "bigrec-constrained"]
    if not p.conventional:
        return variants
    names = sorted(path.name for path in (p.baselines / "networks").iterdir())
    models = [name for name in names if name in (p.models or get_args(Baseline))]
    return ["popularity", *models, *variants]


def measured(p: MeasureCost, contestant: str) -> dict:
    """Measure one contestant in a process of its own, with `p.threads` threads.

    Raises StudyError with the end of its error messages if it fails.
    """
    parameters = json.dumps(p.model_dump())
    threads = dict.fromkeys(environment.THREADS, str(p.threads))
    process = subprocess.run(
        [sys.executable, "-m", "bigrec_lib.study.cost_job", parameters, contestant],
        env=os.environ | threads,
        cwd=p.project,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise StudyError(f"{contestant} could not be measured: {process.stderr.strip()[-300:]}")
    return json.loads(process.stdout.splitlines()[-1])


@contextmanager
def conventional(p: MeasureCost, contestant: str) -> Iterator[Service]:
    """A conventional model that 06 trained, ready to answer."""
    from bigrec_lib.method import baselines, sequences, services, windows

    data = prepared.read(p.data)
    length = manifests.read(p.data)["parameters"]["history"]
    train_examples = sequences.sample(data.examples("train"), p.n_train, p.seed)
    train, test = (
        windows.windows(examples, data.of_item, length)
        for examples in (train_examples, data.examples("test", p.requests))
    )
    if contestant == "popularity":
        yield services.Scores(baselines.most_popular(train), test)
    else:
        score = baselines.reopened(contestant, train, p.baselines / "networks" / contestant)
        yield services.Scores(score, test)


@contextmanager
def bigrec(p: MeasureCost, contestant: str) -> Iterator[Service]:
    """BIGRec, ready to answer: LLMs loaded, the adapter merged, the catalogue's vectors read."""
    from bigrec_lib.method import (
        beams,
        cheaper,
        embedding,
        finders,
        generation,
        llm,
        samples,
        services,
    )
    from bigrec_lib.study import steps

    data, writing = prepared.read(p.data), manifests.read(p.generations)["parameters"]
    vectors = embedding.load(p.grounding / "vectors" / "titles.safetensors")["vectors"]
    load = partial(llm.load_llm, p.model, p.quantisation, p.dtype, p.device)
    base, tuned = load(), load(adapter=p.adapter)
    examples = data.examples("test", p.requests).to_pandas()
    test_samples = samples.samples(
        examples, data.titles, data.words, tuned.tokenizer, writing["max_tokens"]
    )
    answers = beams.answer_tokens(tuned.tokenizer, data.titles)
    constrained = contestant == "bigrec-constrained"
    room = writing["max_new_tokens"] or beams.room_for(answers, 1.0 if constrained else steps.ROOM)
    search = beams.Search(room, writing["beams"], max(p.batches), writing["length_penalty"])
    way: cheaper.Way = cheaper.Scan(vectors, services.K)
    if contestant != "bigrec":
        rows = cheaper.Rows(vectors, services.K)
        way = cheaper.Cascade([finders.Equal(data.candidates)], rows)
    trie = steps.fitting_trie(answers, room) if constrained else None
    with generation.plain(tuned.model.eval()) as model:
        writer = replace(tuned, model=model)
        yield services.Titles(
            writer, base, [sample.prompt for sample in test_samples], search, trie, way
        )


def tuning_seconds(p: MeasureCost) -> dict[str, float]:
    """Seconds that the run's tuning takes on this machine: of a step, of a validation, and of all
    steps and validations (training).

    From STEPS of its steps and as many batches of validation: 02 may have run on another machine,
    or beside other jobs. No general stage (`instructions`) before is counted.
    """
    from bigrec_lib.method import llm, losses, tuning
    from bigrec_lib.study import steps

    job = TuneLLM.model_validate(manifests.read(p.tuning)["parameters"] | {"root": p.root})
    load = partial(llm.load_llm, p.model, p.quantisation, p.dtype, p.device)
    base, tuned = load(), load(adapter=p.adapter)
    train, valid = steps.tuning_samples(job, base.tokenizer)
    limit = job.batch_size * STEPS
    some, some_valid = (part[:: max(1, len(part) // limit)][:limit] for part in (train, valid))
    settings = tuning.Tuning(**job.settings | {"epochs": 1, "patience": 0})
    with tempfile.TemporaryDirectory() as folder:
        log = tuning.tune(base, some, some_valid[:1], settings, Path(folder))
    step = float(log.seconds.diff().iloc[1:].mean()) if len(log) > 1 else float(log.seconds[0])
    sharing = not settings.gradient_checkpointing
    data = losses.prepare(tuned, some_valid, settings.learn_prompt, sharing)
    begun = time.perf_counter()
    losses.evaluate(tuned, tuned.model, data, settings.at_once)
    validation = (time.perf_counter() - begun) * len(valid) / len(some_valid)
    all_steps = step * len(train) / job.batch_size * job.epochs
    training = all_steps + validation * math.ceil(job.epochs)
    return {"step": step, "validation": validation, "training": training}


def training(p: MeasureCost) -> dict[str, float]:
    """Seconds of training with the chosen settings, by name: 'sasrec-ce, training'.

    Those of the search for settings are recorded by the jobs of 06.
    """
    from bigrec_lib.method import baselines

    seconds: dict[str, float] = {}
    timed = measured(p, TUNING)
    for name in contestants(p):
        if name in BIGREC:
            seconds |= {f"{name}, {what}": value for what, value in timed.items()}
        elif name != "popularity":
            points = baselines.tried(p.baselines / "networks" / name)
            seconds[f"{name}, training"] = points[baselines.best_of(name, points)]["seconds"]
    return seconds


def disk(p: MeasureCost) -> dict[str, int]:
    """Bytes on disk of what each contestant needs to answer, as far as it keeps files of its own.

    BIGRec: the LLM, its adapter and the catalogue's vectors.
    """
    vectors = p.grounding / "vectors" / "titles.safetensors"
    bigrec_size = size_of(llm_files(p.model)) + size_of(p.adapter) + vectors.stat().st_size
    sizes = {}
    for name in contestants(p):
        networks = p.baselines / "networks" / name
        weights = list(networks.glob("*.safetensors")) if p.conventional else []
        if name in BIGREC or weights:
            sizes[name] = bigrec_size if name in BIGREC else sum(w.stat().st_size for w in weights)
    return sizes


def llm_files(model: str) -> Path:
    """The folder of an LLM: an asset's, its own, or that of Hugging Face's cache."""
    if model in assets.MODELS:
        return assets.fetch(model)
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, local_files_only=True))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(parameters: str, contestant: str) -> None:
    import torch

    from bigrec_lib.method import services

    p = MeasureCost.model_validate(json.loads(parameters))
    torch.set_num_threads(p.threads)
    if contestant == TUNING:
        print(json.dumps(tuning_seconds(p)))
        return
    context = (bigrec if contestant in BIGREC else conventional)(p, contestant)
    cost = services.measure(context, p.requests, p.batches)
    print(json.dumps(cost.shown() | {"peak_gb": provenance.peak_memory_gb()}))


def flat(costs: pd.DataFrame) -> dict[str, float]:
    """A table with a row per contestant as name -> number, with names like 'bigrec, p50'."""
    return {
        f"{row['method']}, {column}": round(float(row[column]), 7)
        for _, row in costs.iterrows()
        for column in costs.columns.drop("method")
        if row[column] == row[column]
    }


def table(costs: dict[str, dict]) -> pd.DataFrame:
    """What was measured, a row per contestant: columns method, ready, first, p50, p95, p99 and the
    median of each stage in seconds, batch and per_second of the fastest batch, joules, peak_gb."""
    rows = []
    for name, cost in costs.items():
        seconds = {stage: pd.Series(values) for stage, values in cost["seconds"].items()}
        row = {"method": name, "ready": cost["ready"], "first": cost["first"]}
        row |= {f"p{q}": seconds["request"].quantile(q / 100) for q in (50, 95, 99)}
        row |= {stage: values.median() for stage, values in seconds.items() if stage != "request"}
        batch, fastest = max(cost["per_second"].items(), key=lambda pair: pair[1])
        row |= {"batch": int(batch), "per_second": fastest, "joules": cost["joules"]}
        rows.append(row | {"peak_gb": cost["peak_gb"]})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
