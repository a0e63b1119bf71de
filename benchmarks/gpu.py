"""Self-test and figures of a machine with a CUDA device: `make gpu`.

    python benchmarks/gpu.py [--quick] [--json FILE] [--model NAME]

It needs PyTorch, transformers, peft, accelerate, bitsandbytes and numba, no hub and no data: LLMs
of the shapes of LLaMA-7B and TinyLlama-1.1B are made on the spot, of random weights, with titles of
random words. The default LLM takes part where it is cached. What does not fit the device is left
out, and said so. Checked, on the smaller LLM:

tuning      in 4 and 8 bit, the losses of the same steps as on a CPU
search      in float32, the beams of `generate`; in 4 bit, with the adapter apart, their scores
embedding   in float32, the vectors of a CPU; in bfloat16, nearly these
grounding   exact ranks by blocks, as by all distances in float64
processes   with several GPUs, tuning under `accelerate launch` as in one process

Measured, on every LLM: seconds a sample of tuning and an example of generation, next to the floor
of the bare matrix products, and the memory of the device.

Without a CUDA device the same code runs on two tiny LLMs, in place of the device the 4- and 8-bit
layers themselves (on a CPU, a study unpacks them once): a test of this file, in half a minute.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from common import arguments, finish, floor, generation_calls, tuning_calls

from bigrec_lib.method import adapters, assets, embedding, generation, grounding, losses, prompts
from bigrec_lib.method import llm as llms
from bigrec_lib.method.beams import Rules, Search
from bigrec_lib.method.llm import LLM
from bigrec_lib.method.samples import Sample
from bigrec_lib.method.tuning import Tuning, tune

MODEL = "smollm2-135m-instruct"
TOLERANCE = {"nf4": 0.02, "int8": 0.05}  # of losses; in 8 bit a GPU rounds activations as well
SAME_BEAMS = 0.95  # share of prompts with the same beams: float32 rounds otherwise in other shapes
SAME_SCORES = {True: 1e-3, False: 1e-2}  # difference, of plain weights and of packed ones
SAME_VECTORS = {"float32": 1e-3, "bfloat16": 5e-2}  # relative difference

LLAMA: dict[str, float] = {"vocab_size": 32_000, "max_position_embeddings": 2048}
SHAPES = {
    "random 1.1B": LLAMA
    | {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22}
    | {"num_attention_heads": 32, "num_key_value_heads": 4},
    "random 7B": LLAMA
    | {"hidden_size": 4096, "intermediate_size": 11_008, "num_hidden_layers": 32}
    | {"num_attention_heads": 32, "num_key_value_heads": 32},
}
TINY: dict[str, float] = {
    "vocab_size": 1200,
    "max_position_embeddings": 2048,
    "initializer_range": 0.1,
}
TINY |= {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4}
TINY_SHAPES = {
    "tiny": TINY | {"num_hidden_layers": 2, "num_key_value_heads": 2},
    "tiny, deeper": TINY | {"num_hidden_layers": 4, "num_key_value_heads": 4},
}
SETTINGS = Tuning(
    epochs=1,
    learning_rate=3e-4,
    schedule="linear",
    warmup=0,
    rank=8,
    alpha=16,
    dropout=0.0,
    target_modules=("q_proj", "v_proj"),
    batch_size=4,
    micro_batch=0,
    patience=0,
    learn_prompt=False,
    gradient_checkpointing=False,
    seed=0,
)


@dataclass(frozen=True)
class Sizes:
    """How much is computed."""

    checked: int  # samples and prompts of checks
    timed: int  # samples and prompts of measurements
    titles: int
    new_tokens: int


# ------------------------------------------------------------------------------------ the world


def made_titles(count: int) -> list[str]:
    """Distinct titles of two to five made-up words."""
    rng = np.random.default_rng(0)
    syllables = ["ka", "lo", "mi", "ren", "sta", "to", "vel", "zan", "dor", "qui", "pe", "sha"]
    words = ["".join(rng.choice(syllables, rng.integers(1, 4))).title() for _ in range(400)]
    titles: dict[str, None] = {}
    while len(titles) < count:
        titles[
            f"{' '.join(rng.choice(words, rng.integers(2, 6)))} ({rng.integers(1950, 2020)})"
        ] = None
    return list(titles)


def made_samples(titles: list[str], count: int) -> list[Sample]:
    """Histories of ten titles, and the next one."""
    rng = np.random.default_rng(1)
    drawn = [rng.choice(titles, 11, replace=False).tolist() for _ in range(count)]
    words = prompts.domain("movies")
    return [Sample(prompts.prompt(each[:10], words), prompts.answer(each[10])) for each in drawn]


def make_tokenizer(folder: Path, titles: list[str], size: int) -> None:
    """Save a byte-level BPE tokenizer that learnt prompts, filled up to `size` tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([each.prompt for each in made_samples(titles, 200)], trainer)
    whole = json.loads(tokenizer.to_str())
    vocabulary = whole["model"]["vocab"]
    vocabulary |= {f"token{number}.": number for number in range(len(vocabulary), size)}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(whole)),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )
    fast.save_pretrained(folder)


def make_llm(folder: Path, shape: dict[str, float], titles: list[str], device: str) -> None:
    """Save a Llama of random weights in bfloat16, made on the device, and its tokenizer."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    make_tokenizer(folder, titles, int(shape["vocab_size"]))
    torch.manual_seed(0)
    config = LlamaConfig(**shape, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)


def make_adapter(llm: LLM, folder: Path) -> None:
    """Save an adapter of random weights, small and not zero."""
    lora = (SETTINGS.rank, SETTINGS.alpha, SETTINGS.dropout, SETTINGS.target_modules)
    model = adapters.add_adapter(llm, *lora, seed=0)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) * 0.02)
    folder.mkdir(parents=True, exist_ok=True)
    adapters.save_adapter(model, folder)
    model.unload()


def load(folder: str, quantisation: str, dtype: str, device: str, adapter: Path | None = None):
    """An LLM whose layers of 4 and 8 bit stay packed, however much room there is."""
    if quantisation == "none":
        return llms.load_llm(folder, quantisation, dtype, device, adapter)
    from transformers import AutoModelForCausalLM

    with llms.without_notices():
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            device_map=device,
            quantization_config=llms.quantisation_config(quantisation, dtype),
        )
    if adapter:
        model = llms.with_adapter(model, adapter)
    return LLM(folder, model.eval(), llms.load_tokenizer(folder))


def needed(shape: dict[str, float], quantisation: str) -> float:
    """The GB that the weights of a Llama take: its linear layers packed, all others in 16 bit."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**shape), dtype=torch.bfloat16)
    head = model.get_output_embeddings()
    linear = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    packed = sum(layer.weight.numel() for layer in linear if layer is not head)
    each = {"none": 2.0, "int8": 1.0, "nf4": 0.5 + 1 / 64}[quantisation]  # a scale for 64 weights
    return (packed * each + (model.num_parameters() - packed) * 2) / 1e9


# ------------------------------------------------------------------------------------- checks


def losses_of(llm: LLM, samples: list[Sample], start: Path, folder: Path) -> list[float]:
    """Training losses of every step, and the validation loss after them."""
    held = len(samples) // 4
    log = tune(llm, samples[held:], samples[:held], SETTINGS, folder, start)
    return [*log.train_loss, log.valid_loss.iloc[-1]]


def check_tuning(
    folder: str, quantisation: str, samples: list[Sample], start: Path, device: str, scratch: Path
) -> dict[str, object]:
    """The largest difference of a loss between the device and a CPU, after the same steps."""
    there = losses_of(
        load(folder, quantisation, "bfloat16", device), samples, start, scratch / "there"
    )
    here = losses_of(
        llms.load_llm(folder, quantisation, device="cpu"), samples, start, scratch / "here"
    )
    gap = max(abs(one - other) for one, other in zip(there, here, strict=True))
    return {
        "ok": gap <= TOLERANCE[quantisation],
        "largest gap": round(float(gap), 5),
        "tolerance": TOLERANCE[quantisation],
        "loss before and after": [round(float(there[0]), 3), round(float(there[-1]), 3)],
    }


def check_search(llm: LLM, texts: list[str], search: Search) -> dict[str, object]:
    """The share of prompts that get the beams of `generate`, in scores, and in texts too where
    weights are plain: packed ones are multiplied less exactly, and differently in each shape."""
    ours = generation.generate(llm, texts, search)
    tokens = llm.tokenizer(texts)["input_ids"]
    rules = Rules(replace(search, batch_size=1), llm.tokenizer.eos_token_id)
    with generation.plain(llm.model) as model:
        theirs = generation.hugging_face(model, tokens, rules)
    plain = not getattr(llm.model.get_base_model(), "is_quantized", False)
    same = []
    for beams, other in zip(ours, theirs, strict=True):
        gap = max(abs(beam.score - score) for beam, (_, score) in zip(beams, other, strict=True))
        written = [prompts.decode(llm.tokenizer, ids) for ids, _ in other]
        equal = not plain or [beam.text for beam in beams] == written
        same.append(equal and gap <= SAME_SCORES[plain])
    return {"ok": np.mean(same) >= SAME_BEAMS, "same beams": round(float(np.mean(same)), 3)}


def check_embedding(
    folder: str, dtype: str, titles: list[str], device: str
) -> tuple[dict[str, object], np.ndarray]:
    """How far vectors are from those of a CPU in float32, at most, looked at for a few; and all
    vectors (n, d)."""
    exact = embedding.embed(llms.load_llm(folder, dtype="float32", device="cpu"), titles[:100])
    vectors = embedding.embed(llms.load_llm(folder, dtype=dtype, device=device), titles)
    few = vectors[: len(exact)]
    gap = np.linalg.norm(few - exact, axis=1) / np.linalg.norm(exact, axis=1)
    return {"ok": gap.max() <= SAME_VECTORS[dtype], "largest gap": float(gap.max())}, vectors


def check_grounding(vectors: np.ndarray, device: str) -> dict[str, object]:
    """Whether ranks by blocks are those of all distances in float64, computed on the device."""
    rng = np.random.default_rng(2)
    targets = rng.integers(0, len(vectors), 200)
    queries = vectors[targets] + rng.normal(size=(200, vectors.shape[1])).astype(np.float32) * (
        vectors.std(0) * 1.5
    )
    queries[::3] = vectors[targets[::3]]
    ranks = grounding.ranks(queries, vectors, targets)
    left, right = (torch.from_numpy(each).to(device).double() for each in (queries, vectors))
    squares = torch.stack([(right - each).square().sum(1) for each in left])
    own = squares.gather(1, torch.from_numpy(targets).to(device)[:, None])
    nearer = (squares < own).sum(1).cpu().numpy()
    return {"ok": (ranks["rank"] == nearer).all(), "median rank": float(np.median(nearer))}


def check_processes(
    folder: str, samples: list[Sample], start: Path, device: str, scratch: Path
) -> dict[str, object]:
    """Tuning in a process for each GPU (on a CPU: two) as in one."""
    count = torch.cuda.device_count() if device != "cpu" else 2
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_processes", str(count)]
    command += ["--multi_gpu", __file__, "tune", folder, str(len(samples)), str(start)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(scratch / "several")], capture_output=True, text=True, env=env
    )
    if done.returncode:
        return {"ok": False, "processes": count, "error": done.stderr[-2000:]}
    several = json.loads(done.stdout.splitlines()[-1])
    one = losses_of(
        llms.load_llm(folder, dtype="float32", device=device), samples, start, scratch / "one"
    )
    gap = max(abs(first - second) for first, second in zip(one, several, strict=True))
    return {"ok": gap <= 1e-3, "processes": count, "largest gap": float(gap)}


def tune_share(folder: str, count: str, start: str, output: str) -> None:
    """In one of several processes: tune, and let the first one print the losses."""
    samples = made_samples(made_titles(200), int(count))
    found = losses_of(llms.load_llm(folder, dtype="float32"), samples, Path(start), Path(output))
    if int(os.environ.get("RANK", 0)) == 0:
        print(json.dumps(found))


# ------------------------------------------------------------------------------- measurements


def seconds(work: Callable[[], object], device: str) -> float:
    """Seconds of a work on the device, until it has really ended."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(
    folder: str, name: str, quantisation: str, start: Path, sizes: Sizes, titles, device: str
) -> dict[str, object]:
    """Tuning and generation of one LLM: seconds, times the floor, and peak memory of each."""
    samples = made_samples(titles, sizes.timed + sizes.timed // 4)
    timed, held = samples[: sizes.timed], samples[sizes.timed :]
    settings = replace(SETTINGS, batch_size=16, micro_batch=4, dropout=0.05)
    search = Search(max_new_tokens=sizes.new_tokens, beams=4, batch_size=32)
    texts = [sample.prompt for sample in timed]
    row: dict[str, object] = {"llm": name, "quantisation": quantisation}

    def memory() -> float:
        if device == "cpu":
            return 0.0
        peak = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
        return round(peak, 2)

    base = load(folder, quantisation, "bfloat16", device)
    row["loaded_gb"] = memory()
    data = losses.prepare(base, timed, settings.learn_prompt, may_share=True)
    calls = tuning_calls(base, data, settings)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        tune(base, timed[:4], held[:1], settings, place / "warm")
        memory()
        taken = seconds(lambda: tune(base, timed, held[:4], settings, place / "timed"), device)
    floor(base.model, calls[:1], backward=True)
    least = seconds(lambda: floor(base.model, calls, backward=True), device)
    row |= {
        "tuning_seconds_per_sample": taken / len(timed),
        "tuning_over_floor": taken / least,
        "tuning_gb": memory(),
    }
    tuned = LLM(name, llms.with_adapter(base.model, start).eval(), base.tokenizer)
    calls, _ = generation_calls(tuned, texts, search)  # warms up as well
    memory()
    taken = seconds(lambda: generation.generate(tuned, texts, search), device)
    least = seconds(lambda: floor(base.model, calls), device)
    row |= {
        "generation_seconds_per_example": taken / len(texts),
        "generation_over_floor": taken / least,
        "generation_gb": memory(),
    }
    return {key: round(v, 5) if isinstance(v, float) else v for key, v in row.items()}


def room(device: str, folder: Path) -> tuple[float, float]:
    """GB free on the device, and on the disk."""
    free = torch.cuda.mem_get_info()[0] if device != "cpu" else 1e12
    return free / 1e9, shutil.disk_usage(folder).free / 1e9


def checks(folder: str, titles: list[str], start: Path, sizes: Sizes, device: str, scratch: Path):
    """All checks of one LLM, by name: each a dict with `ok`."""
    samples = made_samples(titles, sizes.checked)
    texts = [sample.prompt for sample in samples]
    search = Search(max_new_tokens=sizes.new_tokens, beams=4, batch_size=8)
    found: dict[str, dict[str, object]] = {}

    def note(name: str, result: dict[str, object]) -> None:
        found[name] = result | {"ok": bool(result["ok"])}
        details = ", ".join(f"{key} {value}" for key, value in result.items() if key != "ok")
        print(f"{'ok    ' if result['ok'] else 'FAILED'} {name}: {details}", flush=True)

    for quantisation in TOLERANCE:
        place = scratch / quantisation
        note(
            f"tuning in {quantisation} as on a CPU",
            check_tuning(folder, quantisation, samples, start, device, place),
        )
    exact = load(folder, "none", "float32", device, start)
    note("search as by generate, float32", check_search(exact, texts, search))
    packed = load(folder, "nf4", "float32", device, start)
    note("scores as by generate, nf4", check_search(packed, texts, search))
    del exact, packed
    for dtype in SAME_VECTORS:
        result, vectors = check_embedding(folder, dtype, titles, device)
        note(f"embedding in {dtype} as on a CPU", result)
    note("grounding exact", check_grounding(vectors, device))
    if device == "cpu" or torch.cuda.device_count() > 1:
        note(
            "tuning in several processes as in one",
            check_processes(folder, samples, start, device, scratch),
        )
    return found


def cached(name: str) -> Path | None:
    """The folder of a default LLM, if it has been fetched."""
    if name not in assets.MODELS:
        return None
    folder = assets.cache_dir() / f"{name}-{assets.MODELS[name].digest[:12]}"
    return folder if folder.exists() else None


def main() -> None:
    args = arguments(__doc__.splitlines()[0], MODEL)
    device = llms.best_device("auto")
    tiny = device == "cpu"
    shapes = TINY_SHAPES if tiny else SHAPES
    sizes = Sizes(12, 16, 200, 6) if tiny else Sizes(16, 64, 2000, 20)
    what = "no GPU: tiny LLMs on the CPU" if tiny else torch.cuda.get_device_name()
    print(f"{what}, PyTorch {torch.__version__}", flush=True)
    titles = made_titles(sizes.titles)
    found: dict[str, dict[str, object]] = {}
    rows: list[dict[str, object]] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        if not tiny and (folder := cached(args.model)):
            place = Path(scratch) / "default"
            rows += measured(str(folder), args.model, place, sizes, titles, device, args.quick)
        for name, shape in list(shapes.items())[: 1 if args.quick else None]:
            place = Path(scratch) / name
            gb = needed(shape, "none")
            if gb > 0.9 * min(room(device, Path(scratch))):
                left_out.append(f"{name}: {gb:.1f} GB of weights")
                continue
            make_llm(place / "llm", shape, titles, device)
            rows += measured(str(place / "llm"), name, place, sizes, titles, device, args.quick)
            if not found:
                found = checks(str(place / "llm"), titles, place / "adapter", sizes, device, place)
            shutil.rmtree(place)
    ok = all(result["ok"] for result in found.values())
    for line in left_out:
        print(f"left out: {line}")
    result = {"device": what, "torch": torch.__version__, "ok": ok, "checks": found}
    finish({**result, "measured": rows, "left_out": left_out}, args)
    sys.exit(not ok)


def measured(
    folder: str, name: str, place: Path, sizes: Sizes, titles: list[str], device: str, quick: bool
) -> list[dict[str, object]]:
    """A row for each quantisation; leaves an adapter in `place`."""
    make_adapter(llms.load_llm(folder, device=device), place / "adapter")
    rows = []
    for quantisation in ("nf4",) if quick else ("nf4", "int8", "none"):
        row = measure(folder, name, quantisation, place / "adapter", sizes, titles, device)
        print(row, flush=True)
        rows.append(row)
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["tune"]:
        tune_share(*sys.argv[2:])
    else:
        main()
