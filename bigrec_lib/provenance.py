"""What a result came from: code, data, model, machine; by content, as a checkout has new times."""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from bigrec_lib.files import sha256, write_json

LIBRARY = Path(__file__).parent


def library_of(source: Path) -> list[str]:
    """The library modules a notebook or module imports, directly or through others, as paths."""
    found: set[str] = set()
    waiting = [source]
    while waiting:
        for module in imports(waiting.pop()):
            path = LIBRARY / f"{module}.py"
            if path.exists() and str(path.relative_to(LIBRARY.parent)) not in found:
                found.add(str(path.relative_to(LIBRARY.parent)))
                waiting.append(path)
    return sorted(found)


def imports(source: Path) -> set[str]:
    """Names of bigrec_lib modules imported anywhere in a Python file or a notebook's code."""
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".ipynb":
        text = "\n".join(code for kind, code in cells(source) if kind == "code")
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "bigrec_lib":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bigrec_lib."):
            names.add(node.module.split(".")[1])
    return names


def cells(notebook: Path) -> list[tuple[str, str]]:
    """Kind and text of a notebook's cells: all of it that a reader or a kernel sees."""
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in found]


def sources(notebook: Path) -> dict[str, str]:
    """SHA-256 of a notebook's cells and of every library module it rests on, by path."""
    if not notebook.exists():
        return {}
    own = hashlib.sha256(json.dumps(cells(notebook)).encode()).hexdigest()
    library = {path: sha256(LIBRARY.parent / path) for path in library_of(notebook)}
    return {f"notebooks/{notebook.name}": own} | library


def content(path: Path, memo: Path) -> str:
    """SHA-256 of a file or folder, known again from `memo` while sizes and times stay.

    memo: a JSON file, made when needed, so that large models are read once and not at every plan.
    """
    known = json.loads(memo.read_text(encoding="utf-8")) if memo.exists() else {}
    parts = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            name, stat = str(file.resolve()), file.stat()
            stamp = f"{stat.st_size} {stat.st_mtime_ns}"
            if known.get(name, [""])[0] != stamp:
                known[name] = [stamp, sha256(file)]
                write_json(known, memo)
            parts.append([file.relative_to(path).as_posix(), known[name][1]])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def peak_memory_gb() -> float:
    """The largest resident memory of this process so far, in GB (10^9 bytes).

    Linux's own figure is preferred to `ru_maxrss`, which a process inherits from its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / 1e9
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def environment(project: Path) -> dict[str, object]:
    """Host, Python, package versions and git commit of this process."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", project, *words], capture_output=True, text=True)
        return done.stdout.strip()

    return {
        "host": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {
            name: metadata.version(name)
            for name in ("torch", "transformers", "peft", "bitsandbytes", "faiss-cpu", "numpy")
        },
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--", "bigrec_lib", "notebooks", "studies")),
    }
