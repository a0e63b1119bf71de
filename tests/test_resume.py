"""A study without its `runs/`: what its jobs made comes from what is published."""

import json
import shutil
import subprocess
import sys
from itertools import chain
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from toy import batch

from bigrec_lib.files import StudyError, sha256
from bigrec_lib.study import batch as study_batch
from bigrec_lib.study import plan, publish

TAKE_UP = """
from bigrec_lib.study import batch, expansion, studies
batch.take_up(expansion.jobs("toy", studies.load("toy")))
"""
RUN, PICKED = "runs/toy/toy/n16-s0", "runs/toy/toy/n8-s0-as-picked.random.0"


@pytest.fixture
def clone(project, tmp_path):
    """What a clone of the project holds."""
    folder = tmp_path / "clone"
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("runs"))
    study = folder / "studies/toy.yaml"
    study.write_text(study.read_text() + "from_results: true\n")
    return folder


@pytest.fixture
def steps(project):
    """The folders of all that the toy study made from its data, analyses aside."""
    folders = [path.parent for path in (project / "runs/toy").rglob("manifest.json")]
    made = {folder: json.loads((folder / "manifest.json").read_text()) for folder in folders}
    return [
        folder.relative_to(project / "runs/toy")
        for folder, manifest in made.items()
        if manifest["keys"]["dataset"] and manifest["notebook"] != "01_prepare_data"
    ]


def take_up(folder):
    command = [sys.executable, "-c", TAKE_UP]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stderr


def test_what_jobs_made_is_taken_from_the_results(project, clone, steps):
    assert take_up(clone) == f"taken from the results: {len(steps)} jobs\n"
    for step in steps:
        was = json.loads((project / "runs/toy" / step / "manifest.json").read_text())
        now = json.loads((clone / "runs/toy" / step / "manifest.json").read_text())
        now.pop("rows")
        assert now == was
        for name in set(was["outputs"]) & set(chain(*publish.TABLES.values())):
            path, original = clone / "runs/toy" / step / name, project / "runs/toy" / step / name
            if name.endswith(".parquet"):
                assert pq.read_table(path).equals(pq.read_table(original))
            else:
                assert path.read_text() == original.read_text()
    weights = "tuning/adapter/adapter_model.safetensors"
    assert sha256(clone / RUN / weights) == sha256(project / RUN / weights)
    assert not (clone / PICKED / weights).exists(), "only the study's own adapters are published"
    assert take_up(clone) == ""


def test_what_is_taken_up_is_published_again_as_it_was(project, clone):
    take_up(clone)
    prepare(project, clone)
    batch(clone, "collect", "toy")
    for name in publish.TABLES:
        assert (clone / "results/toy" / name).exists() == (project / "results/toy" / name).exists()
        if (clone / "results/toy" / name).exists():
            assert sha256(clone / "results/toy" / name) == sha256(project / "results/toy" / name)


def test_what_is_taken_up_is_done_unless_a_job_that_has_to_run_needs_what_it_lacks(
    project, clone, steps
):
    take_up(clone)
    prepare(project, clone)
    states = planned(clone)
    assert [name for name, state in states.items() if state == "done"] == [
        name for name in states if name.startswith("toy.")
    ]
    forget(clone, "toy.n8-s0-as-picked.random.0.03_generate_titles", f"{PICKED}/generations")
    forget(clone, "toy.n16-s0.05_reweight_by_statistics", f"{RUN}/reweighting")
    again = {name for name, state in planned(clone).items() if state.endswith(plan.UNPUBLISHED)}
    assert again == {
        "toy.n8-s0-as-picked.random.0.02_tune_llm",  # its adapter has to write
        "toy.n16-s0.04_ground_to_items",  # 05 reads its vectors
        "toy.n16-s0.06_train_baselines",  # and its scores
    }
    assert (clone / RUN / "grounding/ranks.parquet").exists(), "a plan removes nothing"
    failed = batch(clone, "notebook", "toy", "toy.n16-s0.05_reweight_by_statistics", check=False)
    assert failed.returncode == 1
    assert "which is not among the results: run the study again" in failed.stderr


@pytest.mark.parametrize("lacking", [True, False])
def test_the_batch_goes_round_again_where_a_new_job_shows_what_else_is_needed(monkeypatch, lacking):
    tries = []

    def run_jobs(*_):
        tries.append(1)
        if len(tries) == 1:
            raise StudyError("04 reads vectors, which are not among the results")

    todo = plan.State(job=None, status="stale", why="", seconds=1.0)
    monkeypatch.setattr(plan, "states", lambda _: {"a": todo})
    monkeypatch.setattr(plan, "jobs_to_repeat", lambda _: ["b"] * (lacking and bool(tries)))
    monkeypatch.setattr(study_batch, "remove", lambda _: None)
    monkeypatch.setattr(study_batch, "run_jobs", run_jobs)
    jobs = {"b": SimpleNamespace(output=None)}
    if lacking:
        study_batch.run_missing("toy", jobs)
    else:
        with pytest.raises(StudyError, match="reads vectors"):
            study_batch.run_missing("toy", jobs)
    assert len(tries) == 1 + lacking


def planned(clone):
    """What the plan says of every job: status, and why."""
    lines = batch(clone, "plan", "toy").stdout.splitlines()
    rows = [
        line.split(maxsplit=2) for line in lines if line.startswith(("done", "stale", "missing"))
    ]
    return {name: " ".join([status, *rest[0].split()[2:]]) for status, name, *rest in rows}


def prepare(project, clone):
    """Do what 01 would do in the clone."""
    for name in ("toy/data", "executed/toy.01_prepare_data.ipynb"):
        copy = shutil.copyfile if name.endswith("ipynb") else shutil.copytree
        copy(project / "runs/toy" / name, clone / "runs/toy" / name)


def forget(clone, key, folder):
    """Take a job out of the results, and its folder out of the work."""
    shutil.rmtree(clone / folder)
    path = clone / "results/toy/manifests.json"
    published = json.loads(path.read_text())
    del published["jobs"][key]
    path.write_text(json.dumps(published))


def test_nothing_is_taken_up_that_would_come_out_differently(clone):
    room = clone / "bigrec_lib/method/beams.py"
    room.write_text(room.read_text().replace("NONE = ", "NONE = 1 * ", 1))
    study = clone / "studies/toy.yaml"
    study.write_text(study.read_text().replace("batch_size: 8", "batch_size: 4"))
    take_up(clone)
    assert not (clone / RUN / "generations").exists()
    assert (clone / RUN / "tuning").exists(), "tuning goes by neither"
