"""A study's jobs: which its file asks for, and what each of them waits for."""

from __future__ import annotations

from itertools import chain, product

from bigrec_lib.files import StudyError
from bigrec_lib.method import selection
from bigrec_lib.study import parameters
from bigrec_lib.study.parameters_checks import Parameters
from bigrec_lib.study.parameters_runs import (
    DatasetParameters,
    ModelParameters,
    RunParameters,
    TunedParameters,
)
from bigrec_lib.study.row_keys import MATCHED, MERGED, OWN, PICKED, SHUFFLED
from bigrec_lib.study.schema import Study

SASREC = "sasrec-ce"  # the conventional model whose space is compared with that of titles


def jobs(name: str, study: Study) -> dict[str, Parameters]:
    """The checked parameters of every job, by its name, in an order in which they can run."""
    planned: dict[str, Parameters] = {}
    for notebook, cls in parameters.NOTEBOOKS.items():
        for keys in job_keys(notebook, cls, study):
            given: dict[str, object] = {"study": name, "root": "."}
            language = study.llms.get(str(keys.get("embedded_by") or keys.get("lm", "")))
            for of in (study, language):
                if of and issubclass(cls, ModelParameters):
                    given |= of.llm
                if of:
                    given |= of.notebooks.get(notebook, {})
                if of is study:
                    given |= alone(cls, study, keys)
            job = cls.check(given | keys)
            planned[job.job] = job
    return planned


def alone(cls: type[Parameters], study: Study, keys: dict[str, object]) -> dict[str, object]:
    """Parameters that a study gives to some jobs of a notebook alone."""
    if cls is parameters.PrepareData:
        return study.datasets[str(keys["dataset"])]
    if cls is parameters.TuneLLM and not keys.get("also"):
        return study.tuning.get(str(keys["dataset"]), {})
    if cls is parameters.GenerateTitles and keys not in main(study):
        return study.beside
    return {}


def now(study: Study) -> Study:
    """The study without the keys that it takes up later."""
    fields = Study.model_fields
    return study.model_copy(update={key: fields[key].get_default() for key in study.later})


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


def job_keys(notebook: str, cls: type[Parameters], study: Study) -> list[dict[str, object]]:
    """What tells the jobs of a notebook apart: nothing, a data set, or a whole run."""
    if cls is parameters.TryIt:  # for people: nothing comes of it
        return []
    if cls in ASKED and not getattr(study, ASKED[cls]):
        return []
    if not issubclass(cls, DatasetParameters):
        return [{}]
    if cls is parameters.SelectSamples:
        return selected(study)
    if not issubclass(cls, RunParameters):
        return [{"dataset": dataset} for dataset in study.datasets]
    if cls is parameters.TuneLLM:
        settings = [keys | study.settings[str(keys["setting"])] for keys in tried(study)]
        languages = [keys for keys in spoken(study) if keys["n_train"]]
        own = shuffled(study) + matched(study) + picked(study)
        return tuned(study) + settings + own + languages
    if cls is parameters.MergeAdapters:
        return merged(study)
    if cls is parameters.GroundInSpaces:
        return in_spaces(study)
    if cls is parameters.ReweightByStatistics:
        return tested(study) + spoken(study)
    if cls is parameters.GroundToItems:
        reworded = [without(keys, "words_of") for keys in worded(study)]
        return every_text(study) + across(study) + reworded
    if issubclass(cls, TunedParameters):
        return every_text(study) + worded(study)
    if cls is parameters.MeasureGrounders:
        return cheaper(study)
    if cls is parameters.MeasureCost:
        return costed(study)
    if cls is parameters.MeasureAlignment:
        return aligned(study)
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


def seeds_beside(study: Study) -> list[int]:
    """Seeds of what stands beside the main runs."""
    return study.seeds_beside or study.seeds


def beside(study: Study) -> list[dict[str, object]]:
    """Main runs whose adapters are moved, shuffled or shared."""
    return runs_of(study.datasets, study.n_train, seeds_beside(study))


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
    seeds = seeds_beside(study) if study.cheaper else []
    runs = runs_of(study.datasets, study.n_train[:1], seeds)
    return [
        {**keys, "trie": study.constrained}
        | ({"synthetic": []} if keys["seed"] != seeds_beside(study)[0] else {})
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


def aligned(study: Study) -> list[dict[str, object]]:
    """Main runs; with the first seed also a network whose space is compared, and examples that
    are ranked by likelihood."""
    of = study.alignment
    if not of:
        return []
    own = parameters.TrainBaselines.model_validate(study.notebooks.get("06_train_baselines", {}))
    network = SASREC if study.baselines and SASREC in own.conventional else ""

    def further(keys: dict[str, object]) -> dict[str, object]:
        if keys["seed"] != seeds_beside(study)[0]:
            return {}
        ranked = of.ranked if keys["dataset"] in (of.ranked_on or study.datasets) else 0
        return {"network": network, "ranked": ranked}

    return [keys | further(keys) for keys in beside(study)]


def shuffled(study: Study) -> list[dict[str, object]]:
    """Adapters that learn other users' answers, as 02 takes them."""
    own = {"setting": SHUFFLED, "shuffled": True}
    return [keys | own for keys in beside(study)] if study.shuffled else []


def matched(study: Study) -> list[dict[str, object]]:
    """Adapters of the ladder with the number of steps of the first main size, as 02 takes them."""
    if not study.matched:
        return []
    given = study.notebooks.get("02_tune_llm", {})
    epochs = {
        dataset: parameters.TuneLLM.model_validate(given | study.tuning.get(dataset, {})).epochs
        for dataset in study.datasets
    }
    return [
        keys | {"setting": MATCHED, "epochs": epochs[str(keys["dataset"])] * study.n_train[0] / n}
        for n, keys in ((int(str(keys["n_train"])), keys) for keys in ladder(study))
    ]


def selected(study: Study) -> list[dict[str, object]]:
    """What 13a chooses of every data set where adapters learn chosen samples."""
    of = study.selection
    if not of:
        return []
    names = ("arms", "budgets", "draws", "random_draws")
    own = {name: getattr(of, name) for name in names}
    return [own | {"dataset": dataset} for dataset in of.datasets or study.datasets]


def picked(study: Study) -> list[dict[str, object]]:
    """Adapters that learn chosen samples, as 02 takes them."""
    of = study.selection
    if not of:
        return []
    found: list[dict[str, object]] = []
    for arm in dict.fromkeys(["random", *of.arms]):
        draws = of.random_draws if arm == "random" else of.draws
        pairs = list(product(range(draws), of.seeds[: of.seeds_a_draw]))
        if not selection.ARMS[arm].draws:
            pairs = [(0, seed) for seed in of.seeds]
        for dataset, budget in product(of.datasets or study.datasets, of.budgets):
            for draw, seed in pairs:
                choice = f"{arm}.{draw}"
                own: dict[str, object] = {"setting": PICKED + choice}
                own |= {"selection": choice, "n_scored": of.n_scored}
                found += [keys | own for keys in runs_of([dataset], [budget], [seed])]
    return found


def controls(study: Study) -> list[dict[str, object]]:
    """Where the shuffled and the matched adapters, and those of chosen samples, are tested."""
    names = ("dataset", "n_train", "seed", "setting")
    own = shuffled(study) + matched(study) + picked(study)
    found = [{name: keys[name] for name in names} for keys in own]
    return found + [
        {**keys, "dataset": dataset, "tuned_on": keys["dataset"]}
        for keys in found
        if study.transfer and keys["setting"] == SHUFFLED
        for dataset in study.datasets
        if dataset != keys["dataset"]
    ]


def every_text(study: Study) -> list[dict[str, object]]:
    """Where every adapter writes titles for the usual prompts."""
    found = tested(study) + tried(study) + controls(study) + spoken(study)
    return found + [keys for keys in sharing(study) if keys.get("setting")]


def domains(study: Study) -> list[str]:
    """The data sets that may share a recommendation space; none where a study does not ask."""
    asked = study.recommendation_spaces
    if not asked:
        return []
    others = [name for name in study.datasets if name != asked.control]
    return study.joint.datasets if study.joint else others


def merged(study: Study) -> list[dict[str, object]]:
    """Averages of the domains' adapters, compared with those of the next seed."""
    first, *others = domains(study) or [""]
    seeds = seeds_beside(study)
    further = dict(zip(seeds, seeds[1:] + seeds[:1], strict=True))
    return [
        {"dataset": first, "also": others, "n_train": study.n_train[0], "seed": seed}
        | ({"against": following} if following != seed else {})
        for seed, following in further.items()
        if first
    ]


def sharing(study: Study) -> list[dict[str, object]]:
    """Models at the first size, on each domain: its own, the joint one of as many samples of each
    or in total, the average."""
    names, size = domains(study), study.n_train[0]
    together: dict[str, object] = {"tuned_on": "+".join(names)}
    seeds = seeds_beside(study)
    models: list[dict[str, object]] = [{"n_train": size, "seed": seed} for seed in seeds]
    models += [
        {"n_train": keys["n_train"], "seed": keys["seed"]} | together
        for keys in joint(study)
        if names and keys["n_train"] in (size, size // len(names))
    ]
    merge = together | {"setting": MERGED}
    models += [keys | merge for keys in models[: len(seeds)]]
    return [{"dataset": name} | keys for keys in models for name in names]


def worded(study: Study) -> list[dict[str, object]]:
    """The same but those of n in total, with prompts of other words, as 03 takes them: a wrong
    domain is the next one."""
    names, asked = domains(study), study.recommendation_spaces
    following = dict(zip(names, names[1:] + names[:1], strict=True))
    return [
        keys | {"worded": form} | ({"words_of": following[name]} if form == "wrong" else {})
        for form in (asked.worded if asked else [])
        for keys in sharing(study)
        if (name := str(keys["dataset"])) and keys["n_train"] == study.n_train[0]
    ]


def in_spaces(study: Study) -> list[dict[str, object]]:
    """All of these texts, as 14b takes them."""
    asked = study.recommendation_spaces
    if not asked:
        return []
    vectors = f"n{study.n_train[0]}-s{study.seeds[0]}"
    texts = sharing(study) + [without(keys, "words_of") for keys in worded(study)]
    return [
        keys
        | {"joined": [name for name in domains(study) if name != keys["dataset"]]}
        | {"control": asked.control, "vectors_of": vectors}
        for keys in texts
    ]


def without(keys: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in keys.items() if key != name}


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
        found += [plain | {"embedded_by": keys["lm"]}, keys | {"embedded_by": OWN}]
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
            for keys in beside(study)
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
        for dataset, seed in product(study.datasets, seeds_beside(study))
    ]


def waits(planned: dict[str, Parameters]) -> dict[str, list[str]]:
    """For every job, the names of those that make what it reads; an analysis waits for all runs.

    Raises StudyError if no job of the study makes it.
    """
    makers = {p.output: name for name, p in planned.items()}
    every = [name for name, p in planned.items() if isinstance(p, DatasetParameters)]
    found: dict[str, list[str]] = {}
    for name, job in planned.items():
        needs = job.inputs if isinstance(job, DatasetParameters) else {}
        for maker, folder in needs.items():
            if folder not in makers:
                raise StudyError(
                    f"{name} needs {folder}, which no job of this study makes: {maker}"
                )
        found[name] = [makers[folder] for folder in needs.values()] if name in every else every
    return found
