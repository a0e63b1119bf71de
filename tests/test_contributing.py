"""The recipes of CONTRIBUTING.md, run as they stand there on toy data."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import toy_results
from toy_datasets import EVENTS, FILMS, WANTED, check_corpus, shown
from toy_windows import PAD, windows_of

from bigrec_lib.findings import analyses, evidence, tables
from bigrec_lib.findings.methods import label
from bigrec_lib.method import baselines, readers

PAGE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = {
    section.partition("\n")[0]: re.findall(r"^```python\n(.*?)^```$", section, re.M | re.S)
    for section in PAGE.split("\n## ")[1:]
}


def run(recipe: str) -> dict:
    """The names that the first block of a recipe defines."""
    names: dict = {}
    exec(RECIPES[recipe][0], names)
    return names


def test_there_are_three_recipes_of_at_most_15_lines():
    assert list(RECIPES) == ["Add a reader", "Add a baseline", "Add an analysis"]
    for blocks in RECIPES.values():
        assert blocks
        for block in blocks:
            lines = [line for line in block.splitlines() if line.strip()]
            assert len(lines) <= 15 and max(map(len, lines)) <= 100


def test_paths_and_links_of_the_page_exist():
    root = Path(__file__).parent.parent
    for link in re.findall(r"\]\((?!http)([^)#]+)", PAGE):
        assert (root / link).exists(), link
    for path in re.findall(r"`((?:tests|bigrec_lib)/[\w/]+\.py)`", PAGE):
        assert (root / path).exists(), path
    for path in re.findall(r"`((?:study|findings|method)/\w+\.py)`", PAGE):
        assert (root / "bigrec_lib" / path).exists(), path


def test_the_reader_reads_the_toy_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "READERS", readers.READERS.copy())
    run("Add a reader")
    business = [{"business_id": item, "name": title} for item, (title, _) in FILMS.items()]
    reviews = [
        {
            "review_id": str(number),
            "user_id": user,
            "business_id": item,
            "stars": float(rating),
            "date": datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        }
        for number, (user, item, rating, time) in enumerate(EVENTS)
    ]
    for name, rows in (("business", business), ("review", reviews)):
        path = tmp_path / f"yelp_academic_dataset_{name}.json"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = readers.load("yelp", str(tmp_path))
    check_corpus(corpus)
    assert shown(corpus) == WANTED and corpus.unit == "s"
    assert set(corpus.items.title) == {title for title, _ in FILMS.values()}


def test_the_baseline_scores_and_is_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "STATISTICS", baselines.STATISTICS.copy())
    again = run("Add a baseline")["again"]
    samples = windows_of([[0, 1, 0], [3, 2, 3], [5, 4, 5], [7, 8, 7]])
    score = again(samples, 0.5)(np.array([[PAD, 1, 0], [2, 1, 2]]))
    assert score.dtype == np.float32
    assert score.tolist() == [[1, 0.5] + [0] * 7, [0, 0.5, 1.25] + [0] * 6]
    found = baselines.search("again", [], samples, samples, tmp_path)
    assert len(found.grid) == 3 and found.grid.chosen.sum() == 1
    assert found.grid.valid_ndcg.max() > 0.6


def test_the_analysis_counts_and_is_saved(tmp_path):
    toy_results.write_bare(tmp_path / "results")
    names = run("Add an analysis")
    names |= {
        "evidence": evidence,
        "tables": tables,
        "analyses": SimpleNamespace(**vars(analyses), title_words=names["title_words"]),
        "p": SimpleNamespace(results=tmp_path / "results", tables=tmp_path),
    }
    exec(RECIPES["Add an analysis"][1], names)
    saved = pd.read_csv(tmp_path / "title_words.csv").set_index(["dataset", "method"]).words
    lists, items = names["lists"], names["items"]
    assert len(saved) == len(lists[["dataset", "method"]].drop_duplicates()) > 0
    for (dataset, method), group in lists.groupby(["dataset", "method"]):
        titles = items[dataset].title.tolist()
        counts = [len(titles[shown[0]].split()) for shown in group["items"]]
        assert saved[dataset, label(method)] == pytest.approx(sum(counts) / len(counts))
