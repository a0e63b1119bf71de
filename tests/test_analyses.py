"""The analyses on a whole toy study and on a bare one: verdicts and gaps."""

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import toy_results
from PIL import Image

from bigrec_lib.findings import analyses, evidence, methods, sizes, worked
from bigrec_lib.study import results, row_keys
from bigrec_lib.study.parameters import NOTEBOOKS
from bigrec_lib.study.parameters_analyses import Analysis
from bigrec_lib.study.row_keys import KEYS

ROOT = Path(__file__).parent.parent
MEASURED = {"13a_select_samples", "15a_measure_grounders", "16a_measure_alignment"}
MEASURED |= {"17a_measure_cost"}  # what these measure, the toy results have not
ANALYSES = [
    name
    for name, cls in NOTEBOOKS.items()
    if issubclass(cls, Analysis) and cls.compares not in MEASURED
]


@pytest.fixture(scope="module")
def run_all():
    """Execute analyses on the toy results in a folder, one after the other in one kernel, whose
    start and imports take longer than they; each begins without any names."""
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.utils import run_sync
    from nbclient import NotebookClient
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    kernel = AsyncKernelManager(kernel_name="python3")

    def run(folder, names=ANALYSES):
        (folder / "pyproject.toml").write_text("")
        for part in ("notebooks", "bigrec_lib"):
            shutil.copytree(ROOT / part, folder / part)
        for name in names:
            notebook = load_notebook_node(str(folder / "notebooks" / f"{name}.ipynb"))
            given = {"study": "toy", "root": str(folder)}
            notebook = parameterize_notebook(notebook, given, kernel_name="python3")
            notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
            client = NotebookClient(notebook, km=kernel, timeout=None)
            client.execute()
            client.kc.stop_channels()
            nbformat.write(notebook, folder / f"{name}.ipynb")
        return folder

    yield run
    run_sync(kernel.shutdown_kernel)(now=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run_all):
    folder = tmp_path_factory.mktemp("whole")
    toy_results.write(folder / "results" / "toy")
    return run_all(folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory, run_all):
    """A study with BIGRec of one size and one seed on one data set, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    toy_results.write_bare(folder / "results" / "toy", lists=False)
    return run_all(folder)


@pytest.fixture(scope="module")
def opposite(tmp_path_factory, run_all):
    """A study whose BIGRec says the same popular titles to everybody."""
    folder = tmp_path_factory.mktemp("opposite")
    toy_results.write(folder / "results" / "toy", world="shuffled")
    return run_all(folder, ["07_overall_performance", "09_statistical_information"])


def said(folder, name):
    """The Markdown that a notebook displayed."""
    notebook = nbformat.read(folder / f"{name}.ipynb", 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("data", {}).get("text/markdown", "") for output in outputs)


def test_opposite_results_are_told_in_opposite_words(whole, opposite):
    planted, null = (said(folder, "07_overall_performance") for folder in (whole, opposite))
    assert "films: **BIGRec** is **better than** Random" in planted
    assert "**BIGRec** is **worse than**" not in planted
    assert "films: **BIGRec** is **worse than**" in null
    ours = "films: the lists of BIGRec are **"
    assert f"{ours}personal**" in planted and f"{ours}not shown to be personal**" in null
    planted, null = (said(folder, "09_statistical_information") for folder in (whole, opposite))
    ours = r"films, 128 samples: \d+ different .* fifth takes \d+% of the first 20, {} than of the"
    assert re.search(ours.format("less"), planted) and re.search(ours.format("more"), null)


def test_every_figure_says_what_it_shows(whole):
    """In the file and in the notebook; 15 and later are not asked yet."""
    for name in [name for name in ANALYSES if name < "13"]:
        for path in (whole / "runs" / "toy" / name.partition("_")[2] / "figures").iterdir():
            with Image.open(path) as image:
                assert re.search(r"\d", image.text["Description"]), path
        notebook = nbformat.read(whole / f"{name}.ipynb", 4)
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        pictures = [output for output in outputs if "image/png" in output.get("data", {})]
        assert pictures and all(each.metadata["image/png"]["alt"] for each in pictures), name


def test_the_worked_examples_are_of_each_kind(whole):
    folder = whole / "results" / "toy"
    ranks = evidence.plain_runs(evidence.read_scores(folder))
    one = ranks[(ranks.method == "bigrec") & (ranks.run == "n128-s0") & (ranks.dataset == "films")]
    chosen = worked.kinds(folder, one)
    rank = one.set_index("example")["rank"]
    assert list(chosen) == ["hit", "near miss"]  # no rank of the toy study is 100 or more
    assert rank[chosen["hit"]] < 20 <= rank[chosen["near miss"]]
    assert (rank.iloc[: chosen["hit"]] >= 20).sum() == chosen["hit"]
    titles = worked.targets(folder, "films")
    assert f"hit: {titles[chosen['hit']]}" in said(whole, "07_overall_performance")


def claims_of(folder):
    """The claims of all analyses, as a study publishes them."""
    parts = [folder / "runs/toy" / name.partition("_")[2] / "claims.csv" for name in ANALYSES]
    return pd.concat([pd.read_csv(path) for path in parts if path.exists()])


def table(folder, analysis, name):
    return pd.read_csv(folder / "runs" / "toy" / analysis / "tables" / f"{name}.csv")


def test_every_claim_is_decided_as_planted(whole):
    found = claims_of(whole)
    found = found[found.claim.str.startswith("C")]
    assert found.claim.unique().tolist() == ["C1", "C2", "C3", "C4", "C5"]
    assert found.dataset.value_counts().to_dict() == {"films": 13, "games": 13}
    assert (found.verdict == "supported").all()
    assert set(found["where"].str.split("#").str[0]) == {name for name in ANALYSES if name < "11"}


def test_every_claim_lacks_its_data_in_a_bare_study(bare):
    found = claims_of(bare)
    of_paper = [claim for claim in found.claim.unique() if claim.startswith("C")]
    assert of_paper == ["C1", "C2", "C3", "C4", "C5"]
    assert (found.verdict == "missing").all()
    assert found.reason.str.startswith("missing: ").all()


def test_gaps_have_names_in_the_tables(bare):
    main = table(bare, "overall_performance", "main").set_index("method")
    assert main.gap["DROS"] == "missing: all" and pd.isna(main.gap["BIGRec"])
    compared = table(bare, "overall_performance", "comparisons")
    assert compared.gap.str.startswith("missing: ").all()
    matrix = table(bare, "cross_domain", "origins")
    assert matrix.gap.tolist()[0].startswith("missing: untuned")


def test_origins_are_compared_on_the_examples_that_all_have(whole):
    ranks = evidence.read_scores(whole / "results" / "toy")
    datasets = list(dict.fromkeys(ranks.dataset))
    joint = ranks.tuned_on.str.contains("+", regex=False)
    few = ranks[~joint | (ranks.example < ranks.example.median())]
    own = evidence.plain_runs(few).query("method == 'bigrec' and n_train == 128")
    found = analyses.origin_matrix(few, datasets).set_index(["dataset", "origin"])
    for name in datasets:
        examples = set(few[joint & (few.dataset == name)].example)
        kept = own[(own.dataset == name) & own.example.isin(examples)]
        row = found.loc[name, name]
        assert row.n == len(examples) < own[own.dataset == name].example.nunique()
        assert row.value == pytest.approx(kept.ndcg.mean())


def test_ndcg_by_the_group_of_the_target(whole):
    found = table(whole, "statistical_information", "by_target_group")
    assert found.columns.tolist() == ["dataset", "n_train", "method", *"12345"]
    folder = whole / "results" / "toy"
    ranks = evidence.read_scores(folder)
    for dataset in found.dataset.unique():
        examples = evidence.read_data(folder, "examples")[dataset]
        group = examples.target.to_numpy() // 80 + 1  # the more popular the higher the number
        own = evidence.plain_runs(ranks).query(
            "dataset == @dataset and method == 'bigrec' and n_train == 128"
        )
        ndcg = own.groupby("example").ndcg.mean()[examples.example].to_numpy()
        row = found.query("dataset == @dataset and method == 'bigrec' and n_train == 128").iloc[0]
        for g in np.unique(group):
            assert row[str(g)] == pytest.approx(ndcg[group == g].mean(), abs=1e-9)


def test_where_no_lines_cross_the_table_says_who_is_ahead():
    def study(bigrec, others):
        return pd.DataFrame(
            [
                {**KEYS, "dataset": "d", "run": "r", "n_train": size,
                 "setting": "matched" if method == "bigrec" and size == 64 else "",
                 "seed": 0, "method": method, "example": example, "user": example,
                 "ndcg": value + (example - 2) / 100}
                for method, values in {"bigrec": bigrec, "markov": others}.items()
                for size, value in zip((64, 128), values, strict=True)
                for example in range(5)
            ]
        )  # fmt: skip

    ahead, behind = (
        analyses.crossings(study(*each)).iloc[0]
        for each in (((0.8, 0.8), (0.1, 0.2)), ((0.1, 0.1), (0.3, 0.9)))
    )
    assert ahead.crossing == 128 and ahead.gap == "BIGRec's line is ahead from 64 to 128 samples"
    assert behind.crossing == 64 and behind.gap.startswith("the conventional models' line is ahead")
    steeper = analyses.crossings(study((0.1, 0.5), (0.3, 0.3))).iloc[0]
    assert np.isnan(steeper.crossing) and "is steeper than" in steeper.gap
    noisy = study((0.1, 0.1), (0.3, 0.31)).assign(
        ndcg=lambda f: f.ndcg + (f.method == "markov") * (f.n_train == 128) * (f.example - 2) / 5
    )
    unsure = analyses.crossings(noisy).iloc[0]
    assert np.isnan(unsure.crossing) and "are not told apart" in unsure.gap
    assert unsure.slope == pytest.approx(-0.01) and unsure.slope_low < 0 < unsure.slope_high


def test_exposure_is_that_of_one_seed_on_average():
    items = {"d": pd.DataFrame({"title_group": range(4), "train_count": [8, 4, 2, 1]})}
    lists = pd.DataFrame(
        {"dataset": "d", "n_train": 16, "method": "bigrec", "seed": [0, 0, 1, 1],
         "example": [7, 8, 7, 8], "items": [[0, 1], [0, 1], [1, 2], [2, 3]]}
    )  # fmt: skip
    (row,) = analyses.exposure(lists, items).to_dict("records")
    assert row["seeds"] == 2 and row["lists"] == 2
    assert row["distinct_first"] == 1.5  # 1 and 2, where both runs together have 3
    assert row["coverage"] == (0.5 + 0.75) / 2
    assert row["popularity_rank"] == (1.5 + 3.0) / 2


def test_exposure_of_all_methods_is_that_of_the_same_examples():
    items = {"d": pd.DataFrame({"title_group": range(4), "train_count": [8, 4, 2, 1]})}
    many = {"n_train": 16, "example": [1, 2, 3], "items": [[0, 1], [1, 2], [2, 3]]}
    few = {"n_train": 0, "example": [1, 3], "items": [[3, 0], [3, 1]]}
    lists = pd.concat([pd.DataFrame(rows) for rows in (many, few)])
    rows = analyses.exposure(lists.assign(dataset="d", method="bigrec", seed=0), items)
    assert rows.lists.tolist() == [2, 2] and rows.set_index("n_train").distinct_first[16] == 2


def test_no_seed_is_missing_where_all_ran(whole):
    main = table(whole, "overall_performance", "main")
    ours = ["bigrec", "bigrec-constrained", "bigrec-untuned", "bigrec-shuffled", "bigrec+both"]
    ours += ["random", "popularity", *toy_results.LAST]
    ours = [methods.label(method) for method in [*toy_results.TRAINED, *ours]]
    there = main[main.method.isin(ours) & (main.samples == "few")]
    assert len(there) == 2 * len(ours)
    assert there.gap.isna().all() and there["NDCG@20"].str.contains("±").all()


def test_every_analysis_draws_a_figure(whole):
    for name in ANALYSES:
        figures = whole / "runs" / "toy" / name.partition("_")[2] / "figures"
        assert {path.suffix for path in figures.iterdir()} == {".png"}


def test_shares_of_the_histories_by_hand(whole):
    folder = whole / "results" / "toy"
    items, examples = (evidence.read_data(folder, name)["films"] for name in ("items", "examples"))
    # every history: one title of the rarest fifth, two of the next ones, three of the top
    assert evidence.history_shares(items, examples).tolist() == [0.1, 0.2, 0.2, 0.2, 0.3]


def test_the_setting_that_validation_prefers_is_chosen(whole, bare):
    found = table(whole, "tuning_settings", "settings")
    assert found.groupby("dataset").setting.apply(set).to_dict() == {
        "films": {"study", "steep", "shuffled"}, "games": {"study", "steep", "shuffled"}
    }  # fmt: skip
    assert found.set_index("setting").learning_rate.loc["steep"].tolist() == [0.01] * 2
    valid = results.read_ranks(whole / "results" / "toy", "valid")
    for row in found.itertuples():
        run = "n128-s0" + ("" if row.setting == "study" else f"-as-{row.setting}")
        ranks = valid.query(f"dataset == '{row.dataset}' and run == '{run}' and method == 'bigrec'")
        ndcg = np.where(ranks["rank"] < 20, 1 / np.log2(ranks["rank"] + 2), 0).mean()
        assert row.ndcg == pytest.approx(ndcg, abs=1e-9) and row.distinct == 30
    best = found.groupby("dataset").ndcg.transform("max")
    assert (found.chosen == (found.ndcg == best)).all() and found.chosen.sum() >= 2
    ways = table(whole, "tuning_settings", "ways").set_index("setting")
    assert (ways.low[["study", "steep"]] > 0).all() and not (ways.low["shuffled"] > 0).any()
    assert table(bare, "tuning_settings", "settings").empty
    every = table(whole, "overall_performance", "every_run").method
    assert "BIGRec (setting steep)" in set(every)


def test_a_larger_llm_that_hits_more_is_found_to(whole, bare):
    found = table(whole, "llm_size", "llms").set_index(["lm", "tuned"])
    assert set(found.index) == {(lm, tuned) for lm in ("study", "large") for tuned in (True, False)}
    assert found.parameters.loc["large", True] == toy_results.LARGE
    assert found.seconds_a_sample.loc["large", True] == 64 / 128
    ranks = results.read_ranks(whole / "results" / "toy")
    large = ranks[(ranks.lm == "large") & (ranks.method == "bigrec") & (ranks.embedded_by == "")]
    large = large[large.n_train == 128]
    ndcg = np.where(large["rank"] < 20, 1 / np.log2(large["rank"] + 2), 0).mean()
    assert found.ndcg.loc["large", True] == pytest.approx(ndcg, abs=1e-9)
    assert (found.gain_low.loc[:, True] > 0).all()
    trend = table(whole, "llm_size", "llm_trends").set_index("tuned")
    row = trend.loc[True]
    assert row.slope_low > 0 and (row.llms, row.seeds) == (2, 2)
    common = ranks.query("dataset == 'films' and run in ('n128-s0', 'n128-s1')")
    common = common[common.method == "bigrec"]
    small = np.where(common["rank"] < 20, 1 / np.log2(common["rank"] + 2), 0).mean()
    assert row.slope == pytest.approx(ndcg - small, abs=2e-9)  # LARGE is ten times SMALL
    assert row.gain_slope_low > 0 and row.p >= row.slope_p and row.corrected < 0.05
    assert row.far == pytest.approx(small + row.slope * np.log10(70), abs=2e-9)
    across = table(whole, "llm_size", "llm_spaces").set_index(["lm", "space"])
    assert across.ndcg.loc["large", "large"] == pytest.approx(ndcg, abs=2e-9)
    assert set(across.index) == {(a, b) for a in ("study", "large") for b in ("study", "large")}
    scores = evidence.read_scores(whole / "results" / "toy")
    main = evidence.main_sizes(scores)
    smaller = scores[scores.embedded_by != ""].assign(n_train=64)
    pd.testing.assert_frame_equal(
        sizes.spaces(pd.concat([scores, smaller]), main), sizes.spaces(scores, main)
    )
    pairs = table(whole, "llm_size", "llm_agreement").set_index(["lm", "against"])
    assert set(pairs.index) == {
        ("study", "large"), ("study", sizes.OTHER_SEED), ("large", sizes.OTHER_SEED)
    }  # fmt: skip
    assert 0 < pairs.overlap.loc["study", "large"] < 1
    own = ranks.query("dataset == 'films' and method == 'bigrec'")
    hit = own.assign(hit=own["rank"] < 20).pivot(index="run", columns="example", values="hit")
    of_seed = [hit.loc[f"n128-s{seed}"].to_numpy() for seed in range(4)]
    alone = [(a & ~b).mean() for a, b in pairwise(of_seed)]
    assert pairs.only_lm.loc["study", sizes.OTHER_SEED] == pytest.approx(np.mean(alone))
    assert table(bare, "llm_size", "llms").tuned.tolist() == [True]
    assert table(bare, "llm_size", "llm_trends").empty


def test_what_says_the_same_to_everybody_is_marked_and_what_learnt_users_is_not(whole):
    found = table(whole, "overall_performance", "references").set_index(["samples", "method"])
    assert found.loc[("few", "bigrec")].personal.all()
    for method in ("popularity", "bigrec-untuned", "bigrec-shuffled", "random"):
        assert not found.loc[("few", method)].personal.any(), method
    assert found.random.unique() == pytest.approx([sum(1 / np.log2(np.arange(2, 22))) / 400])
    main = table(whole, "overall_performance", "main")
    of_few = main[main.samples == "few"].set_index("method")
    ring = of_few["personal gain"].str.endswith("∘")
    assert ring["Popularity"].all() and not ring["BIGRec"].any()
    assert of_few["most frequent"]["Popularity"].tolist() == ["100%"] * 2
    assert of_few["distinct first"]["Popularity"].tolist() == [1, 1]
    assert of_few.learns["GRU4Rec, cross-entropy, targets only"].tolist() == [methods.TARGETS] * 2


def test_examples_are_told_apart_by_what_makes_a_hit_easy(whole):
    found = table(whole, "overall_performance", "subsets")
    folder = whole / "results" / "toy"
    ranks = evidence.plain_runs(evidence.read_scores(folder))
    ranks = ranks[(ranks.method == "bigrec") & (ranks.n_train == 128) & (ranks.dataset == "films")]
    row = found.query("dataset == 'films' and method == 'bigrec' and samples == 'few'")
    row = row.set_index("kind")
    assert row.ndcg["tied"] == pytest.approx(ranks[ranks.example % 4 == 0].ndcg.mean())
    assert (
        row.n["tied"] == 100
        and row.n["untied"] == 300
        and row.n["warm"] + row.n.get("cold", 0) == 400
    )


def test_a_lead_is_told_for_each_kind_of_example(whole):
    found = table(whole, "overall_performance", "ahead_on_kinds")
    subsets = table(whole, "overall_performance", "subsets").query("samples == 'few'")
    means = subsets.set_index(["dataset", "kind", "method"]).ndcg
    assert {"warm", "tied", "untied"} <= set(found.kind) and set(found.method) == {"bigrec"}
    for row in found.itertuples():
        ours, theirs = (means[row.dataset, row.kind, name] for name in ("bigrec", row.against))
        assert row.difference == pytest.approx(ours - theirs)


def test_leaving_the_history_out_is_compared_in_pairs(whole):
    found = table(whole, "overall_performance", "unseen")
    assert set(found.method) == {"bigrec", "sasrec-ce"}
    assert found.difference.tolist() == pytest.approx(
        (found.unseen - found.plain).tolist(),
        abs=2e-9,  # tables have nine digits
    )


def test_llms_are_compared_on_the_seeds_and_examples_that_all_have():
    row = {"dataset": "d", "tuned": True}
    small = [row | {"lm": "a", "seed": seed, "example": n} for seed in (0, 1) for n in (1, 2, 3)]
    large = [row | {"lm": "b", "seed": 0, "example": n} for n in (2, 3, 4)]
    alone = [row | {"dataset": dataset, "lm": "a", "seed": 0, "example": 1} for dataset in "ef"]
    other = [row | {"dataset": "f", "lm": "b", "seed": 1, "example": 1}]
    found = sizes.shared(pd.DataFrame([*small, *large, *alone, *other]))
    cells = found.groupby("dataset")[["lm", "seed", "example"]].apply(
        lambda rows: rows.values.tolist()
    )
    assert sorted(cells["d"]) == [["a", 0, 2], ["a", 0, 3], ["b", 0, 2], ["b", 0, 3]]
    assert len(cells["e"]) == 1 and len(cells["f"]) == 2  # nothing in common: as they are


def test_other_settings_of_a_joint_model_are_said(tmp_path):
    plain = dict.fromkeys(analyses.TUNED_WITH, 2) | {"target_modules": ["q", "v"]}
    tunings = {
        "a": plain | {"dataset": "a", "also": [], "learn_prompt": True, "target_modules": ["all"]},
        "b": plain | {"dataset": "b", "also": []},
        "joint": plain | {"dataset": "a", "also": ["b"]},
        "tried": plain | {"dataset": "b", "also": [], "rank": 4},
    }
    jobs = {
        name: {"notebook": "02_tune_llm", "parameters": tuning,
               "keys": KEYS | {"dataset": "a+b" if name == "joint" else tuning["dataset"],
                               "setting": "tried" * (name == "tried")}}
        for name, tuning in tunings.items()
    }  # fmt: skip
    told = tmp_path / "manifests.json"
    told.write_text(json.dumps({"jobs": jobs, "files": {}}))
    assert analyses.joint_settings(tmp_path) == [
        "The joint model was tuned with other settings than that of a (target modules q v, not "
        "all; learn prompt 2, not True), so the samples are not all that they differ in."
    ]
    keys = KEYS | {"dataset": "a", "setting": row_keys.AS_JOINT}
    jobs["alike"] = {
        "notebook": "02_tune_llm",
        "keys": keys,
        "parameters": tunings["joint"] | {"also": []},
    }
    told.write_text(json.dumps({"jobs": jobs, "files": {}}))
    assert analyses.joint_settings(tmp_path) == []
