"""Tables round and escape; the report shows text as text and needs no network."""

from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from PIL import Image

from bigrec_lib.files import StudyError
from bigrec_lib.findings import tables
from bigrec_lib.study import notebook, report

ROOT = Path(__file__).parent.parent
JOBS = ["toy.01_prepare_data", "07_overall_performance"]


def test_tables_round_for_reading_and_keep_precision_for_computing(tmp_path):
    frame = pd.DataFrame({"method": ["a_b", "50 %"], "NDCG@20": [0.123456789, None]})
    tables.save(frame, tmp_path, "t", printed=True)
    assert pd.read_csv(tmp_path / "t.csv")["NDCG@20"][0] == 0.123456789
    assert "0.1235" in (tmp_path / "t.md").read_text()
    latex = (tmp_path / "t.tex").read_text()
    assert r"a\_b" in latex and r"50 \%" in latex and r"\toprule" in latex and "--" in latex


def executed_notebook(folder, name, *outputs):
    cell = nbformat.v4.new_code_cell("secret_code()", outputs=list(outputs))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Question"), cell])
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def test_the_report_escapes_titles_and_hides_code_and_progress(tmp_path):
    frame = pd.DataFrame({"title": ["<script>alert(1)</script>"]})
    shown = nbformat.v4.new_output("display_data", {"text/html": frame.to_html()})
    said = nbformat.v4.new_output(
        "display_data", {"text/markdown": "**<script>alert(2)</script>**"}
    )
    image = nbformat.v4.new_output("display_data", {"image/png": "iVBORw0KGgo="})
    progress = nbformat.v4.new_output("stream", name="stderr", text="50%|###")
    executed_notebook(
        tmp_path / "notebooks", "07_overall_performance", shown, said, image, progress
    )
    executed_notebook(tmp_path / "notebooks", "toy.01_prepare_data")
    text = report.write(tmp_path, JOBS).read_text()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    assert "title</th>" in text and "<h1" in text
    assert "secret_code" not in text and "50%|" not in text
    assert "data:image/png;base64,iVBORw0KGgo=" in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.index('id="07_overall_performance"') < text.index('id="toy.01_prepare_data"')


def test_merged_cells_stay_merged_and_style_sheets_go(tmp_path):
    frame = pd.DataFrame({("a", "x"): [1, 2], ("a", "y"): [3, 4]})
    frame.index = pd.MultiIndex.from_tuples([("games", "p"), ("games", "q")])
    tables = [nbformat.v4.new_output("display_data", {"text/html": html})
              for html in (frame.to_html(), frame.style.to_html())]  # fmt: skip
    executed_notebook(tmp_path / "notebooks", "07_overall_performance", *tables)
    text = report.write(tmp_path, JOBS[1:]).read_text()
    assert text.count('rowspan="2"') == 2 and text.count('colspan="2"') >= 2
    assert "style type" not in text


def test_a_report_of_nothing_is_refused(tmp_path):
    with pytest.raises(StudyError, match="run the study first"):
        report.write(tmp_path, [])


def test_the_record_of_a_notebook_has_no_bars_paths_times_and_random_ids(tmp_path):
    texts = ["\r 1%| |", "\r100%|██| 3/3 [00:01<00:00]\n", f"{ROOT}/a.py: done\n"]
    progress = [nbformat.v4.new_output("stream", name="stderr", text=text) for text in texts]
    executed_notebook(tmp_path, "n", *progress)
    raw = nbformat.read(tmp_path / "n.ipynb", 4)
    raw.metadata["papermill"] = {"start_time": "now", "input_path": str(ROOT)}
    raw.cells[1].metadata |= {"papermill": {"duration": 1.0}, "tags": ["injected-parameters"]}
    nbformat.write(raw, tmp_path / "n.ipynb")
    record = notebook.record(tmp_path / "n.ipynb", ROOT)
    assert [shown.text for shown in record.cells[1].outputs] == ["a.py: done\n"]
    assert "papermill" not in record.metadata and "papermill" not in record.cells[1].metadata
    assert record.cells[1].id == "injected-parameters"


def test_executed_notebooks_keep_their_pictures_in_256_colours(tmp_path):
    drawn = BytesIO()
    Image.linear_gradient("L").convert("RGB").save(drawn, format="png")
    given = b64encode(drawn.getvalue()).decode()
    executed_notebook(tmp_path, "n", nbformat.v4.new_output("display_data", {"image/png": given}))
    (shown,) = notebook.record(tmp_path / "n.ipynb", ROOT).cells[1].outputs
    with Image.open(BytesIO(b64decode(shown.data["image/png"]))) as image:
        assert image.mode == "P" and image.size == (256, 256)
        assert image.convert("RGB").getpixel((9, 200)) == (200, 200, 200)
