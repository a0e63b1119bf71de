"""What a change makes stale; the same study gives the same numbers, however it runs."""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import batch, make_project, results_of

STEPS = ("01", "02", "03", "04", "05", "06")


def states(project) -> dict[str, str]:
    """The plan: number of the notebook (of the only run) -> its line."""
    *jobs, _ = batch(project, "plan", "toy").stdout.splitlines()
    return {line.split()[1].split(".")[-1][:2]: line for line in jobs}


def to_do(project) -> set[str]:
    return {number for number, line in states(project).items() if not line.startswith("done")}


@contextmanager
def changed(path: Path, change):
    """The file at `path` with other contents, for a while."""
    before, stat = path.read_bytes(), path.stat()
    path.write_text(change(before.decode("latin-1")), encoding="latin-1")
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def comment(text):
    return text + "\n# changed\n"


def first_cell(kind, change=lambda cell: cell["source"].append("\n")):
    """A change to the first cell of a kind in a notebook."""

    def apply(text):
        notebook = json.loads(text)
        change(next(cell for cell in notebook["cells"] if cell["cell_type"] == kind))
        return json.dumps(notebook)

    return apply


@pytest.fixture
def analyses(project) -> set[str]:
    return {number for number in states(project) if number >= "07"}


@pytest.mark.parametrize(
    ("file", "change", "stale"),
    [
        ("bigrec_lib/method/reweighting.py", comment, "05"),
        ("bigrec_lib/method/baselines.py", comment, "05 06"),
        ("bigrec_lib/method/grounding.py", comment, "04 05 06"),
        ("bigrec_lib/method/tuning.py", comment, "02 03 04 05 06"),
        ("bigrec_lib/method/datasets.py", comment, "01 02 03 04 05 06"),
        ("notebooks/04_ground_to_items.ipynb", first_cell("code"), "04 05"),
        ("notebooks/05_reweight_by_statistics.ipynb", first_cell("markdown"), "05"),
    ],
    ids=lambda value: Path(value).name if isinstance(value, str) and "/" in value else "",
)
def test_a_change_of_code_makes_stale_what_rests_on_it_and_nothing_else(
    project, analyses, file, change, stale
):
    with changed(project / file, change):
        assert to_do(project) & set(STEPS) == set(stale.split())
        assert analyses <= to_do(project)
    assert to_do(project) == set()


@pytest.mark.parametrize(
    ("notebooks", "stale"),
    [
        ({"05_reweight_by_statistics": {"collaborative": "sasrec-ce"}}, "05"),
        ({"03_generate_titles": {"beams": 2}}, "03 04 05"),
        ({"03_generate_titles": {"beams": 4}}, ""),
        ({"02_tune_llm": {"rank": 4}}, "02 03 04 05"),
        ({"01_prepare_data": {"history": 3}}, "01 02 03 04 05 06"),
    ],
)
def test_a_changed_parameter_makes_stale_what_comes_from_it(project, analyses, notebooks, stale):
    def change(text):
        study = yaml.safe_load(text)
        for notebook, parameters in notebooks.items():
            study["notebooks"].setdefault(notebook, {}).update(parameters)
        return yaml.safe_dump(study)

    with changed(project / "studies" / "toy.yaml", change):
        assert to_do(project) & set(STEPS) == set(stale.split())


def test_data_and_model_count_by_content_and_times_do_not(project, toy_data, tiny_llm, analyses):
    with changed(toy_data / "u.data", lambda text: text + text.splitlines()[0] + "\n"):
        assert to_do(project) >= {*STEPS, *analyses}
    with changed(tiny_llm / "generation_config.json", comment):
        assert to_do(project) & set(STEPS) == set(STEPS) - {"01"}
    for folder in (project, toy_data, tiny_llm):
        for path in folder.rglob("*"):
            os.utime(path)
    assert to_do(project) == set()


def test_outputs_in_a_notebook_are_no_change(project):
    def ran(cell):
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["done"]}]
        cell["execution_count"] = 7

    with changed(project / "notebooks" / "02_tune_llm.ipynb", first_cell("code", ran)):
        assert to_do(project) == set()


def test_lost_files_are_missed_by_name(project, tmp_path):
    results = project / "results" / "toy"
    for path in (
        results / "toy" / "n16-s0" / "grounding" / "ranks" / "test" / "bigrec.parquet",
        results / "notebooks" / "toy.n16-s0.04_ground_to_items.ipynb",
    ):
        shutil.move(path, tmp_path / "lost")
        assert path.name in states(project)["04"] and "05" in to_do(project)
        shutil.move(tmp_path / "lost", path)
    assert to_do(project) == set()


def test_the_plan_tells_how_long_from_earlier_runs(project):
    study = project / "studies" / "toy.yaml"
    with changed(study, lambda text: text.replace("seeds:\n- 0", "seeds:\n- 0\n- 1")):
        *_, summary = batch(project, "plan", "toy").stdout.splitlines()
    assert "unknown" not in summary and (" s one after" in summary or " min one after" in summary)


def test_only_what_is_stale_runs_and_its_leftovers_are_not_used(project):
    manifests = sorted(project.glob("r*s/toy/**/manifest.json"))
    before = {path: path.stat().st_mtime_ns for path in manifests}
    (project / "results/toy/toy/n16-s0/reweighting/old.csv").write_text("of other code")
    with changed(project / "bigrec_lib" / "reweighting.py", comment):
        batch(project, "study", "toy")
        assert to_do(project) == set()
        ran = {path.parent.name for path in manifests if path.stat().st_mtime_ns != before[path]}
        assert "reweighting" in ran and not ran & {"data", "adapter", "generations", "grounding"}
        assert not (project / "results/toy/toy/n16-s0/reweighting/old.csv").exists()
    batch(project, "study", "toy")


def test_verify_names_what_differs(project):
    ranks = "results/toy/toy/n16-s0/grounding/ranks/test/bigrec.parquet"
    metrics = project / "results/toy/toy/n16-s0/grounding/metrics.csv"
    assert batch(project, "verify", "toy").stdout.startswith("OK")
    other = (project / ranks).parent / "bigrec-unseen.parquet"
    kept = (project / ranks).read_bytes()
    shutil.copy(other, project / ranks)
    said = batch(project, "verify", "toy", check=False)
    assert said.returncode == 1 and ranks.removeprefix("results/") in said.stderr
    assert "bigrec test" in said.stderr and "but the ranks give" in said.stderr
    (project / ranks).write_bytes(kept)
    with changed(metrics, lambda text: text.replace("0.05", "0.06", 1)):
        assert "metrics.csv" in batch(project, "verify", "toy", check=False).stderr
    assert batch(project, "verify", "toy").stdout.startswith("OK")
    picture = project / "results/toy/toy/n16-s0/grounding/ranks.svg"
    kept = picture.read_bytes()
    picture.unlink()
    assert "1 pictures are not here" in batch(project, "verify", "toy").stdout
    picture.write_bytes(kept[:-1])
    assert "ranks.svg" in batch(project, "verify", "toy", check=False).stderr
    picture.write_bytes(kept)


def test_what_comes_out_the_same_makes_nothing_after_it_run(project):
    def made(pattern):
        return {path: path.stat().st_mtime_ns for path in sorted(project.glob(pattern))}

    adapters, manifests = "runs/toy/toy/*/adapter/*.safetensors", "r*s/toy/**/manifest.json"
    before = made(adapters), made(manifests)
    with changed(project / "notebooks" / "01_prepare_data.ipynb", first_cell("markdown")):
        said = batch(project, "study", "toy")
        again = {
            path.parent.name for path, time in made(manifests).items() if time != before[1][path]
        }
        assert again == {"data"} and "still done" in said.stderr
        assert batch(project, "study", "toy").stdout.startswith("Nothing to be done")
    batch(project, "notebook", "toy", "toy.01_prepare_data")
    assert to_do(project) == set()
    tune = ("notebook", "toy", "toy.n16-s0.02_tune_llm")
    with changed(project / "bigrec_lib" / "plots.py", comment):
        batch(project, *tune)
        assert made(adapters) == before[0] and "05" in to_do(project)
    batch(project, *tune)
    assert made(adapters) == before[0] and to_do(project) == set()


def test_one_job_after_the_other_in_shards_gives_what_two_at_once_gave(
    project, tmp_path, toy_data, tiny_llm
):
    """Every job has one thread; `project` ran as many at once as there are cores."""
    folder = make_project(tmp_path / "one", toy_data, tiny_llm, generation_shards=2)
    batch(folder, "study", "toy", "--cores", "1")
    found = results_of(folder)
    assert len(found) > 20 and found == results_of(project)
