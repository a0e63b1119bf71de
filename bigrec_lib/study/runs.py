"""Validated parameters, where artefacts live, manifests that say how they came about."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bigrec_lib.files import (
    PARTIAL,
    WRITTEN,
    StudyError,
    remove,
    sha256,
    write_json,
    write_parquet,
)
from bigrec_lib.method import assets
from bigrec_lib.study import provenance

if TYPE_CHECKING:
    import pandas as pd

Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Baseline = Literal[
    "recent-popularity",
    "item-knn",
    "markov",
    "gru4rec-ce",
    "gru4rec-bce",
    "caser-ce",
    "caser-bce",
    "sasrec-ce",
    "sasrec-bce",
    "dros",
    "p5",
]


class Parameters(BaseModel):
    """What every notebook takes. A subclass per notebook adds its own and names its folders."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    notebook: ClassVar[str]

    study: str = "quick"
    root: str = ""

    @classmethod
    def check(cls, names: dict[str, object]) -> Self:
        """Parameters from a notebook's `globals()`; unknown names and wrong types are refused.

        Call it in the first cell after the parameters, when nothing else is defined yet.
        """
        given = {
            name: value
            for name, value in names.items()
            if isinstance(value, str | int | float | bool | list | dict | None)
            and not name.startswith("_")
            and name not in ("In", "Out")
        }
        try:
            return cls(**given)
        except ValidationError as error:
            raise StudyError(f"{cls.notebook}: {explain(error)}") from None

    @property
    def project(self) -> Path:
        """The project's folder: `root`, else the nearest folder above that holds pyproject.toml."""
        if self.root:
            return Path(self.root)
        here = Path.cwd()
        for folder in (here, *here.parents):
            if (folder / "pyproject.toml").exists():
                return folder
        raise StudyError(
            f"no pyproject.toml in {here} or above: set `root` to the project's folder"
        )

    @property
    def results(self) -> Path:
        return self.project / "results" / self.study

    @property
    def runs(self) -> Path:
        return self.project / "runs" / self.study

    @property
    def output(self) -> Path:
        """The folder this notebook writes, manifest included."""
        raise NotImplementedError

    @property
    def job(self) -> str:
        """A name for this notebook with these keys, for files and log lines."""
        return self.notebook

    @property
    def inputs(self) -> dict[str, Path]:
        """Folders of finished artefacts this notebook reads, by the notebook that makes them."""
        return {}

    @property
    def lock(self) -> Path:
        return self.runs / "locks" / self.job

    @property
    def leftovers(self) -> list[Path]:
        """Folders of work that a killed job leaves and the next one goes on with."""
        return []

    @property
    def shown(self) -> Path | None:
        """Where the committed part of the output is, if `output` itself is not committed."""
        return None

    @property
    def materials(self) -> dict[str, str]:
        """What comes from outside the study: a hash of the contents, by parameter."""
        return {}

    def content(self, path: Path) -> str:
        return provenance.content(path, self.runs / "hashes.json")

    @property
    def identity(self) -> dict[str, dict]:
        """All that the results follow from; equal identities give equal results."""
        return {
            "parameters": self.model_dump(exclude={"root"}),
            "sources": provenance.sources(self.project / "notebooks" / f"{self.notebook}.ipynb"),
            "materials": self.materials,
            "inputs": {maker: substance(folder) for maker, folder in self.inputs.items()},
        }


class DatasetParameters(Parameters):
    dataset: str = "ml-100k"

    @property
    def job(self) -> str:
        return f"{self.dataset}.{self.notebook}"

    @property
    def data(self) -> Path:
        return self.prepared(self.dataset)

    def prepared(self, dataset: str) -> Path:
        """Where 01_prepare_data puts a data set."""
        return self.runs / dataset / "data"

    @property
    def summary(self) -> Path:
        """The part of the prepared data that is committed: statistics and figures."""
        return self.results / self.dataset / "data"


class RunParameters(DatasetParameters):
    """A notebook that belongs to a training size and a seed; size 0 is the LLM as it is."""

    n_train: Size = 256
    seed: int = 0

    @property
    def run(self) -> str:
        return f"n{self.n_train}-s{self.seed}"

    @property
    def job(self) -> str:
        return f"{self.dataset}.{self.run}.{self.notebook}"

    def folder(self, stage: str) -> Path:
        """Where a stage of this run keeps what is committed."""
        return self.results / self.dataset / self.run / stage


class AdapterParameters(RunParameters):
    """A notebook that makes or follows one adapter.

    setting: the name of its tuning settings where a study tries several; '' for the study's own.
    """

    setting: Annotated[str, Field(pattern=r"^[\w.]*$")] = ""

    @property
    def run(self) -> str:
        return super().run + (f"-as-{self.setting}" if self.setting else "")


class TunedParameters(AdapterParameters):
    """A notebook that follows one adapter, which may have been tuned on other data sets.

    tuned_on: data sets the adapter has learnt, joined by '+'; '' is the one it is used on.
    """

    tuned_on: str = ""
    constrained: bool = False

    @property
    def run(self) -> str:
        origin = f"-on-{self.tuned_on}" if self.tuned_on else ""
        return f"{super().run}{origin}{'-constrained' if self.constrained else ''}"

    @property
    def plain(self) -> str:
        """The run of the same size and seed that has nothing special."""
        return super().run

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder; None for the LLM as it is."""
        if self.n_train == 0:
            return None
        return self.runs / (self.tuned_on or self.dataset) / self.plain / "adapter"

    @property
    def others(self) -> list[str]:
        """The other data sets the adapter has learnt."""
        return [name for name in self.tuned_on.split("+") if name not in ("", self.dataset)]

    @property
    def generations(self) -> Path:
        return self.folder("generations")

    @property
    def grounding(self) -> Path:
        return self.folder("grounding")

    @property
    def embeddings(self) -> Path:
        """The vectors that 04 makes and 05 reads; too large to be results."""
        return self.runs / self.dataset / self.run / "embeddings"

    @property
    def reweighting(self) -> Path:
        return self.folder("reweighting")

    @property
    def inputs(self) -> dict[str, Path]:
        others = {f"01_prepare_data of {name}": self.prepared(name) for name in self.others}
        return {"01_prepare_data": self.data} | others


class ModelParameters(Parameters):
    """A notebook that loads the LLM."""

    model: str = "smollm2-135m-instruct"
    quantisation: Literal["none", "nf4", "int8"] = "nf4"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    device: str = "auto"

    @property
    def materials(self) -> dict[str, str]:
        return super().materials | {"model": self.model_content}

    @property
    def model_content(self) -> str:
        """A folder's contents, an asset's pinned hash, or the revision in Hugging Face's cache."""
        if Path(self.model).is_dir():
            return self.content(Path(self.model))
        if self.model in assets.MODELS:
            return str(assets.MODELS[self.model])
        from huggingface_hub.constants import HF_HUB_CACHE

        name = f"models--{self.model.replace('/', '--')}"
        revision = Path(HF_HUB_CACHE) / name / "refs" / "main"
        return revision.read_text() if revision.exists() else ""


class PrepareData(DatasetParameters):
    notebook = "01_prepare_data"

    reader: str = ""
    data_path: str = ""
    titles_path: str = ""
    columns: dict[str, str] = {}
    domain: Literal["", "movies", "games", "items"] = ""
    positive_only: Annotated[float, Field(ge=0)] = 0
    k_core: Size = 0
    min_title: Count = 1
    history: Count = 10
    first: Literal["full", "any"] = "full"
    n_valid: Count = 200
    n_test: Count = 200

    @property
    def output(self) -> Path:
        return self.data

    @property
    def shown(self) -> Path:
        return self.summary

    def expanded(self, path: str) -> str:
        """A path with its ${VARIABLES} taken from the environment."""
        found = os.path.expandvars(path)
        if "$" in found:
            raise StudyError(f"{path}, the place of {self.dataset}: set the variable")
        return found

    @property
    def materials(self) -> dict[str, str]:
        if not self.data_path:
            return {"data_path": str(assets.DATA.get(self.reader or self.dataset, ""))}
        names = [name for name in ("data_path", "titles_path") if getattr(self, name)]
        return {name: self.content(Path(self.expanded(getattr(self, name)))) for name in names}


class TuneLLM(AdapterParameters, ModelParameters):
    notebook = "02_tune_llm"

    n_train: Count = 256
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    also: list[str] = []
    instructions: str = ""
    epochs: Positive = 1
    learning_rate: Positive = 1e-3
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Annotated[int, Field(ge=0)] = 5
    patience: Annotated[int, Field(ge=0)] = 0
    rank: Count = 8
    alpha: Count = 16
    dropout: Share = 0.05
    target_modules: Annotated[list[str], Field(min_length=1)] = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    ]
    batch_size: Count = 8
    micro_batch: Annotated[int, Field(ge=0)] = 0
    gradient_checkpointing: bool = False
    learn_prompt: bool = False
    max_tokens: Count = 512

    @property
    def learnt(self) -> list[str]:
        """Every data set that is learnt, `n_train` samples of each."""
        return [self.dataset, *self.also]

    @property
    def sources(self) -> list[Path]:
        """Their prepared data."""
        return [self.prepared(name) for name in self.learnt]

    @property
    def job(self) -> str:
        return f"{'+'.join(self.learnt)}.{self.run}.{self.notebook}"

    @property
    def adapter(self) -> Path:
        return self.runs / "+".join(self.learnt) / self.run / "adapter"

    @property
    def tuning(self) -> Path:
        """The part of the tuning that is committed: its log, tables and figures."""
        return self.results / "+".join(self.learnt) / self.run / "tuning"

    @property
    def output(self) -> Path:
        return self.adapter

    @property
    def shown(self) -> Path:
        return self.tuning

    @property
    def leftovers(self) -> list[Path]:
        return [self.adapter / "checkpoint"]

    @property
    def materials(self) -> dict[str, str]:
        told = Path(self.instructions)
        return super().materials | (
            {"instructions": self.content(told)} if self.instructions else {}
        )

    @property
    def inputs(self) -> dict[str, Path]:
        others = {f"01_prepare_data of {name}": self.prepared(name) for name in self.also}
        return {"01_prepare_data": self.data} | others

    @property
    def settings(self) -> dict[str, object]:
        """What `tuning.Tuning` takes."""
        names = (
            "epochs learning_rate schedule warmup patience rank alpha dropout batch_size "
            "micro_batch gradient_checkpointing learn_prompt seed"
        ).split()
        return {name: getattr(self, name) for name in names} | {
            "target_modules": tuple(self.target_modules)
        }


class GenerateTitles(TunedParameters, ModelParameters):
    notebook = "03_generate_titles"

    beams: Count = 4
    max_new_tokens: Size = 0
    batch_size: Count = 32
    max_tokens: Count = 512

    @property
    def output(self) -> Path:
        return self.generations

    @property
    def unfinished(self) -> Path:
        """Where generation keeps what it has done until the job is complete."""
        return self.runs / self.dataset / self.run / "generation"

    @property
    def leftovers(self) -> list[Path]:
        return [self.unfinished]

    @property
    def inputs(self) -> dict[str, Path]:
        return super().inputs | ({"02_tune_llm": self.adapter} if self.adapter else {})


class GroundToItems(TunedParameters, ModelParameters):
    notebook = "04_ground_to_items"

    embedder: Literal["base", "tuned"] = "base"
    batch_size: Count = 32

    @property
    def output(self) -> Path:
        return self.grounding

    @property
    def inputs(self) -> dict[str, Path]:
        return super().inputs | {"03_generate_titles": self.generations}


class ReweightByStatistics(TunedParameters):
    notebook = "05_reweight_by_statistics"

    collaborative: str = ""

    @property
    def output(self) -> Path:
        return self.reweighting

    @property
    def inputs(self) -> dict[str, Path]:
        trained = self.results / self.dataset / self.plain / "baselines"
        weights = {"06_train_baselines": trained} if self.scores else {}
        return super().inputs | {"04_ground_to_items": self.grounding} | weights

    @property
    def scores(self) -> Path | None:
        """Where 06 keeps the scores of the conventional model whose likings pull; None for none.

        The LLM as it is, and one tuned on other data sets, have no model of the same samples.
        """
        if not self.collaborative or not self.n_train or self.tuned_on:
            return None
        return self.runs / self.dataset / self.plain / "scores" / self.collaborative


class TrainBaselines(RunParameters, ModelParameters):
    """Baselines of a run, or with `full` those that learn from the whole training split."""

    notebook = "06_train_baselines"

    n_train: Count = 256
    full: bool = False
    models: list[Baseline] = []
    learning_rates: Annotated[list[Positive], Field(min_length=1)] = [1e-3, 5e-3]
    weight_decays: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] = [0.0]
    dropouts: Annotated[list[Share], Field(min_length=1)] = [0.2, 0.5]
    widths: Annotated[list[Count], Field(min_length=1)] = [64]
    epochs: Count = 50
    patience: Count = 5
    batch_size: Count = 256
    collaborative: list[Baseline] = ["sasrec-ce", "dros"]
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    p5_epochs: Positive = 1
    p5_learning_rate: Positive = 1e-3
    p5_batch_size: Count = 8
    max_tokens: Count = 512

    @property
    def run(self) -> str:
        return f"full-s{self.seed}" if self.full else super().run

    @property
    def output(self) -> Path:
        return self.baselines

    @property
    def baselines(self) -> Path:
        return self.folder("baselines")

    @property
    def work(self) -> Path:
        """What is too large to be results: scores, and the adapter of P5."""
        return self.runs / self.dataset / self.run

    @property
    def leftovers(self) -> list[Path]:
        return [self.work / "p5"]

    @property
    def conventional(self) -> list[str]:
        """The models that are no LLM."""
        return [name for name in self.models or get_args(Baseline) if name != "p5"]

    @property
    def p5(self) -> bool:
        """Whether an LLM is tuned: not on the whole training split, which takes it days."""
        return "p5" in (self.models or get_args(Baseline)) and not self.full

    @property
    def inputs(self) -> dict[str, Path]:
        return {"01_prepare_data": self.data}


class Analysis(Parameters):
    """A notebook that reads all that the runs of its study have finished."""

    @property
    def output(self) -> Path:
        return self.results / self.notebook.partition("_")[2]

    @property
    def inputs(self) -> dict[str, Path]:
        return {
            str(folder.relative_to(self.results)): folder for folder, _ in jobs_of(self.results)
        }


class OverallPerformance(Analysis):
    notebook = "07_overall_performance"


class TrainingSize(Analysis):
    notebook = "08_training_size"


class StatisticalInformation(Analysis):
    notebook = "09_statistical_information"


class CrossDomain(Analysis):
    notebook = "10_cross_domain"


class TuningSettings(Analysis):
    notebook = "11_tuning_settings"


NOTEBOOKS: dict[str, type[Parameters]] = {
    cls.notebook: cls
    for cls in (
        PrepareData,
        TuneLLM,
        GenerateTitles,
        GroundToItems,
        TrainBaselines,
        ReweightByStatistics,
        OverallPerformance,
        TrainingSize,
        StatisticalInformation,
        CrossDomain,
        TuningSettings,
    )
}


def explain(error: ValidationError) -> str:
    """A pydantic error as one line: each parameter, what is wrong with it, what was given."""
    problems = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            problems.append(f"unknown parameter {name!r}")
        elif item["type"] == "missing":
            problems.append(f"{name!r} is missing")
        else:
            problems.append(f"{name}: {item['msg']}, not {item['input']!r}")
    return "; ".join(problems)


class Job:
    """One notebook's run: checks its inputs when it starts, writes its manifest when it ends.

    An artefact counts as complete only while its folder holds a manifest, so the old one is
    removed first. What is in the folder besides may serve to resume. No job runs twice at a time.
    """

    def __init__(self, parameters: Parameters):
        for maker, folder in parameters.inputs.items():
            if not (folder / "manifest.json").exists():
                raise StudyError(f"{folder} is not complete: run {maker} with the same parameters")
        lock(parameters)
        self.parameters = parameters
        self.started = time.time()
        self.identity = begin(parameters)
        WRITTEN.clear()
        parameters.output.mkdir(parents=True, exist_ok=True)
        remove(parameters.output / "manifest.json")

    def finish(self, **facts: object) -> None:
        """Write `manifest.json` into the output folder, with `facts` worth keeping, and say so."""
        p = self.parameters
        for folder in (*p.leftovers, *p.output.rglob(f"{PARTIAL}*")):
            remove(folder)
        files = {file for file in p.output.rglob("*") if file.is_file()}
        beside = files | {file for file in WRITTEN if file.exists()}
        manifest = {
            "notebook": p.notebook,
            **self.identity,
            "outputs": {
                file.relative_to(p.output).as_posix(): sha256(file) for file in sorted(files)
            },
            "results": {
                file.relative_to(p.results).as_posix(): sha256(file)
                for file in sorted(beside)
                if file.is_relative_to(p.results)
            },
            "facts": facts,
            "seconds": round(time.time() - self.started, 1),
            "peak_gb": round(provenance.peak_memory_gb(), 2),
            **provenance.environment(p.project),
        }
        if p.shown:
            write_json(manifest, p.shown / "manifest.json")
        write_json(manifest, p.output / "manifest.json")
        unlock(p)
        print(f"complete: {p.output}")


HELD: dict[Path, IO] = {}  # locks of this process, which end with it at the latest


def lock(parameters: Parameters) -> None:
    """Take this job for this process alone; raises StudyError if another one has it."""
    path = parameters.lock
    if path in HELD:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = open(path, "w")  # noqa: SIM115
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StudyError(f"{parameters.job} is running already: wait for it, or stop it") from None
    HELD[path] = stream


def unlock(parameters: Parameters) -> None:
    HELD.pop(parameters.lock).close()


def begin(parameters: Parameters) -> dict[str, dict]:
    """The job's identity; leftovers of a job with another one are removed, of the same one kept.

    How a figure or a table looks is no reason to lose days of work, nor is a notebook's text:
    those make a job run again, but from what it has.
    """
    identity = parameters.identity
    matters = {
        path: digest
        for path, digest in identity["sources"].items()
        if path.startswith("bigrec_lib/") and Path(path).stem not in ("plots", "tables")
    }
    record = parameters.runs / "begun" / f"{parameters.job}.json"
    begun = {**identity, "sources": matters}
    if not record.exists() or json.loads(record.read_text(encoding="utf-8")) != begun:
        for folder in (parameters.output, *parameters.leftovers):
            remove(folder)
        write_json(begun, record)
    return identity


def read_manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def read_ranks(results: Path, split: str = "test") -> pd.DataFrame:
    """Every method's ranks of a study in one frame: the columns of `jobs_of`, then the ranks'.

    Those are method, example, rank, ties. Raises StudyError if the study has none yet.
    """
    return read_methods(results, f"ranks/{split}")


def read_lists(results: Path) -> pd.DataFrame:
    """Every method's first candidates for each test example, as `read_ranks`: example, items."""
    return read_methods(results, "lists/test")


def write_ranks(ranks: dict, examples: dict, folder: Path) -> None:
    """Write `folder`/ranks/<split>/<method>.parquet, for `read_ranks` to find.

    ranks: (method, split) -> columns rank and ties, int32. examples: split -> (n,) their numbers.
    """
    for (method, split), frame in ranks.items():
        frame = frame.assign(example=examples[split])[["example", "rank", "ties"]]
        write_parquet(frame, folder / "ranks" / split / f"{method}.parquet")


def write_lists(lists: dict, examples, items: pd.DataFrame, folder: Path) -> None:
    """Write `folder`/lists/test/<method>.parquet, for `read_lists` to find.

    lists: method -> (n, K) candidates, best first; each is listed as the first item that bears its
    title. examples: (n,) their numbers. items: column title_group.
    """
    import numpy as np
    import pandas as pd

    groups = np.unique(items.title_group).astype(np.int32)
    for method, found in lists.items():
        frame = pd.DataFrame({"example": examples, "items": list(groups[found])})
        write_parquet(frame, folder / "lists" / "test" / f"{method}.parquet")


def read_methods(results: Path, kind: str) -> pd.DataFrame:
    """The files `kind`/<method>.parquet of every finished job, one below the other."""
    import pandas as pd

    frames = [
        pd.read_parquet(path).assign(**keys, method=path.stem)
        for folder, keys in jobs_of(results)
        for path in sorted((folder / kind).glob("*.parquet"))
    ]
    if not frames:
        raise StudyError(f"no {kind} below {results}: run the study first")
    found = pd.concat(frames, ignore_index=True)
    return found[[*KEYS, "method", *(name for name in frames[0] if name not in (*KEYS, "method"))]]


KEYS = ("dataset", "run", "n_train", "seed", "setting", "tuned_on", "constrained")


def jobs_of(results: Path) -> list[tuple[Path, dict[str, object]]]:
    """Folders of a study's finished jobs that belong to a run, with what tells the runs apart.

    n_train is the number of samples that were really used.
    """
    found = []
    for path in sorted(results.glob("*/*/*/manifest.json")):
        manifest = read_manifest(path.parent)
        dataset, run = path.relative_to(results).parts[:2]
        given = dict(zip(KEYS[2:], (256, 0, "", "", False), strict=True))
        known = given | manifest["parameters"] | manifest["facts"]
        keys = {name: known[name] for name in given}
        found.append((path.parent, {"dataset": dataset, "run": run} | keys))
    return found


def substance(folder: Path) -> str:
    """SHA-256 of what a finished job tells its readers: files, figures aside; facts; parameters.

    When it was made, how long that took and how it looks are not part of it.
    """
    manifest = read_manifest(folder)
    files = {
        name: digest
        for name, digest in manifest["outputs"].items()
        if Path(name).suffix not in (".png", ".svg")
    }
    told = [files, manifest["facts"], manifest["parameters"]]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def read_metrics(results: Path) -> pd.DataFrame:
    """The metrics every job of a study wrote, in one long frame (metrics.csv) with its run."""
    import pandas as pd

    frames = [
        pd.read_csv(folder / "metrics.csv").assign(run=keys["run"])
        for folder, keys in jobs_of(results)
        if (folder / "metrics.csv").exists()
    ]
    if not frames:
        raise StudyError(f"no metrics below {results}: run the study first")
    return pd.concat(frames, ignore_index=True)
