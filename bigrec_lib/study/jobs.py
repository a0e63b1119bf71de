"""One notebook's run: what it may keep of earlier work, and when it counts as done."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path

from bigrec_lib.files import PARTIAL, StudyError, differing, locked, remove, sha256, write_json
from bigrec_lib.study import manifests, provenance
from bigrec_lib.study.parameters_checks import Parameters

HELD: dict[Path, ExitStack] = {}  # locks of this process, which end with it at the latest


class Job:
    """Checks a notebook's inputs when it starts, writes its manifest when it ends.

    An artefact counts as complete only while its folder holds a manifest. So everything in the
    folder is removed first, except costly work whose code, parameters and inputs are unchanged
    (`Parameters.makers`). No job runs twice at a time.
    """

    def __init__(self, parameters: Parameters):
        for maker, folder in parameters.inputs.items():
            if not (folder / manifests.NAME).exists():
                raise StudyError(f"{folder} is not complete: run {maker} with the same parameters")
        lock(parameters)
        self.parameters = parameters
        self.started = time.time()
        self.identity = begin(parameters)

    def finish(self, seconds_of: dict[str, float] | None = None, **facts: object) -> None:
        """Write `manifest.json` into the output folder, and say so.

        facts: what readers of this artefact need to know. seconds_of: what took how long, which
        is no part of its substance.
        """
        p = self.parameters
        for partial in list(p.output.rglob(f"{PARTIAL}*")):
            remove(partial)
        files = sorted(file for file in p.output.rglob("*") if file.is_file())
        manifest = {
            "notebook": p.notebook,
            "keys": manifests.keys_of(p, facts),
            **self.identity,
            "outputs": {file.relative_to(p.output).as_posix(): sha256(file) for file in files},
            "facts": facts,
            "seconds": round(time.time() - self.started, 1),
            "seconds_of": seconds_of or {},
            "peak_gb": round(provenance.peak_memory_gb(), 2),
            **provenance.environment(p.project),
        }
        if accepted(p).exists():
            manifest["accepted"] = json.loads(accepted(p).read_text(encoding="utf-8"))
        write_json(manifest, p.output / manifests.NAME)
        unlock(p)
        print(f"complete: {p.output.relative_to(p.project)}")


def lock(parameters: Parameters) -> None:
    """Take this job for this process alone; raises StudyError if another one has it."""
    path = parameters.runs / "locks" / parameters.job
    if path in HELD:
        return
    stack = ExitStack()
    try:
        stack.enter_context(locked(path, wait=False))
    except BlockingIOError:
        raise StudyError(f"{parameters.job} is running already: wait for it, or stop it") from None
    HELD[path] = stack


def unlock(parameters: Parameters) -> None:
    HELD.pop(parameters.runs / "locks" / parameters.job).close()


def begin(parameters: Parameters) -> dict[str, dict]:
    """The job's identity; its output is emptied, but for the work that is still the same.

    Work that costs minutes is thrown away only if the code that makes it, the parameters or the
    inputs have changed. How a figure looks or what a notebook says is no reason: the job runs again
    from what it has, and what was accepted for that work is kept beside it.
    """
    identity = manifests.identity(parameters)
    record = begun(parameters)
    old_works = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for work in old_works.values():
        work["parameters"] = manifests.with_defaults(parameters, work["parameters"])
    new_works = works(parameters, identity)
    stale_folders = set(differing(old_works, new_works))
    changes = manifests.accepted_changes(parameters.output)
    if stale_folders.issuperset(new_works):
        remove(accepted(parameters))
    elif changes:
        write_json(changes, accepted(parameters))
    parameters.output.mkdir(parents=True, exist_ok=True)
    for path in list(parameters.output.iterdir()):
        if path.name not in parameters.makers or path.name in stale_folders:
            remove(path)
    if stale_folders or not record.exists():
        write_json(new_works, record)
    return identity


def begun(parameters: Parameters) -> Path:
    """The file that notes what the work in a job's output follows from."""
    return parameters.runs / "begun" / f"{parameters.job}.json"


def accepted(parameters: Parameters) -> Path:
    """The file that keeps which changes of code were accepted for work that stays."""
    return parameters.runs / "accepted" / f"{parameters.job}.json"


def works(parameters: Parameters, identity: dict[str, dict]) -> dict[str, dict]:
    """What the work in each folder of a job's output follows from."""
    return {
        folder: {part: identity[part] for part in ("parameters", "materials", "inputs")}
        | {"code": provenance.code_of(*makers)}
        for folder, makers in parameters.makers.items()
    }
