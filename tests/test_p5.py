"""P5-style: identifiers, and what the beams say of every candidate."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toy import tuning_settings
from toy_windows import windows_of

from bigrec_lib.method import grounding, p5, prepared, prompts, readers, sequences, windows
from bigrec_lib.method.llm import load_llm
from bigrec_lib.method.windows import BaselineError


def test_p5_ranks_every_example_and_does_nothing_twice(toy_data, tiny_llm, tmp_path):
    corpus = readers.load("ml-100k", str(toy_data))
    parts = sequences.split(sequences.examples(corpus, 5))
    examples = {split: sequences.sample(table, 8, 0) for split, table in parts.items()}
    titles, of_item = prepared.candidates(corpus.items)
    words = prompts.domain("movies")
    data = prepared.Prepared(
        Path(), corpus.items, corpus.items.title.tolist(), words, titles, of_item
    )
    samples = windows.windows(examples["train"], of_item, 5)
    settings = tuning_settings(epochs=1, batch_size=4)

    def run():
        base = load_llm(str(tiny_llm), "none", "float32", "cpu")
        return p5.p5(base, data, examples, samples, settings, 512, tmp_path)

    first = run()
    assert set(first.keys) == {"valid", "test"} and first.seconds >= 0
    for keys in first.keys.values():
        assert keys.shape == (8, len(titles)) and keys.dtype == np.float32
        assert (np.isfinite(keys).sum(1) == p5.BEAMS).all()
    assert first.example.answer.strip().strip('"') in p5.identifiers(samples)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = run()
    assert again.seconds == first.seconds
    assert all((again.keys[split] == keys).all() for split, keys in first.keys.items())
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_identifiers_follow_training_order_user_by_user():
    samples = windows_of([[7, 3], [5, 6], [3, 1]], users=[4, 2, 4])
    names = p5.identifiers(samples)
    assert [names.index(str(1000 + n)) for n in range(9)] == [5, 6, 7, 3, 1, 0, 2, 4, 8]


def test_identifiers_of_a_large_catalogue_have_as_many_digits():
    names = p5.identifiers(windows_of([[0, 1]], n_items=1000))
    assert len(set(names)) == 1000 and {len(name) for name in names} == {5}


def test_what_no_beam_names_ties_for_the_last_place():
    names = [str(1000 + i) for i in range(6)]
    generations = pd.DataFrame(
        {
            "example": [10, 10, 11, 11],
            "beam": [0, 1, 0, 1],
            "text": ['"1004"', '"1001"', '"1000"', '"1005"'],
            "score": [-0.5, -1.5, -0.1, -0.2],
        }
    )
    keys = p5.beam_keys(generations, [11, 10], names)
    found = grounding.counted(keys, np.array([5, 3]))
    assert found.values.tolist() == [[1, 0], [2, 3]]
    with pytest.raises(BaselineError, match="no identifier"):
        p5.beam_keys(generations.assign(text="1009"), [11, 10], names)
