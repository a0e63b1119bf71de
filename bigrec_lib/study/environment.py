"""Variables that a batch sets for its processes: threads, how they wait, whether memory is kept,
which GPUs they see, where libraries keep what they keep."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bigrec_lib.files import StudyError, locked

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
WAITING = {"GOMP_SPINCOUNT": "2000"}  # instead of 300,000, chosen by benchmarks/busy.py
VISIBLE = "CUDA_VISIBLE_DEVICES"
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}  # bytes


def set_threads(count: int) -> None:
    """Fix the threads of this process's children, whatever else runs: rounding depends on them."""
    if count:
        os.environ.update(dict.fromkeys(THREADS, str(count)))


def settle() -> None:
    """Tell this process's children how to wait and to keep memory. Results do not depend on it.

    By default, idle threads spin for milliseconds, and beside another process they take processor
    time from the very thread that they wait for; and the C library returns a large tensor's memory
    as soon as it is freed, so that the next one's is cleared page by page. A user's own settings
    stay.
    """
    if not {"OMP_WAIT_POLICY", *WAITING} & os.environ.keys():
        os.environ.update(WAITING)
    if not MEMORY.keys() & os.environ.keys():
        os.environ.update(MEMORY)


@contextmanager
def own_gpus(count: int, present: int, locks: Path) -> Iterator[None]:
    """Show this process's children `count` of the GPUs that are present, as theirs alone.

    They see all of them where that is what they ask for, or nothing is asked for, or where
    CUDA_VISIBLE_DEVICES is set: then the user or a cluster has chosen.
    Raises StudyError if other jobs of the project (`locks`: their folder) hold too many.
    """
    if not 0 < count < present or VISIBLE in os.environ:
        yield
        return
    with ExitStack() as held:
        taken: list[str] = []
        for number in map(str, range(present)):
            with suppress(BlockingIOError):
                if len(taken) < count:
                    held.enter_context(locked(locks / number, wait=False))
                    taken.append(number)
        if len(taken) < count:
            raise StudyError(
                f"{count} of {present} GPUs are asked for, but other jobs hold all but "
                f"{len(taken)}: wait for them, or choose by {VISIBLE}"
            )
        os.environ[VISIBLE] = ",".join(taken)
        try:
            yield
        finally:
            del os.environ[VISIBLE]


def stay_apart(runs: Path) -> None:
    """Keep this process's children from the user's own settings of IPython, and, where the user's
    caches cannot be written, let libraries keep theirs in `runs`. Matplotlib would warn of a new
    random folder in every notebook."""
    os.environ["IPYTHONDIR"] = str(runs / ".ipython")  # IPython warns if its parent is missing
    folder = runs / ".cache"
    home = Path(os.path.expanduser("~"))  # unlike Path.home(), no error for a user without one
    caches = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    if not (caches.is_absolute() and can_write(caches)):
        os.environ["XDG_CACHE_HOME"] = str(folder)
        os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))


def can_write(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
