"""What of a study is done, stale or missing, why, and how long the rest may take."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from bigrec_lib.files import sha256
from bigrec_lib.study import runs, studies
from bigrec_lib.study.studies import ROOT, Study


def kept(name: str, job: str) -> Path:
    """The executed notebook of a job that is done."""
    return ROOT / "results" / name / "notebooks" / f"{job}.ipynb"


@dataclass(frozen=True)
class State:
    """Where a job stands: done, stale or missing; why; and the seconds it may take, if known."""

    job: runs.Parameters
    status: str
    why: str = ""
    seconds: float | None = None


def states(name: str, study: Study) -> dict[str, State]:
    """The state of every job of a study, by its name; reads, and runs nothing."""
    planned = studies.jobs(name, study)
    waits = studies.waits(planned)
    earlier = earlier_jobs(ROOT / "results", ROOT / "runs")
    found: dict[str, State] = {}
    for key, job in planned.items():
        before = [p for p in waits[key] if found[p].status != "done"]
        status, why = ("stale", f"after {before[0]}") if before else ("done", "")
        if not (job.output / "manifest.json").exists():
            status = "missing"
        elif not before:
            why = problem(name, job)
            status = "stale" if why else "done"
        found[key] = State(job, status, why, estimate(job, planned, earlier))
    return found


def problem(name: str, job: runs.Parameters) -> str:
    """Why a job whose inputs are finished has to run; '' if it has not."""
    if not (job.output / "manifest.json").exists():
        return "missing"
    return changes(job) or unkept(name, job)


def changes(job: runs.Parameters) -> str:
    """What differs between a finished job and the same job today; '' for nothing."""
    was = runs.read_manifest(job.output)
    now = job.identity
    defaults = type(job)().model_dump(exclude={"root"})
    told = []
    for kind in ("parameters", "sources", "materials", "inputs"):
        old, new = was.get(kind, {}), now[kind]
        if kind == "parameters":
            old = defaults | old
            told += [f"{k} is {new.get(k)}, was {old.get(k)}" for k in differing(old, new)]
        elif kind == "sources" and not old:
            told.append("made before sources were recorded")
        else:
            told += [f"{k} changed" for k in differing(old, new)]
    told += [f"{file} is gone" for file in was["outputs"] if not (job.output / file).exists()]
    return told[0] + (f" and {len(told) - 1} more" if told[1:] else "") if told else ""


def differing(old: dict, new: dict) -> list[str]:
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]


def unkept(name: str, job: runs.Parameters) -> str:
    """Why a finished job has no executed notebook of its own; '' if it has."""
    path = kept(name, job.job)
    if not path.exists():
        return f"{path.name} is gone"
    told = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("bigrec", {})
    same = told.get("manifest") == sha256(job.output / "manifest.json")
    return "" if same else "its executed notebook is of another run"


def earlier_jobs(*folders: Path) -> list[dict]:
    """The manifests of all finished jobs of all studies, to learn from how long they took."""
    paths = [path for folder in folders for path in folder.rglob("manifest.json")]
    found = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    return [manifest for manifest in found if "seconds" in manifest]


def estimate(job: runs.Parameters, planned: dict, earlier: list[dict]) -> float | None:
    """Seconds a job may take: the median of its notebook's earlier runs, scaled by their work.

    Runs on the same data are preferred; None if the notebook never ran, or never with this LLM.
    """
    given = [p.model_dump() for p in planned.values()] + [m["parameters"] for m in earlier]
    examples = {
        (p["study"], p["dataset"]): p["n_valid"] + p["n_test"] for p in given if "n_test" in p
    }

    def work(p: dict) -> float:
        if job.notebook == runs.TuneLLM.notebook:
            return p["n_train"] * p["epochs"] * (1 + len(p.get("also", ())))
        if isinstance(job, runs.TunedParameters):
            return examples.get((p["study"], p["dataset"]), 1)
        return 1

    same = [m for m in earlier if m["notebook"] == job.notebook]
    model = getattr(job, "model", None)
    same = [m for m in same if m["parameters"].get("model", model) == model]
    for name in ("full", "dataset"):
        wanted = getattr(job, name, None)
        same = [m for m in same if m["parameters"].get(name, wanted) == wanted] or same
    if not same:
        return None
    pace = statistics.median(m["seconds"] / work(m["parameters"]) for m in same)
    return pace * work(job.model_dump())


def table(states: dict[str, State]) -> str:
    """The plan for reading: a line a job, then the sums."""
    width = max(map(len, states))
    lines = [
        f"{state.status:8}{key:{width}}  {about(state.seconds):>7}  {state.why}".rstrip()
        for key, state in states.items()
    ]
    todo = [state for state in states.values() if state.status != "done"]
    unknown = sum(state.seconds is None for state in todo)
    total = about(sum(state.seconds or 0 for state in todo))
    summary = f"{len(states) - len(todo)} of {len(states)} jobs are done; {len(todo)} to do"
    if todo:
        summary += f", {total} one after the other" if unknown < len(todo) else ""
        summary += f" ({unknown} of them unknown: never run with this LLM)" if unknown else ""
    return "\n".join([*lines, summary])


def about(seconds: float | None) -> str:
    """A duration for reading: 40 s, 12 min, 3.5 h."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
