"""What a job belongs to: a data set, a run, an adapter, its texts; and which jobs load the LLM.

Their classes say where a job works and what its rows are called; `parameters_steps` and
`parameters_measures` have the notebooks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bigrec_lib.method import assets
from bigrec_lib.study import provenance
from bigrec_lib.study.parameters_checks import NAME, Parameters, Size


class DatasetParameters(Parameters):
    dataset: Annotated[str, Field(pattern=NAME)] = "ml-100k"

    @property
    def job(self) -> str:
        return f"{self.dataset}.{self.notebook}"

    @property
    def keys(self) -> dict[str, object]:
        return super().keys | {"dataset": self.dataset}

    @property
    def data(self) -> Path:
        return self.prepared(self.dataset)

    def prepared(self, dataset: str) -> Path:
        """Where 01_prepare_data puts a data set."""
        return self.runs / dataset / "data"


class RunParameters(DatasetParameters):
    """A notebook that belongs to a training size and a seed; size 0 is the LLM as it is."""

    n_train: Size = 256
    seed: int = 0

    @property
    def drawn(self) -> str:
        """The run on the same samples with all else as usual."""
        return f"n{self.n_train}-s{self.seed}"

    @property
    def run(self) -> str:
        return self.drawn

    @property
    def job(self) -> str:
        return f"{self.dataset}.{self.run}.{self.notebook}"

    @property
    def keys(self) -> dict[str, object]:
        return super().keys | {"run": self.run, "n_train": self.n_train, "seed": self.seed}

    def folder(self, stage: str) -> Path:
        """Where a stage of this run works."""
        return self.runs / self.dataset / self.run / stage


class FollowingParameters(RunParameters):
    """A notebook that measures what the steps of a run made."""

    @property
    def tuning(self) -> Path:
        return self.folder("tuning")

    @property
    def generations(self) -> Path:
        return self.folder("generations")

    @property
    def grounding(self) -> Path:
        return self.folder("grounding")

    @property
    def baselines(self) -> Path:
        return self.runs / self.dataset / self.drawn / "baselines"


class AdapterParameters(RunParameters):
    """A notebook that makes or follows one adapter.

    lm: the name of its LLM where a study has several; setting: that of its tuning settings where a
    study tries several; '' for the study's own.
    """

    lm: Annotated[str, Field(pattern=r"^[\w.-]*$")] = ""
    setting: Annotated[str, Field(pattern=r"^[\w.]*$")] = ""

    @property
    def run(self) -> str:
        llm = f"-by-{self.lm}" if self.lm else ""
        return super().run + llm + (f"-as-{self.setting}" if self.setting else "")

    @property
    def keys(self) -> dict[str, object]:
        return super().keys | {"lm": self.lm, "setting": self.setting}


class TunedParameters(AdapterParameters):
    """A notebook that follows one adapter, which may have been tuned on other data sets.

    tuned_on: data sets the adapter has learnt, joined by '+'; '' is the one it is used on. worded:
    what the prompts call the domain: '' by its name, 'none' by no name, 'wrong' by another's.
    """

    tuned_on: str = ""
    constrained: bool = False
    worded: Literal["", "none", "wrong"] = ""

    @property
    def plain(self) -> str:
        """The run of the adapter, on the data it learnt."""
        return super().run

    @property
    def written(self) -> str:
        """The run of the texts."""
        origin = f"-on-{self.tuned_on}" if self.tuned_on else ""
        constrained = "-constrained" if self.constrained else ""
        return self.plain + origin + constrained + (f"-worded-{self.worded}" if self.worded else "")

    @property
    def run(self) -> str:
        return self.written

    @property
    def keys(self) -> dict[str, object]:
        names = ("tuned_on", "constrained", "worded")
        return super().keys | {name: getattr(self, name) for name in names}

    @property
    def tuning(self) -> Path:
        return self.runs / (self.tuned_on or self.dataset) / self.plain / "tuning"

    @property
    def adapter(self) -> Path | None:
        """The adapter's folder; None for the LLM as it is."""
        return self.tuning / "adapter" if self.n_train else None

    @property
    def others(self) -> list[str]:
        """The other data sets the adapter has learnt."""
        return [name for name in self.tuned_on.split("+") if name not in ("", self.dataset)]

    @property
    def generations(self) -> Path:
        return self.runs / self.dataset / self.written / "generations"

    @property
    def beams_of(self) -> Path:
        """Where 03 puts the beams of every example."""
        return self.generations / "beams"

    @property
    def grounding(self) -> Path:
        return self.folder("grounding")

    @property
    def inputs(self) -> dict[str, Path]:
        folders = {f"01_prepare_data of {name}": self.prepared(name) for name in self.others}
        return {"01_prepare_data": self.data} | folders


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
    def vector_cache(self) -> Path:
        """Vectors of all texts embedded so far, as long as the code that makes them is the same."""
        return self.runs / "vectors" / provenance.code_of("method.embedding.embed")[:12]

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
