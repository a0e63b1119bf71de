"""A step is that of plain PEFT and AdamW; a killed tuning ends like one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from toy import fresh_adapter, tuning_settings
from toy_samples import reference_loss, toy_samples

from bigrec_lib.files import StudyError
from bigrec_lib.method import adapters, losses, samples, tuning
from bigrec_lib.method.llm import load_llm
from bigrec_lib.method.tuning import tune

HERE = os.path.dirname(__file__)


@pytest.fixture
def llm(tiny_llm):
    return load_llm(str(tiny_llm), dtype="float32")


def test_rates_are_those_of_transformers():
    from transformers import get_scheduler

    names = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
    for ours, theirs in names.items():
        for warmup in (0, 3):
            optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
            oracle = get_scheduler(theirs, optimiser, warmup, 10)
            settings = tuning_settings(learning_rate=0.5, schedule=ours, warmup=warmup)
            for step in range(10):
                assert tuning.learning_rate(step, 10, settings) == pytest.approx(
                    oracle.get_last_lr()[0]
                )
                optimiser.step()
                oracle.step()


def test_a_step_is_that_of_peft_and_adamw(llm, tiny_llm, tmp_path):
    """The same two steps written with nothing but PEFT, PyTorch and one sample at a time."""
    settings = tuning_settings(epochs=2, batch_size=8, dropout=0.0, warmup=0, schedule="constant")
    tune(llm, toy_samples(8), toy_samples(2), settings, tmp_path)
    model = fresh_adapter(load_llm(str(tiny_llm), dtype="float32"), dropout=0.0)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    encoded = [samples.encode(llm.tokenizer, each) for each in toy_samples(8)]
    for _ in range(2):
        optimiser.zero_grad()
        (reference_loss(model, encoded) / sum(each.learnt for each in encoded)).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
    from peft import get_peft_model_state_dict

    got = load_file(tmp_path / "adapter_model.safetensors")
    for name, weight in get_peft_model_state_dict(model).items():
        torch.testing.assert_close(got[name], weight.data, rtol=0, atol=2e-5)


def test_tuning_learns_and_writes_an_adapter_that_loads(llm, tiny_llm, tmp_path):
    settings = tuning_settings(epochs=6, learning_rate=0.02, batch_size=8)
    before = {name: weight.clone() for name, weight in llm.model.named_parameters()}
    log = tune(llm, toy_samples(16), toy_samples(8), settings, tmp_path)
    assert len(log) == 12 and log.valid_loss.notna().sum() == 6
    assert log.valid_loss.dropna().iloc[-1] < 0.8 * log.train_loss.iloc[0]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "log.csv"), log, check_exact=False)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "log.csv",
        "work.json",
    ]
    after = dict(llm.model.named_parameters())
    assert after.keys() == before.keys() and all(torch.equal(before[n], after[n]) for n in before)
    loaded = load_llm(str(tiny_llm), dtype="float32", adapter=tmp_path)
    data = losses.prepare(llm, toy_samples(8), False, True)
    again = losses.evaluate(loaded, loaded.model, data, 8)
    assert again == pytest.approx(log.valid_loss.min(), rel=1e-5)


def test_micro_batches_and_checkpointing_add_up_to_the_same_steps(llm, tmp_path):
    settings = tuning_settings(epochs=3, batch_size=8, dropout=0.0)
    logs = [
        tune(llm, toy_samples(8), toy_samples(4), each, tmp_path / str(i)).train_loss
        for i, each in enumerate(
            [
                settings,
                replace(settings, micro_batch=2),
                replace(settings, gradient_checkpointing=True),
            ]
        )
    ]
    assert not llm.model.is_gradient_checkpointing
    for other in logs[1:]:
        np.testing.assert_allclose(other, logs[0], rtol=1e-4)


def test_every_linear_layer_can_be_adapted_and_counted(llm):
    model = fresh_adapter(llm, target_modules=("all-linear",), rank=2)
    # two layers: q, o (32, 32), k, v (32, 16), gate, up (32, 64), down (64, 32)
    expected = 2 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 64))
    base = sum(weight.numel() for weight in load_llm(llm.name).model.parameters())
    assert adapters.count_parameters(model) == (expected, expected + base)


def test_a_second_stage_begins_where_the_first_ended(llm, tmp_path):
    settings = tuning_settings(epochs=4, learning_rate=0.02)
    first = tune(llm, toy_samples(16), toy_samples(8), settings, tmp_path / "first")
    again = replace(settings, learning_rate=1e-9, epochs=1, dropout=0.0)
    second = tune(
        llm, toy_samples(16), toy_samples(8), again, tmp_path / "second", tmp_path / "first"
    )
    assert second.valid_loss.iloc[-1] == pytest.approx(first.valid_loss.min(), rel=1e-4)
    with pytest.raises(StudyError, match="first has another rank or other target_modules"):
        other = replace(settings, rank=4)
        tune(llm, toy_samples(4), toy_samples(2), other, tmp_path / "x", tmp_path / "first")
    assert not any("lora" in name for name, _ in llm.model.named_modules())


def test_it_stops_early_and_keeps_the_best(llm, tiny_llm, tmp_path, monkeypatch):
    measured = iter([3.0, 1.0, 2.0, 2.5, 0.5])
    kept = []
    monkeypatch.setattr(tuning, "evaluate", lambda *_: next(measured))
    save = adapters.save_adapter
    monkeypatch.setattr(tuning, "save_adapter", lambda *a: (save(*a), kept.append(1)))
    settings = tuning_settings(epochs=5, batch_size=8, patience=2)
    log = tune(llm, toy_samples(8), toy_samples(2), settings, tmp_path)
    assert log.valid_loss.tolist() == [3.0, 1.0, 2.0, 2.5] and len(kept) == 2


# resuming, and several processes

TUNE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import torch
torch.set_num_threads(1)
from bigrec_lib.method import cpu, tuning
from bigrec_lib.method.llm import load_llm
from toy_samples import toy_samples
from toy import tuning_settings
cpu.multiplies_bfloat16 = lambda: True  # as in conftest.py
tuning.SAVE_SECONDS = 0
save = tuning.save_checkpoint
def slow(folder, weights, log):
    save(folder, weights, log)
    if len(log) == int(sys.argv[4]):
        time.sleep(60)
tuning.save_checkpoint = slow
settings = tuning_settings(epochs=4, batch_size=4, dropout=float(sys.argv[5]))
tuning.tune(load_llm(sys.argv[1], dtype=sys.argv[6]), toy_samples(16), toy_samples(8), settings,
            Path(sys.argv[2]))
"""


def script(llm, folder, pause=0, dropout=0.05, dtype="bfloat16"):
    return ["-c", TUNE, str(llm), str(folder), HERE, str(pause), str(dropout), dtype]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_killed_tuning_goes_on_and_ends_bit_identical(tiny_llm, tmp_path, monkeypatch):
    """Killed in a process of its own; this one knows of it only by what it finds on the disk."""
    monkeypatch.setattr(tuning, "SAVE_SECONDS", 0)
    settings = tuning_settings(epochs=4, batch_size=4, dropout=0.05)

    def run(name):
        half = load_llm(str(tiny_llm), dtype="bfloat16")
        tune(half, toy_samples(16), toy_samples(8), settings, tmp_path / name)

    run("whole")
    killed = subprocess.Popen(
        [sys.executable, *script(tiny_llm, tmp_path / "killed", pause=6)], stderr=subprocess.DEVNULL
    )
    state = tmp_path / "killed" / "checkpoint" / "log.json"
    deadline = time.time() + 120
    while time.time() < deadline and (not state.exists() or len(json.loads(state.read_text())) < 6):
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "log.csv").exists()
    assert len(json.loads(state.read_text())) == 6
    run("killed")
    whole, resumed = (
        load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed")
    )
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("whole", "killed")]
    columns = ["step", "train_loss", "valid_loss", "learning_rate"]
    pd.testing.assert_frame_equal(logs[0][columns], logs[1][columns], check_exact=True)


def in_two_processes(code, llm, folder):
    path = folder.with_suffix(".py")
    path.write_text(code)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    arguments = script(llm, folder, dropout=0.0, dtype="float32")[2:]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, *launch, str(path), *arguments],
        check=True,
        capture_output=True,
        env=environment,
        timeout=300,
    )


@pytest.mark.slow
def test_two_processes_do_what_one_does(llm, tiny_llm, tmp_path):
    in_two_processes(TUNE, tiny_llm, tmp_path / "two")
    settings = tuning_settings(epochs=4, batch_size=4, dropout=0.0)
    one = tune(llm, toy_samples(16), toy_samples(8), settings, tmp_path / "one")
    two = pd.read_csv(tmp_path / "two" / "log.csv")
    columns = ["train_loss", "valid_loss"]
    np.testing.assert_allclose(two[columns], one[columns].astype(float), rtol=1e-4)


def kill_before_the_log(arguments):
    """A tuning that ends between its last step and log.csv."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tune(*arguments)


def test_killed_after_its_last_step_it_only_writes_the_log(llm, tmp_path, monkeypatch):
    arguments = (llm, toy_samples(4), toy_samples(2), tuning_settings(batch_size=4), tmp_path)
    kill_before_the_log(arguments)
    assert (tmp_path / "checkpoint").exists() and not (tmp_path / "log.csv").exists()
    before = (tmp_path / "adapter_model.safetensors").read_bytes()
    monkeypatch.setattr(tuning, "loss_sum", None)  # another step would fail
    assert tune(*arguments).step.tolist() == [1]
    assert not (tmp_path / "checkpoint").exists()
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == before


LATE = """
import os, time
from bigrec_lib.method import tuning
tuning.process()  # the processes know each other already, as in a second stage
prepare = tuning.prepare
def late(*arguments):
    time.sleep(int(os.environ["RANK"]))
    return prepare(*arguments)
tuning.prepare = late
"""


def test_the_checkpoint_stays_until_the_last_process_has_read_it(llm, tiny_llm, tmp_path):
    settings = tuning_settings(epochs=4, batch_size=4, dropout=0.0)
    kill_before_the_log((llm, toy_samples(16), toy_samples(8), settings, tmp_path / "two"))
    in_two_processes(LATE + TUNE, tiny_llm, tmp_path / "two")
    assert len(pd.read_csv(tmp_path / "two" / "log.csv")) == 16


# bad input


def test_a_checkpoint_of_other_settings_is_refused_by_name(llm, tmp_path):
    tune(llm, toy_samples(4), toy_samples(2), tuning_settings(batch_size=4), tmp_path)
    other = tuning_settings(batch_size=4, learning_rate=1)
    with pytest.raises(StudyError, match="other learning_rate, train"):
        tune(llm, toy_samples(5), toy_samples(2), other, tmp_path)
    half = load_llm(llm.name, dtype="bfloat16")
    with pytest.raises(StudyError, match="other model"):
        tune(half, toy_samples(4), toy_samples(2), tuning_settings(batch_size=4), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_modules": ("nothing_proj",)}, "nothing_proj match nothing.*q_proj.*all-linear"),
        ({"schedule": "stairs"}, "'stairs': linear, cosine or constant"),
        ({"batch_size": 8, "micro_batch": 3}, "8 is not a multiple of micro_batch 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(llm, tmp_path, change, message):
    with pytest.raises(StudyError, match=message):
        tune(llm, toy_samples(1), toy_samples(1), tuning_settings(**change), tmp_path)


def test_nothing_to_learn_from_and_float16_are_refused(llm, tmp_path):
    for train, valid in (([], toy_samples(1)), (toy_samples(1), [])):
        with pytest.raises(StudyError, match="at least one"):
            tune(llm, train, valid, tuning_settings(), tmp_path)
    with pytest.raises(StudyError, match="float16"):
        half = load_llm(llm.name, dtype="float16")
        tune(half, toy_samples(1), toy_samples(1), tuning_settings(), tmp_path)


def test_a_loss_that_is_not_finite_stops_at_its_step(llm, tmp_path, monkeypatch):
    whole, seen = losses.loss_sum, []

    def fourth_is_nan(model, batch):
        seen.append(batch)
        return whole(model, batch) * (np.nan if len(seen) == 4 else 1)

    for module in (tuning, losses):
        monkeypatch.setattr(module, "loss_sum", fourth_is_nan)
    monkeypatch.setattr(tuning, "SAVE_SECONDS", 0)
    with pytest.raises(
        StudyError, match=r"the loss is nan at step 3, training samples \d, \d: lower"
    ):
        tune(llm, toy_samples(4), toy_samples(2), tuning_settings(batch_size=2, epochs=9), tmp_path)
    state = load_file(tmp_path / "checkpoint" / "state.safetensors")
    assert all(weight.isfinite().all() for weight in state.values())
    assert len(json.loads((tmp_path / "checkpoint" / "log.json").read_text())) == 2


def test_too_little_memory_says_what_to_lower(llm, tmp_path, monkeypatch):
    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr(tuning, "loss_sum", full)
    with pytest.raises(StudyError, match="lower micro_batch or max_tokens"):
        tune(llm, toy_samples(4), toy_samples(2), tuning_settings(), tmp_path)
    assert not hasattr(llm.model.model.layers[0].self_attn.q_proj, "lora_A")


def test_greedy_takes_the_likeliest_token_each_time(llm):
    text = toy_samples(1)[0].prompt
    ids = llm.tokenizer(text, return_tensors="pt")["input_ids"]
    length = ids.shape[1]
    with torch.inference_mode():
        for _ in range(6):
            ids = torch.cat([ids, llm.model(ids).logits[:, -1:].argmax(-1)], dim=1)
    expected = llm.tokenizer.decode(ids[0, length:], skip_special_tokens=True)
    assert tuning.greedy(llm, [text], max_new_tokens=6) == [expected]


def test_finished_work_is_not_done_again_and_other_work_is_refused(llm, tmp_path):
    args = (llm, toy_samples(4), toy_samples(2))
    log = tune(*args, tuning_settings(batch_size=4), tmp_path)
    assert not (tmp_path / "checkpoint").exists()
    path = tmp_path / "adapter_model.safetensors"
    before = path.stat().st_mtime_ns
    again = tune(*args, tuning_settings(batch_size=4), tmp_path)
    assert again.equals(log) and path.stat().st_mtime_ns == before
    with pytest.raises(StudyError, match="holds work with other rank"):
        tune(*args, tuning_settings(batch_size=4, rank=2), tmp_path)
    with pytest.raises(StudyError, match="holds work with other train"):
        tune(llm, toy_samples(5), toy_samples(2), tuning_settings(batch_size=4), tmp_path)


def test_work_without_a_record_of_its_settings_is_refused(llm, tmp_path):
    args = (llm, toy_samples(4), toy_samples(2), tuning_settings(batch_size=4), tmp_path)
    tune(*args)
    (tmp_path / "work.json").unlink()
    for _ in range(2):
        with pytest.raises(StudyError, match="holds log.csv but no work.json"):
            tune(*args)
