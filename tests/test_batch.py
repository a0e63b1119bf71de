"""The same study gives the same results, however it runs; what differs from them is named."""

import shutil

import pytest
from toy import batch, results_of


def test_the_plan_tells_how_long_from_earlier_runs(project):
    study = project / "studies" / "toy.yaml"
    before = study.read_text()
    study.write_text(before.replace("seeds:\n- 0", "seeds:\n- 0\n- 1"))
    try:
        *_, summary = batch(project, "plan", "toy").stdout.splitlines()
    finally:
        study.write_text(before)
    assert "unknown" not in summary and (" s one after" in summary or " min one after" in summary)


def test_verify_names_what_differs(project, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    results = copy / "results" / "toy"
    assert batch(copy, "verify", "toy").stdout.startswith("OK: toy: ")
    metrics = results / "metrics.csv"
    whole = metrics.read_text()
    row = next(line for line in whole.splitlines() if ",bigrec," in line and "test" in line)
    value = row.split(",")[-2]
    metrics.write_text(whole.replace(row, row.replace(value, "0.987654321")))
    said = batch(copy, "verify", "toy", check=False)
    assert said.returncode == 1 and "metrics.csv is not the file that was published" in said.stderr
    assert "is 0.987654321, but the ranks give" in said.stderr
    metrics.write_text(whole)
    (results / "figures" / "overall.png").unlink()
    assert "overall.png is missing" in batch(copy, "verify", "toy", check=False).stderr


@pytest.mark.slow
def test_what_comes_out_the_same_makes_nothing_after_it_run(project, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    manifests = sorted(copy.glob("runs/toy/**/manifest.json"))
    before = {path: path.stat().st_mtime_ns for path in manifests}
    notebook = copy / "notebooks" / "01_prepare_data.ipynb"
    notebook.write_text(notebook.read_text().replace("This notebook reads", "It reads"))
    said = batch(copy, "study", "toy")
    again = {path.parent.name for path in manifests if path.stat().st_mtime_ns != before[path]}
    assert again == {"data"} and "still done" in said.stderr
    assert batch(copy, "study", "toy").stdout.startswith("Nothing to be done")


@pytest.mark.slow
def test_titles_written_in_shards_are_those_of_one_job(project, tmp_path):
    """All that follows from them is looked at anew, too, one job after the other."""
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    study = copy / "studies" / "toy.yaml"
    study.write_text(study.read_text() + "generation_shards: 2\n")
    shutil.rmtree(copy / "runs" / "toy" / "toy" / "n16-s0" / "generations")
    said = batch(copy, "study", "toy", "--cores", "1")
    assert "03_generate_titles.2-of-2" in said.stderr
    found = results_of(copy)
    assert len(found) > 30 and found == results_of(project)
