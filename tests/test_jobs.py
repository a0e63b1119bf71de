"""A job is complete only from `finish` on; work that costs minutes is kept while it is the same."""

import json

import pytest

from bigrec_lib.files import StudyError, sha256, write_json
from bigrec_lib.study import jobs, manifests, parameters, provenance


@pytest.fixture
def steps(tmp_path):
    """The parameters of 01 and 02 in a project of their own."""
    return tuple(
        cls(root=str(tmp_path), dataset="toy")
        for cls in (parameters.PrepareData, parameters.TuneLLM)
    )


def run(p, **files):
    """A finished job that writes these files, name -> text."""
    job = jobs.Job(p)
    for name, text in files.items():
        path = p.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    job.finish(items=1)
    return manifests.read(p.output)


def test_a_job_is_complete_only_from_finish_on(tmp_path, steps):
    prepare, tune = steps
    with pytest.raises(StudyError, match="run 01_prepare_data"):
        jobs.Job(tune)
    job = jobs.Job(prepare)
    (prepare.output / "items.csv").write_text("item\n")
    with pytest.raises(StudyError, match="is not complete"):
        jobs.Job(tune)
    job.finish(items=1)
    manifest = manifests.read(prepare.output)
    assert manifest["outputs"] == {"items.csv": sha256(prepare.output / "items.csv")}
    assert manifest["facts"] == {"items": 1}
    assert manifest["parameters"]["dataset"] == "toy"
    assert str(tmp_path) not in json.dumps(manifest)
    inputs = run(tune)["inputs"]
    assert inputs == {"01_prepare_data": manifests.substance(manifest)}
    jobs.Job(prepare)
    with pytest.raises(StudyError, match="is not complete"):
        jobs.Job(tune)


def test_data_and_facts_are_the_substance_and_looks_and_seconds_are_not(steps):
    prepare, _ = steps
    files = {"items.csv": "item\n"}
    plain = manifests.substance(run(prepare, **files))
    shown = {"figures/look.png": "another look", "tables/t.csv": "a"}
    assert manifests.substance(run(prepare, **files, **shown)) == plain
    assert manifests.substance(run(prepare, **{"items.csv": "item\n0\n"})) != plain
    manifest = run(prepare, **files)
    assert manifests.substance(manifest | {"seconds": 99, "seconds_of": {"a": 1}}) == plain
    assert manifests.substance(manifest | {"facts": {"items": 2}}) != plain


def test_a_job_that_runs_again_keeps_its_costly_work_and_nothing_else(steps):
    prepare, tune = steps
    run(prepare, **{"items.csv": "item\n"})
    run(tune, **{"adapter/weights": "tuned", "old.csv": "left"})
    jobs.Job(tune).finish()
    assert (tune.adapter / "weights").read_text() == "tuned"
    assert not (tune.output / "old.csv").exists()


@pytest.mark.parametrize("what", ["code", "inputs", "parameters"])
def test_costly_work_goes_when_what_it_rests_on_changed(steps, monkeypatch, what):
    prepare, tune = steps
    run(prepare, **{"items.csv": "item\n"})
    run(tune, **{"adapter/weights": "tuned"})
    if what == "code":
        monkeypatch.setattr(provenance, "code_of", lambda *makers: "other code")
    elif what == "inputs":
        run(prepare, **{"items.csv": "item\n0\n"})
    else:
        tune = tune.model_copy(update={"rank": 4})
    jobs.Job(tune).finish()
    assert not (tune.adapter / "weights").exists()


def test_what_was_accepted_stays_with_the_work_that_stays(steps, monkeypatch, tmp_path):
    prepare, _ = steps
    train = parameters.TrainBaselines(root=str(tmp_path), dataset="toy")
    run(prepare, **{"items.csv": "item\n"})
    run(train, **{"networks/n": "trained", "p5-adapter/w": "tuned"})
    manifest = manifests.read(train.output) | {"accepted": [{"why": "the same"}]}
    write_json(manifest, train.output / manifests.NAME)
    networks = train.makers["networks"]
    code_of = provenance.code_of
    monkeypatch.setattr(
        provenance, "code_of", lambda *makers: "new" if makers == networks else code_of(*makers)
    )
    jobs.Job(train).finish()
    assert not (train.output / "networks").exists() and (train.output / "p5-adapter/w").exists()
    assert manifests.read(train.output)["accepted"] == [{"why": "the same"}]


def test_no_job_runs_twice_at_a_time(steps, tmp_path):
    import subprocess
    import sys

    prepare, _ = steps
    job = jobs.Job(prepare)
    again = (
        "from bigrec_lib.study import jobs, parameters\n"
        f"jobs.Job(parameters.PrepareData(root={str(tmp_path)!r}, dataset='toy'))"
    )
    done = subprocess.run([sys.executable, "-c", again], capture_output=True, text=True)
    assert "toy.01_prepare_data is running already" in done.stderr
    job.finish()
    done = subprocess.run([sys.executable, "-c", again], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
