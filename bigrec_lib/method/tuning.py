"""QLoRA instruction tuning (docs/method.md, section 4), in one short loop that resumes.

By default only the answer is learnt: the loss is on the title and the end-of-sequence token. A step
is fast because of what it leaves out:

- Tokens that open every sample (the instruction) go through the model once a batch; the samples
  share their keys and values. Gradients flow back through them as if each sample had its own.
  (A GPU reads them with every sample of a small model: a second pass would take longer to start.)
- Samples of similar length share a batch, padded to a few shapes: a CPU prepares its kernels anew
  for each shape.
- Only positions that are learnt reach the output layer.
- The adapter computes in the model's dtype, so no activation is converted to fp32 and back.

Started by `accelerate launch` or `torchrun`, every process calls `tune` with the same arguments
and takes its share of each batch. Without dropout the result is that of one process but for
rounding; with it, the masks are others.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from bigrec_lib.files import StudyError, atomic, claim, remove, sha256, write_json, write_text
from bigrec_lib.method.adapters import Weights, add_adapter, save_adapter
from bigrec_lib.method.attention import attending, for_gradients
from bigrec_lib.method.llm import fingerprint, plain_generate
from bigrec_lib.method.losses import Data, evaluate, loss_sum, prepare, sound_attention
from bigrec_lib.method.processes import add_up, process, wait_for_all
from bigrec_lib.method.prompts import decode
from bigrec_lib.method.samples import Sample, batches

if TYPE_CHECKING:
    from peft import PeftModel

    from bigrec_lib.method.llm import LLM

SAVE_SECONDS = 30  # between checkpoints
NO_GRADIENT = 4  # times as many samples fit a GPU where no activations are kept
SCHEDULES = ("linear", "cosine", "constant")


@dataclass(frozen=True)
class Tuning:
    """Settings of one tuning stage; their defaults are those of `study.parameters.TuneLLM`."""

    epochs: float
    learning_rate: float  # its peak
    schedule: str  # what follows the warm-up: linear, cosine or constant
    warmup: int  # steps
    rank: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]
    batch_size: int  # samples of a step, over all processes
    micro_batch: int  # samples computed at once, over all processes; 0: the whole batch
    patience: int  # validations without a better loss before it stops; 0: never
    learn_prompt: bool  # loss on the prompt as well, as in the authors' code
    gradient_checkpointing: bool  # less memory, more time
    seed: int

    @property
    def at_once(self) -> int:
        """Samples that go through the model together, over all processes."""
        return self.micro_batch or self.batch_size


def tune(
    llm: LLM,
    train: Sequence[Sample],
    valid: Sequence[Sample],
    settings: Tuning,
    folder: Path,
    start: Path | None = None,
) -> pd.DataFrame:
    """Tune a LoRA adapter on an LLM and keep the one with the lowest validation loss.

    start: folder of an adapter to begin with, for a second stage; None for a fresh one.
    Writes `folder`: the adapter in PEFT's format and log.csv, which is also returned (step,
    epoch, train_loss per learnt token, valid_loss at the end of every epoch, learning_rate,
    seconds). Called again with the same arguments, it returns the log of finished work at once, or
    goes on from the last checkpoint; on a CPU, the result is the same to the bit. The LLM is left
    as it was.
    Raises StudyError for no samples, unknown target modules, settings that do not go together, a
    folder that holds other work, a loss that is not finite, or too little memory.
    """
    check(settings, llm, train, valid)
    refuse_unrecorded(folder)
    claim(folder / "work.json", identity(llm, train, valid, settings, start))
    if not (folder / "log.csv").exists():
        may_share = not settings.gradient_checkpointing
        train_data = prepare(llm, train, settings.learn_prompt, may_share)
        valid_data = prepare(llm, valid, settings.learn_prompt, may_share)
        with adapted(llm, settings, start) as model, memory_advice(folder):
            run = Run(llm, model, settings, train_data, valid_data, folder)
            run.to_the_end()
        if process()[0] > 0:
            return pd.DataFrame(run.log)
        write_text(pd.DataFrame(run.log).to_csv(index=False), folder / "log.csv")
    if process()[0] == 0:
        remove(folder / "checkpoint")
    return pd.read_csv(folder / "log.csv", float_precision="round_trip")


def refuse_unrecorded(folder: Path) -> None:
    """Raise StudyError if a folder holds work but no record of whose it is (work.json)."""
    if (folder / "work.json").exists():
        return
    for name in ("log.csv", "checkpoint"):
        if (folder / name).exists():
            raise StudyError(
                f"{folder} holds {name} but no work.json, so its settings are unknown: delete the "
                "folder, or tune into another one"
            )


def identity(
    llm: LLM,
    train: Sequence[Sample],
    valid: Sequence[Sample],
    settings: Tuning,
    start: Path | None,
) -> dict[str, Any]:
    """Everything the result depends on, as JSON stores it."""
    return {
        **json.loads(json.dumps(asdict(settings))),
        "model": f"{llm.name} {llm.model.dtype} {fingerprint(llm)}",
        "train": digest(train),
        "valid": digest(valid),
        "start": sha256(start / "adapter_model.safetensors") if start else None,
    }


class Run:
    """A tuning under way: the adapter's weights, and the log of the steps so far."""

    def __init__(
        self,
        llm: LLM,
        model: PeftModel,
        settings: Tuning,
        train: Data,
        valid: Data,
        folder: Path,
    ):
        self.llm, self.model, self.settings, self.folder = llm, model, settings, folder
        self.train, self.valid = train, valid
        self.weights = Weights(model)
        self.log = load_checkpoint(folder / "checkpoint", self.weights)
        self.per_epoch = len(epoch_plan(train.lengths, settings, 0))
        self.steps = max(1, round(self.per_epoch * settings.epochs))
        self.rank, self.processes = process()
        wait_for_all(llm.device)  # the first to finish removes the checkpoint that all have read

    def to_the_end(self) -> None:
        """Take the remaining steps, with a validation at the end of each epoch."""
        start = last_save = time.time()
        elapsed = self.log[-1]["seconds"] if self.log else 0.0
        bar = tqdm(
            total=self.steps,
            initial=len(self.log),
            desc="tuning",
            unit="step",
            disable=self.rank > 0,
        )
        while len(self.log) < self.steps and not stalled(self.log, self.settings.patience):
            row = self.one_step()
            row["seconds"] = round(elapsed + time.time() - start, 2)
            if row["step"] % self.per_epoch == 0 or row["step"] == self.steps:
                row["valid_loss"] = self.validate(row["step"])
            self.log.append(row)
            due = row["valid_loss"] or time.time() - last_save > SAVE_SECONDS
            if self.rank == 0 and due:
                save_checkpoint(self.folder / "checkpoint", self.weights, self.log)
                last_save = time.time()
            bar.update()
            bar.set_postfix(loss=f"{row['train_loss']:.3f}", rate=f"{row['learning_rate']:.1e}")
        bar.close()

    def one_step(self) -> dict[str, Any]:
        """Move the weights along the gradient of one batch; return the step's row of the log."""
        step = len(self.log)
        epoch, place = divmod(step, self.per_epoch)
        micro_batches = epoch_plan(self.train.lengths, self.settings, epoch)[place]
        torch.manual_seed((self.settings.seed * 1_000_003 + step) * self.processes + self.rank)
        loss = self.gradient(micro_batches)
        row: dict[str, Any] = {
            "step": step + 1,
            "epoch": (step + 1) / self.per_epoch,
            "train_loss": finite(loss, f"step {step + 1}, {naming(micro_batches)}", self.folder),
            "valid_loss": None,
            "learning_rate": learning_rate(step, self.steps, self.settings),
        }
        self.weights.move(row["learning_rate"])
        return row

    def gradient(self, micro_batches: list[np.ndarray]) -> float:
        """Leave the gradient of a batch's loss per learnt token in the weights; return the loss.

        micro_batches: the sample numbers of each.
        """
        self.model.train()
        loss = torch.zeros((), device=self.llm.device)
        tokens = self.train.tokens(np.concatenate(micro_batches))
        for numbers in micro_batches:
            shard = numbers[self.rank :: self.processes]
            if len(shard):
                part_loss = loss_sum(self.model, self.train.batch(shard, self.llm)) / tokens
                part_loss.backward()
                self.weights.collect()
                loss += part_loss.detach()
        add_up([loss, *(weight.grad for weight in self.weights.exact.values())])
        return loss.item()

    def validate(self, step: int) -> float:
        """The validation loss; if it is the lowest so far, the adapter is saved."""
        settings, size = self.settings, self.settings.at_once
        few_kept = settings.learn_prompt or settings.gradient_checkpointing  # then logits count
        if self.llm.device.type != "cpu" and not few_kept:
            size *= NO_GRADIENT
        loss = evaluate(self.llm, self.model, self.valid, size)
        loss = finite(loss, f"step {step}, validation", self.folder)
        if self.rank == 0 and loss < lowest(self.log):
            save_adapter(self.model, self.folder)
        return loss


def epoch_plan(lengths: np.ndarray, settings: Tuning, epoch: int) -> list[list[np.ndarray]]:
    """The micro-batches of every step of an epoch, as sample numbers."""
    parts = batches(lengths, settings.at_once, [settings.seed, epoch])
    accumulate = settings.batch_size // settings.at_once
    return [parts[start : start + accumulate] for start in range(0, len(parts), accumulate)]


def learning_rate(step: int, steps: int, settings: Tuning) -> float:
    """The rate of a step (from 0): a linear rise over `warmup` steps, then the schedule."""
    if step < settings.warmup:
        return settings.learning_rate * step / settings.warmup
    progress = (step - settings.warmup) / max(1, steps - settings.warmup)
    factors = {
        "linear": 1 - progress,
        "cosine": (1 + math.cos(math.pi * progress)) / 2,
        "constant": 1.0,
    }
    return settings.learning_rate * factors[settings.schedule]


def check(settings: Tuning, llm: LLM, train: Sequence[Sample], valid: Sequence[Sample]) -> None:
    """Refuse, before any work, what cannot be tuned."""
    if not train or not valid:
        raise StudyError("tuning needs at least one training and one validation sample")
    if settings.schedule not in SCHEDULES:
        raise StudyError(f"unknown schedule {settings.schedule!r}: linear, cosine or constant")
    if settings.micro_batch and settings.batch_size % settings.micro_batch:
        raise StudyError(
            f"batch_size {settings.batch_size} is not a multiple of micro_batch "
            f"{settings.micro_batch}"
        )
    if llm.model.dtype == torch.float16:
        raise StudyError("float16 loses small gradients: tune in dtype bfloat16 or float32")


@contextmanager
def adapted(llm: LLM, settings: Tuning, start: Path | None) -> Iterator[PeftModel]:
    """The LLM's model with an adapter to tune; afterwards the adapter is taken off again.

    On a CPU, attention is of the kind whose gradient is computed fastest.
    """
    training = llm.model.training
    usual = llm.model.config._attn_implementation
    way = for_gradients(llm.model) if llm.device.type == "cpu" else usual
    lora = (settings.rank, settings.alpha, settings.dropout, settings.target_modules)
    model = add_adapter(llm, *lora, settings.seed, start)
    if settings.gradient_checkpointing:
        llm.model.activation_checkpointing_enable()
    try:
        with attending(llm.model, way), sound_attention():
            yield model
    finally:
        if settings.gradient_checkpointing:
            llm.model.activation_checkpointing_disable()
        model.unload()
        llm.model.train(training)


def validations(log: list[dict]) -> list[float]:
    return [row["valid_loss"] for row in log if row["valid_loss"] is not None]


def lowest(log: list[dict]) -> float:
    return min(validations(log), default=math.inf)


def stalled(log: list[dict], patience: int) -> bool:
    """Whether none of the last `patience` validations was better than the best before them."""
    losses = validations(log)
    return 0 < patience < len(losses) and len(losses) - 1 - int(np.argmin(losses)) >= patience


def finite(loss: float, where: str, folder: Path) -> float:
    """The loss, or StudyError if it is infinite or not a number."""
    if math.isfinite(loss):
        return loss
    raise StudyError(
        f"the loss is {loss} at {where}: lower learning_rate, or look at these samples; the last "
        f"good state is kept in {folder / 'checkpoint'}"
    )


def naming(batch: list[np.ndarray]) -> str:
    numbers = sorted(np.concatenate(batch).tolist())
    return f"training samples {', '.join(map(str, numbers))}"


@contextmanager
def memory_advice(folder: Path) -> Iterator[None]:
    """Turn running out of memory into a StudyError that says which settings to lower."""
    try:
        yield
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise StudyError(
            "out of memory: lower micro_batch or max_tokens, or set gradient_checkpointing, remove "
            f"{folder / 'checkpoint'} and start again ({str(error).splitlines()[0]})"
        ) from error


# ---------------------------------------------------------------------------------- checkpoint


def save_checkpoint(folder: Path, weights: Weights, log: list[dict]) -> None:
    """Write the state after the last step of `log`: weights, AdamW's moments and the log."""
    from safetensors.torch import save_file

    with atomic(folder) as partial:
        partial.mkdir()
        save_file(weights.state(), partial / "state.safetensors")
        write_json(log, partial / "log.json")


def load_checkpoint(folder: Path, weights: Weights) -> list[dict[str, Any]]:
    """Restore the weights and return the log of a checkpoint; [] if there is none.

    It holds no random states: batches and dropout follow from the seed and the step alone.
    """
    from safetensors.torch import load_file

    if not folder.exists():
        return []
    log = json.loads((folder / "log.json").read_text(encoding="utf-8"))
    weights.restore(load_file(folder / "state.safetensors"), len(log))
    return log


def digest(samples: Sequence[Sample]) -> str:
    """SHA-256 of prompts and answers."""
    text = "\0".join(f"{sample.prompt}\0{sample.answer}" for sample in samples)
    return hashlib.sha256(text.encode()).hexdigest()


# ---------------------------------------------------------------------------- before and after


def greedy(llm: LLM, texts: Sequence[str], max_new_tokens: int = 24) -> list[str]:
    """What the model writes after each prompt, taking the likeliest token each time."""
    eos = llm.tokenizer.eos_token_id
    answers = []
    with plain_generate(llm.model.eval()) as model, torch.inference_mode():
        for text in texts:
            ids = torch.tensor([llm.tokenizer(text)["input_ids"]], device=llm.device)
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=eos,
                pad_token_id=eos,
            )
            answers.append(decode(llm.tokenizer, out[0, ids.shape[1] :]))
    return answers
