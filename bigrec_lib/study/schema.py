"""What a study file may say."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bigrec_lib.study.parameters_checks import Count, Size
from bigrec_lib.study.parameters_measures import Arm


class Part(BaseModel):
    """A part of a study file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Sizes(Part):
    """Training sizes and their seeds."""

    n_train: list[Count] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)


class Step(Sizes):
    """Sizes of the ladder."""

    datasets: list[str] = Field(default=[], description="where; empty: everywhere")
    n_test: Size = Field(default=0, description="test examples; 0: as many as `beside` says")
    later: bool = Field(default=False, description="they wait, as keys in the study's `later` do")


class Joint(Part):
    """Adapters that learn several data sets; n_train is the number of samples of each."""

    datasets: list[str] = Field(min_length=2)
    sizes: list[Sizes] = Field(min_length=1)


class Baselines(Part):
    """06 for every training size and seed; each part has parameters of its own where it differs."""

    ladder: dict[str, object] = Field(default={}, description="parameters at the further sizes")
    full: dict[str, object] | None = Field(
        default=None, description="parameters on the whole training split; null: not trained on it"
    )


class RecommendationSpaces(Part):
    """Whether domains share a space: those of `joint`, else all data sets but the control."""

    control: str = Field(
        default="",
        description="a further data set, whose titles join in place of as many of the domains'",
    )
    worded: list[Literal["none", "wrong"]] = Field(
        default=[], description="prompts that name no domain, or a wrong one, too"
    )


class Alignment(Part):
    """16a for main runs."""

    ranked: Size = Field(
        default=0,
        description="test examples, at the first seed, for which the LLM ranks the whole catalogue "
        "by likelihood",
    )
    ranked_on: list[str] = Field(
        default=[], description="the data sets of these examples; empty: every one"
    )


class Language(Part):
    """A further LLM, on the samples of main runs."""

    llm: dict[str, object] = Field(
        description="parameters of every notebook that loads it, beside those of the study's `llm`"
    )
    notebooks: dict[str, dict[str, object]] = Field(
        default={}, description="further parameters, by notebook"
    )
    datasets: list[str] = Field(default=[], description="where it is used; empty: everywhere")
    seeds: list[int] = Field(default=[], description="of main runs; empty: all of them")


class Selection(Part):
    """Adapters that learn chosen samples, beside as many drawn at random: 13a, 02, 03 and 04.

    An arm that draws gets every draw with the first `seeds_a_draw` seeds, any other all seeds.
    """

    arms: list[Arm] = Field(default=[], description="ways to choose, besides random")
    budgets: list[Count] = Field(min_length=1, description="numbers of samples")
    draws: Count = Field(default=3, description="of an arm that draws, but random")
    random_draws: Count = Field(default=10, description="of random: the band of chance")
    seeds: list[int] = Field(min_length=1, description="of tuning")
    seeds_a_draw: Count = Field(default=2, description="of tuning on each draw")
    n_scored: Size = Field(
        default=1000, description="test examples whose title's log-likelihood is measured"
    )
    datasets: list[str] = Field(default=[], description="where; empty: everywhere")


class Resources(Part):
    """What one job of a notebook takes of the machine."""

    threads: Size = Field(
        default=0,
        description="of the CPU; rounding depends on them. 0: all there are, one job at a time",
    )
    memory_gb: float = Field(default=0, ge=0, description="10^9 bytes; 0: not told")
    gpus: Size = 0
    minutes: Size = Field(default=0, description="the longest it may take on a cluster; 0: a day")
    processes: Count = Field(
        default=1, description="of tuning, under `accelerate launch`; on GPUs one for each"
    )


class Study(Part):
    """A study: main runs are n_train x seeds x datasets; the other keys add to them."""

    datasets: dict[str, dict[str, object]] = Field(
        min_length=1, description="name in the results -> parameters of 01_prepare_data"
    )
    n_train: list[Count] = Field(min_length=1, description="training sizes of the main runs")
    seeds: list[int] = Field(min_length=1, description="seeds of the main runs")
    llm: dict[str, object] = Field(
        default={}, description="parameters of every notebook that loads the LLM"
    )
    llms: dict[str, Language] = Field(
        default={}, description="name -> a further LLM; 12_llm_size compares them"
    )
    spaces: bool = Field(
        default=False,
        description="what each LLM of main runs writes also grounded by every other one",
    )
    ladder: list[Step] = Field(default=[], description="further sizes")
    zero_shot: bool = Field(default=False, description="the LLM as it is, too")
    constrained: bool = Field(
        default=False, description="main runs also with only titles of the catalogue generated"
    )
    joint: Joint | None = Field(default=None, description="adapters for several data sets")
    transfer: bool = Field(
        default=False, description="the adapter of each main run also on the other data sets"
    )
    shuffled: bool = Field(
        default=False,
        description="adapters of main runs that learn other users' answers, too; with `transfer`, "
        "also on the other data sets",
    )
    matched: bool = Field(
        default=False,
        description="smaller sizes of the ladder also with as many steps as the first main size",
    )
    cheaper: bool = Field(
        default=False,
        description="15a_measure_grounders on main runs of the first size; 15 judges",
    )
    cost: bool = Field(
        default=False,
        description="17a_measure_cost at the first size and seed, with every LLM; 17 compares",
    )
    recommendation_spaces: RecommendationSpaces | None = Field(
        default=None,
        description="one catalogue for several domains, averaged adapters, prompts of other words, "
        "at the first size; 14_recommendation_spaces compares them",
    )
    selection: Selection | None = Field(
        default=None,
        description="adapters on chosen samples; 13_sample_selection compares them",
    )
    alignment: Alignment | None = Field(
        default=None, description="16a_measure_alignment for main runs, and what follows from it"
    )
    baselines: Baselines | None = Field(default=None, description="06 for main runs and ladder")
    adapters: list[int] = Field(
        default=[], description="seeds of main runs whose adapters are published with the results"
    )
    settings: dict[str, dict[str, object]] = Field(
        default={},
        description="name -> parameters of 02_tune_llm to try at the first size and seed; "
        "11_tuning_settings compares them on validation",
    )
    notebooks: dict[str, dict[str, object]] = Field(
        default={}, description="further parameters, by notebook"
    )
    tuning: dict[str, dict[str, object]] = Field(
        default={},
        description="data set -> parameters of 02_tune_llm for it alone; above `notebooks`",
    )
    beside: dict[str, object] = Field(
        default={},
        description="parameters of 03_generate_titles for all but the main runs of the study's own "
        "LLM, such as fewer test examples (n_test)",
    )
    seeds_beside: list[int] = Field(
        default=[],
        description="seeds of main runs that `transfer`, `shuffled`, `recommendation_spaces`, "
        "`alignment`, `cheaper` and the `full` part of `baselines` take up; empty: all of them",
    )
    from_results: bool = Field(
        default=False,
        description="what runs/<study> lacks of finished jobs is taken from results/<study>, where "
        "it holds it, and not made again",
    )
    later: list[str] = Field(
        default=[],
        description="keys that wait: their jobs are checked, and run once the key stands here no "
        "more",
    )
    resources: dict[str, Resources] = Field(default={}, description="by notebook")
    generation_shards: Count = Field(
        default=1, description="jobs that generate the titles of a run together"
    )

    def resources_of(self, notebook: str) -> Resources:
        return self.resources.get(notebook, Resources())


def as_json() -> str:
    """The JSON schema of study files, for editors: studies/schema.json."""
    return json.dumps(Study.model_json_schema(), indent=2) + "\n"
