"""What a study loses on a machine that others use as well, by how OpenMP's threads wait.

    python benchmarks/busy.py [--quick] [--json FILE] [--model NAME]

A thread of OpenMP that has nothing to do for a moment spins, by default for milliseconds: beside
another process that burns the very time the thread it waits for would need. Tuning, generation and
grounding, each with all cores in a process of its own, are timed under several ways to wait: on the
machine as it is (let it be quiet), and beside busy processes that are started here and end by
themselves. All ways take turns within the first round, the judged ones in every round; the last way
has a single thread.

The fair time is the quiet time of the default, times what an equal share for every busy thread
leaves us: on two cores, one other process makes it 1.5 times as long, two make it twice as long. A
polite process (of niceness 19) counts like any other: the scheduler prefers us, but every short
wait of ours lets it in. `quiet_cost` is how much longer the batch (`environment.WAITING`) takes
than the default when quiet, as a share; `busy_over_fair` its time beside others over the fair time.
Each is that of the worst of the kinds of work, and of the busy machines for the latter; all seconds
are medians.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pandas as pd
from common import arguments, finish
from tqdm import tqdm

from bigrec_lib.study import environment

MODEL = "smollm2-135m-instruct"
WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "batch": environment.WAITING,
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": dict.fromkeys(environment.THREADS, "1"),
}
JUDGED = ("default", "batch")  # the others are shown beside them, and timed in one round only
LOADS: dict[str, tuple[int, ...]] = {  # niceness of each busy process
    "quiet": (),
    "one polite": (19,),
    "one equal": (0,),
    "two equal": (0, 0),
}
LIMIT = 120  # seconds after which a busy process ends by itself


# ---------------------------------------------------------------------------------- the work


def tuning_work(model: str) -> Callable[[], object]:
    """One step of eight samples and a validation of two, with all that surrounds them."""
    from bigrec_lib.method import llm, prompts, readers, samples, sequences, tuning
    from bigrec_lib.study.parameters import TuneLLM

    base = llm.load_llm(model, "nf4")
    corpus = readers.load("ml-100k")
    part = sequences.split(sequences.examples(corpus))["train"]
    frame = sequences.sample(part, 10, seed=0).to_pandas()
    titles = corpus.items.title.tolist()
    drawn = samples.samples(frame, titles, prompts.domain("movies"), base.tokenizer, 512)
    settings = replace(tuning.Tuning(**TuneLLM().settings), epochs=1)

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            tuning.tune(base, drawn[:8], drawn[8:], settings, Path(folder))

    return work


def generation_work(model: str) -> Callable[[], object]:
    """Beam search for eight prompts, 4 beams of 24 tokens."""
    from bigrec_lib.method import beams, generation, llm, prompts, readers

    base = llm.load_llm(model, "nf4")
    titles = readers.load("ml-100k").items.title.tolist()
    drawn = np.random.default_rng(0).choice(titles, (8, 10))
    texts = [prompts.prompt(list(history), prompts.domain("movies")) for history in drawn]
    search = beams.Search(max_new_tokens=24, beams=4, batch_size=8)
    return lambda: generation.generate(base, texts, search)


def grounding_work(model: str) -> Callable[[], object]:
    """64 titles embedded; 1,000 queries among 17,408 titles of 576 dimensions, at 20 γ."""
    import torch

    from bigrec_lib.method import embedding, llm, readers, reweighting

    base = llm.load_llm(model, "nf4")
    titles = readers.load("ml-100k").items.title.tolist()[:64]
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(17_408, 576, generator=generator)
    queries = torch.randn(1000, 576, generator=generator)
    targets = np.arange(1000)
    weights = np.linspace(0, 1, len(vectors), dtype=np.float32)

    def work() -> None:
        embedding.embed(base, titles)
        reweighting.ranks(queries, vectors, targets, weights, reweighting.GAMMAS[:20])

    return work


WORK = {"tuning": tuning_work, "generation": generation_work, "grounding": grounding_work}


def serve(connection: Connection, kind: str, model: str) -> None:
    """In a process of its own: do the work whenever asked, and answer with its seconds."""
    work = WORK[kind](model)
    work()
    connection.send(0.0)
    while connection.recv():
        start = time.perf_counter()
        work()
        connection.send(time.perf_counter() - start)


@contextmanager
def server(kind: str, model: str, way: dict[str, str]) -> Iterator[Connection]:
    """A process that does one kind of work, whose threads wait in one way; it is ready."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    usual = dict(os.environ)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        os.environ.pop(name, None)
    os.environ.update(way)
    try:
        child = context.Process(target=serve, args=(theirs, kind, model), daemon=True)
        child.start()
    finally:
        os.environ.clear()
        os.environ.update(usual)
    ours.recv()
    try:
        yield ours
    finally:
        ours.send(False)
        child.join()


# ---------------------------------------------------------------------------------- the others


@contextmanager
def beside(niceness: tuple[int, ...]) -> Iterator[None]:
    """Within the block, keep one busy process for each niceness."""
    loop = f"import os, sys, time; os.nice(int(sys.argv[1])); end = time.monotonic() + {LIMIT}\n"
    loop += "while time.monotonic() < end: sum(range(100_000))"
    busy = [subprocess.Popen([sys.executable, "-c", loop, str(each)]) for each in niceness]
    time.sleep(0.5 if busy else 0)  # they start
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def fair(others: int, cores: int) -> float:
    """How many times as long work on all cores takes if every thread gets an equal share.

    >>> fair(0, cores=2), fair(1, cores=2), fair(2, cores=2)
    (1.0, 1.5, 2.0)
    """
    return (cores + others) / cores


# ----------------------------------------------------------------------------------- measuring


def measure(
    kind: str, model: str, ways: list[str], loads: list[str], rounds: int
) -> list[dict[str, object]]:
    """Seconds of one kind of work: a row for each way, load and round.

    The quiet machine takes its turn after every other load, since there small differences count.
    The default is put beside another process only once, and not for a single load: it takes many
    times as long.
    """
    rows: list[dict[str, object]] = []
    with ExitStack() as stack:
        servers = {way: stack.enter_context(server(kind, model, WAYS[way])) for way in ways}
        plan = [(turn, load) for turn in range(rounds) for one in loads for load in ("quiet", one)]
        for turn, load in tqdm(plan, desc=kind, leave=False):
            for way, connection in servers.items():
                slow = way == "default" and load != "quiet"
                if slow and (load != "one equal" or turn or len(loads) == 1):
                    continue
                if turn and way not in JUDGED:
                    continue
                with beside(LOADS[load]):
                    connection.send(True)
                    seconds = connection.recv()
                rows.append({"work": kind, "way": way, "load": load, "seconds": seconds})
    return rows


def verdict(seconds: pd.DataFrame, cores: int) -> dict[str, float]:
    """The two figures of the batch's way, from seconds of work x (way, load)."""
    quiet = seconds["default", "quiet"]
    over = {
        load: seconds["batch", load] / (quiet * fair(len(niceness), cores))
        for load, niceness in LOADS.items()
        if niceness and ("batch", load) in seconds
    }
    return {
        "quiet_cost": round(float((seconds["batch", "quiet"] / quiet - 1).max()), 3),
        "busy_over_fair": round(float(pd.DataFrame(over).max(axis=None)), 2),
    }


def main() -> None:
    args = arguments(__doc__.splitlines()[0], MODEL)
    cores = os.cpu_count() or 1
    kinds = ["tuning"] if args.quick else list(WORK)
    ways = list(JUDGED if args.quick else WAYS)
    loads = ["one equal"] if args.quick else ["one polite", "one equal", "two equal"]
    rows = [
        row
        for kind in tqdm(kinds, desc="work")
        for row in measure(kind, args.model, ways, loads, rounds=1 if args.quick else 2)
    ]
    seconds = pd.DataFrame(rows).groupby(["work", "way", "load"]).seconds.median()
    print(seconds.unstack("load")[["quiet", *loads]].round(2).to_string())
    table = seconds.unstack(["way", "load"])
    finish(
        {
            "model": args.model,
            "cores": cores,
            **verdict(table, cores),
            "seconds": {" | ".join(key): round(value, 3) for key, value in seconds.items()},
        },
        args,
    )


if __name__ == "__main__":
    main()
