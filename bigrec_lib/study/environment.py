"""Variables that a batch sets for its processes: threads, how they wait, whether memory is kept."""

from __future__ import annotations

import os

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
WAITING = {"GOMP_SPINCOUNT": "2000"}  # instead of 300,000, chosen by benchmarks/busy.py
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
