"""What the LLM reads and learns to write, as tokens and in batches."""

import json
import os
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from toy_samples import toy_samples

from bigrec_lib.files import StudyError
from bigrec_lib.method import prompts, samples
from bigrec_lib.method.llm import load_llm
from bigrec_lib.method.samples import Sample


@pytest.fixture
def llm(tiny_llm):
    return load_llm(str(tiny_llm), dtype="float32")


def test_the_answer_is_what_is_learnt_with_the_end_of_sequence(llm):
    sample = toy_samples(1)[0]
    encoded = samples.encode(llm.tokenizer, sample)
    assert encoded.ids[-1] == llm.tokenizer.eos_token_id
    assert llm.tokenizer.decode(encoded.ids[-encoded.learnt : -1]) == sample.answer
    assert llm.tokenizer.decode(encoded.ids[: -encoded.learnt]) == sample.prompt
    assert samples.encode(llm.tokenizer, sample, learn_prompt=True).learnt == len(encoded.ids) - 1


def test_no_token_stretches_over_prompt_and_answer(llm):
    word = max((token for token in llm.tokenizer.get_vocab() if token.isalpha()), key=len)
    assert len(llm.tokenizer(word)["input_ids"]) == 1 and len(word) > 3
    encoded = samples.encode(llm.tokenizer, Sample(word[:2], word[2:]))
    prompt, answer = (llm.tokenizer(part)["input_ids"] for part in (word[:2], word[2:]))
    assert encoded.ids.tolist() == [*prompt, *answer, llm.tokenizer.eos_token_id]
    assert encoded.learnt == len(answer) + 1


def test_shared_tokens_end_where_samples_part_or_where_learning_begins(llm):
    encoded = [samples.encode(llm.tokenizer, each) for each in toy_samples(9)]
    shared = samples.shared_tokens(encoded)
    text = os.path.commonprefix([each.prompt for each in toy_samples(9)])
    assert llm.tokenizer.decode(encoded[0].ids[:shared]) == text
    only = encoded[0]
    assert samples.shared_tokens([only, only]) == len(only.ids) - only.learnt - 1
    assert samples.shared_tokens([replace(only, learnt=len(only.ids) - 1)]) == 0


def test_batches_hold_every_sample_once_grouped_by_length():
    lengths = np.random.default_rng(0).integers(20, 200, 103)
    for seed in (None, [0, 0], [0, 1]):
        found = samples.batches(lengths, 4, seed)
        assert sorted(np.concatenate(found)) == list(range(103))
        shapes = [np.ptp(-(-lengths[batch] // samples.BUCKET)) for batch in found]
        assert np.mean(shapes) < 1
    first, again, other = (samples.batches(lengths, 4, [0, seed]) for seed in (0, 0, 1))
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


def test_instructions_are_read_and_the_long_ones_left_out(llm, tmp_path):
    rows = [
        {"instruction": "Name a river.", "input": "", "output": "Moon River"},
        {"instruction": "Shorten.", "input": "The Last King of all", "output": "Last King"},
        {"instruction": "Repeat.", "input": "Red " * 500, "output": "Red"},
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    found = samples.instructions(tmp_path / "alpaca.json", llm.tokenizer, 300)
    assert [each.answer for each in found] == ["Moon River", "Last King"]
    assert found[1].prompt == prompts.alpaca("Shorten.", "The Last King of all")
    assert "### Input" not in found[0].prompt
    (tmp_path / "bad.json").write_text('[{"instruction": "Name a river."}]')
    with pytest.raises(StudyError, match=r"bad.json is not .*`output`.*KeyError"):
        samples.instructions(tmp_path / "bad.json", llm.tokenizer, 300)
    with pytest.raises(StudyError, match="raise max_tokens"):
        samples.instructions(tmp_path / "alpaca.json", llm.tokenizer, 3)


def test_samples_of_several_domains_come_from_their_own_titles(llm, tmp_path):
    import pyarrow as pa

    from bigrec_lib.files import write_json, write_parquet

    for domain, titles in (("movies", ["Red River", "Blue Moon"]), ("games", ["Iron City", "Day"])):
        folder = tmp_path / domain
        items = pd.DataFrame({"title": titles, "title_group": [0, 1], "train_count": 1})
        write_parquet(items, folder / "items.parquet")
        write_json(asdict(prompts.DOMAINS[domain]), folder / "meta.json")
        columns = {"history": [[0], [1], [0]], "target": [1, 0, 0]}
        write_parquet(pa.table(columns), folder / "examples" / "train.parquet")
        drawn = pa.table({**columns, "draw": [2, 0, 1]})
        write_parquet(drawn, folder / "examples" / "valid.parquet")
    folders = [tmp_path / "movies", tmp_path / "games"]
    found = samples.training(folders, llm.tokenizer, 300, n=2, seed=0)
    answers = [each.answer for each in found]
    assert set(answers[:2]) <= {'"Red River"', '"Blue Moon"'} and len(answers) == 4
    assert set(answers[2:]) <= {'"Iron City"', '"Day"'}
    assert "video games the user has played" in found[2].prompt and "watched" in found[0].prompt
    held_out = samples.validation(folders, llm.tokenizer, 300, n=2)
    assert [each.answer for each in held_out] == ['"Red River"'] * 2 + ['"Iron City"'] * 2


def test_shuffled_samples_have_the_same_answers_but_none_of_its_own_user(llm, tmp_path):
    import pyarrow as pa

    from bigrec_lib.files import write_json, write_parquet

    titles = [f"Star {i}" for i in range(9)]
    items = pd.DataFrame({"title": titles, "title_group": range(9), "train_count": 1})
    write_parquet(items, tmp_path / "items.parquet")
    write_json(asdict(prompts.DOMAINS["movies"]), tmp_path / "meta.json")
    users = [0, 0, 0, 1, 1, 2, 2, 2, 3]
    columns = {"user": users, "history": [[i] for i in range(9)], "target": [*range(9)]}
    write_parquet(pa.table(columns), tmp_path / "examples" / "train.parquet")
    plain, shuffled = (
        samples.training([tmp_path], llm.tokenizer, 300, 9, 0, told) for told in (False, True)
    )
    assert [each.prompt for each in shuffled] == [each.prompt for each in plain]
    assert sorted(s.answer for s in shuffled) == sorted(s.answer for s in plain)
    user_of = {f'"{title}"': user for title, user in zip(titles, users, strict=True)}
    for own, moved in zip(plain, shuffled, strict=True):
        assert user_of[own.answer] != user_of[moved.answer]
