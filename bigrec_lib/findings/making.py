"""Which code a published study was made with: commits of its rules and jobs, changes accepted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from bigrec_lib.findings.alts import counted
from bigrec_lib.study import manifests

SHORT = 10  # hexadecimal digits of a commit that are shown


def code_of(folder: Path) -> dict[str, list]:
    """`rules`: commit and the claims it decides; `jobs`: commit and how many steps ran at it, most
    first; `accepted`: changes that were accepted (`study.accept`), with files, why, jobs and
    commit. Analyses do not count: they run anew with every report.

    folder: results of a study; each list is empty where it has none.
    """
    jobs = {}
    if (folder / manifests.PUBLISHED).exists():
        jobs = manifests.read_published(folder)["jobs"]
    steps = [job for job in jobs.values() if not manifests.is_analysis(job)]
    commits = Counter(short(job.get("commit")) for job in steps)
    changes = Counter(
        (", ".join(sorted(entry["was"])), entry["why"], short(entry["commit"]))
        for job in steps
        for entry in job.get("accepted", [])
    )
    return {
        "rules": rules_of(folder / "claims.csv"),
        "jobs": [(commit, counted(n, "job")) for commit, n in commits.most_common()],
        "accepted": [(*change, counted(n, "job")) for change, n in sorted(changes.items())],
    }


def rules_of(path: Path) -> list[tuple[str, str]]:
    """The commit that last changed the rule of some claims, and those claims."""
    if not path.exists() or not path.read_text(encoding="utf-8").strip():
        return []
    frame = pd.read_csv(path, usecols=["claim", "rule_commit"]).fillna("").drop_duplicates()
    claims = frame.groupby("rule_commit", sort=False).claim.agg(", ".join)
    return [(short(commit), names) for commit, names in claims.items()]


def short(commit: str | None) -> str:
    """The first digits of a commit; "no commit" without one.

    >>> short("0cc706b1fa3c3f9e21"), short("uncommitted"), short("")
    ('0cc706b1fa', 'uncommitted', 'no commit')
    """
    return commit if commit == "uncommitted" else (commit or "")[:SHORT] or "no commit"
