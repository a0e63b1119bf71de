"""Tables from text, JSON lines and Parquet: columns under our names, ids and titles as strings.

Nothing is evaluated, and no row vanishes: what was read is compared with the lines of the file.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
from tqdm import tqdm

from bigrec_lib.method.sources import opened, text_of
from bigrec_lib.method.values import DataError

LINE = 1 << 24  # bytes of the longest line of JSON
SEPARATORS = {"csv": ",", "tsv": "\t"}  # kind of file -> the usual one


def any_table(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """Columns of a CSV, TSV, JSON lines or Parquet file under our names.

    A text may be gzipped, in any encoding of `text_of`, and separated by a comma, a semicolon, a
    tab or a bar. Raises DataError if a column is missing, or the file is not what its name says.
    """
    kind = path.name.lower().removesuffix(".gz").rsplit(".", 1)[-1]
    if kind == "parquet":
        return parquet(path, columns)
    if kind not in (*SEPARATORS, "json", "jsonl"):
        raise DataError(
            f"{path} is no .csv, .tsv, .jsonl or .parquet: of those a table can be read"
        )
    with opened(path) as stream:
        content = text_of(stream.read(), path.name)
    if kind not in SEPARATORS:
        return json_lines(io.BytesIO(content), path.name, columns)
    sep = separator(content, set(columns.values()), SEPARATORS[kind])
    return delimited(content, path.name, columns, sep, quotable=True)


def parquet(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """Columns of a Parquet file under our names, ids and titles as strings."""
    try:
        rows = pq.ParquetFile(path).read(list(dict.fromkeys(columns.values())))
        for field, source in columns.items():
            column = rows[source]
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            if field not in ("time", "rating"):
                column = column.cast(pa.string())
            rows = rows.set_column(rows.column_names.index(source), source, column)
        return frame_of(rows, columns, path.name)
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise DataError(
            f"{path.name} is not a table of {', '.join(columns.values())}: {error}"
        ) from None


def separator(content: bytes, names: set[str], default: str) -> str:
    """What separates the columns: with it, the first line has all these names; else the default."""
    header = content[: 1 << 16].partition(b"\n")[0].decode(errors="replace")
    for sep in (default, *",;\t|"):
        if names <= set(next(csv.reader([header], delimiter=sep), [])):
            return sep
    return default


def table(
    stream: io.BufferedReader,
    name: str,
    columns: Mapping[str, str | int],
    sep: str,
    quotable: bool = False,
) -> pd.DataFrame:
    """`delimited` of a stream, which is closed."""
    with stream:
        content = text_of(stream.read(), name)
    return delimited(content, name, columns, sep, quotable)


def delimited(
    content: bytes, name: str, columns: Mapping[str, str | int], sep: str, quotable: bool
) -> pd.DataFrame:
    """Columns of a delimited text in UTF-8 as strings, empty ones missing.

    columns: our name -> the source's, a name in the header or, in a file without one, a place.
    quotable: values may be in quotes; where they are not so throughout, quotes are literal.
    Raises DataError if a column is missing or a line has another number of them.
    """
    names = [f"f{source}" if isinstance(source, int) else source for source in columns.values()]
    header = not any(isinstance(source, int) for source in columns.values())
    n = quoted_records(content, name, sep) if quotable and b'"' in content else None
    quoted = n is not None
    n = count_lines(content) if n is None else n
    if len(sep) > 1:  # Arrow knows separators of one byte
        content, sep = content.replace(sep.encode(), b"\x01"), "\x01"
    try:
        rows = arrow_csv.read_csv(
            io.BytesIO(content),
            arrow_csv.ReadOptions(autogenerate_column_names=not header),
            arrow_csv.ParseOptions(
                delimiter=sep, quote_char='"' if quoted else False, newlines_in_values=quoted
            ),
            arrow_csv.ConvertOptions(
                include_columns=list(dict.fromkeys(names)),
                column_types={source: pa.string() for source in names},
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowException as error:
        raise DataError(
            f"{name} is not a table of {', '.join(columns)} separated by "
            f"{'::' if sep == chr(1) else sep!r}: {' '.join(str(error).split())}"
        ) from None
    if len(rows) + header != n:
        raise DataError(f"{name} has {n} lines, of which {len(rows) + header} could be read")
    return frame_of(rows, dict(zip(columns, names, strict=True)), name)


def count_lines(content: bytes) -> int:
    """Lines of a text that are not empty."""
    ends = content.count(b"\n") + (bool(content) and not content.endswith(b"\n"))
    if b"\n\n" in content or content.startswith(b"\n"):
        ends -= len(re.findall(rb"^\n", content, re.MULTILINE))
    return ends


def quoted_records(content: bytes, name: str, sep: str) -> int | None:
    """The records of a text in which values may be in quotes; None where quotes are literal.

    They are literal if every line has as many separators as the header, and to read them as
    quoting would fail in places or swallow whole lines. Raises DataError that names the line if
    neither reading gives every record as many columns.
    """
    csv.field_size_limit(max(csv.field_size_limit(), len(content)))
    counts = (line.count(sep.encode()) for line in io.BytesIO(content) if line != b"\n")
    width = next(counts, 0)
    literal = all(count == width for count in counts)
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8", newline="\n")
    reader = csv.reader(text, delimiter=sep, strict=True)
    records, columns = 0, 0
    try:
        for record in tqdm(reader, desc=name, unit=" rows", leave=False, delay=1):
            columns = columns or len(record)
            if record and len(record) != columns:
                raise csv.Error(f"{len(record)} columns, not {columns}")
            records += bool(record)
    except csv.Error as error:
        if literal:
            return None
        raise DataError(
            f"{name}, line {reader.line_num}: {error}. Values in quotes must end with a quote, "
            "and quotes within them be doubled"
        ) from None
    return None if literal and records < count_lines(content) else records


def frame_of(rows: pa.Table, columns: dict[str, str], name: str) -> pd.DataFrame:
    """An Arrow table's columns under our names. Raises DataError if there is no row."""
    if not len(rows):
        raise DataError(f"{name} holds no rows")
    return pd.DataFrame({field: rows[source].to_pandas() for field, source in columns.items()})


def json_lines(stream, name: str, columns: dict[str, str], literals: bool = False) -> pd.DataFrame:
    """Fields of one JSON object per line; `literals`: or of a Python literal, which is not run.

    Ids and titles may also be numbers. Closes the stream.
    Raises DataError that names the line which is neither, or has no user or item.
    """
    fields: dict[str, list] = {field: [] for field in columns}
    with stream:
        lines = iter(partial(stream.readline, LINE), b"")
        for number, line in enumerate(tqdm(lines, desc=name, unit=" lines", leave=False), 1):
            if not line.strip():
                continue
            record = parsed(line, literals)
            if not isinstance(record, dict):
                raise DataError(f"{name}, line {number}: no JSON object")
            for field, source in columns.items():
                value = plain(record.get(source), text=field not in ("time", "rating"))
                if field in ("user", "item") and not value:
                    raise DataError(
                        f"{name}, line {number}: {source} is {record.get(source)!r:.60}"
                    )
                fields[field].append(value)
    if not fields["item"]:
        raise DataError(f"{name} holds no rows")
    return pd.DataFrame({field: pd.Series(values) for field, values in fields.items()})


def plain(value: object, text: bool) -> str | int | float | None:
    """A JSON value that is a string or a number (as a string, if `text`); else None."""
    if isinstance(value, bool) or not isinstance(value, str | int | float) or value != value:
        return None
    if isinstance(value, str) or text:
        return str(value).encode("utf-8", "replace").decode()  # half of an emoji
    return value


def parsed(line: bytes, literals: bool) -> object:
    """The value of a line of JSON, else of a Python literal if allowed; None if it is neither."""
    with suppress(ValueError, RecursionError):
        return json.loads(line)
    if literals:
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return ast.literal_eval(line.decode().strip())
    return None
