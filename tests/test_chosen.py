"""02 takes the samples that 13a has chosen, and measures titles after own and strange histories."""

import json

import numpy as np
import pandas as pd
import pytest
from toy import toy_titles

from bigrec_lib.files import StudyError, write_parquet
from bigrec_lib.method import answers, prompts, samples, sequences
from bigrec_lib.method.llm import load_llm
from bigrec_lib.study import parameters, steps

TITLES = toy_titles(12)


@pytest.fixture
def p(tmp_path):
    """Parameters of 02 in a project with ten examples a split, of which 13a has chosen three."""
    given = {"root": str(tmp_path), "study": "toy", "dataset": "toy", "n_train": 3}
    given |= {"selection": "newest.0", "n_scored": 8, "batch_size": 4, "n_valid": 2}
    found = parameters.TuneLLM.check(given)
    items = {"item": range(12), "title": TITLES, "title_group": range(12), "train_count": 1}
    write_parquet(pd.DataFrame(items), found.data / "items.parquet")
    words = {"one": "film", "many": "films", "consumed": "watched"}
    (found.data / "meta.json").write_text(json.dumps(words))
    for start, split in enumerate(("train", "valid", "test")):
        rows = {"example": np.arange(10) + 10 * start, "user": np.arange(10) // 2}
        rows |= {"history": [[i, i + 1] for i in range(10)], "target": (np.arange(10) + 5) % 12}
        rows |= {"time": np.arange(10), "tied": False, "draw": np.arange(10)[::-1]}
        write_parquet(pd.DataFrame(rows), found.data / "examples" / f"{split}.parquet")
    chosen = {"arm": "newest", "budget": 3, "draw": 0, "place": [0, 1, 2], "example": [9, 2, 7]}
    write_parquet(pd.DataFrame(chosen), found.selections / "selections.parquet")
    return found


@pytest.fixture
def llm(tiny_llm):
    return load_llm(str(tiny_llm), dtype="float32")


def test_chosen_samples_are_learnt_in_the_order_of_time(p, llm):
    train, valid = steps.tuning_samples(p, llm.tokenizer)
    assert [each.answer for each in train] == [prompts.answer(TITLES[i]) for i in (7, 0, 2)]
    assert all(TITLES[i] in each.prompt for each, i in zip(train, (2, 7, 9), strict=True))
    assert len(valid) == 2


@pytest.mark.parametrize("change", [{"n_train": 4}, {"selection": "newest.1"},
                                    {"selection": "herding.0"}])  # fmt: skip
def test_what_was_not_chosen_is_named(p, llm, change):
    with pytest.raises(StudyError, match="13a_select_samples has not chosen . samples as"):
        steps.tuning_samples(p.model_copy(update=change), llm.tokenizer)


def test_chosen_samples_are_of_one_data_set_and_have_their_own_answers(p, llm):
    for change in ({"also": ["games"]}, {"shuffled": True}):
        with pytest.raises(StudyError, match="chosen samples are those of one data set"):
            steps.tuning_samples(p.model_copy(update=change), llm.tokenizer)


def test_titles_are_scored_after_own_and_strange_histories(p, llm):
    found = steps.likelihoods(p, llm).set_index(["what", "example"]).value
    assert sorted(found[steps.OWN].index) == list(range(22, 30))  # the first eight of the drawing
    test = pd.read_parquet(p.data / "examples" / "test.parquet").set_index("example")
    numbers = found[steps.OWN].index
    users = test.user[numbers].to_numpy()
    other = numbers[sequences.strangers(users, steps.STRANGERS)]
    words = prompts.Domain("film", "films", "watched")
    assert (test.user[other].to_numpy() != users).all()
    for what, histories in {steps.OWN: numbers, steps.OTHER: other}.items():
        told = [
            samples.Sample(
                prompts.prompt([TITLES[i] for i in test.history[history]], words),
                prompts.answer(TITLES[test.target[number]]),
            )
            for number, history in zip(numbers, histories, strict=True)
        ]
        expected, tokens = answers.log_likelihoods(llm, told, 1)
        assert found[what].to_numpy() == pytest.approx(expected, rel=1e-5)
        assert found[steps.TOKENS].tolist() == tokens.tolist()
