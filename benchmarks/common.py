"""What the benchmarks share: options, interleaved timing, the closing JSON line."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from bigrec_lib.files import write_json


def arguments(description: str, model: str = "") -> argparse.Namespace:
    """The options every benchmark takes: `quick` (under a minute) and `json` (a path or None).

    model: the default of the option `model`, for those that time an LLM.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under a minute")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    if model:
        parser.add_argument("--model", default=model, help=f"LLM to time; otherwise {model}")
    return parser.parse_args()


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


def finish(result: dict[str, object], args: argparse.Namespace) -> None:
    """Print the figures as the last line, in JSON, and write them where `--json` says."""
    if args.json:
        write_json(result, args.json)
    print(json.dumps(result))
