"""What the benchmarks share: options, interleaved timing, the floor, the closing JSON line."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from bigrec_lib.files import write_json
from bigrec_lib.study import environment

if TYPE_CHECKING:
    from bigrec_lib.method.beams import Search
    from bigrec_lib.method.generation import Beam
    from bigrec_lib.method.llm import LLM
    from bigrec_lib.method.losses import Data
    from bigrec_lib.method.tuning import Tuning

Calls = list[tuple[int, int]]  # vectors through the layers, and through the head, of every call


def arguments(
    description: str, model: str = "", data: str = "", quick: str = "under a minute"
) -> argparse.Namespace:
    """The options every benchmark takes: `quick` and `json` (a path or None).

    Begins the process anew unless it has the variables that a batch sets for its own.
    model, data: defaults of the options of these names, for those that time an LLM, or take
    prompts from more than one data set; quick: how long that takes.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help=f"smaller sizes, {quick}")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    if model:
        parser.add_argument("--model", default=model, help=f"LLM to time; otherwise {model}")
    if data:
        parser.add_argument("--data", default=data, help=f"reader of the prompts; otherwise {data}")
    given = parser.parse_args()
    if not environment.MEMORY.keys() & os.environ.keys():
        environment.settle()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return given


def interleaved(cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every case in every round; a round runs each case once, so all share the load.

    Every case runs once more before the first round, unmeasured, to warm up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for turn in tqdm(range(rounds + 1), desc="rounds", leave=False):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def tuning_calls(llm: LLM, data: Data, settings: Tuning) -> Calls:
    """The calls of every micro-batch of the first epoch."""
    from bigrec_lib.method import tuning

    calls = []
    for step in tuning.epoch_plan(data.lengths, settings, 0):
        for numbers in step:
            batch = data.batch(numbers, llm)
            calls.append((batch.rest.numel() + batch.shared.shape[1], data.tokens(numbers)))
    return calls


def generation_calls(llm: LLM, texts: list[str], search: Search) -> tuple[Calls, list[list[Beam]]]:
    """The calls that the engine makes for these prompts, and the beams that come of them."""
    from bigrec_lib.method import generation

    calls = []
    original = generation.beam_search

    def note(_, args, kwargs):
        vectors = kwargs["input_ids"].numel()
        heads = len(kwargs["input_ids"]) if "logits_to_keep" in kwargs else vectors
        calls.append((vectors, heads))

    def counted(model, *args):
        hook = model.register_forward_pre_hook(note, with_kwargs=True)
        try:
            return original(model, *args)
        finally:
            hook.remove()

    generation.beam_search = counted
    try:
        beams = generation.generate(llm, texts, search)
    finally:
        generation.beam_search = original
    return calls, beams


def floor(model, calls: Calls, backward: bool = False) -> None:
    """The products of all weights with as many vectors; no attention, no adapter, nothing else.

    backward: those for the gradients of the inputs as well. In place of packed weights, plain ones
    of the same shape.
    """
    import torch

    linear = torch.nn.functional.linear
    head = model.get_output_embeddings().weight
    made: dict[tuple[int, int], torch.Tensor] = {}

    def weight_of(layer) -> torch.Tensor:
        if layer.weight.dtype == head.dtype:
            return layer.weight
        shape = (layer.out_features, layer.in_features)
        return made.setdefault(shape, torch.ones(shape, dtype=head.dtype, device=head.device))

    layers = [
        weight_of(layer)
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and "lora_" not in name and layer.weight is not head
    ]
    sizes = {size for weight in layers for size in weight.shape}
    with torch.inference_mode():
        for vectors, heads in tqdm(calls, desc="floor", leave=False):
            inputs = {size: head.new_ones(vectors, size) for size in sizes}
            for weight in layers:
                linear(inputs[weight.shape[1]], weight)
                if backward:
                    linear(inputs[weight.shape[0]], weight.T)
            linear(inputs[head.shape[1]][:heads], head)
            if backward:
                linear(head.new_ones(heads, head.shape[0]), head.T)


def finish(result: dict[str, object], args: argparse.Namespace) -> None:
    """Print the figures as the last line, in JSON, and write them where `--json` says."""
    if args.json:
        write_json(result, args.json)
    print(json.dumps(result))
