"""What is learnt, in which batches, and that a killed tuning ends like one that was not."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import toy_titles
from safetensors.torch import load_file

from bigrec_lib import prompts, tuning
from bigrec_lib.files import StudyError
from bigrec_lib.llm import load_llm
from bigrec_lib.tuning import Sample, Tuning, tune

WORDS = prompts.DOMAINS["movies"]


def toy_samples(n, start=0):
    titles = toy_titles(50)
    return [
        Sample(prompts.prompt(titles[i % 7 : i % 7 + 2 + i % 3], WORDS), prompts.answer(titles[i]))
        for i in range(start, start + n)
    ]


@pytest.fixture
def llm(tiny_llm):
    return load_llm(str(tiny_llm), dtype="float32")


def test_the_answer_is_what_is_learnt_with_the_end_of_sequence(llm):
    sample = toy_samples(1)[0]
    encoded = tuning.encode(llm.tokenizer, sample)
    assert encoded.ids[-1] == llm.tokenizer.eos_token_id
    assert llm.tokenizer.decode(encoded.ids[-encoded.answer : -1]) == sample.answer
    assert llm.tokenizer.decode(encoded.ids[: -encoded.answer]) == sample.prompt


def test_batches_hold_every_sample_once_and_their_shapes_are_few(llm):
    encoded = [tuning.encode(llm.tokenizer, sample) for sample in toy_samples(23)]
    for seed in (None, 0, 1):
        found = tuning.batches(encoded, 4, seed)
        assert sorted(id(each) for batch in found for each in batch) == sorted(map(id, encoded))
        inputs, _ = tuning.collate(found[0], pad=0, device="cpu")
        assert inputs["input_ids"].shape[1] % tuning.BUCKET == 0
    first, second = ([id(b[0]) for b in tuning.batches(encoded, 4, seed)] for seed in (0, 1))
    assert first != second


def test_the_loss_is_that_of_each_answer_alone_whatever_the_padding(llm):
    model = tuning.add_adapter(llm.model, Tuning()).eval()
    encoded = [tuning.encode(llm.tokenizer, sample) for sample in toy_samples(5)]
    expected = 0.0
    for each in encoded:
        ids = torch.from_numpy(each.ids)[None]
        logits = model(input_ids=ids).logits[0, -each.answer - 1 : -1]
        expected += torch.nn.functional.cross_entropy(
            logits, ids[0, -each.answer :], reduction="sum"
        ).item()
    for pad in (0, llm.tokenizer.eos_token_id):
        got = tuning.answer_loss(model, *tuning.collate(encoded, pad, "cpu")).item()
        assert got == pytest.approx(expected, rel=1e-5)


def test_tuning_learns_and_writes_an_adapter_that_loads(llm, tiny_llm, tmp_path):
    settings = Tuning(epochs=6, learning_rate=0.02, batch_size=8)
    log = tune(llm, toy_samples(16), toy_samples(8), settings, tmp_path)
    assert len(log) == 12 and log.valid_loss.notna().sum() == 6
    assert log.valid_loss.dropna().iloc[-1] < 0.8 * log.train_loss.iloc[0]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "log.csv"), log, check_exact=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "log.csv",
    ]
    loaded = load_llm(str(tiny_llm), dtype="float32", adapter=tmp_path)
    encoded = [tuning.encode(llm.tokenizer, sample) for sample in toy_samples(8)]
    again = tuning.evaluate(loaded.model, encoded, 8, pad=0)
    assert again == pytest.approx(log.valid_loss.min(), rel=1e-5)


TUNE = """
import sys, time
sys.path.insert(0, sys.argv[3])
import torch
torch.set_num_threads(1)
from pathlib import Path
from bigrec_lib import tuning
from bigrec_lib.llm import load_llm
from test_tuning import toy_samples
save = tuning.Checkpoint.save
tuning.Checkpoint.save = lambda *a: (save(*a), time.sleep(float(sys.argv[4])))
tuning.tune(load_llm(sys.argv[1], dtype="float32"), toy_samples(16), toy_samples(8),
            tuning.Tuning(epochs=4, batch_size=4), Path(sys.argv[2]))
"""


def test_a_killed_tuning_goes_on_and_ends_bit_identical(tiny_llm, tmp_path):
    def command(folder, pause):
        here = os.path.dirname(__file__)
        return [sys.executable, "-c", TUNE, str(tiny_llm), str(folder), here, str(pause)]

    subprocess.run(command(tmp_path / "whole", 0), check=True, capture_output=True)
    killed = subprocess.Popen(command(tmp_path / "killed", 30), stderr=subprocess.DEVNULL)
    state = tmp_path / "killed" / "checkpoint" / "log.json"
    deadline = time.time() + 120
    while not state.exists() and time.time() < deadline:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(json.loads(state.read_text())["log"]) == 4
    subprocess.run(command(tmp_path / "killed", 0), check=True, capture_output=True)
    whole, resumed = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed")
    )
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("whole", "killed")]
    columns = ["step", "train_loss", "valid_loss", "learning_rate"]
    pd.testing.assert_frame_equal(logs[0][columns], logs[1][columns], check_exact=True)


def test_a_checkpoint_of_other_settings_is_refused_by_name(llm, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "remove", lambda path: None)  # keep the checkpoint
    tune(llm, toy_samples(4), toy_samples(2), Tuning(batch_size=4), tmp_path)
    fresh = load_llm(llm.name, dtype="float32")
    with pytest.raises(StudyError, match="other learning_rate, samples"):
        tune(fresh, toy_samples(5), toy_samples(2), Tuning(batch_size=4, learning_rate=1), tmp_path)


def test_bad_input_is_refused(llm, tmp_path):
    with pytest.raises(StudyError, match="at least one"):
        tune(llm, [], toy_samples(1), Tuning(), tmp_path)
    with pytest.raises(StudyError, match="nothing_proj match nothing.*q_proj"):
        tune(
            llm, toy_samples(1), toy_samples(1), Tuning(target_modules=("nothing_proj",)), tmp_path
        )


def test_a_loss_that_is_not_finite_stops_at_its_step(llm, tmp_path):
    with torch.no_grad():
        llm.model.model.norm.weight[0] = np.nan
    with pytest.raises(StudyError, match="the loss is nan at step 1 of 1"):
        tune(llm, toy_samples(4), toy_samples(2), Tuning(), tmp_path)
