"""The command behind a row runs the step that made it."""

import json
import shlex

import pandas as pd
import toy_results

from bigrec_lib.findings import alignment, commands
from bigrec_lib.study.parameters import NOTEBOOKS


def test_every_row_has_its_step_and_its_parameters(tmp_path):
    folder = toy_results.write(tmp_path / "results" / "toy", seeds=(0, 1, 2), datasets=("films",))
    rows = pd.DataFrame(
        {"dataset": "films", "run": "n128-s0",
         "method": ["bigrec+popularity", "sasrec-ce-unseen", "markov", "bigrec"]}
    )  # fmt: skip
    found = commands.behind(folder, pd.concat([rows, rows])).set_index("method")
    assert len(found) == 4
    of_05, of_06 = "films.n128-s0.05_reweight_by_statistics", "films.n128-s0.06_train_baselines"
    assert found.manifest.to_dict() == {
        "bigrec+popularity": of_05, "sasrec-ce-unseen": of_06, "markov": of_06, "bigrec": ""
    }  # fmt: skip
    assert found.command["bigrec"] == ""
    program, notebook, _, flag, given = shlex.split(found.command["bigrec+popularity"])
    assert program.endswith("papermill") and notebook == "notebooks/05_reweight_by_statistics.ipynb"
    assert flag == "-y" and json.loads(given)["collaborative"] == "sasrec-ce"


def test_the_notebook_named_writes_the_method():
    for method, wanted in {
        "bigrec-reference": "04", "bigrec-bm25": "04", "bigrec+both-unseen": "05",
        "markov-last-unseen": "06", "sasrec-llm": "06", "random": "06", "p5": "06",
        "bigrec-union-few": "14b", "bigrec-hnsw": "15a", alignment.CHOSEN: "16a",
        alignment.CHOSEN_UNSEEN: "16a",
    }.items():  # fmt: skip
        notebook = commands.notebook_of(method)
        assert notebook in NOTEBOOKS and notebook.partition("_")[0] == wanted


def test_a_command_leaves_out_defaults_and_folders_of_this_machine():
    parameters = NOTEBOOKS["04_ground_to_items"]().model_dump()
    job = {"notebook": "04_ground_to_items"}
    assert commands.command(job | {"parameters": parameters}).endswith("-y '{}'")
    changed = parameters | {"seed": 2, "model": "/home/me/models/o'large"}
    given = shlex.split(commands.command(job | {"parameters": changed}))[-1]
    assert json.loads(given) == {"seed": 2, "model": "…/o'large"}
