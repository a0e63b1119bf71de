"""The README says what is true: its numbers, its map of the code, its commands."""

import re
from pathlib import Path

from bigrec_lib.study.parameters import NOTEBOOKS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_headline_table_is_the_committed_one():
    assert (ROOT / "results/standard/tables/headline.md").read_text(encoding="utf-8") in README


def test_every_notebook_and_wing_is_on_the_map():
    for notebook in NOTEBOOKS:
        assert f"notebooks/{notebook}.ipynb" in README
    wings = {path.name for path in (ROOT / "bigrec_lib").glob("[a-z]*")}
    for wing in wings:
        name = f"{wing}/" if "." not in wing else wing
        assert re.search(rf"^      {re.escape(name)} ", README, re.MULTILINE), wing


def test_make_targets_and_links_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= targets
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_links_within_the_docs_lead_to_headings_or_anchors():
    pages = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
    assert {"method.md", "glossary.md", "performance.md", "reliability.md"} <= set(pages)
    for name, text in pages.items():
        for page, anchor in re.findall(r"\]\(([\w.]*)#([^)]+)\)", text):
            target = pages[page or name]
            headings = re.findall(r"^#+ (.+)$", target, re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}
            assert anchor in slugs or f'id="{anchor}"' in target, f"{name}: {page}#{anchor}"
