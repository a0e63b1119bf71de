"""What a result came from: code, data, model, machine; by content, as a checkout resets times.

Only code that is used counts. The names in a notebook (or in one function) are followed through the
library, and of every module only the functions, classes and constants that they reach are hashed,
without comments and docstrings. Editing another reader, another figure or a docstring changes no
hash.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache, cached_property, lru_cache
from importlib import metadata
from pathlib import Path

from bigrec_lib.files import StudyError, sha256, write_json
from bigrec_lib.method import cpu

PACKAGE = Path(__file__).parent.parent
WINGS = ("method", "findings")  # whose code a result follows from ...
WRITERS = ("study.steps", "study.cost_job", "study.results")  # ... with what feeds and writes it


class UnresolvedImport(StudyError):
    """A name of the library cannot be followed, so what rests on it cannot be known."""


# ------------------------------------------------------------------------- code that is used


class Module:
    """A Python file: what its top level defines, and which names of the library it imports."""

    def __init__(self, text: str, name: str):
        self.name = name
        self.tree = ast.parse(text)
        strip_docstrings(self.tree)
        self.imported = self.imports()

    @classmethod
    def of(cls, path: Path) -> Module:
        """The library's module in this file."""
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        return cls(path.read_text(encoding="utf-8"), ".".join(parts))

    def imports(self) -> dict[str, tuple[str, str]]:
        """Local name -> (module of the library, name in it; '' for the module itself).

        Raises UnresolvedImport for what is not there.
        """
        names: dict[str, tuple[str, str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.partition(".")[0] == PACKAGE.name:
                        raise UnresolvedImport(
                            f"{self.name}, line {node.lineno}: write `from bigrec_lib.wing import "
                            f"module` in place of `import {alias.name}`"
                        )
            elif isinstance(node, ast.ImportFrom) and self.is_ours(node):
                for alias in node.names:
                    place = resolve(str(node.module), alias.name, f"{self.name}, {node.lineno}")
                    names[alias.asname or alias.name] = place
        return names

    def is_ours(self, node: ast.ImportFrom) -> bool:
        """Whether an import is of this library. Raises UnresolvedImport for a relative one."""
        if node.level:
            raise UnresolvedImport(f"{self.name}, line {node.lineno}: a relative import")
        return (node.module or "").partition(".")[0] == PACKAGE.name

    @cached_property
    def defined(self) -> dict[str, list[ast.stmt]]:
        """Top-level name -> the statements that define it."""
        statements: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            for name in defines(statement):
                statements.setdefault(name, []).append(statement)
        return statements

    @cached_property
    def always(self) -> list[ast.stmt]:
        """Statements that run at import and define nothing, such as a registration."""
        return [
            statement
            for statement in self.tree.body
            if not defines(statement) and not isinstance(statement, ast.Import | ast.ImportFrom)
        ]

    def parts(self, name: str) -> list[ast.stmt]:
        """The statements that define a name; '' for those that define none."""
        return self.defined[name] if name else self.always

    def uses(self, statement: ast.stmt) -> Iterator[tuple[str, str]]:
        """What a statement refers to: (module, name), '' for a whole module."""
        nodes = list(ast.walk(statement))
        prefixes = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                place = self.imported.get(node.value.id)
                if place and not place[1]:
                    yield place[0], node.attr
            if isinstance(node, ast.Name):
                place = self.imported.get(node.id)
                if place and (place[1] or id(node) not in prefixes):
                    yield place
                elif node.id in self.defined:
                    yield self.name, node.id


def strip_docstrings(tree: ast.AST) -> None:
    """Remove the docstrings, and strings that stand alone, from a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [part for part in node.body if not is_text(part)]  # type: ignore[attr-defined]


def written(node: object) -> str:
    """A syntax tree as `ast.dump` of Python 3.11 writes it, in whatever version reads it.

    >>> written(ast.parse("def f(): return None").body[0]).endswith("decorator_list=[])")
    True
    """
    if isinstance(node, list):
        return f"[{', '.join(map(written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [
        f"{name}={written(value)}"
        for name, value in ast.iter_fields(node)
        if not (value is None and getattr(type(node), name, "") is None)
        and not (value == [] and name == "type_params")  # a field since 3.12
    ]
    return f"{type(node).__name__}({', '.join(fields)})"


def is_text(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def defines(statement: ast.stmt) -> list[str]:
    """The top-level names that a statement defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and is_stored(n)]
    return []


def is_stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def resolve(module: str, name: str, where: str) -> tuple[str, str]:
    """What `from module import name` means: (module, name), name '' if it is a module itself."""
    if source_of(f"{module}.{name}").exists():
        return f"{module}.{name}", ""
    if source_of(module).exists():
        return module, name
    raise UnresolvedImport(f"{where}: there is no {module}.{name} in {PACKAGE}")


def source_of(module: str) -> Path:
    """The file of a module of the library."""
    return PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")


@lru_cache
def load(module: str, stamp: int) -> Module:
    """A module of the library; `stamp` is the time of its file, so that an edit is seen."""
    return Module.of(source_of(module))


def module_of(name: str) -> Module:
    return load(name, source_of(name).stat().st_mtime_ns)


@cache
def uses_of(code: Module, name: str) -> tuple[tuple[str, str], ...]:
    """What the definition of a name refers to, each once; '' for what runs at import."""
    uses = (use for part in code.parts(name) for use in code.uses(part))
    return tuple(dict.fromkeys(uses))


@cache
def dumps_of(code: Module, name: str) -> tuple[str, ...]:
    """The syntax trees of the definition of a name as text; '' for what runs at import."""
    return tuple(written(part) for part in code.parts(name))


def reached(start: list[tuple[str, str]]) -> dict[str, set[str]]:
    """Everything these names of the library rest on: module -> its top-level names.

    Raises UnresolvedImport for a name that its module does not have.
    """
    reach: dict[str, set[str]] = {}
    modules: dict[str, Module] = {}
    stack = list(start)
    while stack:
        module, name = stack.pop()
        if module not in reach:
            reach[module] = set()
            modules[module] = module_of(module)
            stack += uses_of(modules[module], "")
        code = modules[module]
        names = [name] if name else list(code.defined)
        for symbol in names:
            if symbol in reach[module] or symbol.startswith("__"):
                continue
            if symbol in code.imported and symbol not in code.defined:
                stack.append(code.imported[symbol])
                continue
            if symbol not in code.defined:
                raise UnresolvedImport(f"{module} has no {symbol}")
            reach[module].add(symbol)
            stack += uses_of(code, symbol)
    return reach


def digests(reach: dict[str, set[str]]) -> dict[str, str]:
    """SHA-256 of what is reached of each module in WINGS or WRITERS, by the module's path."""
    result = {}
    for module, names in sorted(reach.items()):
        submodule = module.partition(".")[2]
        if submodule.partition(".")[0] in WINGS or submodule in WRITERS:
            code = module_of(module)
            text = "\n".join(dump for name in ["", *sorted(names)] for dump in dumps_of(code, name))
            path = source_of(module).relative_to(PACKAGE.parent).as_posix()
            result[path] = hashlib.sha256(text.encode()).hexdigest()
    return result


def code_of(*functions: str) -> str:
    """One SHA-256 of all the code that functions rest on, each given as 'wing.module.function'."""
    start = []
    for function in functions:
        module, _, name = function.rpartition(".")
        start.append((f"{PACKAGE.name}.{module}", name))
    return hashlib.sha256(json.dumps(digests(reached(start))).encode()).hexdigest()


def sources(notebook: Path) -> dict[str, str]:
    """SHA-256 of a notebook's text and code, and of all the library's code it rests on, by path."""
    if not notebook.exists():
        return {}
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    code = Module("\n".join(text for kind, text in texts if kind == "code"), notebook.name)
    parts = [text for kind, text in texts if kind != "code"] + [written(code.tree)]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    uses = [use for statement in code.tree.body for use in code.uses(statement)]
    start = [use for use in uses if use[0] != notebook.name]
    return {f"notebooks/{notebook.name}": digest} | digests(reached(start))


# ------------------------------------------------------------------------- data and machine


def content(path: Path, memo: Path) -> str:
    """SHA-256 of a file or folder; from `memo` where a file's size and time are as they were.

    memo: a JSON file, made when needed, so that large models are read once and not at every plan.
    """
    hashes = json.loads(memo.read_text(encoding="utf-8")) if memo.exists() else {}
    parts = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            name, stat = str(file.resolve()), file.stat()
            stamp = f"{stat.st_size} {stat.st_mtime_ns}"
            if hashes.get(name, [""])[0] != stamp:
                hashes[name] = [stamp, sha256(file)]
                write_json(hashes, memo)
            parts.append([file.relative_to(path).as_posix(), hashes[name][1]])
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


def git(project: Path, *words: str) -> str | None:
    """What git answers about a project that is a repository of its own; None without an answer.

    GIT_DIR and other such variables of the environment do not matter.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(project)]
    try:
        top, process = (
            answer([*command, *arguments], variables)
            for arguments in (["rev-parse", "--show-toplevel"], words)
        )
    except OSError:  # there is no git, or none that may be run
        return None
    success = top.returncode == process.returncode == 0
    if not success or Path(top.stdout.strip()).resolve() != Path(project).resolve():
        return None
    return process.stdout.strip()


def answer(command: list[str], variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A finished process with what it printed, in whatever encoding names of files are."""
    return subprocess.run(
        command, capture_output=True, text=True, errors="surrogateescape", env=variables
    )


@cache
def host() -> str:
    """The kind of this machine: its system and processor, and the names of NVIDIA GPUs; without
    a GPU, whether the processor computes bfloat16 in float32 (`cpu`)."""
    devices = gpus() or ["no bfloat16"] * (not cpu.multiplies_bfloat16())
    return ", ".join([f"{platform.system()} {platform.machine()}", *devices])


def gpus() -> list[str]:
    """The names of this machine's NVIDIA GPUs; none where nvidia-smi does not answer."""
    try:
        process = answer(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], os.environ)
    except OSError:
        return []
    return [] if process.returncode else process.stdout.strip().splitlines()


def environment(project: Path) -> dict[str, object]:
    """Host, Python, package versions and git commit of this process.

    commit is '' and dirty None without an answer from git.
    """
    changes = git(project, "status", "--porcelain", "--", "bigrec_lib", "notebooks", "studies")
    return {
        "host": host(),
        "python": platform.python_version(),
        "packages": {
            name: metadata.version(name)
            for name in ("torch", "transformers", "peft", "bitsandbytes", "numpy")
        },
        "commit": git(project, "rev-parse", "HEAD") or "",
        "dirty": None if changes is None else bool(changes),
    }
