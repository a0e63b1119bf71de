"""Studies say which jobs there are, what waits for what, and what is wrong in their files."""

import os
import re
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from bigrec_lib.files import StudyError
from bigrec_lib.study import (
    batch,
    data,
    expansion,
    parameters,
    plan,
    provenance,
    runner,
    schema,
    studies,
)


@pytest.fixture
def study_file(tmp_path, monkeypatch):
    """Write a study file into a project of its own."""
    for module in (batch, plan, runner, studies):
        monkeypatch.setattr(module, "ROOT", tmp_path)
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
    planned = expansion.jobs("toy", study).values()
    tunings = [p for p in planned if isinstance(p, parameters.TuneLLM)]
    assert {(p.dataset, p.run) for p in tunings} == {
        (dataset, f"n{n}-s{seed}")
        for dataset in ("ml-100k", "other")
        for n in (8, 16)
        for seed in (0, 1)
    }
    assert all(p.learning_rate == 1e-4 and p.model == "folder" for p in tunings)
    assert sum(isinstance(p, parameters.PrepareData) for p in planned) == 2
    assert len({p.output for p in planned}) == len(planned)


@pytest.mark.parametrize(("named", "seeds"), [([], [0]), ([1], [1]), ([0, 1], [0, 1])])
def test_adapters_of_main_runs_are_published_for_the_seeds_named(study_file, named, seeds):
    study = study_file(
        datasets={"films": {"reader": "ml-100k"}, "games": {"reader": "ml-100k"}},
        ladder=[{"n_train": [8], "seeds": [0]}],
        shuffled=True,
        adapters=named,
    )
    assert {(job.dataset, job.run) for job in expansion.adapters("toy", study)} == {
        (dataset, f"n16-s{seed}") for dataset in ("films", "games") for seed in seeds
    }
    assert parameters.TryIt.notebook not in expansion.jobs("toy", study)


def test_what_a_study_may_add_to_its_main_runs(study_file):
    study = study_file(
        datasets={"films": {"reader": "ml-100k"}, "games": {"reader": "ml-100k"}},
        ladder=[{"n_train": [8, 16], "seeds": [0]}],
        zero_shot=True,
        constrained=True,
        transfer=True,
        joint={"datasets": ["films", "games"], "sizes": [{"n_train": [4], "seeds": [0]}]},
    )
    planned = expansion.jobs("toy", study)
    single = {f"{run}" for run in ("n16-s0", "n16-s1", "n8-s0")}
    tuned = {name.removesuffix(".02_tune_llm") for name in planned if name.endswith("02_tune_llm")}
    assert tuned == {f"{d}.{run}" for d in ("films", "games") for run in single} | {
        "films+games.n4-s0"
    }
    tested = single | {
        "n0-s0",
        "n16-s0-constrained",
        "n16-s1-constrained",
        "n16-s0-on-films",
        "n16-s1-on-films",
        "n4-s0-on-films+games",
    }
    for stage in ("03_generate_titles", "04_ground_to_items", "05_reweight_by_statistics"):
        found = {p.run for p in planned.values() if p.notebook == stage and p.dataset == "games"}
        assert found == tested

    def waits(name):
        return set(expansion.predecessors(planned)[name])

    assert waits("films+games.n4-s0.02_tune_llm") == {
        "films.01_prepare_data",
        "games.01_prepare_data",
    }
    assert waits("games.n4-s0-on-films+games.03_generate_titles") == {
        "films.01_prepare_data",
        "games.01_prepare_data",
        "films+games.n4-s0.02_tune_llm",
    }
    assert waits("games.n16-s1-on-films.03_generate_titles") >= {"films.n16-s1.02_tune_llm"}
    assert waits("games.n0-s0.03_generate_titles") == {"games.01_prepare_data"}
    assert waits("07_overall_performance") >= {"games.n0-s0.05_reweight_by_statistics"}
    order = list(planned)
    assert all(order.index(w) < order.index(name) for name in planned for w in waits(name))


def test_some_seeds_are_enough_beside_the_main_runs(study_file):
    every = {
        "datasets": {name: {"reader": "ml-100k"} for name in ("films", "games", "food")},
        "seeds": [0, 1, 2],
        "constrained": True,
        "transfer": True,
        "shuffled": True,
        "recommendation_spaces": {"control": "food"},
        "baselines": {"full": {}},
        "alignment": {},
        "cheaper": True,
    }
    few = expansion.jobs("toy", study_file(**every, seeds_beside=[0, 1]))
    all_of_them = expansion.jobs("toy", study_file(**every))
    left_out = {name: job for name, job in all_of_them.items() if name not in few}
    assert few.keys() < all_of_them.keys()
    assert {job.seed for job in left_out.values()} == {2}
    assert {"films.full-s2.06_train_baselines", "films.n16-s2.16a_measure_alignment",
            "films.n16-s2.15a_measure_grounders"} <= left_out.keys()  # fmt: skip
    later = expansion.jobs("toy", study_file(**every, seeds_beside=[1, 2]))
    assert [later[f"films.n16-s{seed}.16a_measure_alignment"].network for seed in (1, 2)] == [
        "sasrec-ce", ""
    ]  # fmt: skip
    assert [bool(later[f"films.n16-s{seed}.15a_measure_grounders"].synthetic) for seed in (1, 2)
            ] == [True, False]  # fmt: skip
    ways = {(job.setting, bool(job.tuned_on), job.constrained) for job in left_out.values()
            if isinstance(job, parameters.GenerateTitles)}  # fmt: skip
    assert ways == {("", True, False), ("shuffled", False, False), ("shuffled", True, False),
                    ("merged", True, False)}  # fmt: skip


def test_further_llms_run_on_the_samples_of_the_main_runs(study_file):
    large = {"llm": {"model": "big"}, "seeds": [1], "notebooks": {"02_tune_llm": {"rank": 4}}}
    study = study_file(
        n_train=[16],
        zero_shot=True,
        spaces=True,
        baselines={},
        llm={"model": "small"},
        notebooks={"05_reweight_by_statistics": {"collaborative": "sasrec-ce"}},
        llms={"large": large, "mid": {"llm": {"model": "mid"}}},
    )
    planned = expansion.jobs("toy", study)
    models = {p.run: p.model for p in planned.values() if isinstance(p, parameters.TuneLLM)}
    assert models == {
        "n16-s0": "small", "n16-s1": "small",
        "n16-s1-by-large": "big", "n16-s0-by-mid": "mid", "n16-s1-by-mid": "mid",
    }  # fmt: skip
    tuning = planned["ml-100k.n16-s1-by-large.02_tune_llm"]
    writing = planned["ml-100k.n16-s1-by-large.03_generate_titles"]
    assert tuning.rank == 4 and writing.adapter == tuning.adapter
    assert planned["ml-100k.n0-s0-by-large.03_generate_titles"].adapter is None
    spaces = {
        p.run: p.model
        for p in planned.values()
        if isinstance(p, parameters.GroundToItems) and p.embedded_by
    }
    assert spaces == {
        "n16-s1-in-large": "big", "n16-s0-in-mid": "mid", "n16-s1-in-mid": "mid",
        "n16-s1-by-large-in-study": "small", "n16-s1-by-large-in-mid": "mid",
        "n16-s0-by-mid-in-study": "small", "n16-s1-by-mid-in-study": "small",
        "n16-s1-by-mid-in-large": "big",
    }  # fmt: skip
    waits = expansion.predecessors(planned)
    assert waits["ml-100k.n16-s1-by-large-in-mid.04_ground_to_items"] == [
        "ml-100k.01_prepare_data", "ml-100k.n16-s1-by-large.03_generate_titles"
    ]  # fmt: skip
    reweighted = {p.run for p in planned.values() if p.notebook == "05_reweight_by_statistics"}
    assert reweighted == {"n16-s0", "n16-s1", "n0-s0"}
    assert len({p.output for p in planned.values()}) == len(planned)


def test_cheaper_ways_follow_the_main_runs_of_the_first_size(study_file):
    datasets = {"films": {"reader": "ml-100k"}, "games": {"reader": "ml-100k"}}
    study = study_file(datasets=datasets, seeds=[3, 4], n_train=[16, 8], cheaper=True)
    planned = expansion.jobs("toy", study)
    waits, order = expansion.predecessors(planned), list(planned)
    found = {name for name in planned if name.endswith("15a_measure_grounders")}
    runs = [f"{name}.n16-s{seed}" for name in datasets for seed in (3, 4)]
    assert found == {f"{run}.15a_measure_grounders" for run in runs}
    invented = {name: planned[name].synthetic for name in found}
    assert all((sizes == []) == ("-s4." in name) for name, sizes in invented.items())
    name = "games.n16-s3.15a_measure_grounders"
    needs = ["01_prepare_data", "n16-s3.03_generate_titles", "n16-s3.04_ground_to_items"]
    needs += ["n16-s3.02_tune_llm"]
    assert waits[name] == [f"games.{job}" for job in needs]
    assert name in waits["07_overall_performance"]
    assert order.index(name) < order.index("07_overall_performance")
    study = study_file(cheaper=True, constrained=True)
    planned = expansion.jobs("toy", study)
    name = "ml-100k.n16-s0.15a_measure_grounders"
    assert "ml-100k.n16-s0-constrained.03_generate_titles" in expansion.predecessors(planned)[name]
    assert not any("15" in name for name in expansion.jobs("toy", study_file()))


def test_alignment_is_measured_on_main_runs_and_ranked_at_the_first_seed(study_file):
    changes = {
        "seeds": [3, 4],
        "alignment": {"ranked": 7},
        "ladder": [{"n_train": [8], "seeds": [3]}],
    }
    planned = expansion.jobs("toy", study_file(**changes, baselines={}))
    waits = expansion.predecessors(planned)
    found = {name: job for name, job in planned.items() if job.notebook.startswith("16a")}
    names = [f"ml-100k.n16-s{seed}.16a_measure_alignment" for seed in (3, 4)]
    assert list(found) == names
    assert [found[name].ranked for name in names] == [7, 0]
    assert [found[name].network for name in names] == ["sasrec-ce", ""]
    needs = ["ml-100k.01_prepare_data"]
    steps = ("02_tune_llm", "03_generate_titles", "06_train_baselines")
    assert waits[names[0]] == needs + [f"ml-100k.n16-s3.{step}" for step in steps]
    two = changes | {"datasets": {name: {"reader": "ml-100k"} for name in ("films", "games")}}
    one = two | {"alignment": {"ranked": 7, "ranked_on": ["games"]}}
    ranked = {job.dataset: job.ranked for job in expansion.jobs("toy", study_file(**one)).values()
              if job.notebook.startswith("16a") and job.seed == 3}  # fmt: skip
    assert ranked == {"films": 0, "games": 7}
    assert set(names) <= set(waits["16_embedding_alignment"])
    alone = expansion.jobs("toy", study_file(**changes))
    assert alone[names[0]].network == "" and not any("06" in name for name in alone)
    few = {"06_train_baselines": {"models": ["markov"], "collaborative": []}}
    other = expansion.jobs("toy", study_file(**changes, baselines={}, notebooks=few))
    assert other[names[0]].network == ""
    assert not any("16" in job.notebook for job in expansion.jobs("toy", study_file()).values())


@pytest.mark.parametrize(
    ("llms", "message"),
    [
        ({"study": {"llm": {}}}, "study stands for the study's own LLM"),
        ({"big": {"llm": {}, "seeds": [7]}}, "big: 7 is not one of the study's seeds"),
        ({"big": {"llm": {}, "datasets": ["x"]}}, "big: x is not one of the study's datasets"),
        ({"big": {"llm": {"modell": "x"}}}, "unknown parameter 'modell'"),
        ({"big": {}}, "'llms.big.llm' is missing"),
        ({"a b": {"llm": {}}}, "lm: .*pattern"),
    ],
)
def test_a_further_llm_that_cannot_be_is_refused(study_file, llms, message):
    with pytest.raises(StudyError, match=message):
        study_file(llms=llms)


def test_a_data_set_may_have_tuning_settings_of_its_own(study_file):
    study = study_file(
        datasets={"films": {"reader": "ml-100k"}, "games": {"reader": "ml-100k"}},
        seeds=[0],
        ladder=[{"n_train": [4], "seeds": [0]}],
        matched=True,
        joint={"datasets": ["films", "games"], "sizes": [{"n_train": [4, 16], "seeds": [0]}]},
        settings={"gentle": {"learning_rate": 3e-4}},
        llms={"large": {"llm": {"model": "x"}, "notebooks": {"02_tune_llm": {"epochs": 5}}}},
        notebooks={"02_tune_llm": {"epochs": 2, "learning_rate": 2e-3}},
        tuning={"games": {"epochs": 3, "learning_rate": 1e-3}},
    )
    tunings = [p for p in expansion.jobs("toy", study).values() if p.notebook == "02_tune_llm"]
    found = {p.job.removesuffix(".02_tune_llm"): (p.epochs, p.learning_rate) for p in tunings}
    assert found == {
        "films.n16-s0": (2, 2e-3),
        "games.n16-s0": (3, 1e-3),
        "films.n4-s0": (2, 2e-3),
        "games.n4-s0": (3, 1e-3),
        "films.n4-s0-as-matched": (8, 2e-3),
        "games.n4-s0-as-matched": (12, 1e-3),
        "films.n16-s0-as-gentle": (2, 3e-4),
        "games.n16-s0-as-gentle": (3, 3e-4),
        "films.n16-s0-by-large": (5, 2e-3),
        "games.n16-s0-by-large": (5, 1e-3),
        "films+games.n4-s0": (2, 2e-3),
        "films+games.n16-s0": (2, 2e-3),
        "games.n16-s0-as-as_joint": (2, 2e-3),
    }
    tested = {p.job for p in expansion.jobs("toy", study).values() if "joint" in p.job}
    assert "games.n16-s0-as-as_joint.04_ground_to_items" in tested


def test_runs_beside_the_main_ones_may_write_for_fewer_examples(study_file):
    study = study_file(
        ladder=[{"n_train": [4], "seeds": [0], "n_test": 12}, {"n_train": [8], "seeds": [0]}],
        zero_shot=True,
        constrained=True,
        llms={"large": {"llm": {"model": "x"}}},
        beside={"n_valid": 5, "n_test": 9},
    )
    planned = expansion.jobs("toy", study).values()
    found = {
        p.run: (p.n_valid, p.n_test) for p in planned if isinstance(p, parameters.GenerateTitles)
    }
    assert len(found) == 10
    assert {run for run, sizes in found.items() if sizes == (0, 0)} == {"n16-s0", "n16-s1"}
    assert set(found.values()) == {(0, 0), (5, 9), (5, 12)}
    assert {run for run, sizes in found.items() if sizes == (5, 12)} == {"n4-s0"}


def test_few_samples_are_learnt_for_as_many_steps_and_validated_on_fewer_examples(study_file):
    sizes = {"n_train": [16], "ladder": [{"n_train": [4, 32], "seeds": [0]}], "matched": True}
    settings = {"notebooks": {"02_tune_llm": {"epochs": 2, "n_valid": 50}}}

    def matched(**beside):
        planned = expansion.jobs("toy", study_file(**sizes, **settings, beside=beside)).values()
        tunings = [job for job in planned if isinstance(job, parameters.TuneLLM)]
        assert {job.n_valid for job in tunings if not job.setting} == {50}
        return [(job.n_train, job.epochs, job.n_valid) for job in tunings if job.setting]

    assert matched(n_valid=5) == [(4, 8, 5)]
    assert matched() == matched(n_valid=0) == [(4, 8, 50)]


def test_networks_on_few_samples_may_take_as_many_steps(study_file):
    """Two batches of 8 at the main size; one of 4 samples, so twice the epochs; four of 32."""
    sizes = {"n_train": [16], "ladder": [{"n_train": [4, 32], "seeds": [0]}], "baselines": {}}
    settings = {"06_train_baselines": {"epochs": 5, "patience": 3, "batch_size": 8}}

    def trained(matched):
        study = study_file(**sizes, matched=matched, notebooks=settings)
        jobs = [job for job in expansion.jobs("toy", study).values() if "06" in job.notebook]
        return {job.n_train: (job.epochs, job.patience) for job in jobs}

    assert trained(False) == {16: (5, 3), 4: (5, 3), 32: (5, 3)}
    assert trained(True) == {16: (5, 3), 4: (10, 6), 32: (5, 3)}


def test_a_step_of_the_ladder_may_be_of_some_data_sets(study_file):
    step = {"n_train": [4], "seeds": [0]}
    two = {"datasets": {name: {"reader": "ml-100k"} for name in ("films", "games")}}
    study = study_file(**two, ladder=[step | {"datasets": ["games"]}], baselines={})
    found = [p for p in expansion.jobs("toy", study).values() if getattr(p, "n_train", 0) == 4]
    assert {job.dataset for job in found} == {"games"}
    assert "06_train_baselines" in {job.notebook for job in found}
    steps = [{"n_train": [4], "seeds": [0], "n_test": n, "datasets": [name]}
             for n, name in ((7, "films"), (9, "games"))]  # fmt: skip
    planned = expansion.jobs("toy", study_file(**two, ladder=steps)).values()
    writing = [p for p in planned if isinstance(p, parameters.GenerateTitles)]
    assert {job.dataset: job.n_test for job in writing if job.n_train == 4} == {
        "films": 7, "games": 9
    }  # fmt: skip
    with pytest.raises(StudyError, match="ladder: books is not one of the datasets"):
        study_file(**two, ladder=[step | {"datasets": ["books"]}])


def test_keys_and_steps_of_the_ladder_may_wait(study_file):
    small, large = ({"n_train": [n], "seeds": [0]} for n in (4, 32))
    one = expansion.jobs("toy", study_file(ladder=[small], matched=True))
    waits = expansion.jobs("toy", study_file(ladder=[small, large | {"later": True}], matched=True))
    assert one == waits
    asked = {"constrained": True, "ladder": [small], "baselines": {}}
    whole = expansion.jobs("toy", study_file(**asked))
    part = expansion.jobs("toy", study_file(**asked, later=["ladder", "baselines"]))
    assert part == expansion.jobs("toy", study_file(constrained=True))
    assert part.items() < whole.items()


def test_the_baselines_of_a_study(study_file):
    study = study_file(
        baselines={"full": {"epochs": 7}, "ladder": {"epochs": 3}},
        ladder=[{"n_train": [8], "seeds": [0]}],
        notebooks={"06_train_baselines": {"epochs": 5, "patience": 1}},
    )
    trained = {p.run: p for p in expansion.jobs("toy", study).values() if "06" in p.notebook}
    assert {run: p.epochs for run, p in trained.items()} == {
        "n16-s0": 5, "n16-s1": 5, "n8-s0": 3, "full-s0": 7, "full-s1": 7
    }  # fmt: skip
    assert all(p.patience == 1 for p in trained.values())


def test_settings_to_choose_from_are_tuned_and_grounded_and_win_over_the_rest(study_file):
    study = study_file(
        settings={"slow": {"learning_rate": 1e-5}},
        notebooks={"02_tune_llm": {"learning_rate": 0.1, "epochs": 2}},
    )
    found = {n: p for n, p in expansion.jobs("toy", study).items() if "-as-slow" in n}
    assert [p.notebook[:2] for p in found.values()] == ["02", "03", "04"]
    tuning, generating, _ = found.values()
    assert (tuning.learning_rate, tuning.epochs) == (1e-5, 2)
    assert generating.adapter == tuning.adapter and tuning.run == "n16-s0-as-slow"
    assert "11_tuning_settings" in expansion.jobs("toy", study)
    assert "11_tuning_settings" not in expansion.jobs("toy", study_file())


def test_an_unknown_reader_is_refused_before_anything_runs(study_file):
    with pytest.raises(StudyError, match="unknown reader 'ml-11m' of films: choose one of ml-100k"):
        study_file(datasets={"films": {"reader": "ml-11m"}})


def test_data_may_be_where_a_variable_says(study_file, monkeypatch, tmp_path):
    films = {"films": {"reader": "ml-100k", "data_path": "${FILMS}/data"}}
    monkeypatch.delenv("FILMS", raising=False)
    with pytest.raises(StudyError, match=r"data_path of films is \$\{FILMS\}/data: set this var"):
        study_file(datasets=films)
    with pytest.raises(StudyError, match=r"titles_path of films is \$FILMS: set this variable"):
        study_file(datasets={"films": {"reader": "table", "titles_path": "$FILMS"}})
    monkeypatch.setenv("FILMS", str(tmp_path))
    prepare = expansion.jobs("toy", study_file(datasets=films))["films.01_prepare_data"]
    assert prepare.expanded(prepare.data_path) == f"{tmp_path}/data" and str(tmp_path) not in str(
        prepare
    )


COLUMNS = {"user": "who", "item": "what", "time": "when", "title": "name"}


@pytest.fixture
def shop(tmp_path, study_file, capsys, monkeypatch):
    """Plan a study of a table of 100 rows, with changes of its data set; what is said on stderr."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    log = {
        "who": np.arange(100) % 9,
        "what": "7",
        "when": range(100),
        "name": "Sea",
        "part": "train",
    }
    pd.DataFrame(log).to_csv(folder / "log.csv", index=False)
    pd.DataFrame({"what": ["7"], "label": "Sea"}).to_parquet(folder / "titles.parquet")
    (folder / "of").mkdir()
    pd.DataFrame({"what": ["7"], "label": "Sea"}).to_csv(folder / "of" / "log.csv", index=False)
    (folder / "odd.csv").write_text("who,what,when,name\n1,7,soon,Sea\n1,8,late,Sea\n")
    given = {"reader": "table", "data_path": "~/log.csv", "n_valid": 10, "n_test": 10}

    def planned(command="plan", n_train=16, **changes):
        study_file(datasets={"shop": given | {"columns": COLUMNS} | changes}, n_train=[n_train])
        code = batch.main([command, "toy"])
        said = capsys.readouterr()
        assert (code == 1) == said.err.startswith("error: ") and bool(code) != bool(said.out)
        return said.err

    return planned


def test_a_table_that_can_be_read_is_planned(shop):
    assert shop() == ""
    assert shop(titles_path="~/titles.parquet", columns=COLUMNS | {"title": "label"}) == ""
    assert shop(titles_path="~/of/log.csv", columns=COLUMNS | {"title": "label"}) == ""
    assert shop(n_train=80) == "" and shop(n_train=100, columns=COLUMNS | {"split": "part"}) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_path": "~/no.csv"}, r"data set shop: no file .*home/no.csv"),
        ({"titles_path": "~/no.csv"}, r"data set shop: no file .*home/no.csv"),
        ({"titles_path": "~/no.parquet"}, r"data set shop: no file .*home/no.parquet"),
        (
            {"columns": COLUMNS | {"time": "day"}},
            r"no column 'day' \(time\): set .* who, what",
        ),
        ({"titles_path": "~/titles.parquet"}, r"titles.parquet has no column 'name' \(title\)"),
        ({"columns": COLUMNS | {"day": "when"}}, "columns: day is none of user"),
        ({"columns": COLUMNS | {"split": "name"}}, "unknown split 'Sea'"),
        ({"data_path": "~/odd.csv"}, "time 'soon'"),
        ({"n_train": 81}, "n_train is 81, but the 100 rows of shop give at most 80"),
        ({"reader": "ml-100k"}, "columns are for the reader 'table'"),
        ({"reader": "ml-100k", "columns": {}, "data_path": "~/no"}, "no folder or zip .*home/no"),
        (
            {"reader": "amazon-2018", "columns": {}, "data_path": ""},
            "cannot be fetched: set",
        ),
        ({"data_path": ""}, "table cannot be fetched: set data_path"),
    ],
)
def test_data_that_cannot_do_is_refused_before_anything_runs(shop, changes, message, tmp_path):
    for command in ("plan", "study"):
        said = shop(command, **changes)
        assert re.search(f"^error: studies/toy.yaml: .*{message}", said) and said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_more_examples_than_a_table_gives_are_warned_of(shop):
    assert shop(n_test=11) == (
        "warning: n_test of shop is 11, but its 100 rows give at most 10: no more are drawn\n"
    )


def test_a_model_that_only_a_hub_may_know_is_doubted(study_file, tmp_path):
    for model, doubted in (
        ("smollm9", True),
        ("smollm2-135m-instruct", False),
        ("Qwen/Qwen2.5-0.5B-Instruct", False),
        (str(tmp_path), False),
    ):
        found = data.doubtful_models(expansion.jobs("toy", study_file(llm={"model": model})))
        assert [f"model {model!r} is none of" in line for line in found] == [True] * doubted


def test_every_data_set_of_a_joint_adapter_has_to_give_the_samples(study_file, tmp_path):
    for name, rows in (("a", 100), ("b", 50)):
        frame = pd.DataFrame({"user": 1, "item": "7", "time": range(rows), "title": "Sea"})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    datasets = {n: {"reader": "table", "data_path": str(tmp_path / f"{n}.csv")} for n in "ab"}
    sizes = [{"n_train": [41], "seeds": [0]}]
    study = study_file(datasets=datasets, joint={"datasets": ["a", "b"], "sizes": sizes})
    with pytest.raises(StudyError, match="n_train is 41, but the 50 rows of b give at most 40"):
        data.check(expansion.jobs("toy", study))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": [0]}, "studies/toy.yaml: unknown parameter 'seed'"),
        ({"seeds": "all"}, "studies/toy.yaml: seeds"),
        ({"datasets": {}}, "studies/toy.yaml: datasets"),
        ({"llm": {"modell": "x"}}, "02_tune_llm: unknown parameter 'modell'"),
        ({"notebooks": {"02_tune": {}}}, "unknown notebook 02_tune"),
        ({"resources": {"02_tune": {}}}, "unknown notebook 02_tune"),
        ({"resources": {"02_tune_llm": {"cores": 1}}}, "unknown parameter 'resources.*cores'"),
        (
            {"joint": {"datasets": ["ml-100k", "x"], "sizes": [{"n_train": [1], "seeds": [0]}]}},
            "joint: x is not",
        ),
        ({"ladder": [{"n_train": [0], "seeds": [0]}]}, "ladder.0.n_train.0: .*not 0"),
        ({"notebooks": {"02_tune_llm": {"epochs": -1}}}, "02_tune_llm: epochs"),
        ({"adapters": [7]}, "adapters: 7 is not one of the study's seeds"),
        ({"alignment": {"ranked_on": ["x"]}}, "alignment: x is not one of the datasets"),
        ({"seeds_beside": [7]}, "seeds_beside: 7 is not one of the study's seeds"),
        ({"tuning": {"x": {}}}, "tuning: x is not one of the datasets"),
        ({"tuning": {"ml-100k": {"epoch": 1}}}, "02_tune_llm: unknown parameter 'epoch'"),
        ({"constrained": True, "beside": {"test": 1}}, "03_generate_titles: unknown parameter"),
        ({"later": ["seeds"]}, "later: seeds is no key that a study can do without"),
        ({"later": ["ladder"], "ladder": [{"n_train": [0], "seeds": [0]}]}, "ladder.0.n_train.0"),
    ],
)
def test_a_wrong_study_file_is_named_with_what_is_wrong(study_file, changes, message):
    with pytest.raises(StudyError, match=message) as caught:
        study_file(**changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", r"it holds \[1, 2\], not keys"),
        ("datasets: {b", "is not YAML: .*line 1"),
        ("seeds: [0]\nllm: {}\nseeds: [1]", "'seeds' stands twice, the first time in line 1"),
        ("datasets: {shop: {n_test: 1, n_test: 2}}", "'n_test' stands twice"),
    ],
)
def test_what_is_no_study_file_is_refused_in_one_line(study_file, text, message):
    (batch.ROOT / "studies" / "toy.yaml").write_text(text)
    with pytest.raises(StudyError, match=f"^studies/toy.yaml.*{message}") as caught:
        studies.load("toy")
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
    assert batch.WORD not in os.environ


def test_a_plan_takes_nothing_from_the_results_beside_a_running_batch(study_file, monkeypatch):
    study_file(from_results=True)
    taken = []
    monkeypatch.setattr(batch, "checked", lambda name, study: {})
    monkeypatch.setattr(batch, "take_up", taken.append)
    monkeypatch.setattr(plan, "table", lambda states: "")
    with batch.only_one("toy"):
        batch.print_plan("toy")
    assert taken == []
    batch.print_plan("toy")
    assert taken == [{}]


def test_every_studys_parameters_are_valid(monkeypatch):
    monkeypatch.setenv("BIGREC_AMAZON", "/some/where")
    for path in (studies.ROOT / "studies").glob("*.yaml"):
        studies.load(path.stem)


def test_the_exported_schema_is_the_one_that_is_checked():
    assert (studies.ROOT / "studies" / "schema.json").read_text() == schema.as_json()


def test_conda_users_get_the_locked_versions():
    environment = yaml.safe_load((studies.ROOT / "environment.yml").read_text())
    (pip,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    assert pip == ["-r requirements.lock", "-e ."]
    lock = (studies.ROOT / "requirements.lock").read_text().splitlines()
    assert all("==" in line for line in lock)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lock}
    project = tomllib.loads((studies.ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    assert {re.split("[<>]", name)[0] for name in wanted} <= pinned


def test_recommendation_spaces_ask_for_every_cell_of_the_factorial(study_file):
    datasets = {name: {"reader": "ml-100k"} for name in ("films", "games", "food")}
    sizes = [{"n_train": [16, 8], "seeds": [0, 1]}]
    asked = {"control": "food", "worded": ["none", "wrong"]}
    study = study_file(
        datasets=datasets,
        joint={"datasets": ["films", "games"], "sizes": sizes},
        recommendation_spaces=asked,
    )
    planned = expansion.jobs("toy", study)
    merges = [p for p in planned.values() if isinstance(p, parameters.MergeAdapters)]
    assert [(p.job, p.against) for p in merges] == [
        ("films+games.n16-s0-as-merged.14a_merge_adapters", 1),
        ("films+games.n16-s1-as-merged.14a_merge_adapters", 0),
    ]
    spaces = [p for p in planned.values() if isinstance(p, parameters.GroundInSpaces)]
    together = "-on-films+games"
    runs = {"", together, f"-as-merged{together}"}
    runs = {
        f"n16-s0{run}{words}" for run in runs for words in ("", "-worded-none", "-worded-wrong")
    }
    runs |= {f"n8-s0{together}"}
    assert {p.run for p in spaces if p.dataset == "films" and p.seed == 0} == runs
    assert {p.dataset for p in spaces} == {"films", "games"}
    assert {(p.dataset, *p.joined, p.control) for p in spaces} == {
        ("films", "games", "food"), ("games", "films", "food")
    }  # fmt: skip
    waits = expansion.predecessors(planned)
    name = f"films.n16-s1-as-merged{together}-worded-wrong"
    assert waits[f"{name}.03_generate_titles"] == [
        "films.01_prepare_data", "games.01_prepare_data",
        "films+games.n16-s1-as-merged.14a_merge_adapters",
    ]  # fmt: skip
    assert planned[f"{name}.03_generate_titles"].words_of == "games"
    needs = {"films.01_prepare_data", "games.n16-s0.04_ground_to_items"}
    needs |= {
        f"{name}.04_ground_to_items",
        "food.01_prepare_data",
        "food.n16-s0.04_ground_to_items",
    }
    assert set(waits[f"{name}.14b_ground_in_spaces"]) >= needs
    order = list(planned)
    assert all(order.index(w) < order.index(job) for job in planned for w in waits[job])
    assert len({p.output for p in planned.values()}) == len(planned)
    assert not any("14" in name.partition(".")[2] for name in expansion.jobs("toy", study_file()))


def test_domains_that_share_a_space_are_tuned_with_the_settings_of_the_joint_model(study_file):
    study = study_file(
        datasets={name: {"reader": "ml-100k"} for name in ("films", "games")},
        joint={"datasets": ["films", "games"], "sizes": [{"n_train": [16], "seeds": [0]}]},
        recommendation_spaces={"worded": ["none"]},
        tuning={"games": {"learning_rate": 0.01}},
    )
    planned = expansion.jobs("toy", study)
    merges = [job for job in planned.values() if isinstance(job, parameters.MergeAdapters)]
    assert [job.alike for job in merges] == [["games"]] * 2
    assert "games.n16-s1-as-as_joint.02_tune_llm" in expansion.predecessors(planned)[merges[1].job]
    grounded = [job for job in planned.values() if isinstance(job, parameters.GroundInSpaces)]
    single = {(job.dataset, job.setting) for job in grounded if not job.tuned_on}
    assert single == {("films", ""), ("games", "as_joint")}
    assert "games.n16-s0-as-as_joint-worded-none.14b_ground_in_spaces" in planned


SELECTION = {"arms": ["newest", "k_means"], "budgets": [4, 8], "draws": 3, "random_draws": 5}
SELECTION |= {"seeds": [0, 1, 2], "seeds_a_draw": 2, "n_scored": 7}


def test_chosen_samples_are_tuned_on_in_every_draw_and_seed(study_file):
    datasets = {"films": {"reader": "ml-100k"}, "games": {"reader": "ml-100k"}}
    study = study_file(datasets=datasets, selection=SELECTION | {"datasets": ["games"]})
    planned = expansion.jobs("toy", study)
    choosing = [p for p in planned.values() if isinstance(p, parameters.SelectSamples)]
    assert [(p.dataset, p.arms, p.budgets) for p in choosing] == [
        ("games", ["newest", "k_means"], [4, 8])
    ]
    tunings = [p for p in planned.values() if isinstance(p, parameters.TuneLLM) and p.selection]
    runs = {(p.selection, p.n_train, p.seed) for p in tunings}
    pairs = {
        *((f"random.{draw}", seed) for draw in range(5) for seed in (0, 1)),
        *((f"k_means.{draw}", seed) for draw in range(3) for seed in (0, 1)),
        *(("newest.0", seed) for seed in (0, 1, 2)),
    }
    assert runs == {(choice, n, seed) for choice, seed in pairs for n in (4, 8)}
    assert all(p.setting == f"picked.{p.selection}" and p.n_scored == 7 for p in tunings)
    assert len({p.output for p in planned.values()}) == len(planned)
    name = "games.n4-s1-as-picked.k_means.2"
    waits = expansion.predecessors(planned)
    assert waits[f"{name}.02_tune_llm"] == ["games.01_prepare_data", "games.13a_select_samples"]
    assert waits[f"{name}.04_ground_to_items"][-1] == f"{name}.03_generate_titles"
    assert f"{name}.05_reweight_by_statistics" not in planned
    assert "13_sample_selection" in planned
    assert not any("13" in name for name in expansion.jobs("toy", study_file()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "a space is shared by two data sets or more"),
        ({"recommendation_spaces": {"control": "x"}}, "x, the control, is not one of"),
        ({"recommendation_spaces": {"worded": ["odd"]}}, "worded.0: .*not 'odd'"),
        ({"settings": {"merged": {}}}, "merged stands for the key `recommendation_spaces`"),
    ],
)
def test_spaces_that_cannot_be_compared_are_refused_in_one_line(study_file, changes, message):
    with pytest.raises(StudyError, match=message) as caught:
        study_file(**{"recommendation_spaces": {}, **changes})
    assert "\n" not in str(caught.value)


def test_the_control_is_a_further_data_set(study_file):
    datasets = {name: {"reader": "ml-100k"} for name in ("films", "games")}
    joint = {"datasets": ["films", "games"], "sizes": [{"n_train": [8], "seeds": [0]}]}
    with pytest.raises(StudyError, match="the control, is a domain of `joint`, too"):
        study_file(datasets=datasets, joint=joint, recommendation_spaces={"control": "games"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": SELECTION | {"datasets": ["x"]}}, "selection: x is not one of"),
        ({"selection": SELECTION | {"arms": ["best"]}}, "selection.arms.0: .*not 'best'"),
        ({"selection": SELECTION | {"budgets": []}}, "selection.budgets"),
        ({"settings": {"picked.mine": {}}}, "picked. opens the names of selected samples"),
    ],
)
def test_a_selection_that_cannot_be_is_refused(study_file, changes, message):
    with pytest.raises(StudyError, match=message):
        study_file(**changes)


def test_jobs_that_run_at_once_share_this_machine_but_not_a_cluster(monkeypatch):
    from snakemake import cli

    monkeypatch.setattr(provenance, "gpus", lambda: ["NVIDIA H200"])
    given = []
    monkeypatch.setattr(cli, "main", given.append)
    for options in (["--cores", "2"], ["--resources", "gpu=4"], ["--workflow-profile", "slurm"]):
        batch.snakemake("quick", *options)
    limits = [line[line.index("--resources") + 1 :] for line in given if "--resources" in line]
    memory, gpus = limits[0][:2]
    assert gpus == "gpu=1" and limits[0][2:] == ["--cores", "2"]
    lines = Path("/proc/meminfo").read_text().splitlines()
    assert int(memory.removeprefix("mem_mb=")) == int(lines[0].split()[1]) * 1024 // 10**6
    assert limits[1:] == [["gpu=4"]]


@pytest.mark.parametrize("name", ["domains", "cost", "done", "locks"])
def test_a_data_set_cannot_take_a_folder_of_the_batch(study_file, name):
    with pytest.raises(StudyError, match=f"{name} is a folder of the batch's own"):
        studies.check("toy", study_file(datasets={name: {"reader": "ml-100k"}}))


def test_a_model_of_the_hub_has_its_revision_before_any_job_begins(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *names: asked.append(names))
    jobs = {
        name: parameters.TuneLLM(root=str(tmp_path), dataset="toy", model=name)
        for name in ("org/llm", str(tmp_path))
    }
    batch.fetch_assets(jobs)
    assert asked == [("org/llm", "config.json")]
