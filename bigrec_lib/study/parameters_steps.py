"""What the steps take, from data to results: 00 to 06."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from bigrec_lib.files import StudyError
from bigrec_lib.method import assets
from bigrec_lib.study.parameters_checks import Count, Parameters, Positive, Share, Size
from bigrec_lib.study.parameters_runs import (
    AdapterParameters,
    DatasetParameters,
    ModelParameters,
    RunParameters,
    TunedParameters,
)
from bigrec_lib.study.row_keys import FULL

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
    "sasrec-llm",
    "p5",
]


class TryIt(Parameters):
    """Recommendations for a history of one's own; not a job, since it leaves no results.

    dataset: '' is the study's first. titles: [] is the history of a test example.
    """

    notebook = "00_try_it"

    dataset: str = ""
    titles: list[str] = []
    k: Count = 20
    beams: Count = 4
    gamma: Annotated[float, Field(ge=0)] = 0.0
    constrained: bool = False


class PrepareData(DatasetParameters):
    notebook = "01_prepare_data"

    reader: str = ""
    data_path: str = ""
    titles_path: str = ""
    columns: dict[str, str] = {}
    domain: Literal["", "movies", "games", "books", "music", "recipes", "products", "items"] = ""
    words: dict[Literal["one", "many", "consumed"], Annotated[str, Field(min_length=1)]] = {}
    positive_only: Annotated[float, Field(ge=0)] = 0
    k_core: Size = 0
    min_title: Count = 1
    max_title: Count = 1000
    history: Count = 10
    first: Literal["full", "any"] = "full"
    n_valid: Count = 200
    n_test: Count = 200
    per_user: Count = 20

    @property
    def output(self) -> Path:
        return self.data

    def expanded(self, path: str) -> str:
        """A path with its ${VARIABLES} taken from the environment, and `~` as the user's home."""
        place = os.path.expanduser(os.path.expandvars(path))
        if "$" in place:
            raise StudyError(f"{path}, the place of {self.dataset}: set the variable")
        return place

    @property
    def materials(self) -> dict[str, str]:
        if not self.data_path:
            return {"data_path": str(assets.DATA.get(self.reader or self.dataset, ""))}
        names = [name for name in ("data_path", "titles_path") if getattr(self, name)]
        return {name: self.content(Path(self.expanded(getattr(self, name)))) for name in names}


class TuneLLM(AdapterParameters, ModelParameters):
    """selection: '<arm>.<draw>' of samples chosen by 13a; '' for samples drawn under the seed.

    n_scored: test examples whose titles' log-likelihood is measured after tuning.
    """

    notebook = "02_tune_llm"
    makers = {
        "adapter": ("method.tuning.tune", "method.samples.training", "method.samples.validation")
    }

    n_train: Count = 256
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    also: list[str] = []
    n_valid: Count = 500
    n_scored: Size = 0
    selection: Annotated[str, Field(pattern=r"^(\w+\.\d+)?$")] = ""
    shuffled: bool = False
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
    micro_batch: Size = 0
    gradient_checkpointing: bool = False
    learn_prompt: bool = False
    max_tokens: Count = 512

    @property
    def learnt(self) -> list[str]:
        """The data sets the adapter learns."""
        return [self.dataset, *self.also]

    @property
    def folders(self) -> list[Path]:
        """Where their samples are."""
        return [self.prepared(name) for name in self.learnt]

    @property
    def job(self) -> str:
        return f"{'+'.join(self.learnt)}.{self.run}.{self.notebook}"

    @property
    def keys(self) -> dict[str, object]:
        return super().keys | {"dataset": "+".join(self.learnt)}

    @property
    def output(self) -> Path:
        return self.runs / "+".join(self.learnt) / self.run / "tuning"

    @property
    def adapter(self) -> Path:
        return self.output / "adapter"

    @property
    def materials(self) -> dict[str, str]:
        if not self.instructions:
            return super().materials
        return super().materials | {"instructions": self.content(Path(self.instructions))}

    @property
    def inputs(self) -> dict[str, Path]:
        others = {f"01_prepare_data of {name}": self.prepared(name) for name in self.also}
        samples = {"13a_select_samples": self.selections} if self.selection else {}
        return {"01_prepare_data": self.data} | others | samples

    @property
    def selections(self) -> Path:
        """Where 13a puts the samples it has chosen."""
        return self.runs / self.dataset / "selection"

    @property
    def settings(self) -> dict[str, Any]:
        """What `tuning.Tuning` takes."""
        names = (
            "epochs learning_rate schedule warmup patience rank alpha dropout batch_size "
            "micro_batch gradient_checkpointing learn_prompt seed"
        ).split()
        return {name: getattr(self, name) for name in names} | {
            "target_modules": tuple(self.target_modules)
        }


class GenerateTitles(TunedParameters, ModelParameters):
    """words_of: the data set whose words a prompt takes that names a wrong domain."""

    notebook = "03_generate_titles"
    makers = {"beams": ("method.portions.generate_file", "method.samples.samples")}

    words_of: str = ""
    n_valid: Size = 0
    n_test: Size = 0
    beams: Count = 4
    max_new_tokens: Size = 0
    length_penalty: float = 1.0
    batch_size: Count = 32
    max_tokens: Count = 512

    @property
    def output(self) -> Path:
        return self.generations

    @property
    def inputs(self) -> dict[str, Path]:
        artefacts = super().inputs | ({"02_tune_llm": self.tuning} if self.n_train else {})
        if self.worded == "wrong":
            artefacts |= {f"01_prepare_data of {self.words_of}": self.prepared(self.words_of)}
        return artefacts


class GroundToItems(TunedParameters, ModelParameters):
    """embedded_by: the LLM of the study whose space the texts are grounded in (OWN for its own); ''
    for the LLM that wrote them."""

    notebook = "04_ground_to_items"

    embedded_by: Annotated[str, Field(pattern=r"^[\w.-]*$")] = ""
    embedder: Literal["base", "tuned"] = "base"
    batch_size: Count = 32

    @property
    def run(self) -> str:
        return super().run + (f"-in-{self.embedded_by}" if self.embedded_by else "")

    @property
    def keys(self) -> dict[str, object]:
        return super().keys | {"embedded_by": self.embedded_by}

    @property
    def output(self) -> Path:
        return self.grounding

    @property
    def inputs(self) -> dict[str, Path]:
        return super().inputs | {"03_generate_titles": self.generations}


class ReweightByStatistics(TunedParameters):
    notebook = "05_reweight_by_statistics"

    collaborative: str = ""
    comparator: str = ""

    @property
    def output(self) -> Path:
        return self.folder("reweighting")

    @property
    def same_samples(self) -> bool:
        """Whether the adapter learnt samples of this data set alone, as the study's own does.

        Then their statistics, and conventional models that learnt the same, can be injected.
        """
        return self.n_train > 0 and not self.tuned_on and not self.setting

    @property
    def baselines(self) -> Path:
        """Where 06 trained conventional models on the same samples."""
        return self.runs / self.dataset / self.drawn / "baselines"

    def scores(self, model: str) -> Path | None:
        """The scores that 06 kept of a model; None without a model, or without the same samples."""
        return self.baselines / "scores" / model if model and self.same_samples else None

    @property
    def inputs(self) -> dict[str, Path]:
        scores_path = self.scores(self.collaborative) or self.scores(self.comparator)
        models = {"06_train_baselines": self.baselines} if scores_path else {}
        return super().inputs | {"04_ground_to_items": self.grounding} | models


class TrainBaselines(RunParameters, ModelParameters):
    """Baselines of a run, or with `full` those that learn from the whole training split."""

    notebook = "06_train_baselines"
    makers = {
        "networks": ("method.baselines.search",),
        "p5-adapter": ("method.tuning.tune", "method.samples.samples", "method.p5.identifiers"),
        "p5-beams": ("method.p5.p5",),
    }

    n_train: Count = 256
    full: bool = False
    models: list[Baseline] = []
    learning_rates: Annotated[list[Positive], Field(min_length=1)] = [1e-3, 3e-3]
    weight_decays: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)] = [0.0]
    dropouts: Annotated[list[Share], Field(min_length=1)] = [0.2, 0.4, 0.6]
    widths: Annotated[list[Count], Field(min_length=1)] = [64]
    epochs: Count = 200
    patience: Count = 6
    batch_size: Count = 256
    collaborative: list[Baseline] = ["sasrec-ce", "gru4rec-ce"]
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    p5_epochs: Positive = 1
    p5_learning_rate: Positive = 1e-3
    p5_batch_size: Count = 8
    max_tokens: Count = 512

    @property
    def run(self) -> str:
        return f"{FULL}-s{self.seed}" if self.full else super().run

    @property
    def output(self) -> Path:
        return self.folder("baselines")

    @property
    def conventional(self) -> list[str]:
        """The models that are no LLM."""
        return [name for name in self.models or get_args(Baseline) if name != "p5"]

    @property
    def with_p5(self) -> bool:
        """Whether an LLM is tuned: not on the whole training split, where that takes days."""
        return "p5" in (self.models or get_args(Baseline)) and not self.full

    @property
    def p5_settings(self) -> dict[str, Any]:
        """What `tuning.Tuning` takes for P5: BIGRec's defaults but for the parameters here."""
        return TuneLLM().settings | {
            "epochs": self.p5_epochs,
            "learning_rate": self.p5_learning_rate,
            "batch_size": self.p5_batch_size,
            "seed": self.seed,
        }

    @property
    def inputs(self) -> dict[str, Path]:
        return {"01_prepare_data": self.data}
