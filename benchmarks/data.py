"""Preparing a data set of MovieLens-10M's size, next to the authors' way.

A synthetic file in ML-10M's native format (10,000,054 ratings of 69,878 users on 10,681 films, the
popular ones far more often) is read, cut into examples, checked, drawn from, counted, written and
read back. The authors' way holds users in dicts and samples in lists, writes CSV with `str(list)`
in its columns and takes them back with `eval`; it is timed on the first tenth of the users and
scaled by their ratings.
"""

import csv
import multiprocessing
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from common import arguments, finish
from tqdm import tqdm

from bigrec_lib import files
from bigrec_lib.method import census, readers, sequences
from bigrec_lib.study.provenance import peak_memory_gb

RATINGS, USERS, FILMS = 10_000_054, 69_878, 10_681
HEAD, FALL = 60, 1.4  # popularity falls with (HEAD + place) to this power, as in ML-10M
HISTORY, PER_USER, N_EXAMPLES = 10, 20, 5000


def write_movielens(folder: Path, share: float) -> None:
    """Write movies.dat and the first `share` of the users of ratings.dat, sorted by user, film."""
    rng = np.random.default_rng(0)
    spread = np.minimum(rng.lognormal(0, 1.2, USERS), 30)
    counts = 20 + (spread / spread.sum() * (RATINGS - 20 * USERS)).astype(np.int64)
    counts[: RATINGS - counts.sum()] += 1
    assert counts.sum() == RATINGS and counts.max() < FILMS
    films = rng.permutation(65_133)[:FILMS] + 1
    with open(folder / "movies.dat", "w", encoding="utf-8") as file:
        for film in np.sort(films):
            file.write(f"{film}::Film Número {film}: The Return ({1915 + film % 94})::Drama\n")
    starts = rng.integers(789_652_009, 1_200_000_000, USERS)
    separator = pa.scalar("::")
    with open(folder / "ratings.dat", "wb") as file:
        for users in tqdm(parts_of(int(USERS * share)), desc="ratings.dat"):
            n = counts[users]
            of = np.repeat(users, n)
            film = films[chosen(n, FILMS, rng)]
            rating = rng.integers(1, 11, len(of)) / 2
            stamp = starts[of] + rng.integers(0, 5_000_000, len(of))
            order = np.lexsort((film, of))
            columns = [
                pa.array(values[order]).cast(pa.string())
                for values in (of + 1, film, rating, stamp)
            ]
            lines = pc.binary_join_element_wise(*columns, separator)
            file.write(("\n".join(lines.to_pylist()) + "\n").encode())


def parts_of(users: int) -> list[np.ndarray]:
    """The numbers of all users, in parts that are written at once."""
    return np.array_split(np.arange(users), min(users, 100))


def chosen(sizes: np.ndarray, items: int, rng: np.random.Generator) -> np.ndarray:
    """So many distinct items for each user, popular ones more often, one user after the other."""
    unpopular = (HEAD + np.arange(items, dtype=np.float32)) ** FALL
    wait = rng.standard_exponential(items * len(sizes), dtype=np.float32).reshape(-1, items)
    wait *= unpopular  # the first to come are a draw without replacement
    return np.concatenate([np.argpartition(row, n)[:n] for row, n in zip(wait, sizes, strict=True)])


def read_examples(folder: Path, split: str) -> pa.Table:
    """As `prepared.Prepared.examples` reads them."""
    return pq.read_table(folder / "examples" / f"{split}.parquet")


def ours(folder: Path) -> dict[str, Any]:
    """Seconds of each step and the peak memory of this process; leaves Parquet files behind."""
    seconds, last = {}, time.perf_counter()

    def lap(step: str) -> None:
        nonlocal last
        seconds[step], last = time.perf_counter() - last, time.perf_counter()

    corpus = readers.load("ml-10m", str(folder))
    lap("read")
    table = sequences.examples(corpus, HISTORY)
    lap("examples")
    parts = sequences.split(table)
    sequences.check(parts, corpus)
    counts = sequences.train_counts(corpus, parts)
    lap("split and check")
    drawn = {
        name: sequences.drawn(parts[name], N_EXAMPLES, PER_USER, seed=42)
        for name in ("valid", "test")
    }
    lap("draw")
    census.census(corpus, parts, {"train": parts["train"], **drawn}, counts)
    lap("census")
    files.write_parquet(corpus.items, folder / "items.parquet")
    for name, part in parts.items():
        files.write_parquet(part, folder / "examples" / f"{name}.parquet")
    lap("write")
    for name in parts:
        read_examples(folder, name)
    lap("read back")
    return {"examples": len(table), "seconds": seconds, "peak_gb": peak_memory_gb()}


def reference(folder: Path) -> dict[str, float]:
    """The authors' way, told again: dicts of lists, `str(list)` in CSV, `eval` on the way back."""
    start = time.perf_counter()
    titles = {}
    with open(folder / "movies.dat", encoding="latin-1") as file:
        for line in file:
            film, title, _ = line.strip().split("::")
            titles[film] = title
    users: dict[str, list] = {}
    with open(folder / "ratings.dat", encoding="latin-1") as file:
        for line in tqdm(file, desc="reference: read", unit_scale=True):
            user, film, rating, stamp = line.strip().split("::")
            users.setdefault(user, []).append((film, float(rating), int(stamp)))
    rows = []
    for user, events in tqdm(users.items(), desc="reference: samples"):
        events.sort(key=lambda event: event[2])
        for at in range(HISTORY, len(events)):
            before = events[at - HISTORY : at]
            film, rating, stamp = events[at]
            rows.append(
                [
                    user,
                    [each[0] for each in before],
                    [titles[each[0]] for each in before],
                    [int(each[1] > 3) for each in before],
                    film,
                    titles[film],
                    int(rating > 3),
                    stamp,
                ]
            )
    rows.sort(key=lambda row: row[-1])
    cuts = (0, int(len(rows) * 0.8), int(len(rows) * 0.9), len(rows))
    for name, low, high in zip(sequences.SPLITS, cuts, cuts[1:], strict=False):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow("user films titles liked film title like time".split())
            writer.writerows(rows[low:high])
    for name in sequences.SPLITS:
        read = pd.read_csv(folder / f"{name}.csv")
        for column in ("titles", "liked"):
            read[column] = [eval(text) for text in tqdm(read[column], desc="reference: eval")]  # noqa: S307
    return {"rows": len(rows), "seconds": time.perf_counter() - start, "peak_gb": peak_memory_gb()}


def same_samples(folder: Path) -> bool:
    """Whether both ways left the same samples in `folder`, whatever the order of equal times."""
    film_of = pd.read_parquet(folder / "items.parquet").item_id.to_numpy(dtype=object)
    ours: list[tuple] = []
    theirs: list[tuple] = []
    for name in sequences.SPLITS:
        part = read_examples(folder, name)
        histories = film_of[pc.list_flatten(part["history"]).to_numpy()].reshape(-1, HISTORY)
        targets = film_of[part["target"].to_numpy()]
        ours += zip(histories.tolist(), targets, part["time"].to_pylist(), strict=True)
        read = pd.read_csv(folder / f"{name}.csv", dtype=str)
        lists = (text[2:-2].split("', '") for text in read.films)
        theirs += zip(lists, read.film, read.time.astype(int), strict=True)
    return sorted(ours) == sorted(theirs)


def alone(function, *given):
    """The function's result in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def main() -> None:
    args = arguments(__doc__)
    share = 0.1 if args.quick else 1.0
    part = share / 10
    with tempfile.TemporaryDirectory() as scratch:
        whole, few = Path(scratch) / "whole", Path(scratch) / "few"
        for folder, size in ((whole, share), (few, part)):
            folder.mkdir()
            write_movielens(folder, size)
        measured = alone(ours, whole)
        theirs = alone(reference, few)
        alone(ours, few)
        same = same_samples(few)
    seconds = sum(measured["seconds"].values())
    scaled = theirs["seconds"] * measured["examples"] / theirs["rows"]
    print(pd.Series(measured["seconds"]).to_string(float_format=lambda value: f"{value:.1f} s"))
    finish(
        {
            "speedup_vs_reference": scaled / seconds,
            "seconds": seconds,
            "peak_gb": measured["peak_gb"],
            "same_samples": same,
            "examples": measured["examples"],
            "steps": measured["seconds"],
            "reference_examples": theirs["rows"],
            "reference_seconds": theirs["seconds"],
            "reference_seconds_scaled": scaled,
            "reference_peak_gb_unscaled": theirs["peak_gb"],
        },
        args,
    )


if __name__ == "__main__":
    main()
