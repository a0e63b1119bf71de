"""docs/protocol.md says what the code does."""

import re
from pathlib import Path

from bigrec_lib.findings import rules
from bigrec_lib.method.baselines import STATISTICS
from bigrec_lib.study.parameters import PrepareData, TrainBaselines, TuneLLM

TEXT = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text(encoding="utf-8")
FLAT = re.sub(r"\s+", " ", TEXT)


def test_the_rule_stands_there_word_for_word():
    assert rules.RULE in TEXT


def test_numbers_are_those_of_the_code():
    assert f"at most {PrepareData().per_user} of one user (`per_user` of 01)" in FLAT
    assert f"BIGRec takes {TuneLLM().n_valid} for the loss by which it stops" in FLAT
    p = TrainBaselines()
    points = len(p.learning_rates) * len(p.weight_decays) * len(p.dropouts) * len(p.widths)
    assert points == 6 and "the same six points of a grid" in FLAT and p.patience >= 6
    assert {len(values) for _, values in STATISTICS.values()} == {6}
