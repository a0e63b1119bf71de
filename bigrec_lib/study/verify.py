"""Check a published study against itself: no model, no data, no work files are needed."""

from pathlib import Path

import pandas as pd

from bigrec_lib.files import StudyError, sha256
from bigrec_lib.method import metrics
from bigrec_lib.study import manifests, results
from bigrec_lib.study.row_keys import KEYS

SAME = 1e-12  # two ways to add up the same numbers differ by no more


def study(folder: Path) -> str:
    """Recompute every published hash and every metric that follows from ranks.

    Returns a line that says what was checked. Raises StudyError that names what differs.
    """
    files = manifests.read_published(folder)["files"]
    problems = [hash_problem(folder / name, digest) for name, digest in files.items()]
    checks = metric_problems(folder) if "metrics.csv" in files else []
    problems = [problem for problem in [*problems, *checks] if problem]
    if problems:
        raise StudyError("\n".join([f"{folder.name}: {len(problems)} differ", *problems]))
    return (
        f"OK: {folder.name}: {len(files)} files have the recorded hash, "
        f"{len(checks)} metrics follow from the ranks"
    )


def hash_problem(path: Path, digest: str) -> str:
    """What is wrong with a published file; '' for nothing."""
    if not path.exists():
        return f"{path} is missing"
    return "" if sha256(path) == digest else f"{path} is not the file that was published"


def metric_problems(folder: Path) -> list[str]:
    """For every metric that follows from ranks: '', or what metrics.csv has in its place."""
    names = [*KEYS, "split", "method"]
    published = results.read(folder, "metrics.csv").set_index([*names, "metric", "k"]).value
    ranks = pd.concat(
        results.read_ranks(folder, split).assign(split=split) for split in ("valid", "test")
    )
    problems = []
    for keys, rows in ranks.groupby(names, sort=False):
        for row in metrics.summary(rows).itertuples():
            value = published.get((*keys, row.metric, row.k))
            same = value is not None and abs(value - row.value) < SAME
            place = " ".join(str(part) for part in (*keys, row.metric, row.k) if part != "")
            problems.append(
                "" if same else f"metrics.csv: {place} is {value}, but the ranks give {row.value}"
            )
    return problems
