"""Fixtures of the toy world (toy.py), made once a session."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes of tests share the machine
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from toy import batch, make_project, make_tiny_llm, write_ml_100k

PROJECT = {"test_batch", "test_faults", "test_machine", "test_notebooks", "test_staleness"}
PROJECT |= {"test_spaces_notebooks", "test_resume"}
"""Files whose tests use the fixture `project`."""


def pytest_xdist_make_scheduler(config, log):
    """Tests of one file go to one process, and all that use `project`, which is made once."""
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # the order below is better than the most tests first

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = Path(nodeid.partition("::")[0])
            return "project" if file.stem in PROJECT else str(file)

    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """What takes longest begins first, so that all processes end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.stem not in PROJECT, item.path not in slow))


@pytest.fixture(autouse=True)
def bfloat16_everywhere(monkeypatch):
    """What is asked for in bfloat16 is computed in it, slow or not."""
    monkeypatch.setattr("bigrec_lib.method.cpu.multiplies_bfloat16", lambda: True)


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


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium of this machine, driven by Playwright."""
    import browser

    if not browser.executable():
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        found = driver.chromium.launch(
            executable_path=browser.executable(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def one_thread():
    """Threads cost more than they bring in a tiny model."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(tiny_llm):
    """The tiny LLM, loaded."""
    from toy_llms import load

    return load(tiny_llm)


@pytest.fixture(scope="session")
def common_token(tiny_llm):
    """A token that the tiny LLM writes often, for an end of sequence that comes early."""
    from toy_llms import common_token_of

    return common_token_of(tiny_llm)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels that is all the index there is, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("BIGREC_CACHE", str(tmp_path / "cache"))
    return folder
