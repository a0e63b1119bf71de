"""What of a study is done, stale or missing, why, and how long the rest may take."""

from __future__ import annotations

import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from bigrec_lib.files import StudyError, differing, sha256
from bigrec_lib.study import expansion, manifests, provenance, publish, resume
from bigrec_lib.study.parameters import GroundToItems, TuneLLM
from bigrec_lib.study.parameters_analyses import Analysis
from bigrec_lib.study.parameters_checks import Parameters
from bigrec_lib.study.parameters_runs import TunedParameters
from bigrec_lib.study.studies import ROOT


@dataclass(frozen=True)
class State:
    """Where a job stands: done, stale or missing; why; and the seconds it may take, if known.

    scaled: they are those of another LLM, times the ratio of parameters.
    """

    job: Parameters
    status: str
    why: str = ""
    seconds: float | None = None
    scaled: bool = False


COLLECT = "results"  # the name under which the steps are published, before the analyses
UNPUBLISHED = "files that others read are not in results/"


def states(planned: dict[str, Parameters]) -> dict[str, State]:
    """The state of every job of a study, by its name; reads, and runs nothing.

    Analyses wait until the steps are published.
    """
    waits = expansion.waits(planned)
    earlier = earlier_jobs()
    again = lacked(planned)
    found: dict[str, State] = {}
    for key, job in planned.items():
        before = [name for name in waits[key] if found[name].status != "done"]
        if isinstance(job, Analysis) and not before and publish.why_collect(planned):
            before = [COLLECT]
        why = f"after {before[0]}" if before else why_again(job) or UNPUBLISHED * (key in again)
        taken = resume.lacks(job.output) is not None and key not in again
        there = (job.output / manifests.NAME).exists()
        status = "missing" if not there else "stale" if why else "done"
        seconds, scaled = estimate(job, planned, earlier)
        if taken and before:
            why, seconds, scaled = f"taken from the results, {why}", 0, False
        found[key] = State(job, status, why if there else "", seconds, scaled)
    return found


def why_again(job: Parameters) -> str:
    """Why a job whose inputs are finished has to run; '' if it is up to date."""
    if not (job.output / manifests.NAME).exists():
        return "missing"
    return changes(job) or unkept(job)


def changes(job: Parameters) -> str:
    """What differs between a finished job and the same job today; '' for nothing."""
    was = manifests.read(job.output)
    now = manifests.identity(job)
    lacking = resume.lacks(job.output)
    if lacking is not None:
        for each in (was, now):
            each["sources"] = resume.of_code(job, each["sources"])
    was["parameters"] = manifests.with_defaults(job, was["parameters"])
    told = [
        f"{name} is {now[part].get(name)}, was {was[part].get(name)}"
        if part == "parameters"
        else f"{name} changed"
        for part in now
        for name in differing(was[part], now[part])
    ]
    gone = [file for file in was["outputs"] if not (job.output / file).exists()]
    told += [f"{file} is gone" for file in gone if file not in (lacking or [])]
    return told[0] + (f" and {len(told) - 1} more" if told[1:] else "") if told else ""


def unkept(job: Parameters) -> str:
    """Why a finished job has no executed notebook of its own; '' if it has one, or needs none."""
    if resume.lacks(job.output) is not None:
        return ""
    path = publish.executed(job)
    if not path.exists():
        return f"{path.name} is gone"
    told = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("bigrec", {})
    same = told.get("manifest") == sha256(job.output / manifests.NAME)
    return "" if same else "its executed notebook is of another run"


def lacked(planned: dict[str, Parameters]) -> list[str]:
    """Jobs that were taken from the results without files that a job reads which has to run."""
    again: list[str] = []
    for key in reversed(planned):
        job = planned[key]
        if resume.withheld(job.output) and any(
            job.output in folders_read(reader) and (name in again or must_run(reader))
            for name, reader in planned.items()
        ):
            again.append(key)
    return again[::-1]


def check_inputs(job: Parameters) -> None:
    """Raise StudyError if a job has to read what results do not hold: another one is to run again.

    `lacked` cannot know it before: what a job makes anew may make others stale.
    """
    for folder in folders_read(job):
        if missing := resume.withheld(folder):
            raise StudyError(
                f"{job.job} reads {folder.relative_to(job.project)}/{missing[0]}, which is not "
                "among the results: run the study again, which makes it first"
            )


def folders_read(job: Parameters) -> set[Path]:
    """What a job reads of other jobs; 04 embeds with the adapter if it is asked to."""
    folders = set(job.inputs.values())
    if isinstance(job, GroundToItems) and job.embedder == "tuned" and job.n_train:
        folders.add(job.tuning)
    return folders


def must_run(job: Parameters) -> bool:
    """Whether a job has to run, whatever comes of inputs that are not there yet."""
    folders = (job.output, *job.inputs.values())
    there = [(folder / manifests.NAME).exists() for folder in folders]
    return bool(why_again(job)) if all(there) else not there[0]


def earlier_jobs() -> list[dict]:
    """The manifests of all finished jobs of all studies, to learn from how long they took."""
    published = [
        job
        for path in sorted((ROOT / "results").glob(f"*/{manifests.PUBLISHED}"))
        for job in manifests.read_published(path.parent)["jobs"].values()
    ]
    paths = sorted((ROOT / "runs").rglob(manifests.NAME))
    return published + [manifests.read(path.parent) for path in paths]


def estimate(job: Parameters, planned: dict, earlier: list[dict]) -> tuple[float | None, bool]:
    """Seconds a job may take: the median of its notebook's earlier runs, scaled by their work.

    Runs on a machine of this kind and on the same data are preferred. True beside an estimate from
    other LLMs, where the job's own never ran: matrix products take most of the time, so it grows
    with the parameters. None if the notebook never ran, or an LLM's name does not tell how large
    it is.
    """
    given = [p.model_dump() for p in planned.values()] + [m["parameters"] for m in earlier]
    drawn = {
        (p["study"], p["dataset"]): (p["n_valid"], p["n_test"]) for p in given if "reader" in p
    }

    def work(p: dict) -> float:
        if job.notebook == TuneLLM.notebook:
            return p["n_train"] * p["epochs"] * (1 + len(p.get("also", ())))
        if isinstance(job, TunedParameters):
            valid, test = drawn.get((p["study"], p["dataset"]), (1, 0))
            return (p.get("n_valid") or valid) + (p.get("n_test") or test)
        return 1

    same = [m for m in earlier if m["notebook"] == job.notebook]
    model = getattr(job, "model", None)
    own = [m for m in same if m["parameters"].get("model", model) == model]
    scaled = bool(same and not own)
    if scaled:
        same = [m for m in same if named_size(model) and named_size(m["parameters"]["model"])]
    else:
        same = own
    same = [m for m in same if m["host"] == provenance.host()] or same
    for name in ("full", "dataset"):
        wanted = getattr(job, name, None)
        same = [m for m in same if m["parameters"].get(name, wanted) == wanted] or same
    if not same:
        return None, False

    def share(m: dict) -> float:
        return named_size(model) / named_size(m["parameters"]["model"]) if scaled else 1.0

    pace = statistics.median(m["seconds"] / work(m["parameters"]) * share(m) for m in same)
    return pace * work(job.model_dump()), scaled


def named_size(model: str | None) -> float:
    """Parameters of an LLM by its name; 0 for one that does not tell.

    >>> named_size("huggyllama/llama-7b"), named_size("smollm2-135m-instruct"), named_size("gpt2")
    (7000000000.0, 135000000.0, 0.0)
    """
    told = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)([bm])(?![a-z])", (model or "").lower())
    return float(told[1]) * {"b": 1e9, "m": 1e6}[told[2]] if told else 0.0


def table(states: dict[str, State]) -> str:
    """The plan for reading: a line a job, then the sums."""
    width = max(map(len, states))
    lines = []
    for key, state in states.items():
        seconds = "~" * state.scaled + about(state.seconds)
        lines.append(f"{state.status:8}{key:{width}}  {seconds:>7}  {state.why}".rstrip())
    todo = [state for state in states.values() if state.status != "done"]
    unknown = sum(state.seconds is None for state in todo)
    total = about(sum(state.seconds or 0 for state in todo))
    summary = f"{len(states) - len(todo)} of {len(states)} jobs are done; {len(todo)} to do"
    if todo:
        summary += f", {total} one after the other" if unknown < len(todo) else ""
        summary += f" ({unknown} of them unknown: not run before with this LLM)" if unknown else ""
    if any(state.scaled for state in todo):
        lines.append(
            "~ times of other LLMs here or in results/, times the ratio of parameters; another "
            "machine has its own pace"
        )
    return "\n".join([*lines, summary])


def about(seconds: float | None) -> str:
    """A duration for reading: 40 s, 12 min, 3.5 h."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
