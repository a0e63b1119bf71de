"""One checked class of parameters a notebook: what it takes, what it reads, where it works.

Default values are declared here alone; the `parameters` cell of each notebook is tested against
them. Everything a job works with lies in `runs/<study>`; what a study publishes in
`results/<study>`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bigrec_lib.files import StudyError
from bigrec_lib.method import assets
from bigrec_lib.study import provenance

Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
NAME = r"^\w[\w. -]*$"  # of a data set: it names folders, and "+" joins several
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


Arm = Literal[
    "random",
    "one_a_user",
    "by_popularity",
    "by_history",
    "by_recency",
    "newest",
    "k_centre",
    "k_means",
    "herding",
    "optimal_transport",
    "loss_top",
    "loss_middle",
    "loss_bottom",
    "el2n_top",
    "el2n_middle",
    "el2n_bottom",
    "grand_top",
    "grand_middle",
    "grand_bottom",
    "dealrec",
    "dealrec_influence",
    "dealrec_effort",
    "dealrec_random",
]


class Parameters(BaseModel):
    """What every notebook takes. A subclass per notebook adds its own and names its folders."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
    notebook: ClassVar[str]
    makers: ClassVar[dict[str, tuple[str, ...]]] = {}
    """Work that costs minutes: its folder below `output` -> the functions that make it. It
    survives a rerun until their code, the parameters or the inputs change."""

    study: str = "quick"
    root: str = ""

    @classmethod
    def check(cls, names: dict[str, object]) -> Self:
        """Parameters from a notebook's `globals()`; unknown names and wrong types are refused.

        Call it in the first cell after the parameters, when nothing else is defined yet.
        """
        from_startup = names_from_startup() - set(cls.model_fields)
        values = {
            name: value
            for name, value in names.items()
            if isinstance(value, str | int | float | bool | list | dict | None)
            and not name.startswith("_")
            and name not in {"In", "Out"} | from_startup
        }
        try:
            return cls.model_validate(values)
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
    def runs(self) -> Path:
        """Where the study's jobs work; git ignores it."""
        return self.project / "runs" / self.study

    @property
    def results(self) -> Path:
        """Where the study is published."""
        return self.project / "results" / self.study

    @property
    def output(self) -> Path:
        """The folder this notebook writes, manifest included."""
        raise NotImplementedError

    @property
    def tables(self) -> Path:
        return self.output / "tables"

    @property
    def figures(self) -> Path:
        return self.output / "figures"

    @property
    def job(self) -> str:
        """A name for this notebook with these keys, for files and log lines."""
        return self.notebook

    @property
    def keys(self) -> dict[str, object]:
        """What tells this job's results from those of the study's other jobs, of `KEYS`."""
        return dict(KEYS)

    @property
    def inputs(self) -> dict[str, Path]:
        """Folders of finished artefacts this notebook reads, by the notebook that makes them."""
        return {}

    @property
    def materials(self) -> dict[str, str]:
        """What comes from outside the study: a hash of the contents, by parameter."""
        return {}

    def content(self, path: Path) -> str:
        return provenance.content(path, self.runs / "hashes.json")

    @property
    def sources(self) -> dict[str, str]:
        """Hashes of the notebook and of the library's code that it uses."""
        return provenance.sources(self.project / "notebooks" / f"{self.notebook}.ipynb")


KEYS: dict[str, object] = {
    "dataset": "",
    "run": "",
    "n_train": 0,
    "seed": 0,
    "lm": "",
    "setting": "",
    "tuned_on": "",
    "constrained": False,
    "embedded_by": "",
    "worded": "",
}
"""The keys of a row of results, and what they are where they mean nothing."""

OWN = "study"
"""What the study's own LLM and settings are called beside others."""

SHUFFLED, MATCHED = "shuffled", "matched"
"""Settings with a meaning of their own: answers of other users, and as many steps at every size."""

MERGED = "merged"
"""Another such setting: nothing was tuned, adapters of several data sets were averaged."""
PICKED = "picked."
"""What opens the setting of an adapter that learnt selected samples; then '<arm>.<draw>'."""


def reserved(setting: str) -> bool:
    """Whether a setting has a meaning of its own, and is not one of those a study tries."""
    return setting in (SHUFFLED, MATCHED, MERGED) or setting.startswith(PICKED)


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
        """The run of the same samples that has nothing special."""
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


class AdapterParameters(RunParameters):
    """A notebook that makes or follows one adapter.

    lm: the name of its LLM where a study has several; setting: that of its tuning settings where a
    study tries several; '' for the study's own.
    """

    lm: Annotated[str, Field(pattern=r"^[\w.-]*$")] = ""
    setting: Annotated[str, Field(pattern=r"^[\w.]*$")] = ""

    @property
    def run(self) -> str:
        language = f"-by-{self.lm}" if self.lm else ""
        return super().run + language + (f"-as-{self.setting}" if self.setting else "")

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
        special = ("tuned_on", "constrained", "worded")
        return super().keys | {name: getattr(self, name) for name in special}

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
    def vector_cache(self) -> Path:
        """Vectors of all texts embedded so far, for as long as the code that makes them stays."""
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


class TryIt(Parameters):
    """Recommendations for a history of one's own; no job, since nothing comes of it.

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


class SelectSamples(DatasetParameters, ModelParameters):
    """Choices of training samples, for 02 to tune on. seed: of pool and networks."""

    notebook = "13a_select_samples"
    makers = {"effort": ("method.answers.efforts", "method.samples.samples")}

    arms: list[Arm] = ["newest", "by_popularity", "k_centre", "loss_middle"]
    budgets: Annotated[list[Count], Field(min_length=1)] = [64]
    draws: Count = 3
    random_draws: Count = 10
    pool: Count = 2000
    seed: int = 0
    learning_rate: Positive = 1e-3
    dropout: Share = 0.2
    width: Count = 64
    epochs: Count = 30
    patience: Count = 3
    inits: Count = 3
    early: Count = 1
    lissa_steps: Count = 5000
    effort_weight: Annotated[float, Field(ge=0)] = 1.0
    rank: Count = 8
    alpha: Count = 16
    max_tokens: Count = 512
    batch_size: Count = 32

    @property
    def output(self) -> Path:
        return self.runs / self.dataset / "selection"

    @property
    def inputs(self) -> dict[str, Path]:
        return {"01_prepare_data": self.data}


class TuneLLM(AdapterParameters, ModelParameters):
    """selection: '<arm>.<draw>' of samples that 13a has chosen; '' for some drawn under the seed.

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
        chosen = {"13a_select_samples": self.selections} if self.selection else {}
        return {"01_prepare_data": self.data} | others | chosen

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


class MergeAdapters(AdapterParameters):
    """The average of the adapters of several data sets, where 02 would put one tuned on all.

    against: a further seed whose adapters are compared with these; -1 for none.
    """

    notebook = "14a_merge_adapters"

    setting: Literal["merged"] = "merged"
    n_train: Count = 256
    also: list[str] = []
    against: Annotated[int, Field(ge=-1)] = -1

    @property
    def names(self) -> list[str]:
        """The data sets whose adapters are averaged."""
        return [self.dataset, *self.also]

    @property
    def job(self) -> str:
        return f"{'+'.join(self.names)}.{self.run}.{self.notebook}"

    @property
    def keys(self) -> dict[str, object]:
        return super().keys | {"dataset": "+".join(self.names)}

    @property
    def output(self) -> Path:
        return self.runs / "+".join(self.names) / self.run / "tuning"

    @property
    def adapter(self) -> Path:
        return self.output / "adapter"

    def tuning(self, name: str, seed: int) -> Path:
        """Where 02 tuned the adapter of one data set."""
        return self.runs / name / f"n{self.n_train}-s{seed}" / "tuning"

    @property
    def inputs(self) -> dict[str, Path]:
        seeds = [self.seed] + [self.against] * (self.against >= 0)
        return {
            f"02_tune_llm of {name}, seed {seed}": self.tuning(name, seed)
            for seed in seeds
            for name in self.names
        }


class GenerateTitles(TunedParameters, ModelParameters):
    """words_of: the data set whose words a prompt with another domain's name has."""

    notebook = "03_generate_titles"
    makers = {"beams": ("method.portions.generate_file", "method.samples.samples")}

    words_of: str = ""
    n_valid: Size = 0
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
        found = super().inputs | ({"02_tune_llm": self.tuning} if self.n_train else {})
        if self.worded == "wrong":
            found |= {f"01_prepare_data of {self.words_of}": self.prepared(self.words_of)}
        return found


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
        conventional = self.scores(self.collaborative) or self.scores(self.comparator)
        scored = {"06_train_baselines": self.baselines} if conventional else {}
        return super().inputs | {"04_ground_to_items": self.grounding} | scored


class MeasureGrounders(RunParameters, ModelParameters):
    """Cheaper ways to ground the texts of a run; trie: also those written under constraint."""

    notebook = "15a_measure_grounders"

    n_test: Size = 1000
    trie: bool = False
    layers: Count = 8
    encoder: str = "all-minilm-l6-v2"
    max_tokens: Count = 512
    grams: Count = 3
    dimensions: Count = 64
    links: Count = 32
    breadth: Count = 64
    probes: Count = 8
    codes: Count = 32
    requests: Count = 100
    synthetic: list[Count] = [10_000, 100_000]
    longest: Positive = 120

    @property
    def output(self) -> Path:
        return self.folder("cheaper")

    @property
    def generations(self) -> Path:
        return self.folder("generations")

    @property
    def grounding(self) -> Path:
        return self.folder("grounding")

    @property
    def tuning(self) -> Path:
        return self.folder("tuning")

    @property
    def adapter(self) -> Path | None:
        """The adapter that wrote the texts; None for the LLM as it is."""
        return self.tuning / "adapter" if self.n_train else None

    @property
    def materials(self) -> dict[str, str]:
        if self.encoder in assets.ENCODERS or not self.encoder:
            return super().materials | {"encoder": str(assets.ENCODERS.get(self.encoder, ""))}
        return super().materials | {"encoder": self.content(Path(self.encoder))}

    @property
    def constrained(self) -> Path:
        """Where 03 puts what the same adapter writes inside a tree of all titles."""
        return TunedParameters(
            study=self.study, root=self.root, dataset=self.dataset, n_train=self.n_train,
            seed=self.seed, constrained=True,
        ).generations  # fmt: skip

    @property
    def inputs(self) -> dict[str, Path]:
        found = {"01_prepare_data": self.data, "03_generate_titles": self.generations}
        found |= {"04_ground_to_items": self.grounding}
        found |= {"02_tune_llm": self.tuning} if self.n_train else {}
        return found | ({"03_generate_titles, constrained": self.constrained} if self.trie else {})


class GroundInSpaces(TunedParameters):
    """The texts of a run grounded in the catalogue of several data sets.

    joined: the other data sets whose titles come in; control: one whose titles come in instead of
    as many of theirs, '' for none; vectors_of: the run whose 04 has the vectors of their titles.
    """

    notebook = "14b_ground_in_spaces"

    joined: list[str] = []
    control: str = ""
    vectors_of: str = "n256-s0"
    sample: Count = 1000

    @property
    def output(self) -> Path:
        return self.folder("spaces")

    @property
    def foreign(self) -> list[str]:
        """Every data set whose titles come in."""
        return [*self.joined, *[self.control] * bool(self.control)]

    def grounded(self, name: str) -> Path:
        """Where 04 put the vectors of another data set's titles."""
        return self.runs / name / self.vectors_of / "grounding"

    @property
    def inputs(self) -> dict[str, Path]:
        found = super().inputs | {"04_ground_to_items": self.grounding}
        for name in self.foreign:
            found |= {f"01_prepare_data of {name}": self.prepared(name)}
            found |= {f"04_ground_to_items of {name}": self.grounded(name)}
        return found


class MeasureAlignment(RunParameters, ModelParameters):
    """What distances of a run's texts mean. network: the network of 06 whose space is compared, ''
    for none; ranked: test examples for which the LLM ranks the whole catalogue by likelihood."""

    notebook = "16a_measure_alignment"
    makers = {
        "states": ("method.states.pooled", "method.geometry.ladders"),
        "likelihoods": (
            "method.likelihood.log_likelihoods",
            "method.likelihood.blocks",
            "method.samples.samples",
        ),
    }

    network: str = ""
    batch_size: Count = 32
    layers: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)] = [0.5, 1.0]
    shrinkage: Share = 0.1
    components: Count = 4
    titles: Count = 500
    sampled: Count = 1000
    permutations: Count = 100
    ranked: Size = 0

    @field_validator("layers")
    @classmethod
    def with_the_last(cls, layers: list[float]) -> list[float]:
        if 1.0 not in layers:
            raise ValueError("1.0, the last layer, must be there: it is what BIGRec embeds with")
        return layers

    @property
    def output(self) -> Path:
        return self.folder("alignment")

    @property
    def adapter(self) -> Path:
        return self.folder("tuning") / "adapter"

    @property
    def generations(self) -> Path:
        return self.folder("generations")

    @property
    def grounding(self) -> Path:
        return self.folder("grounding")

    @property
    def baselines(self) -> Path:
        return self.folder("baselines")

    @property
    def inputs(self) -> dict[str, Path]:
        found = {"01_prepare_data": self.data, "02_tune_llm": self.folder("tuning")}
        found |= {"03_generate_titles": self.generations, "04_ground_to_items": self.grounding}
        return found | ({"06_train_baselines": self.baselines} if self.network else {})


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
        return f"full-s{self.seed}" if self.full else super().run

    @property
    def output(self) -> Path:
        return self.folder("baselines")

    @property
    def conventional(self) -> list[str]:
        """The models that are no LLM."""
        return [name for name in self.models or get_args(Baseline) if name != "p5"]

    @property
    def with_p5(self) -> bool:
        """Whether an LLM is tuned: not on the whole training split, which takes it days."""
        return "p5" in (self.models or get_args(Baseline)) and not self.full

    @property
    def p5_settings(self) -> dict[str, Any]:
        """What `tuning.Tuning` takes for P5: BIGRec's defaults, but for what has a name here."""
        return TuneLLM().settings | {
            "epochs": self.p5_epochs,
            "learning_rate": self.p5_learning_rate,
            "batch_size": self.p5_batch_size,
            "seed": self.seed,
        }

    @property
    def inputs(self) -> dict[str, Path]:
        return {"01_prepare_data": self.data}


class MeasureCost(AdapterParameters, ModelParameters):
    """What the contestants of a run cost; trie: the same adapter's constrained generations are
    there, too; conventional: those of 06 as well, of which models names some, or none for all."""

    notebook = "17a_measure_cost"

    conventional: bool = True
    models: list[Baseline] = []
    trie: bool = False
    requests: Count = 100
    batches: Annotated[list[Count], Field(min_length=1)] = [1, 8, 32]
    threads: Count = 1

    @property
    def output(self) -> Path:
        return self.folder("cost")

    @property
    def generations(self) -> Path:
        return self.folder("generations")

    @property
    def grounding(self) -> Path:
        return self.folder("grounding")

    @property
    def tuning(self) -> Path:
        return self.folder("tuning")

    @property
    def adapter(self) -> Path:
        return self.tuning / "adapter"

    @property
    def baselines(self) -> Path:
        return self.runs / self.dataset / self.drawn / "baselines"

    @property
    def inputs(self) -> dict[str, Path]:
        found = {"01_prepare_data": self.data, "02_tune_llm": self.tuning}
        found |= {"03_generate_titles": self.generations, "04_ground_to_items": self.grounding}
        return found | ({"06_train_baselines": self.baselines} if self.conventional else {})


class Analysis(Parameters):
    """A notebook that reads what the study has published, and nothing else.

    compares: what it is about, if not every study has it: a key of results rows that is set there,
    or the notebook of a step.
    """

    compares: ClassVar[str] = ""

    @property
    def output(self) -> Path:
        return self.runs / self.notebook.partition("_")[2]


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
    compares = "setting"


class LLMSize(Analysis):
    notebook = "12_llm_size"
    compares = "lm"


class SampleSelection(Analysis):
    notebook = "13_sample_selection"
    compares = "13a_select_samples"


class RecommendationSpaces(Analysis):
    notebook = "14_recommendation_spaces"
    compares = "14b_ground_in_spaces"


class CheaperGrounding(Analysis):
    notebook = "15_cheaper_grounding"
    compares = "15a_measure_grounders"


class Cost(Analysis):
    notebook = "17_cost"
    compares = "17a_measure_cost"


class Domains(Analysis):
    notebook = "18_domains"
    compares = "06_train_baselines"


class EmbeddingAlignment(Analysis):
    notebook = "16_embedding_alignment"
    compares = "16a_measure_alignment"


NOTEBOOKS: dict[str, type[Parameters]] = {
    cls.notebook: cls
    for cls in (
        TryIt,
        PrepareData,
        SelectSamples,
        TuneLLM,
        MergeAdapters,
        GenerateTitles,
        GroundToItems,
        TrainBaselines,
        ReweightByStatistics,
        MeasureGrounders,
        MeasureCost,
        GroundInSpaces,
        MeasureAlignment,
        OverallPerformance,
        TrainingSize,
        StatisticalInformation,
        CrossDomain,
        TuningSettings,
        LLMSize,
        SampleSelection,
        RecommendationSpaces,
        CheaperGrounding,
        Cost,
        Domains,
        EmbeddingAlignment,
    )
}


def names_from_startup() -> set[str]:
    """Names that the user's own IPython startup files define in a kernel; none outside one."""
    if "IPython" not in sys.modules:
        return set()
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return set(shell.user_ns_hidden) if shell else set()


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
