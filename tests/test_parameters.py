"""Parameters are checked; where a job works and what its rows are called follows from them."""

import pytest

from bigrec_lib.files import StudyError
from bigrec_lib.study import expansion, parameters, row_keys, run_names, studies


def test_parameters_come_from_a_notebooks_globals_whatever_else_is_there():
    names = {"In": [], "_dh": [], "exit": print, "learning_rate": "1e-4", "seed": 3}
    given = parameters.TuneLLM.check(names)
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
        parameters.TuneLLM.check(names)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../elsewhere", ".hidden", "a/b", "", "a+b"])
def test_a_data_set_cannot_be_called_like_a_path(name):
    with pytest.raises(StudyError, match="dataset"):
        parameters.PrepareData.check({"dataset": name})


def test_the_keys_of_a_run_tell_it_from_every_other():
    runs = [
        parameters.GroundToItems(dataset="films", n_train=8),
        parameters.GroundToItems(dataset="films", n_train=8, constrained=True),
        parameters.GroundToItems(dataset="films", n_train=8, tuned_on="games"),
        parameters.GroundToItems(dataset="films", n_train=8, setting="slow"),
        parameters.GroundToItems(dataset="films", n_train=8, worded="none"),
        parameters.MergeAdapters(dataset="films", n_train=8, also=["games"]),
        parameters.TrainBaselines(dataset="films", n_train=8, full=True),
        parameters.TuneLLM(dataset="films", n_train=8, also=["games"]),
    ]
    assert all(list(p.keys) == list(row_keys.KEYS) for p in runs)
    assert len({tuple(p.keys.values()) for p in runs}) == len(runs)
    assert len({p.output for p in runs}) == len(runs)
    assert runs[-1].keys["dataset"] == "films+games" and runs[-2].keys["run"] == "full-s0"


@pytest.mark.parametrize("study", ["questions", "standard"])
def test_the_names_of_jobs_and_runs_are_taken_apart_as_they_were_put_together(study):
    for name, job in expansion.jobs(study, studies.load(study)).items():
        keys = job.keys
        assert run_names.parts_of(name) == (keys["dataset"], keys["run"], job.notebook), name
        adapter = run_names.adapter_run(str(keys["run"]))
        assert adapter is None or adapter[:2] == (keys["n_train"], keys["seed"]), name
        if adapter:
            special = [key for key in list(row_keys.KEYS)[4:] if keys[key]]
            assert run_names.is_plain(str(keys["run"])) == (not special), name


def test_p5_is_tuned_as_bigrec_is_but_for_what_has_a_name_of_its_own():
    p = parameters.TrainBaselines(p5_epochs=3, p5_batch_size=2, seed=5)
    settings, default = p.p5_settings, parameters.TuneLLM().settings
    assert (settings["epochs"], settings["batch_size"], settings["seed"]) == (3, 2, 5)
    assert {k for k in default if settings[k] != default[k]} == {"epochs", "batch_size", "seed"}


@pytest.mark.parametrize("model", ["collaborative", "comparator"])
def test_conventional_scores_are_waited_for_only_where_they_are_of_the_same_samples(model):
    p = parameters.ReweightByStatistics(root="/p", dataset="films", **{model: "dros"})
    run = p.runs / "films" / "n256-s0" / "baselines"
    assert p.inputs["06_train_baselines"] == run and p.scores("dros") == run / "scores" / "dros"
    assert p.scores("") is None
    for other in ({"n_train": 0}, {"tuned_on": "games"}, {"tuned_on": "films+games"}, {model: ""}):
        elsewhere = p.model_copy(update=other)
        assert "06_train_baselines" not in elsewhere.inputs
        assert elsewhere.same_samples == (model in other)
