"""Simulated studies have the moments they claim, find out a bad test, and leave the page true."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bigrec_lib.findings import calibration, simulation, tables
from bigrec_lib.findings.significance import mean_of
from bigrec_lib.method import metrics

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_examples_are_drawn_over_users_evenly():
    assert simulation.users_of(5, 3).tolist() == [0, 0, 1, 1, 2]
    assert np.bincount(simulation.users_of(600, 166)).tolist() == [4] * 102 + [3] * 64


def test_latent_values_are_standard_normal_with_the_variances_that_are_declared(rng):
    users = simulation.users_of(30_000, 10_000)
    one, other = (model.z for model in simulation.pair(rng, users, 3, 0.3, "related"))
    stranger = simulation.pair(rng, users, 3, 0.3, "unrelated")[0].z
    part = simulation.VARIANCES
    assert sum(part.values()) == pytest.approx(1)
    assert one.mean() == pytest.approx(0, abs=0.02)
    assert one.var() == pytest.approx(1, abs=0.02)
    shared = part["example"] + part["user"]
    assert np.corrcoef(one)[0, 1:] == pytest.approx([shared, shared], abs=0.02)
    assert np.corrcoef(one[0], other[0])[0, 1] == pytest.approx(shared, abs=0.02)
    assert np.corrcoef(one[0], stranger[0])[0, 1] == pytest.approx(0, abs=0.02)
    first, second = one[0].reshape(-1, 3)[:, :2].T
    of_user = part["user"] + part["seed and user"]
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(of_user, abs=0.03)


@pytest.mark.parametrize("variation", [0.0, 0.3, 0.7])
def test_seed_effects_have_mean_one_and_the_variation_asked_for(rng, variation):
    effects = simulation.seed_effects(rng, 50_000, variation)
    assert effects.mean() == pytest.approx(1, abs=0.02)
    assert effects.std() == pytest.approx(variation, abs=0.02)


@pytest.mark.parametrize("variation, rate", [(0.0, 0.02), (0.7, 0.085)])
def test_the_mean_is_the_hit_rate_times_the_worth_of_a_hit(rng, variation, rate):
    users = simulation.users_of(400, 100)
    values = np.concatenate(
        [
            simulation.Model(rng, simulation.difficulty(rng, users), users, 50, variation).at(rate)
            for _ in range(100)
        ]
    )
    assert (values > 0).mean() == pytest.approx(rate, rel=0.05)
    assert values.mean() == pytest.approx(rate * simulation.WORTH.mean(), rel=0.05)
    counts = np.unique(values[values > 0].round(6), return_counts=True)[1]
    assert len(counts) == 20 and counts.std() / counts.mean() < 0.1  # places are uniform


def test_seeds_agree_as_much_as_those_of_bigrec(rng):
    """Committed results: values of two seeds correlate with 0.3 to 0.6."""
    users = simulation.users_of(5000, 1169)
    values = simulation.pair(rng, users, 10, 0.1, "related")[0].at(0.025)
    agreement = np.corrcoef(values)[np.triu_indices(10, 1)].mean()
    assert 0.3 < agreement < 0.6


@pytest.mark.parametrize("kind", ["random", "shuffled"])
def test_impersonal_lists_give_others_as_much_as_their_own(rng, kind):
    users = simulation.users_of(600, 166)
    stock = simulation.stock_of(rng)
    assert all(len(set(row)) == simulation.K for row in stock)
    own, others = np.zeros(2)
    for _ in range(60):
        targets = rng.choice(500, 600, p=simulation.POPULARITY)
        for lists in simulation.impersonal(rng, stock, targets, 3, kind):
            gains = metrics.own_and_others(lists, targets, users, simulation.WORTH)
            own, others = own + gains[0].mean(), others + gains[1].mean()
    assert own == pytest.approx(others, rel=0.05)
    shown = np.bincount(stock.ravel(), minlength=500)
    assert shown[:50].mean() > 5 * shown[-50:].mean()  # popular candidates are shown more often


def test_a_ladder_has_the_slope_asked_for(rng):
    users = simulation.users_of(5000, 1169)
    found = [
        calibration.slope(calibration.ladder(rng, users, 10, 0.0), 0.08, 0.1, users)
        for _ in range(10)
    ]
    assert np.mean([mean.value for mean in found]) == pytest.approx(0.1, abs=0.01)


def test_the_smallest_gain_lies_where_power_crosses_80_percent():
    gains = calibration.GAINS
    rising = np.array([0.1, 0.3, 0.7, 0.9, 1.0, 1.0, 1.0])
    assert calibration.smallest(rising) == pytest.approx((gains[2] + gains[3]) / 2)
    assert np.isnan(calibration.smallest(np.full(7, 0.79)))


def test_a_cell_is_the_same_each_time_and_knows_its_own_name():
    cell = (600, 166, 3, 0.3, 0.02, "related", 5)
    assert calibration.level_cell(*cell) == calibration.level_cell(*cell)
    one, other = (calibration.rng_of("level", seeds).random() for seeds in (3, 5))
    assert one != other


def test_a_test_that_forgets_seeds_is_found_out(rng):
    """One that pools seeds as if they had no effect errs far more often than one in twenty."""
    users = simulation.users_of(2000, 500)
    wrong = np.zeros(2)
    for _ in range(200):
        one, other = simulation.pair(rng, users, 5, 0.3, "unrelated")
        values = one.at(0.05) - other.at(0.05)
        pooled = mean_of(values.mean(0, keepdims=True), users)
        wrong += [pooled.p < 0.05, mean_of(values, users).p < 0.05]
    assert wrong[0] > 30
    assert wrong[1] < 22


@pytest.mark.slow
def test_the_quick_tables_lie_where_they_should():
    found = calibration.calibrate(quick=True)
    level, guard, boundary, power, effect = (found[name] for name in calibration.TABLES)
    assert 0.03 < level.error.mean() < 0.07
    assert 0.93 < level.coverage.mean() < 0.98
    assert guard.passes.mean() < 0.05
    assert boundary.supported.mean() < 0.05 and boundary.contradicted.mean() < 0.05
    margins = power[[name for name in power if name.startswith("no_worse")]].to_numpy()
    assert (np.diff(margins, axis=1) >= 0).all()  # a wider margin is never harder
    largest = power[(power.examples == 5000) & (power.seeds == 10)]
    assert effect.power.iloc[0] < 0.5 < effect.power.iloc[-1]
    assert largest.found_related.max() < power[power.examples == 600].found_related.max()


def test_the_page_shows_the_tables_that_were_written():
    found = {name: pd.read_csv(DOCS / "calibration" / f"{name}.csv") for name in calibration.TABLES}
    page = (DOCS / "protocol.md").read_text(encoding="utf-8")
    for name, frame in calibration.summaries(found).items():
        assert tables.markdown(frame, 4) in page.partition(calibration.HEADINGS[name])[2]


def test_the_tables_are_of_the_procedure_as_it_is():
    """One cell anew. Whoever changes a test of `significance` runs `make calibrate`."""
    level = pd.read_csv(DOCS / "calibration" / "level.csv")
    cell = (600, 166, 3, 0.0, 0.02, "related")
    row = level.set_index(list(level.columns[:6])).sort_index().loc[cell]
    found = calibration.level_cell(*cell, int(row.repetitions))
    for name in ("error", "coverage"):
        assert found[name] == pytest.approx(row[name], abs=1e-3)


def test_writing_replaces_the_tables_and_nothing_else(tmp_path):
    page = "# Protocol\n\nText.\n"
    for heading in calibration.HEADINGS.values():
        page += f"\n{heading}\n\nText.\n\n| a |\n|--|\n\nMore.\n"
    (tmp_path / "protocol.md").write_text(page)
    found = {name: pd.read_csv(DOCS / "calibration" / f"{name}.csv") for name in calibration.TABLES}
    calibration.write(found, tmp_path)
    text = (tmp_path / "protocol.md").read_text()
    assert text.count("Text.") == 6 and text.count("More.") == 5 and "| a |" not in text
    for name, frame in found.items():
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "calibration" / f"{name}.csv"), frame)
