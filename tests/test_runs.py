"""Parameters are checked, jobs know when they are complete, studies say what is wrong."""

import json

import pytest
import yaml

from bigrec_lib import batch, provenance, runs, studies
from bigrec_lib.files import StudyError, sha256


def test_parameters_come_from_a_notebooks_globals_whatever_else_is_there():
    names = {"In": [], "_dh": [], "exit": print, "learning_rate": "1e-4", "seed": 3}
    given = runs.TuneLLM.check(names)
    assert given.learning_rate == 1e-4
    assert given.run == "n256-s3"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"learning_rat": 0.1}, "02_tune_llm: unknown parameter 'learning_rat'"),
        ({"epochs": "many"}, "epochs: .*not 'many'"),
        ({"n_train": 0}, "n_train: .*not 0"),
        ({"quantisation": "nf5"}, "quantisation: .*not 'nf5'"),
    ],
)
def test_misspelt_and_ill_typed_parameters_are_refused_in_one_line(names, message):
    with pytest.raises(StudyError, match=message) as caught:
        runs.TuneLLM.check(names)
    assert "\n" not in str(caught.value)


def test_a_job_is_complete_only_from_finish_on(tmp_path):
    prepare = runs.PrepareData(root=str(tmp_path), dataset="toy")
    tune = runs.TuneLLM(root=str(tmp_path), dataset="toy")
    with pytest.raises(StudyError, match="run 01_prepare_data"):
        runs.Job(tune)
    job = runs.Job(prepare)
    (prepare.output / "items.csv").write_text("item\n")
    with pytest.raises(StudyError, match="is not complete"):
        runs.Job(tune)
    job.finish(items=1)
    manifest = runs.read_manifest(prepare.output)
    assert manifest["outputs"] == {"items.csv": sha256(prepare.output / "items.csv")}
    assert manifest["facts"] == {"items": 1}
    assert manifest["parameters"]["dataset"] == "toy"
    assert str(tmp_path) not in json.dumps(manifest)

    runs.Job(tune).finish()
    inputs = runs.read_manifest(tune.output)["inputs"]
    assert inputs == {"01_prepare_data": sha256(prepare.output / "manifest.json")}
    runs.Job(prepare)
    with pytest.raises(StudyError, match="is not complete"):
        runs.Job(tune)


@pytest.fixture
def study_file(tmp_path, monkeypatch):
    """Write a study file into a project of its own."""
    monkeypatch.setattr(batch, "ROOT", tmp_path)
    monkeypatch.setattr(studies, "ROOT", tmp_path)
    (tmp_path / "studies").mkdir()

    def write(**changes):
        content = {"datasets": {"ml-100k": {}}, "n_train": [16], "seeds": [0, 1], **changes}
        (tmp_path / "studies" / "toy.yaml").write_text(yaml.safe_dump(content))
        return studies.load("toy")

    return write


def test_a_study_runs_every_size_and_seed_on_every_data_set(study_file):
    study = study_file(
        datasets={"ml-100k": {}, "other": {"reader": "ml-100k"}},
        n_train=[8, 16],
        llm={"model": "folder"},
        notebooks={"02_tune_llm": {"learning_rate": "1e-4"}},
    )
    planned = studies.jobs("toy", study).values()
    tunings = [p for p in planned if isinstance(p, runs.TuneLLM)]
    assert {(p.dataset, p.run) for p in tunings} == {
        (dataset, f"n{n}-s{seed}")
        for dataset in ("ml-100k", "other")
        for n in (8, 16)
        for seed in (0, 1)
    }
    assert all(p.learning_rate == 1e-4 and p.model == "folder" for p in tunings)
    assert sum(isinstance(p, runs.PrepareData) for p in planned) == 2
    assert len({p.output for p in planned}) == len(planned)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": [0]}, "studies/toy.yaml: unknown parameter 'seed'"),
        ({"seeds": "all"}, "studies/toy.yaml: seeds"),
        ({"datasets": {}}, "studies/toy.yaml: datasets"),
        ({"llm": {"modell": "x"}}, "02_tune_llm: unknown parameter 'modell'"),
        ({"notebooks": {"02_tune": {}}}, "unknown notebook 02_tune"),
        ({"notebooks": {"02_tune_llm": {"epochs": -1}}}, "02_tune_llm: epochs"),
    ],
)
def test_a_wrong_study_file_is_named_with_what_is_wrong(study_file, changes, message):
    with pytest.raises(StudyError, match=message) as caught:
        study_file(**changes)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named_without_the_whole_file(study_file):
    (batch.ROOT / "studies" / "toy.yaml").write_text("datasets: {ml-100k: {}}\nn_train: [1]\n")
    with pytest.raises(StudyError) as caught:
        studies.load("toy")
    assert str(caught.value) == "studies/toy.yaml: 'seeds' is missing"


def test_an_unknown_study_ends_with_one_line_and_exit_code_1(study_file, capsys):
    study_file()
    assert batch.main(["plan", "tyo"]) == 1
    assert capsys.readouterr().err == "error: no study 'tyo' in studies/: choose one of toy\n"


def test_only_one_batch_of_a_study_runs_at_a_time(study_file):
    with batch.only_one("toy"):
        with pytest.raises(StudyError, match="running already"), batch.only_one("toy"):
            pass
        with batch.only_one("other"):
            pass


def test_library_of_follows_imports(tmp_path):
    source = tmp_path / "source.py"
    source.write_text("def f():\n    from bigrec_lib import prompts\n")
    assert provenance.library_of(source) == ["bigrec_lib/files.py", "bigrec_lib/prompts.py"]


def test_every_studys_parameters_are_valid():
    for path in (batch.ROOT / "studies").glob("*.yaml"):
        studies.load(path.stem)


def test_the_exported_schema_is_the_one_that_is_checked():
    assert (studies.ROOT / "studies" / "schema.json").read_text() == studies.schema()


def test_conda_users_get_the_locked_versions():
    environment = yaml.safe_load((batch.ROOT / "environment.yml").read_text())
    (pip,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    lock = (batch.ROOT / "requirements.lock").read_text().splitlines()
    assert all("==" in line for line in lock)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lock}
    import tomllib

    project = tomllib.loads((batch.ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {name.split(">")[0] for name in wanted} <= pinned
