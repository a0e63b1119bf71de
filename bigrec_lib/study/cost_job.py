"""The job of 17a: every contestant of a run, measured in a process of its own.

    python -m bigrec_lib.study.cost_job '<parameters of 17a as JSON>' <contestant>

prints a `services.Cost` as JSON in its last line, with the most memory that the process took;
for TUNING, the seconds of the run's tuning.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
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
STEPS = 16  # of it that are timed


def contestants(p: MeasureCost) -> list[str]:
    """Who is measured: BIGRec, and what 06 trained on the same samples."""
    of_llm = [name for name in BIGREC if p.trie or name != "bigrec-constrained"]
    if not p.conventional:
        return of_llm
    there = sorted(path.name for path in (p.baselines / "networks").iterdir())
    trained = [name for name in there if name in (p.models or get_args(Baseline))]
    return ["popularity", *trained, *of_llm]


def measured(p: MeasureCost, contestant: str) -> dict:
    """Measure one contestant in a process of its own, with `p.threads` threads.

    Raises StudyError with the end of what it said if it fails.
    """
    told = json.dumps(p.model_dump())
    pinned = dict.fromkeys(environment.THREADS, str(p.threads))
    done = subprocess.run(
        [sys.executable, "-m", "bigrec_lib.study.cost_job", told, contestant],
        env=os.environ | pinned,
        cwd=p.project,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StudyError(f"{contestant} could not be measured: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def conventional(p: MeasureCost, contestant: str) -> Iterator[Service]:
    """A conventional model that 06 trained, ready to answer."""
    from bigrec_lib.method import baselines, sequences, services, windows

    data = prepared.read(p.data)
    length = manifests.read(p.data)["parameters"]["history"]
    drawn = sequences.sample(data.examples("train"), p.n_train, p.seed)
    train, test = (
        windows.windows(table, data.of_item, length)
        for table in (drawn, data.examples("test", p.requests))
    )
    if contestant == "popularity":
        yield services.Scores(baselines.most_popular(train), test)
    else:
        score = baselines.reopened(contestant, train, p.baselines / "networks" / contestant)
        yield services.Scores(score, test)


@contextmanager
def bigrec(p: MeasureCost, contestant: str) -> Iterator[Service]:
    """BIGRec, ready to answer: LLMs loaded, the adapter added in, the catalogue's vectors read."""
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

    data, of_03 = prepared.read(p.data), manifests.read(p.generations)["parameters"]
    vectors = embedding.load(p.grounding / "vectors" / "titles.safetensors")["vectors"]
    load = partial(llm.load_llm, p.model, p.quantisation, p.dtype, p.device)
    base, tuned = load(), load(adapter=p.adapter)
    frame = data.examples("test", p.requests).to_pandas()
    told = samples.samples(frame, data.titles, data.words, tuned.tokenizer, of_03["max_tokens"])
    answers = beams.answer_tokens(tuned.tokenizer, data.titles)
    constrained = contestant == "bigrec-constrained"
    room = of_03["max_new_tokens"] or beams.room_for(answers, 1.0 if constrained else steps.ROOM)
    search = beams.Search(room, of_03["beams"], max(p.batches), of_03["length_penalty"])
    way: cheaper.Way = cheaper.Scan(vectors, services.K)
    if contestant != "bigrec":
        rows = cheaper.Rows(vectors, services.K)
        way = cheaper.Cascade([finders.Equal(data.candidates)], rows)
    trie = steps.fitting_trie(answers, room) if constrained else None
    with generation.plain(tuned.model.eval()) as merged:
        writer = replace(tuned, model=merged)
        yield services.Titles(writer, base, [sample.prompt for sample in told], search, trie, way)


def tuning_seconds(p: MeasureCost) -> float:
    """Seconds that the run's tuning takes on this machine, from STEPS of its steps.

    02 may have run on another machine, or beside other jobs. As 02's own seconds, these include
    all validations but the last, and no general stage (`instructions`) before.
    """
    from bigrec_lib.method import llm, tuning
    from bigrec_lib.study import steps

    of_02 = TuneLLM.model_validate(manifests.read(p.tuning)["parameters"] | {"root": p.root})
    base = llm.load_llm(p.model, p.quantisation, p.dtype, p.device)
    learnt, held_out = steps.tuning_samples(of_02, base.tokenizer)
    most = of_02.batch_size * STEPS // 2
    some, few = learnt[:: max(1, len(learnt) // most)][:most], held_out[: of_02.batch_size]
    settings = tuning.Tuning(**of_02.settings | {"epochs": 2, "patience": 0})
    with tempfile.TemporaryDirectory() as folder:
        log = tuning.tune(base, some, few, settings, Path(folder))
    each = np.diff(log.seconds, prepend=0)
    begins = len(log) // 2  # the step after the validation
    step = np.delete(each, [0, begins]).mean() if len(log) > 2 else each[0]
    validation = max(0.0, each[begins] - step) * len(held_out) / len(few)
    taken = step * len(learnt) / of_02.batch_size * of_02.epochs
    return float(taken + validation * (math.ceil(of_02.epochs) - 1))


def training(p: MeasureCost) -> dict[str, float]:
    """Seconds of training what was chosen, as names and numbers: 'sasrec-ce, training'.

    What the search for settings takes, the jobs of 06 have recorded.
    """
    from bigrec_lib.method import baselines

    found: dict[str, float] = {}
    tuned = measured(p, TUNING)["seconds"]
    for name in contestants(p):
        if name in BIGREC:
            found[f"{name}, training"] = tuned
        elif name != "popularity":
            tried = baselines.tried(p.baselines / "networks" / name)
            found[f"{name}, training"] = tried[baselines.best_of(name, tried)]["seconds"]
    return found


def disk(p: MeasureCost) -> dict[str, int]:
    """Bytes on disk of what each contestant needs to answer, as far as it keeps files of its own.

    BIGRec: the LLM, its adapter and the catalogue's vectors.
    """
    vectors = p.grounding / "vectors" / "titles.safetensors"
    of_llm = size_of(llm_files(p.model)) + size_of(p.adapter) + vectors.stat().st_size
    found = {}
    for name in contestants(p):
        networks = p.baselines / "networks" / name
        weights = list(networks.glob("*.safetensors")) if p.conventional else []
        if name in BIGREC or weights:
            found[name] = of_llm if name in BIGREC else sum(w.stat().st_size for w in weights)
    return found


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


def main(told: str, contestant: str) -> None:
    import torch

    from bigrec_lib.method import services

    p = MeasureCost.model_validate(json.loads(told))
    torch.set_num_threads(p.threads)
    if contestant == TUNING:
        print(json.dumps({"seconds": tuning_seconds(p)}))
        return
    opened = (bigrec if contestant in BIGREC else conventional)(p, contestant)
    found = services.measure(opened, p.requests, p.batches)
    print(json.dumps(found.shown() | {"peak_gb": provenance.peak_memory_gb()}))


def flat(table: pd.DataFrame) -> dict[str, float]:
    """A table with a row a contestant as names and numbers: 'bigrec, p50'."""
    return {
        f"{row['method']}, {what}": round(float(row[what]), 7)
        for _, row in table.iterrows()
        for what in table.columns.drop("method")
        if row[what] == row[what]
    }


def table(found: dict[str, dict]) -> pd.DataFrame:
    """What was measured, a row a contestant: columns method, ready, first, p50, p95, p99 and the
    median of each stage in seconds, batch and per_second of the fastest batch, joules, peak_gb."""
    rows = []
    for name, cost in found.items():
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
