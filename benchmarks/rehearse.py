"""The study `paper` at its true sizes, before a GPU is there: what every job takes.

Synthetic files in the native formats of MovieLens-10M (10,000,054 ratings) and of Amazon's Video
Games of 2018 (500,000 reviews with their metadata) are written, a tiny Llama of random weights is
made, and the real batch runs studies/paper.yaml on them in a project of its own,
runs/rehearse/project. Data, statistics, grounding and reweighting are whole, the examples as many
as the paper's. What trains or writes is cut: one run of each kind, one epoch, one point of a grid,
few tokens, and one network on the whole training split. What was done is not done again. It fails
if a job fails, or takes more than MOST_GB.

`--quick` takes a hundredth of the data and of the examples, and the main runs alone: 19 jobs, each
of which has a kernel to start, so it takes four minutes on one busy core.
"""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from common import arguments, finish
from data import chosen, parts_of, write_movielens
from gpu import TINY_SHAPES, made_titles, make_llm
from tqdm import tqdm

from bigrec_lib.files import atomic, remove

ROOT = Path(__file__).parents[1]
REVIEWS, USERS, ITEMS, LISTED = 500_000, 55_223, 17_408, 84_893
PAGE = "var aPageStart = (new Date()).getTime(); "  # some titles of Amazon's are scraped pages
KINDS = "zero_shot constrained transfer shuffled matched joint ladder".split()
ON_ALL = ["recent-popularity", "item-knn", "markov", "sasrec-ce"]  # of the whole training split
MOST_GB = 12  # of memory, that any job may take
PARTS = ("bigrec_lib", "notebooks", "workflow", "pyproject.toml")

# ------------------------------------------------------------------------------------ the world


def write_games(folder: Path, share: float) -> None:
    """Write the 5-core and the metadata of Video Games, or a share of its users and items."""
    rng = np.random.default_rng(1)
    users, items, listed = (max(8, int(n * share)) for n in (USERS, ITEMS, LISTED))
    spread = np.minimum(rng.lognormal(0, 1.2, users), 60)
    counts = 5 + (spread / spread.sum() * (REVIEWS * share - 5 * users)).astype(np.int64)
    counts = np.minimum(counts, items - 1)
    titles, names = made_titles(listed), [f"B{number:09d}" for number in range(listed)]
    texts = [" ".join(made_titles(400)[at : at + 12]) for at in range(0, 400, 8)]
    titles[::1000] = [PAGE * int(times) for times in rng.integers(5, 200, len(titles[::1000]))]
    with gzip.open(folder / "meta_Video_Games.json.gz", "wt", 1, encoding="utf-8") as file:
        for name, title in zip(names, tqdm(titles, desc="meta_Video_Games"), strict=True):
            told: dict[str, object] = {"category": ["Video Games", "PC"], "tech1": ""}
            told |= {"description": texts[:2]}
            told |= {"title": title, "also_buy": names[:20], "brand": "Sega", "rank": ["#9"]}
            print(json.dumps(told | {"main_cat": "Video Games", "asin": name}), file=file)
    with gzip.open(folder / "Video_Games_5.json.gz", "wt", 1, encoding="utf-8") as file:
        for some in tqdm(parts_of(users), desc="Video_Games_5"):
            of = np.repeat(some, counts[some])
            days = rng.integers(10_900, 17_800, len(of))
            for user, item, day in zip(of, chosen(counts[some], items, rng), days, strict=True):
                told = {"overall": float(1 + day % 5), "verified": True, "summary": "Five Stars"}
                told |= {"reviewerID": f"A{user:012d}", "asin": names[item], "vote": "2"}
                told |= {"reviewText": texts[day % 50], "unixReviewTime": int(day) * 86_400}
                print(json.dumps(told), file=file)


def make(path: Path, write) -> Path:
    """A folder that `write` fills, whole or absent; left as it is if there."""
    if not path.exists():
        with atomic(path) as partial:
            partial.mkdir()
            write(partial)
    return path


def document(files: Path, share: float, examples: int, every_kind: bool) -> dict:
    """The study file of the rehearsal, from that of `paper`."""
    study = yaml.safe_load((ROOT / "studies" / "paper.yaml").read_text(encoding="utf-8"))
    for name, write in {"ml-10m": write_movielens, "games": write_games}.items():
        place = make(files / f"{name}-{share}", lambda folder, w=write: w(folder, share))
        study["datasets"][name] |= {"data_path": str(place), "n_valid": examples}
        study["datasets"][name] |= {"n_test": examples}
    model = make(
        files / "llm", lambda at: make_llm(at, TINY_SHAPES["tiny"], made_titles(1000), "cpu")
    )
    size = study["n_train"][0] if share == 1 else 16
    study |= {"n_train": [size], "seeds": [0], "ladder": [{"n_train": [size // 4], "seeds": [0]}]}
    study["joint"]["sizes"] = [{"n_train": [size], "seeds": [0]}]
    study["llm"] = {"model": str(model), "quantisation": "none", "dtype": "float32"}
    few = {"learning_rates": [0.001], "dropouts": [0.2], "epochs": 1}
    study["baselines"]["full"] |= few | {"models": ON_ALL}
    notebooks = study["notebooks"]
    notebooks["02_tune_llm"] |= {"epochs": 1, "n_valid": 100, "max_tokens": 1024}
    notebooks["03_generate_titles"] |= {"max_new_tokens": 40, "max_tokens": 1024}
    notebooks["06_train_baselines"] |= few | {"max_tokens": 1024}
    study["resources"] = {notebook: {"threads": 1} for notebook in notebook_names()}
    return study if every_kind else {k: v for k, v in study.items() if k not in KINDS}


def notebook_names() -> list[str]:
    return sorted(path.stem for path in (ROOT / "notebooks").glob("[01]*.ipynb"))


# ---------------------------------------------------------------------------------- the rehearsal


def prepare(folder: Path, share: float, examples: int, every_kind: bool) -> Path:
    """The project of the rehearsal in `folder`, with what it reads; returns it."""
    project = folder / "project"
    (project / "studies").mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        remove(project / part)
        (project / part).symlink_to(ROOT / part)
    study = document(folder / "files", share, examples, every_kind)
    (project / "studies" / "paper.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    return project


def rehearse(folder: Path, share: float, examples: int, every_kind: bool) -> pd.DataFrame:
    """Run the study in `folder`/project; columns job, seconds, peak_gb, a row a job.

    Raises SystemExit if a job failed; the batch has said why.
    """
    project = prepare(folder, share, examples, every_kind)
    command = [sys.executable, "-m", "bigrec_lib.study.batch", "study", "paper"]
    done = subprocess.run(command, cwd=project, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise SystemExit(f"the rehearsal stopped: see above, and {project}/runs/paper/logs")
    return measured(project)


def measured(project: Path) -> pd.DataFrame:
    """What every finished job of the study took."""
    path = project / "results" / "paper" / "manifests.json"
    jobs = json.loads(path.read_text(encoding="utf-8"))["jobs"]
    rows = [(name, job["seconds"], job["peak_gb"]) for name, job in jobs.items()]
    return pd.DataFrame(rows, columns=["job", "seconds", "peak_gb"])


def main() -> None:
    args = arguments(__doc__, quick="four minutes")
    folder = ROOT / "runs" / ("rehearse-quick" if args.quick else "rehearse")
    start = time.perf_counter()
    share, examples = (0.01, 50) if args.quick else (1.0, 5000)
    jobs = rehearse(folder, share, examples, every_kind=not args.quick)
    print(jobs.sort_values("seconds", ascending=False).to_string(index=False))
    longest, largest = (jobs.loc[jobs[what].idxmax()] for what in ("seconds", "peak_gb"))
    finish(
        {
            "jobs": len(jobs),
            "seconds": round(time.perf_counter() - start, 1),
            "job_seconds": round(float(jobs.seconds.sum()), 1),
            "longest_job": longest.job,
            "longest_seconds": float(longest.seconds),
            "largest_job": largest.job,
            "peak_gb": float(largest.peak_gb),
        },
        args,
    )
    if largest.peak_gb > MOST_GB:
        raise SystemExit(f"{largest.job} takes {largest.peak_gb:.1f} GB, more than {MOST_GB}")


if __name__ == "__main__":
    main()
