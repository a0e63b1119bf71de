"""Recommenders as services, and what requests take: seconds and, where it can be read, energy.

A service answers requests by their numbers, and says how long each of its stages took. It is
measured as in use: cold (until it is ready, and the first answer), then one request after the
other, then in batches. Nothing here is estimated: what cannot be read is NaN.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from tqdm import tqdm

from bigrec_lib.method import encoders, generation, prompts, tree_cache, windows

if TYPE_CHECKING:
    from bigrec_lib.method.beams import Search, Trie
    from bigrec_lib.method.cheaper import Way
    from bigrec_lib.method.llm import LLM
    from bigrec_lib.method.windows import Scorer, Windows

K = 20  # candidates of an answer
RAPL = Path("/sys/class/powercap")  # where Linux counts the energy of Intel's and AMD's packages


class Service(Protocol):
    def answer(self, numbers: Sequence[int]) -> tuple[np.ndarray, dict[str, float]]:
        """The first K candidates of these requests (n, K), and the seconds of each stage."""


class Scores:
    """A conventional model: histories -> scores of all candidates -> the first K."""

    def __init__(self, score: Scorer, samples: Windows):
        self.score, self.histories = score, samples.histories

    def answer(self, numbers: Sequence[int]) -> tuple[np.ndarray, dict[str, float]]:
        start = time.perf_counter()
        scores = self.score(self.histories[list(numbers)])
        middle = time.perf_counter()
        lists = windows.first(-scores, K)
        return lists, {"scores": middle - start, "search": time.perf_counter() - middle}


class Titles:
    """BIGRec: prompts (`texts`) -> first beams -> the candidates that `way` grounds them to.

    tuned: the LLM that writes, its adapter added into its weights; base: the one that embeds.
    """

    def __init__(
        self, tuned: LLM, base: LLM, texts: Sequence[str], search: Search, trie: Trie | None,
        way: Way,
    ):  # fmt: skip
        self.tuned, self.base, self.told = tuned, base, texts
        self.search, self.trie, self.way = search, trie, way

    def answer(self, numbers: Sequence[int]) -> tuple[np.ndarray, dict[str, float]]:
        start = time.perf_counter()
        texts = [self.told[number] for number in numbers]
        generations = generation.generate(self.tuned, texts, self.search, self.trie)
        seconds = {"writing": time.perf_counter() - start, "embedding": 0.0, "search": 0.0}
        lists = [self.ground(prompts.title_of(beams[0].text), seconds) for beams in generations]
        return np.stack(lists), seconds

    def ground(self, text: str, seconds: dict[str, float]) -> np.ndarray:
        """The first K candidates of a text; the time it takes is added to the stages' seconds."""
        duration = 0.0

        def vector() -> np.ndarray:
            nonlocal duration
            start = time.perf_counter()
            embedding = encoders.of_text(self.base, text)
            duration = time.perf_counter() - start
            return embedding

        start = time.perf_counter()
        candidates = self.way.ground(text, vector)
        seconds["embedding"] += duration
        seconds["search"] += time.perf_counter() - start - duration
        return candidates

    def reading(self, number: int) -> float:
        """Seconds to read one prompt, without writing."""
        tokens = self.tuned.tokenizer(self.told[number])["input_ids"]
        start = time.perf_counter()
        with torch.inference_mode():
            tree_cache.prefill(self.tuned.model, tokens)
        return time.perf_counter() - start


@dataclass(frozen=True)
class Cost:
    """What one service took.

    ready: seconds until it could answer; first: of its first answer. seconds: stage -> of each
    request after it, one by one; 'request' is the sum of its stages but for 'reading', which BIGRec
    alone has and which is measured apart. per_second: batch size -> requests a second. joules: of a
    request, NaN where no counter can be read. lists: (n, K) answers.
    """

    ready: float
    first: float
    seconds: dict[str, list[float]]
    per_second: dict[int, float]
    joules: float
    lists: list[list[int]]

    def shown(self) -> dict:
        """As JSON can hold it."""
        return asdict(self)


def measure(context: AbstractContextManager[Service], n: int, batches: Sequence[int]) -> Cost:
    """Open a service and put n requests to it, one by one and then in batches."""
    start = time.perf_counter()
    with context as service:
        return measured(service, time.perf_counter() - start, n, batches)


def measured(service: Service, ready: float, requests: int, batches: Sequence[int]) -> Cost:
    """`measure` of a service that is open."""
    start = time.perf_counter()
    service.answer([0])
    first = time.perf_counter() - start
    seconds: dict[str, list[float]] = {"request": []}
    lists, energy = [], counter()
    for number in tqdm(range(requests), desc="requests"):
        answers, stages = service.answer([number])
        lists.append(answers[0].tolist())
        for stage, duration in (stages | {"request": sum(stages.values())}).items():
            seconds.setdefault(stage, []).append(duration)
    joules = (counter() - energy) / requests
    if isinstance(service, Titles):
        seconds["reading"] = [service.reading(number) for number in range(requests)]
    per_second = {size: throughput(service, requests, size) for size in batches}
    return Cost(ready, first, seconds, per_second, joules, lists)


def throughput(service: Service, requests: int, size: int) -> float:
    """Requests a second, in batches of `size`."""
    start = time.perf_counter()
    for first in range(0, requests, size):
        service.answer(range(first, min(first + size, requests)))
    return requests / (time.perf_counter() - start)


def counter() -> float:
    """Joules that the processor's packages have used so far; NaN where that cannot be read.

    The counter begins anew after some hours: a difference may then be negative.
    """
    try:
        packages = sorted(RAPL.glob("*-rapl:[0-9]/energy_uj"))
        return sum(int(path.read_text()) for path in packages) / 1e6 if packages else math.nan
    except OSError:
        return math.nan
