"""Figures can be seen: every mark against a white page, every text against what is behind it."""

import pytest
from matplotlib.colors import to_hex

from bigrec_lib.findings import methods, plots


@pytest.mark.parametrize("method", methods.METHODS, ids=lambda method: method.name)
def test_marks_can_be_told_from_the_page(method):
    assert methods.contrast(method.colour) >= 3


def test_contrasts_are_those_of_the_standard():
    """Values as WCAG checkers give them."""
    for colour, contrast in {"#777777": 4.48, "#0173b2": 5.18, "#ff0000": 4.0}.items():
        assert methods.contrast(colour) == pytest.approx(contrast, abs=0.02)
    assert to_hex(methods.legible("#0173b2")) == "#0173b2"
    assert 3 <= methods.contrast(methods.legible("#ece133")) < 3.2


def test_lines_in_a_ramp_can_be_told_from_the_page():
    assert all(methods.contrast(colour) >= 3 for colour in plots.ramp(5))


def test_black_text_can_be_read_on_every_colour_of_a_matrix():
    for share in (0.0, 0.5, 1.0):
        assert 21 / methods.contrast(plots.PALE(share)[:3]) >= 4.5
