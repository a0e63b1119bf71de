"""Files of a data set, read safely where they are: in a folder, a zip, or gzipped.

Nothing is unpacked to disk; what unpacks to far more than its size is refused.
"""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path

from bigrec_lib.method.values import DataError

EXPANSION = 100  # a compressed file may grow this much ...
ROOM = 100_000_000  # ... or to this many bytes
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # RuntimeError: encrypted, unsupported
MARKS = {  # at the beginning of a text; that of UTF-32 begins like that of UTF-16
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
WIDE = rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}"  # UTF-8


class Source:
    """The files of a data set: in a folder, or one folder below it, or in a zip."""

    files: dict[str, Path | zipfile.ZipInfo]

    def __init__(self, path: Path):
        self.path = path
        self.twice: set[str] = set()
        if path.is_dir():
            below = [file for file in path.glob("*/*") if file.is_file()]
            above = [file for file in path.glob("*") if file.is_file()]
            self.files = {file.name: file for file in below + above}  # of two, the upper one
            counts = Counter(file.name for file in below)
            self.twice = {name for name, count in counts.items() if count > 1}
            self.twice -= {file.name for file in above}
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
        if name in self.twice:
            raise DataError(f"several folders in {self.path} have a {name}: name one of them")
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
    elif name.endswith(".compress"):
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


def text_of(content: bytes, name: str) -> bytes:
    """A text in UTF-8 with \\n at the end of its lines, from UTF-8, UTF-16, UTF-32 or Latin-1.

    A text without a mark is taken as UTF-8 if it is valid, else as Latin-1 (CP1252). Raises
    DataError if neither can be: if it is broken, or UTF-8 but for a few bytes.
    """
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    encoding = MARKS.get(mark, "utf-8")
    content = content[len(mark) :]
    if encoding != "utf-8" or not content.isascii():
        try:
            content = content.decode(encoding).encode()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            strays = len(re.findall(rb"[\x80-\xff]", re.sub(WIDE, b"", content)))
            if mark or len(re.findall(WIDE, content)) > strays:
                raise DataError(
                    f"{name}, line {line}: not in {encoding.upper()}, though the rest of the file "
                    "is: it is damaged, or put together from several; save it in UTF-8"
                ) from None
            content = latin(content).encode()
    if b"\r" in content:
        content = content.replace(b"\r\n", b"\n")
        content = content.replace(b"\r", b" " if b"\n" in content else b"\n")
    return content


def latin(content: bytes) -> str:
    """Text in CP1252, or in Latin-1 where it has bytes that CP1252 lacks."""
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")
