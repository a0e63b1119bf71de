"""Which code a published study was made with: commits of its rules and jobs, changes accepted."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd

from bigrec_lib.findings.alts import counted
from bigrec_lib.study import manifests

SHOWN = 3  # files of a change that are named
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
    files: dict[tuple[str, str], set[str]] = defaultdict(set)
    counts: Counter[tuple[str, str]] = Counter()
    for job in steps:
        for entry in job.get("accepted", []):
            change = entry["why"], short(entry["commit"])
            files[change].update(entry["was"])
            counts[change] += 1
    return {
        "rules": rules_of(folder / "claims.csv"),
        "jobs": [(commit, counted(n, "job")) for commit, n in commits.most_common()],
        "accepted": [
            (some_of(sorted(files[change])), *change, counted(n, "job"))
            for change, n in sorted(counts.items())
        ],
    }


def some_of(names: list[str]) -> str:
    """Names in a row; of many the first ones, and how many more there are.

    >>> some_of(["a", "b"]), some_of(["a", "b", "c", "d", "e"])
    ('a, b', 'a, b, c and 2 more')
    """
    shown = names if len(names) <= SHOWN + 1 else names[:SHOWN]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


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
