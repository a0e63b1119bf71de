"""Tables name what they lack, mark what is best, and print as LaTeX."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from bigrec_lib.findings import analyses, tables


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


def test_the_main_table_by_hand():
    given = ranks(a=[[0, 50], [0, 0]], b=[[4, 50]])
    table = analyses.overall(given, {"few": ["a", "b", "c"]}, {("d", "few", "b")})
    a, b, c = table.to_dict("records")
    deviation = np.std([0.5, 1.0], ddof=1)
    assert a["HR@1"] == f"**0.7500 ± {deviation:.4f}**" and a["gap"] == ""
    assert b["NDCG@20"].endswith("†") and b["HR@5"] == "0.5000" and b["gap"] == "missing: seed 1"
    assert b["HR@1"] == "0.0000"
    assert c["gap"] == "missing: all" and c["HR@1"] != c["HR@1"]


def test_the_headline_table_has_a_row_a_method():
    few, full = ranks(a=[[0]], b=[[4]]), ranks(b=[[0]], c=[[50]]).assign(samples="all")
    there = pd.concat([few, full, few.assign(dataset="e")])
    main = analyses.overall(there, {"few": ["a", "b"], "all": ["b", "c", "gone"]}, set())
    table = analyses.headline(main).set_index("method")
    of_d = ["d HR@20", "d NDCG@20", "d NDCG@20, all samples"]
    assert list(table) == [*of_d, "e HR@20", "e NDCG@20"] and list(table.index) == ["a", "b", "c"]
    assert table.loc["a"].tolist() == ["**1.0000**", "**1.0000**", "", "**1.0000**", "**1.0000**"]
    assert table.loc["b", of_d[2]] == "**1.0000**" and table.loc["c", of_d[2]] == "0.0000"


def test_nothing_is_best_where_all_are_zero():
    table = analyses.overall(ranks(a=[[50]], b=[[60]]), {"few": ["a", "b"]}, set())
    assert (table["NDCG@20"] == "0.0000").all()


AWKWARD = pd.DataFrame(
    {"a_b & 50 %": ["**0.1 ± 0.2**†", "γ – …", "x_y − z"], "n": [1.0, float("nan"), 3.0]}
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
