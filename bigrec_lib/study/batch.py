"""Run studies: `python -m bigrec_lib.study.batch study quick`.

A study's jobs are notebooks with parameters. What is done and what is not is decided here, by
content; Snakemake then runs the rest, on this machine or a cluster.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bigrec_lib.files import PARTIAL, StudyError, locked, remove, write_text
from bigrec_lib.method import assets
from bigrec_lib.study import (
    accept,
    cards,
    data,
    environment,
    expansion,
    manifests,
    new,
    plan,
    provenance,
    publish,
    resume,
    runner,
    schema,
    studies,
    verify,
)
from bigrec_lib.study.parameters import NOTEBOOKS, PrepareData
from bigrec_lib.study.parameters_analyses import Analysis
from bigrec_lib.study.parameters_checks import Parameters
from bigrec_lib.study.row_keys import reserved
from bigrec_lib.study.runner import WORD, failures, marker
from bigrec_lib.study.studies import ROOT

SNAKEFILE = ROOT / "workflow" / "Snakefile"
GRAMMAR = "rfc3987_syntax"  # jsonschema compiles it for IRIs, which nobody has: a second a process


def claims(needs: schema.Resources) -> dict[str, int]:
    """A study's resources in Snakemake's names, for the scheduler of a machine or a cluster."""
    amounts = {
        "mem_mb": round(needs.memory_gb * 1000),
        "gpu": needs.gpus,
        "runtime": needs.minutes,
    }
    return {resource: amount for resource, amount in amounts.items() if amount}


def fetch_assets(planned: dict[str, Parameters]) -> None:
    """Fetch every default model and data set the jobs need, before any of them starts.

    Of a model of the Hugging Face hub, the revision: it is part of what a job's work follows from.
    """
    models = {str(getattr(job, "model", "")) for job in planned.values()} - {""}
    data_sets = {
        job.reader or job.dataset
        for job in planned.values()
        if isinstance(job, PrepareData) and not job.data_path
    }
    for asset in sorted((models | data_sets) & (assets.DATA | assets.MODELS).keys()):
        assets.fetch(asset)
    for model in sorted(models - assets.MODELS.keys()):
        if not Path(model).is_dir():
            from huggingface_hub import hf_hub_download

            with suppress(OSError, ValueError):  # offline, or no such model: the job says so
                hf_hub_download(model, "config.json")


def checked(name: str, study: schema.Study) -> dict[str, Parameters]:
    """The jobs of a study whose file and data were looked at; warnings go to stderr."""
    planned = expansion.jobs(name, study)
    try:
        warnings = data.check(planned)
    except StudyError as error:
        raise StudyError(f"studies/{name}.yaml: {error}") from None
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return planned


def snakemake(name: str, *options: str) -> bool:
    """Run Snakemake on a study, in this process, and return whether every job succeeded.

    It goes by what is marked as done, and by nothing else: no times, no records of its own.
    """
    from snakemake import cli

    os.environ.pop("SNAKEMAKE_PROFILE", None)  # the user's own, meant for other workflows
    place = ["--snakefile", str(SNAKEFILE), "--directory", str(ROOT), "--config", f"study={name}"]
    manner = "--rerun-triggers params --drop-metadata --ignore-incomplete --nolock --keep-going"
    none = "--workflow-profile none --quiet all"  # nor one that lies in the current folder
    own = [] if "--workflow-profile" in options else none.split()
    if own and "--resources" not in options:
        own += of_machine()
    try:
        cli.main([*place, *manner.split(), *own, *options])
    except SystemExit as end:
        return not end.code
    return True


def of_machine() -> list[str]:
    """What jobs that run at once share: this machine's memory and GPUs, as Snakemake takes them.

    A job that asks for more than there is counts as one that takes all.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = environment.usable_gpus(len(provenance.gpus()))
    return ["--resources", f"mem_mb={memory // 10**6}", f"gpu={len(gpus)}"]


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Hold the study's lock; it goes with the process, so a killed batch leaves none behind.

    The lock file holds this batch's own word, by which its jobs know that it is still the one
    that runs.
    """
    path = ROOT / "runs" / name / ".lock"
    try:
        with locked(path, wait=False):
            os.environ[WORD] = secrets.token_hex(8)
            path.write_text(os.environ[WORD])
            try:
                yield
            finally:
                os.environ.pop(WORD, None)
    except BlockingIOError:
        raise StudyError(f"study {name} is running already: wait for it, or stop it") from None


def wait_for_orphans(name: str) -> None:
    """Wait for jobs that a killed batch left running: they would be in their successors' way."""
    for path in sorted((ROOT / "runs" / name / "locks").glob("*")):
        try:
            with locked(path, wait=False):
                pass
        except BlockingIOError:
            print(f"waiting for {path.name}, which is still running", file=sys.stderr)
            with locked(path):
                pass


def tidy(name: str) -> None:
    """Remove the parts of files that killed jobs left."""
    for folder in (ROOT / "runs" / name, ROOT / "results" / name):
        for path in list(folder.rglob(f"{PARTIAL}*")):
            remove(path)


def mark(name: str, states: dict[str, plan.State], collected: bool) -> None:
    """Leave a marker for each job that is done, and for no other."""
    remove(ROOT / "runs" / name / "done")
    done = [key for key, state in states.items() if state.status == "done"]
    for key in done + [plan.COLLECT] * collected:
        write_text("", ROOT / marker(name, key))


def run_study(name: str, *options: str) -> None:
    """Check a study, fetch what it needs, run what is missing, and say what came out.

    options: passed to Snakemake, such as `--cores 1`.
    """
    study = studies.load(name)
    planned = checked(name, study)
    results = ROOT / "results" / name
    with only_one(name):
        wait_for_orphans(name)
        tidy(name)
        if study.from_results:
            take_up(planned)
        fetch_assets(planned)
        run_missing(name, planned, *options)
        analyses = [job for job in planned.values() if isinstance(job, Analysis)]
        if publish.pending(results, analyses):
            publish.finish(results, analyses)
        if study.adapters:
            cards.publish_adapters(results, expansion.adapters(name, study))
    print("\n" + (results / "tables" / "headline.md").read_text(encoding="utf-8"))
    print(f"site:    {(results / 'index.html').relative_to(ROOT)}")
    print(f"results: {results.relative_to(ROOT)}/")


def run_missing(name: str, planned: dict[str, Parameters], *options: str) -> None:
    """Run every job that is not done; go round again where one made anew shows what else has to be.

    Raises StudyError as `run_jobs` does.
    """
    give_up(planned)
    states = plan.states(planned)
    todo = {key: s.seconds for key, s in states.items() if s.status != "done"}
    if not todo:
        print(f"Nothing to be done: all {len(states)} jobs are complete.")
        return
    try:
        run_jobs(name, states, todo, *options)
    except StudyError:
        if not plan.jobs_to_repeat(planned):
            raise
        run_missing(name, planned, *options)


def take_up(planned: dict[str, Parameters]) -> None:
    """Take from the results what they hold of a study's jobs."""
    if names := resume.take_up(planned):
        print(f"taken from the results: {len(names)} jobs", file=sys.stderr)


def give_up(planned: dict[str, Parameters]) -> None:
    """Remove what was taken from the results without files that a job has to read."""
    if reruns := plan.jobs_to_repeat(planned):
        print(f"run again, as {plan.UNPUBLISHED}: {', '.join(reruns)}", file=sys.stderr)
    for key in reruns:
        remove(planned[key].output)


def print_plan(name: str) -> None:
    """Print where every job of a study stands; run nothing."""
    study = studies.load(name)
    planned = checked(name, study)
    if study.from_results:
        with suppress(BlockingIOError), locked(ROOT / "runs" / name / ".lock", wait=False):
            take_up(planned)  # a batch that holds the lock has done so already
    print(plan.table(plan.states(planned)))


def run_jobs(
    name: str, states: dict[str, plan.State], todo: dict[str, float | None], *options: str
) -> None:
    """Have Snakemake run what is to be done. Raises StudyError with a line for each failed job."""
    steps = [key for key in todo if not isinstance(states[key].job, Analysis)]
    collected = not steps and not publish.why_collect({key: s.job for key, s in states.items()})
    mark(name, states, collected)
    remove(failures(name))
    write_text(json.dumps(todo), ROOT / "runs" / name / "batch.json")
    print(plan.table(states).splitlines()[-1], file=sys.stderr)
    if not snakemake(name, *options):
        path = failures(name)
        lines = path.read_text(encoding="utf-8").strip() if path.exists() else ""
        raise StudyError(lines or "Snakemake failed: see .snakemake/log")


def rebuild(name: str) -> None:
    """Run the analyses on what is published, and publish them anew: no model, no data."""
    results = ROOT / "results" / name
    entries = manifests.read_published(results)["jobs"].values()
    subjects = {job["notebook"] for job in entries}
    subjects |= {
        key
        for job in entries
        for key, value in job["keys"].items()
        if value and not (key == "setting" and reserved(value))
    }
    analyses = [
        cls(study=name, root=".")
        for cls in NOTEBOOKS.values()
        if issubclass(cls, Analysis) and (not cls.compares or cls.compares in subjects)
    ]
    with only_one(name):
        for job in analyses:
            print(f"── {job.notebook}", file=sys.stderr, flush=True)
            runner.execute(job)
        publish.finish(results, analyses)
    print(f"site:    {(results / 'index.html').relative_to(ROOT)}")


def publish_adapters(name: str) -> None:
    """Publish the adapters of a study that has run, and say how large they are."""
    results = ROOT / "results" / name
    with only_one(name):
        folders = cards.publish_adapters(results, expansion.adapters(name, studies.load(name)))
    for folder in folders:
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"adapter: {folder.relative_to(ROOT)} ({size / 1e6:.1f} MB)")


def accept_changes(name: str, files: list[str], why: str) -> None:
    """Accept changes of code in these files for a study's finished steps, and say for which."""
    planned = checked(name, studies.load(name))
    with only_one(name):
        names = accept.accept(planned.values(), set(files), why, ROOT)
    print("\n".join(names))
    print(f"{len(names)} finished jobs count as made by the code of today; run the study again")


def parser() -> argparse.ArgumentParser:
    program = argparse.ArgumentParser(prog="python -m bigrec_lib.study.batch", description=__doc__)
    commands = program.add_subparsers(dest="command", required=True)
    for command, meaning in (
        ("study", "run what is missing of a study and print its headline table"),
        ("plan", "print which jobs are done, stale or missing, why, and how long; run nothing"),
        (
            "verify",
            "recompute all hashes, and all metrics that follow from ranks",
        ),
        ("report", "run the analyses on the results as they are, and write the site"),
        ("adapter", "publish the adapters of a study's main runs, with their model cards"),
        ("collect", "publish the rows of all steps (used by the batch)"),
    ):
        commands.add_parser(command, help=meaning).add_argument("name")
    subparser = commands.add_parser("new", help="begin a study of your own table (`make new`)")
    subparser.add_argument("name")
    subparser.add_argument("data", help="path of the table")
    subparser.add_argument("--titles", default="", help="path of the table of titles")
    subparser.add_argument("--columns", default="", help="what they are: user=buyer,time=bought_at")
    subparser = commands.add_parser("accept", help="say that a change of code changes no results")
    subparser.add_argument("name")
    subparser.add_argument(
        "files", help="paths of what changed, such as bigrec_lib/method/beams.py"
    )
    subparser.add_argument("why", help="why results stay the same")
    commands.add_parser("schema", help="print the JSON schema of study files")
    for command, meaning in (
        ("notebook", "run one job of a study (used by the batch)"),
        ("shard", "generate a part of the titles of a run (used by the batch)"),
        ("tune", "tune in the processes of `accelerate launch` (used by the batch)"),
    ):
        subparser = commands.add_parser(command, help=meaning)
        subparser.add_argument("name")
        subparser.add_argument("job")
        if command == "shard":
            subparser.add_argument("shard", type=int)
    return program


def do(command: argparse.Namespace, options: list[str]) -> None:
    """Carry out one command line. options: passed to Snakemake."""
    name = getattr(command, "name", "")
    if command.command == "study":
        run_study(name, *(options or ("--cores", "all")))
    elif command.command == "plan":
        print_plan(name)
    elif command.command == "new":
        new.begin(name, command.data, command.titles, command.columns)
    elif command.command == "verify":
        print(verify.study(ROOT / "results" / name))
    elif command.command == "report":
        rebuild(name)
    elif command.command == "adapter":
        publish_adapters(name)
    elif command.command == "accept":
        accept_changes(name, command.files.split(), command.why)
    elif command.command == "schema":
        print(schema.as_json(), end="")
    elif command.command == "collect":
        runner.collect(name)
    elif command.command == "notebook":
        runner.run_notebook(name, command.job)
    elif command.command == "shard":
        runner.run_shard(name, command.job, command.shard)
    elif command.command == "tune":
        runner.tune(expansion.jobs(name, studies.load(name))[command.job])


def main(arguments: list[str] | None = None) -> int:
    command, options = parser().parse_known_args(arguments)
    if options and command.command != "study":
        parser().error(f"unknown: {' '.join(options)}")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack some characters
            stream.reconfigure(errors="replace")
    os.environ.setdefault("TQDM_MININTERVAL", "1")
    environment.settle()
    environment.stay_apart(ROOT / "runs")
    sys.modules.setdefault(GRAMMAR, None)  # type: ignore[arg-type]
    # kernels and further processes run this library, whichever one is installed
    path = [str(ROOT), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    try:
        do(command, options)
    except (StudyError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
