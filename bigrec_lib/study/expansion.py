"""A study's jobs: which its file asks for, and what each of them waits for."""

from __future__ import annotations

from bigrec_lib.files import StudyError
from bigrec_lib.study import parameters, run_keys
from bigrec_lib.study.parameters_analyses import Analysis
from bigrec_lib.study.parameters_checks import Parameters
from bigrec_lib.study.parameters_runs import DatasetParameters, ModelParameters
from bigrec_lib.study.row_keys import AS_JOINT, MATCHED
from bigrec_lib.study.schema import Study


def jobs(name: str, study: Study) -> dict[str, Parameters]:
    """The checked parameters of every job, by its name, in an order in which they can run."""
    planned: dict[str, Parameters] = {}
    for notebook, cls in parameters.NOTEBOOKS.items():
        for keys in job_keys(cls, study):
            values: dict[str, object] = {"study": name, "root": "."}
            llm = study.llms.get(str(keys.get("embedded_by") or keys.get("lm", "")))
            for part in (study, llm):
                if part and issubclass(cls, ModelParameters):
                    values |= part.llm
                if part:
                    values |= part.notebooks.get(notebook, {})
                if part is study:
                    values |= alone(cls, study, keys)
            job = cls.check(values | keys)
            planned[job.job] = job
    return planned


def alone(cls: type[Parameters], study: Study, keys: dict[str, object]) -> dict[str, object]:
    """Parameters that a study gives to some jobs of a notebook alone."""
    if cls is parameters.PrepareData:
        return study.datasets[str(keys["dataset"])]
    if cls is parameters.TuneLLM and not keys.get("also") and keys.get("setting") != AS_JOINT:
        fewer = study.beside if keys.get("setting") == MATCHED else {}  # it has many epochs
        n_valid = {"n_valid": fewer["n_valid"]} if fewer.get("n_valid") else {}
        return study.tuning.get(str(keys["dataset"]), {}) | n_valid
    if cls is parameters.GenerateTitles and keys not in run_keys.main_runs(study):
        return study.beside | of_step(study, keys)
    return {}


def of_step(study: Study, keys: dict[str, object]) -> dict[str, object]:
    """The test examples that a step of the ladder has of its own; keys: of a run of 03."""
    run = {name: keys[name] for name in ("dataset", "n_train", "seed")}
    if keys not in (run, run | {"setting": MATCHED}):
        return {}
    steps = (step for step in study.ladder if run in run_keys.step_runs(study, step))
    n_test = next((step.n_test for step in steps), 0)
    return {"n_test": n_test} if n_test else {}


def current(study: Study) -> Study:
    """The study without the keys and the steps of its ladder that it takes up later."""
    fields = Study.model_fields
    now = {"ladder": [step for step in study.ladder if not step.later]}
    now |= {key: fields[key].get_default() for key in study.later}
    return study.model_copy(update=now)


def adapters(name: str, study: Study) -> list[parameters.TuneLLM]:
    """The jobs whose adapters are published: of main runs, those of the seeds that `adapters`
    names, or of the first seed."""
    seeds = study.adapters or study.seeds[:1]
    runs = [
        f"{keys['dataset']}.n{keys['n_train']}-s{keys['seed']}"
        for keys in run_keys.main_runs(study)
        if keys["seed"] in seeds
    ]
    planned = jobs(name, study)
    tunings = [planned[f"{run}.{parameters.TuneLLM.notebook}"] for run in runs]
    return [job for job in tunings if isinstance(job, parameters.TuneLLM)]


ASKED = {
    parameters.TuningSettings: "settings",
    parameters.LLMSize: "llms",
    parameters.SampleSelection: "selection",
    parameters.RecommendationSpaces: "recommendation_spaces",
    parameters.CheaperGrounding: "cheaper",
    parameters.EmbeddingAlignment: "alignment",
    parameters.Cost: "cost",
    parameters.Domains: "baselines",
}
"""Analyses that run where a study asks for what they are about: the key that does so."""


RUNS = {
    parameters.PrepareData: run_keys.prepared_data,
    parameters.TuneLLM: run_keys.tuning_runs,
    parameters.GenerateTitles: run_keys.written_runs,
    parameters.GroundToItems: run_keys.grounded_runs,
    parameters.ReweightByStatistics: run_keys.test_runs,
    parameters.TrainBaselines: run_keys.baseline_runs,
    parameters.SelectSamples: run_keys.selection_jobs,
    parameters.MergeAdapters: run_keys.merged_runs,
    parameters.GroundInSpaces: run_keys.space_runs,
    parameters.MeasureGrounders: run_keys.cheaper_runs,
    parameters.MeasureAlignment: run_keys.alignment_runs,
    parameters.MeasureCost: run_keys.cost_runs,
}
"""Steps: what tells their jobs apart."""


def job_keys(cls: type[Parameters], study: Study) -> list[dict[str, object]]:
    """What tells the jobs of a notebook apart: a data set, or a run; an analysis has one job."""
    if cls is parameters.TryIt:  # for people: nothing comes of it
        return []
    if issubclass(cls, Analysis):
        return [{}] if cls not in ASKED or getattr(study, ASKED[cls]) else []
    return RUNS[cls](study)


def predecessors(planned: dict[str, Parameters]) -> dict[str, list[str]]:
    """For every job, the names of those that make what it reads; an analysis waits for all runs.

    Raises StudyError if no job of the study makes it.
    """
    makers = {p.output: name for name, p in planned.items()}
    steps = [name for name, p in planned.items() if isinstance(p, DatasetParameters)]
    makers_of: dict[str, list[str]] = {}
    for name, job in planned.items():
        needs = job.inputs if isinstance(job, DatasetParameters) else {}
        for maker, folder in needs.items():
            if folder not in makers:
                raise StudyError(
                    f"{name} needs {folder}, which no job of this study makes: {maker}"
                )
        makers_of[name] = [makers[folder] for folder in needs.values()] if name in steps else steps
    return makers_of
