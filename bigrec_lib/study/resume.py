"""A study goes on without its `runs/`: what 02 and 03 made is taken from its results.

Titles and other rows come from the published tables. Adapters are taken where they are published;
a tuning whose adapter is not still counts as done, as long as nothing that reads it has to run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bigrec_lib.files import StudyError, sha256, write_json, write_parquet, write_text
from bigrec_lib.study import manifests, publish
from bigrec_lib.study.parameters import GenerateTitles, TuneLLM
from bigrec_lib.study.parameters_checks import Parameters

NOTE = "taken_up.json"  # lies in a folder that was filled from the results: what it lacks
CODE = ("bigrec_lib/method/", "bigrec_lib/study/steps.py")  # makes adapters and titles


def take_up(planned: dict[str, Parameters]) -> list[str]:
    """Fill the folders of 02 and 03 in which nothing was begun from the results; return their jobs.

    Only if parameters, inputs and CODE are still the same: what a notebook says about it is no
    reason to make it again. Raises StudyError if a published table is not the one published.
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
        and not (job.output / manifests.NAME).exists()
        and not (job.runs / "begun" / f"{key}.json").exists()
        and same(job, published["jobs"], places)
    }
    for job in taken.values():
        fill(job, published)
    return list(taken)


def same(job: Parameters, jobs: dict[str, dict], places: dict[Path, str]) -> bool:
    """Whether a published job would come out the same today, and all its rows can be told from
    those of others. places: output -> job."""
    read = {maker: places.get(folder, "") for maker, folder in job.inputs.items()}
    if not jobs.keys() >= {job.job, *read.values()}:
        return False
    was = jobs[job.job]
    return (
        manifests.with_defaults(job, was["parameters"]) == job.model_dump(exclude={"root"})
        and was["materials"] == job.materials
        and of_code(was["sources"]) == of_code(job.sources)
        and was["inputs"] == {maker: manifests.substance(jobs[key]) for maker, key in read.items()}
        and not any(
            part in other["outputs"]
            for _, part in parts(was)
            for name, other in jobs.items()
            if name != job.job and other["keys"] == was["keys"]
        )
    )


def of_code(sources: dict[str, str]) -> dict[str, str]:
    """The part of a job's sources that makes what it makes."""
    return {name: digest for name, digest in sources.items() if name.startswith(CODE)}


def parts(made: dict) -> Iterator[tuple[str, str]]:
    """The published tables that hold a job's rows, and the file of its own for each."""
    for table, names in publish.TABLES.items():
        yield from ((table, name) for name in names if name in made["outputs"])


def fill(job: TuneLLM | GenerateTitles, published: dict[str, dict]) -> None:
    """Write into a job's folder what is published of it, its manifest last."""
    made, files = published["jobs"][job.job], published["files"]
    if isinstance(job, TuneLLM):
        copy_adapter(job, made, files)
    for table, part in parts(made):
        if sha256(job.results / table) != files[table]:
            raise StudyError(
                f"{job.results / table} is not the file that was published: check it out anew"
            )
        write_rows(job.results / table, made["keys"], job.output / part)
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
            job.adapter.mkdir(parents=True, exist_ok=True)
            for path in (job.results / name).parent.glob("adapter_*"):
                shutil.copyfile(path, job.adapter / path.name)


def write_rows(table: Path, keys: dict[str, object], path: Path) -> None:
    """Write a job's rows of a published table as the job stores them, without what is in front."""
    if path.suffix == ".csv":
        text = pd.read_csv(table, dtype=str, keep_default_na=False)
        rows = pa.Table.from_pandas(text, preserve_index=False)
        keys = {name: str(value) for name, value in keys.items()}
    else:
        rows = pq.read_table(table)
    in_front = keys | ({"split": path.stem} if path.stem in ("valid", "test") else {})
    for name, value in in_front.items():
        rows = rows.filter(pc.equal(rows[name], value)).drop_columns(name)
    of_others = [name for name in rows.column_names if rows[name].null_count == len(rows)]
    rows = rows.drop_columns(of_others)
    if path.suffix == ".csv":
        write_text(rows.to_pandas().to_csv(index=False), path)
    else:
        write_parquet(rows, path)


def lacks(job: Parameters) -> list[str] | None:
    """The files that a folder filled from the results lacks; None for any other folder."""
    path = job.output / NOTE
    if not path.exists():
        return None
    noted = json.loads(path.read_text(encoding="utf-8"))["lacks"]
    return [name for name in noted if not (job.output / name).exists()]
