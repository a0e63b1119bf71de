"""Study files: what they may say, and the jobs they ask for."""

from __future__ import annotations

import json
import os
import re
from itertools import chain, product
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bigrec_lib.files import StudyError
from bigrec_lib.method import readers
from bigrec_lib.study import parameters
from bigrec_lib.study.parameters import Count, Parameters, Size

ROOT = Path(__file__).parent.parent.parent
NAME = r"[A-Za-z][\w.-]*"  # of a study: it names folders, and is a word on command lines


class Part(BaseModel):
    """A part of a study file; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Sizes(Part):
    """Training sizes and their seeds."""

    n_train: list[Count] = Field(min_length=1)
    seeds: list[int] = Field(min_length=1)


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
    ladder: list[Sizes] = Field(default=[], description="further sizes, on every data set")
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
        description="the ladder also with the budget of steps, at every size, that the first main "
        "size has",
    )
    cheaper: bool = Field(
        default=False,
        description="15a_measure_grounders on main runs of the first size; 15 judges",
    )
    cost: bool = Field(
        default=False,
        description="17a_measure_cost at the first size and seed, with every LLM; 17 compares",
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
    resources: dict[str, Resources] = Field(default={}, description="by notebook")
    generation_shards: Count = Field(
        default=1, description="jobs that generate the titles of a run together"
    )

    def resources_of(self, notebook: str) -> Resources:
        return self.resources.get(notebook, Resources())


def schema() -> str:
    """The JSON schema of study files, for editors: studies/schema.json."""
    return json.dumps(Study.model_json_schema(), indent=2) + "\n"


class OnceEach(yaml.SafeLoader):
    """A safe loader that refuses a key that stands twice in a mapping: YAML drops the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for (key, _), name in zip(node.value, keys, strict=True):
            if keys.count(name) > 1:
                raise StudyError(
                    f"{name!r} stands twice, the first time in line {key.start_mark.line + 1}: "
                    "join the two"
                )
        return super().construct_mapping(node, deep)


def load(name: str) -> Study:
    """Read `studies/<name>.yaml` and check every parameter of every job it asks for.

    Raises StudyError that names the file and each unknown key, wrong type or missing value.
    """
    if not re.fullmatch(NAME, name):
        raise StudyError(
            f"a study cannot be called {name!r}: begin with a letter, and go on with letters, "
            "digits, '.', '-' and '_'"
        )
    path = ROOT / "studies" / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        raise StudyError(f"no study {name!r} in {path.parent.name}/: choose one of {known}")
    where = path.relative_to(ROOT)
    try:
        document = OnceEach(path.read_text(encoding="utf-8")).get_single_data() or {}
        if not isinstance(document, dict):
            raise StudyError(f"it holds {document!r:.40}, not keys with their values")
        study = Study.model_validate(document)
        check(name, study)
    except ValidationError as error:
        raise StudyError(f"{where}: {parameters.explain(error)}") from None
    except yaml.YAMLError as error:
        raise StudyError(f"{where} is not YAML: {' '.join(str(error).split())}") from None
    except StudyError as error:
        raise StudyError(f"{where}: {error}") from None
    return study


def check(name: str, study: Study) -> None:
    """Raise StudyError for what the schema cannot see: names, and the parameters of each job."""
    for notebook in [*study.notebooks, *study.resources]:
        if notebook not in parameters.NOTEBOOKS:
            raise StudyError(f"unknown notebook {notebook}")
    check_settings(study)
    check_llms(study)
    for dataset in study.joint.datasets if study.joint else ():
        if dataset not in study.datasets:
            raise StudyError(f"joint: {dataset} is not one of the datasets")
    for seed in study.adapters:
        if seed not in study.seeds:
            raise StudyError(f"adapters: {seed} is not one of the study's seeds")
    planned = jobs(name, study)
    waits(planned)
    for job in planned.values():
        several = study.resources_of(job.notebook).processes > 1
        if several and isinstance(job, parameters.TuneLLM) and job.instructions:
            raise StudyError("instructions are learnt in one process: set processes to 1")
        if isinstance(job, parameters.PrepareData):
            check_data(job)
        if isinstance(job, parameters.ReweightByStatistics):
            check_scores(job, planned)


def check_settings(study: Study) -> None:
    """Raise StudyError for a tuning setting whose name means something else in the results."""
    taken = {parameters.OWN: "the study's own settings", parameters.MATCHED: "the key `matched`"}
    if study.shuffled:
        taken[parameters.SHUFFLED] = "the key `shuffled`"
    for name, settings in study.settings.items():
        if name in taken:
            raise StudyError(f"settings: {name} stands for {taken[name]}: choose another name")
        if (name == parameters.SHUFFLED) != bool(settings.get("shuffled")):
            raise StudyError(
                f"settings: {name}: a setting learns other users' answers (shuffled: true) if, and "
                f"only if, it is called {parameters.SHUFFLED}"
            )


def check_llms(study: Study) -> None:
    """Raise StudyError for a further LLM without a name of its own, or that nothing compares to."""
    for name, language in study.llms.items():
        if name == parameters.OWN:
            raise StudyError(f"llms: {name} stands for the study's own LLM: choose another name")
        for what, given in {"datasets": study.datasets, "seeds": study.seeds}.items():
            further = [value for value in getattr(language, what) if value not in given]
            if further:
                raise StudyError(f"llms: {name}: {further[0]} is not one of the study's {what}")


def check_scores(job: parameters.ReweightByStatistics, planned: dict[str, Parameters]) -> None:
    """Raise StudyError where 05 wants scores of a model that 06 does not keep."""
    makers = {p.output: p for p in planned.values() if isinstance(p, parameters.TrainBaselines)}
    for name in ("collaborative", "comparator"):
        model = getattr(job, name)
        maker = makers.get(job.baselines) if job.scores(model) else None
        if maker and not {model} <= {*maker.collaborative} & {*maker.conventional}:
            raise StudyError(
                f"05_reweight_by_statistics: {name} is {model}, whose scores 06_train_baselines "
                "does not keep: name it there in `models` and `collaborative`"
            )


def check_data(job: parameters.PrepareData) -> None:
    """Raise StudyError for a reader that is none, or a variable in a path that is not set."""
    reader = job.reader or job.dataset
    if reader not in readers.READERS:
        known = ", ".join(readers.READERS)
        raise StudyError(f"unknown reader {reader!r} of {job.dataset}: choose one of {known}")
    for name in ("data_path", "titles_path"):
        path = getattr(job, name)
        if "$" in os.path.expandvars(path):
            raise StudyError(
                f"{name} of {job.dataset} is {path}: set this variable of the environment to the "
                "folder of the data"
            )


def jobs(name: str, study: Study) -> dict[str, Parameters]:
    """The checked parameters of every job, by its name, in an order in which they can run."""
    planned: dict[str, Parameters] = {}
    for notebook, cls in parameters.NOTEBOOKS.items():
        for keys in job_keys(notebook, cls, study):
            given: dict[str, object] = {"study": name, "root": "."}
            language = study.llms.get(str(keys.get("embedded_by") or keys.get("lm", "")))
            for of in (study, language):
                if of and issubclass(cls, parameters.ModelParameters):
                    given |= of.llm
                if of:
                    given |= of.notebooks.get(notebook, {})
            if cls is parameters.PrepareData:
                given |= study.datasets[str(keys["dataset"])]
            job = cls.check(given | keys)
            planned[job.job] = job
    return planned


def adapters(name: str, study: Study) -> list[parameters.TuneLLM]:
    """The jobs whose adapters are published: of main runs, those of the seeds that `adapters`
    names, or of the first seed."""
    seeds = study.adapters or study.seeds[:1]
    wanted = [
        f"{keys['dataset']}.n{keys['n_train']}-s{keys['seed']}"
        for keys in main(study)
        if keys["seed"] in seeds
    ]
    planned = jobs(name, study)
    found = [planned[f"{run}.{parameters.TuneLLM.notebook}"] for run in wanted]
    return [job for job in found if isinstance(job, parameters.TuneLLM)]


def job_keys(notebook: str, cls: type[Parameters], study: Study) -> list[dict[str, object]]:
    """What tells the jobs of a notebook apart: nothing, a data set, or a whole run."""
    if cls is parameters.TryIt:  # for people: nothing comes of it
        return []
    if cls is parameters.TuningSettings and not study.settings:
        return []
    if cls is parameters.LLMSize and not study.llms:
        return []
    if cls is parameters.CheaperGrounding and not study.cheaper:
        return []
    if cls is parameters.Cost and not study.cost:
        return []
    if cls is parameters.Domains and not study.baselines:
        return []
    if not issubclass(cls, parameters.DatasetParameters):
        return [{}]
    if not issubclass(cls, parameters.RunParameters):
        return [{"dataset": dataset} for dataset in study.datasets]
    if cls is parameters.TuneLLM:
        settings = [keys | study.settings[str(keys["setting"])] for keys in tried(study)]
        languages = [keys for keys in spoken(study) if keys["n_train"]]
        return tuned(study) + settings + shuffled(study) + matched(study) + languages
    if cls is parameters.ReweightByStatistics:
        return tested(study) + spoken(study)
    if cls is parameters.GroundToItems:
        return tested(study) + tried(study) + controls(study) + spoken(study) + across(study)
    if issubclass(cls, parameters.TunedParameters):
        return tested(study) + tried(study) + controls(study) + spoken(study)
    if cls is parameters.MeasureGrounders:
        return cheaper(study)
    if cls is parameters.MeasureCost:
        return costed(study)
    if cls is parameters.TrainBaselines:
        return trained(study)
    return single(study)


def runs_of(datasets, n_train, seeds) -> list[dict[str, object]]:
    return [
        {"dataset": dataset, "n_train": size, "seed": seed}
        for dataset, size, seed in product(datasets, n_train, seeds)
    ]


def main(study: Study) -> list[dict[str, object]]:
    return runs_of(study.datasets, study.n_train, study.seeds)


def single(study: Study) -> list[dict[str, object]]:
    """Main runs and ladder: one data set, one size, one seed."""
    return main(study) + ladder(study)


def ladder(study: Study) -> list[dict[str, object]]:
    """Runs of the further sizes."""
    steps = [runs_of(study.datasets, step.n_train, step.seeds) for step in study.ladder]
    return [keys for keys in chain(*steps) if keys not in main(study)]


def tried(study: Study) -> list[dict[str, object]]:
    """Main runs under each of the tuning settings to choose from."""
    first = runs_of(study.datasets, study.n_train[:1], study.seeds[:1])
    return [{**keys, "setting": name} for name in study.settings for keys in first]


def cheaper(study: Study) -> list[dict[str, object]]:
    """Main runs of the first size whose texts are grounded in cheaper ways, too.

    Invented catalogues are measured once, under the first seed.
    """
    runs = runs_of(study.datasets, study.n_train[:1], study.seeds) if study.cheaper else []
    return [
        {**keys, "trie": study.constrained}
        | ({"synthetic": []} if keys["seed"] != study.seeds[0] else {})
        for keys in runs
    ]


def costed(study: Study) -> list[dict[str, object]]:
    """Main runs of the first size and seed, whose cost is measured: of every LLM."""
    if not study.cost:
        return []
    first = runs_of(study.datasets, study.n_train[:1], study.seeds[:1])
    own = {"trie": study.constrained, "conventional": study.baselines is not None}
    found: list[dict[str, object]] = [keys | own for keys in first]
    for keys in spoken(study):
        plain = {name: value for name, value in keys.items() if name != "lm"}
        found += [keys | {"conventional": False}] if plain in first else []
    return found


def shuffled(study: Study) -> list[dict[str, object]]:
    """Adapters that learn other users' answers, as 02 takes them."""
    own = {"setting": parameters.SHUFFLED, "shuffled": True}
    return [keys | own for keys in main(study)] if study.shuffled else []


def matched(study: Study) -> list[dict[str, object]]:
    """Adapters of the ladder with the number of steps of the first main size, as 02 takes them."""
    if not study.matched:
        return []
    own = parameters.TuneLLM.model_validate(study.notebooks.get("02_tune_llm", {}))
    samples = own.epochs * study.n_train[0]  # that are learnt, with repetition
    return [
        keys | {"setting": parameters.MATCHED, "epochs": samples / size}
        for size, keys in ((int(str(keys["n_train"])), keys) for keys in ladder(study))
    ]


def controls(study: Study) -> list[dict[str, object]]:
    """Where the shuffled and the matched adapters are tested."""
    names = ("dataset", "n_train", "seed", "setting")
    found = [{name: keys[name] for name in names} for keys in shuffled(study) + matched(study)]
    return found + [
        {**keys, "dataset": dataset, "tuned_on": keys["dataset"]}
        for keys in found
        if study.transfer and keys["setting"] == parameters.SHUFFLED
        for dataset in study.datasets
        if dataset != keys["dataset"]
    ]


def spoken(study: Study) -> list[dict[str, object]]:
    """Runs of the further LLMs: main runs, and each as it is where the study's own LLM is, too."""
    found = []
    for name, language in study.llms.items():
        datasets, seeds = language.datasets or study.datasets, language.seeds or study.seeds
        runs = runs_of(datasets, study.n_train, seeds)
        runs += runs_of(datasets, [0], [0]) if study.zero_shot else []
        found += [keys | {"lm": name} for keys in runs]
    return found


def across(study: Study) -> list[dict[str, object]]:
    """Main runs of every LLM, grounded in the space of every other one."""
    if not study.spaces:
        return []
    languages = [keys for keys in spoken(study) if keys["n_train"]]
    found = []
    for keys in languages:
        plain = {name: value for name, value in keys.items() if name != "lm"}
        found += [plain | {"embedded_by": keys["lm"]}, keys | {"embedded_by": parameters.OWN}]
        found += [
            keys | {"embedded_by": other["lm"]}
            for other in languages
            if other["lm"] != keys["lm"] and plain.items() <= other.items()
        ]
    return found


def joint(study: Study) -> list[dict[str, object]]:
    sizes = study.joint.sizes if study.joint else []
    return list(chain(*(runs_of([""], each.n_train, each.seeds) for each in sizes)))


def tuned(study: Study) -> list[dict[str, object]]:
    """Every adapter."""
    first, *others = study.joint.datasets if study.joint else [""]
    return single(study) + [{**keys, "dataset": first, "also": others} for keys in joint(study)]


def tested(study: Study) -> list[dict[str, object]]:
    """Every adapter on every data set it is tested on, and the LLM without one."""
    found = single(study)
    if study.zero_shot:
        found += runs_of(study.datasets, [0], [0])
    if study.constrained:
        found += [{**keys, "constrained": True} for keys in main(study)]
    if study.transfer:
        found += [
            {**keys, "dataset": dataset, "tuned_on": keys["dataset"]}
            for keys in main(study)
            for dataset in study.datasets
            if dataset != keys["dataset"]
        ]
    names = study.joint.datasets if study.joint else []
    for keys in joint(study):
        found += [{**keys, "dataset": name, "tuned_on": "+".join(names)} for name in names]
    return found


def trained(study: Study) -> list[dict[str, object]]:
    """Every run of the baselines."""
    if not study.baselines:
        return []
    few = main(study) + [study.baselines.ladder | keys for keys in ladder(study)]
    if study.baselines.full is None:
        return few
    return few + [
        study.baselines.full | {"dataset": dataset, "seed": seed, "full": True}
        for dataset, seed in product(study.datasets, study.seeds)
    ]


def waits(planned: dict[str, Parameters]) -> dict[str, list[str]]:
    """For every job, the names of those that make what it reads; an analysis waits for all runs.

    Raises StudyError if no job of the study makes it.
    """
    makers = {p.output: name for name, p in planned.items()}
    every = [name for name, p in planned.items() if isinstance(p, parameters.DatasetParameters)]
    found: dict[str, list[str]] = {}
    for name, job in planned.items():
        needs = job.inputs if isinstance(job, parameters.DatasetParameters) else {}
        for maker, folder in needs.items():
            if folder not in makers:
                raise StudyError(
                    f"{name} needs {folder}, which no job of this study makes: {maker}"
                )
        found[name] = [makers[folder] for folder in needs.values()] if name in every else every
    return found
