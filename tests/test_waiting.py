"""The batch's processes are told how to wait and to keep memory, which changes no result; and the
benchmark beside busy processes counts rightly and leaves none behind."""

import os
import platform
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest

from bigrec_lib.files import locked
from bigrec_lib.study import batch, environment, notebook, parameters, runner, schema

WAITING = ("OMP_WAIT_POLICY", *environment.WAITING)
VARIABLES = (*WAITING, *environment.MEMORY)


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    """No such variables before a test, and after it what there was."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def busy(monkeypatch):
    """The module benchmarks/busy.py."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import busy

    return busy


def test_the_kernels_of_a_batch_are_told_how_to_wait_and_to_keep_memory(tmp_path, capfd):
    assert batch.main(["schema"]) == 0
    code = f"import os; print({{name: os.environ.get(name) for name in {VARIABLES}}})"
    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbformat.write(source, tmp_path / "one.ipynb")
    notebook.execute(tmp_path / "one.ipynb", tmp_path / "done.ipynb", {}, tmp_path / "log")
    (cell,) = nbformat.read(tmp_path / "done.ipynb", 4).cells
    told = {"OMP_WAIT_POLICY": None} | environment.WAITING | environment.MEMORY
    assert cell.outputs[0].text == f"{told}\n"


@pytest.mark.parametrize("name", VARIABLES)
def test_a_users_own_variable_stays_and_those_beside_it_are_not_set(monkeypatch, name):
    monkeypatch.setenv(name, "7")
    assert batch.main(["schema"]) == 0
    beside = WAITING if name in WAITING else environment.MEMORY
    assert {each: os.environ[each] for each in beside if each in os.environ} == {name: "7"}


@pytest.mark.slow
def test_results_do_not_depend_on_how_threads_wait_or_who_keeps_memory():
    code = """
import hashlib, torch
torch.manual_seed(0)
x = torch.randn(300, 400, requires_grad=True)
w = torch.randn(400, 500, requires_grad=True)
((x @ w).softmax(-1) @ w.T).logsumexp(-1).sum().backward()
print(torch.get_num_threads(), hashlib.sha256(w.grad.numpy().tobytes()).hexdigest())
"""
    usual = os.environ | {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    said = {
        subprocess.check_output([sys.executable, "-c", code], env=usual | way, text=True)
        for way in ({}, environment.WAITING | environment.MEMORY, {"OMP_WAIT_POLICY": "passive"})
    }
    assert len(said) == 1 and said.pop().startswith("2 ")


# ------------------------------------------------------------------------------- the benchmark


def test_the_verdict_is_that_of_the_worst_work_and_load(busy):
    seconds = {
        ("a", "default", "quiet"): 2.0,
        ("a", "batch", "quiet"): 2.1,  # 5 % more
        ("a", "batch", "one equal"): 3.0,  # fair on two cores: 3
        ("a", "batch", "two equal"): 6.0,  # fair: 4
        ("b", "default", "quiet"): 1.0,
        ("b", "batch", "quiet"): 1.0,
        ("b", "batch", "one equal"): 1.2,
        ("b", "batch", "two equal"): 2.0,
    }
    table = pd.Series(seconds).rename_axis(["work", "way", "load"]).unstack(["way", "load"])
    assert busy.verdict(table, cores=2) == {"quiet_cost": 0.05, "busy_over_fair": 1.5}


def test_busy_processes_are_busy_polite_and_gone_afterwards(busy):
    import psutil

    def children():
        return {child.pid: child for child in psutil.Process().children()}

    before = children()
    with busy.beside((19, 0)):
        begun = [child for pid, child in children().items() if pid not in before]
        assert sorted(child.nice() for child in begun) == [0, 19]
        assert all(child.status() == psutil.STATUS_RUNNING for child in begun)
    assert not [child for child in begun if child.is_running()]


def test_a_server_waits_in_its_own_way_and_leaves_ours_alone(busy, monkeypatch, tmp_path):
    started = []

    class Process:
        def __init__(self, **given):
            self.connection = given["args"][0]

        def start(self):
            started.append({name: os.environ.get(name) for name in WAITING})
            self.connection.send(0.0)

        def join(self):
            assert self.connection.recv() is False

    monkeypatch.setattr(busy.multiprocessing.get_context("spawn"), "Process", Process)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    with busy.server("tuning", "", {"GOMP_SPINCOUNT": "7"}):
        assert os.environ["OMP_WAIT_POLICY"] == "active" and "GOMP_SPINCOUNT" not in os.environ
    assert started == [{"OMP_WAIT_POLICY": None, "GOMP_SPINCOUNT": "7"}]


def test_jobs_at_once_see_gpus_of_their_own(monkeypatch, tmp_path):
    monkeypatch.delenv(environment.VISIBLE, raising=False)

    def gpus(count, usable=("0", "1", "2")):
        return environment.own_gpus(count, list(usable), tmp_path)

    def seen():
        return os.environ.get(environment.VISIBLE)

    waits = []
    with gpus(2):
        assert seen() == "0,1"
        with gpus(1):  # as in the process of another job
            assert seen() == "2"
        assert seen() == "0,1"
        monkeypatch.setattr(environment.time, "sleep", waits.append)
        waiting = gpus(2)
        monkeypatch.setattr(environment, "free_gpus", lambda *_: waits and ["1", "2"])
        with waiting:
            assert seen() == "1,2" and waits, "it waited for the second one"
    monkeypatch.undo()
    monkeypatch.delenv(environment.VISIBLE, raising=False)
    for count, expected in ((1, "0"), (3, "0,1,2"), (9, "0,1,2"), (0, None)):
        with gpus(count):
            assert seen() == expected, "all are free again"
    with gpus(1, ["0"]):
        assert seen() is None


def test_gpus_are_taken_whole_or_not_at_all(tmp_path):
    with ExitStack() as mine, ExitStack() as theirs:
        assert environment.free_gpus(2, ["a", "b/0", "c"], tmp_path, mine) == ["a", "b/0"]
        assert environment.free_gpus(2, ["a", "b/0", "c"], tmp_path, theirs) == []
        assert environment.free_gpus(1, ["a", "b/0", "c"], tmp_path, theirs) == ["c"]


def test_a_users_choice_of_gpus_is_what_jobs_share(monkeypatch):
    monkeypatch.delenv(environment.VISIBLE, raising=False)
    assert environment.usable_gpus(2) == ["0", "1"]
    monkeypatch.setenv(environment.VISIBLE, "4, 5")
    assert environment.usable_gpus(8) == ["4", "5"]
    monkeypatch.setenv(environment.VISIBLE, "")
    assert environment.usable_gpus(8) == []


@pytest.mark.parametrize(("asked", "seen"), [(1, "1"), (0, None)])
def test_a_job_sees_the_gpus_it_asks_for(monkeypatch, tmp_path, asked, seen):
    found = []
    study = SimpleNamespace(
        generation_shards=2,
        resources_of=lambda notebook: schema.Resources(gpus=asked),
    )
    job = parameters.GenerateTitles(study="toy", root=str(tmp_path))
    monkeypatch.delenv(environment.VISIBLE, raising=False)
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner.studies, "load", lambda name: study)
    monkeypatch.setattr(runner.expansion, "jobs", lambda name, study: {job.job: job})
    monkeypatch.setattr(runner.plan, "why_again", lambda job: "new")
    monkeypatch.setattr(runner.plan, "check_inputs", lambda job: None)
    monkeypatch.setattr(runner.provenance, "gpus", lambda: ["a card", "a card"])
    for work in ("execute", "generate_shard"):
        monkeypatch.setattr(
            runner, work, lambda *_: found.append(os.environ.get(environment.VISIBLE))
        )
    with locked(tmp_path / "runs" / ".gpus" / platform.node() / "0"):  # another job's
        runner.run_notebook("toy", job.job)
        runner.run_shard("toy", job.job, 1)
    assert found == [seen, seen]
