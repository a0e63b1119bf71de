"""BM25 against its formula, and texts in which words are hard to tell."""

import math

import numpy as np
import pytest
from toy import toy_titles

from bigrec_lib.method import bm25


def by_formula(query: list[str], titles: list[list[str]], k1=1.5, b=0.75):
    """Lucene's BM25 (Kamphuis et al. 2020), as plain loops."""
    mean = sum(map(len, titles)) / len(titles)
    found = []
    for title in titles:
        total = 0.0
        for word in query:
            having = sum(word in other for other in titles)
            weight = math.log(1 + (len(titles) - having + 0.5) / (having + 0.5))
            count = title.count(word)
            total += weight * count / (count + k1 * (1 - b + b * len(title) / mean))
        found.append(total)
    return found


def test_scores_are_those_of_the_formula():
    titles = [*toy_titles(12), "Red Red 7", "..."]
    texts = ["Red Moon 7 (1952)", "star star 1953", "nothing of it"]
    split = [[word.strip("().").lower() for word in title.split()] for title in titles]
    split = [[word for word in title if word] for title in split]
    found = bm25.scores(texts, titles)
    assert found.shape == (3, 14) and found.dtype == np.float32
    for row, text in zip(found, texts, strict=True):
        query = [word.strip("()").lower() for word in text.split()]
        np.testing.assert_allclose(row, by_formula(query, split), rtol=1e-5, atol=1e-6)


def test_shared_words_are_found_and_a_text_without_words_matches_nothing():
    titles = ["Heat (1995)", "Alien (1979)", "Body Heat (1981)"]
    scores = bm25.scores(["Alien", "heat 1981", "", "..."], titles)
    assert scores[0].argmax() == 1 and scores[1].argmax() == 2
    assert not scores[2].any() and not scores[3].any()


@pytest.mark.parametrize(
    ("text", "titles", "best"),
    [
        ("7", [str(number) for number in range(1, 10)], 6),
        ("Halo 3", ["Halo", "Halo 2", "Halo 3"], 2),
        ("日本", ["中国語", "English", "日本語"], 2),
        ("ゼルダ", ["マリオ", "ゼルダの伝説"], 1),
        ("ﾏﾘｵ", ["ゼルダの伝説", "スーパーマリオ"], 1),
        ("ＦＩＦＡ ７", ["FIFA 8", "Sims 7", "FIFA 7"], 2),
        ("แมว", ["หมา", "แมวดำ"], 1),
    ],
)
def test_words_of_one_character_and_scripts_without_spaces_are_found(text, titles, best):
    (scores,) = bm25.scores([text], titles)
    assert scores.argmax() == best and (scores[best] > np.delete(scores, best)).all()


def test_where_no_title_has_a_word_all_tie():
    assert not bm25.scores(["7", "!"], ["!!!", "…", "?"]).any()
