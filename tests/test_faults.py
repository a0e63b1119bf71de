"""A batch that is killed, starved or blocked at random moments ends as an undisturbed one.

FAULTS sets how many faults there are, SEED their times; `make faults` injects 30 and prints what
came of them.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress

import psutil
import pytest
from toy import batch, make_project, results_of

FAULTS = int(os.environ.get("FAULTS", 0))
SEED = int(os.environ.get("SEED", 0))
PAUSE = 12  # seconds into the batch, at most, at which a fault comes
VICTIMS = {  # what is killed -> what its command line holds
    "power cut": "",
    "batch": "bigrec_lib.study.batch study",
    "job": "bigrec_lib.study.batch notebook",
    "kernel": "ipykernel_launcher",
}


def start(project, **options):
    command = [sys.executable, "-m", "bigrec_lib.study.batch", "study", "toy"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=project, **quiet, **options)


def everyone(project) -> list[psutil.Process]:
    """Every process that works in the project's folder, the oldest first."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(project):
                found.append(process)
    return sorted(found, key=lambda process: process.create_time())


def kill(project, process, word: str) -> str:
    """Kill -9, with no chance to clean up, whoever has `word` in his command line.

    Return the jobs that were running, '' if the batch ended before there was anyone to kill.
    """
    while process.poll() is None:
        found = everyone(project)
        lines = [p.cmdline() for p in found]
        doing = {line[-1] for line in lines if line[2:4] == VICTIMS["job"].split()}
        victims = [p for p, line in zip(found, lines, strict=True) if word in " ".join(line)]
        if victims:
            for victim in victims[-1:] if word else victims:
                victim.send_signal(signal.SIGKILL)
            return " ".join(doing) or "between jobs"
        time.sleep(0.05)
    return ""


@contextmanager
def full_disk(project, dice):
    """A random bit of space is left: a write fails in its middle. Without the right to mount,
    no file can grow beyond a random size, which fails in the same places."""
    size = int(10 ** dice.uniform(3.5, 6.3))  # bytes
    if os.path.ismount(project):
        ballast = project / "ballast"
        with open(ballast, "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, shutil.disk_usage(project).free - size)
        yield {}
        ballast.unlink()
    else:
        yield {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}


@contextmanager
def read_only(project, dice):
    """Nothing can be written to runs/."""
    folder = project / "runs"
    folder.mkdir(exist_ok=True)
    if os.getuid():
        modes = {path: path.stat().st_mode for path in [folder, *folder.rglob("*")]}
        for path, mode in modes.items():
            path.chmod(mode & ~0o222)
        yield {}
        for path, mode in modes.items():
            path.chmod(mode)
    else:
        for options in (["--bind", str(folder)], ["-o", "remount,ro,bind"]):
            subprocess.run(["mount", *options, str(folder)], check=True)
        yield {}
        subprocess.run(["umount", str(folder)], check=True)


BLOCKS = {"full disk": full_disk, "read-only runs": read_only}


def disturb(project, kind: str, dice) -> str:
    """Start the batch and let one fault happen to it; say what it was doing, '' for nothing."""
    if kind in BLOCKS:
        with BLOCKS[kind](project, dice) as options:
            process = start(project, **options)
            process.wait(timeout=300)
        return f"refused with code {process.returncode}" if process.returncode else ""
    process = start(project)
    time.sleep(dice.uniform(0.5, PAUSE))
    doing = kill(project, process, VICTIMS[kind])
    process.wait(timeout=300)
    return doing


@pytest.fixture
def disk(tmp_path):
    """A folder on a file system of its own, where that may be made, so that it can be full."""
    if os.getuid():
        yield tmp_path
    else:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", tmp_path], check=True)
        yield tmp_path
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.skipif(not FAULTS, reason="takes minutes: make faults")
def test_many_faults(project, disk, toy_data, tiny_llm):
    undisturbed = results_of(project)
    folder = make_project(disk, toy_data, tiny_llm)
    dice = random.Random(SEED)
    kinds = [*VICTIMS, *BLOCKS]
    injected, finished = Counter(), 0
    while injected.total() < FAULTS:
        kind = kinds[injected.total() % len(kinds)]
        doing = disturb(folder, kind, dice)
        if doing:
            injected[kind] += 1
            print(f"{injected.total():3}  {kind:18}{doing}", flush=True)
        else:  # the batch has ended before the fault came
            finished += 1
            assert results_of(folder) == undisturbed
            shutil.rmtree(folder / "results")
            shutil.rmtree(folder / "runs")
    batch(folder, "study", "toy")
    assert results_of(folder) == undisturbed
    assert not list(folder.rglob(".partial-*"))
    print(f"{injected.total()} faults, {finished + 1} studies finished, all identical: {injected}")


@pytest.mark.slow
def test_a_few_faults_in_the_second_half(project, tmp_path):
    """Where most of the work is, in a copy in which tuning is done."""
    folder = tmp_path / "disturbed"
    shutil.copytree(project, folder)
    undisturbed = results_of(project)
    for stage in ("generations", "grounding", "reweighting"):
        shutil.rmtree(folder / "runs" / "toy" / "toy" / "n16-s0" / stage)
    dice = random.Random(SEED)
    for kind in ("power cut", "kernel"):
        assert disturb(folder, kind, dice)
    batch(folder, "study", "toy")
    assert results_of(folder) == undisturbed
