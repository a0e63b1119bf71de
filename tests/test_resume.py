"""A study without its `runs/`: adapters and titles come from what is published."""

import json
import shutil
import subprocess
import sys

import pytest
from toy import batch

from bigrec_lib.files import sha256

TAKE_UP = """
from bigrec_lib.study import batch, expansion, studies
batch.take_up("toy", expansion.jobs("toy", studies.load("toy")))
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


def take_up(folder):
    command = [sys.executable, "-c", TAKE_UP]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stderr


def test_adapters_and_titles_are_taken_from_the_results(project, clone):
    assert take_up(clone) == "taken from the results: 4 jobs of 02 and 03\n"
    for run in (RUN, PICKED):
        for split in ("valid", "test"):
            name = f"{run}/generations/beams/{split}.parquet"
            assert sha256(clone / name) == sha256(project / name)
        rows = [f"{PICKED}/tuning/values.parquet", f"{PICKED}/tuning/measures.csv"]
        for name in (name for name in rows if (project / name).exists()):
            assert sha256(clone / name) == sha256(project / name)
        for step in ("tuning", "generations"):
            name = f"{run}/{step}/manifest.json"
            assert json.loads((clone / name).read_text()) == json.loads(
                (project / name).read_text()
            )
    weights = "tuning/adapter/adapter_model.safetensors"
    assert sha256(clone / RUN / weights) == sha256(project / RUN / weights)
    assert not (clone / PICKED / weights).exists(), "only the study's own adapters are published"
    assert take_up(clone) == ""


def test_what_is_taken_up_is_done_unless_a_job_that_has_to_run_needs_what_it_lacks(project, clone):
    take_up(clone)
    for name in ("data", "selection"):  # these run again
        shutil.copytree(project / "runs/toy/toy" / name, clone / "runs/toy/toy" / name)
    shutil.copytree(project / "runs/toy/executed", clone / "runs/toy/executed", dirs_exist_ok=True)
    planned = batch(clone, "plan", "toy").stdout.splitlines()
    done = {line.split()[1] for line in planned if line.startswith("done")}
    assert {f"toy.{run}.{job}" for run in ("n16-s0", "n8-s0-as-picked.random.0")
            for job in ("02_tune_llm", "03_generate_titles")} <= done  # fmt: skip
    shutil.rmtree(clone / PICKED / "generations")
    shutil.rmtree(clone / "results/toy/notebooks")
    generations = clone / "results/toy/manifests.json"
    told = json.loads(generations.read_text())
    del told["jobs"]["toy.n8-s0-as-picked.random.0.03_generate_titles"]
    generations.write_text(json.dumps(told))
    take_up(clone)
    assert not (clone / PICKED / "tuning").exists() and (clone / RUN / "tuning").exists()


def test_nothing_is_taken_up_that_would_come_out_differently(clone):
    room = clone / "bigrec_lib/method/beams.py"
    room.write_text(room.read_text().replace("NONE = ", "NONE = 1 * ", 1))
    study = clone / "studies/toy.yaml"
    study.write_text(study.read_text().replace("batch_size: 8", "batch_size: 4"))
    take_up(clone)
    assert not (clone / RUN / "generations").exists()
    assert (clone / RUN / "tuning").exists(), "tuning goes by neither"
