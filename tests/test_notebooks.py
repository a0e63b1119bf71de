"""Every notebook through papermill and the batch, on a toy corpus with a tiny random Llama."""

import ast
import builtins
import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from toy import batch

from bigrec_lib.findings.methods import CHEAPER
from bigrec_lib.method.metrics import COLUMNS
from bigrec_lib.method.prompts import title_of
from bigrec_lib.study import notebook, recommender
from bigrec_lib.study.parameters import NOTEBOOKS as CLASSES
from bigrec_lib.study.row_keys import KEYS

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DATA, RUN = "toy/data", "toy/n16-s0"


ABSENT = {"00_try_it", "11_tuning_settings", "12_llm_size"}
ABSENT |= {"14_recommendation_spaces", "14a_merge_adapters", "14b_ground_in_spaces"}
"""What the toy study does not ask for: test_analyses and test_spaces_notebooks have them."""
JOBS = len(CLASSES) - len(ABSENT) + 3  # 02 to 04 once more, for chosen samples


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} == set(CLASSES) and len(NOTEBOOKS) >= 12


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_anatomy_of_a_notebook(path):
    read = nbformat.read(path, as_version=4)
    first, *_ = read.cells
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert any(c.source.startswith("## What this shows") for c in read.cells)
    (parameters,) = [c for c in read.cells if "parameters" in c.metadata.get("tags", [])]
    assert all(line.count(" = ") == 1 and "#" in line for line in parameters.source.splitlines())
    code = [c for c in read.cells if c.cell_type == "code"]
    assert code[0] is parameters
    assert f"parameters.{CLASSES[path.stem].__name__}.check(globals())" in code[1].source
    assert not any(c.outputs or c.execution_count for c in code)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_documents_every_parameter_with_its_true_default(path):
    from papermill.inspection import inspect_notebook

    known = inspect_notebook(str(path))
    cls = CLASSES[path.stem]
    assert set(known) == set(cls.model_fields)
    namespace = {name: yaml.safe_load(each["default"]) for name, each in known.items()}
    assert cls.check(namespace) == cls()
    assert all(each["help"].strip() for each in known.values())


def saved_names(path: Path) -> set[tuple[str, str]]:
    """Kind (tables, plots) and name of all that a notebook saves."""
    code = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    found = set()
    for call in ast.walk(ast.parse("\n".join(code))):
        if isinstance(call, ast.Call) and re.fullmatch(
            r"(tables|plots)\.save", ast.unparse(call.func)
        ):
            assert isinstance(call.args[2], ast.Constant), ast.unparse(call)
            found.add((ast.unparse(call.func), call.args[2].value))
    return found


def test_no_two_notebooks_save_the_same_figure_or_table():
    """A page links its figures by their names: another notebook's would stand in their place."""
    saved = [(what, path.stem) for path in NOTEBOOKS for what in saved_names(path)]
    makers = pd.DataFrame(saved, columns=["what", "notebook"]).groupby("what").notebook.agg(list)
    assert len(makers) > 40 and makers[makers.map(len) > 1].to_dict() == {}


def test_every_notebook_ran_in_the_toy_study(project):
    executed = {path.stem.split(".")[-1] for path in project.glob("results/toy/notebooks/*.ipynb")}
    assert executed == set(CLASSES) - ABSENT


def test_the_page_to_try_runs_without_a_human(project, tmp_path):
    out = tmp_path / "out.ipynb"
    source = project / "notebooks" / "00_try_it.ipynb"
    given = {"study": "toy", "root": str(project), "k": 3}
    notebook.execute(source, out, given, tmp_path / "log")
    said = "".join(
        output.get("text", "") + output.get("data", {}).get("text/html", "")
        for cell in nbformat.read(out, 4).cells
        for output in cell.get("outputs", [])
    )
    assert "The user has watched the following movies" in said and "nothing was written" in said


def test_one_call_gives_what_the_study_published(project):
    """The adapter that the batch has published, with and without the work files."""
    opened = recommender.Recommender.open("toy", project=project)
    results = project / "results" / "toy"
    beams = pd.read_parquet(results / "generations.parquet").query(
        "split == 'test' and setting == ''"
    )
    lists = pd.read_parquet(results / "lists.parquet").query("method == 'bigrec' and setting == ''")
    items = pd.read_parquet(results / "items.parquet")
    examples = pd.read_parquet(results / "examples.parquet").query("split == 'test'")
    for row in examples.head(5).itertuples():
        found = opened.recommend(items.title[row.history].tolist(), 20, 4, 0.0, False)
        published = beams[beams.example == row.example].sort_values("beam")
        assert found.texts == published.text.map(title_of).tolist()
        assert found.scores == pytest.approx(published.score.tolist(), abs=1e-4)
        (listed,) = lists[lists.example == row.example]["items"]
        assert found.items.title.tolist() == items.title[listed].tolist()
    folder = results / "adapters" / "toy.n16-s0"
    assert folder.is_dir() and opened.adapter != folder
    weights = "adapter_model.safetensors"
    assert (folder / weights).read_bytes() == (opened.adapter / weights).read_bytes()


def test_the_batch_ends_with_the_headline_and_where_things_are(project):
    said = (project / "said.txt").read_text()
    assert "BIGRec + popularity" in said and "NDCG@20" in said
    assert "site:    results/toy/index.html" in said and "results: results/toy/" in said


def test_examples_keep_their_contract(project):
    data = project / "runs" / "toy" / DATA
    items = pd.read_parquet(data / "items.parquet")
    assert items["item"].tolist() == list(range(len(items)))
    assert items["item_id"].is_monotonic_increasing
    seen = set()
    for split in ("train", "valid", "test"):
        examples = pd.read_parquet(data / "examples" / f"{split}.parquet")
        drawn = ["draw"] * (split != "train")
        columns = ["example", "user", "history", "target", "time", "tied", *drawn]
        assert list(examples) == columns
        assert examples.target.isin(items["item"]).all()
        assert examples.history.map(len).between(1, 10).all()
        assert not seen & set(examples.example)
        seen |= set(examples.example)


def test_items_and_examples_are_published_without_what_nobody_needs(project):
    results = project / "results" / "toy"
    items = pd.read_parquet(results / "items.parquet")
    whole = pd.read_parquet(project / "runs" / "toy" / DATA / "items.parquet")
    assert list(items) == ["dataset", "item", "title", "title_group", "train_count"]
    assert items[list(items)[1:]].equals(whole[list(items)[1:]])
    examples = pd.read_parquet(results / "examples.parquet")
    assert examples.groupby("split").size().to_dict() == {"test": 20, "valid": 20}
    test = pd.read_parquet(project / "runs" / "toy" / DATA / "examples" / "test.parquet")
    published = examples[examples.split == "test"]
    assert published.target.tolist() == test.target.tolist()
    assert [*map(list, published.history)] == [*map(list, test.history)]


def test_generations_and_ranks_keep_their_contract(project):
    data, results = project / "runs" / "toy" / DATA, project / "results" / "toy"
    n_items = len(pd.read_parquet(data / "items.parquet"))
    beams = pd.read_parquet(results / "generations.parquet").query("setting == ''")
    for split in ("valid", "test"):
        wanted = pd.read_parquet(data / "examples" / f"{split}.parquet").example.tolist()
        generations = beams[beams.split == split]
        assert list(generations)[-5:] == ["split", "example", "beam", "text", "score"]
        assert generations.example[generations.beam == 0].tolist() == wanted
        best_first = generations.groupby("example").score.apply(
            lambda scores: scores.is_monotonic_decreasing
        )
        assert best_first.all()
    ranks = pd.read_parquet(results / "ranks.parquet")
    assert list(ranks) == [*KEYS, "split", "method", "example", "rank", "ties"]
    assert ranks["rank"].between(0, n_items - 1).all() and (ranks.ties >= 0).all()
    assert (ranks.groupby(["run", "split", "method"]).size() == 20).all()


def test_metrics_follow_from_the_ranks(project):
    results = project / "results" / "toy"
    metrics = pd.read_csv(results / "metrics.csv")
    assert list(metrics) == [*KEYS, *COLUMNS]
    ranks = pd.read_parquet(results / "ranks.parquet")
    ranks = ranks.query("method == 'bigrec+popularity' and split == 'test'")
    expected_rank = ranks["rank"] + ranks.ties / 2
    ndcg = np.where(expected_rank < 20, 1 / np.log2(expected_rank + 2), 0).mean()
    row = metrics.query(
        "method == 'bigrec+popularity' and metric == 'NDCG' and k == 20 and split == 'test'"
    )
    assert row.value.tolist() == [pytest.approx(ndcg, abs=1e-12)] and row.n.tolist() == [20]


def test_injections_keep_their_contract(project):
    results = project / "results" / "toy"
    ranks = pd.read_parquet(results / "ranks.parquet").query("split == 'test' and setting == ''")
    ranks = {method: rows.set_index("example") for method, rows in ranks.groupby("method")}
    names = ("popularity", "popularity-all", "collaborative")
    assert {f"{model}+{name}" for model in ("bigrec", "sasrec-ce") for name in names} <= set(ranks)
    history = pd.read_parquet(results / "examples.parquet").set_index("example").history.map(len)
    for name in (*names, "both"):
        plain, unseen = ranks[f"bigrec+{name}"], ranks[f"bigrec+{name}-unseen"]
        fewer = plain["rank"] - unseen["rank"]
        assert fewer.between(0, history[plain.index]).all() and fewer.any()
    (manifest,) = project.glob("runs/toy/toy/*/reweighting/manifest.json")
    facts = json.loads(manifest.read_text())["facts"]
    assert facts["gamma"] == facts["gammas"]["popularity"]
    assert set(facts["gammas"]) == {*names, "both", *(f"sasrec-ce+{name}" for name in names)}
    curves = pd.read_parquet(results / "curves.parquet")
    assert set(curves[curves.metric.isin(["HR", "NDCG"])].weights) == {"popularity"}
    for name, shares in curves[curves.metric == "own"].groupby("weights"):
        assert {0.0, facts["gammas"][name]} <= set(shares.gamma) and set(shares.k) == {20}
        assert shares.value[shares.gamma == 0].tolist() == [1.0]


def test_bigrecs_lists_agree_with_its_ranks(project):
    results = project / "results" / "toy"
    group = pd.read_parquet(results / "items.parquet").title_group.to_numpy()
    target = pd.read_parquet(results / "examples.parquet").set_index("example").target
    ranks = pd.read_parquet(results / "ranks.parquet")
    ranks = ranks.query("split == 'test' and ties == 0 and setting == ''")
    rank_of = ranks.set_index(["method", "example"])["rank"]
    lists = pd.read_parquet(results / "lists.parquet").query("setting == ''")
    lists = lists.set_index(["method", "example"])["items"]
    both = [key for key in lists.index.intersection(rank_of.index) if key[0].startswith("bigrec")]
    for method, example in both:
        places = np.flatnonzero(group[lists[method, example]] == group[target[example]])
        rank = rank_of[method, example]
        assert places.tolist() == [rank] * int(rank < 20), method
    assert len({method for method, _ in both}) == 11 + len(CHEAPER)


def test_what_can_be_explored_gives_the_published_lists_ranks_and_prompts(project):
    results = project / "results" / "toy"
    lists = pd.read_parquet(results / "lists.parquet").query("setting == ''")
    lists = lists.set_index(["method", "example"])["items"]
    ranks = pd.read_parquet(results / "ranks.parquet").query("split == 'test' and setting == ''")
    ranks = ranks.set_index(["method", "example"])[["rank", "ties"]]
    examples = pd.read_parquet(results / "examples.parquet").set_index("example")
    titles = pd.read_parquet(results / "items.parquet").title
    explored = pd.read_parquet(results / "explorer.parquet")
    assert explored.groupby("weights").size().to_dict() == {
        "popularity": 20, "popularity-all": 20, "collaborative": 20
    }  # fmt: skip
    for row in explored.itertuples():
        for method, gamma in {"bigrec": 0.0, f"bigrec+{row.weights}": row.gamma}.items():
            order = np.argsort(row.logs - gamma * row.pulls, kind="stable")[:20]
            assert row.items[order].tolist() == lists[method, row.example].tolist()
            step = row.gammas.tolist().index(gamma)
            place = ranks.loc[(method, row.example)].tolist()
            assert [row.rank[step], row.ties[step]] == place
        read = "".join(f'"{titles[item]}"' for item in examples.history[row.example])
        assert row.prompt.partition("before:")[2].replace(", ", "").startswith(read)
    assert (results / "explorer.html").exists() and (results / "explorer-data.js").exists()


def test_what_is_published(project):
    results = project / "results" / "toy"
    assert {path.suffix for path in (results / "figures").iterdir()} == {".png"}
    tables = {path.name for path in (results / "tables").iterdir()}
    printed = {
        f"{name}{suffix}"
        for name in ("cost", "domains", "headline", "main", "sample_selection")
        for suffix in (".md", ".tex")
    }
    assert {name for name in tables if not name.endswith(".csv")} == printed
    assert "<img" in (results / "index.html").read_text()
    pages = {path.stem for path in (results / "site").glob("*.html")}
    assert pages == {path.stem for path in (results / "notebooks").iterdir()} | {"evidence"}
    assert (results / "claims.csv").exists()
    files = [path.relative_to(results) for path in results.rglob("*") if path.is_file()]
    assert len([path for path in files if path.parts[0] != "adapters"]) <= 160


def test_no_stage_of_a_request_takes_longer_than_all_requests(project):
    (manifest,) = project.glob("runs/toy/toy/n16-s0/cost/manifest.json")
    seconds = json.loads(manifest.read_text())["seconds_of"]
    stages = [name for name in seconds if name.split(", ")[1] in ("scores", "writing", "search")]
    assert len(stages) == 2 * 4  # popularity, Markov chain, BIGRec and its cached rows
    for name in stages:
        assert seconds[name] <= seconds[f"{name.split(', ')[0]}, p99"], name


def test_published_notebooks_have_no_warnings_bars_or_paths(project, toy_data, tiny_llm):
    for path in project.glob("results/toy/notebooks/*.ipynb"):
        text = path.read_text()
        assert not any(str(place) in text for place in (project, toy_data, tiny_llm)), path
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", []):
                assert output.get("name") != "stderr", f"{path}: {output.text}"


def test_every_figure_of_a_step_says_what_it_shows(project):
    for path in project.glob("results/toy/notebooks/*.0[1-6]_*.ipynb"):
        outputs = [o for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", [])]
        pictures = [output for output in outputs if "image/png" in output.get("data", {})]
        assert pictures and all(each.metadata["image/png"]["alt"] for each in pictures), path


def test_the_examples_worked_through_are_the_stored_ones(project):
    """03 shows the beams that it stored, of three users; 05 and 07 the kinds that 04 chose."""
    run, data = project / "runs" / "toy" / RUN, project / "runs" / "toy" / DATA
    examples = pd.read_parquet(data / "examples" / "test.parquet")
    first = examples.sort_values("draw").drop_duplicates("user").head(3)
    beams = pd.read_parquet(run / "generations" / "beams" / "test.parquet")
    told = said(project, "03_generate_titles")
    for example in first.example:
        for text in beams.text[beams.example == example]:
            assert text in told or "|" in text or "\n" in text
    facts = json.loads((run / "grounding" / "manifest.json").read_text())["facts"]
    chosen = facts["showcase"]
    titles = pd.read_parquet(data / "items.parquet").title
    target = examples.set_index("example").target
    assert chosen and examples.user[examples.example.isin(chosen.values())].is_unique
    ranks = pd.read_parquet(run / "grounding" / "ranks.parquet")
    ranks = ranks[(ranks.method == "bigrec") & (ranks.split == "test")].set_index("example")
    rank = ranks["rank"] + ranks.ties / 2
    assert rank[chosen["hit"]] < 20 and rank.get(chosen.get("near miss"), 20) >= 20
    for kind, example in chosen.items():
        title = titles[target[example]]
        assert f"**{kind}**: then the user watched *{title}*" in said(
            project, "05_reweight_by_statistics"
        )
        assert f"{kind}: {title}" in said(project, "07_overall_performance")


def said(project, name):
    """The Markdown that a published notebook displayed."""
    (path,) = project.glob(f"results/toy/notebooks/*{name}.ipynb")
    outputs = [o for cell in nbformat.read(path, 4).cells for o in cell.get("outputs", [])]
    return "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_of_a_notebook_lead_to_pages_and_headings(path):
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type != "markdown":
            continue
        for place, anchor in re.findall(r"\]\((\.\.?/[^)#]+)#?([^)]*)\)", cell.source):
            page = path.parent / place
            assert page.exists(), f"{path.stem}: {place}"
            text = page.read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}
            known = anchor in slugs or f'id="{anchor}"' in text
            assert not anchor or known, f"{path.stem}: {place}#{anchor}"


@pytest.mark.parametrize("path", NOTEBOOKS[1:7], ids=lambda path: path.stem)
def test_a_step_has_an_exercise_whose_solution_uses_what_is_there(path):
    cells = nbformat.read(path, 4).cells
    (exercise,) = [c.source for c in cells if c.source.startswith("## Exercise")]
    assert "<details><summary>A solution</summary>" in exercise
    (solution,) = re.findall(r"```python\n(.+?)```", exercise, re.DOTALL)
    code = "\n".join(c.source for c in cells if c.cell_type == "code")
    known = set(dir(builtins)) | names(code, ast.Store) | names(solution, ast.Store)
    assert names(solution, ast.Load) <= known


def names(code, kind):
    """The names that code stores or loads, and those that it imports."""
    tree = ast.parse(code)
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    found = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, kind)}
    return found | (imported if kind is not ast.Load else set())


def test_manifests_tell_everything_and_no_absolute_path(project):
    of_jobs = [json.loads(path.read_text()) for path in project.glob("runs/toy/**/manifest.json")]
    published = json.loads((project / "results" / "toy" / "manifests.json").read_text())
    assert sorted(m["notebook"] for m in of_jobs) == sorted(
        m["notebook"] for m in published["jobs"].values()
    )
    assert len(of_jobs) == JOBS
    for manifest in of_jobs:
        assert manifest["commit"] is not None and manifest["packages"]["torch"]
        assert str(project) not in json.dumps(manifest)


def test_a_second_run_does_nothing_and_says_so(project):
    before = {path: path.stat().st_mtime_ns for path in project.glob("results/toy/**/*")}
    done = batch(project, "study", "toy")
    assert "Nothing to be done" in done.stdout + done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in project.glob("results/toy/**/*")}


def test_a_clone_with_committed_results_only_runs_everything(project, tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, ignore=shutil.ignore_patterns("runs"))
    *jobs, summary = batch(clone, "plan", "toy").stdout.splitlines()
    assert len(jobs) == JOBS
    assert not any(line.startswith("done") for line in jobs)
    assert batch(clone, "verify", "toy").stdout.startswith("OK: toy: ")


def test_the_plan_names_what_a_change_makes_stale_and_runs_nothing(project):
    path = project / "studies" / "toy.yaml"
    original = path.read_text()
    study = yaml.safe_load(original)
    study["notebooks"]["03_generate_titles"]["beams"] = 2
    path.write_text(yaml.safe_dump(study))
    done = batch(project, "plan", "toy")
    path.write_text(original)
    states = {line.split()[1].split(".")[-1]: line for line in done.stdout.splitlines()[:-1]}
    assert "beams is 2, was 4" in states["03_generate_titles"]
    assert states["04_ground_to_items"].startswith("stale")
    assert states["02_tune_llm"].startswith("done")


def test_a_failing_job_ends_with_one_line_and_keeps_its_notebook(project, tmp_path):
    path = project / "studies" / "toy.yaml"
    original = path.read_text()
    study = yaml.safe_load(original)
    study["datasets"] = {"broken": {"reader": "ml-100k", "data_path": str(tmp_path)}}
    path.write_text(yaml.safe_dump(study))
    done = batch(project, "study", "toy", check=False)
    path.write_text(original)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    executed = "runs/toy/logs/broken.01_prepare_data.ipynb"
    assert last.startswith("error: 01_prepare_data, cell") and str(tmp_path) in last
    assert executed in last and (project / executed).exists()
    assert not (project / "runs/toy/broken/data/manifest.json").exists()


def test_baselines_keep_their_contract(project):
    data = project / "runs" / "toy" / DATA
    run = project / "runs" / "toy" / RUN / "baselines"
    items = pd.read_parquet(data / "items.parquet")
    examples = pd.read_parquet(data / "examples" / "test.parquet")
    _, of_item = np.unique(items.title_group, return_inverse=True)
    grid = pd.read_csv(run / "grid.csv")
    assert grid.groupby("method").chosen.sum().eq(1).all()
    ranks = pd.read_parquet(run / "ranks.parquet").query("split == 'test'")
    listed = set(pd.read_parquet(run / "lists.parquet").method)
    assert listed == set(grid.method) | {"random", "popularity", "p5"}
    ranked = listed | {f"{method}-unseen" for method in listed}
    assert ranked == set(ranks.method) == set(pd.read_csv(run / "metrics.csv").method)
    kept = sorted((run / "scores").iterdir())
    assert [path.name for path in kept] == ["dros", "sasrec-ce"]
    for scores in kept:
        found = np.load(scores / "test.npy", allow_pickle=False)
        assert found.shape == (20, items.title_group.nunique()) and found.dtype == np.float32
        target = found[np.arange(20), of_item[examples.target]]
        rank = ranks[ranks.method == scores.name]["rank"].to_numpy()
        assert ((found > target[:, None]).sum(1) == rank).all()


def test_selections_keep_their_contract(project):
    results = project / "results" / "toy"
    chosen = pd.read_parquet(results / "selections.parquet")
    assert list(chosen)[len(KEYS) :] == [
        "arm", "budget", "draw", "place", "example", "user", "popularity", "length", "age", "words"
    ]  # fmt: skip
    train = pd.read_parquet(project / "runs" / "toy" / DATA / "examples" / "train.parquet")
    assert chosen.example.isin(train.example).all()
    for _, draw in chosen.groupby(["arm", "budget", "draw"]):
        assert draw.place.tolist() == list(range(draw.budget.iloc[0]))
        assert draw.example.is_unique
    values = pd.read_parquet(results / "values.parquet").query("setting == 'picked.random.0'")
    assert values.groupby("what").example.nunique().to_dict() == {
        "answer_tokens": 10, "log_likelihood": 10, "log_likelihood_of_stranger": 10
    }  # fmt: skip
    assert values[values.what.str.startswith("log")].value.lt(0).all()


@pytest.mark.slow
def test_the_report_is_rebuilt_from_results_alone(project, tmp_path):
    """Twice the same bytes but for manifests.json: nothing in a page tells when it was made."""
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, ignore=shutil.ignore_patterns("runs"))
    results = clone / "results" / "toy"
    before = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    (results / "tables" / "main.csv").unlink()
    (results / "left.txt").write_text("of an earlier study")
    batch(clone, "report", "toy")
    after = {path: path.read_bytes() for path in results.rglob("*") if path.is_file()}
    assert set(after) == set(before)
    other = {path.name for path in before if before[path] != after[path]}
    assert other == {"manifests.json"}
    assert batch(clone, "verify", "toy").stdout.startswith("OK: toy: ")
