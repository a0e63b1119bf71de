"""Code counts where it is used, without comments and docstrings; no name is lost on the way."""

import ast
import json
import shutil
import sys
from pathlib import Path

import pytest

from bigrec_lib.study import provenance

ROOMS = {
    "files.py": "def write(): pass\n",
    "method/__init__.py": "",
    "method/low.py": 'LIMIT = 3\n\n\ndef used():\n    """Text."""\n    return LIMIT\n\n\n'
    "def unused():\n    return 1\n",
    "method/high.py": "from bigrec_lib.files import write\nfrom bigrec_lib.method import low\n"
    "from bigrec_lib.method.low import used\n\n\n"
    "class Thing:\n    def go(self):\n        return low.used()\n\n\n"
    "def make():\n    write()\n    return Thing()\n\n\ndef other():\n    return used()\n",
    "study/__init__.py": "",
    "study/runner.py": "from bigrec_lib.method import high\n\n\n"
    "def run():\n    return high.make()\n",
}


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A small library in place of the real one, and a way to write its files."""
    package = tmp_path / "bigrec_lib"

    def write(path, text):
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text(text)
        provenance.load.cache_clear()

    for path, text in ROOMS.items():
        write(path, text)
    monkeypatch.setattr(provenance, "PACKAGE", package)
    return write


def notebook(folder, code, prose="# Question"):
    cells = [{"cell_type": "markdown", "source": [prose]}, {"cell_type": "code", "source": [code]}]
    path = folder / "nb.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    return path


def changed(before: dict, after: dict) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}


MAKE = "from bigrec_lib.method import high\nhigh.make()"


@pytest.mark.parametrize(
    ("room", "old", "new", "seen"),
    [
        ("method/low.py", "Text.", "Another text.", False),
        ("method/low.py", "return LIMIT", "return LIMIT  # a comment", False),
        ("method/low.py", "return LIMIT\n", "\n    return LIMIT\n", False),
        ("method/low.py", "return 1", "return 2", False),  # unused()
        ("method/high.py", "return used()", "return used() + 1", False),  # other()
        ("files.py", "pass", "return 1", False),
        ("method/low.py", "LIMIT = 3", "LIMIT = 4", True),
        ("method/low.py", "return LIMIT", "return LIMIT + 0", True),
        ("method/high.py", "return low.used()", "return 0 + low.used()", True),
        ("method/high.py", "return Thing()", "return Thing() or None", True),
    ],
)
def test_an_edit_is_seen_where_the_code_is_used(tmp_path, library, room, old, new, seen):
    path = notebook(tmp_path, MAKE)
    before, code = provenance.sources(path), provenance.code_of("method.high.make")
    assert old in ROOMS[room]
    library(room, ROOMS[room].replace(old, new))
    after = provenance.sources(path)
    assert changed(before, after) == ({f"bigrec_lib/{room}"} if seen else set())
    assert (provenance.code_of("method.high.make") != code) == seen


def test_code_that_runs_at_import_counts(tmp_path, library):
    path = notebook(tmp_path, MAKE)
    before = provenance.sources(path)
    library("method/low.py", ROOMS["method/low.py"] + "\nprint('registered')\n")
    assert changed(before, provenance.sources(path)) == {"bigrec_lib/method/low.py"}


def test_names_are_followed_through_study_whose_own_code_does_not_count(tmp_path, library):
    path = notebook(tmp_path, "from bigrec_lib.study import runner\nrunner.run()")
    before = provenance.sources(path)
    assert set(before) == {
        "notebooks/nb.ipynb", "bigrec_lib/method/low.py", "bigrec_lib/method/high.py"
    }  # fmt: skip
    library("study/runner.py", ROOMS["study/runner.py"].replace("return", "return None or"))
    assert provenance.sources(path) == before


def test_a_module_that_is_handed_on_counts_whole(tmp_path, library):
    path = notebook(tmp_path, "from bigrec_lib.method import low\nprint(vars(low))")
    before = provenance.sources(path)
    library("method/low.py", ROOMS["method/low.py"].replace("return 1", "return 2"))
    assert changed(before, provenance.sources(path)) == {"bigrec_lib/method/low.py"}


def test_of_a_notebook_text_and_code_count_and_comments_do_not(tmp_path, library):
    before = provenance.sources(notebook(tmp_path, MAKE))
    assert provenance.sources(notebook(tmp_path, MAKE + "  # a comment")) == before
    for code, prose in ((MAKE + "\nprint()", "# Question"), (MAKE, "# Another")):
        assert changed(before, provenance.sources(notebook(tmp_path, code, prose))) == {
            "notebooks/nb.ipynb"
        }


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from bigrec_lib.method import nothing", "no bigrec_lib.method.nothing"),
        ("from bigrec_lib.nowhere.low import used", "no bigrec_lib.nowhere.low.used"),
        ("from bigrec_lib.method import high\nhigh.nothing()", "method.high has no nothing"),
        ("import bigrec_lib.method.high", "in place of `import bigrec_lib.method.high`"),
        ("from . import low", "a relative import"),
    ],
)
def test_what_cannot_be_followed_is_an_error_and_not_forgotten(tmp_path, library, code, message):
    with pytest.raises(provenance.UnresolvedImport, match=message):
        provenance.sources(notebook(tmp_path, code))


def test_every_notebook_and_every_maker_of_this_project_can_be_followed():
    from bigrec_lib.study.parameters import NOTEBOOKS

    root = Path(__file__).parent.parent
    for name, cls in NOTEBOOKS.items():
        assert len(provenance.sources(root / "notebooks" / f"{name}.ipynb")) > 3
        for makers in cls.makers.values():
            assert provenance.code_of(*makers)


def test_a_copy_of_the_project_has_the_same_hashes(tmp_path, monkeypatch):
    root = Path(__file__).parent.parent
    path = root / "notebooks" / "03_generate_titles.ipynb"
    here = provenance.sources(path)
    shutil.copytree(root / "bigrec_lib", tmp_path / "bigrec_lib")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "bigrec_lib")
    provenance.load.cache_clear()
    assert provenance.sources(path) == here
    provenance.load.cache_clear()


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="compares with Python 3.11's own dump")
def test_code_is_written_down_as_by_python_3_11():
    """So that every version of Python finds the same hashes, and nothing gets stale by it."""
    for path in [*provenance.PACKAGE.rglob("*.py"), *Path(__file__).parent.glob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert provenance.written(tree) == ast.dump(tree), path


def test_a_field_that_later_versions_add_changes_nothing():
    (function,) = ast.parse("def f(x: int = 1, *, y): return f'{x!r:>3}{None}'").body
    plain = provenance.written(function)
    function.type_params = []
    function._fields = (*type(function)._fields, "type_params")
    assert provenance.written(function) == plain and "type_params" not in plain


def test_the_gpu_of_a_machine_is_named(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho NVIDIA H200")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert provenance.host.__wrapped__().endswith(", NVIDIA H200")
    tool.write_text("#!/bin/sh\nexit 9")
    assert "NVIDIA" not in provenance.host.__wrapped__()


def test_a_machine_that_computes_in_float32_instead_is_another_kind(monkeypatch):
    kinds = set()
    for able in (True, False):
        monkeypatch.setattr(provenance.cpu, "multiplies_bfloat16", lambda able=able: able)
        kinds.add(provenance.host.__wrapped__())
    assert len(kinds) == 2 and sum("no bfloat16" in kind for kind in kinds) == 1
