"""The analyses on a whole toy study and on a bare one: verdicts and gaps."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy_results

from bigrec_lib.findings import analyses, claims, plots
from bigrec_lib.study import runs

ROOT = Path(__file__).parent.parent
ANALYSES = [name for name, cls in runs.NOTEBOOKS.items() if issubclass(cls, runs.Analysis)]


def run_all(folder):
    import papermill

    (folder / "pyproject.toml").write_text("")
    for part in ("notebooks", "bigrec_lib"):
        shutil.copytree(ROOT / part, folder / part)
    for name in ANALYSES:
        papermill.execute_notebook(
            str(folder / "notebooks" / f"{name}.ipynb"),
            str(folder / f"{name}.ipynb"),
            parameters={"study": "toy", "root": str(folder)},
            kernel_name="python3",
            progress_bar=False,
        )
    return folder / "results" / "toy"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    toy_results.write(folder / "results" / "toy")
    return run_all(folder)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A study with BIGRec of one size and one seed on one data set, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    made = toy_results.write(tmp_path_factory.mktemp("made"))
    kept = Path("films/n128-s0/grounding")
    shutil.copytree(made / kept, folder / "results" / "toy" / kept)
    shutil.rmtree(folder / "results" / "toy" / kept / "lists")
    return run_all(folder)


def test_every_claim_is_decided_as_planted(whole):
    found = pd.read_csv(whole / "claims.csv")
    assert found.claim.unique().tolist() == ["C1", "C2", "C3", "C4", "C5"]
    assert found.dataset.value_counts().to_dict() == {"films": 11, "games": 11}
    assert (found.verdict == "supported").all()
    assert set(found["where"].str.split("#").str[0]) == set(ANALYSES[:-1])


def test_every_claim_lacks_its_data_in_a_bare_study(bare):
    found = pd.read_csv(bare / "claims.csv")
    assert found.claim.unique().tolist() == ["C1", "C2", "C3", "C4", "C5"]
    assert (found.verdict == "not decided at this scale").all()
    assert found.reason.str.startswith("missing: ").all()


def test_gaps_have_names_in_the_tables(bare):
    main = pd.read_csv(bare / "overall_performance" / "main.csv").set_index("method")
    assert main.gap["DROS"] == "missing: all" and pd.isna(main.gap["BIGRec"])
    compared = pd.read_csv(bare / "tables" / "comparisons.csv")
    assert compared.gap.str.startswith("missing: ").all()
    matrix = pd.read_csv(bare / "cross_domain" / "matrix.csv")
    assert matrix.gap.tolist()[0].startswith("missing: untuned")


def test_ndcg_by_the_group_of_the_target(whole):
    found = pd.read_csv(whole / "statistical_information" / "by_target_group.csv")
    assert found.columns.tolist() == ["dataset", "n_train", "method", *"12345"]
    ranks = claims.scored(runs.read_ranks(whole))
    for dataset in found.dataset.unique():
        items = pd.read_parquet(whole / dataset / "data" / "items.parquet")
        probe = pd.read_parquet(whole / dataset / "data" / "probe.parquet")
        group = claims.title_groups(items)[probe.target].to_numpy() + 1
        own = claims.own(ranks).query(
            "dataset == @dataset and method == 'bigrec' and n_train == 128"
        )
        ndcg = own.groupby("example").ndcg.mean()[probe.example].to_numpy()
        row = found.query("dataset == @dataset and method == 'bigrec' and n_train == 128").iloc[0]
        for g in np.unique(group):
            assert row[str(g)] == pytest.approx(ndcg[group == g].mean(), abs=1e-12)


def test_where_no_lines_cross_the_table_says_who_is_ahead():
    def study(bigrec, others):
        return pd.DataFrame(
            [
                {"dataset": "d", "run": "r", "setting": "", "tuned_on": "", "constrained": False,
                 "n_train": size, "seed": 0, "method": method, "example": example, "ndcg": value}
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
    assert np.isnan(steeper.crossing) and "rises no slower" in steeper.gap


def test_no_seed_is_missing_where_all_ran(whole):
    main = pd.read_csv(whole / "overall_performance" / "main.csv")
    ours = ["bigrec", "bigrec-constrained", "bigrec-untuned", "bigrec+both"]
    ours = [plots.label(method) for method in [*toy_results.TRAINED, *ours]]
    there = main[main.method.isin(ours)]
    assert len(there) == 2 * (len(toy_results.TRAINED) + len(ours))
    assert there.gap.isna().all() and there["NDCG@20"].str.contains("±").all()


def test_figures_come_as_png_and_svg(whole):
    for folder in ("training_size", "statistical_information", "cross_domain"):
        names = {path.stem for path in (whole / folder).glob("*.png")}
        assert names and names == {path.stem for path in (whole / folder).glob("*.svg")}


def test_the_setting_that_validation_prefers_is_chosen(whole, bare):
    found = pd.read_csv(whole / "tuning_settings" / "settings.csv")
    assert found.groupby("dataset").setting.apply(set).to_dict() == {
        "films": {"study", "steep"}, "games": {"study", "steep"}
    }  # fmt: skip
    assert found.set_index("setting").learning_rate.loc["steep"].tolist() == [0.01] * 2
    for row in found.itertuples():
        run = "n128-s0" + ("" if row.setting == "study" else "-as-steep")
        ranks = pd.read_parquet(whole / row.dataset / run / "grounding/ranks/valid/bigrec.parquet")
        ndcg = np.where(ranks["rank"] < 20, 1 / np.log2(ranks["rank"] + 2), 0).mean()
        assert row.ndcg == pytest.approx(ndcg, abs=1e-12) and row.distinct == 30
    best = found.groupby("dataset").ndcg.transform("max")
    assert (found.chosen == (found.ndcg == best)).all() and found.chosen.sum() >= 2
    assert pd.read_csv(bare / "tuning_settings" / "settings.csv").empty
    every = pd.read_csv(whole / "overall_performance" / "every_run.csv").method
    assert "BIGRec (setting steep)" in set(every)
