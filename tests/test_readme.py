"""The README says what is true: its numbers, its map of the code, its commands."""

import re
from pathlib import Path

from bigrec_lib.study import runs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_headline_table_is_the_committed_one():
    assert (ROOT / "results/standard/tables/headline.md").read_text(encoding="utf-8") in README


def test_every_notebook_and_module_is_on_the_map():
    for notebook in runs.NOTEBOOKS:
        assert f"notebooks/{notebook}.ipynb" in README
    for module in (ROOT / "bigrec_lib").glob("[a-z]*.py"):
        assert re.search(rf"^      {module.stem} ", README, re.MULTILINE), module.stem


def test_modules_import_only_from_those_before_them_on_the_map():
    from bigrec_lib.study.provenance import imports

    order = re.findall(r"^      ([a-z]+)  +[^ =]", README, re.MULTILINE)
    for position, module in enumerate(order):
        for imported in imports(ROOT / "bigrec_lib" / f"{module}.py"):
            assert order.index(imported) < position, f"{module} imports {imported}"


def test_make_targets_and_links_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= targets
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
