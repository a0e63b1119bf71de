"""One job of a batch: under its lock, with its threads, its failure told in one line."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from bigrec_lib.files import StudyError, atomic, locked, sha256, write_text
from bigrec_lib.study import (
    environment,
    expansion,
    jobs,
    manifests,
    notebook,
    plan,
    provenance,
    publish,
    schema,
    steps,
    studies,
)
from bigrec_lib.study.parameters import GenerateTitles, TuneLLM
from bigrec_lib.study.parameters_checks import Parameters
from bigrec_lib.study.studies import ROOT

WORD = "BIGREC_BATCH"  # environment variable that tells jobs which batch they belong to


def marker(name: str, job: str) -> Path:
    """The file by which Snakemake knows that a job is done; `batch.mark` keeps it true."""
    return Path("runs") / name / "done" / job


def failures(name: str) -> Path:
    """Where jobs leave the line that says why they failed."""
    return ROOT / "runs" / name / "failures.txt"


def run_notebook(name: str, key: str) -> None:
    """One notebook of a study, unless what it reads came out the same."""
    study = studies.load(name)
    job = expansion.jobs(name, study)[key]
    print(f"── {key}{progress(name)}", file=sys.stderr, flush=True)
    with holding_lock(name, key), reporting_failure(name, key):
        needs = study.resources_of(job.notebook)
        environment.set_threads(needs.threads)
        if plan.why_again(job):
            plan.check_inputs(job)
            with own_gpus(needs):
                if isinstance(job, TuneLLM) and needs.processes > 1:
                    tune_in_processes(name, job, needs.processes)
                execute(job)
        else:
            print("   what it reads came out the same: still done", file=sys.stderr, flush=True)
        write_text("", marker(name, key))


def own_gpus(needs: schema.Resources) -> AbstractContextManager[None]:
    """`environment.own_gpus` for a job that asks for some; nobody else need look for GPUs."""
    usable = environment.usable_gpus(len(provenance.gpus())) if needs.gpus else []
    return environment.own_gpus(needs.gpus, usable, ROOT / "runs" / ".gpus" / platform.node())


def execute(job: Parameters) -> None:
    """Execute a notebook with its parameters and keep a record of it beside its manifest."""
    import nbformat

    logs = Path("runs") / job.study / "logs"
    raw = logs / f"{job.job}.ipynb"
    source = ROOT / "notebooks" / f"{job.notebook}.ipynb"
    notebook.execute(source, raw, job.model_dump(exclude_defaults=True), logs / f"{job.job}.log")
    record = notebook.record(raw, ROOT)
    record.metadata["bigrec"] = {"manifest": sha256(job.output / manifests.NAME)}
    with atomic(publish.executed(job)) as partial:
        nbformat.write(record, partial)


def run_shard(name: str, key: str, shard: int) -> None:
    """A part of the work of a 03_generate_titles."""
    study = studies.load(name)
    job = expansion.jobs(name, study)[key]
    shards = study.generation_shards
    key = f"{key}.{shard}-of-{shards}"
    print(f"── {key}", file=sys.stderr, flush=True)
    if not isinstance(job, GenerateTitles):
        raise StudyError(f"{job.job} does not generate titles: it has no shards")
    with holding_lock(name, key), reporting_failure(name, key):
        needs = study.resources_of(job.notebook)
        environment.set_threads(needs.threads)
        if plan.why_again(job):
            with own_gpus(needs):
                generate_shard(job, shard, shards)
        write_text("", marker(name, key))


def generate_shard(job: GenerateTitles, shard: int, shards: int) -> None:
    """What 03_generate_titles does in its two generating cells, for every n-th portion only."""
    with locked(job.runs / "locks" / "shards"):
        jobs.begin(job)
    writing = steps.open_writing(job)
    for split in writing.prompts:
        steps.generate(job, writing, split, (shard, shards))


def collect(name: str) -> None:
    """Publish the rows of all steps, for the analyses to read."""
    print(f"── {plan.COLLECT}", file=sys.stderr, flush=True)
    with holding_lock(name, plan.COLLECT), reporting_failure(name, plan.COLLECT):
        publish.collect(expansion.jobs(name, studies.load(name)))
        write_text("", marker(name, plan.COLLECT))


def tune_in_processes(name: str, job: TuneLLM, processes: int) -> None:
    """Tune in several processes; the notebook then finds the tuning finished."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--num_processes", str(processes), "-m", "bigrec_lib.study.batch"]
    command += ["tune", name, job.job]
    jobs.lock(job)
    jobs.begin(job)
    if subprocess.run(command).returncode:
        raise StudyError(f"{job.job}: tuning in {processes} processes failed: see above")
    jobs.unlock(job)


def tune(job: Parameters) -> None:
    """What 02_tune_llm does in its tuning cell, as one of several processes."""
    if not isinstance(job, TuneLLM):
        raise StudyError(f"{job.job} tunes nothing")
    base = steps.load(job)
    steps.tune(job, base, *steps.tuning_samples(job, base.tokenizer))


@contextmanager
def reporting_failure(name: str, key: str) -> Iterator[None]:
    """Give every failure of a job one line, here and at the end of the batch."""
    try:
        yield
    except (StudyError, OSError) as error:
        line = str(error) if isinstance(error, StudyError) else f"{key}: {error}"
        with suppress(OSError), open(failures(name), "a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")
        raise StudyError(line) from None


@contextmanager
def holding_lock(name: str, key: str) -> Iterator[None]:
    """Hold a job's lock, provided that the batch that started it, if any, still runs.

    A killed batch may leave a job behind that has yet to begin. The job looks at the batch's word
    after it has taken its lock; the next batch looks at the locks after it has written its word.
    So one of them sees the other.
    """
    with locked(ROOT / "runs" / name / "locks" / f"{key}.process"):
        word = os.environ.get(WORD)
        if word and (ROOT / "runs" / name / ".lock").read_text() != word:
            raise StudyError(f"{key}: the batch that asked for it is gone")
        yield


def progress(name: str) -> str:
    """How far the batch is, from what it wrote down when it began; '' outside one."""
    path = ROOT / "runs" / name / "batch.json"
    if not path.exists():
        return ""
    todo = json.loads(path.read_text(encoding="utf-8"))
    rest = {key: seconds for key, seconds in todo.items() if not marker(name, key).exists()}
    done = f"{len(todo) - len(rest)} of {len(todo)} jobs done"
    if not all(rest.values()):
        return f" ({done})"
    return f" ({done}, {plan.duration(sum(map(float, rest.values())))} left)"
