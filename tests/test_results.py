"""Ranks, lists and metrics are written one way, and read as they were written."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bigrec_lib.files import StudyError
from bigrec_lib.findings import evidence
from bigrec_lib.method import grounding, metrics
from bigrec_lib.study import manifests, publish, results
from bigrec_lib.study.parameters import NOTEBOOKS, MeasureGrounders
from bigrec_lib.study.parameters_analyses import Analysis
from bigrec_lib.study.row_keys import KEYS

ROOT = Path(__file__).parent.parent


def test_a_list_names_the_first_item_that_bears_a_title():
    groups = np.unique(pd.Series([0, 1, 0, 3])).astype(np.int32)  # titles a, b, a, c
    lists = {"m": np.array([[2, 0], [2, 0]])}  # c, then a
    rows = results.list_rows(lists, np.array([7, 8]), groups)
    assert rows.example.tolist() == [7, 8] and rows["items"].iloc[1].tolist() == [3, 0]
    ranks = {("m", "test"): grounding.frame([1, 0], [0, 2])}
    rows = results.rank_rows(ranks, {"test": np.array([7, 8])})
    assert rows.drop(columns=["split", "method"]).to_dict("list") == {
        "example": [7, 8], "rank": [1, 0], "ties": [0, 2]
    }  # fmt: skip
    assert set(rows.method) == {"m"} and set(rows.split) == {"test"}


def test_a_table_is_read_by_rows(tmp_path):
    frame = pd.DataFrame({"split": ["test", "valid"], "setting": ["", ""], "value": [0.5, 0.25]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    for name in ("t.parquet", "t.csv"):
        rows = results.read(tmp_path, name, split="valid")
        assert rows.value.tolist() == [0.25] and rows.setting.tolist() == [""]
    with pytest.raises(StudyError, match="no ranks.parquet in .*: run the study first"):
        results.read_ranks(tmp_path)


def test_metrics_name_their_protocol():
    summary = metrics.summary(grounding.frame([0, 30], [0, 0]))
    rows = metrics.long({("m", "test"): summary, ("m-reference", "test"): summary}, "tiny")
    assert list(rows) == metrics.COLUMNS
    assert set(zip(rows.method, rows.protocol, strict=True)) == {
        ("m", "corrected"), ("m-reference", "reference")
    }  # fmt: skip


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("results/*/manifests.json")), ids=lambda path: path.parent.name
)
def test_published_manifests_tell_analyses_from_steps(path):
    """By their keys, as the class of their notebook has it."""
    jobs = manifests.read_published(path.parent)["jobs"].values()
    assert jobs
    for job in jobs:
        analysis = issubclass(NOTEBOOKS[job["notebook"]], Analysis)
        assert manifests.is_analysis(job) == analysis, job["notebook"]


def test_measures_and_values_are_read_as_they_were_written(tmp_path):
    p = MeasureGrounders(root=str(tmp_path), study="s", dataset="d")
    p.output.mkdir(parents=True)
    measures = pd.DataFrame({"what": ["seconds"], "method": [""], "value": [0.1 + 0.2]})
    values = pd.DataFrame({"example": [4, 7], "value": [0.5, np.nan]})
    values = values.assign(split="test", what="distance", method="bigrec")
    results.write_measures(p, measures, values)
    for name in ("measures.csv", "values.parquet"):
        rows = results.read(p.output, name)
        frame = (measures if name == "measures.csv" else values)[rows.columns]
        pd.testing.assert_frame_equal(rows, frame, check_dtype=False)


def test_a_study_without_measures_has_none(tmp_path):
    assert evidence.read_measures(tmp_path).empty
    assert {*KEYS, "user", "value"} <= set(evidence.read_values(tmp_path))


def test_rows_of_a_job_are_the_same_bytes_whatever_else_is_published(tmp_path):
    rng = np.random.default_rng(0)
    first, second, new = (
        pa.table({"run": [name] * 500, "rank": rng.integers(0, 10**6, 500, dtype=np.int32)})
        for name in ("first", "second", "new")
    )
    path = tmp_path / "ranks.parquet"

    def rows_of_last(*frames):
        """The table, and the first of the bytes in which the rows of the last job are stored."""
        publish.write_table(path, frames)
        group = pq.ParquetFile(path).metadata.row_group(len(frames) - 1)
        start = group.column(0).dictionary_page_offset
        return pq.read_table(path), path.read_bytes()[start : start + 1000]

    table, before = rows_of_last(first, second)
    assert table.equals(pa.concat_tables([first, second]))
    table, after = rows_of_last(first, new, new.slice(0, 0), second)
    assert table.equals(pa.concat_tables([first, new, second]))
    assert len(before) == 1000 and before == after


def test_of_every_notebook_one_page_is_shown():
    def manifest(notebook, run, seed=0):
        keys = {"dataset": "d", "run": run, "n_train": int(run[1]) if run else 0, "seed": seed}
        return {"notebook": notebook, "keys": keys}

    made = {
        "d.01": manifest("01_prepare_data", ""),
        "d.n8-s1.02": manifest("02_tune_llm", "n8-s1", 1),
        "d.n8-s0.02": manifest("02_tune_llm", "n8-s0"),
        "d.n4-s0.02": manifest("02_tune_llm", "n4-s0"),
        "d.n8-s0-as-wide.02": manifest("02_tune_llm", "n8-s0-as-wide"),
        "d+e.n8-s0-as-merged.14a": manifest("14a_merge_adapters", "n8-s0-as-merged"),
        "d+e.n8-s1-as-merged.14a": manifest("14a_merge_adapters", "n8-s1-as-merged", 1),
    }
    assert publish.shown_jobs(made) == ["d.01", "d.n8-s0.02", "d+e.n8-s0-as-merged.14a"]
