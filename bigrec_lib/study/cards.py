"""Published adapters: in PEFT's format, each with a model card, in `results/<study>/adapters`."""

from __future__ import annotations

import json
from pathlib import Path

from bigrec_lib.files import StudyError, atomic, remove, sha256
from bigrec_lib.method import assets
from bigrec_lib.study import manifests, publish, results
from bigrec_lib.study.parameters import TuneLLM

CONFIG = "adapter_config.json"
CARD = "README.md"
LICENCES = {
    "smollm2-135m-instruct": "Apache-2.0",
    "qwen2.5-coder-0.5b-instruct": "Apache-2.0",
    "qwen2.5-coder-1.5b-instruct": "Apache-2.0",
}  # of base models, where docs/models.md has them
ROUNDED = {"nf4": "rounded to 4 bits (NF4)", "int8": "rounded to 8 bits"}


def publish_adapters(folder: Path, jobs: list[TuneLLM]) -> list[Path]:
    """Publish the adapters of these jobs in the results' `folder`, and no others.

    Writes nothing if just these are published already. Returns the adapters' folders.
    Raises StudyError if a job is not published, or its adapter is neither in `runs/` nor published.
    """
    published = manifests.read_published(folder)
    adapters = {place_of(folder, job): contents(folder, job, published["jobs"]) for job in jobs}
    files = {
        place / name: data for place, parts in adapters.items() for name, data in parts.items()
    }
    names = {name for name in published["files"] if name.startswith(f"{publish.ADAPTERS}/")}
    same = names == {path.relative_to(folder).as_posix() for path in files} and all(
        path.exists() and path.read_bytes() == data for path, data in files.items()
    )
    if same:
        return list(adapters)
    for path, data in files.items():
        with atomic(path) as partial:
            partial.write_bytes(data)
    for leftover in set((folder / publish.ADAPTERS).iterdir()) - set(adapters):
        remove(leftover)
    rest = {name: digest for name, digest in published["files"].items() if name not in names}
    publish.write_manifests(folder, published["jobs"], list(files), rest)
    return list(adapters)


def place_of(folder: Path, job: TuneLLM) -> Path:
    """Where the adapter of a job is published."""
    return folder / publish.ADAPTERS / f"{job.dataset}.{job.run}"


def contents(folder: Path, job: TuneLLM, jobs: dict[str, dict]) -> dict[str, bytes]:
    """The files of a published adapter: name -> content. jobs: the published manifests."""
    if job.job not in jobs:
        raise StudyError(f"{job.job} is not published: run `make study STUDY={job.study}`")
    digest = jobs[job.job]["outputs"][f"adapter/{publish.WEIGHTS}"]
    places = [job.adapter, place_of(folder, job)]
    candidates = [place for place in places if (place / publish.WEIGHTS).exists()]
    for place in candidates:
        if sha256(place / publish.WEIGHTS) == digest:
            weights = (place / publish.WEIGHTS).read_bytes()
            config = json.loads((place / CONFIG).read_text(encoding="utf-8"))
            config["base_model_name_or_path"] = base_of(job)
            return {
                CARD: card(folder, job, jobs, len(weights)).encode(),
                CONFIG: (json.dumps(config, indent=2) + "\n").encode(),
                publish.WEIGHTS: weights,
            }
    raise StudyError(
        f"the adapter of {job.job} is not in {job.adapter.relative_to(job.project)}: run "
        f"`make study STUDY={job.study}`, which tunes it"
    )


def base_of(job: TuneLLM) -> str:
    """The base model as the study names it; of a folder only its name."""
    return Path(job.model).name if Path(job.model).is_dir() else job.model


def card(folder: Path, job: TuneLLM, jobs: dict[str, dict], size: int) -> str:
    """The model card of an adapter. size: bytes of its weights."""
    manifest = jobs[job.job]
    base, data = base_of(job), jobs[f"{job.dataset}.01_prepare_data"]
    words = manifests.words_of(data)
    n = f"{manifest['keys']['n_train']:,}"
    place = "/".join(place_of(folder, job).parts[-4:])
    licence = LICENCES.get(base, "that of its publisher")
    precision = ROUNDED.get(job.quantisation)
    rounding = (
        f"It was tuned on the base {precision}, and computes in {job.dtype}. On a base in another "
        "precision it runs, and writes other texts."
        if precision
        else f"It was tuned on the base as it is, in {job.dtype}."
    )
    settings = {
        "rank, alpha, dropout": f"{job.rank}, {job.alpha}, {job.dropout:g}",
        "layers": ", ".join(sorted(job.target_modules)),
        "samples, seed": f"{n}, {job.seed}",
        "epochs, steps": f"{job.epochs:g}, {manifest['facts']['steps']:,}",
        "batch size": f"{job.batch_size}",
        "learning rate": f"{job.learning_rate:g}, {job.schedule} after {job.warmup} steps up",
        "loss": "of prompt and answer" if job.learn_prompt else "of the answer",
        "longest prompt": f"{job.max_tokens} tokens",
        "validation loss, per token": f"{manifest['facts']['valid_loss']:.3f}",
        "size": f"{size / 1e6:.1f} MB",
    }
    return f"""---
base_model: {json.dumps(base)}
library_name: peft
pipeline_tag: text-generation
license: other
license_name: see-licence-below
tags: [lora, recommendation, bigrec]
---
# Adapter of study “{job.study}”: {job.dataset}, {job.run}

A LoRA adapter that makes {base} write the title of the next {words.one} from the titles a user
has {words.consumed}: step 1 of BIGRec (arXiv 2308.08434). Which items a text stands for is
decided by the study's grounding, not by this adapter.

## Loading it

With the study's library, from its root, base and grounding included:

    from bigrec_lib.study import recommender
    opened = recommender.Recommender.open("{job.study}", "{job.dataset}")

With PEFT alone, on a `base` that transformers has loaded:

    from peft import PeftModel
    tuned = PeftModel.from_pretrained(base, "{place}")

{source_of(base)} {rounding}

## Data

{n} of {data["facts"]["n_train"]:,} training samples of `{job.dataset}`, drawn under seed
{job.seed}: up to {data["parameters"]["history"]} titles of history, in the order of time, and the
next title. Validation and test examples are others.

## Settings

{rows(settings)}

## Metrics

{metrics_of(folder, job, jobs)}

## Intended use and limits

Meant for studying BIGRec: to repeat, check or extend what the study measured. Not for recommending
to real people: it is small, has seen {n} samples, and it may write titles that do not
exist. What the study found about such adapters, against popularity and conventional models
too, is on its site (`index.html`); one adapter of one seed decides nothing. It knows the domain
and the years of its data, and repeats their bias towards what was popular.

## Licence

The adapter itself is under the Apache License 2.0, as the study's code is. Its base has a licence
of its own ({licence}), and so have the data it learnt from (`{job.dataset}`): look at their
publishers' terms before you use or pass on what is made from them.{terms_of(data)}

## Where it comes from

Job `{job.job}` in `manifests.json` beside `adapters/`: all parameters, hashes, versions, commit.
"""


def terms_of(preparation: dict) -> str:
    """What is known of a data set's terms; '' for nothing."""
    reader = preparation["parameters"]["reader"] or preparation["keys"]["dataset"]
    if not reader.startswith("ml-"):
        return ""
    return " MovieLens data are for research, and for commercial use only with permission."


def source_of(base: str) -> str:
    """Where the base comes from."""
    if base in assets.MODELS:
        return (
            f"`{base}` is the asset of that name (`bigrec_lib.method.llm.load_llm` fetches it by "
            "hash): close to the model on the hub, and not the same, as its weights come from a "
            "file of 4 bits (docs/models.md)."
        )
    return f"`{base}` is the base's name in the study file."


def rows(values: dict[str, str]) -> str:
    """A Markdown table of two columns."""
    lines = [f"| {name} | {value} |" for name, value in values.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def metrics_of(folder: Path, job: TuneLLM, jobs: dict[str, dict]) -> str:
    """What the study measured with the adapter on its own data set, beside a random order."""
    frame = results.read(folder, "metrics.csv", dataset=job.dataset, split="test", k=20)
    labels = {"bigrec": "BIGRec", "bigrec+popularity": "BIGRec + popularity", "random": "at random"}
    metrics = frame[(frame.run == job.run) & frame.method.isin(labels)]
    pivot = metrics.pivot(index="method", columns="metric", values="value")
    lines = [
        f"| {label} | {pivot.NDCG[method]:.4f} | {pivot.HR[method]:.4f} |"
        for method, label in labels.items()
        if method in pivot.index
    ]
    generation = jobs.get(job.job.replace("02_tune_llm", "03_generate_titles"))
    beams = generation["facts"]["first_beams"]["test"] if generation else None
    titles = (
        f" {beams['real']:.0%} of its first beams are titles of the catalogue." if beams else ""
    )
    examples = (
        f"On {metrics.n.max():,} test examples, the whole catalogue ranked." if len(metrics) else ""
    )
    table = "\n".join(["| | NDCG@20 | HR@20 |", "|---|---|---|", *lines])
    return f"{examples}{titles}\n\n{table}" if lines else "The study has measured none."
