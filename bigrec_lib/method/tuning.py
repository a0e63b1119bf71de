"""QLoRA instruction tuning (method.md section 4), in one short loop that resumes where it was.

By default only the answer is learnt: the loss is on the title and the end-of-sequence token. What
makes a step fast is what it leaves out:

- Tokens that open every sample (the instruction) go through the model once a batch; the samples
  share their keys and values. Gradients flow back through them as if each sample had its own.
- Samples of like length meet in a batch, padded to a few shapes: a CPU prepares its kernels anew
  for each shape.
- Only positions that are learnt reach the output layer.
- The adapter computes in the model's dtype, so no activation goes to fp32 and back.

Started by `accelerate launch` or `torchrun`, every process calls `tune` with the same arguments
and takes its share of each batch; the result is that of one process.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from bigrec_lib.files import StudyError, atomic, sha256, write_json, write_text
from bigrec_lib.method import prompts, sequences

if TYPE_CHECKING:
    from peft import PeftModel

    from bigrec_lib.method.llm import LLM
    from bigrec_lib.method.prompts import Domain

BUCKET = 16  # padded lengths are multiples of this
SAVE_SECONDS = 30  # between checkpoints
CLIP = 1.0  # largest norm of a gradient


@dataclass(frozen=True)
class Sample:
    """What the LLM reads and what it should write; the end-of-sequence token is added here."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Tuning:
    """Settings of one tuning stage."""

    epochs: float = 1
    learning_rate: float = 1e-3  # its peak
    schedule: str = "linear"  # what follows the warm-up: linear, cosine or constant
    warmup: int = 5  # steps
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    batch_size: int = 8  # samples of a step, over all processes
    micro_batch: int = 0  # samples computed at once, over all processes; 0: the whole batch
    patience: int = 0  # validations without a better loss before it stops; 0: never
    learn_prompt: bool = False  # loss on the prompt as well, as in the authors' code
    gradient_checkpointing: bool = False  # less memory, more time
    seed: int = 0


# ------------------------------------------------------------------------------------- samples


def read_samples(
    sources: Sequence[Path],
    split: str,
    tokenizer,
    max_tokens: int,
    n: int | None = None,
    seed: int = 0,
) -> list[Sample]:
    """Examples that 01_prepare_data wrote, as prompts of at most `max_tokens` and answers.

    From each of the folders, one a domain: `n` examples drawn under `seed`, or all of them.
    """
    found = []
    for data in sources:
        table = sequences.read(data, split)
        examples = sequences.sample(table, n, seed) if n else table
        titles = pd.read_parquet(data / "items.parquet", columns=["title"]).title.tolist()
        meta = json.loads((data / "meta.json").read_text(encoding="utf-8"))
        words = prompts.domain(meta["domain"])
        found += samples(examples.to_pandas(), titles, words, tokenizer, max_tokens)
    return found


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


def instructions(path: Path, tokenizer, max_tokens: int) -> list[Sample]:
    """The samples of an alpaca-format file: a JSON list of {instruction, input, output}.

    Those longer than `max_tokens` are left out, since cutting one would cut its answer.
    Raises StudyError if the file is not of that format, or if nothing is left.
    """
    try:
        found = [
            Sample(prompts.alpaca(row["instruction"], row.get("input", "")), row["output"])
            for row in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StudyError(
            f"{path} is not a readable JSON list of objects with `instruction`, `input` and "
            f"`output` ({type(error).__name__}: {error})"
        ) from None
    found = [each for each in found if len(encode(tokenizer, each).ids) <= max_tokens]
    if not found:
        raise StudyError(f"{path} has no sample of at most {max_tokens} tokens: raise max_tokens")
    return found


@dataclass(frozen=True)
class Encoded:
    """Token ids of a sample (n,), and how many of the last ones are learnt."""

    ids: np.ndarray
    learnt: int


def encode(tokenizer, sample: Sample, learn_prompt: bool = False) -> Encoded:
    """Tokenise prompt and answer together; character offsets tell where the answer begins."""
    found = tokenizer(sample.prompt + sample.answer, return_offsets_mapping=True)
    ids = np.array([*found["input_ids"], tokenizer.eos_token_id])
    answer = sum(start >= len(sample.prompt) for start, end in found["offset_mapping"] if end)
    return Encoded(ids, len(ids) - 1 if learn_prompt else answer + 1)


def shared_tokens(encoded: Sequence[Encoded]) -> int:
    """How many first tokens all samples have in common, short of where learning begins."""
    limit = min(len(each.ids) - each.learnt - 1 for each in encoded)
    same = np.ones(limit + 1, dtype=bool)
    same[limit] = False
    for each in encoded:
        same[:limit] &= each.ids[:limit] == encoded[0].ids[:limit]
    return int(same.argmin())


def batches(lengths: np.ndarray, size: int, seed: Sequence[int] | None = None) -> list[np.ndarray]:
    """Sample numbers in batches of like length; under a seed, who meets whom and when is random."""
    rng = np.random.default_rng(seed)
    order = np.arange(len(lengths)) if seed is None else rng.permutation(len(lengths))
    order = order[np.argsort(-(-lengths[order] // BUCKET), kind="stable")]
    found = [order[at : at + size] for at in range(0, len(order), size)]
    if seed is not None:
        rng.shuffle(found)
    return found


def epoch_plan(lengths: np.ndarray, settings: Tuning, epoch: int) -> list[list[np.ndarray]]:
    """The micro-batches of every step of an epoch."""
    micro = settings.micro_batch or settings.batch_size
    found = batches(lengths, micro, [settings.seed, epoch])
    accumulate = settings.batch_size // micro
    return [found[at : at + accumulate] for at in range(0, len(found), accumulate)]


# ---------------------------------------------------------------------------------------- loss


@dataclass(frozen=True)
class Batch:
    """Samples for the model, padded on the left so that all end together."""

    shared: Tensor  # (1, P) the tokens that open every sample
    rest: Tensor  # (B, T) the others
    real: Tensor  # (B, T) 1 for a token, 0 for padding
    labels: Tensor  # (B, A) of the last A positions; -100 is not learnt


def collate(encoded: Sequence[Encoded], shared: int, pad: int, device) -> Batch:
    """Samples as one batch; the number of tokens after the shared ones is a multiple of BUCKET."""
    length = -(-(max(len(each.ids) for each in encoded) - shared) // BUCKET) * BUCKET
    rest = np.full((len(encoded), length), pad)
    real = np.zeros((len(encoded), length), dtype=np.int64)
    labels = np.full((len(encoded), max(each.learnt for each in encoded)), -100)
    for row, each in enumerate(encoded):
        own = each.ids[shared:]
        rest[row, -len(own) :] = own
        real[row, -len(own) :] = 1
        labels[row, -each.learnt :] = each.ids[-each.learnt :]
    arrays = (encoded[0].ids[None, :shared], rest, real, labels)
    return Batch(*(torch.from_numpy(array).to(device) for array in arrays))


def loss_sum(model: PeftModel, batch: Batch) -> Tensor:
    """Sum of the cross-entropies of all learnt tokens, in fp32.

    The learnt positions are gathered into one matrix before the output layer: on a slice of the
    batch, PyTorch would copy the output weights once per row.
    """
    causal = model.get_base_model()
    rows, shared = len(batch.rest), batch.shared.shape[1]
    cache = None
    if shared:
        cache = causal.base_model(input_ids=batch.shared, use_cache=True).past_key_values
        cache.batch_repeat_interleave(rows)  # keys and values: (1, H, P, d) -> (B, H, P, d)
    hidden = causal.base_model(
        input_ids=batch.rest,
        attention_mask=torch.cat([batch.real.new_ones(rows, shared), batch.real], dim=1),
        position_ids=shared + (batch.real.cumsum(1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state  # (B, T, d)
    learnt = batch.labels != -100
    before = hidden[:, -batch.labels.shape[1] - 1 : -1][learnt]  # (N, d)
    logits = causal.get_output_embeddings()(before)
    return nn.functional.cross_entropy(logits.float(), batch.labels[learnt], reduction="sum")


def can_share(model) -> bool:
    """Whether samples can share keys and values: every layer keeps all of them, as they are."""
    kinds = getattr(model.config, "layer_types", None) or ["full_attention"]
    return set(kinds) == {"full_attention"} and not model._is_stateful


@dataclass(frozen=True)
class Data:
    """Encoded samples, and how many tokens of each the model reads only once a batch."""

    encoded: list[Encoded]
    shared: int

    @property
    def lengths(self) -> np.ndarray:
        return np.array([len(each.ids) for each in self.encoded])

    def batch(self, numbers: Sequence[int], llm: LLM) -> Batch:
        chosen = [self.encoded[i] for i in numbers]
        return collate(chosen, self.shared, llm.tokenizer.pad_token_id, llm.device)

    def tokens(self, numbers: Sequence[int]) -> int:
        """How many tokens of these samples are learnt."""
        return sum(self.encoded[i].learnt for i in numbers)


def prepare(llm: LLM, given: Sequence[Sample], settings: Tuning) -> Data:
    encoded = [encode(llm.tokenizer, each, settings.learn_prompt) for each in given]
    share = can_share(llm.model) and not settings.gradient_checkpointing
    return Data(encoded, shared_tokens(encoded) if share else 0)


def evaluate(llm: LLM, model: PeftModel, data: Data, size: int) -> float:
    """Mean loss per learnt token, over all processes."""
    rank, processes = process()
    total = torch.zeros((), device=llm.device)
    model.eval()
    with torch.inference_mode():
        for numbers in batches(data.lengths, size):
            mine = numbers[rank::processes]
            if len(mine):
                total += loss_sum(model, data.batch(mine, llm))
    add_up([total])
    return total.item() / data.tokens(range(len(data.encoded)))


# ------------------------------------------------------------------------------------- adapter


class Dropout(nn.Module):
    """Dropout whose mask takes 16 random bits an element.

    On a CPU, where random numbers are made one after another, PyTorch's own takes a fifth of a
    step.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        words = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64, device=x.device)
        noise = words.random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)
        keep = noise >= round(self.share * 2**16) - 2**15
        return x * keep * (1 / (1 - self.share))


def add_adapter(llm: LLM, settings: Tuning, start: Path | None = None) -> PeftModel:
    """A LoRA adapter on the model (in place): fresh, the same under the same seed, or from `start`.

    Raises StudyError if target modules match nothing or `start` is an adapter of another shape.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    targets = list(settings.target_modules)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
    )
    torch.manual_seed(settings.seed)
    try:
        model = get_peft_model(llm.model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        linear = {
            name.split(".")[-1]
            for name, module in llm.model.named_modules()
            if hasattr(module, "in_features")
        }
        raise StudyError(
            f"target_modules {', '.join(targets)} match nothing in this model: choose from "
            f"{', '.join(sorted(linear))}, or all-linear"
        ) from None
    config.base_model_name_or_path = llm.name
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.lora_dropout["default"] = Dropout(settings.dropout)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(llm.model.dtype)
    if start is not None:
        load_adapter(model, start)
    return model


def load_adapter(model: PeftModel, folder: Path) -> None:
    """Put the weights of an adapter of the same shape into the model's."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = load_file(folder / "adapter_model.safetensors", device=str(model.device))
    ours = get_peft_model_state_dict(model)
    if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in ours.items()}:
        raise StudyError(
            f"the adapter in {folder} has another rank or other target_modules: continue with "
            "the ones it was tuned with"
        )
    set_peft_model_state_dict(model, weights)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter in PEFT's format into `folder`, each file atomically."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    plain = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
    }
    write_json(plain, folder / "adapter_config.json")
    weights = get_peft_model_state_dict(model)
    with atomic(folder / "adapter_model.safetensors") as partial:
        save_file({name: weight.contiguous() for name, weight in weights.items()}, partial)


def count_parameters(model: PeftModel) -> tuple[int, int]:
    """How many parameters the adapter has, and how many there are with the base."""
    adapter = sum(w.numel() for name, w in model.named_parameters() if "lora_" in name)
    return adapter, model.get_nb_trainable_parameters()[1]


class Weights:
    """The adapter's weights twice: exact ones in fp32, and the copies the model computes with.

    AdamW moves the exact ones; in bf16, small moves would be rounded away.
    """

    def __init__(self, model: PeftModel):
        self.copies = {n: w for n, w in model.named_parameters() if w.requires_grad}
        self.exact = {n: nn.Parameter(w.detach().float()) for n, w in self.copies.items()}
        for weight in self.exact.values():
            weight.grad = torch.zeros_like(weight)
        self.optimiser = torch.optim.AdamW(self.exact.values(), weight_decay=0.0)

    def collect(self) -> None:
        """Add the copies' gradients to the exact weights'."""
        for name, copy in self.copies.items():
            self.exact[name].grad += copy.grad
            copy.grad = None

    def move(self, learning_rate: float) -> None:
        """One AdamW step along the collected gradients."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        nn.utils.clip_grad_norm_(self.exact.values(), CLIP)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=False)
        self.copy()

    @torch.no_grad()
    def copy(self) -> None:
        for name, copy in self.copies.items():
            copy.copy_(self.exact[name])

    def state(self) -> dict[str, Tensor]:
        """The exact weights and their two AdamW moments, by name."""
        found = {}
        for name, weight in self.exact.items():
            found[name] = weight.data
            for moment in ("exp_avg", "exp_avg_sq"):
                found[f"{name}/{moment}"] = self.optimiser.state[weight][moment]
        return found

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        for name, weight in self.exact.items():
            weight.data.copy_(state[name])
            self.optimiser.state[weight] = {
                "step": torch.tensor(float(steps)),
                "exp_avg": state[f"{name}/exp_avg"],
                "exp_avg_sq": state[f"{name}/exp_avg_sq"],
            }
        self.copy()


# ------------------------------------------------------------------------------------ the loop


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
    seconds). `folder`/checkpoint holds the last state; called again with the same arguments,
    tuning goes on from there, or is done already, and on a CPU ends bit-identical.
    The LLM is left as it was.
    Raises StudyError for no samples, unknown target modules, settings that do not go together, a
    checkpoint made with other settings, a loss that is not finite, or too little memory.
    """
    check(settings, llm, train, valid)
    rank, processes = process()
    train_data, valid_data = prepare(llm, train, settings), prepare(llm, valid, settings)
    plan = epoch_plan(train_data.lengths, settings, 0)
    per_epoch = len(plan)
    steps = max(1, round(per_epoch * settings.epochs))
    identity = {
        **json.loads(json.dumps(asdict(settings))),
        "model": fingerprint(llm),
        "train": digest(train),
        "valid": digest(valid),
        "start": sha256(start / "adapter_model.safetensors") if start else None,
    }
    with adapted(llm, settings, start) as model, memory_advice(folder):
        weights = Weights(model)
        log = load_checkpoint(folder / "checkpoint", identity, weights)
        began = saved = time.time()
        before = log[-1]["seconds"] if log else 0.0
        bar = tqdm(total=steps, initial=len(log), desc="tuning", unit="step", disable=rank > 0)
        while len(log) < steps and not stalled(log, settings.patience):
            step = len(log)
            epoch, at = divmod(step, per_epoch)
            plan = epoch_plan(train_data.lengths, settings, epoch)
            torch.manual_seed((settings.seed * 1_000_003 + step) * processes + rank)
            model.train()
            loss = torch.zeros((), device=llm.device)
            tokens = train_data.tokens(np.concatenate(plan[at]))
            for numbers in plan[at]:
                mine = numbers[rank::processes]
                if len(mine):
                    part = loss_sum(model, train_data.batch(mine, llm)) / tokens
                    part.backward()
                    weights.collect()
                    loss += part.detach()
            add_up([loss, *(weight.grad for weight in weights.exact.values())])
            row = {
                "step": step + 1,
                "epoch": (step + 1) / per_epoch,
                "train_loss": finite(loss.item(), f"step {step + 1}, {naming(plan[at])}", folder),
                "valid_loss": None,
                "learning_rate": learning_rate(step, steps, settings),
                "seconds": round(before + time.time() - began, 2),
            }
            weights.move(row["learning_rate"])
            if at == per_epoch - 1 or step == steps - 1:
                size = settings.micro_batch or settings.batch_size
                measured = evaluate(llm, model, valid_data, size)
                row["valid_loss"] = finite(measured, f"step {step + 1}, validation", folder)
                if rank == 0 and measured < lowest(log):
                    save_adapter(model, folder)
            log.append(row)
            if rank == 0 and (row["valid_loss"] or time.time() - saved > SAVE_SECONDS):
                save_checkpoint(folder / "checkpoint", identity, weights, log)
                saved = time.time()
            bar.update()
            bar.set_postfix(loss=f"{row['train_loss']:.3f}", rate=f"{row['learning_rate']:.1e}")
        bar.close()
    frame = pd.DataFrame(log)
    if rank == 0:
        write_text(frame.to_csv(index=False), folder / "log.csv")
    return frame


def learning_rate(step: int, steps: int, settings: Tuning) -> float:
    """The rate of a step (from 0): a linear rise over `warmup` steps, then the schedule."""
    if step < settings.warmup:
        return settings.learning_rate * step / settings.warmup
    done = (step - settings.warmup) / max(1, steps - settings.warmup)
    shape = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}
    return settings.learning_rate * shape[settings.schedule]


def check(settings: Tuning, llm: LLM, train: Sequence[Sample], valid: Sequence[Sample]) -> None:
    """Refuse, before any work, what cannot be tuned."""
    if not train or not valid:
        raise StudyError("tuning needs at least one training and one validation sample")
    if settings.schedule not in ("linear", "cosine", "constant"):
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
    """The LLM's model with an adapter to tune, for a while.

    On a CPU with plain attention, whose gradient is faster there than the fused one's.
    """
    training, attention = llm.model.training, llm.model.config._attn_implementation
    model = add_adapter(llm, settings, start)
    if llm.device.type == "cpu":
        llm.model.set_attn_implementation("eager")
    if settings.gradient_checkpointing:
        llm.model.activation_checkpointing_enable()
    try:
        yield model
    finally:
        if settings.gradient_checkpointing:
            llm.model.activation_checkpointing_disable()
        llm.model.set_attn_implementation(attention)
        model.unload()
        llm.model.train(training)


def validations(log: list[dict]) -> list[float]:
    return [row["valid_loss"] for row in log if row["valid_loss"] is not None]


def lowest(log: list[dict]) -> float:
    return min(validations(log), default=math.inf)


def stalled(log: list[dict], patience: int) -> bool:
    """Whether the last `patience` validations brought nothing better than what was before them."""
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
    """Say which settings to lower when memory is out."""
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


def save_checkpoint(folder: Path, identity: dict, weights: Weights, log: list[dict]) -> None:
    """Write the state after the last step of `log`: weights and moments, identity and log."""
    from safetensors.torch import save_file

    with atomic(folder) as partial:
        partial.mkdir()
        save_file(weights.state(), partial / "state.safetensors")
        write_json({"identity": identity, "log": log}, partial / "log.json")


def load_checkpoint(folder: Path, identity: dict, weights: Weights) -> list[dict]:
    """Put a saved state back and return its log; [] where there is none.

    Random states need no place in it: batches and dropout follow from seed and step alone.
    Raises StudyError, with their names, if settings or samples differ from the checkpoint's.
    """
    from safetensors.torch import load_file

    if not folder.exists():
        return []
    saved = json.loads((folder / "log.json").read_text(encoding="utf-8"))
    differing = [name for name in identity if saved["identity"].get(name) != identity[name]]
    if differing:
        raise StudyError(
            f"{folder} was made with other {', '.join(differing)}: remove it, or tune with the "
            "settings it has"
        )
    state = load_file(folder / "state.safetensors")
    weights.restore(state, len(saved["log"]))
    return saved["log"]


def digest(given: Sequence[Sample]) -> str:
    text = "\0".join(f"{sample.prompt}\0{sample.answer}" for sample in given)
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(llm: LLM) -> str:
    """The model's name, dtype, and the sum of the bytes of its weights."""
    total = sum(
        int(weight.data.contiguous().view(-1).view(torch.uint8).sum())
        for weight in llm.model.parameters()
    )
    return f"{llm.name} {llm.model.dtype} {total}"


# ----------------------------------------------------------------------------------- processes


def process() -> tuple[int, int]:
    """This process's number and how many there are; joins them on first use."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized():
        dist.init_process_group()
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def add_up(tensors: list[Tensor]) -> None:
    """Replace tensors by their sums over all processes, in one message."""
    if process()[1] == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


# ---------------------------------------------------------------------------- before and after


def greedy(llm: LLM, texts: Sequence[str], max_new_tokens: int = 24) -> list[str]:
    """What the model writes after each prompt, taking the likeliest token each time."""
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
