"""Arrows run one way: notebooks → findings → study → method → files; there are no circles."""

import ast
import re
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "bigrec_lib"
ORDER = ("files", "method", "study", "findings")  # a wing imports itself and those before it
ROOMS = sorted(LIBRARY.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """The rooms of the library that a room imports, wherever in its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if is_room(name) else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "bigrec_lib"}


def is_room(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def wing(room: str) -> int:
    """The place of a room's wing in ORDER; the package itself comes before all."""
    parts = room.split(".")
    return ORDER.index(parts[1]) if len(parts) > 1 else -1


def wrong_arrows(rooms: dict[str, set[str]]) -> list[str]:
    return [f"{room} → {to}" for room, tos in rooms.items() for to in tos if wing(to) > wing(room)]


def circle(rooms: dict[str, set[str]]) -> list[str]:
    """Rooms that import each other, directly or through others; [] if none do."""
    left = {room: set(tos) & set(rooms) for room, tos in rooms.items()}
    while free := [room for room, tos in left.items() if not tos]:
        for room in free:
            del left[room]
        left = {room: tos - set(free) for room, tos in left.items()}
    return sorted(left)


@pytest.fixture(scope="module")
def rooms() -> dict[str, set[str]]:
    return {name_of(path): imports(path) for path in ROOMS}


def test_there_are_three_wings_and_files(rooms):
    assert {room.split(".")[1] for room in rooms if "." in room} == set(ORDER)
    assert len(rooms) > 35


def test_no_arrow_points_the_other_way(rooms):
    assert wrong_arrows(rooms) == []


def test_no_room_imports_in_a_circle(rooms):
    assert circle(rooms) == []


def test_wrong_arrows_and_circles_are_found():
    rooms = {
        "bigrec_lib.files": {"bigrec_lib.method.a"},
        "bigrec_lib.method.a": {"bigrec_lib.method.b"},
        "bigrec_lib.method.b": {"bigrec_lib.method.a"},
        "bigrec_lib.study.c": {"bigrec_lib.findings.d", "bigrec_lib.method.a"},
        "bigrec_lib.findings.d": set(),
    }
    assert wrong_arrows(rooms) == [
        "bigrec_lib.files → bigrec_lib.method.a",
        "bigrec_lib.study.c → bigrec_lib.findings.d",
    ]
    assert circle(rooms) == [
        "bigrec_lib.files", "bigrec_lib.method.a", "bigrec_lib.method.b", "bigrec_lib.study.c"
    ]  # fmt: skip


def rooms_listed(wing):
    """The rooms that the docstring of a wing names, in its order."""
    text = ast.get_docstring(ast.parse((LIBRARY / wing / "__init__.py").read_text())) or ""
    return re.findall(r"^ {4}(\w+)  +\S", text, re.MULTILINE)


@pytest.mark.parametrize("wing", ["method", "study", "findings"])
def test_a_wing_opens_with_its_rooms(rooms, wing):
    listed = rooms_listed(wing)
    there = {room.rpartition(".")[2] for room in rooms if room.startswith(f"bigrec_lib.{wing}.")}
    assert set(listed) == there and len(listed) == len(there)


def test_method_opens_with_its_rooms_in_the_order_of_the_data(rooms):
    listed = rooms_listed("method")
    for place, room in enumerate(listed):
        for to in rooms[f"bigrec_lib.method.{room}"]:
            if to.startswith("bigrec_lib.method."):
                assert to.rpartition(".")[2] in listed[:place], f"{room} imports {to}"


def test_no_room_is_too_long():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in ROOMS}
    assert {name: n for name, n in lengths.items() if n > 450} == {}


def test_study_knows_nothing_of_torch_before_it_runs_anything():
    """Plan, verify and report start at once."""
    import subprocess
    import sys

    code = "import sys; from bigrec_lib.study import batch; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stdout + done.stderr


def test_every_table_of_names_agrees():
    """The registry of methods, the parameters' choices and what can be trained name the same."""
    from typing import get_args

    from bigrec_lib.findings import methods
    from bigrec_lib.method.baselines import STATISTICS, STEPWISE
    from bigrec_lib.method.networks import BEGUN, NETWORKS
    from bigrec_lib.study.parameters_steps import Baseline

    trained = {*STATISTICS, *NETWORKS}
    assert {*methods.CONVENTIONAL, BEGUN} == trained == set(get_args(Baseline)) - {"p5"}
    assert len({method.name for method in methods.METHODS}) == len(methods.METHODS)
    assert {name.removesuffix("-last") for name in methods.LAST} == set(STEPWISE)
    apart = [*methods.MAIN, *methods.CONVENTIONAL]  # a form "-last" looks like its model
    markers = [m.marker for m in methods.METHODS if m.name in apart and m.kind != "last"]
    assert len(set(markers)) == len(markers)
    beside = [methods.of(name) for name in ("bigrec", "bigrec-constrained", *methods.CHEAPER)]
    assert len({(method.colour, method.marker) for method in beside}) == len(beside)
    labels = [method.label for method in methods.METHODS]
    assert len(set(chain(labels))) == len(labels)
