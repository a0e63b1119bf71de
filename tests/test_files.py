"""Whole files or none; hashes that see content and names."""

import hashlib
import os

import pandas as pd
import pytest

from bigrec_lib.files import atomic, remove, sha256, write_json, write_parquet


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "folder"
    for content in ("one", "two"):
        with atomic(folder) as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert os.listdir(folder) == ["two"]


@pytest.mark.parametrize("interrupted", [1, 2])
def test_a_folder_stays_if_it_cannot_be_replaced(tmp_path, monkeypatch, interrupted):
    folder, renames = tmp_path / "folder", []
    folder.mkdir()
    (folder / "old").touch()

    def replace(source, target, rename=os.replace):
        renames.append(target)
        if len(renames) == interrupted:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt), atomic(folder) as partial:
        partial.mkdir()
    assert os.listdir(folder) == ["old"] and os.listdir(tmp_path) == ["folder"]


def test_a_folder_stays_if_nothing_was_made_to_replace_it(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "folder"):
        pass
    assert os.listdir(tmp_path) == ["folder"]


def test_sha256_of_a_file_is_the_standard_one_and_of_a_folder_sees_names(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()
    before = sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert sha256(tmp_path) != before


def test_json_refuses_nan_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError):
        write_json({"loss": float("nan")}, tmp_path / "a.json")
    assert os.listdir(tmp_path) == []


def test_equal_frames_give_equal_parquet_bytes(tmp_path):
    for name in ("a", "b"):
        write_parquet(pd.DataFrame({"x": [1, 2], "text": ["é", None]}), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert pd.read_parquet(tmp_path / "a").text[0] == "é"


def test_remove_takes_files_folders_and_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    remove(tmp_path / "folder")
    remove(tmp_path / "absent")
    assert os.listdir(tmp_path) == []
