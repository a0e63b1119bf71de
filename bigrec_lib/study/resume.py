"""A study goes on without its `runs/`: what 02 and 03 made is taken from its results.

Titles come from `generations.parquet`. Of adapters only some are published; a tuning whose adapter
is not still counts as done, as long as nothing that reads it has to run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigrec_lib.files import write_json, write_parquet, write_text
from bigrec_lib.study import manifests, publish
from bigrec_lib.study.parameters import GenerateTitles, TuneLLM
from bigrec_lib.study.parameters_checks import Parameters

NOTE = "taken_up.json"  # lies in a folder that was filled from the results: what it lacks
METHOD = "bigrec_lib/method/"


def take_up(planned: dict[str, Parameters]) -> list[str]:
    """Fill the folders of 02 and 03 that do not exist from the results; return their jobs.

    Only if parameters, inputs and the code of `method` are still the same: what a notebook says
    about it is no reason to make it again.
    """
    results = next(iter(planned.values())).results
    if not (results / manifests.PUBLISHED).exists():
        return []
    published = manifests.read_published(results)
    places = {job.output: key for key, job in planned.items()}
    taken = {
        key: job
        for key, job in planned.items()
        if isinstance(job, TuneLLM | GenerateTitles)
        and not job.output.exists()
        and same(job, published["jobs"], places)
    }
    for job in taken.values():
        fill(job, published)
    return list(taken)


def same(job: Parameters, jobs: dict[str, dict], places: dict[Path, str]) -> bool:
    """Whether a published job would come out the same today. places: output -> job."""
    read = {maker: places.get(folder, "") for maker, folder in job.inputs.items()}
    if not jobs.keys() >= {job.job, *read.values()}:
        return False
    was = jobs[job.job]
    return (
        manifests.with_defaults(job, was["parameters"]) == job.model_dump(exclude={"root"})
        and was["materials"] == job.materials
        and of_method(was["sources"]) == of_method(job.sources)
        and was["inputs"] == {maker: manifests.substance(jobs[key]) for maker, key in read.items()}
    )


def of_method(sources: dict[str, str]) -> dict[str, str]:
    """The part of a job's sources that makes what it makes."""
    return {name: digest for name, digest in sources.items() if name.startswith(METHOD)}


def fill(job: TuneLLM | GenerateTitles, published: dict[str, dict]) -> None:
    """Write into a job's folder what is published of it, its manifest last."""
    made = published["jobs"][job.job]
    if isinstance(job, TuneLLM):
        copy_adapter(job, made, published["files"])
    else:
        write_beams(job, made["keys"])
    shown = job.results / "notebooks" / f"{job.job}.ipynb"
    if shown.exists():
        write_text(publish.back(shown.read_text(encoding="utf-8")), publish.executed(job))
    lacking = [name for name in made["outputs"] if not (job.output / name).exists()]
    write_json({"lacks": lacking}, job.output / NOTE)
    write_json(made, job.output / manifests.NAME)


def copy_adapter(job: TuneLLM, made: dict, files: dict[str, str]) -> None:
    """Copy the adapter, if it is among the published ones."""
    digest = made["outputs"][f"adapter/{publish.WEIGHTS}"]
    for name, found in files.items():
        if found == digest and name.startswith(f"{publish.ADAPTERS}/"):
            folder = (job.results / name).parent
            shutil.copytree(folder, job.adapter, ignore=shutil.ignore_patterns("README.md"))
            return


def write_beams(job: GenerateTitles, keys: dict[str, object]) -> None:
    """Write a run's rows of `generations.parquet` as 03 stores them."""
    table = pq.read_table(
        job.results / "generations.parquet",
        filters=[(name, "==", value) for name, value in keys.items()],
    )
    rest = [name for name in table.column_names if name not in keys and name != "split"]
    for split in pc.unique(table["split"]).to_pylist():
        rows = table.filter(pc.equal(table["split"], split)).select(rest)
        write_parquet(rows, job.beams_of / f"{split}.parquet")


def lacks(job: Parameters) -> list[str] | None:
    """The files that a folder filled from the results lacks; None for any other folder."""
    path = job.output / NOTE
    return json.loads(path.read_text(encoding="utf-8"))["lacks"] if path.exists() else None
