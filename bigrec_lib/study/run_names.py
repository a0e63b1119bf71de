"""Names of jobs and runs, such as movies.n1024-s0-by-large.02_tune_llm, taken apart.

`parameters_runs` and `parameters_steps` put them together; `findings.methods` puts them in words.
"""

from __future__ import annotations

import re

JOB = re.compile(
    r"(?:(?P<dataset>.+?)\.)?(?:(?P<run>(?:n\d+|full)-s\d+.*)\.)?(?P<notebook>\d\d[a-z]?_\w+)"
)
RUN = re.compile(r"n(\d+)-s(\d+)(?:-(.+))?")


def parts_of(job: str) -> tuple[str, str, str]:
    """Data set, run and notebook of a job; '' for what its name lacks.

    >>> parts_of("games.n64-s0.02_tune_llm"), parts_of("07_overall_performance")
    (('games', 'n64-s0', '02_tune_llm'), ('', '', '07_overall_performance'))
    """
    match = JOB.fullmatch(job)
    dataset, run, notebook = (part or "" for part in match.groups()) if match else ("", "", "")
    return dataset, run, notebook


def adapter_run(run: str) -> tuple[int, int, str] | None:
    """Samples, seed and what is special ('' for nothing) of an adapter's run; None for another's.

    >>> adapter_run("n64-s0-as-matched"), adapter_run("full-s0")
    ((64, 0, 'as-matched'), None)
    """
    match = RUN.fullmatch(run)
    return (int(match[1]), int(match[2]), match[3] or "") if match else None


def is_plain(run: str) -> bool:
    """Whether a run has the study's own LLM and settings, and is used on the data it learnt."""
    adapter = adapter_run(run)
    return adapter is not None and not adapter[2]
