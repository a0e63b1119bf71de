"""Validated parameters, where artefacts live, manifests that say how they came about."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bigrec_lib.files import StudyError, remove, sha256, write_json

if TYPE_CHECKING:
    import pandas as pd

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]


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


class DatasetParameters(Parameters):
    dataset: str = "ml-100k"

    @property
    def job(self) -> str:
        return f"{self.dataset}.{self.notebook}"

    @property
    def data(self) -> Path:
        return self.runs / self.dataset / "data"

    @property
    def summary(self) -> Path:
        """The part of the prepared data that is committed: statistics and figures."""
        return self.results / self.dataset / "data"


class RunParameters(DatasetParameters):
    """A notebook that belongs to one tuned model: a data set, a training size and a seed."""

    n_train: Count = 256
    seed: int = 0

    @property
    def run(self) -> str:
        return f"n{self.n_train}-s{self.seed}"

    @property
    def job(self) -> str:
        return f"{self.dataset}.{self.run}.{self.notebook}"

    @property
    def adapter(self) -> Path:
        return self.runs / self.dataset / self.run / "adapter"

    @property
    def tuning(self) -> Path:
        """The part of the tuning that is committed: figures of it."""
        return self.results / self.dataset / self.run / "tuning"

    @property
    def generations(self) -> Path:
        return self.results / self.dataset / self.run / "generations"

    @property
    def grounding(self) -> Path:
        return self.results / self.dataset / self.run / "grounding"

    @property
    def embeddings(self) -> Path:
        """The vectors that 04 makes and 05 reads; too large to be results."""
        return self.runs / self.dataset / self.run / "embeddings"

    @property
    def reweighting(self) -> Path:
        return self.results / self.dataset / self.run / "reweighting"


class ModelParameters(RunParameters):
    """A notebook that loads the LLM."""

    model: str = "smollm2-135m-instruct"
    quantisation: Literal["none", "nf4", "int8"] = "nf4"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    device: str = "auto"


class PrepareData(DatasetParameters):
    notebook = "01_prepare_data"

    reader: str = ""
    data_path: str = ""
    history: Count = 10
    first: Literal["full", "any"] = "full"
    n_valid: Count = 200
    n_test: Count = 200

    @property
    def output(self) -> Path:
        return self.data


class TuneLLM(ModelParameters):
    notebook = "02_tune_llm"

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
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
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
    def output(self) -> Path:
        return self.adapter

    @property
    def sources(self) -> list[Path]:
        """The prepared data of every data set that is learnt."""
        return [self.data, *(self.runs / name / "data" for name in self.also)]

    @property
    def inputs(self) -> dict[str, Path]:
        others = {f"01_prepare_data of {name}": self.runs / name / "data" for name in self.also}
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


class GenerateTitles(ModelParameters):
    notebook = "03_generate_titles"

    beams: Count = 4
    max_new_tokens: Annotated[int, Field(ge=0)] = 0
    batch_size: Count = 32
    max_tokens: Count = 512
    constrained: bool = False

    @property
    def output(self) -> Path:
        return self.generations

    @property
    def unfinished(self) -> Path:
        """Where generation keeps what it has done until a split is complete."""
        return self.runs / self.dataset / self.run / "generation"

    @property
    def inputs(self) -> dict[str, Path]:
        return {"01_prepare_data": self.data, "02_tune_llm": self.adapter}


class GroundToItems(ModelParameters):
    notebook = "04_ground_to_items"

    embedder: Literal["base", "tuned"] = "base"
    batch_size: Count = 32

    @property
    def output(self) -> Path:
        return self.grounding

    @property
    def inputs(self) -> dict[str, Path]:
        return {"01_prepare_data": self.data, "03_generate_titles": self.generations}


class ReweightByStatistics(RunParameters):
    notebook = "05_reweight_by_statistics"

    @property
    def output(self) -> Path:
        return self.reweighting

    @property
    def inputs(self) -> dict[str, Path]:
        return {"01_prepare_data": self.data, "04_ground_to_items": self.grounding}


class OverallPerformance(Parameters):
    notebook = "07_overall_performance"

    @property
    def output(self) -> Path:
        return self.results / "overall"


NOTEBOOKS: dict[str, type[Parameters]] = {
    cls.notebook: cls
    for cls in (
        PrepareData,
        TuneLLM,
        GenerateTitles,
        GroundToItems,
        ReweightByStatistics,
        OverallPerformance,
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
    removed first. What is in the folder besides may serve to resume.
    """

    def __init__(self, parameters: Parameters):
        for maker, folder in parameters.inputs.items():
            if not (folder / "manifest.json").exists():
                raise StudyError(f"{folder} is not complete: run {maker} with the same parameters")
        self.parameters = parameters
        self.started = time.time()
        parameters.output.mkdir(parents=True, exist_ok=True)
        remove(parameters.output / "manifest.json")

    def finish(self, **facts: object) -> None:
        """Write `manifest.json` into the output folder, with `facts` worth keeping, and say so."""
        parameters = self.parameters
        write_json(
            {
                "notebook": parameters.notebook,
                "parameters": parameters.model_dump(exclude={"root"}),
                "inputs": {
                    maker: sha256(folder / "manifest.json")
                    for maker, folder in parameters.inputs.items()
                },
                "outputs": {
                    file.relative_to(parameters.output).as_posix(): sha256(file)
                    for file in sorted(parameters.output.rglob("*"))
                    if file.is_file()
                },
                "facts": facts,
                "seconds": round(time.time() - self.started, 1),
                "peak_gb": round(peak_memory_gb(), 2),
                **environment(parameters.project),
            },
            parameters.output / "manifest.json",
        )
        print(f"complete: {parameters.output}")


def peak_memory_gb() -> float:
    """The largest resident memory of this process so far, in GB (10^9 bytes)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def environment(project: Path) -> dict[str, object]:
    """Host, Python, package versions and git commit of this process."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", project, *words], capture_output=True, text=True)
        return done.stdout.strip()

    return {
        "host": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {
            name: metadata.version(name)
            for name in ("torch", "transformers", "peft", "bitsandbytes", "faiss-cpu", "numpy")
        },
        "commit": git("rev-parse", "HEAD"),
        "dirty": bool(git("status", "--porcelain", "--", "bigrec_lib", "notebooks", "studies")),
    }


def read_manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def read_ranks(results: Path, split: str = "test") -> pd.DataFrame:
    """Every method's ranks of a study in one frame: dataset, run, method, example, rank, ties.

    Raises StudyError if the study has none yet.
    """
    import pandas as pd

    frames = []
    for path in sorted(results.glob(f"*/*/*/ranks/{split}/*.parquet")):
        dataset, run = path.relative_to(results).parts[:2]
        keys = {"dataset": dataset, "run": run, "method": path.stem}
        frames.append(pd.read_parquet(path).assign(**keys)[[*keys, "example", "rank", "ties"]])
    if not frames:
        raise StudyError(f"no ranks below {results}: run the study first")
    return pd.concat(frames, ignore_index=True)


def read_metrics(results: Path) -> pd.DataFrame:
    """The metrics every job of a study wrote, in one long frame (metrics.csv)."""
    import pandas as pd

    frames = [pd.read_csv(path) for path in sorted(results.glob("*/*/*/metrics.csv"))]
    if not frames:
        raise StudyError(f"no metrics below {results}: run the study first")
    return pd.concat(frames, ignore_index=True)
