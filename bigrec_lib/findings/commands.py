"""The command, and the entry of manifests.json, behind every row of a table."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pandas as pd

from bigrec_lib.findings.alignment import CHOSEN, CHOSEN_UNSEEN
from bigrec_lib.findings.methods import of
from bigrec_lib.study import manifests
from bigrec_lib.study.parameters import NOTEBOOKS

GROUND, REWEIGHT = "04_ground_to_items", "05_reweight_by_statistics"
WRITERS = {
    "bigrec": GROUND,
    "variant": GROUND,
    "grounding": GROUND,
    "injected": REWEIGHT,
    "united": "14b_ground_in_spaces",
    "cheaper": "15a_measure_grounders",
}
"""The notebook that writes the ranks of a kind of method; 06 writes all others."""
ALIGNMENT = "16a_measure_alignment"
EXCEPTIONS = {"bigrec-bm25": GROUND, CHOSEN: ALIGNMENT, CHOSEN_UNSEEN: ALIGNMENT}


def behind(folder: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Where the numbers of runs and methods come from: a row a data set, run and method.

    rows: with columns dataset, run and method, such as metrics.csv. Columns of the result: these,
    manifest (the entry of manifests.json, under `jobs`) and command, which repeats this step alone
    after those it builds on; `make study` runs all of them. Both '' where the study has no entry.
    """
    jobs = manifests.read_published(folder)["jobs"]
    entry_of = {
        (job["keys"]["dataset"], job["keys"]["run"], job["notebook"]): name
        for name, job in jobs.items()
        if not manifests.is_analysis(job)
    }
    frame = rows[["dataset", "run", "method"]].drop_duplicates(ignore_index=True)
    entries = [
        entry_of.get((row.dataset, row.run, notebook_of(row.method)), "")
        for row in frame.itertuples()
    ]
    commands = [command(jobs[entry]) if entry else "" for entry in entries]
    return frame.assign(manifest=entries, command=commands)


def notebook_of(method: str) -> str:
    """The notebook that writes a method's ranks.

    >>> notebook_of("bigrec-unseen"), notebook_of("sasrec-ce+popularity")
    ('04_ground_to_items', '05_reweight_by_statistics')
    >>> notebook_of("item-knn"), notebook_of("bigrec-union")
    ('06_train_baselines', '14b_ground_in_spaces')
    """
    if method in EXCEPTIONS:
        return EXCEPTIONS[method]
    if "+" in method:
        return REWEIGHT
    plain = method if of(method).kind in WRITERS else method.removesuffix("-unseen")
    return WRITERS.get(of(plain).kind, "06_train_baselines")


def command(job: dict) -> str:
    """The command that runs a published job's notebook again, with what differs from the defaults.

    Of a path outside the project only the last part is printed: its folders differ elsewhere.
    """
    defaults = NOTEBOOKS[job["notebook"]]().model_dump()
    settings = {
        name: portable(value)
        for name, value in job["parameters"].items()
        if defaults.get(name) != value
    }
    text = shlex.quote(json.dumps(settings, ensure_ascii=False))
    return f".venv/bin/papermill notebooks/{job['notebook']}.ipynb out.ipynb -y {text}"


def portable(value: object) -> object:
    """A value of a parameter, an absolute path without its folders."""
    absolute = isinstance(value, str) and Path(value).is_absolute()
    return f"…/{Path(str(value)).name}" if absolute else value
