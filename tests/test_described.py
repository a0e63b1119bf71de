"""Figures in words, and colours that can be seen."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from bigrec_lib.findings import described, figures, methods, plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_a_line_is_told_from_its_first_value_to_its_last():
    log = pd.DataFrame({"step": [1, 2, 3], "train_loss": [3.0, 2.0, 1.25]})
    log["valid_loss"] = [np.nan, 2.5, 1.5]
    said = described.figure(plots.losses(log))
    assert said == (
        "loss per answer token over step: training from 3 to 1.25; validation from 2.5 to 1.5."
    )


def test_the_best_and_the_worst_method_are_named():
    levels = pd.DataFrame({
        "dataset": "films", "samples": "few", "method": ["bigrec", "item-knn", "random"],
        "value": [0.2, 0.3, 0.1], "low": 0.0, "high": 1.0,
    })  # fmt: skip
    more = levels.assign(dataset="games", value=[0.4, 0.3, 0.1])
    said = described.figure(figures.overall(pd.concat([levels, more])))
    assert said.startswith("2 panels. films: NDCG@20: highest 0.3 (Item kNN), lowest 0.1 (Random")
    assert "games: NDCG@20: highest 0.4 (BIGRec)" in said


def test_bars_and_intervals_are_told_by_their_ends():
    said = described.figure(plots.rank_histogram(np.array([0, 1, 1, 90]), 100))
    assert "BIGRec from 0 to 0.5" in said and "random order from 0.01 to" in said
    points = pd.DataFrame({"dataset": "a", "origin": ["own", "other"], "value": [0.2, 0.1],
                           "low": 0.0, "high": 0.3})  # fmt: skip
    said = described.figure(figures.origins(points))
    assert "highest 0.2 (own), lowest 0.1 (other)" in said


def test_many_lines_are_counted():
    figure, axis = plt.subplots()
    for n in range(11):
        axis.plot([0, n], label=f"line {n}")
    assert described.figure(figure).count("line ") == 8
    assert described.figure(figure).endswith("; and 3 more.")


def test_every_colour_stands_out_from_white():
    """By WCAG's formula, computed anew: marks 3 : 1."""
    from matplotlib.colors import to_rgb

    def luminance(colour):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return sum(
            share * part for share, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
        )

    colours = [*methods.PALETTE, *plots.deepening(5)]
    colours += [methods.colour_of(method.name) for method in methods.METHODS]
    for colour in colours:
        assert 1.05 / (luminance(to_rgb(colour)) + 0.05) >= 3 - 1e-3, colour


def test_a_notebook_keeps_what_a_figure_shows(tmp_path):
    import nbformat
    import papermill
    from nbformat.v4 import new_code_cell, new_notebook

    code = ["import pandas as pd\nfrom bigrec_lib.findings import plots\nplots.style()",
            "figure = plots.histogram([1, 1, 2], 'tokens', 'samples')"]  # fmt: skip
    nbformat.write(new_notebook(cells=[new_code_cell(c) for c in code]), tmp_path / "in.ipynb")
    done = papermill.execute_notebook(
        str(tmp_path / "in.ipynb"), str(tmp_path / "out.ipynb"), kernel_name="python3",
        progress_bar=False,
    )  # fmt: skip
    (shown,) = (o for o in done.cells[-1].outputs if "image/png" in o.get("data", {}))
    assert shown.metadata["image/png"]["alt"].startswith("samples over tokens: bars from")
