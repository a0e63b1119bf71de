"""Who gains on which examples: slopes against least squares, claims against planted worlds."""

import numpy as np
import pandas as pd
import pytest

from bigrec_lib.findings import claims, domains
from bigrec_lib.study.row_keys import KEYS

N, SEEDS = 600, (0, 1, 2)


def table(values, users=None):
    """Values (S, n) as `significance.crossed` has them."""
    users = np.arange(values.shape[1]) if users is None else users
    columns = pd.MultiIndex.from_arrays(
        [users, np.arange(values.shape[1])], names=["user", "example"]
    )
    return pd.DataFrame(values, columns=columns)


def test_traits_by_hand():
    items = pd.DataFrame(
        {"item": [0, 1, 2], "title_group": [0, 1, 0], "train_count": [9, 0, 90],
         "title": ["Red River (1948)", "Red Moon", "Red River (1948)"]}
    )  # fmt: skip
    rows = {"example": [7, 8], "history": [[0], [1]], "target": [1, 0]}
    general = pd.Series([-2.0], index=[8])
    found = domains.traits(items, pd.DataFrame(rows), general).set_index("example")
    assert found.loc[7].tolist()[:4] == [0.5, 1, 0, 2] and np.isnan(found.generality[7])
    assert found.loc[8].tolist() == [1 / 3, 0, 2, 3, -2]


def test_coefficients_are_least_squares_with_clustered_errors():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    y = 0.3 + x @ [1.0, -0.5] + rng.normal(size=N)
    users = np.arange(N) // 3
    known = pd.DataFrame(x, columns=["a", "b"])
    known["constant"], known["twice"] = 4.0, 2 * known.a
    found = domains.coefficients(table(y[None], users), known)
    assert list(found) == ["a", "b"]
    full = np.column_stack([np.ones(N), x])
    wanted, *_ = np.linalg.lstsq(full, y, rcond=None)
    assert [mean.value for mean in found.values()] == pytest.approx(wanted[1:])
    inverse, left = np.linalg.inv(full.T @ full), y - full @ wanted
    groups = [full[users == u].T @ left[users == u] for u in np.unique(users)]
    sandwich = inverse @ sum(np.outer(g, g) for g in groups) @ inverse * 200 / 199
    assert [m.error for m in found.values()] == pytest.approx(np.sqrt(np.diag(sandwich))[1:])


@pytest.mark.parametrize(
    "few, left_out", [(2, True), (domains.FEW - 1, True), (domains.FEW, False)]
)
def test_a_trait_of_a_handful_of_examples_has_no_slope(few, left_out):
    new = np.arange(N) < few
    values = np.random.default_rng(2).random((5, N))
    for trait in (new, ~new):
        found = domains.slope(table(values), pd.DataFrame({"new": trait.astype(float)}), "new")
        assert (found is None) == left_out


def test_a_level_of_all_examples_changes_no_slope():
    rng = np.random.default_rng(1)
    known = pd.DataFrame({"continuity": rng.random(N)})
    values = rng.normal(size=(3, N))
    plain, lifted = (
        domains.slope(table(each), known, "continuity") for each in (values, values + 100)
    )
    assert lifted.value == pytest.approx(plain.value)
    assert lifted.error == pytest.approx(plain.error)


def test_bins_keep_equal_values_together():
    assert domains.bins(np.array([0, 0.2, 0.5, 0.7, 1]), "continuity").tolist() == [0, 1, 1, 2, 2]
    assert domains.bins(np.array([0.0, 1.0, 1.0]), "new").tolist() == [0, 1, 1]
    many = domains.bins(np.array([1.0] * 8 + [2.0]), "popularity")
    assert len(set(many[:8])) == 1


def world(kind):
    """Scored ranks of test and validation, personal gains, and traits, of one data set.

    planted: BIGRec hits where titles carry on and items are new, item kNN everywhere as often;
    random: BIGRec hits by chance, item kNN where titles do not carry on; shuffled: BIGRec hits
    where titles carry on, whoever the user is.
    """
    known = pd.DataFrame({"continuity": np.arange(N) % 2, "new": np.arange(N) // 2 % 2})
    chance = {
        "planted": 0.1 + 0.4 * known.continuity + 0.3 * known.new,
        "shuffled": 0.1 + 0.4 * known.continuity + 0.3 * known.new,
        "random": 0.05 + 0 * known.new,
    }[kind].to_numpy()
    rival = 0.3 if kind != "random" else 0.5 - 0.2 * known.continuity - 0.2 * known.new
    frames, gains = [], []
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        for method, p in {"bigrec": chance, "item-knn": rival}.items():
            hit = (rng.random(N) < p).astype(float)
            keys = KEYS | {"dataset": "d", "run": f"n16-s{seed}", "n_train": 16, "seed": seed}
            rows = {"method": method, "example": np.arange(N), "user": np.arange(N) // 2}
            frame = pd.DataFrame(keys | rows)
            frames.append(frame.assign(ndcg=hit, hr=hit))
            own = hit if kind == "planted" else rng.normal(size=N) * 0.1
            gains.append(frame.assign(gain=own))
    ranks = pd.concat(frames)
    return ranks, ranks, pd.concat(gains), {"d": known}


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [("planted", "supported"), ("random", "not decided"), ("shuffled", "not decided")],
)
def test_the_hypothesis_is_supported_where_it_is_true_and_personal(kind, verdict):
    decided = claims.judged(domains.v3(*world(kind)), "18#claims", "")
    assert decided.verdict.tolist() == [verdict] * 2
    assert (decided.estimate > 0.05).all()
    if verdict == "not decided":
        assert decided.reason.str.contains("rests on a guard").all()


def test_a_study_without_conventional_models_says_what_is_missing():
    ranks, valid, gains, known = world("planted")
    only = ranks[ranks.method == "bigrec"]
    decided = claims.judged(domains.v3(only, only, gains, known), "18#claims", "")
    assert decided.verdict.tolist() == ["missing"] * 2
    known = {"d": known["d"].assign(new=0)}
    decided = claims.judged(domains.v3(ranks, valid, gains, known), "18#claims", "")
    assert decided.verdict.tolist() == ["supported", "missing"]


NO_ORDER = domains.by_order(*world("planted")[:2], {}, {}, {})


def said_of(ranks, valid, gains, known, orders=NO_ORDER):
    points = domains.points(ranks, valid, known)
    model = domains.model(ranks, valid, gains, known)
    binned = domains.binned(ranks, valid, known)
    return "\n".join(domains.sentences(points, model, binned, orders))


def test_bins_points_and_words_follow_the_numbers():
    ranks, valid, gains, known = world("planted")
    found = domains.binned(ranks, valid, known).set_index(["trait", "bin"])
    pairs = ranks.pivot_table(index=["seed", "example"], columns="method", values="ndcg")
    there = pairs.index.get_level_values("example") % 2 == 1
    apart = (pairs["bigrec"] - pairs["item-knn"])[there].mean()
    assert found.difference["continuity", 2] == pytest.approx(apart)
    assert found.n["continuity", 2] == N / 2
    said = said_of(ranks, valid, gains, known)
    assert said.count("BIGRec **gains** on d") == 2 and "50% of a target's words" in said
    said = said_of(*world("random"))
    assert "is **behind** Item kNN, by 0." in said and "by -" not in said


@pytest.mark.parametrize("kind", ["random", "shuffled"])
def test_a_gain_that_is_not_personal_is_none(kind):
    ranks, valid, gains, known = world(kind)
    model = domains.model(ranks, valid, gains, known)
    assert (model.low > 0).all() and (model.p > 0.05).all()
    said = said_of(ranks, valid, gains, known)
    assert "gains" not in said and said.count("is not shown to gain or lose on d") == 2


def test_slopes_are_given_for_targets_that_are_known_to_come_later():
    """Item 0 is warm; ties are where titles carry on and are not new, and two of three others."""
    ranks, valid, _, known = world("planted")
    tied = (known["d"].continuity == 1).to_numpy() & (np.arange(N) % 3 > 0)
    items = {"d": pd.DataFrame({"item": [0], "title_group": [0], "train_count": [5]})}
    examples = {"d": pd.DataFrame({"example": np.arange(N), "target": 0, "tied": tied})}
    found = domains.by_order(ranks, valid, items, examples, known)
    values = found.set_index(["trait", "targets"])
    apart = domains.apart(ranks, "item-knn").to_numpy().mean(0)
    continuity = known["d"].continuity.to_numpy(float)
    for targets, mask in {"all": tied | ~tied, "untied": ~tied}.items():
        wanted = np.polyfit(continuity[mask], apart[mask], 1)[0]
        assert values.slope["continuity", targets] == pytest.approx(wanted)
        assert values.n["continuity", targets] == mask.sum()
    assert ("continuity", "tied") not in values.index  # all of them carry on
    lines = domains.known_order(found)
    assert len(lines) == 2 and f"on the {(~tied).sum()} of {N} that are known to come" in lines[0]
    examples["d"]["tied"] = False
    assert domains.by_order(ranks, valid, items, examples, known).empty


def test_where_nobody_hits_a_new_target_nothing_is_said_of_them():
    ranks, valid, gains, known = world("planted")
    new = ranks.example.isin(known["d"].index[known["d"].new == 1])
    none = ranks.assign(ndcg=ranks.ndcg.where(~new, 0.0))
    binned = domains.binned(none, valid, known)
    row = binned[(binned.trait == "new") & (binned["bin"] == 1)].iloc[0]
    assert row.gap == "neither has a hit" and np.isnan(row.low) and row.difference == 0
    said = said_of(none, valid, gains, known)
    assert "on the 300 new targets neither" in said and "by whether the target is new" not in said
    assert "whether the target is new" in said_of(ranks, valid, gains, known)
