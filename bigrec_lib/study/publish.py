"""From what the jobs worked out in `runs/<study>` to the few files of `results/<study>`.

`collect` puts the rows of all jobs into one table per kind, which the analyses then read. `finish`
adds what the analyses made: tables, figures, claims, executed notebooks and the site. Publishing
the same work again gives the same bytes, but for `manifests.json`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bigrec_lib.files import (
    StudyError,
    atomic,
    remove,
    sha256,
    write_json,
    write_text,
)
from bigrec_lib.study import explorer, manifests, run_names
from bigrec_lib.study.manifests import PUBLISHED, is_analysis
from bigrec_lib.study.parameters_analyses import Analysis
from bigrec_lib.study.parameters_checks import Parameters

TABLES = {
    "ranks.parquet": ["ranks.parquet"],
    "lists.parquet": ["lists.parquet"],
    "generations.parquet": ["beams/valid.parquet", "beams/test.parquet"],
    "curves.parquet": ["curves.parquet"],
    "explorer.parquet": ["explorer.parquet"],
    "items.parquet": ["items.parquet"],
    "examples.parquet": ["examples/valid.parquet", "examples/test.parquet"],
    "metrics.csv": ["metrics.csv"],
    "grid.csv": ["grid.csv"],
    "data.csv": ["data.csv"],
    "measures.csv": ["measures.csv"],
    "values.parquet": ["values.parquet"],
    "selections.parquet": ["selections.parquet"],
}
"""Published table -> the files of a job's output that it is made of."""

OF_TYPICAL = ("explorer.parquet",)  # tables of the shown runs (`shown_jobs`) only
OF_DATA = ("items.parquet", "examples.parquet", "data.csv")  # tables that belong to a data set
ADAPTERS = "adapters"  # the folder of published adapters
WEIGHTS = "adapter_model.safetensors"
PRIVATE = ("item_id", "raw_title")  # columns that readers of the results do not need


def steps_of(planned: dict[str, Parameters]) -> dict[str, Parameters]:
    """The jobs that are no analyses, by data set, run and stage."""
    steps = {key: job for key, job in planned.items() if not isinstance(job, Analysis)}
    return dict(sorted(steps.items(), key=lambda step: step[1].output))


def why_collect(planned: dict[str, Parameters]) -> str:
    """Why the finished steps have yet to be collected; '' if they are published as they are."""
    steps = steps_of(planned)
    results = next(iter(steps.values())).results
    if not (results / PUBLISHED).exists():
        return "missing"
    published = manifests.read_published(results)
    manifest_of = {name: m for name, m in published["jobs"].items() if not is_analysis(m)}
    for key, job in steps.items():
        if key not in manifest_of or not same(manifest_of[key], manifests.read(job.output)):
            return f"{key} is not published"
    if surplus := set(manifest_of) - set(steps):
        return f"{min(surplus)} is published and no longer asked for"
    names = [*TABLES, *(f"notebooks/{key}.ipynb" for key in shown_jobs(manifest_of))]
    gaps = [name for name in names if name in published["files"] and not (results / name).exists()]
    return f"{gaps[0]} is gone" if gaps else ""


def same(published: dict, manifest: dict) -> bool:
    """Whether a published manifest still tells another machine all it needs to take the job up."""
    equal = manifests.substance(published) == manifests.substance(manifest)
    return equal and published["sources"] == manifest["sources"] and "rows" in published


def collect(planned: dict[str, Parameters]) -> None:
    """Publish the rows, manifests and typical notebooks of all finished steps of a study.

    A published manifest says where its job's rows are: part of the output -> first row, number.
    """
    steps = steps_of(planned)
    results = next(iter(steps.values())).results
    manifest_of = {key: manifests.read(job.output) | {"rows": {}} for key, job in steps.items()}
    files = []
    shown_keys = set(shown_jobs(manifest_of))
    for name in TABLES:
        frames: list[pa.Table] = []
        for key, job in steps.items():
            if name in OF_TYPICAL and key not in shown_keys:
                continue
            for part, rows in rows_of(name, job, manifest_of[key]):
                manifest_of[key]["rows"][part] = [sum(map(len, frames)), len(rows)]
                frames.append(rows)
        if frames:
            write_table(results / name, frames)
            files.append(results / name)
    for key in sorted(shown_keys):
        files.append(keep_notebook(steps[key], results))
    exists = (results / PUBLISHED).exists()
    published = manifests.read_published(results) if exists else {"jobs": {}, "files": {}}
    analyses = {key: m for key, m in published["jobs"].items() if is_analysis(m)}
    hashes = {name: digest for name, digest in published["files"].items() if name not in TABLES}
    write_manifests(results, manifest_of | analyses, files, hashes)


def rows_of(name: str, job: Parameters, manifest: dict) -> Iterator[tuple[str, pa.Table]]:
    """The files of a job that belong to a table, and their rows with the keys in front."""
    keys = {"dataset": manifest["keys"]["dataset"]} if name in OF_DATA else manifest["keys"]
    for part in TABLES[name]:
        if part not in manifest["outputs"]:
            continue
        path = job.output / part
        if path.suffix == ".csv":
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)  # every digit as it is
            rows = pa.Table.from_pandas(frame, preserve_index=False)
        else:
            rows = pq.read_table(path)
        rows = rows.drop_columns([column for column in PRIVATE if column in rows.column_names])
        columns = keys | ({"split": path.stem} if path.stem in ("valid", "test") else {})
        for place, (column, value) in enumerate(columns.items()):
            rows = rows.add_column(place, column, pa.repeat(value, len(rows)))
        yield part, rows.replace_schema_metadata()


def write_table(path: Path, frames: Sequence[pa.Table]) -> None:
    """Write the rows of some jobs, one after the other.

    In a parquet file each job is a row group: its bytes stay the same whatever else is published,
    so that Git stores only what is new.
    """
    table = pa.concat_tables(frames, promote_options="default")
    if path.suffix == ".csv":
        write_text(table.to_pandas().to_csv(index=False), path)
        return
    firsts = np.cumsum([0, *map(len, frames[:-1])])
    with (
        atomic(path) as partial,
        pq.ParquetWriter(partial, table.schema, compression="zstd") as writer,
    ):
        for first, frame in zip(firsts, frames, strict=True):
            rows = table.slice(first, len(frame))
            writer.write_table(rows, row_group_size=max(len(rows), 1))


def shown_jobs(manifest_of: dict[str, dict]) -> list[str]:
    """The steps that are shown: those of a whole data set; of each data set, the run with the first
    seed of the size that has the most seeds (of several such, the largest); and the first job of
    any other notebook. manifest_of: job -> manifest."""
    runs = {
        key: (m["keys"]["dataset"], m["keys"]["n_train"], m["keys"]["seed"])
        for key, m in manifest_of.items()
        if m["keys"]["n_train"] and run_names.is_plain(m["keys"]["run"])
    }
    seeds: dict[tuple[str, int], set[int]] = {}
    for dataset, n_train, seed in runs.values():
        seeds.setdefault((dataset, n_train), set()).add(seed)
    shown_runs: dict[str, tuple[str, int, int]] = {}
    for dataset, n_train in sorted(seeds, key=lambda key: (len(seeds[key]), key[1])):
        shown_runs[dataset] = (dataset, n_train, min(seeds[dataset, n_train]))
    dataset_keys = [key for key, m in manifest_of.items() if not m["keys"]["run"]]
    keys = dataset_keys + [key for key, run in runs.items() if shown_runs[run[0]] == run]
    notebooks = {manifest_of[key]["notebook"] for key in keys}
    first_keys: dict[str, str] = {}
    for key, m in manifest_of.items():
        first_keys.setdefault(m["notebook"], key)
    return keys + [key for notebook, key in first_keys.items() if notebook not in notebooks]


def executed(job: Parameters) -> Path:
    """Where the batch keeps the executed notebook of a job."""
    return job.runs / "executed" / f"{job.job}.ipynb"


def keep_notebook(job: Parameters, results: Path) -> Path:
    """Publish a job's executed notebook, without what ties it to this very run."""
    notebook = json.loads(executed(job).read_text(encoding="utf-8"))
    notebook["metadata"].pop("bigrec", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = [moved_links(line) for line in cell["source"]]
    path = results / "notebooks" / f"{job.job}.ipynb"
    write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", path)
    return path


def moved_links(text: str) -> str:
    """Markdown of `notebooks/` with its relative links as they are in `results/<study>/notebooks`.

    >>> moved_links("[a](../docs/glossary.md), [b](https://x.org)")
    '[a](../../../docs/glossary.md), [b](https://x.org)'
    """
    return text.replace("](../", "](../../../")


def original_links(text: str) -> str:
    """Undo `moved_links`.

    >>> original_links(moved_links("[a](../docs/glossary.md)"))
    '[a](../docs/glossary.md)'
    """
    return text.replace("](../../../", "](../")


def pending(results: Path, analyses: list[Analysis]) -> bool:
    """Whether finished analyses have yet to be published as they are."""
    published = manifests.read_published(results)
    manifest_of = {job.job: manifests.read(job.output) for job in analyses}
    entries = {key: m for key, m in published["jobs"].items() if is_analysis(m)}
    return entries != manifest_of or not all(
        (results / name).exists() for name in published["files"]
    )


def finish(results: Path, analyses: list[Analysis]) -> None:
    """Publish what these analyses made, write the site, and remove what is no longer published."""
    published = manifests.read_published(results)
    steps = {key: m for key, m in published["jobs"].items() if not is_analysis(m)}
    files = [results / name for name in TABLES if (results / name).exists()]
    files += [results / "notebooks" / f"{key}.ipynb" for key in shown_jobs(steps)]
    files += [results / name for name in kept_adapters(published)]
    files = [
        path
        for path in files
        if path.exists() and path.relative_to(results).as_posix() in published["files"]
    ]
    for job in analyses:
        files.append(keep_notebook(job, results))
        for path in sorted([*job.tables.glob("*"), *job.figures.glob("*")]):
            copy = results / path.parent.name / path.name
            if copy in files:
                raise StudyError(f"two analyses write {path.parent.name}/{path.name}: rename one")
            with atomic(copy) as partial:
                shutil.copyfile(path, partial)
            files.append(copy)
    files.append(gather_claims(results, analyses))
    files += explorer.write(results)
    files += write_site(results, [*sorted(shown_jobs(steps)), *(job.job for job in analyses)])
    manifest_of = {job.job: manifests.read(job.output) for job in analyses}
    write_manifests(results, steps | manifest_of, files, {})
    tidy(results)


def write_site(results: Path, jobs: list[str]) -> list[Path]:
    """Have the site written from the notebooks of these jobs, and return its files.

    In a process of its own, as notebooks are run: this wing imports nothing of `findings`.
    """
    command = [sys.executable, "-m", "bigrec_lib.findings.site", str(results), *jobs]
    process = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if process.returncode:
        raise StudyError(f"{results.name}: the site could not be written: {process.stderr.strip()}")
    return [results / name for name in json.loads(process.stdout)]


def kept_adapters(published: dict[str, dict]) -> list[str]:
    """The files of published adapters that are still those of the study's jobs.

    published: the content of manifests.json.
    """
    tuned_digests = {m["outputs"].get(f"adapter/{WEIGHTS}") for m in published["jobs"].values()}
    files = {Path(name): digest for name, digest in published["files"].items()}
    folders = {
        path.parent
        for path, digest in files.items()
        if path.parts[0] == ADAPTERS and path.name == WEIGHTS and digest in tuned_digests
    }
    return [path.as_posix() for path in files if path.parent in folders]


def gather_claims(results: Path, analyses: list[Analysis]) -> Path:
    """The claims of all analyses in one file, in the order of the notebooks."""
    paths = [job.output / "claims.csv" for job in analyses]
    as_written: dict = {"dtype": str, "keep_default_na": False}
    frames = [pd.read_csv(path, **as_written) for path in paths if path.exists()]
    path = results / "claims.csv"
    write_text(pd.concat(frames).to_csv(index=False) if frames else "", path)
    return path


def write_manifests(results: Path, jobs: dict[str, dict], files: list[Path], extra: dict) -> None:
    """Write manifests.json. extra: further files with their hashes, listed if still there."""
    hashes = {path.relative_to(results).as_posix(): sha256(path) for path in files}
    existing = {name: digest for name, digest in extra.items() if (results / name).exists()}
    write_json(
        {"jobs": dict(sorted(jobs.items())), "files": dict(sorted((existing | hashes).items()))},
        results / PUBLISHED,
    )


def tidy(results: Path) -> None:
    """Remove files that are not listed, and empty folders."""
    names = {PUBLISHED, *manifests.read_published(results)["files"]}
    for path in sorted(results.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(results).as_posix() not in names:
            remove(path)
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
