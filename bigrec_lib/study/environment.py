"""Variables that a batch sets for its processes: threads, how they wait, whether memory is kept,
which GPUs they see, where libraries keep what they keep."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from bigrec_lib.files import locked

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


def usable_gpus(present: int) -> list[str]:
    """The GPUs that processes may use: those of CUDA_VISIBLE_DEVICES, or else all of them."""
    chosen = os.environ.get(VISIBLE)
    if chosen is None:
        return [str(number) for number in range(present)]
    return [name for name in map(str.strip, chosen.split(",")) if name]


@contextmanager
def own_gpus(count: int, usable: list[str], locks: Path) -> Iterator[None]:
    """Show this process's children `count` of the usable GPUs, which no other job then has.

    Waits until so many are free; who asks for more than there are gets all. locks: a folder that
    the jobs of this machine share. Without a choice, nothing is locked or set.
    """
    if not count or len(usable) < 2:
        yield
        return
    with ExitStack() as held:
        while not (taken := free_gpus(min(count, len(usable)), usable, locks, held)):
            time.sleep(1)
        before = os.environ.get(VISIBLE)
        os.environ[VISIBLE] = ",".join(taken)
        try:
            yield
        finally:
            if before is None:
                del os.environ[VISIBLE]
            else:
                os.environ[VISIBLE] = before


def free_gpus(count: int, usable: list[str], locks: Path, held: ExitStack) -> list[str]:
    """So many GPUs that no other job had, locked until `held` ends; [] if there are fewer."""
    taken: list[str] = []
    with locked(locks / "choice"), ExitStack() as some:
        for name in usable:
            with suppress(BlockingIOError):
                some.enter_context(locked(locks / name.replace("/", "_"), wait=False))
                taken.append(name)
            if len(taken) == count:
                held.enter_context(some.pop_all())
                return taken
    return []


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
