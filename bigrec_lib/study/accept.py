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
    now = provenance.environment(project)
    if now["dirty"]:
        raise StudyError("code is not committed, so no commit tells what is accepted: commit first")
    found = [
        job.job
        for job in planned
        if not isinstance(job, Analysis)
        and (job.output / manifests.NAME).exists()
        and accepted(job, files, {"why": why.strip(), "commit": now["commit"]})
    ]
    if not found:
        raise StudyError(f"no finished step is stale because of {', '.join(sorted(files))} alone")
    return found


def accepted(job: Parameters, files: set[str], reason: dict[str, object]) -> bool:
    """Accept the changes of `files` for one finished step, if nothing else makes it stale."""
    was, now = manifests.read(job.output), manifests.identity(job)
    changed = differing(was["sources"], now["sources"])
    before = was["parameters"]
    was["parameters"] = manifests.with_defaults(job, before)
    others = [part for part in now if part != "sources" and was[part] != now[part]]
    if not changed or not files.issuperset(changed) or others or plan.unkept(job):
        return False
    earlier = {name: was["sources"].get(name) for name in changed}
    entries = [*manifests.accepted_changes(job.output), reason | {"was": earlier}]
    record = was | {"parameters": before, "sources": now["sources"], "accepted": entries}
    write_json(jobs.works(job, now), jobs.begun(job))
    shown = publish.executed(job)
    seal = sha256(job.output / manifests.NAME)
    write_json(record, job.output / manifests.NAME)
    if shown.exists():
        text = shown.read_text(encoding="utf-8")
        write_text(text.replace(seal, sha256(job.output / manifests.NAME)), shown)
    return True
