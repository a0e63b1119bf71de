"""Accept a change of code: a person says that it does not change what finished jobs made.

Whether a job is stale follows from hashes, and these cannot tell a check that became stricter, or a
faster way to the same numbers, from another method. Hours of work need not be done again for that:
manifests take the new hashes, and say what was accepted and why.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from bigrec_lib.files import StudyError, differing, sha256, write_json, write_text
from bigrec_lib.study import jobs, manifests, plan, provenance, publish
from bigrec_lib.study.parameters_analyses import Analysis
from bigrec_lib.study.parameters_checks import Parameters


def accept(planned: Iterable[Parameters], files: set[str], why: str, project: Path) -> list[str]:
    """Let finished steps count as made by the code of today; return their names.

    Only those that are stale because of some of these `files` and of nothing else. Each manifest
    gets an entry in `accepted`: `why`, the commit, and the digest that each file had. Analyses take
    seconds and run again.
    Raises StudyError without a reason, with code that is not committed, and if there is no such
    step.
    """
    if not why.strip():
        raise StudyError("say why results stay the same: WHY='…'; it is published with them")
    environment = provenance.environment(project)
    if environment["dirty"]:
        raise StudyError("code is not committed, so no commit tells what is accepted: commit first")
    names = [
        job.job
        for job in planned
        if not isinstance(job, Analysis)
        and all((folder / manifests.NAME).exists() for folder in (job.output, *job.inputs.values()))
        and accepted(job, files, {"why": why.strip(), "commit": environment["commit"]})
    ]
    if not names:
        raise StudyError(f"no finished step is stale because of {', '.join(sorted(files))} alone")
    return names


def accepted(job: Parameters, files: set[str], reason: dict[str, object]) -> bool:
    """Accept the changes of `files` for one finished step, if nothing else makes it stale."""
    manifest, identity = manifests.read(job.output), manifests.identity(job)
    changes = differing(manifest["sources"], identity["sources"])
    parameters = manifest["parameters"]
    manifest["parameters"] = manifests.with_defaults(job, parameters)
    differences = [
        part for part in identity if part != "sources" and manifest[part] != identity[part]
    ]
    if not changes or not files.issuperset(changes) or differences or plan.why_unrecorded(job):
        return False
    digests = {name: manifest["sources"].get(name) for name in changes}
    entries = [*manifests.accepted_changes(job.output), reason | {"was": digests}]
    record = manifest | {
        "parameters": parameters,
        "sources": identity["sources"],
        "accepted": entries,
    }
    notebook = publish.executed(job)
    seal = sha256(job.output / manifests.NAME)
    write_json(record, job.output / manifests.NAME)
    if notebook.exists():
        text = notebook.read_text(encoding="utf-8")
        write_text(text.replace(seal, sha256(job.output / manifests.NAME)), notebook)
    write_json(jobs.works(job, identity), jobs.begun(job))  # last, so no work is kept unrecorded
    return True
