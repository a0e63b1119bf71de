"""Generations of many prompts in a file: stored portion by portion, resumable, in shards.

A file that is unfinished has a folder of parts beside it, one part a shard, one line a portion.
A file that is finished has a record of the work that it holds.
"""

from __future__ import annotations

import hashlib
import json
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from bigrec_lib.files import claim, remove, write_json, write_parquet, write_text
from bigrec_lib.method import generation
from bigrec_lib.method.beams import GenerationError
from bigrec_lib.method.llm import fingerprint

if TYPE_CHECKING:
    import pyarrow as pa

    from bigrec_lib.method.beams import Search, Trie
    from bigrec_lib.method.generation import Work
    from bigrec_lib.method.llm import LLM

MOST_BEAMS = 128  # numbered by int8


def generate_file(
    llm: LLM,
    prompts: Mapping[int, str],
    path: Path,
    search: Search,
    trie: Trie | None = None,
    shard: tuple[int, int] = (1, 1),
) -> None:
    """Generate for every example and write `path`: example int64, beam int8, text, score float32.

    prompts: example -> prompt. A `path` that holds this very work is left as it is.
    Finished portions are stored at once, in a folder beside `path`, so a run that was killed goes
    on where it stopped, and the file is the same to the byte. `shard` (i, n) does only every n-th
    portion and writes that folder alone. A later run of the whole (1, 1) collects the portions of
    all shards, generates what is missing, writes `path` and removes the folder.
    Raises StudyError that names what differs if `path` or the folder holds other work, and
    GenerationError as `generation.generate` does.
    """
    if not 1 <= shard[0] <= shard[1]:
        raise GenerationError(f"shard {shard[0]}/{shard[1]}: give (i, n) with i from 1 to n")
    if search.beams > MOST_BEAMS:
        raise GenerationError(f"beams is {search.beams}: a file numbers {MOST_BEAMS} at most")
    record, folder = path.with_suffix(".work.json"), path.with_suffix(".parts")
    description = identity(llm, prompts, search, trie)
    if path.exists() and record.exists() and claim(record, description):
        return
    work = generation.Work.plan(llm, list(prompts.values()), search, trie)
    claim(folder / "work.json", description)
    store(llm, work, folder, shard, path.stem)
    if shard == (1, 1):
        remove(path)  # so that no file is ever beside the record of other work
        write_json(description, record)
        write_parquet(table(read_parts(folder), work, list(prompts)), path)
        remove(folder)


def identity(
    llm: LLM, prompts: Mapping[int, str], search: Search, trie: Trie | None
) -> dict[str, object]:
    """Everything that determines the generations, hashed where it is long."""
    return {
        "model": llm.name,
        "dtype": str(llm.model.dtype),
        "weights": fingerprint(llm),
        "examples": digest(json.dumps([int(example) for example in prompts])),
        "prompts": digest(json.dumps(list(prompts.values()))),
        "titles": digest(trie.table.tobytes()) if trie else "any",
        "portion": generation.PORTION,
        **asdict(search),
    }


def digest(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()[:16]


def store(llm: LLM, work: Work, folder: Path, shard: tuple[int, int], name: str) -> None:
    """Search the portions of a shard that are not in `folder` yet, and add them to its part.

    name: for the progress bar.
    """
    index, count = shard
    part = folder / f"{index}-of-{count}.jsonl"
    for path in sorted(folder.glob("*.jsonl")) if count == 1 else [part]:
        mend(path)  # not what another shard may be writing
    done = read_parts(folder)
    todo = [n for n in range(index - 1, len(work.portions), count) if n not in done]
    bar = tqdm(total=sum(len(work.portions[n]) for n in todo), unit="example", desc=name)
    with open(part, "a", encoding="utf-8") as stream, bar:
        for number, portion in generation.run(llm, work, todo):
            rows = [[(beam.text, beam.score) for beam in beams] for beams in portion]
            stream.write(sealed(json.dumps([number, rows])))
            stream.flush()
            bar.update(len(rows))


def table(parts: dict[int, list], work: Work, examples: Sequence[int]) -> pa.Table:
    """All parts as one table, sorted by example and beam. examples: the number of each prompt."""
    import pyarrow as pa

    rows = sorted(
        (int(examples[position]), rank, text, score)
        for number, portion in parts.items()
        for position, beams in zip(work.portions[number], portion, strict=True)
        for rank, (text, score) in enumerate(beams)
    )
    schema = {"example": pa.int64(), "beam": pa.int8(), "text": pa.string(), "score": pa.float32()}
    columns = zip(*rows, strict=True) if rows else [()] * 4
    return pa.table(
        {name: pa.array(column, schema[name]) for name, column in zip(schema, columns, strict=True)}
    )


# --------------------------------------------------------------------------------------- parts


def sealed(text: str) -> str:
    """A line of a part: a checksum, then JSON.

    >>> sealed("[0, []]")
    '66e1c7a4 [0, []]\\n'
    """
    return f"{zlib.crc32(text.encode()):08x} {text}\n"


def whole(line: str) -> bool:
    """Whether a line is as it was written.

    >>> whole(sealed("[0, []]")), whole(sealed("[0, []]")[:-3])
    (True, False)
    """
    return line == sealed(line[9:].removesuffix("\n"))


def lines(part: Path) -> list[str]:
    """The lines of a part, whole or damaged."""
    return part.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)


def mend(part: Path) -> None:
    """Drop damaged lines, with a warning: their portions will be done again."""
    entries = lines(part) if part.exists() else []
    intact = [line for line in entries if whole(line)]
    if len(intact) < len(entries):
        write_text("".join(intact), part)
        warnings.warn(
            f"{part}: dropped {len(entries) - len(intact)} damaged of {len(entries)} portions, "
            "which will be done again",
            stacklevel=2,
        )


def read_parts(folder: Path) -> dict[int, list]:
    """The finished portions of all shards: number -> beams of each prompt, as [text, score]."""
    parts = sorted(folder.glob("*.jsonl"))
    return dict(json.loads(line[9:]) for part in parts for line in lines(part) if whole(line))
