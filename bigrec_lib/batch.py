"""Study files and what runs them: `python -m bigrec_lib.batch study quick`.

A study names data sets, training sizes and seeds; its jobs are notebooks with parameters. The
Snakefile turns them into rules; here they are checked, planned, executed and reported.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bigrec_lib import assets, report, runs
from bigrec_lib.files import StudyError, atomic, remove

ROOT = Path(__file__).parent.parent
SNAKEFILE = ROOT / "workflow" / "Snakefile"


class Study(BaseModel):
    """A study file: every training size and seed is run on every data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    datasets: dict[str, dict[str, object]] = Field(
        min_length=1, description="name in the results -> parameters of 01_prepare_data"
    )
    n_train: list[runs.Count] = Field(min_length=1, description="training sizes")
    seeds: list[int] = Field(min_length=1)
    llm: dict[str, object] = Field(
        default={}, description="parameters of every notebook that loads the LLM"
    )
    notebooks: dict[str, dict[str, object]] = Field(
        default={}, description="further parameters, by notebook"
    )


def load_study(name: str) -> Study:
    """Read `studies/<name>.yaml` and check every parameter of every job it asks for.

    Raises StudyError that names the file and each unknown key, wrong type or missing value.
    """
    path = ROOT / "studies" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise StudyError(f"no study {name!r} in {path.parent.name}/: choose one of {known}")
    where = path.relative_to(ROOT)
    try:
        study = Study(**yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except ValidationError as error:
        raise StudyError(f"{where}: {runs.explain(error)}") from None
    except (yaml.YAMLError, TypeError) as error:
        raise StudyError(f"{where} is not a mapping in YAML: {error}") from None
    unknown = set(study.notebooks) - set(runs.NOTEBOOKS)
    if unknown:
        raise StudyError(f"{where}: unknown notebook {', '.join(sorted(unknown))}")
    try:
        jobs(name, study)
    except StudyError as error:
        raise StudyError(f"{where}: {error}") from None
    return study


def jobs(name: str, study: Study) -> list[runs.Parameters]:
    """The parameters of every job, in an order in which they can run."""
    planned: list[runs.Parameters] = []
    for notebook, cls in runs.NOTEBOOKS.items():
        for keys in job_keys(cls, study):
            planned.append(job(name, study, notebook, keys))
    return planned


def job_keys(cls: type[runs.Parameters], study: Study) -> list[dict[str, object]]:
    """What tells one job of a notebook from another: nothing, a data set, or a whole run."""
    if issubclass(cls, runs.RunParameters):
        return [
            {"dataset": dataset, "n_train": n_train, "seed": seed}
            for dataset in study.datasets
            for n_train in study.n_train
            for seed in study.seeds
        ]
    if issubclass(cls, runs.DatasetParameters):
        return [{"dataset": dataset} for dataset in study.datasets]
    return [{}]


def job(name: str, study: Study, notebook: str, keys: dict[str, object]) -> runs.Parameters:
    """The checked parameters of one job."""
    cls = runs.NOTEBOOKS[notebook]
    given: dict[str, object] = {"study": name, "root": ".", **keys}
    if cls is runs.PrepareData:
        given |= study.datasets[str(keys["dataset"])]
    if issubclass(cls, runs.ModelParameters):
        given |= study.llm
    return cls.check(given | study.notebooks.get(notebook, {}))


def library_of(source: Path) -> list[str]:
    """The library modules a notebook or module imports, directly or through others, as paths."""
    found: set[str] = set()
    waiting = [source]
    while waiting:
        for module in imports(waiting.pop()):
            path = Path(__file__).parent / f"{module}.py"
            if path.exists() and str(path.relative_to(ROOT)) not in found:
                found.add(str(path.relative_to(ROOT)))
                waiting.append(path)
    return sorted(found)


def imports(source: Path) -> set[str]:
    """Names of bigrec_lib modules imported anywhere in a Python file or a notebook's code."""
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "bigrec_lib":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bigrec_lib."):
            names.add(node.module.split(".")[1])
    return names


def execute(source: Path, output: Path, parameters: dict[str, object]) -> None:
    """Run a notebook through papermill, its progress shown here, its outputs kept in `output`.

    Raises StudyError that names the notebook, the cell, the error and the executed notebook.
    """
    import papermill

    output.parent.mkdir(parents=True, exist_ok=True)
    print(f"── {output.stem}", file=sys.stderr, flush=True)
    try:
        papermill.execute_notebook(
            str(source),
            str(output),
            parameters=parameters,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            extra_arguments=["--IPKernelApp.log_level=50"],
        )
    except papermill.PapermillExecutionError as error:
        raise StudyError(
            f"{source.stem}, cell {error.exec_count}: {error.ename.split('.')[-1]}: "
            f"{' '.join(error.evalue.split())} (see {output})"
        ) from None
    finally:
        if output.exists():
            settle_output(output)


def settle_output(path: Path) -> None:
    """In an executed notebook, keep the last state of progress bars and no path of this machine."""
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for shown in cell.get("outputs", []):
            if shown.output_type == "stream":
                text = "\n".join(line.split("\r")[-1] for line in shown.text.split("\n"))
                shown.text = text.replace(f"{ROOT}/", "").replace(f"{sys.prefix}/", "")
    with atomic(path) as partial:
        nbformat.write(notebook, partial)


def fetch_assets(name: str, study: Study) -> None:
    """Fetch every default model and data set the study needs, before any job starts."""
    for parameters in jobs(name, study):
        wanted = getattr(parameters, "model", None)
        if isinstance(parameters, runs.PrepareData) and not parameters.data_path:
            wanted = parameters.reader or parameters.dataset
        if wanted in assets.DATA | assets.MODELS:
            assets.fetch(str(wanted))


def snakemake(name: str, *options: str) -> int:
    """Run Snakemake on a study in the project's folder; return its exit code."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE)]
    command += ["--directory", str(ROOT), "--config", f"study={name}", "--cores", "all"]
    command += ["--rerun-incomplete", "--nolock", "--quiet", "host", "rules", *options]
    return subprocess.run(command, cwd=ROOT).returncode


@contextmanager
def only_one(name: str):
    """Hold the study's lock; it goes with the process, so a killed batch leaves none behind."""
    path = ROOT / "runs" / name / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(f"study {name} is running already: wait for it, or stop it") from None
        yield


def failures(name: str) -> Path:
    """Where jobs leave the line that says why they failed."""
    return ROOT / "runs" / name / "failures.txt"


def run_study(name: str) -> None:
    """Check a study, fetch what it needs, run what is missing, and say what came out."""
    study = load_study(name)
    with only_one(name):
        fetch_assets(name, study)
        remove(failures(name))
        code = snakemake(name)
    if code:
        said = failures(name).read_text() if failures(name).exists() else "snakemake failed\n"
        raise StudyError(said.strip())
    results = runs.OverallPerformance(study=name, root=str(ROOT)).results
    print("\n" + (results / "tables" / "headline.md").read_text(encoding="utf-8"))
    print(f"report:  {(results / 'report.html').relative_to(ROOT)}")
    print(f"results: {results.relative_to(ROOT)}/")


def run_notebook(name: str, source: Path, output: Path, parameters: dict[str, object]) -> None:
    """One job of the batch; a failure leaves its line for the end of the batch."""
    try:
        execute(source, output, parameters)
    except StudyError as error:
        with open(failures(name), "a", encoding="utf-8") as stream:
            stream.write(f"{error}\n")
        raise


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bigrec_lib.batch", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, meaning in (
        ("study", "run what is missing of a study and print its headline table"),
        ("plan", "print what would run and why; run nothing"),
        ("report", "write the report page from the executed notebooks"),
    ):
        commands.add_parser(command, help=meaning).add_argument("name")
    one = commands.add_parser("notebook", help="run one notebook of a study (used by the batch)")
    for argument in ("name", "source", "output", "parameters"):
        one.add_argument(argument)
    given = parser.parse_args(arguments)
    os.environ.setdefault("TQDM_MININTERVAL", "1")
    try:
        if given.command == "study":
            run_study(given.name)
        elif given.command == "plan":
            load_study(given.name)
            return snakemake(given.name, "--dry-run")
        elif given.command == "report":
            report.write(ROOT / "results" / given.name, given.name)
        else:
            source, output = Path(given.source), Path(given.output)
            run_notebook(given.name, source, output, json.loads(given.parameters))
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
