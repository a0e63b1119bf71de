"""Fixtures of the toy world (toy.py), made once a session."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from toy import batch, make_project, make_tiny_llm, write_ml_100k


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    """Folder with a toy corpus in ml-100k's native format."""
    return write_ml_100k(tmp_path_factory.mktemp("toy") / "ml-100k")


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory):
    """Folder with a tiny randomly initialised Llama and its tokenizer."""
    return make_tiny_llm(tmp_path_factory.mktemp("llm") / "tiny")


@pytest.fixture(scope="session")
def project(tmp_path_factory, toy_data, tiny_llm):
    """A copy of the project, under another name, in which the toy study has run."""
    folder = tmp_path_factory.mktemp("elsewhere") / "my project"
    make_project(folder, toy_data, tiny_llm)
    (folder / "said.txt").write_text(batch(folder, "study", "toy").stdout)
    return folder
