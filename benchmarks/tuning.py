"""QLoRA tuning of this project against peft + `Trainer`, and against the hardware.

    python benchmarks/tuning.py [--quick] [--json FILE] [--model NAME]

SmolLM2-135M, or the LLM named, in bfloat16 from its NF4 weights, LoRA r = 8 on q/k/v/o, prompts of
ML-100K, batches of 8, loss on the answer only. The three take turns:

ours      bigrec_lib.method.tuning.tune, whole: checkpoints, validation and all
trainer   what one would write with peft and `Trainer`: the same base, adapter, optimiser, schedule
          and loss, its own random batches padded to their longest sample
floor     the matrix products of the LLM's linear layers alone, forward and for the gradient of
          their inputs, with as many vectors as our steps have

Both are tuned once more without dropout on the very same batches, to see that they learn the same.
"""

import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import arguments, finish, floor, tuning_calls
from tqdm import tqdm

from bigrec_lib.method import losses, prompts, readers, samples, sequences, tuning
from bigrec_lib.method.adapters import CLIP
from bigrec_lib.method.llm import LLM, load_llm, with_adapter
from bigrec_lib.method.losses import Data
from bigrec_lib.method.samples import Sample
from bigrec_lib.study.parameters import TuneLLM
from bigrec_lib.study.provenance import peak_memory_gb

MODEL = "smollm2-135m-instruct"
SETTINGS = tuning.Tuning(**TuneLLM().settings)
TOLERANCE = 0.02  # between the two validation losses after the same steps


def drawn(llm: LLM, split: str, count: int) -> list[Sample]:
    """Random examples of ML-100K, the same every time."""
    corpus = readers.load("ml-100k")
    part = sequences.split(sequences.examples(corpus))[split]
    frame = sequences.sample(part, count, seed=0).to_pandas()
    titles = corpus.items.title.tolist()
    return samples.samples(frame, titles, prompts.domain("movies"), llm.tokenizer, 512)


def encoded(llm: LLM, chosen: list[Sample]) -> Data:
    """Samples as the tuning sees them: the answer is learnt, the instruction shared."""
    return losses.prepare(llm, chosen, SETTINGS.learn_prompt, may_share=True)


def ours(llm: LLM, train, valid, settings: tuning.Tuning, folder: Path) -> None:
    tuning.tune(llm, train, valid, settings, folder)


def trainer(llm: LLM, train, settings: tuning.Tuning, folder: Path, plan=None) -> None:
    """The usual way. plan: batches to take, in this order, instead of random ones."""
    from peft import LoraConfig, get_peft_model
    from torch.utils.data import DataLoader
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    class Planned(Trainer):
        def get_train_dataloader(self):
            return DataLoader(self.train_dataset, batch_sampler=plan, collate_fn=self.data_collator)

    rows = []
    for sample in train:
        tokens = samples.encode(llm.tokenizer, sample)
        labels = np.full(len(tokens.ids), -100)
        labels[-tokens.learnt :] = tokens.ids[-tokens.learnt :]
        rows.append({"input_ids": tokens.ids.tolist(), "labels": labels.tolist()})
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.target_modules),
    )
    model = get_peft_model(llm.model, config)
    options = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        max_grad_norm=CLIP,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
        dataloader_pin_memory=False,
    )
    kind = Planned if plan is not None else Trainer
    collator = DataCollatorForSeq2Seq(llm.tokenizer)
    kind(model=model, args=options, train_dataset=rows, data_collator=collator).train()
    model.save_pretrained(folder)
    model.unload()


def peak(model: str, case: str, count: int) -> float:
    """Peak memory in GB of one of the two in a process of its own."""
    llm = load_llm(model, "nf4")
    train = drawn(llm, "train", count)
    with tempfile.TemporaryDirectory() as folder:
        if case == "ours":
            ours(llm, train, train[:8], SETTINGS, Path(folder))
        else:
            trainer(llm, train, SETTINGS, Path(folder))
    return peak_memory_gb()


def alone(function, *values):
    """The function's result in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *values).result()


def valid_loss(llm: LLM, folder: Path, valid) -> float:
    """Loss per answer token of a saved adapter, over all validation samples."""
    model = with_adapter(llm.model, folder)
    loss = losses.evaluate(llm, model, encoded(llm, valid), SETTINGS.batch_size)
    model.unload()
    return loss


def same_steps(llm: LLM, train, valid, folder: Path) -> dict[str, object]:
    """Validation losses of both after the same two batches in the same order, without dropout and
    warm-up."""
    settings = replace(SETTINGS, dropout=0.0, warmup=0, batch_size=len(train) // 2)
    steps = tuning.epoch_plan(encoded(llm, train).lengths, settings, 0)
    plan = [np.concatenate(step).tolist() for step in steps]
    ours(llm, train, valid, settings, folder / "ours")
    trainer(llm, train, settings, folder / "trainer", plan)
    loss = {name: valid_loss(llm, folder / name, valid) for name in ("ours", "trainer")}
    gap = abs(loss["ours"] - loss["trainer"])
    return {
        "same_loss": bool(gap <= TOLERANCE),
        "tolerance": TOLERANCE,
        "loss_before": loss_before(llm, valid),
        **{f"loss_{name}": value for name, value in loss.items()},
    }


def loss_before(llm: LLM, valid) -> float:
    """Loss per answer token of the LLM as it is."""
    with tuning.adapted(llm, SETTINGS, None) as model:  # a fresh adapter changes nothing
        return losses.evaluate(llm, model, encoded(llm, valid), SETTINGS.batch_size)


def main() -> None:
    args = arguments(__doc__.splitlines()[0], MODEL)
    count, rounds = (4, 1) if args.quick else (64, 2)
    llm = load_llm(args.model, "nf4")
    train, valid = drawn(llm, "train", count), drawn(llm, "valid", 4 if args.quick else 16)
    calls = tuning_calls(llm, encoded(llm, train), SETTINGS)
    seconds: dict[str, list[float]] = {"ours": [], "trainer": [], "floor": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # first, so that memory is there
        result = same_steps(llm, train[:16], valid, folder)
        for turn in tqdm(range(rounds), desc="rounds"):
            cases = {
                "ours": partial(
                    ours, llm, train, valid[: count // 16 + 1], SETTINGS, folder / f"timed-{turn}"
                ),
                "trainer": partial(trainer, llm, train, SETTINGS, folder / "usual"),
                "floor": partial(floor, llm.model, calls, backward=True),
            }
            for name, case in cases.items():
                start = time.perf_counter()
                case()
                seconds[name].append(time.perf_counter() - start)
    least = {name: min(each) / count for name, each in seconds.items()}
    result |= {
        "model": args.model,
        "speedup_vs_trainer": round(least["trainer"] / least["ours"], 2),
        "over_floor": round(least["ours"] / least["floor"], 2),
        "steps": len(calls),
        "samples_per_second": {name: round(1 / each, 2) for name, each in least.items()},
    }
    if not args.quick:
        result["peak_gb"] = {
            name: round(alone(peak, args.model, name, 16), 2) for name in ("ours", "trainer")
        }
    print(pd.Series(result).to_string())
    finish(result, args)


if __name__ == "__main__":
    main()
