"""Run studies: `python -m bigrec_lib.study.batch study quick`.

A study's jobs are notebooks with parameters. What is done and what is not is decided here, by
content; Snakemake then runs the rest, on this machine or a cluster.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import secrets
import subprocess
import sys
from base64 import b64decode, b64encode
from contextlib import contextmanager, suppress
from pathlib import Path

from bigrec_lib.files import PARTIAL, StudyError, atomic, remove, sha256, write_text
from bigrec_lib.method import assets
from bigrec_lib.study import plan, report, runs, studies, verify
from bigrec_lib.study.studies import ROOT

SNAKEFILE = ROOT / "workflow" / "Snakefile"
WORD = "BIGREC_BATCH"  # environment variable that tells jobs which batch they belong to


def marker(name: str, job: str) -> Path:
    """The file by which Snakemake knows that a job is done; `mark` keeps it true."""
    return Path("runs") / name / "done" / job


# --------------------------------------------------------------------------------- one job


class Tee:
    """A stream that also goes to a file; neither a closed terminal nor a full disk ends the job."""

    def __init__(self, *streams):
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            with suppress(OSError):
                stream.write(text)
                stream.flush()
        return len(text)

    def flush(self) -> None:
        pass


def execute(source: Path, output: Path, parameters: dict[str, object], log: Path) -> None:
    """Run a notebook through papermill, its progress shown here and in `log`, its outputs kept.

    Raises StudyError that names the notebook, the cell, the error and the executed notebook.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    output.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as stream:
        try:
            papermill.execute_notebook(
                str(source),
                str(output),
                parameters=parameters,
                kernel_name="python3",
                progress_bar=False,
                stdout_file=Tee(sys.stdout, stream),
                stderr_file=Tee(sys.stderr, stream),
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
        except papermill.PapermillExecutionError as error:
            raise StudyError(
                f"{source.stem}, cell {error.exec_count}: {error.ename.split('.')[-1]}: "
                f"{' '.join(error.evalue.split())} (see {output})"
            ) from None
        except DeadKernelError:
            raise StudyError(
                f"{source.stem}: its kernel was killed, perhaps for want of memory (see {output})"
            ) from None


def settled(path: Path, **told: object):
    """An executed notebook with small pictures, the last state of progress bars, no path of this
    machine, and `told` in its metadata."""
    import nbformat

    from bigrec_lib.findings import plots

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        outputs = []
        for shown in cell.get("outputs", []):
            if outputs and shown.get("name") == outputs[-1].get("name", ""):
                outputs[-1].text += shown.text
            else:
                outputs.append(shown)
        for shown in outputs:
            if shown.output_type == "stream":
                text = "\n".join(line.split("\r")[-1] for line in shown.text.split("\n"))
                shown.text = text.replace(f"{ROOT}/", "").replace(f"{sys.prefix}/", "")
            elif "image/png" in shown.get("data", {}):
                png = plots.small(b64decode(shown.data["image/png"]))
                shown.data["image/png"] = b64encode(png).decode()
        if outputs:
            cell.outputs = outputs
    for place in ("input_path", "output_path"):
        notebook.metadata.get("papermill", {}).pop(place, None)
    notebook.metadata["bigrec"] = told
    return notebook


def run_notebook(name: str, key: str) -> None:
    """One job of the batch; a failure leaves its line for the end of the batch."""
    study = studies.load(name)
    job = studies.jobs(name, study)[key]
    print(f"── {key}{progress(name)}", file=sys.stderr, flush=True)
    with held(name, key), reported(name, key):
        needs = study.resources_of(job.notebook)
        set_threads(needs.threads)
        if plan.problem(name, job):
            tune_in_processes(name, job, needs.processes)
            run_job(job)
        else:
            print("   what it reads came out the same: still done", file=sys.stderr, flush=True)
        write_text("", marker(name, key))


def run_job(job: runs.Parameters) -> None:
    """Execute a notebook with its parameters and keep the executed one beside the results."""
    import nbformat

    logs = Path("runs") / job.study / "logs"
    executed = logs / f"{job.job}.ipynb"
    source = ROOT / "notebooks" / f"{job.notebook}.ipynb"
    execute(source, executed, job.model_dump(exclude_defaults=True), logs / f"{job.job}.log")
    manifest = runs.read_manifest(job.output)
    told = {part: manifest[part] for part in ("commit", "dirty", "inputs")}
    told |= {"job": job.job, "manifest": sha256(job.output / "manifest.json")}
    with atomic(plan.kept(job.study, job.job)) as partial:
        nbformat.write(settled(executed, **told), partial)


def run_shard(name: str, key: str, shard: int) -> None:
    """A part of the work of a 03_generate_titles."""
    study = studies.load(name)
    job = studies.jobs(name, study)[key]
    key = f"{key}.{shard}-of-{study.generation_shards}"
    print(f"── {key}", file=sys.stderr, flush=True)
    with held(name, key), reported(name, key):
        set_threads(study.resources_of(job.notebook).threads)
        generate_shard(name, job, shard, study.generation_shards)
        write_text("", marker(name, key))


@contextmanager
def reported(name: str, key: str):
    """Give every failure of a job one line, here and at the end of the batch."""
    try:
        yield
    except (StudyError, OSError) as error:
        told = str(error) if isinstance(error, StudyError) else f"{key}: {error}"
        with suppress(OSError), open(failures(name), "a", encoding="utf-8") as stream:
            stream.write(f"{told}\n")
        raise StudyError(told) from None


def progress(name: str) -> str:
    """How far the batch is, from what it wrote down when it began; '' outside one."""
    path = ROOT / "runs" / name / "batch.json"
    if not path.exists():
        return ""
    todo = json.loads(path.read_text(encoding="utf-8"))
    left = {key: seconds for key, seconds in todo.items() if not marker(name, key).exists()}
    time_left = f", {plan.about(sum(map(float, left.values())))} left" if all(left.values()) else ""
    return f" ({len(todo) - len(left)} of {len(todo)} jobs done{time_left})"


def claims(needs: studies.Resources) -> dict[str, int]:
    """A study's resources in Snakemake's names, for the scheduler of a machine or a cluster."""
    named = {
        "mem_mb": round(needs.memory_gb * 1000),
        "gpu": needs.gpus,
        "runtime": needs.minutes,
    }
    return {resource: amount for resource, amount in named.items() if amount}


def set_threads(count: int) -> None:
    """Fix the threads of this process's children, whatever else runs: rounding depends on them."""
    if count:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
            os.environ[variable] = str(count)


def tune_in_processes(name: str, job: runs.Parameters, processes: int) -> None:
    """Tune in several processes; the notebook then finds the tuning finished."""
    if isinstance(job, runs.TuneLLM) and processes > 1:
        command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--num_processes", str(processes), "-m", "bigrec_lib.study.batch"]
        command += ["tune", name, job.job]
        runs.lock(job)
        runs.begin(job)
        if subprocess.run(command).returncode:
            raise StudyError(f"{job.job}: tuning in {processes} processes failed: see above")
        runs.unlock(job)


def tune(job: runs.TuneLLM) -> None:
    """What 02_tune_llm does in its tuning cell."""
    from bigrec_lib.method import llm, tuning

    base = llm.load_llm(job.model, job.quantisation, job.dtype, job.device)
    train = tuning.read_samples(
        job.sources, "train", base.tokenizer, job.max_tokens, job.n_train, job.seed
    )
    valid = tuning.read_samples(job.sources, "valid", base.tokenizer, job.max_tokens)
    tuning.tune(base, train, valid, tuning.Tuning(**job.settings), job.adapter)


def generate_shard(name: str, job: runs.GenerateTitles, shard: int, shards: int) -> None:
    """What 03_generate_titles does in its two generating cells, for every n-th batch only."""
    import pandas as pd

    from bigrec_lib.method import generation, llm, prompts, sequences, tuning

    with open(ROOT / "runs" / name / ".shards", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        runs.begin(job)
    titles = pd.read_parquet(job.data / "items.parquet").title.tolist()
    words = prompts.domain(json.loads((job.data / "meta.json").read_text("utf-8"))["domain"])
    tuned = llm.load_llm(job.model, job.quantisation, job.dtype, job.device, adapter=job.adapter)
    answers = generation.answer_tokens(tuned.tokenizer, titles)
    trie = generation.Trie(answers) if job.constrained else None
    longest = generation.room_for(answers, 1.0 if job.constrained else 0.999)
    search = generation.Search(job.max_new_tokens or longest, job.beams, batch_size=job.batch_size)
    for split in ("valid", "test"):
        frame = sequences.read(job.data, split).to_pandas()
        samples = tuning.samples(frame, titles, words, tuned.tokenizer, job.max_tokens)
        generation.generate_file(
            tuned,
            frame.example.tolist(),
            [sample.prompt for sample in samples],
            job.generations / f"{split}.parquet",
            search,
            trie,
            folder=job.unfinished / split,
            shard=(shard, shards),
        )


# ------------------------------------------------------------------------------ the whole batch


def fetch_assets(planned: dict[str, runs.Parameters]) -> None:
    """Fetch every default model and data set the jobs need, before any of them starts."""
    for parameters in planned.values():
        wanted = getattr(parameters, "model", None)
        if isinstance(parameters, runs.PrepareData) and not parameters.data_path:
            wanted = parameters.reader or parameters.dataset
        if wanted in assets.DATA | assets.MODELS:
            assets.fetch(str(wanted))


def snakemake(name: str, *options: str) -> bool:
    """Run Snakemake on a study, in this process, and return whether every job succeeded.

    It goes by what is marked as done, and by nothing else: no times, no records of its own.
    """
    from snakemake import cli

    place = ["--snakefile", str(SNAKEFILE), "--directory", str(ROOT), "--config", f"study={name}"]
    manner = "--rerun-triggers params --drop-metadata --ignore-incomplete --nolock"
    quiet = [] if "--workflow-profile" in options else ["--quiet", "all"]
    try:
        cli.main([*place, *manner.split(), *quiet, *options])
    except SystemExit as end:
        return not end.code


@contextmanager
def only_one(name: str):
    """Hold the study's lock; it goes with the process, so a killed batch leaves none behind.

    The lock holds this batch's own word, by which its jobs know that it is still the one.
    """
    path = ROOT / "runs" / name / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StudyError(f"study {name} is running already: wait for it, or stop it") from None
        os.environ[WORD] = secrets.token_hex(8)
        path.write_text(os.environ[WORD])
        try:
            yield
        finally:
            os.environ.pop(WORD, None)


@contextmanager
def held(name: str, key: str):
    """Hold a job's lock, if the batch that started it, if any, is still the one that runs.

    A killed batch may leave a job behind that has yet to begin. That looks at the word once it has
    the lock, the next batch looks at the lock once it has put its word there: one sees the other.
    """
    path = ROOT / "runs" / name / "locks" / f"{key}.process"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        word = os.environ.get(WORD)
        if word and (ROOT / "runs" / name / ".lock").read_text() != word:
            raise StudyError(f"{key}: the batch that asked for it is gone")
        yield


def wait_for_orphans(name: str) -> None:
    """Wait for jobs that a killed batch left running: they would be in their successors' way."""
    for path in sorted((ROOT / "runs" / name / "locks").glob("*")):
        with open(path) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for {path.name}, which is still running", file=sys.stderr)
                fcntl.flock(stream, fcntl.LOCK_SH)


def tidy(name: str) -> None:
    """Remove the parts of files that killed jobs left."""
    for folder in (ROOT / "runs" / name, ROOT / "results" / name):
        for path in list(folder.rglob(f"{PARTIAL}*")):
            remove(path)


def mark(name: str, states: dict[str, plan.State]) -> None:
    """Leave a marker for each job that is done, and for no other."""
    remove(ROOT / "runs" / name / "done")
    for key, state in states.items():
        if state.status == "done":
            write_text("", ROOT / marker(name, key))


def failures(name: str) -> Path:
    """Where jobs leave the line that says why they failed."""
    return ROOT / "runs" / name / "failures.txt"


def run_study(name: str, *options: str) -> None:
    """Check a study, fetch what it needs, run what is missing, and say what came out.

    options: passed to Snakemake, such as `--cores 1`.
    """
    study = studies.load(name)
    with only_one(name):
        wait_for_orphans(name)
        tidy(name)
        fetch_assets(studies.jobs(name, study))
        states = plan.states(name, study)
        todo = {key: s.seconds for key, s in states.items() if s.status != "done"}
        if todo:
            mark(name, states)
            remove(failures(name))
            write_text(json.dumps(todo), ROOT / "runs" / name / "batch.json")
            print(plan.table(states).splitlines()[-1], file=sys.stderr)
            if not snakemake(name, *options):
                path = failures(name)
                said = path.read_text() if path.exists() else ""
                raise StudyError(said.strip() or "Snakemake failed: see .snakemake/log")
        else:
            print(f"Nothing to be done: all {len(states)} jobs are complete.")
        results = ROOT / "results" / name
        if todo or not (results / "report.html").exists():
            report.write(results, name)
    print("\n" + (results / "tables" / "headline.md").read_text(encoding="utf-8"))
    print(f"report:  {(results / 'report.html').relative_to(ROOT)}")
    print(f"results: {results.relative_to(ROOT)}/")


def rebuild(name: str) -> None:
    """Run the analyses on a study's results as they are, and write the page: no model, no data."""
    results = ROOT / "results" / name
    if not results.exists():
        raise StudyError(f"no results of {name} in results/: run the study first")
    tried = any(keys["setting"] for _, keys in runs.jobs_of(results))
    with only_one(name):
        for cls in runs.NOTEBOOKS.values():
            if issubclass(cls, runs.Analysis) and (tried or cls is not runs.TuningSettings):
                print(f"── {cls.notebook}", file=sys.stderr, flush=True)
                run_job(cls(study=name, root="."))
        print(f"report:  {report.write(results, name).relative_to(ROOT)}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bigrec_lib.study.batch", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, meaning in (
        ("study", "run what is missing of a study and print its headline table"),
        ("plan", "print which jobs are done, stale or missing, why, and how long; run nothing"),
        ("verify", "recompute hashes and metrics of the committed results"),
        ("report", "run the analyses on the results as they are, and write the report page"),
    ):
        commands.add_parser(command, help=meaning).add_argument("name")
    commands.add_parser("schema", help="print the JSON schema of study files")
    for command, meaning in (
        ("notebook", "run one job of a study (used by the batch)"),
        ("shard", "generate a part of the titles of a run (used by the batch)"),
        ("tune", "tune in the processes of `accelerate launch` (used by the batch)"),
    ):
        one = commands.add_parser(command, help=meaning)
        one.add_argument("name")
        one.add_argument("job")
        if command == "shard":
            one.add_argument("shard", type=int)
    given, options = parser.parse_known_args(arguments)
    if options and given.command != "study":
        parser.error(f"unknown: {' '.join(options)}")
    os.environ.setdefault("TQDM_MININTERVAL", "1")
    # kernels and further processes run this library, whichever one is installed
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    try:
        if given.command == "study":
            run_study(given.name, *(options or ("--cores", "all")))
        elif given.command == "plan":
            print(plan.table(plan.states(given.name, studies.load(given.name))))
        elif given.command == "verify":
            print(verify.study(ROOT / "results" / given.name))
        elif given.command == "report":
            rebuild(given.name)
        elif given.command == "schema":
            print(studies.schema(), end="")
        elif given.command == "notebook":
            run_notebook(given.name, given.job)
        elif given.command == "shard":
            run_shard(given.name, given.job, given.shard)
        elif given.command == "tune":
            tune(studies.jobs(given.name, studies.load(given.name))[given.job])
    except (StudyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
