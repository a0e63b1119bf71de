"""What all data sets share: filters, drops, clean titles, the core; against plain loops."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_datasets import (
    EVENTS,
    FILMS,
    check_corpus,
    shown,
    write_100k,
)

from bigrec_lib.method import corpus as corpora
from bigrec_lib.method import readers
from bigrec_lib.method.corpus import DataError, Filters, clean_title


def test_items_without_a_title_go_with_their_interactions_and_are_counted(tmp_path):
    films = FILMS | {"9": ("None", ""), "8": ("&nbsp;", "")}
    events = [*EVENTS, ("1", "404", 5, 900_000_030)]
    write_100k(tmp_path, films, events)
    with open(tmp_path / "u.item", "a") as file:
        file.write("10|Twice (2000)|||" + "|0" * 19 + "\n")
    corpus = readers.load("ml-100k", str(tmp_path))
    assert corpus.drops == {
        "items listed twice": 1,
        "items without a title": 2,
        "interactions on unknown items": 1,
        "interactions on items without a title": 4,
        "repeated interactions": 0,
    }
    assert corpus.items.item_id.tolist() == ["10", "7"] and len(corpus.interactions) == 4
    assert "Twice" not in corpus.items.title[0]


def test_filters_are_off_unless_asked_for_and_count_what_they_take(tmp_path):
    write_100k(tmp_path, FILMS, EVENTS)
    corpus = readers.load("ml-100k", str(tmp_path), filters=Filters(positive_only=3))
    assert corpus.drops["interactions rated too low"] == 3
    assert [item for _, item, _ in shown(corpus)] == ["10", "9", "7", "10"]
    assert len(corpus.items) == 4  # what nobody liked can still be recommended
    corpus = readers.load("ml-100k", str(tmp_path), filters=Filters(min_title=14))
    assert corpus.drops["items with a title below 14 characters"] == 2
    assert corpus.drops["interactions on items with a title below 14 characters"] == 4
    assert corpus.items.item_id.tolist() == ["10", "7"]
    page = "var a = new Date(); " * 300
    write_100k(tmp_path / "scraped", FILMS | {"9": (page, "")}, EVENTS)
    corpus = readers.load("ml-100k", str(tmp_path / "scraped"), filters=Filters(max_title=1000))
    assert corpus.drops["items with a title above 1000 characters"] == 1
    assert "9" not in corpus.items.item_id.tolist() and len(corpus.items) == len(FILMS) - 1
    assert page.strip() in readers.load("ml-100k", str(tmp_path / "scraped")).items.title.tolist()
    corpus = readers.load("ml-100k", str(tmp_path), filters=Filters(k_core=2))
    assert shown(corpus) == [
        (0, "10", 900_000_010), (0, "9", 900_000_020), (1, "10", 900_000_050), (1, "9", 900_000_050)
    ]  # fmt: skip
    assert corpus.items.item_id.tolist() == ["10", "9"]
    kept = {name: n for name, n in corpus.drops.items() if "2-core" in name}
    assert list(kept.values()) == [3, 1, 2]  # interactions, users, items
    with pytest.raises(DataError, match="no interaction is left"):
        readers.load("ml-100k", str(tmp_path), filters=Filters(k_core=5))
    (tmp_path / "log.csv").write_text("user,item,time,title\nu,1,1,A\nu,2,2,B\n")
    with pytest.raises(DataError, match="has no ratings"):
        readers.load("table", str(tmp_path / "log.csv"), filters=Filters(positive_only=3))


def plainly(titles, events, filters):
    """Interactions as (user id, item id, time), or why there are none; what was left out."""
    names = {}
    for item, title in titles:
        names.setdefault(item, clean_title(title))
    count = Counter()
    rows = []
    for user, item, rating, time in events:
        if item not in names:
            count["interactions on unknown items"] += 1
        elif not names[item]:
            count["interactions on items without a title"] += 1
        elif len(names[item]) < filters.min_title:
            count[f"interactions on items with a title below {filters.min_title} characters"] += 1
        elif 0 < filters.max_title < len(names[item]):
            count[f"interactions on items with a title above {filters.max_title} characters"] += 1
        elif (user, item, time) in [(u, i, t) for u, i, _, t in rows]:
            count["repeated interactions"] += 1
        else:
            rows.append((user, item, rating, time))
    liked = [row for row in rows if row[2] > filters.positive_only]
    longest = filters.max_title or 99
    good = [name for name in names.values() if max(filters.min_title, 1) <= len(name) <= longest]
    if not liked:
        return "no interaction is left", count
    if not any(a[0] == b[0] and a[3] != b[3] for a in liked for b in liked):
        return "no user has two interactions at different times", count
    if len(set(good)) == 1 < len(good):
        return "items are called", count
    count["interactions rated too low"] = len(rows) - len(liked)
    return sorted(((u, i, t) for u, i, _, t in liked), key=lambda row: (row[0], row[2])), count


ids = st.sampled_from(["1", "2", "10", "é", "z z"])
rows = st.lists(st.tuples(ids, ids, st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=25)
named = st.lists(st.tuples(ids, st.sampled_from(["A", '"Bé"', "None", None])), min_size=1)


@settings(max_examples=200, deadline=None)
@given(named, rows, st.integers(1, 4), st.integers(1, 2), st.sampled_from([0, 0, 2, 3]))
def test_any_corpus_is_that_of_plain_loops(titles, events, positive_only, min_title, max_title):
    filters = Filters(positive_only, min_title=min_title, max_title=max_title)
    raw = corpora.Raw(
        "items",
        pd.DataFrame(titles, columns=["item", "title"]),
        pd.DataFrame(events, columns=["user", "item", "rating", "time"]),
        "titles.csv",
        "events.csv",
    )
    wanted, count = plainly(titles, events, filters)
    if isinstance(wanted, str):
        with pytest.raises(DataError, match=wanted):
            corpora.assemble("any", raw, filters)
        return
    corpus = corpora.assemble("any", raw, filters)
    check_corpus(corpus)
    assert corpus.unit == "order"
    users = sorted({user for user, _, _ in wanted})
    assert [(users[user], item, time) for user, item, time in shown(corpus)] == wanted
    assert {what: n for what, n in corpus.drops.items() if what in count} == {
        what: n for what, n in count.items() if what in corpus.drops
    }
    assert set(count) <= set(corpus.drops)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40), st.integers(1, 4))
def test_the_core_is_that_of_a_plain_loop(pairs, k):
    rows = list(enumerate(pairs))
    while True:
        users = Counter(user for _, (user, _) in rows)
        items = Counter(item for _, (_, item) in rows)
        left = [row for row in rows if users[row[1][0]] >= k and items[row[1][1]] >= k]
        if left == rows:
            break
        rows = left
    user, item = np.array(pairs, dtype=int).reshape(-1, 2).T
    inside = corpora.core(user, item, np.ones(len(pairs), dtype=bool), k)
    assert np.flatnonzero(inside).tolist() == [number for number, _ in rows]


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ('  The "Burbs" \n II ', "The 'Burbs' II"),
        ("None", ""),
        ("&#x22;Q&#34;", "'Q'"),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_clean_titles(raw, clean):
    assert clean_title(raw) == clean


def assembled(titles, times, **columns):
    """The corpus of one user who meets each title once, at these times."""
    ids = [f"{number:03}" for number in range(len(titles))]
    events = pd.DataFrame({"user": "u", "item": ids, "time": times} | columns)
    listed = pd.DataFrame({"item": ids, "title": titles})
    raw = corpora.Raw("items", listed, events, "titles.csv", "log.csv")
    return corpora.assemble("mine", raw, Filters())


def test_times_that_order_nothing_are_refused():
    with pytest.raises(DataError, match=r"log.csv: no user has two .* \(3 interactions, 1 times"):
        assembled(["A", "B", "C"], [5, 5, 5])
    with pytest.raises(DataError, match="no user has two interactions at different times"):
        assembled(["A", "B", "C"], [1, 2, 3], user=["u", "v", "w"])
    assert shown(assembled(["A", "B", "C"], [5, 5, 4])) == [
        (0, "002", 4),
        (0, "000", 5),
        (0, "001", 5),
    ]


def test_times_that_are_still_to_come_are_kept_and_counted():
    ahead = "interactions dated in the future, kept"
    for later in ("2999-01-01", "2999-01-01T00:00:00.5Z"):
        corpus = assembled(["A", "B", "C"], ["2020-01-01", later, later])
        assert corpus.drops[ahead] == 2 and len(corpus.interactions) == 3
    assert ahead not in assembled(["A", "B"], ["2020-01-01", "2020-01-02"]).drops
    assert ahead not in assembled(["A", "B"], [1, 90_000_000]).drops  # an order


def test_titles_that_tell_little_are_counted_or_refused():
    with pytest.raises(DataError, match="titles.csv: all 3 items are called 'Film', so there is"):
        assembled(["Film", "Film ", "&#70;ilm"], [1, 2, 3])
    drops = assembled(["Film", "Film", "Heat", "Fargo"], [1, 2, 3, 4]).drops
    assert drops["items all called 'Film', kept"] == 2
    drops = assembled(["1917", "300", "Heat", "10,5"], [1, 2, 3, 4]).drops
    assert drops["items whose title is a mere number, kept"] == 3
    kept = assembled(["Heat", "Heat", "Fargo", "1917", "Se7en"], [1, 2, 3, 4, 5]).drops
    assert not [what for what in kept if "kept" in what]


def test_a_missing_id_is_named_with_its_row():
    for gap in ("", None):
        with pytest.raises(DataError, match="log.csv: row 2 has no user"):
            assembled(["A", "B", "C"], [1, 2, 3], user=["u", gap, "w"])
