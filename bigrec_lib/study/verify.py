"""Check committed results against themselves: no model, no data, no work files are needed."""

from pathlib import Path

from bigrec_lib.files import StudyError, sha256
from bigrec_lib.method import metrics
from bigrec_lib.study import runs

PICTURES = (".png", ".svg")


def study(results: Path) -> str:
    """Recompute every hash in the manifests and every metric that follows from ranks.

    Pictures may be absent: those of a study's further seeds are not committed. Returns a line that
    says what was checked. Raises StudyError that names what differs.
    """
    folders = sorted(path.parent for path in results.rglob("manifest.json"))
    if not folders:
        raise StudyError(f"no manifest below {results}: nothing to verify")
    hashes = {path: digest for folder in folders for path, digest in recorded(results, folder)}
    absent = [path for path in hashes if path.suffix in PICTURES and not path.exists()]
    for path in absent:
        del hashes[path]
    wrong = [hash_problem(path, digest) for path, digest in hashes.items()]
    checked = [metric_problems(folder) for folder in folders if (folder / "metrics.csv").exists()]
    wrong += [problem for problems in checked for problem in problems.values()]
    wrong = [problem for problem in wrong if problem]
    if wrong:
        raise StudyError("\n".join([f"{results.name}: {len(wrong)} differ", *wrong]))
    return (
        f"OK: {results.name}: {len(hashes)} files have the recorded hash, "
        f"{sum(map(len, checked))} metrics follow from the ranks"
        + (f"; {len(absent)} pictures are not here" if absent else "")
    )


def recorded(results: Path, folder: Path) -> list[tuple[Path, str]]:
    """Files below `results` that the manifest in `folder` lists, with their hashes."""
    manifest = runs.read_manifest(folder)
    if "results" in manifest:
        return [(results / name, digest) for name, digest in manifest["results"].items()]
    return [(folder / name, digest) for name, digest in manifest["outputs"].items()]


def hash_problem(path: Path, digest: str) -> str:
    if not path.exists():
        return f"{path} is missing"
    return "" if sha256(path) == digest else f"{path} is not the file that was written"


def metric_problems(folder: Path) -> dict[tuple, str]:
    """For every metric of `folder`/metrics.csv with ranks beside it: '', or what is wrong."""
    import pandas as pd

    written = pd.read_csv(folder / "metrics.csv").set_index(["method", "split", "metric", "k"])
    found: dict[tuple, str] = {}
    for path in sorted(folder.glob("ranks/*/*.parquet")):
        method, split = path.stem, path.parent.name
        for row in metrics.summary(pd.read_parquet(path)).itertuples():
            key = (method, split, row.metric, row.k)
            value = written.value.get(key)
            found[key] = (
                ""
                if value is not None and abs(value - row.value) < 1e-12
                else f"{folder}/metrics.csv: {' '.join(map(str, key))} is {value}, but the ranks "
                f"give {row.value}"
            )
    return found
