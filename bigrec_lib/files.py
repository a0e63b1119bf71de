"""Files that are whole or absent, locks, hashes, whose work it is, the error a user can act on."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial-"  # what a killed process may leave behind begins so


class StudyError(Exception):
    """A problem its reader can mend: the message says what was wrong, where, and what to do."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, of which the block makes a file or a folder; it takes
    the place of `path` if the block succeeds.

    Whatever happens, `path` is the old version or the new one, never a part: the data is flushed to
    disk before the rename. (A folder that is replaced may be missing if the process is killed
    between two renames.)
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
        try:
            if path.is_dir():
                os.replace(path, old)
            os.replace(partial, path)
        except BaseException:
            if old.exists() and not path.exists():
                os.replace(old, path)
            raise
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


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`, made when needed, within the block or until the process ends.

    Raises BlockingIOError if another process holds it and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def differing(old: dict, new: dict) -> list[str]:
    """The keys under which two identities of a piece of work differ; none: it is the same work.

    >>> differing({"seed": 0, "rank": 8}, {"seed": 1, "rank": 8, "epochs": 2})
    ['seed', 'epochs']
    """
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]


def claim(record: Path, identity: dict[str, object]) -> bool:
    """Put `identity` down as that of the work beside the file `record`; True if it was there.

    identity: all that the work follows from, as JSON has it.
    Raises StudyError that names what differs if `record` belongs to other work.
    """
    if not record.exists():
        write_json(identity, record)
        return False
    found = json.loads(record.read_text(encoding="utf-8"))
    other = differing(found, identity)
    if other:
        told = "; ".join(f"{key} {found.get(key)!r}, now {identity.get(key)!r}" for key in other)
        raise StudyError(
            f"{record.parent} holds work with other {', '.join(other)} ({told}): finish it with "
            "what it was begun with, or delete the folder"
        )
    return True
