"""Geometry against cases worked out by hand and definitions written out in full."""

from itertools import permutations

import numpy as np
import pytest

from bigrec_lib.method import geometry

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5)) @ np.diag([5, 2, 1, 1, 0.5]) + 3


def test_the_ladder_of_a_title():
    texts = geometry.ladder("The Last Heat (1995)", "Fargo", np.random.default_rng(1))
    assert tuple(texts) == geometry.RUNGS
    assert texts["plain"] == "the last heat 1995" and texts["tail dropped"] == "The Last Heat"
    assert texts["truncated"] == "The Last" and texts["random"] == "Fargo"
    assert texts["edition"] == "The Last Heat: Special Edition (1995)"
    words = "The Last Heat (1995)".split()
    assert texts["word dropped"] in {" ".join(words[:i] + words[i + 1 :]) for i in range(4)}
    assert sorted(texts["typo"]) == sorted(texts["exact"]) and texts["typo"] != texts["exact"]
    assert texts == geometry.ladder("The Last Heat (1995)", "Fargo", np.random.default_rng(1))


@pytest.mark.parametrize(
    ("title", "stem"),
    [("Okami - PlayStation 2", "Okami"), ("Okami [Wii]", "Okami"), ("spider-man", "spider-man")],
)
def test_tails(title, stem):
    assert geometry.TAIL.sub("", title) == stem


def test_a_rung_that_a_title_has_not_is_left_out():
    texts = geometry.ladder("7", "8", np.random.default_rng(0))
    assert tuple(texts) == ("exact", "edition", "random")


def test_whitened_titles_have_the_identity_for_covariance():
    white = geometry.whitening(X, 0.0)(X)
    np.testing.assert_allclose(np.cov(white, rowvar=False), np.eye(5), atol=1e-4)
    np.testing.assert_allclose(white.mean(0), 0, atol=1e-5)


def test_whitening_is_the_symmetric_root():
    """ZCA: the matrix is symmetric, and its square the inverse of the shrunken covariance."""
    cov = np.cov(X, rowvar=False)
    shrunken = 0.7 * cov + 0.3 * np.trace(cov) / 5 * np.eye(5)
    matrix = geometry.whitening(X, 0.3)(np.eye(5) + X.mean(0)).astype(np.float64)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    np.testing.assert_allclose(matrix @ matrix @ shrunken, np.eye(5), atol=1e-4)


def test_whitening_where_titles_do_not_vary_stays_finite():
    flat = np.hstack([X, np.ones((40, 1))])
    assert np.isfinite(geometry.whitening(flat, 0.0)(flat)).all()


def test_removed_components_are_gone_and_the_others_stay():
    left = geometry.removal(X, 2)(X)
    _, sizes, axes = np.linalg.svd(X - X.mean(0))
    np.testing.assert_allclose(left @ axes[:2].T, 0, atol=1e-4)
    np.testing.assert_allclose(np.linalg.svd(left)[1][:3], sizes[2:], rtol=1e-4)


def test_centring_keeps_distances():
    moved = geometry.centring(X)(X)
    np.testing.assert_allclose(moved[0] - moved[1], X[0] - X[1], atol=1e-5)


def test_mean_cosine_and_first_share_by_definition():
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    pairs = [unit[i] @ unit[j] for i, j in permutations(range(40), 2)]
    assert geometry.mean_cosine(X) == pytest.approx(np.mean(pairs))
    sizes = np.linalg.svd(X - X.mean(0), compute_uv=False) ** 2
    assert geometry.first_share(X) == pytest.approx(sizes[0] / sizes.sum())


def test_neighbours_leave_out_the_row_itself_even_among_equals():
    vectors = np.array([[0.0], [0.0], [1.0], [5.0]])
    assert geometry.neighbours(vectors, 2).tolist() == [[1, 2], [0, 2], [0, 1], [2, 0]]


def test_hubness_by_hand():
    near = np.array([[1], [0], [0], [0]])  # N = 3, 1, 0, 0
    away = np.array([2, 0, -1, -1])
    skewness = (away**3).mean() / np.sqrt((away**2).mean()) ** 3
    assert geometry.hubness(near) == pytest.approx({"skewness": skewness, "orphans": 0.5})
    even = np.array([[1], [2], [0]])
    assert geometry.hubness(even) == {"skewness": 0.0, "orphans": 0.0}


def test_gap_by_hand():
    ours, theirs = np.array([[0.0, 0], [2, 0]]), np.array([[0.0, 3], [2, 3]])
    assert geometry.gap(ours, theirs) == pytest.approx(3.0)
    assert geometry.gap(ours, ours) == 0


def test_unbiased_hsic_is_the_mean_over_tuples_of_four():
    """Song et al. 2012: K_ij L_ij + K_ij L_qr - 2 K_ij L_iq over all different i, j, q, r."""
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    ours, theirs = geometry.centred_gram(a), geometry.centred_gram(b)
    tuples = [
        ours[i, j] * (theirs[i, j] + theirs[q, r] - 2 * theirs[i, q])
        for i, j, q, r in permutations(range(7), 4)
    ]
    assert geometry.hsic(ours, theirs) == pytest.approx(np.mean(tuples))


def test_cka_of_the_same_and_of_unrelated_spaces():
    rng = np.random.default_rng(1)
    own = geometry.centred_gram(X)
    turned = geometry.centred_gram(2 * X @ np.linalg.qr(rng.normal(size=(5, 5)))[0])
    assert geometry.cka(own, own) == pytest.approx(1) == geometry.cka(own, turned)
    other = [geometry.cka(own, geometry.centred_gram(rng.normal(size=(40, 5)))) for _ in range(200)]
    assert abs(np.mean(other)) < 0.01  # the biased one would be about 0.2


def test_mutual_neighbours_and_the_null():
    near = geometry.neighbours(X, 5)
    assert geometry.mutual(near, near) == 1
    nulls = geometry.mutual_nulls(near, near, 100, np.random.default_rng(0))
    assert abs(nulls.mean() - 5 / 39) < 0.02
    assert geometry.p_value(1.0, nulls) == pytest.approx(1 / 101)


def test_a_permuted_space_is_the_space_of_permuted_rows():
    """The null of mutual neighbours relabels: the same as permuting vectors and looking anew."""
    rng, again = np.random.default_rng(5), np.random.default_rng(5)
    y = X + np.random.default_rng(9).normal(size=X.shape)
    ours, theirs = geometry.neighbours(X, 4), geometry.neighbours(y, 4)
    (null,) = geometry.mutual_nulls(ours, theirs, 1, rng)
    order = again.permutation(40)
    assert null == pytest.approx(geometry.mutual(ours, geometry.neighbours(y[order], 4)))


def test_nulls_know_a_planted_gap_and_a_planted_likeness():
    rng = np.random.default_rng(2)
    texts = X + rng.normal(size=X.shape)
    nulls = geometry.gap_nulls(texts, X, 200, rng)
    assert geometry.p_value(geometry.gap(texts, X), nulls) > 0.05
    nulls = geometry.gap_nulls(texts + 2, X, 200, rng)
    assert geometry.p_value(geometry.gap(texts + 2, X), nulls) < 0.01
    grams = geometry.centred_gram(texts), geometry.centred_gram(X)
    assert geometry.p_value(geometry.cka(*grams), geometry.cka_nulls(*grams, 200, rng)) < 0.01


def test_mixed_up_dimensions_keep_their_values():
    mixed = geometry.mixed_up(X, np.random.default_rng(0))
    np.testing.assert_array_equal(np.sort(mixed, 0), np.sort(X, 0))
    assert not np.array_equal(np.cov(mixed.T), np.cov(X.T))


def test_ladders_are_those_of_titles_drawn_once():
    titles = [f"Title number {n} ({1900 + n})" for n in range(30)]
    found = geometry.ladders(titles, 10, 0)
    assert found.title.nunique() == 10 and found.equals(geometry.ladders(titles, 10, 0))
    exact = found[found.rung == "exact"]
    assert exact.text.tolist() == [titles[n] for n in exact.title]
    random = found[found.rung == "random"]
    assert set(random.text) <= set(titles) and len(random) == 10


def test_all_measures_together_are_the_single_ones():
    texts, goals = X[:20], X[20:] + 1
    found = geometry.measured(X, texts, goals, 3, 20, 0).set_index("what")
    assert tuple(found.index) == geometry.MEASURES
    assert found.value[geometry.GAP] == geometry.gap(texts, goals)
    assert found.value[geometry.HUBS] == geometry.hubness(geometry.neighbours(X, 3))["skewness"]
    assert found.p.between(1 / 21, 1).all() and found.null.notna().all()
    bare = geometry.measured(X, texts, goals, 3, 0, 0).set_index("what")
    assert bare.value.equals(found.value) and bare.p.isna().all()
    both = geometry.alike(texts, goals, 3, 20, 0).set_index("what")
    assert both.value.to_dict() == found.value[[geometry.MUTUAL, geometry.CKA]].to_dict()
