"""The reference from docstrings: a page a room, each public name on it, nothing from a network."""

import ast
import html
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = sorted((ROOT / "bigrec_lib" / "method").glob("[a-z]*.py"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    import pdoc

    folder = tmp_path_factory.mktemp("api")
    pdoc.pdoc("bigrec_lib.method", output_directory=folder)
    return folder / "bigrec_lib" / "method"


@pytest.mark.parametrize("room", [path.stem for path in ROOMS])
def test_a_room_has_a_page_with_its_public_names_and_their_docstrings(pages, room):
    page = (pages / f"{room}.html").read_text(encoding="utf-8")
    tree = ast.parse((ROOT / "bigrec_lib" / "method" / f"{room}.py").read_text(encoding="utf-8"))
    text = re.sub(r"\W+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert f'id="{node.name}"' in page
            first_words = re.findall(r"\w+", ast.get_docstring(node) or "")[:4]
            assert " ".join(first_words) in text
    assert not re.search(r"<(script|link|img)[^>]*https?:", page)
