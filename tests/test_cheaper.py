"""Cheaper ways to items: against brute force, and cases worked out by hand."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigrec_lib.method import bm25, cheaper, finders, grounding

K = 5
TITLES = ["Red Star (1950)", "Red Moon (1951)", "Pokémon: Blue", "The Iron King", "Iron King, The"]


def world(n_items=300, n=40, d=16, seed=0):
    """A catalogue far from the origin with near and exact duplicates; queries on and beside it."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n_items, d)).astype(np.float32)
    vectors[:, 0] += 400
    vectors[n_items // 2 : n_items // 2 + 20] = vectors[:20]
    vectors[-20:] = vectors[:20] + rng.standard_normal((20, d)).astype(np.float32) * 1e-5
    queries = vectors[rng.integers(0, n_items, n)]
    queries[::2] += rng.standard_normal((len(queries[::2]), d)).astype(np.float32)
    return queries, vectors


def brute(query, vectors, k):
    """The k nearest in fp64, of equals the smaller number first."""
    far = np.square(query.astype(np.float64) - vectors.astype(np.float64)).sum(1)
    return np.lexsort((np.arange(len(vectors)), far))[:k].tolist()


def never():
    raise AssertionError("this text had no need to be embedded")


def numbered(n):
    return [f"title {number}" for number in range(n)]


# ------------------------------------------------------------------------- the exact way


@pytest.mark.parametrize(("d", "k"), [(16, 1), (16, 20), (576, 20), (16, 300)])
def test_the_scan_finds_what_brute_force_finds(d, k):
    queries, vectors = world(d=d)
    scan = cheaper.Scan(vectors, k)
    wanted = [brute(query, vectors, k) for query in queries]
    assert [scan.nearest(query).tolist() for query in queries] == wanted
    assert grounding.nearest(queries, vectors, k)[0].tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_scan_is_exact_where_nearly_everything_ties(data):
    items, d, k = (data.draw(st.integers(1, top)) for top in (8, 3, 10))
    row = st.lists(st.integers(-2, 2), min_size=d, max_size=d)
    vectors = np.array([data.draw(row) for _ in range(items)], dtype=np.float32)
    query = np.array(data.draw(row), dtype=np.float32)
    assert cheaper.Scan(vectors, k).nearest(query).tolist() == brute(query, vectors, k)


# ------------------------------------------------------------------- the lossless way


def test_a_text_that_is_a_title_gets_the_exact_list_without_an_embedding():
    queries, vectors = world()
    titles = numbered(len(vectors))
    way = cheaper.Cascade([finders.Equal(titles)], cheaper.Rows(vectors, K))
    for number in (0, 7, 150, 299):  # 150 has the vector of 0
        assert way.ground(titles[number], never).tolist() == brute(vectors[number], vectors, K)
    for query in queries:
        assert way.ground("no title", lambda query=query: query).tolist() == brute(
            query, vectors, K
        )


@pytest.mark.parametrize("n_items", [1, 3, 5, 60])
def test_a_title_that_is_added_changes_the_rows_as_if_it_had_been_there(n_items):
    _, vectors = world()
    vectors = vectors[:n_items]
    for new in (vectors[0], vectors.mean(0)):
        rows = cheaper.Rows(vectors, K)
        rows.add("new", new)
        again = cheaper.Rows(np.vstack([vectors, new]), K)
        assert rows.lists.tolist() == again.lists.tolist()
        assert rows.far.tolist() == again.far.tolist()
        assert rows.size == again.size


def test_every_way_finds_a_title_that_was_added():
    _, vectors = world()
    titles, new = numbered(len(vectors)), vectors[0] + 50
    for name, way in ways(titles, vectors, K).items():
        before = way.size
        way.add("something else", new)
        assert way.ground("something else", lambda: new)[0] == len(vectors), name
        assert way.size > before, name


# --------------------------------------------------------------------- which title is meant


def test_spelling_is_overlooked_and_nothing_else():
    found = finders.Spelled(TITLES)
    assert found.find("POKEMON blue!") == 2
    assert found.find("The Iron King") == 3 and found.find("Iron King") is None
    assert found.find("") is None and found.find("?!") is None
    assert finders.Spelled(["!!", "a b", "AB"]).find("Ab") == 1


def cosines(text, titles, n):
    """TF-IDF cosines by the formula, in dictionaries."""

    def grams(told):
        padded = f" {told.casefold()} "
        return Counter(padded[i : i + n] for i in range(len(padded) - n + 1))

    of_titles = [grams(title) for title in titles]
    there = Counter(gram for each in of_titles for gram in each)

    def weights(counts):
        return {
            gram: count * (1 + math.log((1 + len(titles)) / (1 + there[gram])))
            for gram, count in counts.items()
        }

    query = weights(grams(text))
    found = []
    for each in map(weights, of_titles):
        product = sum(weight * each.get(gram, 0) for gram, weight in query.items())
        norms = math.hypot(*query.values()) * math.hypot(*each.values())
        found.append(product / norms)
    return np.array(found)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("text", ["Red Sta (1950)", "iron kings", "ed ed ed", "Zzz star"])
def test_n_grams_rank_titles_by_their_cosine(text, n):
    scores, wanted = finders.Grams(TITLES, n).scores(text), cosines(text, TITLES, n)
    factor = scores[wanted > 0][0] / wanted[wanted > 0][0]
    np.testing.assert_allclose(scores, factor * wanted, rtol=1e-12)
    assert finders.Grams(TITLES, n).find(text) == wanted.argmax()


def test_words_score_as_in_04_and_an_added_title_counts():
    texts = ["iron king", "the red moon", "1950", "nothing", "", "red red blue"]
    words = finders.Words(TITLES)
    assert [words.scores(text).tolist() for text in texts] == bm25.scores(texts, TITLES).tolist()
    assert words.find("pokemon moon") == 1 and words.find("nothing") is None
    words.add("Nothing")
    assert words.find("nothing") == len(TITLES)


@given(st.text("abcAB 1", max_size=8))
def test_the_fewest_edits_decide_for_the_lengths(text):
    """Similarity: 1 - edits / lengths, where edits insert and delete (the longest common part)."""
    titles = ["abc", "cab a", "B1", "aab", "1"]

    def common(a, b):
        if not a or not b:
            return 0
        if a[0] == b[0]:
            return 1 + common(a[1:], b[1:])
        return max(common(a[1:], b), common(a, b[1:]))

    told = text.casefold()
    alike = [2 * common(told, t.casefold()) / max(len(told) + len(t), 1) for t in titles]
    found = finders.Fuzzy(titles).find(text)
    assert found is None if max(alike) == 0 else alike[found] == pytest.approx(max(alike))


def test_the_first_successful_finder_decides():
    vectors = world()[1][: len(TITLES)]
    three = [finders.Equal(TITLES), finders.Spelled(TITLES), finders.Grams(TITLES, 3)]
    way = cheaper.Cascade(three, cheaper.Rows(vectors, K))
    assert [way.find(text) for text in ("Iron King, The", "iron king THE", "Irons Kings, The")] == [
        4, 4, 4
    ]  # fmt: skip
    assert way.find("") is None  # is like no title: embedded
    assert way.ground("", lambda: vectors[2]).tolist() == brute(vectors[2], vectors, K)


def test_a_catalogue_ranked_by_scores_keeps_its_order_among_equals():
    way = cheaper.Scored(finders.Words(TITLES), K)
    assert way.ground("red", never).tolist() == [0, 1, 2, 3, 4]
    assert way.ground("moon red", never).tolist() == [1, 0, 2, 3, 4]
    assert way.ground("", never).tolist() == [0, 1, 2, 3, 4]


# ------------------------------------------------------------------ fewer numbers, an index


def test_principal_coordinates_keep_distances_within_the_space_they_span():
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((50, 3)) @ rng.standard_normal((3, 12)) + 7
    flat = flat.astype(np.float32)
    found = cheaper.principal(flat, 3)(flat)
    assert found.shape == (50, 3) and found.dtype == np.float32
    wanted = np.linalg.norm(flat[:, None] - flat, axis=2)
    np.testing.assert_allclose(np.linalg.norm(found[:, None] - found, axis=2), wanted, atol=1e-4)
    assert (np.diff(found.var(0)) < 0).all()


def test_fewer_dimensions_are_scanned_exactly():
    queries, vectors = world()
    way = cheaper.Reduced(vectors, K, cheaper.first_dimensions(6))
    for query in queries[:5]:
        found = way.ground("", lambda query=query: query)
        assert found.tolist() == brute(query[:6], vectors[:, :6], K)


def test_an_index_that_looks_everywhere_finds_the_exact_list():
    """IVF that reads every cell, a graph search as broad as the catalogue, and codes for parts of
    one number each, where there are no more different numbers than codes."""
    rng = np.random.default_rng(1)
    vectors = rng.choice(200, (200, 4)).astype(np.float32) + rng.random((200, 4)).astype("f4") / 4
    few = rng.integers(0, 40, (200, 4)).astype(np.float32)
    queries = vectors[:20] + 0.1
    for build, catalogue in (
        (lambda v: cheaper.ivf(v, probes=10**6), vectors),
        (lambda v: cheaper.hnsw(v, links=32, breadth=400), vectors),
        (lambda v: cheaper.pq(v, codes=4), few),
    ):
        way = cheaper.Indexed(catalogue, K, build)
        found = np.stack([way.ground("", lambda query=query: query) for query in queries])
        assert cheaper.recall(found, queries, catalogue).min() == 1


def test_codes_are_as_many_as_divide_the_dimensions():
    vectors = world(d=18)[1]
    assert cheaper.pq(vectors, codes=8).pq.M == 6 and cheaper.pq(vectors, codes=100).pq.M == 18
    assert cheaper.pq(vectors[:9], codes=8).pq.nbits == 3


def test_what_an_index_does_not_find_is_filled_up():
    assert cheaper.filled(np.array([4, 1, -1, -1]), 4).tolist() == [4, 1, 0, 2]
    assert cheaper.filled(np.array([-1, -1]), 2).tolist() == [0, 1]
    assert cheaper.filled(np.array([0, 2]), 2).tolist() == [0, 2]


# ------------------------------------------------------------------------------- measuring


def ways(titles, vectors, k):
    """One of each, by name."""
    rows = lambda: cheaper.Rows(vectors, k)  # noqa: E731
    equal = lambda: finders.Equal(titles)  # noqa: E731
    return {
        "scan": cheaper.Scan(vectors, k),
        "equal": cheaper.Cascade([equal()], rows()),
        "spelled": cheaper.Cascade([equal(), finders.Spelled(titles)], rows()),
        "grams": cheaper.Cascade([equal(), finders.Grams(titles, 3)], rows()),
        "words": cheaper.Cascade([equal(), finders.Words(titles)], rows()),
        "fuzzy": cheaper.Cascade([equal(), finders.Fuzzy(titles)], rows()),
        "by grams": cheaper.Scored(finders.Grams(titles, 3), k),
        "by words": cheaper.Scored(finders.Words(titles), k),
        "first": cheaper.Reduced(vectors, k, cheaper.first_dimensions(4)),
        "principal": cheaper.Reduced(vectors, k, cheaper.principal(vectors, 4)),
        "hnsw": cheaper.Indexed(vectors, k, lambda v: cheaper.hnsw(v, 8, 32)),
        "ivf": cheaper.Indexed(vectors, k, lambda v: cheaper.ivf(v, 4)),
        "pq": cheaper.Indexed(vectors, k, lambda v: cheaper.pq(v, 8)),
    }


ODD = {
    "one title": (["A Title"], 1),
    "a title without words": (["?"], 1),
    "titles of one vector": (TITLES, 0),
    "few titles": (TITLES, 1),
}


@pytest.mark.parametrize("texts", [[""], ["", "A Title", "?"], ["the same"] * 4], ids=str)
@pytest.mark.parametrize("case", ODD)
def test_odd_catalogues_and_texts_get_whole_lists(case, texts):
    titles, spread = ODD[case]
    rng = np.random.default_rng(0)
    vectors = (3 + spread * rng.standard_normal((len(titles), 8))).astype(np.float32)
    queries = rng.standard_normal((len(texts), 8)).astype(np.float32)
    for name, way in ways(titles, vectors, K).items():
        served = cheaper.serve(lambda way=way: way, texts, queries)
        assert served.lists.shape == (len(texts), len(titles)), name
        assert (np.sort(served.lists, axis=1) == np.arange(len(titles))).all(), name
        assert cheaper.recall(served.lists, queries, vectors).tolist() == [1.0] * len(texts), name


def test_serving_notes_who_was_embedded():
    _, vectors = world()
    titles = numbered(len(vectors))
    texts = ["title 3", "no such", "title 3", ""]
    served = cheaper.serve(
        lambda: cheaper.Cascade([finders.Equal(titles)], cheaper.Rows(vectors, K)),
        texts,
        vectors[[3, 4, 3, 5]],
    )
    assert served.embedded.tolist() == [False, True, False, True]
    assert (served.seconds > 0).all() and served.build > 0
    assert served.lists.tolist() == [brute(vectors[i], vectors, K) for i in (3, 4, 3, 5)]


def test_no_request_is_refused():
    with pytest.raises(cheaper.CheaperError, match="test split is empty"):
        cheaper.serve(lambda: None, [], np.empty((0, 4)))


def test_a_target_that_is_not_listed_comes_after_all_that_are():
    found = cheaper.listed_ranks(np.array([[3, 1], [4, 5], [0, 2]]), np.array([1, 0, 0]), 10)
    assert found["rank"].tolist() == [1, 2, 0] and found["ties"].tolist() == [0, 7, 0]
    assert found.dtypes.tolist() == [np.int32, np.int32]
    assert cheaper.listed_ranks(np.array([[0]]), np.array([0]), 1)["ties"].tolist() == [0]


def test_recall_takes_any_of_those_that_are_equally_near():
    vectors = np.array([[0.0], [1], [1], [2], [9]], dtype=np.float32)
    query = np.zeros((1, 1), dtype=np.float32)
    for shown, wanted in (([0, 1], 1), ([0, 2], 1), ([2, 1], 1), ([0, 3], 0.5), ([3, 4], 0)):
        assert cheaper.recall(np.array([shown]), query, vectors).tolist() == [wanted]


def test_a_way_that_takes_too_long_to_build_is_left_out_of_larger_catalogues():
    _, vectors = world()
    builders = {
        "scan": lambda v: cheaper.Scan(v, K),
        "ivf": lambda v: cheaper.Indexed(v, K, lambda w: cheaper.ivf(w, 10**6)),
    }
    found = cheaper.growing(vectors, [400, 100], builders, requests=3, limit=1e-9)
    assert found["items"].tolist() == [100, 100, 400, 400]
    assert found.recall.tolist()[:2] == [1, 1]
    assert found.gap.str.startswith("would take").tolist() == [False, False, True, True]
    assert (cheaper.growing(vectors, [100, 400], builders, 3, 60.0).recall == 1).all()


def test_invented_titles_vary_as_real_ones_do():
    rng = np.random.default_rng(0)
    real = (rng.standard_normal((2000, 3)) * [1, 5, 0] + [7, 0, 2]).astype(np.float32)
    found = cheaper.invented(real, 20_000, rng)
    np.testing.assert_allclose(found.mean(0), [7, 0, 2], atol=0.2)
    np.testing.assert_allclose(found.std(0), np.sqrt(1.5) * np.array([1, 5, 0]), rtol=0.05)
