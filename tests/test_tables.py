"""Tables name what they lack, mark what is best, and print as LaTeX."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from bigrec_lib.findings import leaderboard, tables
from bigrec_lib.findings.leaderboard import ROW


def ranks(**places):
    """method -> seed -> ranks, as the main table takes them."""
    return pd.DataFrame(
        [
            {"dataset": "d", "samples": "few", "seed": seed, "method": method, "rank": rank}
            for method, seeds in places.items()
            for seed, each in enumerate(seeds)
            for rank in each
        ]
    )


def main_table(given, methods, marks=frozenset(), gains=(), firsts=()):
    """The main table; gains: rows of `references`, firsts: of `variety`."""
    held_against = pd.DataFrame(gains, columns=[*ROW, "gain", "low", "high", "personal"])
    variety = pd.DataFrame(firsts, columns=[*ROW, "distinct", "most_frequent"])
    return leaderboard.overall(given, methods, marks, held_against, variety)


def test_the_main_table_by_hand():
    given = ranks(a=[[0, 50], [0, 0]], b=[[4, 50]])
    gains = [("d", "few", "a", 0.5, 0.25, 0.75, True), ("d", "few", "b", 0.1, -0.1, 0.3, False)]
    firsts = [("d", "few", "a", 2.0, 0.5)]
    table = main_table(
        given, {"few": ["a", "b", "c"]}, {("d", "few", "b")}, gains=gains, firsts=firsts
    )
    a, b, c = table.to_dict("records")
    deviation = np.std([0.5, 1.0], ddof=1)
    assert a["HR@1"] == f"**0.7500 ± {deviation:.4f}**" and a["gap"] == ""
    assert b["NDCG@20"].endswith("†") and b["HR@5"] == "0.5000" and b["gap"] == "missing: seed 1"
    assert b["HR@1"] == "0.0000"
    assert c["gap"] == "missing: all" and c["HR@1"] != c["HR@1"]
    assert a["personal gain"] == "+0.5000 [+0.2500, +0.7500]"
    assert b["personal gain"] == "+0.1000 [-0.1000, +0.3000] ∘"
    assert (a["distinct first"], a["most frequent"]) == (2, "50%")


def test_the_headline_table_has_a_row_a_method():
    few, full = ranks(a=[[0]], b=[[4]]), ranks(b=[[0]], c=[[50]]).assign(samples="all")
    there = pd.concat([few, full, few.assign(dataset="e")])
    gains = [("e", "few", "a", 0.5, 0.25, 0.75, True)]
    main = main_table(there, {"few": ["a", "b"], "all": ["b", "c", "gone"]}, gains=gains)
    table = leaderboard.headline(main).set_index("method")
    of_d = ["d NDCG@20", "d NDCG@20, all samples"]
    assert list(table) == ["learns", *of_d, "e NDCG@20", "e personal gain"]
    assert list(table.index) == ["a", "b", "c"]
    assert table.loc["a"].tolist()[1:] == ["**1.0000**", "", "**1.0000**", gains_text(gains[0])]
    assert table.loc["b", of_d[1]] == "**1.0000**" and table.loc["c", of_d[1]] == "0.0000"


def gains_text(row):
    return "{:+.4f} [{:+.4f}, {:+.4f}]".format(*row[3:6])


def test_nothing_is_best_where_all_are_zero():
    table = main_table(ranks(a=[[50]], b=[[60]]), {"few": ["a", "b"]})
    assert (table["NDCG@20"] == "0.0000").all()


AWKWARD = pd.DataFrame(
    {"a_b & 50 %": ["**0.1 ± 0.2**†", "γ – …", "x_y − z ∘"], "n": [1.0, float("nan"), 3.0]}
)


def test_a_notebook_shows_the_whole_table():
    frame = pd.DataFrame(
        {"n": pd.array([3, None], "Int64"), "x": [0.123456, np.nan], "t": "w" * 90}
    )
    lines = tables.view(frame, digits=2).data.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["|", "3", "|", "0.12", "|", "w" * 90, "|"],
        ["|", "–", "|", "–", "|", "w" * 90, "|"],
    ]


def test_latex_escapes_and_keeps_bold(tmp_path):
    tables.save(AWKWARD.copy(), tmp_path, "t", printed=True, digits=2)
    text = (tmp_path / "t.tex").read_text()
    assert (
        r"\textbf{0.1 $\pm$ 0.2}$^\dagger$" in text
        and r"a\_b \& 50 \%" in text
        and r"\toprule" in text
    )
    assert text.isascii()
    assert "**0.1 ± 0.2**†" in (tmp_path / "t.md").read_text()


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not installed")
def test_latex_compiles(tmp_path):
    head = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    page = head + tables.latex(AWKWARD.astype(str)) + r"\end{document}"
    (tmp_path / "t.tex").write_text(page)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_a_long_table_is_cut_and_says_where_the_rest_is(tmp_path):
    long = pd.DataFrame({"n": range(tables.ROWS + 5)})
    saved = tables.save(long, tmp_path / "tables", "long")
    shown = tables.view(saved[saved.n >= 0], caption="Numbers.").data
    rows = [line.strip("| ") for line in shown.splitlines() if line.startswith("|")]
    assert rows[-1] == str(tables.ROWS - 1)
    assert "*The first 30 of 35 rows: all of them are in `tables/long.csv`.* *Numbers.*" in shown
    assert "first 30" not in tables.view(long.head(30)).data


@pytest.mark.parametrize("sizes", [{"b": 40, "a": 3, "c": 20}, {"b": 31}, {"b": 10, "a": 10}])
def test_a_cut_table_hides_no_data_set(tmp_path, sizes):
    names = [name for name, size in sizes.items() for _ in range(size)]
    long = pd.DataFrame({"dataset": names, "n": [n for s in sizes.values() for n in range(s)]})
    shown = tables.view(tables.save(long, tmp_path / "tables", "long")).data
    rows = [line.split("|")[1:3] for line in shown.splitlines() if line.startswith("|")][2:]
    room = tables.ROWS // len(sizes)
    wanted = [(name, str(n)) for name, size in sizes.items() for n in range(min(size, room))]
    assert [(name.strip(), n.strip()) for name, n in rows] == wanted
    cut = len(wanted) < len(long)
    place = ": all of them are in `tables/long.csv`.*"
    start = "The first " if len(sizes) == 1 else ""
    each = "" if len(sizes) == 1 else ", the first of each data set"
    said = f"*{start}{len(wanted)} of {len(long)} rows{each}{place}"
    assert (said in shown) == cut and (place in shown) == cut


def test_counts_have_no_decimals_and_measures_keep_theirs():
    frame = pd.DataFrame({"n": [633.0, 8.0], "mixed": [-2.0, 2.25], "score": [0.0, 1.0]})
    lines = [line.split() for line in tables.view(frame).data.splitlines()[2:]]
    assert [line[1::2] for line in lines] == [["633", "-2", "0.0000"], ["8", "2.2500", "1.0000"]]
