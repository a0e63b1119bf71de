"""Study files: read one, and refuse what it must not say."""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml
from pydantic import ValidationError

from bigrec_lib.files import StudyError
from bigrec_lib.method import readers
from bigrec_lib.study import expansion, run_keys
from bigrec_lib.study.parameters import (
    NOTEBOOKS,
    PrepareData,
    ReweightByStatistics,
    TrainBaselines,
    TuneLLM,
)
from bigrec_lib.study.parameters_analyses import Analysis
from bigrec_lib.study.parameters_checks import Parameters, explain
from bigrec_lib.study.row_keys import AS_JOINT, MATCHED, MERGED, OWN, PICKED, SHUFFLED
from bigrec_lib.study.schema import Study

ROOT = Path(__file__).parent.parent.parent
FOLDERS = {"accepted", "begun", "done", "executed", "locks", "logs", "vectors"}
FOLDERS |= {
    cls.notebook.partition("_")[2] for cls in NOTEBOOKS.values() if issubclass(cls, Analysis)
}
"""What lies beside the data sets in `runs/<study>`: the batch's records, the analyses' work."""
NAME = r"(?!(?i:inf|infinity|nan|true|false)$)[A-Za-z][\w.-]*"
"""Of a study: it names folders, and is a word on command lines, where Snakemake reads some words as
numbers or as truth values."""


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
            "digits, '.', '-' and '_'; inf, nan, true and false mean something else"
        )
    path = ROOT / "studies" / f"{name}.yaml"
    if not path.exists():
        names = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
        advice = f"choose one of {names}" if names else "this folder has none"
        raise StudyError(f"no study {name!r} in {path.parent.name}/: {advice}")
    place = path.relative_to(ROOT)
    try:
        document = OnceEach(path.read_text(encoding="utf-8")).get_single_data() or {}
        if not isinstance(document, dict):
            raise StudyError(f"it holds {document!r:.40}, not keys with their values")
        study = Study.model_validate(document)
        check(name, study)
        study = expansion.current(study)
        check(name, study)
    except ValidationError as error:
        raise StudyError(f"{place}: {explain(error)}") from None
    except yaml.YAMLError as error:
        raise StudyError(f"{place} is not YAML: {' '.join(str(error).split())}") from None
    except StudyError as error:
        raise StudyError(f"{place}: {error}") from None
    return study


def check(name: str, study: Study) -> None:
    """Raise StudyError for what the schema cannot see: names, and the parameters of each job."""
    for notebook in [*study.notebooks, *study.resources]:
        if notebook not in NOTEBOOKS:
            raise StudyError(f"unknown notebook {notebook}")
    for key in study.later:
        if key not in Study.model_fields or Study.model_fields[key].is_required():
            raise StudyError(f"later: {key} is no key that a study can do without")
    for dataset in FOLDERS & set(study.datasets):
        raise StudyError(f"datasets: {dataset} is a folder of the batch's own: take another name")
    check_settings(study)
    check_llms(study)
    mentions = {
        "tuning": study.tuning,
        "selection": study.selection.datasets if study.selection else (),
        "joint": study.joint.datasets if study.joint else (),
        "alignment": study.alignment.ranked_on if study.alignment else (),
        "ladder": [dataset for step in study.ladder for dataset in step.datasets],
    }
    for key, datasets in mentions.items():
        for dataset in datasets:
            if dataset not in study.datasets:
                raise StudyError(f"{key}: {dataset} is not one of the datasets")
    for key in ("adapters", "seeds_beside"):
        for seed in getattr(study, key):
            if seed not in study.seeds:
                raise StudyError(f"{key}: {seed} is not one of the study's seeds")
    check_spaces(study)
    planned = expansion.jobs(name, study)
    expansion.predecessors(planned)
    for job in planned.values():
        several = study.resources_of(job.notebook).processes > 1
        if several and isinstance(job, TuneLLM) and job.instructions:
            raise StudyError("instructions are learnt in one process: set processes to 1")
        if isinstance(job, PrepareData):
            check_data(job)
        if isinstance(job, ReweightByStatistics):
            check_scores(job, planned)


def check_settings(study: Study) -> None:
    """Raise StudyError for a tuning setting whose name means something else in the results."""
    meanings = {OWN: "the study's own settings", MATCHED: "the key `matched`"}
    meanings |= {MERGED: "the key `recommendation_spaces`", AS_JOINT: "the key `joint`"}
    if study.shuffled:
        meanings[SHUFFLED] = "the key `shuffled`"
    for name, settings in study.settings.items():
        if name.startswith(PICKED):
            raise StudyError(
                f"settings: {name}: {PICKED} opens the names of selected samples: "
                "choose another name"
            )
        if name in meanings:
            raise StudyError(f"settings: {name} stands for {meanings[name]}: choose another name")
        if (name == SHUFFLED) != bool(settings.get("shuffled")):
            raise StudyError(
                f"settings: {name}: a setting learns other users' answers (shuffled: true) if, and "
                f"only if, it is called {SHUFFLED}"
            )


def check_spaces(study: Study) -> None:
    """Raise StudyError for recommendation spaces of one domain, or a control that cannot be one."""
    spaces = study.recommendation_spaces
    if not spaces:
        return
    if spaces.control and spaces.control not in study.datasets:
        raise StudyError(
            f"recommendation_spaces: {spaces.control}, the control, is not one of the datasets"
        )
    if spaces.control in run_keys.domains(study):
        raise StudyError(
            f"recommendation_spaces: {spaces.control}, the control, is a domain of `joint`, too: "
            "take a further data set"
        )
    if len(run_keys.domains(study)) < 2:
        raise StudyError("recommendation_spaces: a space is shared by two data sets or more")


def check_llms(study: Study) -> None:
    """Raise StudyError for a further LLM without a name of its own, or runs the study lacks."""
    for name, llm in study.llms.items():
        if name == OWN:
            raise StudyError(f"llms: {name} stands for the study's own LLM: choose another name")
        for key, values in {"datasets": study.datasets, "seeds": study.seeds}.items():
            extras = [value for value in getattr(llm, key) if value not in values]
            if extras:
                raise StudyError(f"llms: {name}: {extras[0]} is not one of the study's {key}")


def check_scores(job: ReweightByStatistics, planned: dict[str, Parameters]) -> None:
    """Raise StudyError where 05 needs a model's scores that 06 does not keep."""
    makers = {p.output: p for p in planned.values() if isinstance(p, TrainBaselines)}
    for name in ("collaborative", "comparator"):
        model = getattr(job, name)
        maker = makers.get(job.baselines) if job.scores(model) else None
        if maker and not {model} <= {*maker.collaborative} & {*maker.conventional}:
            raise StudyError(
                f"05_reweight_by_statistics: {name} is {model}, whose scores 06_train_baselines "
                "does not keep: name it there in `models` and `collaborative`"
            )


def check_data(job: PrepareData) -> None:
    """Raise StudyError for a reader that is none, or a variable in a path that is not set."""
    reader = job.reader or job.dataset
    if reader not in readers.READERS:
        names = ", ".join(readers.READERS)
        raise StudyError(f"unknown reader {reader!r} of {job.dataset}: choose one of {names}")
    for name in ("data_path", "titles_path"):
        path = getattr(job, name)
        if "$" in os.path.expandvars(path):
            raise StudyError(
                f"{name} of {job.dataset} is {path}: set this variable of the environment to the "
                "folder of the data"
            )
