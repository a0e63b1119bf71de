"""14a and 14b on the toy study and a second data set made from it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from bigrec_lib.files import StudyError
from bigrec_lib.findings import spaces
from bigrec_lib.method import adapters, embedding, prepared, prompts
from bigrec_lib.study import parameters, steps
from bigrec_lib.study.steps import words_for

DATA = "runs/toy/other/data"


@pytest.fixture(scope="module")
def twice(project, tmp_path_factory):
    """A copy of the toy project whose work is also that of a data set `other`, of other titles but
    the first."""
    folder = tmp_path_factory.mktemp("twice") / "project"
    shutil.copytree(project, folder)
    runs = folder / "runs" / "toy"
    shutil.copytree(runs / "toy", runs / "other")
    items = pd.read_parquet(runs / "other" / "data" / "items.parquet")
    items["title"] = [items.title[0], *("Other " + items.title[1:])]
    items.to_parquet(runs / "other" / "data" / "items.parquet")
    place = runs / "other" / "n16-s0" / "grounding" / "vectors" / "titles.safetensors"
    vectors = embedding.load(place)["vectors"]
    new = [title.startswith("Other") for title in prepared.read(runs / "other/data").candidates]
    embedding.save(place, vectors=vectors + 0.01 * np.array(new, dtype=np.float32)[:, None])
    for name in ("toy", "other"):
        shutil.copytree(runs / name / "n16-s0", runs / name / "n16-s1")  # a further seed
    return folder


def execute(folder, name, **given):
    import papermill

    papermill.execute_notebook(
        str(folder / "notebooks" / f"{name}.ipynb"), str(folder / f"{name}.ipynb"),
        parameters={"study": "toy", "root": str(folder), "dataset": "toy", "n_train": 16, **given},
        kernel_name="python3", progress_bar=False,
    )  # fmt: skip


def test_the_average_adapter_lies_where_03_looks_for_it(twice):
    execute(twice, "14a_merge_adapters", also=["other"], against=1)
    p = parameters.GenerateTitles(
        study="toy", root=str(twice), dataset="toy", n_train=16, setting="merged",
        tuned_on="toy+other",
    )  # fmt: skip
    manifest = json.loads((p.tuning / "manifest.json").read_text())
    average = adapters.read_update(p.adapter)
    alone = adapters.read_update(twice / "runs/toy/toy/n16-s0/tuning/adapter")
    assert average.config["r"] == 2 * alone.config["r"] == manifest["facts"]["rank"]
    assert adapters.cosines(average, alone)[""] == pytest.approx(1)  # two copies of one
    assert {kind: each[""] for kind, each in manifest["facts"]["cosines"].items()} == pytest.approx(
        dict.fromkeys((spaces.SAME_SEED, spaces.OTHER_SEED, spaces.NULL), 1)
    )
    assert manifest["facts"]["length"] == pytest.approx(1)


def test_texts_are_grounded_in_both_catalogues(twice):
    execute(twice, "14b_ground_in_spaces", joined=["other"], control="other", vectors_of="n16-s0")
    run = twice / "runs" / "toy" / "toy" / "n16-s0"
    ranks = pd.read_parquet(run / "spaces" / "ranks.parquet").set_index(["method", "example"])
    own, other = (
        embedding.load(twice / f"runs/toy/{name}/n16-s0/grounding/vectors/titles.safetensors")
        for name in ("toy", "other")
    )
    first = embedding.load(run / "grounding" / "vectors" / "test.safetensors")
    items = pd.read_parquet(twice / "runs" / "toy" / "toy" / "data" / "items.parquet")
    examples = pd.read_parquet(
        twice / "runs" / "toy" / "toy" / "data" / "examples" / "test.parquet"
    )
    target = examples.set_index("example").target
    _, of_item = np.unique(items.title_group, return_inverse=True)
    new = [title.startswith("Other") for title in prepared.read(twice / DATA).candidates]
    both = np.vstack([own["vectors"], other["vectors"][new]]).astype(float)
    lists = pd.read_parquet(run / "spaces" / "lists.parquet").set_index("example")["items"]
    values = pd.read_parquet(run / "spaces" / "values.parquet").query("method == 'bigrec-union'")
    shares = values[values.what.str.startswith("share")].set_index("example").value
    for query, example in zip(first["queries"].astype(float), first["examples"], strict=True):
        far = ((both - query) ** 2).sum(1)
        goal = of_item[target[example]]
        assert ranks.loc[("bigrec-union", example), "rank"] == (far < far[goal]).sum()
        assert shares[example] == pytest.approx((lists[example] == -1).mean())
    measures = pd.read_csv(run / "spaces" / "measures.csv").set_index(["what", "method"]).value
    n = len(own["vectors"])
    assert measures["titles", "bigrec-union"] == n
    assert measures["titles of other data sets", "bigrec-union"] == n - 1
    assert measures["in both", "bigrec-union"] == 1
    control = ranks.loc["bigrec-union-control"]  # all titles of `other`, as in the union
    assert control.equals(ranks.loc["bigrec-union"]) and not lists.empty


def test_titles_embedded_with_an_adapter_are_refused(twice, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"facts": {"embedder": "tuned"}}))
    steps.check_base([twice / "runs" / "toy" / "toy" / "n16-s0" / "grounding"])
    with pytest.raises(StudyError, match="set embedder of 04_ground_to_items to base") as caught:
        steps.check_base([tmp_path])
    assert "\n" not in str(caught.value)


def test_prompts_of_other_words(twice):
    given = {"study": "toy", "root": str(twice), "dataset": "toy", "n_train": 16}
    p = parameters.GenerateTitles(**given)
    data = prepared.read(p.data)
    assert words_for(p, data) == data.words
    none = parameters.GenerateTitles(**given, worded="none")
    assert words_for(none, data) == prompts.DOMAINS["items"]
    wrong = parameters.GenerateTitles(**given, worded="wrong", words_of="other")
    with pytest.raises(StudyError, match="prompts of toy already have the words") as caught:
        words_for(wrong, data)  # the copy is of the same domain
    assert "\n" not in str(caught.value)
    meta = twice / "runs" / "toy" / "other" / "data" / "meta.json"
    games = {"one": "video game", "many": "video games", "consumed": "played"}
    meta.write_text(json.dumps(json.loads(meta.read_text()) | games))
    assert words_for(wrong, data) == prompts.DOMAINS["games"]
    assert "01_prepare_data of other" in wrong.inputs
