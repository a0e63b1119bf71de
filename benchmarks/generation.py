"""Beam search of this project against Hugging Face `generate`, and against the hardware.

    python benchmarks/generation.py [--quick] [--json FILE] [--model NAME] [--data READER]

SmolLM2-135M, or the LLM named, with a LoRA adapter (tuned once, kept in the cache folder), 4 beams,
bfloat16, prompts of ML-100K; with `--data amazon2018-game` those of games, whose titles are longer.
All alternatives take turns within a round, so they share the load:

engine       bigrec_lib.method.generation
generate     `generate` on the same prompts sorted by length, with the same limit, at its best batch
             size of 1, 8, 16 and 32
reference    the authors' settings: `generate`, batch 8, up to 128 new tokens, prompts as they come,
             the adapter not merged
floor        only the matrix products with the model's weights that the engine makes, padding
             included, on ones
"""

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import Calls, arguments, finish, floor, generation_calls
from tqdm import tqdm

from bigrec_lib.method import assets, generation, prompts, readers, samples, sequences, tuning
from bigrec_lib.method.beams import Rules, Search, answer_tokens, room_for
from bigrec_lib.method.llm import LLM, load_llm
from bigrec_lib.method.samples import Sample
from bigrec_lib.study.parameters import TuneLLM
from bigrec_lib.study.provenance import peak_memory_gb

MODEL = "smollm2-135m-instruct"
SIZES = (1, 8, 16, 32)


def data(reader: str) -> tuple[str, dict[str, pd.DataFrame], list[str]]:
    """The domain of a data set, its examples by split, its titles."""
    corpus = readers.load(reader)
    parts = sequences.split(sequences.examples(corpus))
    frames = {name: part.to_pandas() for name, part in parts.items()}
    return corpus.domain, frames, corpus.items.title.tolist()


def drawn(llm: LLM, reader: str, split: str, count: int) -> list[Sample]:
    """Random examples of a split, the same every time."""
    domain, parts, titles = data(reader)
    frame = parts[split].sample(count, random_state=0)
    return samples.samples(frame, titles, prompts.domain(domain), llm.tokenizer, 512)


def tune(model: str, reader: str, folder: Path, count: int) -> None:
    """Make the adapter. Runs in a process of its own, so that its memory is not counted here."""
    llm = load_llm(model)
    train = drawn(llm, reader, "train", count)
    valid = drawn(llm, reader, "valid", 16)
    tuning.tune(llm, train, valid, tuning.Tuning(**TuneLLM().settings), folder)


def prepared(model: str, reader: str, quick: bool) -> Path:
    """The folder of the adapter, tuned before if it is not there."""
    count = 32 if quick else 512
    folder = assets.cache_dir() / "benchmarks" / model.replace("/", "--") / f"{reader}-{count}"
    if not (folder / "log.csv").exists():
        child = multiprocessing.get_context("spawn").Process(
            target=tune, args=(model, reader, folder, count)
        )
        child.start()
        child.join()
    return folder


def by_generate(llm: LLM, texts: list[str], search: Search) -> list:
    """Beams (token ids, score) of each prompt by `generate`: merged adapter, sorted by length."""
    tokens = llm.tokenizer(texts)["input_ids"]
    order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
    with generation.plain(llm.model) as model:
        rules = Rules(search, llm.tokenizer.eos_token_id)
        generated = generation.hugging_face(model, [tokens[i] for i in order], rules)
    return [generated[order.index(i)] for i in range(len(order))]


def texts_of(llm: LLM, found: list) -> list[list[str]]:
    decode = llm.tokenizer.decode
    return [[decode(ids, skip_special_tokens=True) for ids, _ in beams] for beams in found]


def rotating(cases: dict[str, tuple[Callable[[], object], int]]) -> dict[str, list[float]]:
    """Seconds per example of every case: what to call, and for how many examples. One round; no
    warm-up, since each takes tens of seconds."""
    taken = {}
    for name, (case, count) in tqdm(cases.items(), leave=False):
        start = time.perf_counter()
        case()
        taken[name] = [(time.perf_counter() - start) / count]
    return taken


def speed(llm: LLM, texts: list[str], search: Search, quick: bool) -> dict[str, object]:
    """Seconds per example of engine, `generate`, reference and floor, and the ratios."""
    calls: Calls = []
    half = sorted(texts, key=len)[:: 1 if quick else 2]  # enough of `generate`, short and long
    some = {1: half[::8], 8: half, 16: half, 32: half}
    found: dict[str, list] = {}

    def generate(size):
        found[f"generate {size}"] = by_generate(llm, some[size], replace(search, batch_size=size))

    def engine():
        calls[:], found["engine"] = generation_calls(llm, texts, search)

    few = llm.tokenizer(texts[: 2 if quick else 16])["input_ids"]
    authors = Rules(
        Search(max_new_tokens=128, beams=search.beams, batch_size=8), llm.tokenizer.eos_token_id
    )
    cases: dict[str, tuple[Callable[[], object], int]] = {
        "engine": (engine, len(texts)),
        **{
            f"generate {size}": (partial(generate, size), len(some[size]))
            for size in ((8,) if quick else SIZES)
        },
        "reference": (
            lambda: generation.hugging_face(llm.model, few, authors),
            len(few),
        ),
        "floor": (lambda: floor(llm.model.get_base_model(), calls), len(texts)),
    }
    each = rotating(cases)
    best = min((name for name in each if "generate" in name), key=lambda name: each[name][0])
    again = ("engine", best, "reference", "floor")
    for _ in range(0 if quick else 1):
        for name, values in rotating({name: cases[name] for name in again}).items():
            each[name] += values

    least = {name: min(values) for name, values in each.items()}

    def ratio(name, to):
        return round(least[name] / least[to], 2)

    ours = dict(zip(texts, found["engine"], strict=True))
    first = zip((ours[text] for text in half), texts_of(llm, found["generate 8"]), strict=True)
    return {
        "seconds_per_example": {name: round(value, 4) for name, value in least.items()},
        "best_generate": best,
        "speedup_vs_generate": ratio(best, "engine"),
        "speedup_vs_reference": ratio("reference", "engine"),
        "over_floor": ratio("engine", "floor"),
        "identical_first_beams_bf16": round(
            float(np.mean([beams[0].text == other[0] for beams, other in first])), 3
        ),
    }


def memory(llm: LLM, texts: list[str], search: Search, few: int) -> dict[str, float]:
    """Peak memory of this process after a few prompts, after half of `texts` and after all."""
    peaks, done = {}, 0
    for count in sorted({few, len(texts) // 2, len(texts)}):
        generation.generate(llm, texts[done:count], search)
        peaks[str(count)], done = round(peak_memory_gb(), 2), count
    return peaks


def growth(llm: LLM, texts: list[str], search: Search) -> dict[str, object]:
    """Seconds per example of the engine over beams and over batch size."""

    def taken(prompts, **changes):
        start = time.perf_counter()
        generation.generate(llm, prompts, replace(search, **changes))
        return round((time.perf_counter() - start) / len(prompts), 4)

    return {
        "seconds_by_beams": {str(n): taken(texts[:16], beams=n) for n in (1, 2, 4, 8)},
        "seconds_by_batch": {str(n): taken(texts[:32], batch_size=n) for n in (8, 16, 32)},
    }


def equality(exact: LLM, texts: list[str], search: Search) -> dict[str, object]:
    """In float32: share of prompts with the very beams of `generate`, and the worst score gap."""
    ours = generation.generate(exact, texts, search)
    theirs = by_generate(exact, texts, replace(search, batch_size=8))
    same = [
        [beam.text for beam in beams] == other
        for beams, other in zip(ours, texts_of(exact, theirs), strict=True)
    ]
    gaps = [
        abs(beam.score - score)
        for beams, other, equal in zip(ours, theirs, same, strict=True)
        for beam, (_, score) in zip(beams, other, strict=True)
        if equal
    ]
    return {"identical_beams_fp32": sum(same) / len(same), "score_gap_fp32": float(max(gaps))}


@torch.inference_mode()
def merging(llm: LLM, exact: LLM, some: list[Sample]) -> dict[str, list[float]]:
    """How far bfloat16 is from float32 with the adapter merged into the weights, and kept separate:
    Kullback-Leibler divergence of the next token's probabilities, mean over all tokens of the
    true titles; then its standard error over examples."""
    encoded = [samples.encode(llm.tokenizer, sample) for sample in some]

    def logs(model):
        found = []
        for each in encoded:
            ids = torch.from_numpy(each.ids)[None]
            found.append(model(input_ids=ids).logits[0, -each.learnt - 1 : -1].float())
        return [logits.log_softmax(-1) for logits in found]

    truth = logs(exact.model)

    def divergence(found):
        pairs = zip(truth, found, strict=True)
        each = [(true.exp() * (true - near)).sum(-1).mean().item() for true, near in pairs]
        return [float(f"{x:.2g}") for x in (np.mean(each), np.std(each) / len(each) ** 0.5)]

    with generation.plain(llm.model) as merged:
        together = divergence(logs(merged))
    return {"divergence_merged": together, "divergence_separate": divergence(logs(llm.model))}


def main() -> None:
    args = arguments(__doc__.splitlines()[0], MODEL, "ml-100k")
    adapter = prepared(args.model, args.data, args.quick)
    llm = load_llm(args.model, adapter=adapter)
    _, _, titles = data(args.data)
    tested = drawn(llm, args.data, "test", 4 if args.quick else 256)
    texts = [sample.prompt for sample in tested]
    limit = room_for(answer_tokens(llm.tokenizer, titles))
    search = Search(max_new_tokens=limit, beams=4, batch_size=32)
    few = texts[:64]
    result: dict[str, object] = {
        "model": args.model,
        "data": args.data,
        "prompts": len(few),
        "max_new_tokens": limit,
    }
    result["peak_gb_by_prompts"] = memory(llm, texts, search, len(few))
    result |= speed(llm, few, search, args.quick)
    if not args.quick:
        result |= growth(llm, texts, search)
    exact = load_llm(args.model, dtype="float32", adapter=adapter)
    if not args.quick:
        result |= merging(llm, exact, tested[:24])
    result |= equality(exact, texts[: 2 if args.quick else 16], search)
    for key, value in result.items():
        print(f"{key:28} {value}")
    finish(result, args)


if __name__ == "__main__":
    main()
