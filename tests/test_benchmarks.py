"""Benchmarks find what they import; what they measure is looked at by hand."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
BENCHMARKS = sorted(path for path in FOLDER.glob("*.py") if path.stem != "common")


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_says_what_it_takes(path):
    told = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert "--quick" in told.stdout and "--json" in told.stdout


@pytest.mark.slow
def test_a_rehearsal_of_the_paper_runs_every_job_and_says_what_it_took(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import rehearse

    jobs = rehearse.rehearse(tmp_path, share=0.002, examples=8, every_kind=False)
    planned = json.loads((tmp_path / "project" / "runs" / "paper" / "batch.json").read_text())
    assert set(jobs.job) == set(planned) and len(jobs) > 15
    assert (jobs.seconds > 0).all() and (jobs.peak_gb > 0.05).all()
