"""Tables round and escape; what is kept of an executed notebook."""

from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
import pandas as pd
from PIL import Image

from bigrec_lib.findings import tables
from bigrec_lib.study import notebook

ROOT = Path(__file__).parent.parent


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


def test_the_record_of_a_notebook_has_no_bars_paths_times_and_random_ids(tmp_path):
    texts = ["\r 1%| |", "\r100%|██| 3/3 [00:01<00:00]\n", f"{ROOT}/a.py: done\n"]
    texts += ["  \x1b[A\n   \x1b[A"]  # of a bar below a bar
    progress = [nbformat.v4.new_output("stream", name="stderr", text=text) for text in texts]
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "61f"}, "text/plain": "bar"}
    progress.insert(1, nbformat.v4.new_output("display_data", view))
    executed_notebook(tmp_path, "n", *progress)
    raw = nbformat.read(tmp_path / "n.ipynb", 4)
    raw.metadata["widgets"] = {"61f": {}}
    raw.metadata["papermill"] = {"start_time": "now", "input_path": str(ROOT)}
    raw.cells[1].metadata |= {"papermill": {"duration": 1.0}, "tags": ["injected-parameters"]}
    nbformat.write(raw, tmp_path / "n.ipynb")
    record = notebook.record(tmp_path / "n.ipynb", ROOT)
    assert [shown.text.strip() for shown in record.cells[1].outputs] == ["a.py: done"]
    assert not {"papermill", "widgets"} & set(record.metadata)
    assert "papermill" not in record.cells[1].metadata
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
