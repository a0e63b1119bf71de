"""The likelihood of every title of ML-100K after a prompt, against reading each title on its own.

    python benchmarks/likelihood.py [--quick] [--json FILE] [--model NAME]

SmolLM2-135M, or the LLM named, with the LoRA adapter of generation.py, bfloat16.

tree         bigrec_lib.method.likelihood
one by one   `transformers`: prompt and title as one text, in batches of 16 of like length; timed on
             a part of the titles and scaled up
"""

import time

import numpy as np
import torch
from common import arguments, finish
from generation import MODEL, data, drawn, prepared

from bigrec_lib.method import generation, likelihood
from bigrec_lib.method.beams import answer_tokens
from bigrec_lib.method.llm import load_llm
from bigrec_lib.study.provenance import peak_memory_gb

READER, BATCH = "ml-100k", 16


@torch.inference_mode()
def one_by_one(model, prompt: list[int], answers: list[list[int]]) -> np.ndarray:
    """log p of each answer after the prompt, (N,)."""
    found = np.empty(len(answers))
    order = sorted(range(len(answers)), key=lambda number: len(answers[number]))
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        width = max(len(answers[number]) for number in part)
        ids = [prompt + answers[n] + [0] * (width - len(answers[n])) for n in part]
        logits = model(input_ids=torch.tensor(ids), logits_to_keep=width + 1).logits.float()
        steps = logits.log_softmax(-1)  # (b, width + 1, V), the first one after the prompt
        for number, of_title in zip(part, steps, strict=True):
            answer = torch.tensor(answers[number])
            found[number] = of_title[torch.arange(len(answer)), answer].sum()
    return found


def main() -> None:
    args = arguments(__doc__.partition("\n")[0], MODEL)
    folder = prepared(args.model, READER, args.quick)
    llm = load_llm(args.model, adapter=folder)
    titles = sorted(set(data(READER)[2]))[: 200 if args.quick else None]
    answers = answer_tokens(llm.tokenizer, titles)
    parts = likelihood.blocks(answers)
    texts = [sample.prompt for sample in drawn(llm, READER, "test", 1 if args.quick else 3)]
    prompts = llm.tokenizer(texts)["input_ids"]
    some = np.random.default_rng(0).permutation(len(titles))[:64].tolist()
    taken: dict[str, float] = {"tree": 0.0, "one by one": 0.0}
    apart = 0.0
    with generation.plain(llm.model) as model:
        for prompt in prompts:
            start = time.perf_counter()
            ours = likelihood.of_prompt(model, prompt, parts)
            middle = time.perf_counter()
            theirs = one_by_one(model, prompt, [answers[number] for number in some])
            taken["tree"] += (middle - start) / len(prompts)
            scale = len(titles) / len(some) / len(prompts)
            taken["one by one"] += (time.perf_counter() - middle) * scale
            apart = max(apart, float(np.abs(ours[some] - theirs).max()))
    result: dict[str, object] = {
        "titles": len(titles),
        "nodes": sum(len(block.tokens) for block in parts),
    }
    result |= {name: round(seconds, 2) for name, seconds in taken.items()}
    ratio = round(taken["one by one"] / taken["tree"], 1)
    finish(result | {"ratio": ratio, "apart": apart, "peak_gb": round(peak_memory_gb(), 2)}, args)


if __name__ == "__main__":
    main()
