"""The runs that a study asks for: what its jobs are told apart by, one function a kind of run."""

from __future__ import annotations

import math
from itertools import chain, product

from bigrec_lib.method import selection
from bigrec_lib.study import parameters
from bigrec_lib.study.row_keys import AS_JOINT, MATCHED, MERGED, OWN, PICKED, SHUFFLED
from bigrec_lib.study.schema import Step, Study

SASREC = "sasrec-ce"  # the conventional model whose space is compared with that of titles


def runs_of(datasets, n_train, seeds) -> list[dict[str, object]]:
    return [
        {"dataset": dataset, "n_train": size, "seed": seed}
        for dataset, size, seed in product(datasets, n_train, seeds)
    ]


def prepared_data(study: Study) -> list[dict[str, object]]:
    return [{"dataset": dataset} for dataset in study.datasets]


def main_runs(study: Study) -> list[dict[str, object]]:
    return runs_of(study.datasets, study.n_train, study.seeds)


def seeds_beside(study: Study) -> list[int]:
    """Seeds of what stands beside the main runs."""
    return study.seeds_beside or study.seeds


def runs_beside(study: Study) -> list[dict[str, object]]:
    """Main runs whose adapters are moved, shuffled or shared."""
    return runs_of(study.datasets, study.n_train, seeds_beside(study))


def single_runs(study: Study) -> list[dict[str, object]]:
    """Main runs and ladder: one data set, one size, one seed."""
    return main_runs(study) + ladder_runs(study)


def ladder_runs(study: Study) -> list[dict[str, object]]:
    """Runs of the further sizes."""
    runs = chain(*(step_runs(study, step) for step in study.ladder))
    return [keys for keys in runs if keys not in main_runs(study)]


def step_runs(study: Study, step: Step) -> list[dict[str, object]]:
    """Runs of one step of the ladder."""
    return runs_of(step.datasets or study.datasets, step.n_train, step.seeds)


def trial_runs(study: Study) -> list[dict[str, object]]:
    """Main runs under each of the tuning settings to choose from."""
    runs = runs_of(study.datasets, study.n_train[:1], study.seeds[:1])
    return [{**keys, "setting": name} for name in study.settings for keys in runs]


def cheaper_runs(study: Study) -> list[dict[str, object]]:
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


def cost_runs(study: Study) -> list[dict[str, object]]:
    """Main runs of the first size and seed, of every LLM, whose cost is measured."""
    if not study.cost:
        return []
    first_runs = runs_of(study.datasets, study.n_train[:1], study.seeds[:1])
    values = {"trie": study.constrained, "conventional": study.baselines is not None}
    runs: list[dict[str, object]] = [keys | values for keys in first_runs]
    for keys in language_runs(study):
        own_run = without(keys, "lm")
        runs += [keys | {"conventional": False}] if own_run in first_runs else []
    return runs


def alignment_runs(study: Study) -> list[dict[str, object]]:
    """Main runs; with the first seed also a network whose space is compared, and examples for
    which the catalogue is ranked by likelihood."""
    alignment = study.alignment
    if not alignment:
        return []
    baselines = parameters.TrainBaselines.model_validate(
        study.notebooks.get("06_train_baselines", {})
    )
    network = SASREC if study.baselines and SASREC in baselines.conventional else ""

    def further(keys: dict[str, object]) -> dict[str, object]:
        if keys["seed"] != seeds_beside(study)[0]:
            return {}
        ranked = (
            alignment.ranked if keys["dataset"] in (alignment.ranked_on or study.datasets) else 0
        )
        return {"network": network, "ranked": ranked}

    return [keys | further(keys) for keys in runs_beside(study)]


def shuffled_runs(study: Study) -> list[dict[str, object]]:
    """Adapters that learn other users' answers, as 02 takes them."""
    values = {"setting": SHUFFLED, "shuffled": True}
    return [keys | values for keys in runs_beside(study)] if study.shuffled else []


def matched_runs(study: Study) -> list[dict[str, object]]:
    """Adapters of sizes below the first main one that are tuned for as many steps as at that one,
    as 02 takes them."""
    if not study.matched:
        return []
    values, main = study.notebooks.get("02_tune_llm", {}), study.n_train[0]
    epochs = {
        dataset: parameters.TuneLLM.model_validate(values | study.tuning.get(dataset, {})).epochs
        for dataset in study.datasets
    }
    return [
        keys | {"setting": MATCHED, "epochs": epochs[str(keys["dataset"])] * main / n}
        for n, keys in ((int(str(keys["n_train"])), keys) for keys in ladder_runs(study))
        if n < main
    ]


def as_joint_runs(study: Study) -> list[dict[str, object]]:
    """Adapters of one domain with the settings of the joint model, where the study tunes that
    domain otherwise: the main runs that a joint model, or a shared space, is compared with."""
    joint = study.joint
    if not joint:
        return []
    runs = list(chain(*(runs_of(joint.datasets, step.n_train, step.seeds) for step in joint.sizes)))
    if study.recommendation_spaces:
        runs += runs_of(joint.datasets, study.n_train[:1], seeds_beside(study))
    main = [keys for keys in main_runs(study) if keys in runs and keys["dataset"] in study.tuning]
    return [keys | {"setting": AS_JOINT} for keys in main]


def tuned_alike(study: Study, keys: dict[str, object]) -> dict[str, object]:
    """The run of one domain that stands beside the joint model: that of `as_joint_runs`, if any."""
    alike = keys | {"setting": AS_JOINT}
    return alike if alike in as_joint_runs(study) else keys


def selection_jobs(study: Study) -> list[dict[str, object]]:
    """The jobs of 13a, one for each data set of which adapters learn chosen samples."""
    part = study.selection
    if not part:
        return []
    names = ("arms", "budgets", "draws", "random_draws")
    values = {name: getattr(part, name) for name in names}
    return [values | {"dataset": dataset} for dataset in part.datasets or study.datasets]


def chosen_runs(study: Study) -> list[dict[str, object]]:
    """Adapters that learn chosen samples, as 02 takes them."""
    part = study.selection
    if not part:
        return []
    runs: list[dict[str, object]] = []
    for arm in dict.fromkeys(["random", *part.arms]):
        draws = part.random_draws if arm == "random" else part.draws
        pairs = list(product(range(draws), part.seeds[: part.seeds_a_draw]))
        if not selection.ARMS[arm].draws:
            pairs = [(0, seed) for seed in part.seeds]
        for dataset, budget in product(part.datasets or study.datasets, part.budgets):
            for draw, seed in pairs:
                choice = f"{arm}.{draw}"
                values: dict[str, object] = {"setting": PICKED + choice}
                values |= {"selection": choice, "n_scored": part.n_scored}
                runs += [keys | values for keys in runs_of([dataset], [budget], [seed])]
    return runs


def control_runs(study: Study) -> list[dict[str, object]]:
    """Where adapters of one data set are tested that learnt otherwise than those of main runs:
    others' answers, the main size's steps, chosen samples, the joint model's settings."""
    names = ("dataset", "n_train", "seed", "setting")
    tunings = shuffled_runs(study) + matched_runs(study) + chosen_runs(study)
    tunings += as_joint_runs(study)
    runs = [{name: keys[name] for name in names} for keys in tunings]
    return runs + [
        {**keys, "dataset": dataset, "tuned_on": keys["dataset"]}
        for keys in runs
        if study.transfer and keys["setting"] == SHUFFLED
        for dataset in study.datasets
        if dataset != keys["dataset"]
    ]


def text_runs(study: Study) -> list[dict[str, object]]:
    """Where every adapter writes titles for the usual prompts."""
    runs = test_runs(study) + trial_runs(study) + control_runs(study) + language_runs(study)
    return runs + [keys for keys in sharing_runs(study) if keys.get("setting") == MERGED]


def domains(study: Study) -> list[str]:
    """The data sets that may share a recommendation space; none where a study does not ask."""
    spaces = study.recommendation_spaces
    if not spaces:
        return []
    datasets = [name for name in study.datasets if name != spaces.control]
    return study.joint.datasets if study.joint else datasets


def merged_runs(study: Study) -> list[dict[str, object]]:
    """Averages of the domains' adapters, compared with those of the next seed."""
    first, *others = domains(study) or [""]
    seeds = seeds_beside(study)
    next_seeds = dict(zip(seeds, seeds[1:] + seeds[:1], strict=True))
    own = runs_of([first, *others], study.n_train[:1], seeds[:1])
    alike = [str(keys["dataset"]) for keys in own if "setting" in tuned_alike(study, keys)]
    return [
        {"dataset": first, "also": others, "n_train": study.n_train[0], "seed": seed}
        | {"alike": alike}
        | ({"against": next_seed} if next_seed != seed else {})
        for seed, next_seed in next_seeds.items()
        if first
    ]


def sharing_runs(study: Study) -> list[dict[str, object]]:
    """Models of the first size, n, on each domain: its own, the joint ones of n samples of each
    domain and of n in total, and the average of the domains' own."""
    names, size = domains(study), study.n_train[0]
    own = runs_of(names, [size], seeds_beside(study))
    all_domains: dict[str, object] = {"tuned_on": "+".join(names)}
    joint: list[dict[str, object]] = [
        keys | all_domains | {"dataset": name}
        for keys in joint_runs(study)
        if names and keys["n_train"] in (size, size // len(names))
        for name in names
    ]
    averages = [keys | all_domains | {"setting": MERGED} for keys in own]
    return [tuned_alike(study, keys) for keys in own] + joint + averages


def worded_runs(study: Study) -> list[dict[str, object]]:
    """The models of `sharing_runs`, but those of n in total, with prompts of other words, as 03
    takes them; the wrong domain is the next one."""
    names, spaces = domains(study), study.recommendation_spaces
    next_domain = dict(zip(names, names[1:] + names[:1], strict=True))
    return [
        keys | {"worded": form} | ({"words_of": next_domain[name]} if form == "wrong" else {})
        for form in (spaces.worded if spaces else [])
        for keys in sharing_runs(study)
        if (name := str(keys["dataset"])) and keys["n_train"] == study.n_train[0]
    ]


def written_runs(study: Study) -> list[dict[str, object]]:
    """Where every adapter writes titles, as 03 takes them."""
    return text_runs(study) + worded_runs(study)


def grounded_runs(study: Study) -> list[dict[str, object]]:
    """Texts and the space that they are grounded in, as 04 takes them."""
    rewordings = [without(keys, "words_of") for keys in worded_runs(study)]
    return text_runs(study) + cross_space_runs(study) + rewordings


def space_runs(study: Study) -> list[dict[str, object]]:
    """The texts of `sharing_runs` and `worded_runs`, as 14b takes them."""
    spaces = study.recommendation_spaces
    if not spaces:
        return []
    run = f"n{study.n_train[0]}-s{study.seeds[0]}"
    texts = sharing_runs(study) + [without(keys, "words_of") for keys in worded_runs(study)]
    return [
        keys
        | {"joined": [name for name in domains(study) if name != keys["dataset"]]}
        | {"control": spaces.control, "vectors_of": run}
        for keys in texts
    ]


def without(keys: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in keys.items() if key != name}


def language_runs(study: Study) -> list[dict[str, object]]:
    """Runs of the further LLMs: main runs and, with `zero_shot`, each LLM as it is."""
    all_runs = []
    for name, llm in study.llms.items():
        datasets, seeds = llm.datasets or study.datasets, llm.seeds or study.seeds
        runs = runs_of(datasets, study.n_train, seeds)
        runs += runs_of(datasets, [0], [0]) if study.zero_shot else []
        all_runs += [keys | {"lm": name} for keys in runs]
    return all_runs


def cross_space_runs(study: Study) -> list[dict[str, object]]:
    """Main runs of every LLM, grounded in the space of every other one."""
    if not study.spaces:
        return []
    runs = [keys for keys in language_runs(study) if keys["n_train"]]
    groundings = []
    for keys in runs:
        own_run = without(keys, "lm")
        groundings += [own_run | {"embedded_by": keys["lm"]}, keys | {"embedded_by": OWN}]
        groundings += [
            keys | {"embedded_by": other["lm"]}
            for other in runs
            if other["lm"] != keys["lm"] and own_run.items() <= other.items()
        ]
    return groundings


def joint_runs(study: Study) -> list[dict[str, object]]:
    sizes = study.joint.sizes if study.joint else []
    return list(chain(*(runs_of([""], step.n_train, step.seeds) for step in sizes)))


def tuning_runs(study: Study) -> list[dict[str, object]]:
    """Every adapter, as 02 takes it."""
    first, *others = study.joint.datasets if study.joint else [""]
    joint = [{**keys, "dataset": first, "also": others} for keys in joint_runs(study)]
    settings = [keys | study.settings[str(keys["setting"])] for keys in trial_runs(study)]
    controls = shuffled_runs(study) + matched_runs(study) + chosen_runs(study)
    llms = [keys for keys in language_runs(study) if keys["n_train"]]
    return single_runs(study) + joint + settings + controls + as_joint_runs(study) + llms


def test_runs(study: Study) -> list[dict[str, object]]:
    """Every adapter on every data set it is tested on, and the LLM without one."""
    runs = single_runs(study)
    if study.zero_shot:
        runs += runs_of(study.datasets, [0], [0])
    if study.constrained:
        runs += [{**keys, "constrained": True} for keys in main_runs(study)]
    if study.transfer:
        runs += [
            {**keys, "dataset": dataset, "tuned_on": keys["dataset"]}
            for keys in runs_beside(study)
            for dataset in study.datasets
            if dataset != keys["dataset"]
        ]
    names = study.joint.datasets if study.joint else []
    for keys in joint_runs(study):
        runs += [{**keys, "dataset": name, "tuned_on": "+".join(names)} for name in names]
    return runs


def baseline_runs(study: Study) -> list[dict[str, object]]:
    """Every run of the baselines."""
    if not study.baselines:
        return []
    runs = main_runs(study) + [
        study.baselines.ladder | more_epochs(study, int(str(keys["n_train"]))) | keys
        for keys in ladder_runs(study)
    ]
    if study.baselines.full is None:
        return runs
    return runs + [
        study.baselines.full | {"dataset": dataset, "seed": seed, "full": True}
        for dataset, seed in product(study.datasets, seeds_beside(study))
    ]


def more_epochs(study: Study, n_train: int) -> dict[str, object]:
    """Epochs and patience of networks on fewer samples than the first main size has, where BIGRec
    takes as many steps there (`matched`): so many more as an epoch has fewer steps."""
    ladder = study.baselines.ladder if study.baselines else {}
    values = parameters.TrainBaselines.model_validate(
        study.notebooks.get("06_train_baselines", {}) | ladder
    )
    main, own = (math.ceil(n / values.batch_size) for n in (study.n_train[0], n_train))
    if not study.matched or own >= main:
        return {}
    return {name: math.ceil(getattr(values, name) * main / own) for name in ("epochs", "patience")}
