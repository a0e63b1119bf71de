"""Machines that lack something: git, a home to write to, a terminal that shows everything."""

import os
import shutil
import subprocess
import sys

import pytest

from bigrec_lib.files import StudyError
from bigrec_lib.study import environment, parameters, provenance, studies

CACHES = ("XDG_CACHE_HOME", "MPLCONFIGDIR")


def repository(folder):
    folder.mkdir()
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", "-C", folder, *words], check=True)
    return folder


def test_the_commit_is_that_of_the_project_itself(tmp_path, monkeypatch):
    own = repository(tmp_path / "own")
    other = repository(tmp_path / "other")
    (own / "unpacked").mkdir()
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    found = provenance.environment(own)
    assert len(str(found["commit"])) == 40 and found["dirty"] is False
    (own / "notebooks").mkdir()
    (own / "notebooks" / "new").write_text("x")
    assert provenance.environment(own)["dirty"] is True
    inside = provenance.environment(own / "unpacked")
    assert inside["commit"] == "" and inside["dirty"] is None


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    own = repository(tmp_path / "own")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = provenance.environment(own)
    assert found["commit"] == "" and found["dirty"] is None


@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_a_program_that_does_not_run_is_as_good_as_none(tmp_path, monkeypatch, mode):
    """Not to be executed, or of another machine's format."""
    for name in ("git", "nvidia-smi"):
        (tmp_path / name).write_bytes(b"\x7fELF\x00")
        (tmp_path / name).chmod(mode)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.environment(tmp_path)["commit"] == "" and provenance.gpus() == []


def test_a_commit_is_found_whatever_the_encoding_of_names(tmp_path, monkeypatch):
    own = repository(tmp_path / "café")
    code = (
        "import sys; from bigrec_lib.study import provenance as p; print(p.git(sys.argv[1], 'log'))"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, own], env=os.environ | plain, capture_output=True
    )
    assert b"Author: a" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "name", ["2024", "007", "1_000", "my study", "../quick", "", "nan", "True"]
)
def test_a_study_has_a_name_that_every_tool_takes_as_one(name):
    with pytest.raises(StudyError, match="cannot be called"):
        studies.load(name)


def test_a_folder_that_cannot_be_written_is_known(tmp_path):
    assert environment.can_write(tmp_path / "new" / "folder")
    (tmp_path / "file").write_text("")
    assert not environment.can_write(tmp_path / "file" / "below")


def test_ipython_takes_its_folder_beside_the_records_without_a_warning(tmp_path):
    (tmp_path / "runs").mkdir()
    code = (
        "from pathlib import Path\n"
        "from bigrec_lib.study import environment\n"
        "environment.stay_apart(Path(r'{}') / 'runs')\n"
        "import subprocess, sys\n"
        "own = 'from IPython.paths import get_ipython_dir; print(get_ipython_dir())'\n"
        "subprocess.run([sys.executable, '-c', own], check=True)"
    )
    command = [sys.executable, "-c", code.format(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "runs" / ".ipython")
    assert done.stderr == ""


def test_names_of_the_users_own_startup_files_are_no_parameters(tmp_path):
    """In a kernel of its own, as papermill starts it."""
    import nbformat
    import papermill

    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "mine.py").write_text('project_dir = "here"\nDEBUG = True\nseed = 7\n')
    cell = (
        "seed = 7\n"
        "from bigrec_lib.study import parameters\n"
        "print(parameters.TuneLLM.check(globals()).seed)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(notebook, tmp_path / "n.ipynb")
    before = os.environ.get("IPYTHONDIR")
    os.environ["IPYTHONDIR"] = str(tmp_path / "ipython")
    try:
        done = papermill.execute_notebook(
            str(tmp_path / "n.ipynb"), None, kernel_name="python3", progress_bar=False
        )
    finally:
        os.environ.pop("IPYTHONDIR")
        if before is not None:
            os.environ["IPYTHONDIR"] = before
    assert done.cells[0].outputs[0].text == "7\n"
    with pytest.raises(StudyError, match="unknown parameter 'DEBUG'"):
        parameters.TuneLLM.check({"DEBUG": True})


def test_neither_a_terminal_a_home_nor_a_profile_stops_a_study(project, tmp_path):
    """Latin-1 for a terminal, a file for a home, Snakemake profiles that run nothing, IPython's
    startup files that end the kernel."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    notebook = folder / "notebooks" / "08_training_size.ipynb"
    notebook.write_text(notebook.read_text().replace("# Do more", "# Would more", 1))
    (tmp_path / "file").write_text("")
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text("dry-run: true\n")
    shutil.copytree(tmp_path / "profile", folder / "profiles" / "default")
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "mine.py").write_text("import os; os._exit(1)")
    env = {name: value for name, value in os.environ.items() if name not in CACHES} | {
        "PYTHONIOENCODING": "latin-1",
        "HOME": str(tmp_path / "file"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "SNAKEMAKE_PROFILE": str(tmp_path / "profile"),
    }
    command = [sys.executable, "-m", "bigrec_lib.study.batch", "study", "toy"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode("latin-1")
    assert b"site:    results/toy/index.html" in done.stdout
    executed = folder / "results" / "toy" / "notebooks" / "08_training_size.ipynb"
    assert "# Would more" in executed.read_text() and "Matplotlib" not in executed.read_text()
