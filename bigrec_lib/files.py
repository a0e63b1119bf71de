"""Files that are either whole or absent, their hashes, and the error a user can act on."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"  # what a killed process may leave behind begins so
WRITTEN: set[Path] = set()  # every file this process has put in place


class StudyError(Exception):
    """A problem its reader can mend: the message says what was wrong, where, and what to do."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place if the block succeeds.

    Works for a file and for a folder. Whatever happens, `path` is the old version or the new
    one, never a part: the data is flushed to disk before the rename. (A folder that is replaced
    may be missing if the process is killed at that moment.)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{PARTIAL}{os.getpid()}-{path.name}"
    old = path.parent / f"{PARTIAL}{os.getpid()}-old-{path.name}"
    remove(partial)
    try:
        yield partial
        for file in sorted(partial.rglob("*")) if partial.is_dir() else [partial]:
            if file.is_file():
                with open(file, "rb+") as stream:
                    os.fsync(stream.fileno())
        if path.is_dir():
            os.replace(path, old)
        os.replace(partial, path)
        WRITTEN.add(path)
    finally:
        remove(partial)
        remove(old)


def remove(path: Path) -> None:
    """Delete a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_text(text: str, path: Path) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(value: object, path: Path) -> None:
    """Write indented JSON atomically."""
    write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_parquet(frame, path: Path) -> None:
    """Write a pandas DataFrame or a pyarrow Table atomically, without the index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(frame, pa.Table):
        frame = pa.Table.from_pandas(frame, preserve_index=False)
    with atomic(path) as partial:
        pq.write_table(frame.replace_schema_metadata(), partial, compression="zstd")


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, or of a folder's relative names and contents."""
    path = Path(path)
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
        return digest.hexdigest()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
