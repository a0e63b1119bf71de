"""QLoRA instruction tuning (method.md section 4), in one short loop that resumes where it was.

Only the answer is learnt: the loss is on the title and the end-of-sequence token. Batches are made
of examples of like length, padded to a few shapes, since a CPU prepares its kernels anew for each.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from bigrec_lib import prompts
from bigrec_lib.files import StudyError, atomic, remove, write_json, write_text

if TYPE_CHECKING:
    import torch

    from bigrec_lib.llm import LLM
    from bigrec_lib.prompts import Domain

BUCKET = 32  # sequence lengths are padded to a multiple of this


@dataclass(frozen=True)
class Sample:
    """What the LLM reads and what it should write; the end-of-sequence token is added here."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Tuning:
    """Settings of one tuning stage. `warmup` is in steps; the rate then falls linearly to 0."""

    epochs: float = 1
    learning_rate: float = 1e-3
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    batch_size: int = 8
    warmup: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Encoded:
    """Token ids of a sample (n,), and how many of the last ones are the answer."""

    ids: np.ndarray
    answer: int


def samples(
    examples: pd.DataFrame, titles: Sequence[str], words: Domain, tokenizer, max_tokens: int
) -> list[Sample]:
    """Examples (columns history, target) as prompts of at most `max_tokens`, with their answers."""
    return [
        Sample(
            prompts.fitted_prompt(tokenizer, [titles[i] for i in history], words, max_tokens),
            prompts.answer(titles[target]),
        )
        for history, target in zip(examples.history, examples.target, strict=True)
    ]


def encode(tokenizer, sample: Sample) -> Encoded:
    """Tokenise prompt and answer together; character offsets tell where the answer begins."""
    found = tokenizer(sample.prompt + sample.answer, return_offsets_mapping=True)
    answer = sum(start >= len(sample.prompt) for start, end in found["offset_mapping"] if end)
    return Encoded(np.array([*found["input_ids"], tokenizer.eos_token_id]), answer + 1)


def collate(batch: list[Encoded], pad: int, device) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Left-padded model inputs (B, T), T a multiple of BUCKET, and the answers' labels (B, A).

    Answers end at the right edge, so labels cover the last A positions; -100 is not learnt.
    """
    import torch

    length = math.ceil(max(len(each.ids) for each in batch) / BUCKET) * BUCKET
    width = max(each.answer for each in batch)
    ids = np.full((len(batch), length), pad)
    mask = np.zeros((len(batch), length), dtype=np.int64)
    labels = np.full((len(batch), width), -100)
    for row, each in enumerate(batch):
        ids[row, -len(each.ids) :] = each.ids
        mask[row, -len(each.ids) :] = 1
        labels[row, -each.answer :] = each.ids[-each.answer :]
    positions = (mask.cumsum(1) - 1).clip(min=0)
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return (
        {name: torch.from_numpy(value).to(device) for name, value in inputs.items()},
        torch.from_numpy(labels).to(device),
    )


def answer_loss(model, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    """Sum of the cross-entropies of all answer tokens, in fp32.

    Only the positions that are learnt reach the output layer. They are gathered into one matrix:
    on a slice of the batch, PyTorch would copy the output weights once per row.
    """
    import torch.nn.functional as F

    causal = model.get_base_model()
    hidden = causal.base_model(**inputs, use_cache=False).last_hidden_state  # (B, T, d)
    learnt = labels != -100
    before = hidden[:, -labels.shape[1] - 1 : -1][learnt]  # (N, d)
    logits = causal.get_output_embeddings()(before)
    return F.cross_entropy(logits.float(), labels[learnt], reduction="sum")


def batches(samples: list[Encoded], size: int, seed: int | None = None) -> list[list[Encoded]]:
    """Batches of like length; under a seed, who meets whom and their order are random."""
    order = np.arange(len(samples))
    rng = np.random.default_rng(seed)
    if seed is not None:
        rng.shuffle(order)
    lengths = np.array([math.ceil(len(samples[i].ids) / BUCKET) for i in order])
    order = order[np.argsort(lengths, kind="stable")]
    found = [[samples[i] for i in order[at : at + size]] for at in range(0, len(order), size)]
    if seed is not None:
        rng.shuffle(found)
    return found


def evaluate(model, samples: list[Encoded], size: int, pad: int) -> float:
    """Mean loss per answer token."""
    import torch

    model.eval()
    total = 0.0
    with torch.inference_mode():
        for batch in batches(samples, size):
            total += answer_loss(model, *collate(batch, pad, model.device)).item()
    return total / sum(each.answer for each in samples)


def tune(
    llm: LLM, train: list[Sample], valid: list[Sample], settings: Tuning, folder: Path
) -> pd.DataFrame:
    """Tune a LoRA adapter on an LLM and keep the one with the lowest validation loss.

    Writes `folder`: the adapter in PEFT's format and log.csv, which is also returned (step,
    epoch, train_loss per answer token, valid_loss where measured, learning_rate, seconds).
    A checkpoint after every epoch part is in `folder`/checkpoint until the end; called again
    with the same settings and samples it continues from there.
    Raises StudyError for no samples, unknown target modules, a checkpoint made with other
    settings, or a loss that is not finite.
    """
    import torch
    from transformers import get_linear_schedule_with_warmup

    if not train or not valid:
        raise StudyError("tuning needs at least one training and one validation sample")
    tokenizer, pad = llm.tokenizer, llm.tokenizer.pad_token_id
    train_set = [encode(tokenizer, sample) for sample in train]
    valid_set = [encode(tokenizer, sample) for sample in valid]
    model = add_adapter(llm.model, settings)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    per_epoch = math.ceil(len(train_set) / settings.batch_size)
    steps = max(1, round(per_epoch * settings.epochs))
    schedule = get_linear_schedule_with_warmup(optimiser, settings.warmup, steps)

    checkpoint = Checkpoint(folder / "checkpoint", settings, train, model, optimiser)
    log = checkpoint.load()
    done = len(log)
    for _ in range(done):
        schedule.step()
    best = min(
        (row["valid_loss"] for row in log if row["valid_loss"] is not None), default=math.inf
    )
    started = time.time() - (log[-1]["seconds"] if log else 0)
    with tqdm(total=steps, initial=done, desc="tuning", unit="step") as bar:
        for step in range(done, steps):
            epoch, at = divmod(step, per_epoch)
            if step == done or at == 0:
                epoch_batches = batches(
                    train_set, settings.batch_size, settings.seed + 1000 * epoch
                )
            torch.manual_seed(settings.seed * 1_000_003 + step)
            model.train()
            batch = epoch_batches[at]
            loss = answer_loss(model, *collate(batch, pad, model.device))
            loss = loss / sum(each.answer for each in batch)
            if not torch.isfinite(loss):
                raise StudyError(
                    f"the loss is {loss.item()} at step {step + 1} of {steps}: lower "
                    f"learning_rate; the last good state is in {checkpoint.folder}"
                )
            rate = schedule.get_last_lr()[0]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
            row = {
                "step": step + 1,
                "epoch": (step + 1) / per_epoch,
                "train_loss": loss.item(),
                "valid_loss": None,
                "learning_rate": rate,
                "seconds": round(time.time() - started, 2),
            }
            log.append(row)
            bar.update()
            bar.set_postfix(loss=f"{row['train_loss']:.3f}")
            if at == per_epoch - 1 or step == steps - 1:
                row["valid_loss"] = evaluate(model, valid_set, settings.batch_size, pad)
                if row["valid_loss"] < best:
                    best = row["valid_loss"]
                    save_adapter(model, folder)
                checkpoint.save(log)
    frame = pd.DataFrame(log)
    write_text(frame.to_csv(index=False), folder / "log.csv")
    remove(checkpoint.folder)
    return frame


def greedy(llm: LLM, texts: Sequence[str], max_new_tokens: int = 24) -> list[str]:
    """What the model writes after each prompt, taking the likeliest token each time."""
    import torch

    written = []
    for text in texts:
        inputs = llm.tokenizer(text, return_tensors="pt").to(llm.device)
        with torch.inference_mode():
            out = llm.model.eval().generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=llm.tokenizer.pad_token_id,
            )
        new = out[0, inputs["input_ids"].shape[1] :]
        written.append(llm.tokenizer.decode(new, skip_special_tokens=True))
    return written


def count_parameters(model) -> tuple[int, int]:
    """How many parameters are trained, and how many there are."""
    sizes = [(weight.numel(), weight.requires_grad) for weight in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def add_adapter(model, settings: Tuning):
    """The model with a fresh LoRA adapter, the same under the same seed."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.target_modules),
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        linear = {n.split(".")[-1] for n, m in model.named_modules() if hasattr(m, "in_features")}
        raise StudyError(
            f"target_modules {', '.join(settings.target_modules)} match nothing in this model: "
            f"choose from {', '.join(sorted(linear))}"
        ) from None


def save_adapter(model, folder: Path) -> None:
    """Write the adapter in PEFT's format into `folder`, each file atomically."""
    with atomic(folder / "best") as partial:
        model.save_pretrained(partial)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            with atomic(folder / name) as file:
                file.write_bytes((partial / name).read_bytes())
    remove(folder / "best")


@dataclass
class Checkpoint:
    """Adapter, optimiser state and log of an unfinished tuning, as safetensors and JSON."""

    folder: Path
    settings: Tuning
    train: list[Sample]
    model: object
    optimiser: torch.optim.Optimizer

    def identity(self) -> dict[str, object]:
        """What a checkpoint must have in common with the tuning that continues it."""
        import hashlib

        text = "\0".join(f"{sample.prompt}\0{sample.answer}" for sample in self.train)
        settings = json.loads(json.dumps(asdict(self.settings)))
        return {**settings, "samples": hashlib.sha256(text.encode()).hexdigest()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Adapter weights and their two AdamW moments, by name."""
        found = {}
        for name, weight in self.model.named_parameters():
            if weight.requires_grad:
                found[name] = weight.data
                for moment in ("exp_avg", "exp_avg_sq"):
                    found[f"{name}/{moment}"] = self.optimiser.state[weight][moment]
        return found

    def save(self, log: list[dict]) -> None:
        from safetensors.torch import save_file

        with atomic(self.folder) as partial:
            partial.mkdir()
            save_file(self.tensors(), partial / "state.safetensors")
            write_json({"identity": self.identity(), "log": log}, partial / "log.json")

    def load(self) -> list[dict]:
        """Put the saved state back and return the log so far; [] where there is none."""
        import torch
        from safetensors.torch import load_file

        if not self.folder.exists():
            return []
        saved = json.loads((self.folder / "log.json").read_text(encoding="utf-8"))
        ours = self.identity()
        differing = [name for name in ours if saved["identity"].get(name) != ours[name]]
        if differing:
            raise StudyError(
                f"{self.folder} was made with other {', '.join(differing)}: remove it, or tune "
                "with the settings it has"
            )
        state = load_file(self.folder / "state.safetensors", device=str(self.model.device))
        step = torch.tensor(float(len(saved["log"])))
        for name, weight in self.model.named_parameters():
            if weight.requires_grad:
                weight.data.copy_(state[name])
                self.optimiser.state[weight] = {
                    "step": step.clone(),
                    "exp_avg": state[f"{name}/exp_avg"],
                    "exp_avg_sq": state[f"{name}/exp_avg_sq"],
                }
        return saved["log"]
