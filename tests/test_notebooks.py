"""Every notebook through papermill and the batch, on a toy corpus with a tiny random Llama."""

import json
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import batch

from bigrec_lib.study import runs

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STEPS = {"data": "toy/data", "run": "toy/n16-s0"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_anatomy_of_a_notebook(path):
    notebook = nbformat.read(path, as_version=4)
    first, *_ = notebook.cells
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert any(c.source.startswith("## What this shows") for c in notebook.cells)
    (parameters,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    assert all(line.count(" = ") == 1 and "#" in line for line in parameters.source.splitlines())
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert code[0] is parameters
    assert f"runs.{runs.NOTEBOOKS[path.stem].__name__}.check(globals())" in code[1].source
    assert not any(c.outputs or c.execution_count for c in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_documents_every_parameter_with_its_true_default(path):
    from papermill.inspection import inspect_notebook

    known = inspect_notebook(str(path))
    cls = runs.NOTEBOOKS[path.stem]
    assert set(known) == set(cls.model_fields)
    namespace = {name: yaml.safe_load(each["default"]) for name, each in known.items()}
    assert cls.check(namespace) == cls()
    assert all(each["help"].strip() for each in known.values())


def test_every_notebook_ran_in_the_toy_study(project):
    executed = {path.stem.split(".")[-1] for path in project.glob("results/toy/notebooks/*.ipynb")}
    assert {path.stem for path in NOTEBOOKS} == set(runs.NOTEBOOKS)
    # the toy study declares no settings to choose from: 11 runs in test_analyses
    assert executed == set(runs.NOTEBOOKS) - {"11_tuning_settings"}


def test_the_batch_ends_with_the_headline_and_where_things_are(project):
    said = (project / "said.txt").read_text()
    assert "BIGRec + popularity" in said and "NDCG@20" in said
    assert "report:  results/toy/report.html" in said and "results: results/toy/" in said


def test_examples_keep_their_contract(project):
    data = project / "runs" / "toy" / STEPS["data"]
    items = pd.read_parquet(data / "items.parquet")
    assert items["item"].tolist() == list(range(len(items)))
    assert items["item_id"].is_monotonic_increasing
    seen = set()
    for split in ("train", "valid", "test"):
        examples = pd.read_parquet(data / "examples" / f"{split}.parquet")
        assert list(examples) == ["example", "user", "history", "target", "time"]
        assert examples.target.isin(items["item"]).all()
        assert examples.history.map(len).between(1, 10).all()
        assert not seen & set(examples.example)
        seen |= set(examples.example)


def test_the_probe_of_popularity_keeps_its_contract(project):
    items = pd.read_parquet(project / "results" / "toy" / STEPS["data"] / "items.parquet")
    probe = pd.read_parquet(project / "results" / "toy" / STEPS["data"] / "probe.parquet")
    whole = pd.read_parquet(project / "runs" / "toy" / STEPS["data"] / "items.parquet")
    test = pd.read_parquet(project / "runs" / "toy" / STEPS["data"] / "examples" / "test.parquet")
    assert items.dtypes.astype(str).to_dict() == {
        "item": "int32", "title_group": "int32", "train_count": "int64"
    }  # fmt: skip
    assert items.equals(whole[list(items)])
    counts = items.groupby("title_group").train_count.sum()
    ranked = sorted(counts.index, key=lambda title: (counts[title], title))
    group = {title: place * 5 // len(ranked) for place, title in enumerate(ranked)}
    for row, example in zip(probe.itertuples(), test.itertuples(), strict=True):
        groups = [group[items.title_group[item]] for item in example.history]
        assert row.example == example.example
        assert row.target == items.title_group[example.target]
        assert row.history_groups.tolist() == [groups.count(g) for g in range(5)]


def test_generations_and_ranks_keep_their_contract(project):
    data = project / "runs" / "toy" / STEPS["data"]
    run = project / "results" / "toy" / STEPS["run"]
    n_items = len(pd.read_parquet(data / "items.parquet"))
    for split in ("valid", "test"):
        wanted = pd.read_parquet(data / "examples" / f"{split}.parquet").example.tolist()
        generations = pd.read_parquet(run / "generations" / f"{split}.parquet")
        assert list(generations) == ["example", "beam", "text", "score"]
        assert generations.example[generations.beam == 0].tolist() == wanted
        best_first = generations.groupby("example").score.apply(
            lambda scores: scores.is_monotonic_decreasing
        )
        assert best_first.all()
    for path in run.glob("*/ranks/*/*.parquet"):
        ranks = pd.read_parquet(path)
        assert list(ranks) == ["example", "rank", "ties"]
        assert ranks["rank"].between(0, n_items - 1).all() and (ranks.ties >= 0).all()


def test_metrics_follow_from_the_ranks(project):
    results = project / "results" / "toy"
    metrics = pd.read_csv(results / "metrics.csv")
    columns = "study dataset method model n_train seed protocol split metric k value n run".split()
    assert list(metrics) == columns
    ranks = pd.read_parquet(
        results / STEPS["run"] / "reweighting" / "ranks" / "test" / "bigrec+popularity.parquet"
    )
    expected_rank = ranks["rank"] + ranks.ties / 2
    ndcg = np.where(expected_rank < 20, 1 / np.log2(expected_rank + 2), 0).mean()
    row = metrics.query(
        "method == 'bigrec+popularity' and metric == 'NDCG' and k == 20 and split == 'test'"
    )
    assert row.value.tolist() == [pytest.approx(ndcg, abs=1e-12)] and row.n.tolist() == [20]


def test_tables_and_figures_come_in_every_format(project):
    results = project / "results" / "toy"
    assert {path.suffix for path in (results / "tables").iterdir()} == {".csv", ".md", ".tex"}
    assert {path.suffix for path in (results / "figures").iterdir()} == {".png", ".svg"}
    assert "<img" in (results / "report.html").read_text()


def test_manifests_tell_everything_and_no_absolute_path(project):
    of_jobs = [
        *project.glob("runs/toy/toy/*/manifest.json"),
        *project.glob("results/**/manifest.json"),
    ]
    assert len(of_jobs) >= 6
    for path in of_jobs:
        manifest = json.loads(path.read_text())
        assert manifest["commit"] is not None and manifest["packages"]["torch"]
        assert str(project) not in path.read_text()


def test_a_second_run_does_nothing_and_says_so(project):
    before = {path: path.stat().st_mtime_ns for path in project.glob("results/toy/**/*")}
    done = batch(project, "study", "toy")
    assert "Nothing to be done" in done.stdout + done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in project.glob("results/toy/**/*")}


def test_a_clone_with_committed_results_only_runs_everything(project):
    shutil.move(project / "runs", project / "elsewhere")
    said = batch(project, "plan", "toy").stdout
    verified = batch(project, "verify", "toy").stdout
    shutil.rmtree(project / "runs", ignore_errors=True)
    shutil.move(project / "elsewhere", project / "runs")
    *jobs, summary = said.splitlines()
    assert len(jobs) == len(runs.NOTEBOOKS) - 1
    assert not any(line.startswith("done") for line in jobs)
    assert verified.startswith("OK: toy: ")


def test_the_plan_names_what_a_change_makes_stale_and_runs_nothing(project):
    path = project / "studies" / "toy.yaml"
    original = path.read_text()
    path.write_text(original + "notebooks: {03_generate_titles: {beams: 2}}\n")
    done = batch(project, "plan", "toy")
    path.write_text(original)
    states = {line.split()[1].split(".")[-1]: line for line in done.stdout.splitlines()[:-1]}
    assert "beams is 2, was 4" in states["03_generate_titles"]
    assert states["04_ground_to_items"].startswith("stale")
    assert states["02_tune_llm"].startswith("done")


def test_a_failing_job_ends_with_one_line_and_keeps_its_notebook(project):
    path = project / "studies" / "toy.yaml"
    original = path.read_text()
    study = yaml.safe_load(original)
    study["datasets"] = {"broken": {"reader": "ml-100k", "data_path": "no/such/folder"}}
    path.write_text(yaml.safe_dump(study))
    done = batch(project, "study", "toy", check=False)
    path.write_text(original)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    executed = "runs/toy/logs/broken.01_prepare_data.ipynb"
    assert last.startswith("error: 01_prepare_data, cell") and "no/such/folder" in last
    assert executed in last and (project / executed).exists()
    assert not (project / "runs/toy/broken/data/manifest.json").exists()


def test_baselines_keep_their_contract(project):
    data = project / "runs" / "toy" / STEPS["data"]
    run = project / "results" / "toy" / STEPS["run"] / "baselines"
    items = pd.read_parquet(data / "items.parquet")
    examples = pd.read_parquet(data / "examples" / "test.parquet")
    _, of_item = np.unique(items.title_group, return_inverse=True)
    grid = pd.read_csv(run / "chosen.csv")
    assert grid.groupby("method").chosen.sum().eq(1).all()
    trained = {path.stem for path in (run / "ranks" / "test").iterdir()}
    assert trained == {path.stem for path in (run / "lists" / "test").iterdir()}
    assert trained == set(pd.read_csv(run / "metrics.csv").method) >= set(grid.method)
    for scores in (project / "runs" / "toy" / STEPS["run"] / "scores").iterdir():
        found = np.load(scores / "test.npy", allow_pickle=False)
        assert found.shape == (20, items.title_group.nunique()) and found.dtype == np.float32
        assert json.loads((scores / "manifest.json").read_text())["method"] == scores.name
        own = found[np.arange(20), of_item[examples.target]]
        ranks = pd.read_parquet(run / "ranks" / "test" / f"{scores.name}.parquet")
        assert ((found > own[:, None]).sum(1) == ranks["rank"]).all()


def test_the_report_is_rebuilt_from_results_alone(project):
    results, table = project / "results" / "toy", "overall_performance/main.csv"
    before = (results / table).read_bytes()
    (results / table).unlink()
    shutil.move(project / "runs", project / "elsewhere")
    batch(project, "report", "toy")
    verified = batch(project, "verify", "toy").stdout
    shutil.rmtree(project / "runs")
    shutil.move(project / "elsewhere", project / "runs")
    assert (results / table).read_bytes() == before and verified.startswith("OK: toy: ")
    assert "Nothing to be done" in batch(project, "study", "toy").stdout
