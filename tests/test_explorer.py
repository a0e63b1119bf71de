"""What is published for the explorer ranks as the study does; the page follows from it alone."""

import base64
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_explorer import GAMMAS, HOSTILE, UNITED, K, N, publish

from bigrec_lib.files import StudyError
from bigrec_lib.method import contenders, grounding, reweighting
from bigrec_lib.study import explorer


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "toy"
    return folder, publish(folder)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_the_contenders_have_the_first_of_the_whole_catalogue_at_every_gamma(data):
    items, k = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 6))
    number = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 3.0])
    rows = [data.draw(st.lists(number, min_size=items, max_size=items)) for _ in range(3)]
    logs = reweighting.log_distances(np.array(rows[:1]))
    pulls = {str(i): np.log1p(row) for i, row in enumerate(rows[1:])}
    few = contenders.contenders(logs[0], pulls, GAMMAS, k)
    for pull in pulls.values():
        for gamma in GAMMAS:
            keys = logs - gamma * pull
            among = few[grounding.first(keys[:, few], k)]
            assert among.tolist() == grounding.first(keys, k).tolist()
    assert len(few) <= items and len(set(few)) == len(few)


def test_no_candidate_is_kept_that_never_comes_first():
    logs = np.r_[-np.inf, np.log([0.1, 0.2, 0.3, 0.9])]
    pulls = {"w": np.log1p(np.array([0.0, 0.5, 0.4, 1.0, 0.9]))}
    assert contenders.contenders(logs, pulls, GAMMAS, 2).tolist() == [0, 1, 3]


def test_a_list_at_any_gamma_follows_from_what_is_published(published):
    folder, worlds = published
    frame = pd.read_parquet(folder / "explorer.parquet")
    world = worlds["films"]
    first_items = np.unique(world.group)
    for name, rows in frame[frame.dataset == "films"].groupby("weights"):
        for gamma in GAMMAS[::9]:
            wanted = world.list_at(name, gamma)
            for row, lists in zip(rows.itertuples(), wanted, strict=True):
                order = np.argsort(row.logs - gamma * row.pulls, kind="stable")[:K]
                assert row.items[order].tolist() == first_items[lists].tolist()


def data_of(folder):
    text = (folder / "explorer-data.js").read_text(encoding="utf-8")
    assert text.startswith("const STUDY = {") and text.endswith(";\n")
    return json.loads(text.removeprefix("const STUDY = ").removesuffix(";\n"))


def unpacked(text):
    dtype = np.dtype(text[0]).newbyteorder("<")
    return np.frombuffer(base64.b64decode(text[1:]), dtype)


@pytest.mark.parametrize(
    "values",
    [[0, 255], [256], [65535], [65536], [-0.0, 1e-300, -np.inf, 0.1], [], [[1, 2], [3, 4]]],
)
def test_packed_numbers_come_back_as_they_were(values):
    found = unpacked(explorer.packed(np.array(values, dtype=None if values else int)))
    assert found.tolist() == np.array(values).ravel().tolist()


def test_the_data_are_those_of_the_study(published):
    folder, worlds = published
    written = explorer.write(folder)
    assert [path.name for path in written] == ["explorer.html", "explorer-data.js"]
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in explorer.write(folder)] == before
    study = data_of(folder)
    assert study["gammas"] == GAMMAS.tolist() and study["k"] == K
    for dataset in study["datasets"]:
        world = worlds[dataset["name"]]
        assert [row["number"] for row in dataset["examples"]] == world.numbers.tolist()
        assert [seed["seed"] for seed in dataset["seeds"]] == [0, 1]
        head, tail = dataset["prompt"]
        assert head.endswith("before:") and tail == "\n\n### Response:\n"
        for at, row in enumerate(dataset["examples"]):
            assert head + row["prompt"] + tail == world.prompt(at)
            assert dataset["titles"][row["target"]] == world.titles[world.targets[at]]
            read = [dataset["titles"][title] for title in row["history"]]
            assert read == [world.titles[item] for item in world.history[at]]
        for method, (ranks, lists) in world.methods().items():
            for seed, turn in zip(dataset["seeds"], (1, -1), strict=True):
                rank, ties = map(unpacked, seed["ranks"][method])
                assert rank[::turn].tolist() == ranks["rank"].tolist()
                assert ties[::turn].tolist() == ranks["ties"].tolist()
                if method == "random":
                    assert method not in seed["lists"]
                    continue
                shown = unpacked(seed["lists"][method]).reshape(N, K)[::turn]
                titles = [[dataset["titles"][title] for title in row] for row in shown]
                assert titles == [[world.titles[i] for i in row] for row in lists]
        assert UNITED not in dataset["seeds"][0]["lists"]
        assert set(HOSTILE) <= set(dataset["titles"])
        one, other = dataset["seeds"]
        for what in ("ranks", "lists"):  # what the toy study says of constrained decoding
            assert one[what]["bigrec-constrained"] == one[what]["markov"]
            assert "bigrec-constrained" not in other[what]
        counts = dict(zip(dataset["titles"], unpacked(dataset["counts"]), strict=True))
        assert counts[world.titles[40]] == world.counts[40] + world.counts[-1]
        assert unpacked(dataset["seeds"][0]["often"]).max() == 10  # of the 10 with the same text


def test_as_many_examples_as_fit_are_those_drawn_first(published, monkeypatch):
    folder, _ = published
    monkeypatch.setattr(explorer, "SHOWN", (200, 10, 4))
    whole = len(explorer.fitting(folder).encode())
    monkeypatch.setattr(explorer, "LIMIT", whole - 1)
    (first, _) = json.loads(explorer.fitting(folder))["datasets"]
    examples = pd.read_parquet(folder / "examples.parquet").query("dataset == @first['name']")
    drawn = examples.sort_values("draw").example.head(10)
    assert [row["number"] for row in first["examples"]] == sorted(drawn)
    monkeypatch.setattr(explorer, "LIMIT", 1000)
    with pytest.raises(StudyError, match="even with 4 examples"):
        explorer.fitting(folder)


def test_a_study_without_distances_has_no_explorer(tmp_path):
    assert explorer.write(tmp_path) == [] and not list(tmp_path.iterdir())


def test_what_all_prompts_have_in_common():
    text = 'Do\nthat:"A "good" title", "Another"\n\nResponse:\n'
    assert explorer.ends_of(text) == ("Do\nthat:", "\n\nResponse:\n")
