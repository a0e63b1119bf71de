"""What is said of cheaper ways: quality, seconds and costs of cases worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from bigrec_lib.findings import claims, grounders, methods, rules, significance, sizes
from bigrec_lib.method import cheaper, finders
from bigrec_lib.study import row_keys
from bigrec_lib.study.row_keys import KEYS

TARGETS = np.array([0, 1, 2, 3])
USERS = np.arange(4)
EXACT = np.array([[0, 9], [8, 1], [2, 9], [8, 9]])  # NDCG 1, 1 / log2(3), 1, 0
SECOND = 1 / np.log2(3)


def test_ways_are_those_of_the_tuned_llm():
    run = KEYS | {"dataset": "d", "run": "n16-s0", "n_train": 16, "example": 0}
    rows = [
        run | {"method": "bigrec"},
        run | {"method": "bigrec-grams"},
        run | {"method": "popularity"},
        run | {"method": "bigrec", "constrained": True},
        run | {"method": "bigrec", "n_train": 0, "run": "n0-s0"},
        run | {"method": "bigrec", "setting": row_keys.SHUFFLED},
    ]
    found = grounders.variants(pd.DataFrame(rows))
    assert sorted(found.method) == ["bigrec", "bigrec-constrained", "bigrec-grams"]
    assert set(found.method.cat.categories) == set(found.method)


def test_quality_by_hand():
    other = np.array([[9, 0], [8, 1], [2, 9], [8, 9]])
    recalls = {"bigrec": np.ones(4), "other": np.array([1, 1, 1, 0.5])}
    lists = {"bigrec": EXACT, "copy": EXACT.copy(), "other": other}
    found = grounders.quality(lists, recalls, TARGETS, USERS, 1000).set_index("method")
    assert found.verdict["bigrec"] == found.verdict["copy"] == "identical lists"
    assert found.ndcg["bigrec"] == pytest.approx((2 + SECOND) / 4)
    assert found.difference["other"] == pytest.approx((SECOND - 1) / 4)
    assert found.recall["other"] == 0.875 and np.isnan(found.recall["copy"])
    assert found.verdict["other"] == "not decided"
    assert found.low["other"] < found.difference["other"] < found.high["other"]


def test_lists_that_differ_where_no_target_is_decide_nothing():
    other = EXACT[:, ::-1].copy()
    other[:3] = EXACT[:3]
    found = grounders.quality({"bigrec": EXACT, "other": other}, {}, TARGETS, USERS, 1000)
    assert found.difference.tolist() == [0, 0]
    assert found.loc[1, ["low", "high", "p", "corrected"]].isna().all()
    assert found.verdict.tolist() == ["identical lists", "nothing differs"]


def test_without_a_hit_of_the_exact_way_nothing_is_said():
    found = grounders.quality(
        {"bigrec": EXACT, "other": EXACT[:, ::-1]}, {}, np.full(4, 5), USERS, 1000
    )
    assert found.verdict[1] == "neither has a hit"
    found = grounders.quality(
        {"bigrec": EXACT, "other": np.full((4, 2), 9)}, {}, TARGETS, USERS, 1000
    )
    assert found.verdict[1] == "only one of the two has a hit"
    assert found.difference[1] < 0 and found.loc[1, ["low", "high", "p"]].isna().all()


@pytest.mark.parametrize(("share", "same"), [(0.95, True), (1.05, True), (0.72, False), (0.5, 0)])
def test_equivalence_needs_the_whole_interval_within_the_margin(share, same):
    """The 90 % interval of the ratio lies within the margin just where both tests reject."""
    rng = np.random.default_rng(0)
    exact = rng.random(400) + 0.5
    ours = exact * (share + 0.4 * rng.standard_normal(400))
    p = grounders.p_same(ours, exact, np.arange(400))
    assert (p < 0.05) == same
    ratio = (ours.mean() - exact.mean()) / exact.mean()
    cells = (ours - exact - ratio * exact) / exact.mean()
    error = cells.std(ddof=1) / 20
    assert (abs(ratio) + 1.65 * error < rules.SAME) == same


def served(way, embedded, seconds):
    n = len(seconds)
    lists = np.zeros((n, 1), dtype=np.int64)
    return cheaper.Served(way, lists, np.array(embedded), np.array(seconds), 2.0, 3_000_000)


def world():
    vectors = np.eye(3, dtype=np.float32)
    rows = cheaper.Rows(vectors, 2)
    titles = ["a b", "b c", "c d"]
    return {
        "bigrec": served(cheaper.Scan(vectors, 2), [True] * 4, [0.1, 0.1, 0.1, 9.0]),
        "row": served(
            cheaper.Cascade([finders.Equal(titles)], rows),
            [True, False, False, False],
            [0.1, 0.01, 0.02, 0.03],
        ),
        "text": served(cheaper.Scored(finders.Words(titles), 2), [False] * 4, [0.05] * 4),
    }


def test_seconds_of_a_request_by_hand():
    embedding = dict.fromkeys(world(), np.array([1.0, 3.0, 2.0])) | {"text": np.zeros(3)}
    found = grounders.requests(world(), embedding).set_index("method")
    assert found.embedded.tolist() == [1, 0.25, 0]
    assert found.embedding.tolist() == [2, 0.5, 0]
    assert found.search.tolist() == pytest.approx([0.1, (0.1 + 3 * 0.02) / 4, 0.05])
    assert found.grounding.tolist() == pytest.approx([2.1, 0.54, 0.05])
    assert found.per_second.tolist() == pytest.approx([1 / 2.1, 1 / 0.54, 20])
    assert found.p50["bigrec"] == pytest.approx(2.1) and found.p50["row"] == pytest.approx(0.02)
    assert found.search_p95["bigrec"] == pytest.approx(0.1 + 0.85 * 8.9)


def test_costs_by_hand():
    adding = {"bigrec": 0.5, "row": 0.7, "text": 0.9}
    embedding = {"bigrec": np.array([1.0, 3.0, 2.0]), "row": np.full(2, 0.5), "text": np.ones(1)}
    found = grounders.costs(world(), adding, embedding, 10.0, 3)
    found = found.set_index("method")
    assert found.vectors.tolist() == [6, 1.5, 0]
    assert found.build.tolist() == [2, 12, 2] and found.mb.tolist() == [3, 3, 3]
    assert found["add"].tolist() == [2.5, 1.2, 0.9]
    seconds = pd.DataFrame({"method": ["row"], "embedded": [1.0], "per_second": [2.0], "p50": [3]})
    grown = pd.DataFrame(
        {"items": [9000, 9000], "method": ["row", "text"], "build": [1, np.nan], "p95": [2, np.nan],
         "p50": [0.5, np.nan], "recall": [0.75, np.nan], "size": [8, np.nan], "gap": ["", "long"]}
    )  # fmt: skip
    assert grounders.timed(seconds, found.reset_index(), grown) == {
        "row, p50": 3, "bigrec, vectors": 6, "bigrec, build": 2, "bigrec, add": 2.5,
        "row, vectors": 1.5, "row, build": 12, "row, add": 1.2,
        "text, vectors": 0, "text, build": 2, "text, add": 0.9,
        "row, build of 9,000 titles": 1, "row, search_p50 of 9,000 titles": 0.5,
        "row, search_p95 of 9,000 titles": 2,
    }  # fmt: skip
    counted = grounders.measured(world(), {"row": np.array([1, 0.5])}, grown)
    assert counted.set_index(["what", "method"]).value.to_dict() == {
        ("recall", "row"): 0.75, ("recall of 9,000 titles", "row"): 0.75,
        ("bytes of 9,000 titles", "row"): 8,
        **{("bytes", name): 3_000_000 for name in world()},
        ("embedded", "bigrec"): 1, ("embedded", "row"): 0.25, ("embedded", "text"): 0,
    }  # fmt: skip


def test_writing_is_shared_by_all_examples():
    first = {"valid": {"generations": 10}, "test": {"generations": 30}}
    manifest = {"seconds": 20.0, "facts": {"first_beams": first}}
    assert sizes.seconds_an_example(manifest) == 0.5


def test_seconds_of_several_kinds_of_machines_are_not_compared(monkeypatch):
    first = {split: {"generations": 5, "real": 0.5} for split in ("valid", "test")}

    def job(dataset, lm, host):
        keys = {"dataset": dataset, "run": "n16-s0", "n_train": 16, "seed": 0, "lm": lm}
        given = {"model": lm or "own", "n_train": 16, "epochs": 2, "also": []}
        return {"keys": keys, "host": host, "parameters": given, "facts": {"first_beams": first},
                "seconds": 20.0, "seconds_of": {"tuning": 64.0}, "peak_gb": 1.0}  # fmt: skip

    made = [
        job("a", "", "GPU"),
        job("a", "big", "CPU"),
        job("b", "", "CPU"),
        job("b", "big", "CPU"),
    ]
    monkeypatch.setattr(sizes.manifests, "published_jobs", lambda folder, notebook: made)
    facts = sizes.language_facts("results", {"a": 16, "b": 16}).set_index(["dataset", "lm"])
    seconds = facts[["seconds_a_sample", "seconds_an_example"]]
    assert seconds.loc["a"].isna().all(axis=None) and len(facts) == 4
    assert (seconds.loc["b"] == 2.0).all(axis=None)
    assert facts.tuning_gb.loc["a"].isna().all() and (facts.tuning_gb.loc["b"] == 1.0).all()


def test_the_margin_is_that_of_the_claims():
    assert f"±{rules.SAME:.0%}" in grounders.SAME and significance.LEVEL == 0.05


# ------------------------------------------------------------------------------ over all runs

N, SEEDS = 400, (0, 1, 2)
QUICK = ("bigrec-grams", "bigrec-words", "bigrec-pq")


def study(as_good, knows=True, slow=()):
    """Scored ranks, personal gains, seconds and measures of some ways.

    as_good: way -> share of the exact way's hits it keeps. knows: whether lists are personal.
    """
    ranks, gains, seconds = [], [], []
    users = np.arange(N) // 2
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        exact = (rng.random(N) < 0.3).astype(float)
        keys = KEYS | {"dataset": "d", "run": f"n16-s{seed}", "n_train": 16, "seed": seed}
        for method, share in {"bigrec": 1.0, "bigrec-cached": 1.0, **as_good}.items():
            kept = exact * (rng.random(N) < share)
            rows = {"method": method, "example": np.arange(N), "user": users}
            frame = pd.DataFrame(keys | rows)
            rank = np.where(kept > 0, 0, 50 + (method != "bigrec"))  # beyond 20 all is one
            ranks.append(frame.assign(ndcg=kept, hr=kept, rank=rank, ties=0))
            nobody = kept if knows else rng.normal(size=N) * 0.1
            gains.append(frame.assign(gain=nobody, own=kept, others=kept - nobody))
            quick = 0.4 if method in as_good and method not in slow else 1.0
            cost = {"embedding": quick * (1 + seed) - 0.1, "search": 0.1, "search_p50": 9.0}
            cost["search_p50 of 10,000 titles"] = 0.25
            of_run = {"dataset": "d", "n_train": 16, "seed": seed, "method": method}
            seconds += [of_run | {"what": what, "seconds": s} for what, s in cost.items()]
    measures = pd.DataFrame(
        {"dataset": "d", "method": ["bigrec-cached", "bigrec"], "value": [0.25, 0.75],
         "what": ["embedded", "recall of 10,000 titles"]}
    )  # fmt: skip
    scores = grounders.variants(pd.concat(ranks))
    return scores, grounders.variants(pd.concat(gains)), pd.DataFrame(seconds), measures


def judged(*args, **kwargs):
    ranks, gains, seconds, measures = study(*args, **kwargs)
    nothing = pd.DataFrame(columns=["dataset", "lm", "method"])
    table = grounders.written(grounders.over_runs(ranks, seconds, measures), nothing)
    decided = claims.judged(grounders.q3(ranks, gains, table), "15#claims", "")
    return table, decided, decided.set_index("statement").verdict.to_dict()


def test_a_way_that_keeps_its_hits_is_no_worse_and_one_that_loses_half_is():
    table, decided, verdicts = judged(dict(zip(QUICK, (0.97, 0.4, 0.72), strict=True)))
    said = [f"{methods.label(name)} / the exact way − 1" for name in QUICK]
    assert [verdicts[name] for name in said] == ["supported", "contradicted", "not decided"]
    assert table.set_index("method").identical_ranks.to_dict() == {
        "bigrec": True, "bigrec-cached": True, **dict.fromkeys(QUICK, False)
    }  # fmt: skip
    said = " ".join(
        grounders.sentences(table, decided, pd.DataFrame(columns=["dataset", "method"]))
    )
    assert table.ratio.tolist() == pytest.approx([1, 1, 0.4, 0.4, 0.4])
    assert table.grounding.tolist() == pytest.approx([2, 2, 0.8, 0.8, 0.8])
    assert "75.0% of the texts need no embedding" in said
    assert "to ground a text takes 2.000 s; missing: writing it" in said
    assert (
        "of 3 ways in half the time or less, writing aside, 1 are shown to be no worse within 30%"
        in said
    )


def test_a_ratio_is_that_of_each_seed():
    """The exact way takes 1, 2 and 3 s, the other 0.9, 1.8 and 0.9: 0.45 times by the medians."""
    ranks, _, seconds, measures = study({"bigrec-grams": 0.97})
    way = (seconds.method == "bigrec-grams") & (seconds.what == "embedding")
    seconds.loc[way, "seconds"] = seconds.seed[way].map({0: 0.8, 1: 1.7, 2: 0.8})
    found = grounders.over_runs(ranks, seconds, measures).set_index("method")
    assert found.ratio["bigrec-grams"] == pytest.approx(0.9)
    assert grounders.half(found.reset_index()) == {}


def test_a_request_takes_what_17a_timed():
    table, decided, _ = judged({"bigrec-grams": 0.97})
    table = pd.concat(
        [table, table[table.method == "bigrec-grams"].assign(method=grounders.CONSTRAINED)]
    )
    rows = [("d", "", "bigrec", 9.0), ("d", "", grounders.CONSTRAINED, 11.0)]
    rows += [("d", "large", "bigrec", 99.0), ("e", "", "bigrec", 99.0)]
    timed = pd.DataFrame(rows, columns=["dataset", "lm", "method", "writing"])
    found = grounders.written(table, timed).set_index("method")
    assert found.writing.to_dict() == {
        "bigrec": 9, "bigrec-cached": 9, "bigrec-grams": 9, grounders.CONSTRAINED: 11
    }  # fmt: skip
    assert found.request.tolist() == pytest.approx([11, 11, 9.8, 11.8])
    largest = pd.DataFrame({"dataset": ["d"], "method": "bigrec", "items": 9000, "seconds": 0.11})
    said = "\n".join(grounders.sentences(found.reset_index(), decided, largest))
    assert "among 9,000 titles the exact search takes 110.0 ms, 1.0% of a request." in said
    assert "a request takes 11.000 s" in said and "saves 18.2% at most" in said
    assert "takes 11.000 s to write, free decoding 9.000 s; grounded, 11.800 and 11.000 s" in said
    silent = grounders.written(table.assign(method=grounders.SILENT), timed)
    assert (silent.writing == 0).all() and silent.request.tolist() == silent.grounding.tolist()


def test_what_saves_less_than_half_is_not_judged():
    _, _, verdicts = judged({"bigrec-grams": 0.97, "bigrec-pq": 0.9}, slow=("bigrec-pq",))
    assert list(verdicts) == [f"{methods.label('bigrec-grams')} / the exact way − 1"]


def test_lists_that_know_nobody_support_nothing():
    for name in QUICK:
        _, decided, _ = judged({name: 0.99}, knows=False)
        assert decided.verdict.tolist() == ["not decided"]
        assert "it rests on a guard" in decided.reason[0]


def test_ways_that_no_way_is_fast_enough_for_are_not_counted():
    table, decided, _ = judged({"bigrec-pq": 0.9}, slow=("bigrec-pq",))
    said = " ".join(
        grounders.sentences(table, decided, pd.DataFrame(columns=["dataset", "method"]))
    )
    assert decided.verdict.tolist() == ["missing"] and "of 0 ways in half the time" in said


def test_better_and_worse_go_by_corrected_p_values():
    rng = np.random.default_rng(0)
    n, ways, called = 400, 12, 0
    for _ in range(30):
        first = rng.integers(0, 60, (ways + 1, n))  # where each way has the target, by chance
        lists = {
            name: np.where(np.arange(20) == place[:, None], 0, 1 + np.arange(20))
            for name, place in zip(["bigrec", *map(str, range(ways))], first, strict=True)
        }
        quality = grounders.quality(lists, {}, np.zeros(n, int), np.arange(n), 100)
        called += quality.verdict.isin(["better", "worse"]).any()
    assert called <= 5


def test_a_study_without_cheaper_ways_is_missing():
    _, decided, _ = judged({})
    assert decided.verdict.tolist() == ["missing"] and "`cheaper`" in decided.reason[0]


def test_searches_among_invented_titles_are_read_from_names():
    _, _, seconds, measures = study({})
    found = grounders.searches(seconds, measures).groupby("method").first()
    assert found["items"].tolist() == [10_000, 10_000]
    assert found.seconds.tolist() == [0.25, 0.25]
    assert found.recall["bigrec"] == 0.75 and np.isnan(found.recall["bigrec-cached"])
