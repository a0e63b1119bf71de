"""A study goes on without its `runs/`: what its jobs made is taken from its results.

Titles, ranks and other rows come from the published tables, adapters from their folders. A job that
made more, such as vectors, networks or an adapter that is not published, still counts as done as
long as nothing that reads it has to run.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bigrec_lib.files import StudyError, sha256, write_json, write_parquet, write_text
from bigrec_lib.study import manifests, publish
from bigrec_lib.study.jobs import begun
from bigrec_lib.study.parameters import GenerateTitles, PrepareData, TuneLLM
from bigrec_lib.study.parameters_analyses import Analysis
from bigrec_lib.study.parameters_checks import Parameters

NOTE = "taken_up.json"  # lies in a folder that was filled from the results: what it lacks
CODE = ("bigrec_lib/method/", "bigrec_lib/study/steps.py")  # makes adapters and titles
READ = (
    "adapter/adapter_model",
    "vectors/",
    "networks/",
    "scores/",
)  # read by others, in no table


def take_up(planned: dict[str, Parameters]) -> list[str]:
    """Fill the folders in which nothing was begun from the results; return the names of their jobs.

    Only if parameters, inputs and code are still the same (`of_code`). Data are prepared anew: it
    takes seconds. Raises StudyError if a published table is not the one published.
    """
    results = next(iter(planned.values())).results
    if not (results / manifests.PUBLISHED).exists():
        return []
    published = manifests.read_published(results)
    places = {job.output: key for key, job in planned.items()}
    jobs = {
        key: job
        for key, job in planned.items()
        if not isinstance(job, Analysis | PrepareData)
        and not (job.output / manifests.NAME).exists()
        and not begun(job).exists()
        and same(job, published["jobs"], places)
    }
    entries = {key: published["jobs"][key] for key in jobs}
    for table, names in publish.TABLES.items():
        parts = [(key, part) for key in jobs for part in names if part in entries[key]["rows"]]
        if not parts:
            continue
        path = results / table
        if sha256(path) != published["files"][table]:
            raise StudyError(f"{path} is not the file that was published: check it out anew")
        rows = read_rows(path)
        for key, part in parts:
            span = entries[key]["rows"][part]
            write_rows(rows.slice(*span), entries[key]["keys"], jobs[key].output / part)
    for key, job in jobs.items():
        complete(job, entries[key], published["files"])
    return list(jobs)


def same(job: Parameters, jobs: dict[str, dict], places: dict[Path, str]) -> bool:
    """Whether a published job would come out the same today, and its rows can be found.

    places: output -> job.
    """
    inputs = {maker: places.get(folder, "") for maker, folder in job.inputs.items()}
    if not jobs.keys() >= {job.job, *inputs.values()}:
        return False
    manifest = jobs[job.job]
    return (
        "rows" in manifest
        and manifests.with_defaults(job, manifest["parameters"]) == job.model_dump(exclude={"root"})
        and manifest["materials"] == job.materials
        and of_code(job, manifest["sources"]) == of_code(job, job.sources)
        and manifest["inputs"]
        == {maker: manifests.substance(jobs[key]) for maker, key in inputs.items()}
    )


def of_code(job: Parameters, sources: dict[str, str]) -> dict[str, str]:
    """The part of a job's sources that its output depends on.

    Adapters and titles are costly, and the library alone makes them: what their notebooks say about
    them is no reason to make them again. All other notebooks compute.
    """
    if not isinstance(job, TuneLLM | GenerateTitles):
        return sources
    return {name: digest for name, digest in sources.items() if name.startswith(CODE)}


def read_rows(table: Path) -> pa.Table:
    """A published table, with every digit of a CSV as it stands there."""
    if table.suffix == ".parquet":
        return pq.read_table(table)
    text = pd.read_csv(table, dtype=str, keep_default_na=False)
    return pa.Table.from_pandas(text, preserve_index=False)


def write_rows(rows: pa.Table, keys: dict[str, object], path: Path) -> None:
    """Write a job's rows of a published table as the job stores them, without the keys in front."""
    key_columns = [*keys, *["split"] * (path.stem in ("valid", "test"))]
    rows = rows.drop_columns(key_columns)
    empty_columns = [name for name in rows.column_names if 0 < len(rows) == rows[name].null_count]
    rows = rows.drop_columns(empty_columns)
    if path.suffix == ".csv":
        write_text(rows.to_pandas().to_csv(index=False), path)
    else:
        write_parquet(rows, path)


def complete(job: Parameters, manifest: dict, files: dict[str, str]) -> None:
    """Add a job's adapter, executed notebook and note of what it lacks; its manifest comes last."""
    if isinstance(job, TuneLLM):
        copy_adapter(job, manifest, files)
    notebook = job.results / "notebooks" / f"{job.job}.ipynb"
    if notebook.exists():
        text = publish.original_links(notebook.read_text(encoding="utf-8"))
        write_text(text, publish.executed(job))
    omissions = [name for name in manifest["outputs"] if not (job.output / name).exists()]
    write_json({"lacks": omissions}, job.output / NOTE)
    write_json(manifest, job.output / manifests.NAME)


def copy_adapter(job: TuneLLM, manifest: dict, files: dict[str, str]) -> None:
    """Copy the adapter, if it is among the published ones."""
    digest = manifest["outputs"][f"adapter/{publish.WEIGHTS}"]
    for name, file_digest in files.items():
        if file_digest == digest and name.startswith(f"{publish.ADAPTERS}/"):
            job.adapter.mkdir(parents=True, exist_ok=True)
            for path in (job.results / name).parent.glob("adapter_*"):
                shutil.copyfile(path, job.adapter / path.name)


def lacks(folder: Path) -> list[str] | None:
    """The files that a folder filled from the results lacks; None for any other folder."""
    path = folder / NOTE
    if not path.exists():
        return None
    names = json.loads(path.read_text(encoding="utf-8"))["lacks"]
    return [name for name in names if not (folder / name).exists()]


def withheld(folder: Path) -> list[str]:
    """The files that a folder lacks and that other jobs may read."""
    return [name for name in lacks(folder) or [] if name.startswith(READ)]
