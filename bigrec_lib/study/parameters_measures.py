"""What further jobs take, which some analyses need beside the steps: 13a to 17a."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from bigrec_lib.method import assets
from bigrec_lib.study import provenance
from bigrec_lib.study.parameters_checks import Count, Positive, Share, Size
from bigrec_lib.study.parameters_runs import (
    AdapterParameters,
    DatasetParameters,
    FollowingParameters,
    ModelParameters,
    TunedParameters,
)
from bigrec_lib.study.parameters_steps import Baseline
from bigrec_lib.study.row_keys import AS_JOINT

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


class MergeAdapters(AdapterParameters):
    """The average of the adapters of several data sets, where 02 would put one tuned on all.

    alike: data sets whose adapters are those with the joint model's settings. against: a further
    seed whose adapters are compared with these; -1 for none.
    """

    notebook = "14a_merge_adapters"

    setting: Literal["merged"] = "merged"
    n_train: Count = 256
    also: list[str] = []
    alike: list[str] = []
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
        setting = f"-as-{AS_JOINT}" if name in self.alike else ""
        return self.runs / name / f"n{self.n_train}-s{seed}{setting}" / "tuning"

    @property
    def inputs(self) -> dict[str, Path]:
        seeds = [self.seed] + [self.against] * (self.against >= 0)
        return {
            f"02_tune_llm of {name}, seed {seed}": self.tuning(name, seed)
            for seed in seeds
            for name in self.names
        }


class MeasureGrounders(FollowingParameters, ModelParameters):
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
        artefacts = {"01_prepare_data": self.data, "03_generate_titles": self.generations}
        artefacts |= {"04_ground_to_items": self.grounding}
        artefacts |= {"02_tune_llm": self.tuning} if self.n_train else {}
        return artefacts | (
            {"03_generate_titles, constrained": self.constrained} if self.trie else {}
        )


class GroundInSpaces(TunedParameters):
    """The texts of a run grounded in the catalogue of several data sets.

    joined: the other data sets whose titles join the catalogue; control: one whose titles do so in
    place of as many of theirs, '' for none; vectors_of: the run whose 04 has all their vectors.
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
        """Every data set whose titles join the catalogue."""
        return [*self.joined, *[self.control] * bool(self.control)]

    def grounded(self, name: str) -> Path:
        """Where 04 put the vectors of another data set's titles."""
        return self.runs / name / self.vectors_of / "grounding"

    @property
    def inputs(self) -> dict[str, Path]:
        artefacts = super().inputs | {"04_ground_to_items": self.grounding}
        for name in self.foreign:
            artefacts |= {f"01_prepare_data of {name}": self.prepared(name)}
            artefacts |= {f"04_ground_to_items of {name}": self.grounded(name)}
        return artefacts


class MeasureAlignment(FollowingParameters, ModelParameters):
    """What distances of a run's texts mean. network: the network of 06 whose space is compared, ''
    for none; ranked: test examples for which the LLM ranks the whole catalogue by likelihood."""

    notebook = "16a_measure_alignment"
    makers = {
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

    @property
    def state_cache(self) -> Path:
        """States of a data set's texts under any LLM, as long as the code that makes them is the
        same: its titles need the base once, whatever the seed."""
        return self.runs / self.dataset / "states" / provenance.code_of("method.states.pooled")[:12]

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
        return self.tuning / "adapter"

    @property
    def inputs(self) -> dict[str, Path]:
        artefacts = {"01_prepare_data": self.data, "02_tune_llm": self.tuning}
        artefacts |= {"03_generate_titles": self.generations}
        return artefacts | ({"06_train_baselines": self.baselines} if self.network else {})


class MeasureCost(AdapterParameters, FollowingParameters, ModelParameters):
    """What the contestants of a run cost. trie: also the same adapter's constrained generations;
    conventional: also the models of 06, those that `models` names, or all if it names none."""

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
    def adapter(self) -> Path:
        return self.tuning / "adapter"

    @property
    def inputs(self) -> dict[str, Path]:
        artefacts = {"01_prepare_data": self.data, "02_tune_llm": self.tuning}
        artefacts |= {"03_generate_titles": self.generations, "04_ground_to_items": self.grounding}
        return artefacts | ({"06_train_baselines": self.baselines} if self.conventional else {})
