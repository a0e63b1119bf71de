"""What an edit makes run again, what resumes, and what stays."""

import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from toy import batch

from bigrec_lib.files import sha256
from bigrec_lib.study.publish import TABLES
from bigrec_lib.study.row_keys import PICKED

STEPS = ("01", "02", "03", "04", "05", "06", "13a", "15a", "16a")


def states(project) -> dict[str, str]:
    """The plan: number of the notebook (of the main run) -> its line."""
    *jobs, _ = batch(project, "plan", "toy").stdout.splitlines()
    main = [line for line in jobs if PICKED not in line.split()[1]]
    return {line.split()[1].split(".")[-1].partition("_")[0]: line for line in main}


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
        notebook = json.loads(text.encode("latin-1"))  # as `changed` has read it
        change(next(cell for cell in notebook["cells"] if cell["cell_type"] == kind))
        return json.dumps(notebook)

    return apply


@pytest.fixture
def analyses(project) -> set[str]:
    return set(states(project)) - set(STEPS)


def edit(old, new):
    """A change to one place of a file."""

    def apply(text):
        assert text.count(old) >= 1, old
        return text.replace(old, new, 1)

    return apply


def works(project) -> dict[str, int]:
    """When each piece of costly work was made: adapters, beams, networks, P5."""
    patterns = {
        "adapter": "tuning/adapter/adapter_model.safetensors",
        "beams": "generations/beams/*.parquet",
        "networks": "baselines/networks/**/*.safetensors",
        "p5-adapter": "baselines/p5-adapter/*.safetensors",
        "p5-beams": "baselines/p5-beams/*.parquet",
        "states": "../states/*/*/*.safetensors",
        "likelihoods": "alignment/likelihoods/*.npy",
    }
    run = project / "runs" / "toy" / "toy" / "n16-s0"
    times = {}
    for name, pattern in patterns.items():
        paths = sorted(run.glob(pattern))
        assert paths, f"no {name} in {run}"
        times[name] = max(path.stat().st_mtime_ns for path in paths)
    return times


METHOD, FINDINGS, STUDY = (f"bigrec_lib/{wing}" for wing in ("method", "findings", "study"))
EDITS = [
    # what is edited, the edit, what runs again, what of the costly work is lost
    ("a docstring", f"{METHOD}/tuning.py", edit('"""', '"""Anew. '), "", ""),
    ("a comment", f"{METHOD}/beams.py", lambda text: text + "\n# changed\n", "", ""),
    (
        "parameters' help",
        f"{STUDY}/parameters_checks.py",
        edit('"""What every', '"""All every'),
        "",
        "",
    ),
    (
        "a notebook's help",
        "notebooks/02_tune_llm.ipynb",
        edit("# passes over the samples", "# rounds over the samples"),
        "",
        "",
    ),
    ("the batch", f"{STUDY}/batch.py", edit("def tidy(", "def tidier("), "", ""),
    ("the site", f"{FINDINGS}/site.py", edit("made", "built"), "", ""),
    (
        "a reader of another format",
        f"{METHOD}/readers.py",
        edit('"Video_Games": "games"', '"Video_Games": "items"'),
        "01",
        "",
    ),
    (
        "a network",
        f"{METHOD}/networks.py",
        edit("visible.shape[2]\n", "int(visible.shape[2])\n"),
        "06 13a",
        "networks likelihoods",  # of 16a, which reads what 06 made
    ),
    (
        "generation",
        f"{METHOD}/beams.py",
        edit("width = 2 * search.beams", "width = int(2 * search.beams)"),
        "03 06",
        "beams p5-beams",
    ),
    (
        "a way to choose samples",
        f"{METHOD}/selection.py",
        edit("order[groups[order] == group][:count]", "order[group == groups[order]][:count]"),
        "13a",
        "",
    ),
    (
        "a cheaper way",
        f"{METHOD}/cheaper.py",
        edit("index.nprobe = min(probes, cells)", "index.nprobe = min(cells, probes)"),
        "15a",
        "",
    ),
    (
        "the likelihood of titles",
        f"{METHOD}/likelihood.py",
        edit("if parent:", "if parent > 0:"),
        "16a",
        "likelihoods",
    ),
    (
        "states of texts",
        f"{METHOD}/states.py",
        edit("batch.lengths - 1]", "batch.lengths + -1]"),
        "16a",
        "states",
    ),
    ("a figure", f"{FINDINGS}/plots.py", edit("share covered", "covered"), "03", ""),
    ("the claims' rule", f"{FINDINGS}/rules.py", edit("FLAT = 0.10", "FLAT = 0.20"), "", ""),
]


@pytest.mark.parametrize(
    ("file", "change", "again", "lost"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS]
)
def test_what_an_edit_makes_run_again(project, file, change, again, lost):
    """Only the notebooks that use the code: those after them wait, and are still done if what they
    read comes out the same."""
    with changed(project / file, change):
        plan = states(project)
    stale = {n for n, line in plan.items() if "after" not in line and not line.startswith("done")}
    assert stale & set(STEPS) == set(again.split())
    if file.endswith("rules.py"):
        assert {"07", "08", "09", "10"} <= stale
    elif not again:
        assert stale == set()


def rerun(project) -> None:
    """Run the steps that are stale, and what they make stale; the batch would also start every
    job after them, to find that there is nothing to do."""

    def stale():
        *jobs, _ = batch(project, "plan", "toy").stdout.splitlines()
        words = [line.split() for line in jobs if " after " not in line]
        keys = [key for status, key, *_ in words if status != "done"]
        return [key for key in keys if key.split(".")[-1].partition("_")[0] in STEPS]

    while keys := stale():
        for key in keys:
            batch(project, "notebook", "toy", key)


@pytest.mark.slow
def test_what_resumes_and_what_stays(project, tmp_path):
    """The costly work that an edit throws away is that of the code it changed, and no other."""
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    edits = [e for e in EDITS if e[3] and e[0] != "a reader of another format"]
    network, beams, likelihood, states = (e for e in edits if e[4])
    rest = [e for e in edits if not e[4]]
    for together in ([network, *rest], [beams, likelihood], [states]):  # which lose different work
        before = works(copy)
        for _, file, change, _, _ in together:
            (copy / file).write_text(change((copy / file).read_text()))
        rerun(copy)
        now, made = works(copy), [e[0] for e in together]
        lost = {name for e in together for name in e[4].split()}
        assert {name for name in now if now[name] != before[name]} == lost, made
        assert not to_do(copy) & set(STEPS), made
    batch(copy, "collect", "toy")
    for table in TABLES:
        again, first = (folder / "results" / "toy" / table for folder in (copy, project))
        assert sha256(again) == sha256(first), f"{table} does not come out the same"


@pytest.mark.slow
def test_what_an_accepted_change_made_stale_is_done_and_its_work_stays(project, tmp_path):
    copy = tmp_path / "project"
    shutil.copytree(project, copy)
    edits = {name: (file, change) for name, file, change, _, _ in EDITS}
    (file, change), before = edits["generation"], works(copy)
    (copy / file).write_text(change((copy / file).read_text()))
    for files, why, refusal in [
        (
            f"{METHOD}/llm.py",
            "the same",
            "no finished step is stale because of bigrec_lib/method",
        ),
        (file, " ", "say why results stay the same"),
    ]:
        said = batch(copy, "accept", "toy", files, why, check=False)
        assert said.returncode == 1 and refusal in said.stderr
    *jobs, last = batch(copy, "accept", "toy", file, "a number twice").stdout.splitlines()
    assert {job.partition("n16-s0.")[2] for job in jobs} >= {
        "03_generate_titles", "06_train_baselines"
    }  # fmt: skip
    assert last.startswith(f"{len(jobs)} finished jobs count") and not to_do(copy) & set(STEPS)
    run = copy / "runs" / "toy" / "toy" / "n16-s0"
    told = json.loads((run / "generations" / "manifest.json").read_text())
    (entry,) = told["accepted"]
    assert entry["why"] == "a number twice" and list(entry["was"]) == [file]
    assert entry["was"][file] != told["sources"][file]
    assert "after results" in batch(copy, "plan", "toy").stdout, "what was accepted is published"
    batch(copy, "collect", "toy")
    published = json.loads((copy / "results" / "toy" / "manifests.json").read_text())["jobs"]
    assert published["toy.n16-s0.03_generate_titles"]["accepted"] == told["accepted"]
    (file, change) = edits["a figure"]
    (copy / file).write_text(change((copy / file).read_text()))
    rerun(copy)
    assert works(copy) == before and not to_do(copy) & set(STEPS)
    again = json.loads((run / "generations" / "manifest.json").read_text())
    assert again["accepted"] == told["accepted"], "the work that was kept rests on it"


@pytest.mark.parametrize(
    ("notebooks", "stale"),
    [
        ({"05_reweight_by_statistics": {"collaborative": "sasrec-ce"}}, "05"),
        ({"15a_measure_grounders": {"probes": 2}}, "15a"),
        ({"16a_measure_alignment": {"shrinkage": 0.2}}, "16a"),
        ({"03_generate_titles": {"beams": 2}}, "03 04 05 15a 16a"),
        ({"03_generate_titles": {"beams": 4}}, ""),
        ({"02_tune_llm": {"rank": 4}}, "02 03 04 05 15a 16a"),
        ({"01_prepare_data": {"history": 3}}, "01 02 03 04 05 06 13a 15a 16a"),
    ],
)
def test_a_changed_parameter_makes_stale_what_comes_from_it(project, notebooks, stale):
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
    run = project / "runs" / "toy"
    for path in (
        run / "toy" / "n16-s0" / "grounding" / "ranks.parquet",
        run / "executed" / "toy.n16-s0.04_ground_to_items.ipynb",
    ):
        shutil.move(path, tmp_path / "lost")
        assert path.name in states(project)["04"] and "05" in to_do(project)
        shutil.move(tmp_path / "lost", path)
    ranks = project / "results" / "toy" / "ranks.parquet"
    shutil.move(ranks, tmp_path / "lost")
    assert to_do(project) == {"07", "08", "09", "10", "13", "15", "16", "17", "18"}
    assert "after results" in states(project)["07"]
    shutil.move(tmp_path / "lost", ranks)
    assert to_do(project) == set()
