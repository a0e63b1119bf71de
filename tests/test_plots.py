"""Figures can be seen: every mark against a white page, every text against what is behind it."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from bigrec_lib.findings import alts, methods, plots


@pytest.mark.parametrize("method", methods.METHODS, ids=lambda method: method.name)
def test_marks_can_be_told_from_the_page(method):
    assert methods.contrast(method.colour) >= 3


def test_contrasts_are_those_of_the_standard():
    """Values as WCAG checkers give them."""
    for colour, contrast in {"#777777": 4.48, "#0173b2": 5.13, "#ff0000": 4.0}.items():
        assert methods.contrast(colour) == pytest.approx(contrast, abs=0.02)
    assert to_hex(methods.legible("#0173b2")) == "#0173b2"
    assert 3 <= methods.contrast(methods.legible("#ece133")) < 3.2


def test_lines_in_a_ramp_can_be_told_from_the_page():
    assert all(methods.contrast(colour) >= 3 for colour in plots.ramp(5))


def test_black_text_can_be_read_on_every_colour_of_a_matrix():
    for share in (0.0, 0.5, 1.0):
        assert 21 / methods.contrast(plots.PALE(share)[:3]) >= 4.5


def test_a_figures_rows_in_words():
    frame = pd.DataFrame(
        {"dataset": ["d", "d", "e"], "method": ["markov", "bigrec", ""], "x": [0.5, np.nan, 2.0],
         "low": [0.25, np.nan, 1.0], "high": [0.75, np.nan, 3.0]}
    )  # fmt: skip
    said = alts.rows("What", frame, ["dataset", "method"], "x")
    assert said == "What: d, Markov chain 0.5000 [0.2500, 0.7500]; e 2.0000 [1.0000, 3.0000]."
    assert alts.rows("What", frame, ["dataset"], "x", None, 1) == "What: d 0.5000; and 1 more."
    assert alts.rows("What", frame[1:2], ["dataset"], "x") == "What: nothing to draw."
