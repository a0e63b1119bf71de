"""The README says what is true: its numbers, its map of the code, its commands."""

import re
from pathlib import Path

from bigrec_lib.study import batch, plan, studies
from bigrec_lib.study.parameters import NOTEBOOKS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def doc(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_the_grid_of_verdicts_is_the_committed_one():
    published = (ROOT / "results/standard/README.md").read_text(encoding="utf-8")
    paragraphs = published.split("## Verdicts\n")[1].split("\n\n")
    (table,) = (text for text in paragraphs if text.startswith("| claim or question"))
    assert re.sub(r"\]\((?!http)", "](results/standard/", table) in README


def test_every_number_of_what_we_found_stands_in_the_committed_results():
    """As a mean or an end of an interval in a table of the study that the sentence names."""
    bullets = README.split("we said before, comes first:")[1].split("| claim or question")[0]
    tables = ("standard", "collapse", "sizes")
    told = " ".join(
        path.read_text(encoding="utf-8")
        for study in tables
        for path in sorted((ROOT / "results" / study / "tables").glob("*.csv"))
    )
    values = {f"{float(v):.4f}" for v in re.findall(r"(?<![\w.])-?\d\.\d+(?:e-\d+)?", told)}
    values |= {f"{float(v):.3f}" for v in values} | {v.removeprefix("-") for v in values}
    for shown in re.findall(r"\d\.\d{3,4}", bullets):
        assert shown in values or f"{float(shown):.3f}" in values, shown


def test_every_notebook_and_wing_is_on_the_map():
    for notebook in NOTEBOOKS:
        assert f"notebooks/{notebook}.ipynb" in doc("notebooks.md")
    wings = {path.name for path in (ROOT / "bigrec_lib").glob("[a-z]*")}
    for wing in wings:
        name = f"{wing}/" if "." not in wing else wing
        assert re.search(rf"^      {re.escape(name)} ", doc("code.md"), re.MULTILINE), wing


def test_make_targets_and_links_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in (README, *map(doc, ("notebooks.md", "studies.md", "code.md"))):
        assert set(re.findall(r"(?:`|^    )make ([a-z]+)", text, re.MULTILINE)) <= targets
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


def test_what_make_new_says_of_the_table_shown(tmp_path, monkeypatch, capsys):
    """The first rows are those of the page; the rows after them repeat the last one's form."""
    for module in (plan, studies):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", doc("studies.md"), re.MULTILINE)
    (table,) = (block for block in blocks if "customer,product_id" in block)
    (said,) = (block for block in blocks if "next: make study STUDY=shop" in block)
    head = re.sub(r"^    ", "", table, flags=re.MULTILINE).strip()
    later = [f"{n},C0055,P-79,2024-04-01T{n % 24:02}:00:00,Old Road" for n in range(1561)]
    (tmp_path / "shop.csv").write_text("\n".join([head, *later]) + "\n")
    (tmp_path / "studies").mkdir()
    assert batch.main(["new", "shop", "~/shop.csv"]) == 0
    printed = capsys.readouterr().out.splitlines()
    wanted = [line[4:] for line in said.splitlines() if line != "    …"]
    assert [line for line in wanted if "one after" not in line and line not in printed] == []
