"""The toy study through a real SLURM of one node gives what it gives without: `make cluster`."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from toy import batch, make_project, results_of

from bigrec_lib.study.parameters import NOTEBOOKS

FAST = "--slurm-status-command squeue --slurm-init-seconds-before-status-checks 2".split()
NODE = Path(__file__).parent / "one_node.sh"


@pytest.fixture
def slurm(tmp_path):
    """SLURM on this machine, for as long as the test runs."""
    if not os.environ.get("CLUSTER"):
        pytest.skip("sets up SLURM on this machine: make cluster")
    missing = [name for name in ("munged", "slurmctld", "slurmd") if not shutil.which(name)]
    if os.getuid() or missing:
        pytest.skip(f"needs root and `apt-get install munge slurmctld slurmd`; missing: {missing}")
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        pytest.skip("needs `pip install -e .[cluster]`")
    folder = tmp_path / "slurm"
    subprocess.run([NODE, "start", folder], check=True)
    yield folder
    subprocess.run([NODE, "stop", folder], check=True)


def test_the_toy_study_on_slurm_in_shards_and_processes_equals_the_local_one(
    slurm, tmp_path, toy_data, tiny_llm
):
    needs = {"threads": 1, "memory_gb": 2, "minutes": 10}
    study = {
        "resources": {notebook: needs for notebook in NOTEBOOKS}
        | {"02_tune_llm": {**needs, "processes": 2}},
        "notebooks": {"03_generate_titles": {"batch_size": 8}},
        "baselines": None,
    }
    local = make_project(tmp_path / "local", toy_data, tiny_llm, **study)
    batch(local, "study", "toy", "--cores", "1")
    remote = make_project(tmp_path / "remote", toy_data, tiny_llm, **study, generation_shards=2)
    profile = remote / "workflow" / "profiles" / "slurm"
    words = ["--workflow-profile", str(profile), *FAST]
    batch(remote, "study", "toy", *words)
    jobs = [
        line
        for line in (slurm / "slurmctld.log").read_text().splitlines()
        if "_slurm_rpc_submit_batch_job" in line
    ]
    assert len(jobs) >= 8  # six notebooks, two shards
    assert results_of(remote) == results_of(local)
    assert batch(remote, "study", "toy", *words).stdout.startswith("Nothing to be done")
