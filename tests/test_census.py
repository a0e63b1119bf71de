"""A data set in numbers, counted by hand."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from bigrec_lib.method import census, sequences
from bigrec_lib.method.corpus import Corpus

TITLES = ["Red River (1948)", "Red Moon", "red-moon", "Élite", "River"]


def examples(rows):
    return pa.table(
        {
            "history": [history for history, _ in rows],
            "target": np.array([target for _, target in rows]),
        }
    )


def test_shared_words_by_hand():
    # red of {red, moon}; river of {river}; nothing of {élite}
    rows = [([0], 1), ([0, 3], 4), ([0, 1], 3)]
    histories, targets = zip(*rows, strict=True)
    assert census.continuity(histories, targets, TITLES).tolist() == [0.5, 1, 0]


def test_repeats_count_an_example_once():
    rows = [([1, 2, 1], 1), ([0], 1), ([3, 4], 4), ([3], 0)]
    alone, namesakes = np.arange(5), np.array([0, 1, 2, 0, 4])
    assert census.repeats(examples(rows), alone) == 2 / 4
    assert census.repeats(examples(rows), namesakes) == 3 / 4


@pytest.mark.parametrize(("sizes", "wanted"), [([5, 5, 5], 3), ([9, 0, 0], 1), ([2, 1, 1], 16 / 6)])
def test_equal_groups_count_whole_and_one_large_group_as_one(sizes, wanted):
    assert census.effective(np.array(sizes)) == pytest.approx(wanted)


def test_the_numbers_of_a_small_corpus():
    day = 86_400
    rows = [(user, (user + at) % 5, (at // 2 + user) * day) for user in range(6) for at in range(8)]
    frame = pd.DataFrame(rows, columns=["user", "item", "time"])
    frame = frame.astype({"user": np.int32, "item": np.int32, "time": np.int64})
    corpus = Corpus(
        "toy", "movies", pd.DataFrame({"title": TITLES, "title_group": range(5)}), frame, {}
    )
    parts = sequences.split(sequences.examples(corpus, history=3))
    drawn = {name: sequences.drawn(part, 3, 1, 42) for name, part in parts.items()}
    counts = np.array([1, 1, 1, 1, 0])
    found = census.census(corpus, parts, drawn, counts).set_index("what").value
    assert found["users"] == 6 and found["items"] == 5 and found["interactions"] == 48
    assert found["samples (sequences)"] == 30 and found["distinct titles"] == 5
    assert found["titles that are another one but for spelling"] == 2
    assert found["titles with letters beyond ASCII"] == pytest.approx(0.2)
    assert found["days from first to last interaction"] == 8
    test = drawn["test"].to_pandas()
    assert found["users of the test examples"] == test.user.nunique() == len(test)
    assert found["targets unseen in training"] == pytest.approx((test.target == 4).mean())
    assert found["targets at the time of the last history item"] == test.tied.mean()
    assert found["first day of test"] == str(
        pd.to_datetime(parts["test"]["time"][0].as_py(), unit="s").date()
    )
