"""Manifests: what a finished artefact came from, what it holds, what it took to make.

A job's lies beside its output in `runs/<study>`; a published study has one file of them all,
`results/<study>/manifests.json`: under `jobs` one entry an artefact, under `files` the SHA-256 of
every file that is published with it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from bigrec_lib.files import StudyError
from bigrec_lib.method import prompts
from bigrec_lib.study.parameters_analyses import Analysis
from bigrec_lib.study.parameters_checks import Parameters
from bigrec_lib.study.row_keys import KEYS

NAME = "manifest.json"
PUBLISHED = "manifests.json"
SHOWN = ("tables", "figures")  # folders of an output whose files are for people, not for jobs


def read(folder: Path) -> dict:
    """The manifest of a finished artefact."""
    return json.loads((folder / NAME).read_text(encoding="utf-8"))


def accepted_changes(folder: Path) -> list[dict]:
    """The changes of code that were accepted for the artefact in a folder, if there is one."""
    return read(folder).get("accepted", []) if (folder / NAME).exists() else []


def read_published(results: Path) -> dict[str, dict]:
    """The manifests of a published study: `jobs` and `files`.

    Raises StudyError if nothing is published there.
    """
    path = results / PUBLISHED
    if not path.exists():
        raise StudyError(f"no {PUBLISHED} in {results}: run the study first")
    return json.loads(path.read_text(encoding="utf-8"))


def published_jobs(results: Path, notebook: str) -> list[dict]:
    """The published manifests of one notebook's jobs, in the order of their names."""
    jobs = read_published(results)["jobs"]
    return [jobs[name] for name in sorted(jobs) if jobs[name]["notebook"] == notebook]


def words_of(preparation: dict) -> prompts.Domain:
    """What the prompts of a data set say, from the manifest of its 01_prepare_data."""
    domain = prompts.domain(preparation["facts"]["domain"])
    return replace(domain, **preparation["parameters"]["words"])


def substance(manifest: dict) -> str:
    """SHA-256 of what a finished artefact tells its readers: data, facts and parameters.

    When it was made, how long that took, and tables and figures are not part of it.
    """
    data = {
        name: digest
        for name, digest in manifest["outputs"].items()
        if name.partition("/")[0] not in SHOWN
    }
    content = [data, manifest["facts"], manifest["parameters"]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def inputs_of(job: Parameters) -> dict[str, str]:
    """The substance of each finished artefact that a job reads, by the notebook that made it.

    An analysis reads what is published, all of it, and how long it took.
    """
    if isinstance(job, Analysis):
        jobs = read_published(job.results)["jobs"]
        return {
            name: substance(m | {"facts": [m["facts"], m.get("seconds_of")]})
            for name, m in jobs.items()
            if not is_analysis(m)
        }
    return {maker: substance(read(folder)) for maker, folder in job.inputs.items()}


def is_analysis(manifest: dict) -> bool:
    """Whether a manifest is that of an analysis, which reads all the others.

    Every step works on a data set, and no analysis does: so its keys tell.
    """
    return not manifest["keys"]["dataset"]


def with_defaults(job: Parameters, values: dict) -> dict:
    """Parameters of an earlier run, with the defaults of those that it did not have yet."""
    return type(job)().model_dump(exclude={"root"}) | values


def identity(job: Parameters) -> dict[str, dict]:
    """All that a job's results follow from; equal identities give equal results."""
    return {
        "parameters": job.model_dump(exclude={"root"}),
        "sources": job.sources,
        "materials": job.materials,
        "inputs": inputs_of(job),
    }


def keys_of(job: Parameters, facts: dict[str, object]) -> dict[str, object]:
    """The keys of a job's rows in the results; n_train is the number of samples really used."""
    return job.keys | {name: facts[name] for name in KEYS if name in facts}
