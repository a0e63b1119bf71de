"""A study's data before anything runs: is it there, can its head be read, has it enough rows?
And its models: are they called by names that can be found?

Whatever the size of a table, only its head is read; its lines are counted while it is below 1 GB.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from bigrec_lib.files import StudyError
from bigrec_lib.method import assets, readers, sequences, sources
from bigrec_lib.method.tables import quoted_records
from bigrec_lib.study.parameters import PrepareData, TuneLLM
from bigrec_lib.study.parameters_checks import Parameters
from bigrec_lib.study.parameters_runs import ModelParameters

HEAD = 1 << 20  # bytes of a text that count as its head ...
ROWS = 10_000  # ... and rows of any table
COUNTED = 10**9  # bytes of a text whose lines are counted
SEPARATORS = ",\t;|"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
JSON = ("jsonl", "json")
KINDS = ("csv", "tsv", "parquet", *JSON)


@dataclass(frozen=True)
class Head:
    """The first rows of a table.

    values: (rows, columns) str or None, under the names in the file. rows: how many the whole
    table has (lines in quotes count, too), or None if counting them would take long.
    """

    path: Path
    values: pd.DataFrame
    rows: int | None


def check(planned: dict[str, Parameters]) -> list[str]:
    """Look at data and models of every job; return a sentence for whatever is odd but can run.

    Raises StudyError, in one line, for data that is not there, that its reader cannot read, or
    that is too little for the training samples asked for.
    """
    preparations = {job.dataset: job for job in planned.values() if isinstance(job, PrepareData)}
    warnings: list[str] = []
    rows: dict[str, int | None] = {}
    for dataset, job in preparations.items():
        try:
            rows[dataset] = check_source(job)
        except (StudyError, OSError) as error:
            raise StudyError(f"data set {dataset}: {error}") from None
        warnings += few_examples(job, rows[dataset])
    for tuning in planned.values():
        if isinstance(tuning, TuneLLM):
            for dataset in tuning.learnt:
                check_samples(tuning.n_train, preparations[dataset], rows[dataset])
    return warnings + doubtful_models(planned)


def doubtful_models(planned: dict[str, Parameters]) -> list[str]:
    """A sentence for each model that only a hub may know, under a name without an owner."""
    names = {job.model for job in planned.values() if isinstance(job, ModelParameters)}
    return [
        f"model {name!r} is none of {', '.join(assets.MODELS)} and no folder: it is taken for the "
        "id of a model on the Hugging Face hub"
        for name in sorted(names - set(assets.MODELS))
        if "/" not in name and not Path(name).exists()
    ]


def check_source(job: PrepareData) -> int | None:
    """Raise StudyError unless a data set is where it should be, and a table's head can be read.

    Returns the number of rows, or None where that is not known.
    """
    reader, place = job.reader or job.dataset, Path(job.expanded(job.data_path))
    if reader != "table" and (job.titles_path or job.columns):
        raise StudyError(f"titles_path and columns are for the reader 'table', not for {reader}")
    if not job.data_path:
        if reader not in assets.DATA:
            raise StudyError(f"{reader} cannot be fetched: set data_path to its folder or file")
        return None
    if reader != "table":
        sources.Source(place)
        return None
    titles = Path(job.expanded(job.titles_path)) if job.titles_path else place
    return check_table(place, titles, job.columns)


def check_table(path: Path, titles_path: Path, columns: dict[str, str]) -> int | None:
    """Have the reader read the head of a table, and return how many rows the whole has (`count`).

    Raises StudyError for what the reader would refuse. Only the whole table shows whether every
    item has a title, and in its head no user need occur more than once.
    """
    names = {ours: columns.get(ours, ours) for ours in readers.TABLE[:4]} | columns
    item_columns = {"item": names["item"], "title": names["title"]}
    event_columns = {ours: theirs for ours, theirs in names.items() if ours != "title"}
    rows = count(path)
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):  # no bars
        try:
            head = shortened(path, Path(folder))
            check_columns(head, event_columns)
            listing = head if titles_path == path else shortened(titles_path, head.parent / "of")
            check_columns(listing, item_columns)
            events = readers.read_table(head, listing, columns).events
            if len(events) == rows or events.groupby("user").time.nunique().max() > 1:
                readers.load("table", str(head), columns=event_columns | {"title": names["item"]})
        except StudyError as error:
            raise StudyError(str(error).replace(f"{folder}/", "")) from None
    return rows


def check_columns(path: Path, columns: dict[str, str]) -> None:
    """Raise StudyError for columns that a table lacks."""
    names = list(parsed(path))
    missing = [f"{theirs!r} ({ours})" for ours, theirs in columns.items() if theirs not in names]
    if missing:
        raise StudyError(
            f"{path.name} has no column {', '.join(missing)}: set `columns` to some of "
            f"{', '.join(names)}"
        )


def check_samples(n_train: int, job: PrepareData, rows: int | None) -> None:
    """Raise StudyError if a data set of `rows` rows cannot give the training samples asked for."""
    limit = rows if rows is None or "split" in job.columns else int(rows * sequences.SHARES[0])
    if limit is not None and n_train > limit:
        raise StudyError(
            f"n_train is {n_train}, but the {rows} rows of {job.dataset} give at most {limit} "
            "training samples: lower n_train"
        )


def few_examples(job: PrepareData, rows: int | None) -> list[str]:
    """A sentence each for n_valid and n_test where a table cannot give as many examples."""
    if rows is None or "split" in job.columns:
        return []
    return [
        f"{name} of {job.dataset} is {getattr(job, name)}, but its {rows} rows give at most "
        f"{rows // 10}: no more are drawn"
        for name in ("n_valid", "n_test")
        if getattr(job, name) > rows // 10
    ]


def head_of(path: Path) -> Head:
    """The first rows of a CSV, TSV, JSON-lines or Parquet file.

    Raises StudyError for a file that is not there or is no such table.
    """
    check_path(path)
    if kind(path) not in KINDS:
        raise StudyError(
            f"{path} is no .csv, .tsv, .jsonl or .parquet: of those a study can be begun. Data "
            "with a reader of their own go into a study file, as "
            "`datasets: {food: {reader: seqrec, data_path: food.zip}}`"
        )
    rows = count(path)
    with tempfile.TemporaryDirectory() as folder:
        values = parsed(shortened(path, Path(folder)))
    if not len(values):
        raise StudyError(f"{path} holds no rows")
    return Head(path, values, rows)


def check_path(path: Path) -> None:
    if not path.is_file():
        raise StudyError(f"no file {path}: is this the right path?")


def kind(path: Path) -> str:
    """The ending of a file's name that says what is in it: csv, parquet, …"""
    return path.name.lower().removesuffix(".gz").rpartition(".")[2]


def shortened(path: Path, folder: Path) -> Path:
    """A copy of the head of a table in `folder`, under its own name."""
    check_path(path)
    folder.mkdir(exist_ok=True)
    copy = folder / path.name
    if kind(path) == "parquet":
        file = parquet(path)
        batches = list(islice(file.iter_batches(ROWS), 1))
        pq.write_table(pa.Table.from_batches(batches, file.schema_arrow), copy)
        return copy
    with sources.opened(path) as stream:
        content = stream.read(HEAD)
        if stream.peek(1):
            utf16 = content.startswith(UTF16)
            content = whole_lines(decoded(content).encode() if utf16 else content)
    copy.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return copy


def parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file, not yet read. Raises StudyError if it is none."""
    try:
        return pq.ParquetFile(path)
    except pa.ArrowException as error:
        raise StudyError(f"{path} is no Parquet file: {error}") from None


def whole_lines(content: bytes) -> bytes:
    """The longest beginning of a text that ends with a line, and not within quotes.

    >>> whole_lines(b'a,b' + bytes([10]) + b'1,"x' + bytes([10]) + b'y')
    b'a,b\\n'
    """
    end = last = content.rfind(b"\n") + 1
    quotes = content.count(b'"', 0, end)
    while end and quotes % 2:
        start = content.rfind(b"\n", 0, end - 1) + 1
        quotes -= content.count(b'"', start, end)
        end = start
    return content[: end or last or len(content)]


def parsed(path: Path) -> pd.DataFrame:
    """The values of a small table, (rows, columns) str or None. Raises StudyError if it is none."""
    if kind(path) == "parquet":
        rows = parquet(path).read().to_pandas()
        return rows.astype(object).map(str).where(rows.notna(), None)
    with sources.opened(path) as stream:
        content = stream.read()
    text = decoded(content)
    if kind(path) in JSON:
        return objects(text, path)
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    lines = text.replace("\r\n", "\n")
    quoted = quoted_records(lines.encode(), path.name, separator) is not None
    try:
        records = csv.reader(
            io.StringIO(lines, newline=""),
            delimiter=separator,
            quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        )
        header, *rows = filter(None, records)  # an empty line is no record
    except (csv.Error, ValueError) as error:
        raise StudyError(f"{path.name} is no table with a line of names on top: {error}") from None
    values = [[value or None for value in row] for row in rows[:ROWS] if len(row) == len(header)]
    frame = pd.DataFrame(values, columns=pd.Index(header, dtype=object), dtype=object)
    return frame.loc[:, ~frame.columns.duplicated()]


def decoded(content: bytes) -> str:
    """A text in UTF-8 or UTF-16, with or without a mark at its beginning, or else in CP1252."""
    if content.startswith(UTF16):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def objects(text: str, path: Path) -> pd.DataFrame:
    """The values of JSON objects, one a line. Raises StudyError if a line is none."""
    rows = []
    for number, line in enumerate(text.split("\n")[:ROWS], 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise StudyError(f"{path.name}, line {number}: not one JSON object a line")
        rows.append({name: None if v is None else str(v) for name, v in record.items()})
    frame = pd.DataFrame(rows, dtype=object)
    return frame.where(frame.notna(), None)


def count(path: Path) -> int | None:
    """How many rows a table has, at most; None if it is large or compressed text."""
    check_path(path)
    if kind(path) == "parquet":
        return parquet(path).metadata.num_rows
    if path.suffix == ".gz" or path.stat().st_size > COUNTED:
        return None
    status = path.stat()
    return counted(path, status.st_size, status.st_mtime_ns)


@cache
def counted(path: Path, size: int, mtime: int) -> int:
    """The rows of a text of `size` bytes, last changed at `mtime` (ns), at most."""
    lines, block = 0, b"\n"
    bar = tqdm(desc=path.name, total=size, unit="B", unit_scale=True, delay=2, leave=False)
    with open(path, "rb") as stream, bar:
        for block in iter(partial(stream.read, 1 << 20), b""):
            lines += block.count(b"\n") or block.count(b"\r")
            bar.update(len(block))
    header = kind(path) not in JSON
    return max(0, lines + (not block.rstrip(b"\0").endswith((b"\n", b"\r"))) - header)
