"""The command, and the entry of manifests.json, behind every row of a table."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from bigrec_lib.findings.methods import of
from bigrec_lib.study import manifests
from bigrec_lib.study.parameters import NOTEBOOKS

KINDS = {"bigrec": "04", "variant": "04", "grounding": "04", "injected": "05", "cheaper": "15"}
"""The number of the notebook that writes the ranks of a kind of method; 06 writes all others."""


def behind(folder: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Where the numbers of runs and methods come from: a row a data set, run and method.

    rows: with columns dataset, run and method, such as metrics.csv. Columns of the result: these,
    manifest (the entry of manifests.json, under `jobs`) and command, which repeats this step alone
    after those it builds on; `make study` runs all of them. Both '' where the study has no entry.
    """
    jobs = manifests.read_published(folder)["jobs"]
    places = {
        (job["keys"]["dataset"], job["keys"]["run"], job["notebook"][:2]): name
        for name, job in jobs.items()
        if not manifests.is_analysis(job)
    }
    found = rows[["dataset", "run", "method"]].drop_duplicates(ignore_index=True)
    entries = [
        places.get((row.dataset, row.run, notebook_of(row.method)), "")
        for row in found.itertuples()
    ]
    commands = [command(jobs[entry]) if entry else "" for entry in entries]
    return found.assign(manifest=entries, command=commands)


def notebook_of(method: str) -> str:
    """The number of the notebook that writes a method's ranks.

    >>> notebook_of("bigrec-unseen"), notebook_of("sasrec-ce+popularity"), notebook_of("item-knn")
    ('04', '05', '06')
    """
    if "+" in method:
        return "05"
    if method == "bigrec-bm25":
        return "04"
    plain = method if of(method).kind in KINDS else method.removesuffix("-unseen")
    return KINDS.get(of(plain).kind, "06")


def command(job: dict) -> str:
    """The command that runs a published job's notebook again; its parameters but for defaults.

    Of a path outside the project only the last part is told: elsewhere it is another one.
    """
    defaults = NOTEBOOKS[job["notebook"]]().model_dump()
    given = {
        name: portable(value)
        for name, value in job["parameters"].items()
        if defaults.get(name) != value
    }
    told = json.dumps(given, ensure_ascii=False)
    return f".venv/bin/papermill notebooks/{job['notebook']}.ipynb out.ipynb -y '{told}'"


def portable(value: object) -> object:
    """A value of a parameter, an absolute path without its folders."""
    absolute = isinstance(value, str) and Path(value).is_absolute()
    return f"…/{Path(str(value)).name}" if absolute else value
