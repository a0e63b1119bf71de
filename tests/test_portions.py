"""Files of generations survive kill -9, shards and damage, and are not made twice."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toy_llms import TEXTS, TITLES, adapted, load, search_of

from bigrec_lib.files import StudyError
from bigrec_lib.method import generation, portions
from bigrec_lib.method.beams import GenerationError, Trie, answer_tokens

pytestmark = pytest.mark.usefixtures("one_thread")

EXAMPLES = [1000 + 7 * i % 64 for i in range(64)]  # not in order
PROMPTS = dict(zip(EXAMPLES, TEXTS, strict=True))
FEW = search_of(8, 4, batch_size=2)
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import torch
torch.set_num_threads(1)
import test_portions as t
from bigrec_lib.method import generation, portions
generation.PORTION = 2
llm = t.load({llm!r}, {eos}, torch.bfloat16)
portions.generate_file(llm, t.PROMPTS, Path({path!r}), t.FEW, shard={shard!r})
"""


@pytest.fixture
def coarse(tiny_llm, common_token, monkeypatch):
    """In bfloat16, where another composition of batches rounds differently; 16 portions of 4."""
    monkeypatch.setattr(generation, "PORTION", 2)
    return load(tiny_llm, common_token, torch.bfloat16)


@pytest.fixture
def uninterrupted(coarse, tmp_path_factory):
    """The bytes of the file that one run without any trouble writes."""
    path = tmp_path_factory.mktemp("whole") / "test.parquet"
    portions.generate_file(coarse, PROMPTS, path, FEW)
    assert not path.with_suffix(".parts").exists()
    return path.read_bytes()


def child(path, tiny_llm, eos, shard=(1, 1)):
    """A process of its own that generates into `path`."""
    code = CHILD.format(
        tests=str(Path(__file__).parent), llm=str(tiny_llm), eos=eos, path=str(path), shard=shard
    )
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)


def test_the_file_holds_what_generate_gives(coarse, uninterrupted, tmp_path):
    path = tmp_path / "test.parquet"
    path.write_bytes(uninterrupted)
    frame = pd.read_parquet(path)
    assert frame.dtypes.astype(str).to_dict() | {"text": ""} == {
        "example": "int64",
        "beam": "int8",
        "text": "",
        "score": "float32",
    }
    expected = generation.generate(coarse, TEXTS, FEW)
    rows = [
        (example, rank, beam.text, np.float32(beam.score))
        for example, beams in sorted(zip(EXAMPLES, expected, strict=True), key=lambda r: r[0])
        for rank, beam in enumerate(beams)
    ]
    assert list(frame.itertuples(index=False, name=None)) == rows


def test_a_killed_run_goes_on_and_the_file_is_the_same_to_the_byte(
    coarse, tiny_llm, common_token, uninterrupted, tmp_path
):
    path = tmp_path / "test.parquet"
    part = tmp_path / "test.parts" / "1-of-1.jsonl"
    process = child(path, tiny_llm, common_token)
    while process.poll() is None:
        if part.exists() and part.read_bytes().count(b"\n") >= 5:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    assert process.wait() == -signal.SIGKILL
    assert not path.exists()
    done = part.read_bytes()
    assert 5 <= done.count(b"\n") < 16
    part.write_bytes(done[:-1] + b'\n1234abcd [15, [["torn')
    with pytest.warns(UserWarning, match=r"1-of-1.jsonl: dropped 1 damaged of \d+ portions"):
        portions.generate_file(coarse, PROMPTS, path, FEW)
    assert path.read_bytes() == uninterrupted
    assert not part.parent.exists()


def test_shards_in_processes_of_their_own_give_the_same_file(
    coarse, tiny_llm, common_token, uninterrupted, tmp_path, monkeypatch
):
    path = tmp_path / "test.parquet"
    processes = [child(path, tiny_llm, common_token, (i, 2)) for i in (1, 2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert not path.exists()
    monkeypatch.setattr(generation, "beam_search", lambda *_: 1 / 0)  # nothing is left to do
    portions.generate_file(coarse, PROMPTS, path, FEW)
    assert path.read_bytes() == uninterrupted


def test_damage_in_the_middle_costs_one_portion(coarse, uninterrupted, tmp_path, monkeypatch):
    path = tmp_path / "test.parquet"
    portions.generate_file(coarse, PROMPTS, path, FEW, shard=(1, 2))
    part = tmp_path / "test.parts" / "1-of-2.jsonl"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    calls = []
    search_once = generation.beam_search
    monkeypatch.setattr(
        generation, "beam_search", lambda *args: calls.append(1) or search_once(*args)
    )
    with pytest.warns(UserWarning, match="dropped 1 damaged of 8 portions"):
        portions.generate_file(coarse, PROMPTS, path, FEW)
    assert len(calls) == 16 - 7
    assert path.read_bytes() == uninterrupted


def test_another_shards_file_is_never_rewritten(tiny, tmp_path):
    folder = tmp_path / "test.parts"
    folder.mkdir()
    torn = folder / "2-of-2.jsonl"
    torn.write_text("half a li")
    path = tmp_path / "test.parquet"
    portions.generate_file(tiny, PROMPTS, path, search_of(4, 2), shard=(1, 2))
    assert torn.read_text() == "half a li"


def test_work_with_other_parameters_is_refused_by_name(tiny, tmp_path, monkeypatch):
    path = tmp_path / "test.parquet"
    portions.generate_file(tiny, PROMPTS, path, search_of(8, 4), shard=(1, 2))
    with pytest.raises(StudyError, match=r"\(max_new_tokens 8, now 6; beams 4, now 2\)"):
        portions.generate_file(tiny, PROMPTS, path, search_of(6, 2))
    with monkeypatch.context() as patch, pytest.raises(StudyError, match="portion 4, now 3"):
        patch.setattr(generation, "PORTION", 3)
        portions.generate_file(tiny, PROMPTS, path, search_of(8, 4))
    for examples, texts, llm, trie, name in (
        (EXAMPLES[::-1], TEXTS, tiny, None, "examples"),
        (EXAMPLES, TEXTS[::-1], tiny, None, "prompts"),
        (EXAMPLES, TEXTS, tiny, Trie([[5, 1]]), "titles"),
        (EXAMPLES, TEXTS, None, None, "weights"),
    ):
        llm = llm or adapted(tiny)
        with pytest.raises(StudyError, match=rf"other {name} \({name} '"):
            asked = dict(zip(examples, texts, strict=True))
            portions.generate_file(llm, asked, path, search_of(8, 4), trie)


def test_titles_of_any_script_survive_the_file(tiny, tmp_path, monkeypatch):
    text = '"Amélie\u2028 \x85 東京\ufffd\n'
    monkeypatch.setattr(generation, "decoded", lambda *_: generation.Beam(text, -0.1))
    portions.generate_file(tiny, {3: TEXTS[0]}, tmp_path / "one.parquet", search_of(4, 2))
    assert pd.read_parquet(tmp_path / "one.parquet").text.tolist() == [text] * 2


def test_no_examples_give_an_empty_file(tiny, tmp_path):
    portions.generate_file(tiny, {}, tmp_path / "none.parquet", search_of(4))
    frame = pd.read_parquet(tmp_path / "none.parquet")
    assert frame.empty and list(frame) == ["example", "beam", "text", "score"]


def test_what_is_written_is_left_as_it_is(tiny, tmp_path, monkeypatch):
    path, search = tmp_path / "test.parquet", search_of(4, 2)
    portions.generate_file(tiny, PROMPTS, path, search)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["test.parquet", "test.work.json"]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.iterdir()}
    for name in ("run", "Work"):
        monkeypatch.delattr(generation, name)  # nothing is searched, nothing even cut
    for shard in ((1, 1), (1, 2), (2, 2)):
        portions.generate_file(tiny, PROMPTS, path, search, shard=shard)
    assert before == {
        file: (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.iterdir()
    }


def test_a_file_of_other_work_is_refused_by_name_and_left(tiny, tmp_path):
    path = tmp_path / "test.parquet"
    portions.generate_file(tiny, PROMPTS, path, search_of(4, 2))
    before = path.read_bytes()
    for shard in ((1, 1), (1, 2)):
        with pytest.raises(StudyError, match=r"other beams \(beams 2, now 3\)"):
            portions.generate_file(tiny, PROMPTS, path, search_of(4, 3), shard=shard)
    with pytest.raises(StudyError, match=r"other weights \(weights '"):
        portions.generate_file(adapted(tiny), PROMPTS, path, search_of(4, 2))
    assert path.read_bytes() == before and not path.with_suffix(".parts").exists()


def test_a_file_of_unknown_origin_is_written_anew(tiny, tmp_path):
    path = tmp_path / "test.parquet"
    path.write_text("who knows")
    portions.generate_file(tiny, PROMPTS, path, search_of(4, 2))
    assert len(pd.read_parquet(path)) == 2 * len(PROMPTS)
    path.unlink()  # a record alone says nothing
    portions.generate_file(tiny, PROMPTS, path, search_of(4, 3))
    assert len(pd.read_parquet(path)) == 3 * len(PROMPTS)
    assert json.loads(path.with_suffix(".work.json").read_text())["beams"] == 3


def test_a_run_that_stops_while_it_writes_the_file_loses_nothing(tiny, tmp_path, monkeypatch):
    path, search = tmp_path / "test.parquet", search_of(4, 2)
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(portions, "write_parquet", lambda *_: 1 / 0)
        portions.generate_file(tiny, PROMPTS, path, search)
    assert not path.exists()
    monkeypatch.setattr(generation, "beam_search", lambda *_: 1 / 0)  # nothing is left to do
    portions.generate_file(tiny, PROMPTS, path, search)
    assert len(pd.read_parquet(path)) == 2 * len(PROMPTS)


def test_bad_input_is_refused_before_any_work(tiny, tmp_path):
    path = tmp_path / "test.parquet"
    with pytest.raises(GenerationError, match="shard 3/2"):
        portions.generate_file(tiny, {1: TEXTS[0]}, path, search_of(4), shard=(3, 2))
    with pytest.raises(GenerationError, match="prompt 0 has 0 tokens"):
        portions.generate_file(tiny, {1: ""}, path, search_of(4))
    tiny.tokenizer.eos_token = None
    with pytest.raises(GenerationError, match="no end-of-sequence token"):
        portions.generate_file(tiny, {1: TEXTS[0]}, path, search_of(4))
    assert list(tmp_path.iterdir()) == []


def test_a_catalogue_smaller_than_the_beams_gives_fewer_rows(tiny, tmp_path):
    trie = Trie(answer_tokens(tiny.tokenizer, TITLES[:3]))
    path = tmp_path / "few.parquet"
    portions.generate_file(tiny, dict(enumerate(TEXTS[:5])), path, search_of(trie.depth, 4), trie)
    assert len(pd.read_parquet(path)) == 15
