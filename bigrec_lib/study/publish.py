"""From what the jobs worked out in `runs/<study>` to the few files of `results/<study>`.

`collect` puts the rows of all jobs into one table a kind; the analyses then read those. `finish`
adds what the analyses made: tables, figures, claims, executed notebooks and the site. Publishing
the same work again gives the same bytes, but for `manifests.json`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bigrec_lib.files import (
    StudyError,
    atomic,
    remove,
    sha256,
    write_json,
    write_parquet,
    write_text,
)
from bigrec_lib.study import explorer, manifests
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

OF_TYPICAL = ("explorer.parquet",)  # tables of the runs that are shown (`typical`) alone
OF_DATA = ("items.parquet", "examples.parquet", "data.csv")  # tables that belong to a data set
ADAPTERS = "adapters"  # the folder of published adapters
WEIGHTS = "adapter_model.safetensors"
PRIVATE = ("item_id", "raw_title")  # columns that nobody needs to read the results


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
    there = {name: m for name, m in published["jobs"].items() if not is_analysis(m)}
    for key, job in steps.items():
        if key not in there or not same(there[key], manifests.read(job.output)):
            return f"{key} is not published"
    if further := set(there) - set(steps):
        return f"{min(further)} is published and no longer asked for"
    gone = [name for name in TABLES if name in published["files"] and not (results / name).exists()]
    return f"{gone[0]} is gone" if gone else ""


def same(published: dict, made: dict) -> bool:
    """Whether a published manifest tells another machine all that it needs to take the job up."""
    substance = manifests.substance(published) == manifests.substance(made)
    return substance and published["sources"] == made["sources"] and "rows" in published


def collect(planned: dict[str, Parameters]) -> None:
    """Publish the rows, manifests and typical notebooks of all finished steps of a study.

    A published manifest says where its job's rows are: part of the output -> first row, number.
    """
    steps = steps_of(planned)
    results = next(iter(steps.values())).results
    made = {key: manifests.read(job.output) | {"rows": {}} for key, job in steps.items()}
    files = []
    shown_runs = set(typical(made))
    for name in TABLES:
        frames: list[pa.Table] = []
        for key, job in steps.items():
            if name in OF_TYPICAL and key not in shown_runs:
                continue
            for part, rows in rows_of(name, job, made[key]):
                made[key]["rows"][part] = [sum(map(len, frames)), len(rows)]
                frames.append(rows)
        if frames:
            write_table(results / name, pa.concat_tables(frames, promote_options="default"))
            files.append(results / name)
    for key in sorted(shown_runs):
        files.append(keep_notebook(steps[key], results))
    there = (results / PUBLISHED).exists()
    before = manifests.read_published(results) if there else {"jobs": {}, "files": {}}
    analyses = {key: m for key, m in before["jobs"].items() if is_analysis(m)}
    shown = {name: digest for name, digest in before["files"].items() if name not in TABLES}
    write_manifests(results, made | analyses, files, shown)


def rows_of(name: str, job: Parameters, manifest: dict) -> Iterator[tuple[str, pa.Table]]:
    """The files of a job that belong to a table, and their rows with the keys in front."""
    keys = {"dataset": manifest["keys"]["dataset"]} if name in OF_DATA else manifest["keys"]
    for part in TABLES[name]:
        if part not in manifest["outputs"]:
            continue
        path = job.output / part
        if path.suffix == ".csv":
            text = pd.read_csv(path, dtype=str, keep_default_na=False)  # every digit as it is
            rows = pa.Table.from_pandas(text, preserve_index=False)
        else:
            rows = pq.read_table(path)
        rows = rows.drop_columns([column for column in PRIVATE if column in rows.column_names])
        in_front = keys | ({"split": path.stem} if path.stem in ("valid", "test") else {})
        for place, (column, value) in enumerate(in_front.items()):
            rows = rows.add_column(place, column, pa.repeat(value, len(rows)))
        yield part, rows.replace_schema_metadata()


def write_table(path: Path, table: pa.Table) -> None:
    if path.suffix == ".parquet":
        write_parquet(table, path)
    else:
        write_text(table.to_pandas().to_csv(index=False), path)


def typical(made: dict[str, dict]) -> list[str]:
    """Which steps are shown: those of a whole data set, and of each data set the first seed of the
    size that has the most seeds (of several, the largest); and the first of any other notebook.
    made: job -> manifest."""
    plain = {
        key: (m["keys"]["dataset"], int(size[1]), m["keys"]["seed"])
        for key, m in made.items()
        if (size := re.fullmatch(r"n([1-9]\d*)-s\d+", m["keys"]["run"]))
    }
    seeds: dict[tuple[str, int], set[int]] = {}
    for dataset, n_train, seed in plain.values():
        seeds.setdefault((dataset, n_train), set()).add(seed)
    shown: dict[str, tuple[str, int, int]] = {}
    for dataset, n_train in sorted(seeds, key=lambda key: (len(seeds[key]), key[1])):
        shown[dataset] = (dataset, n_train, min(seeds[dataset, n_train]))
    of_data = [key for key, m in made.items() if not m["keys"]["run"]]
    found = of_data + [key for key, run in plain.items() if shown[run[0]] == run]
    there = {made[key]["notebook"] for key in found}
    others: dict[str, str] = {}
    for key, m in made.items():
        others.setdefault(m["notebook"], key)
    return found + [key for notebook, key in others.items() if notebook not in there]


def executed(job: Parameters) -> Path:
    """Where the batch keeps the executed notebook of a job."""
    return job.runs / "executed" / f"{job.job}.ipynb"


def keep_notebook(job: Parameters, results: Path) -> Path:
    """Publish a job's executed notebook, without what ties it to this very run."""
    notebook = json.loads(executed(job).read_text(encoding="utf-8"))
    notebook["metadata"].pop("bigrec", None)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = [moved(line) for line in cell["source"]]
    path = results / "notebooks" / f"{job.job}.ipynb"
    write_text(json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n", path)
    return path


def moved(text: str) -> str:
    """Markdown of `notebooks/` with its relative links as they are in `results/<study>/notebooks`.

    >>> moved("[a](../docs/glossary.md), [b](https://x.org)")
    '[a](../../../docs/glossary.md), [b](https://x.org)'
    """
    return text.replace("](../", "](../../../")


def back(text: str) -> str:
    """What `moved` made, as it was.

    >>> back(moved("[a](../docs/glossary.md)"))
    '[a](../docs/glossary.md)'
    """
    return text.replace("](../../../", "](../")


def pending(results: Path, analyses: list[Analysis]) -> bool:
    """Whether finished analyses have yet to be published as they are."""
    published = manifests.read_published(results)
    made = {job.job: manifests.read(job.output) for job in analyses}
    there = {key: m for key, m in published["jobs"].items() if is_analysis(m)}
    return there != made or not all((results / name).exists() for name in published["files"])


def finish(results: Path, analyses: list[Analysis]) -> None:
    """Publish what these analyses made, write the site, and remove what is published no more."""
    before = manifests.read_published(results)
    steps = {key: m for key, m in before["jobs"].items() if not is_analysis(m)}
    files = [results / name for name in TABLES if (results / name).exists()]
    files += [results / "notebooks" / f"{key}.ipynb" for key in typical(steps)]
    files += [results / name for name in kept_adapters(before)]
    files = [path for path in files if path.relative_to(results).as_posix() in before["files"]]
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
    files += write_site(results, [*sorted(typical(steps)), *(job.job for job in analyses)])
    made = {job.job: manifests.read(job.output) for job in analyses}
    write_manifests(results, steps | made, files, {})
    tidy(results)


def write_site(results: Path, jobs: list[str]) -> list[Path]:
    """Have the site written from the notebooks of these jobs, and return its files.

    By a process of its own, as notebooks are run: this wing imports nothing of `findings`.
    """
    command = [sys.executable, "-m", "bigrec_lib.findings.site", str(results), *jobs]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise StudyError(f"{results.name}: the site could not be written: {done.stderr.strip()}")
    return [results / name for name in json.loads(done.stdout)]


def kept_adapters(published: dict[str, dict]) -> list[str]:
    """The files of published adapters that are still those of the study's jobs.

    published: the content of manifests.json.
    """
    tuned = {m["outputs"].get(f"adapter/{WEIGHTS}") for m in published["jobs"].values()}
    files = {Path(name): digest for name, digest in published["files"].items()}
    kept = {
        path.parent
        for path, digest in files.items()
        if path.parts[0] == ADAPTERS and path.name == WEIGHTS and digest in tuned
    }
    return [path.as_posix() for path in files if path.parent in kept]


def gather_claims(results: Path, analyses: list[Analysis]) -> Path:
    """The claims of all analyses in one file, in the order of the notebooks."""
    parts = [job.output / "claims.csv" for job in analyses]
    rows = [pd.read_csv(path) for path in parts if path.exists()]
    path = results / "claims.csv"
    write_text(pd.concat(rows).to_csv(index=False) if rows else "", path)
    return path


def write_manifests(results: Path, jobs: dict[str, dict], files: list[Path], more: dict) -> None:
    """Write manifests.json. more: files with their hashes that are listed, too, as before."""
    hashes = {path.relative_to(results).as_posix(): sha256(path) for path in files}
    there = {name: digest for name, digest in more.items() if (results / name).exists()}
    write_json(
        {"jobs": dict(sorted(jobs.items())), "files": dict(sorted((there | hashes).items()))},
        results / PUBLISHED,
    )


def tidy(results: Path) -> None:
    """Remove files that are not listed, and empty folders."""
    listed = {PUBLISHED, *manifests.read_published(results)["files"]}
    for path in sorted(results.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(results).as_posix() not in listed:
            remove(path)
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
