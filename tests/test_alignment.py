"""V1 finds what is planted and nothing else; tables of 16 against cases worked out by hand."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
import toy_results

from bigrec_lib.findings import alignment, evidence, figures_alignment
from bigrec_lib.method import geometry, variants
from bigrec_lib.study.row_keys import KEYS

SEEDS = (0, 1, 2, 3)
N = toy_results.EXAMPLES
SPACES = [variants.PUBLISHED, *variants.spaces(["base"], [1.0])[1:4]]
NEARER = 0.05  # planted


def measured(world):
    """What 16a would have published of films: own targets are nearer where BIGRec knows users."""
    frames, measures = [], []
    for seed in SEEDS:
        keys = toy_results.keys("films", f"n128-s{seed}", 128, seed)
        rng = np.random.default_rng([seed, 7])
        others = 0.5 + 0.01 * rng.standard_normal(N)
        by_example = np.random.default_rng(7).standard_normal(N)
        own = others - NEARER * (world == "planted") + 0.1 * by_example
        kind = rng.choice(variants.OUTCOMES, N, p=[0.4, 0.3, 0.2, 0.1])
        columns = {(alignment.OUTCOME + k, "bigrec"): kind == k for k in variants.OUTCOMES}
        columns |= {(alignment.OWN, "bigrec"): own, (alignment.OTHERS, "bigrec"): others}
        columns[alignment.NAMES_TARGET, "bigrec"] = kind == "hit"
        columns[alignment.NAMES_SEEN, "bigrec"] = np.isin(np.arange(N), range(0, N, 2))
        frames.append(alignment.example_rows(np.arange(N), columns).assign(**keys))
        if seed == 0:
            few = {(alignment.RANK, alignment.LIKELY): np.zeros(5)}
            few |= {(alignment.RANK, alignment.BEST_TITLE): np.full(5, 30.0)}
            few |= {(alignment.FOUND, "bigrec"): np.array([1, 0, 0, 0, 0])}
            frames.append(alignment.example_rows(np.arange(5), few).assign(**keys))
        for number, space in enumerate(SPACES):
            value = {alignment.VALID: 0.1 + number / 100, alignment.TEST: 0.1 + number / 50}
            rows = [{"what": what, "method": space.name, "value": v} for what, v in value.items()]
            of_space = pd.DataFrame(
                {"what": geometry.MEASURES, "value": -float(number), "null": 0.0, "p": 0.1 * seed}
            )
            rows = pd.concat([pd.DataFrame(rows), alignment.measure_rows({space.name: of_space})])
            measures.append(rows.assign(**keys))
        best = {"what": alignment.PREFERRED, "method": SPACES[-1].name, "value": 1.0}
        measures.append(pd.DataFrame([best]).assign(**keys))
    return pd.concat(frames), pd.concat(measures)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """World -> what 16 reads: scores, gains, values, measures."""
    found = {}
    for world in ("planted", "random", "shuffled", "null"):
        folder = toy_results.write(
            tmp_path_factory.mktemp("v1") / world, SEEDS, (128,), ("films",), world
        )
        values, measures = measured(world)
        scores = evidence.read_scores(folder)
        better = scores[scores.method == "bigrec+popularity"].assign(method=alignment.CHOSEN)
        if world != "planted":
            better = scores[scores.method == "bigrec"].assign(method=alignment.CHOSEN)
        scores = pd.concat([scores[scores.method != alignment.CHOSEN], better])
        lists = evidence.read_lists(folder)
        source = "bigrec+popularity" if world == "planted" else "bigrec"
        lists = pd.concat([lists, lists[lists.method == source].assign(method=alignment.CHOSEN)])
        items, examples = (evidence.read_data(folder, name) for name in ("items", "examples"))
        gains = evidence.personal_gains(lists, items, examples)
        values = evidence.with_users(values.drop(columns="split"), folder)
        found[world] = scores, gains, values, measures
    return found


def judged(world):
    scores, gains, values, _ = world
    return alignment.judge(alignment.v1(scores, gains, values), "")


def test_planted_effects_are_found(worlds):
    found = judged(worlds["planted"])
    assert found.verdict.tolist() == ["supported"] * 2 and (found.claim == "V1").all()
    assert found.estimate[0] == pytest.approx(NEARER, abs=0.02)
    assert found.guards.str.contains("personal gain").all()


@pytest.mark.parametrize("world", ["random", "shuffled", "null"])
def test_nothing_is_supported_where_nothing_is_planted(worlds, world):
    found = judged(worlds[world])
    assert len(found) == 2 and "supported" not in set(found.verdict)


def test_near_texts_of_a_recommender_that_knows_no_user_do_not_pass(worlds):
    """The guard does the work: the distances are planted, the lists say the same to everybody."""
    scores, gains, _, _ = worlds["shuffled"]
    rows = alignment.v1(scores, gains, worlds["planted"][2])
    first = alignment.judge(rows, "").iloc[0]
    assert first.p_own < 0.01 and first.verdict != "supported"


def test_without_its_data_v1_says_what_is_missing(worlds):
    scores, gains, values, _ = worlds["planted"]
    bare = scores[scores.method != alignment.CHOSEN]
    found = alignment.judge(alignment.v1(bare, gains, values.iloc[:0]), "")
    assert found.verdict.tolist() == ["missing"] * 2
    assert "alignment" in found.reason[0] and "grounding by validation" in found.reason[1]


def test_outcomes_are_shares_that_sum_to_one(worlds):
    shares = alignment.outcomes(worlds["planted"][2])
    assert shares.outcome.tolist() == list(variants.OUTCOMES)
    assert shares.share.sum() == pytest.approx(1)
    assert ((shares.low <= shares.share) & (shares.share <= shares.high)).all()
    assert shares.share[0] == pytest.approx(0.4, abs=0.03)
    assert shares[alignment.NAMES_TARGET].tolist() == [1, 0, 0, 0]
    assert shares[alignment.NAMES_SEEN].tolist() == pytest.approx([0.5] * 4, abs=0.1)
    values = worlds["planted"][2]
    unknown = alignment.outcomes(values[~values.what.str.startswith("names")])
    assert unknown[[alignment.NAMES_TARGET, alignment.NAMES_SEEN]].isna().all(axis=None)


def test_likelihoods_on_the_ranked_examples_alone(worlds):
    scores, _, values, _ = worlds["planted"]
    found = alignment.likelihoods(values, scores).set_index("way")
    own = scores[(scores.method == "bigrec") & (scores.run == "n128-s0") & (scores.example < 5)]
    own = evidence.plain_runs(own)
    assert found.n.tolist() == [5] * 3 and len(own) == 5
    ways = alignment.WAYS
    assert found.ndcg[ways[alignment.LIKELY]] == 1 and found.ndcg[ways[alignment.BEST_TITLE]] == 0
    assert found.difference[ways[alignment.LIKELY]] == pytest.approx(1 - own.ndcg.mean())
    assert found.difference[ways["bigrec"]] == 0
    assert alignment.share_found(values) == {"films": 0.2}


def test_variants_by_validation(worlds):
    found = alignment.tried(worlds["planted"][3])
    assert found.variant.tolist() == [space.name for space in SPACES[::-1]]
    assert found.preferred.tolist() == [4, 0, 0, 0] and (found.seeds == 4).all()
    assert found.test.tolist() == pytest.approx([0.16, 0.14, 0.12, 0.1])


def test_what_each_seed_prefers_like_with_like(worlds):
    scores, _, _, measures = worlds["planted"]
    left_out = scores[scores.method == alignment.CHOSEN].assign(method=alignment.CHOSEN_UNSEEN)
    left_out = left_out.assign(ndcg=left_out.ndcg / 2)
    scores = pd.concat([scores, left_out])
    untuned = scores[scores.seed == 0].assign(run="n0-s0", n_train=0, ndcg=1.0, hr=1.0)
    both = pd.concat([scores, untuned])
    found = alignment.preferred(measures, both, both)
    assert found.seed.tolist() == list(SEEDS) and set(found.variant) == {SPACES[-1].name}
    tuned = evidence.plain_runs(scores[scores.n_train > 0])
    means = tuned.groupby(["method", "seed"]).ndcg.mean()
    for method in alignment.COMPARED:
        assert found[method].tolist() == pytest.approx(means[method].tolist())
    assert found[alignment.CHOSEN_UNSEEN].tolist() == (found[alignment.CHOSEN] / 2).tolist()
    chosen = tuned[tuned.method == alignment.CHOSEN]
    hits = chosen.groupby("seed").hr.sum()
    assert found.valid_hits.tolist() == hits.tolist() and found.valid_hits.dtype == int


def test_geometry_and_what_it_predicts(worlds):
    measures = worlds["planted"][3]
    spaces = alignment.spaces(measures)
    assert len(spaces) == len(SPACES) * len(geometry.MEASURES)
    assert spaces.p.tolist() == pytest.approx([0.3] * len(spaces)) and (spaces.null == 0).all()
    points = alignment.points(measures)
    assert points.test.tolist() == pytest.approx([0.1, 0.12, 0.14, 0.16])
    rho = alignment.predicting(points)
    assert rho.rho.tolist() == pytest.approx([-1.0] * 7) and (rho.spaces == 4).all()


def ladder_of(*seeds):
    """The ladder of three titles: exact 0, typo the title's number, random 100."""
    rungs = pd.DataFrame(
        [(title, rung, "") for title, rung in product(range(3), ("exact", "typo", "random"))],
        columns=["title", "rung", "text"],
    )
    rank = np.tile([0, 0, 100], 3) + (rungs.rung == "typo") * rungs.title
    frame = pd.DataFrame({"rank": rank, "ties": 0})
    rows = [
        alignment.ladder_rows(rungs, {"bigrec": frame}).assign(
            **(KEYS | {"dataset": "films", "seed": seed})
        )
        for seed in seeds
    ]
    found = pd.concat(rows)
    return found.assign(rung=found.what.str.removeprefix(alignment.LADDER))


def test_the_ladder_by_hand():
    found = alignment.ladder(ladder_of(0, 1))
    assert found.rung.tolist() == ["exact", "typo", "random"] and (found.titles == 3).all()
    assert found["median"].tolist() == [0, 1, 100]
    assert found["first"].tolist() == pytest.approx([1, 1 / 3, 0])
    assert found.twenty.tolist() == [1, 1, 0]


def test_sentences_and_figures(worlds):
    scores, _, values, measures = worlds["planted"]
    rungs, points = alignment.ladder(ladder_of(0)), alignment.points(measures)
    rho, shares = alignment.predicting(points), alignment.outcomes(values)
    likely = alignment.likelihoods(values, scores)
    said = alignment.sentences(rungs, shares, likely, judged(worlds["planted"]), rho)
    assert len(said.splitlines()) == 5 and "films: typo (in the median 1 titles before it)" in said
    assert "films: wrong text (" in said and "better than BIGRec" in said and "nan" not in said
    nothing = alignment.sentences(
        rungs.iloc[:0], shares.iloc[:0], likely.iloc[:0],
        judged((scores, worlds["planted"][1], values.iloc[:0], measures)), rho.iloc[:0],
    )  # fmt: skip
    assert nothing.count("missing") >= 4 and "nan" not in nothing
    (axis,) = figures_alignment.ladder(rungs).axes
    assert all(line.get_linestyle() == "None" for line in axis.lines)
    figure = figures_alignment.predicting(points, rho)
    assert len(figure.axes) == 7 and figure.get_figwidth() <= figures_alignment.PAGE
    assert all(axis.xaxis.label.get_size() >= 8 for axis in figure.axes)
    assert all(tick.get_size() >= 8 for axis in figure.axes for tick in axis.get_xticklabels())
    assert len({axis.get_ylim() for axis in figure.axes}) == 1
    assert len(figures_alignment.outcomes(shares).axes) == 1


def test_a_published_study_is_read_as_it_was_written(tmp_path):
    folder = toy_results.write(tmp_path, SEEDS, (128,), ("films",))
    values, measures = measured("planted")
    rungs = ladder_of(0).drop(columns="rung").assign(**toy_results.keys("films", "n128-s0", 128, 0))
    rows = pd.concat([values, rungs], ignore_index=True)
    rows.astype({"example": "int32", "value": "float32"}).to_parquet(folder / "values.parquet")
    measures.to_csv(folder / "measures.csv", index=False)
    found = alignment.ladder(alignment.read_ladder(folder))
    assert found["median"].tolist() == [0, 1, 100]
    read = evidence.read_values(folder)
    assert set(read.what) == set(values.what) and read.user.tolist() == (read.example // 2).tolist()
    again = alignment.tried(evidence.read_measures(folder))
    pd.testing.assert_frame_equal(again, alignment.tried(measures), check_dtype=False)
    scores = evidence.read_scores(folder)
    assert len(alignment.likelihoods(read, scores)) == 3
    assert len(alignment.spaces(evidence.read_measures(folder))) == 28
    assert alignment.read_ladder(tmp_path / "nothing").empty
