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

    scaled: the seconds are those of another LLM, times the ratio of parameters.
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
    waits = expansion.predecessors(planned)
    records = earlier_jobs()
    reruns = jobs_to_repeat(planned)
    job_states: dict[str, State] = {}
    for key, job in planned.items():
        blockers = [name for name in waits[key] if job_states[name].status != "done"]
        if isinstance(job, Analysis) and not blockers and publish.why_collect(planned):
            blockers = [COLLECT]
        why = (
            f"after {blockers[0]}" if blockers else why_again(job) or UNPUBLISHED * (key in reruns)
        )
        taken = resume.lacks(job.output) is not None and key not in reruns
        finished = (job.output / manifests.NAME).exists()
        status = "missing" if not finished else "stale" if why else "done"
        seconds, scaled = estimate(job, planned, records)
        if taken and blockers:
            why, seconds, scaled = f"taken from the results, {why}", 0, False
        job_states[key] = State(job, status, why if finished else "", seconds, scaled)
    return job_states


def why_again(job: Parameters) -> str:
    """Why a job whose inputs are finished has to run; '' if it is up to date."""
    if not (job.output / manifests.NAME).exists():
        return "missing"
    return changes(job) or why_unrecorded(job)


def changes(job: Parameters) -> str:
    """What differs between a finished job and the same job today; '' for nothing."""
    manifest = manifests.read(job.output)
    identity = manifests.identity(job)
    omissions = resume.lacks(job.output)
    if omissions is not None:
        for record in (manifest, identity):
            record["sources"] = resume.of_code(job, record["sources"])
    manifest["parameters"] = manifests.with_defaults(job, manifest["parameters"])
    reasons = [
        f"{name} is {identity[part].get(name)}, was {manifest[part].get(name)}"
        if part == "parameters"
        else f"{name} changed"
        for part in identity
        for name in differing(manifest[part], identity[part])
    ]
    missing = [file for file in manifest["outputs"] if not (job.output / file).exists()]
    reasons += [f"{file} is gone" for file in missing if file not in (omissions or [])]
    return reasons[0] + (f" and {len(reasons) - 1} more" if reasons[1:] else "") if reasons else ""


def why_unrecorded(job: Parameters) -> str:
    """Why a finished job has no executed notebook of its own; '' if it has one, or needs none."""
    if resume.lacks(job.output) is not None:
        return ""
    path = publish.executed(job)
    if not path.exists():
        return f"{path.name} is gone"
    metadata = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("bigrec", {})
    same = metadata.get("manifest") == sha256(job.output / manifests.NAME)
    return "" if same else "its executed notebook is of another run"


def jobs_to_repeat(planned: dict[str, Parameters]) -> list[str]:
    """Jobs taken from the results without files that are read by a job which has to run."""
    reruns: list[str] = []
    for key in reversed(planned):
        job = planned[key]
        if resume.withheld(job.output) and any(
            job.output in folders_read(reader) and (name in reruns or must_run(reader))
            for name, reader in planned.items()
        ):
            reruns.append(key)
    return reruns[::-1]


def check_inputs(job: Parameters) -> None:
    """Raise StudyError if a job has to read what the results lack: its maker has to run again.

    `jobs_to_repeat` cannot know this beforehand: what a job makes anew may make others stale. The
    batch then goes round again.
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
    finished = [(folder / manifests.NAME).exists() for folder in folders]
    return bool(why_again(job)) if all(finished) else not finished[0]


def earlier_jobs() -> list[dict]:
    """The manifests of all finished jobs of all studies, to learn from how long they took."""
    published = [
        job
        for path in sorted((ROOT / "results").glob(f"*/{manifests.PUBLISHED}"))
        for job in manifests.read_published(path.parent)["jobs"].values()
    ]
    paths = sorted((ROOT / "runs").rglob(manifests.NAME))
    return published + [manifests.read(path.parent) for path in paths]


def estimate(job: Parameters, planned: dict, records: list[dict]) -> tuple[float | None, bool]:
    """Seconds a job may take: the median of its notebook's earlier runs, scaled by their work.

    Runs on a machine of this kind and on the same data are preferred. The second value is
    True if they are runs of other LLMs, as the job's own never ran: matrix products take most of
    the time, so it grows with the parameters. None if the notebook never ran, or an LLM's name
    does not tell how large it is.
    """
    parameters = [p.model_dump() for p in planned.values()] + [m["parameters"] for m in records]
    sizes = {
        (p["study"], p["dataset"]): (p["n_valid"], p["n_test"]) for p in parameters if "reader" in p
    }

    def work(p: dict) -> float:
        if job.notebook == TuneLLM.notebook:
            return p["n_train"] * p["epochs"] * (1 + len(p.get("also", ())))
        if isinstance(job, TunedParameters):
            valid, test = sizes.get((p["study"], p["dataset"]), (1, 0))
            return (p.get("n_valid") or valid) + (p.get("n_test") or test)
        return 1

    runs = [m for m in records if m["notebook"] == job.notebook]
    model = getattr(job, "model", None)
    own_runs = [m for m in runs if m["parameters"].get("model", model) == model]
    scaled = bool(runs and not own_runs)
    if scaled:
        runs = [m for m in runs if named_size(model) and named_size(m["parameters"]["model"])]
    else:
        runs = own_runs
    runs = [m for m in runs if m["host"] == provenance.host()] or runs
    for name in ("full", "dataset"):
        value = getattr(job, name, None)
        runs = [m for m in runs if m["parameters"].get(name, value) == value] or runs
    if not runs:
        return None, False

    def share(m: dict) -> float:
        return named_size(model) / named_size(m["parameters"]["model"]) if scaled else 1.0

    pace = statistics.median(m["seconds"] / work(m["parameters"]) * share(m) for m in runs)
    return pace * work(job.model_dump()), scaled


def named_size(model: str | None) -> float:
    """Parameters of an LLM by its name; 0 for one that does not tell.

    >>> named_size("huggyllama/llama-7b"), named_size("smollm2-135m-instruct"), named_size("gpt2")
    (7000000000.0, 135000000.0, 0.0)
    """
    match = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)([bm])(?![a-z])", (model or "").lower())
    return float(match[1]) * {"b": 1e9, "m": 1e6}[match[2]] if match else 0.0


def table(job_states: dict[str, State]) -> str:
    """The plan for reading: a line a job, then the sums."""
    width = max(map(len, job_states))
    lines = []
    for key, state in job_states.items():
        seconds = "~" * state.scaled + duration(state.seconds)
        lines.append(f"{state.status:8}{key:{width}}  {seconds:>7}  {state.why}".rstrip())
    todo = [state for state in job_states.values() if state.status != "done"]
    unknown = sum(state.seconds is None for state in todo)
    total = duration(sum(state.seconds or 0 for state in todo))
    summary = f"{len(job_states) - len(todo)} of {len(job_states)} jobs are done; {len(todo)} to do"
    if todo:
        summary += f", {total} one after the other" if unknown < len(todo) else ""
        summary += f" ({unknown} of them unknown: not run before with this LLM)" if unknown else ""
    if any(state.scaled for state in todo):
        lines.append(
            "~ times of other LLMs here or in results/, times the ratio of parameters; another "
            "machine has its own pace"
        )
    return "\n".join([*lines, summary])


def duration(seconds: float | None) -> str:
    """A duration for reading: 40 s, 12 min, 3.5 h."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
