"""The sample rules against a plain loop, and splits that do not leak."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigrec_lib.method import sequences
from bigrec_lib.method.corpus import Corpus, DataError


def corpus_of(users: list[list[tuple[int, int]]]) -> Corpus:
    """A corpus from a list of (item, time) for each user, in time order."""
    rows = [(u, item, time) for u, events in enumerate(users) for item, time in events]
    frame = pd.DataFrame(rows, columns=["user", "item", "time"])
    frame = frame.astype({"user": np.int32, "item": np.int32, "time": np.int64})
    return Corpus("toy", "movies", pd.DataFrame({"title": [f"t{i}" for i in range(9)]}), frame, {})


def expected(users, history, first):
    """The same samples by a loop."""
    found = []
    for user, events in enumerate(users):
        begin = history if first == "full" else max(1, min(history, len(events) - 1))
        for at in range(begin, len(events)):
            before = [item for item, _ in events[max(0, at - history) : at]]
            found.append((events[at][1], user, at, before, events[at][0]))
    found.sort(key=lambda row: row[:3])
    return [(user, before, target, time) for time, user, _, before, target in found]


events = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 20)), max_size=9)
users = st.lists(events.map(lambda e: sorted(e, key=lambda pair: pair[1])), max_size=6)


@settings(max_examples=200, deadline=None)
@given(users, st.integers(1, 4), st.sampled_from(["full", "any"]))
def test_examples_are_those_of_a_plain_loop(users, history, first):
    wanted = expected(users, history, first)
    if not wanted:
        with pytest.raises(DataError, match="no example"):
            sequences.examples(corpus_of(users), history, first)
        return
    found = sequences.examples(corpus_of(users), history, first).to_pylist()
    assert [row["example"] for row in found] == list(range(len(found)))
    assert [(r["user"], r["history"], r["target"], r["time"]) for r in found] == wanted


CORPUS = corpus_of([[(i % 9, i) for i in range(40)]])


def toy(n=40):
    return sequences.examples(corpus_of([[(i % 9, i) for i in range(n)]]), history=3)


def test_the_cut_is_80_10_10_by_count_and_in_time_order():
    parts = sequences.split(toy(43))
    assert [len(part) for part in parts.values()] == [32, 4, 4]
    sequences.check(parts, corpus_of([[(i % 9, i) for i in range(43)]]))
    with pytest.raises(DataError, match="too few to split: valid"):
        sequences.split(toy(6))


def test_leaks_are_seen():
    parts = sequences.split(toy())
    with pytest.raises(DataError, match="older than the split before"):
        sequences.check({"train": parts["test"], "valid": parts["train"]}, CORPUS)
    with pytest.raises(DataError, match="in two splits"):
        last = parts["train"].slice(len(parts["train"]) - 1)
        sequences.check({"train": parts["train"], "valid": last}, CORPUS)
    with pytest.raises(DataError, match="not in the catalogue of 3"):
        sequences.check(parts, replace(CORPUS, items=CORPUS.items.head(3)))


def test_a_history_that_is_not_what_came_before_the_target_is_seen():
    parts = sequences.split(toy())
    late = parts["valid"]
    shifted = late.set_column(2, "history", late["history"].take(np.arange(len(late)) * 0 + 1))
    with pytest.raises(DataError, match="valid: example 29 has seen what comes after it"):
        sequences.check(parts | {"valid": shifted}, CORPUS)


long = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 20)), min_size=7, max_size=9)
enough = st.lists(long.map(lambda e: sorted(e, key=lambda pair: pair[1])), min_size=4, max_size=7)


@settings(max_examples=100, deadline=None)
@given(enough, st.integers(1, 4))
def test_no_example_of_any_corpus_sees_what_comes_after_it(users, history):
    """Splits of generated corpora: disjoint, whole, in time order, and each history is a past."""
    corpus = corpus_of(users)
    parts = sequences.split(sequences.examples(corpus, history, "any"))
    sequences.check(parts, corpus)
    rows = [row for part in parts.values() for row in part.to_pylist()]
    assert [row["example"] for row in rows] == list(range(len(rows)))
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    for row in rows:
        seen = users[row["user"]]
        assert any(
            [item for item, _ in seen[:at]][-history:] == row["history"]
            for at, event in enumerate(seen)
            if at and event == (row["target"], row["time"])
        )


def test_a_given_split_is_kept():
    corpus = corpus_of([[(0, 0), (1, 1), (2, 2), (3, 3)], [(4, 0), (5, 1), (6, 2)]])
    labels = ["train", "train", "train", "test", "train", "valid", "test"]
    corpus = replace(corpus, interactions=corpus.interactions.assign(split=labels))
    parts = sequences.split(sequences.examples(corpus, history=1, first="any"))
    sequences.check(parts, corpus)
    assert {name: part["target"].to_pylist() for name, part in parts.items()} == {
        "train": [1, 2],
        "valid": [5],
        "test": [6, 3],
    }
    columns = ["example", "user", "history", "target", "time", "tied"]
    assert parts["train"].column_names == columns
    assert sequences.train_counts(corpus, parts).tolist() == [1, 1, 1, 0, 1, 0, 0, 0, 0]


def test_samples_are_seeded_distinct_and_in_order():
    table = toy()
    ids = [sequences.sample(table, 10, seed)["example"].to_pylist() for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] == sorted(set(ids[0])) and len(ids[0]) == 10
    assert sequences.sample(table, len(table), 0).equals(table)
    with pytest.raises(DataError, match=f"there are {len(table)}: lower n_train"):
        sequences.sample(table, len(table) + 1, 0)


def test_popularity_groups_are_fifths_from_the_rarest_and_equal_counts_go_by_number():
    counts = np.random.default_rng(0).integers(0, 6, 103)
    order = sorted(range(103), key=lambda candidate: (counts[candidate], candidate))
    groups = sequences.popularity_groups(counts)
    assert [groups[candidate] for candidate in order] == [place * 5 // 103 for place in range(103)]
    by_title = pd.Series(counts).sort_values(kind="stable").index  # as claims once had them
    assert groups[by_title].tolist() == (np.arange(103) * 5 // 103).tolist()


def test_train_counts_see_the_training_period_only():
    corpus = corpus_of([[(i % 2, i) for i in range(20)], [(8, 19)]])
    parts = sequences.split(sequences.examples(corpus, history=3))
    end = parts["train"]["time"].to_numpy().max()
    counts = sequences.train_counts(corpus, parts)
    assert counts.sum() == end + 1 and counts[8] == 0 and len(counts) == 9


def test_train_counts_leave_out_targets_held_out_at_the_very_end_of_training():
    corpus = corpus_of([[(i % 9, min(i, 20)) for i in range(33)]])
    parts = sequences.split(sequences.examples(corpus, history=3))
    held_out = len(parts["valid"]) + len(parts["test"])
    assert sequences.train_counts(corpus, parts).sum() == 33 - held_out


who = st.lists(st.integers(0, 6), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(who, st.integers(1, 70), st.integers(1, 12), st.integers(0, 3))
def test_a_drawing_takes_every_user_once_before_one_twice(users, n, per_user, seed):
    table = pa.table({"example": np.arange(len(users)), "user": np.array(users, np.int32)})
    drawn = sequences.drawn(table, n, per_user, seed)
    counts = pd.Series(users).value_counts()
    assert len(drawn) == min(n, counts.clip(upper=per_user).sum())
    assert drawn["example"].to_pylist() == sorted(set(drawn["example"].to_pylist()))
    in_turn = drawn.to_pandas().sort_values("draw")
    assert in_turn.draw.tolist() == list(range(len(drawn)))
    seen = dict.fromkeys(counts.index, 0)
    for user in in_turn.user:
        others = [seen[other] for other in counts.index if counts[other] > seen[other]]
        assert seen[user] == min(others) < per_user
        seen[user] += 1


@settings(max_examples=50, deadline=None)
@given(who, st.integers(1, 70), st.integers(1, 12))
def test_the_first_of_a_drawing_are_a_smaller_drawing(users, n, per_user):
    table = pa.table({"example": np.arange(len(users)), "user": np.array(users, np.int32)})
    larger = sequences.drawn(table, 70, per_user, 1).to_pandas()
    smaller = sequences.drawn(table, n, per_user, 1).to_pandas()
    assert larger[larger.draw < n].reset_index(drop=True).equals(smaller)


def test_drawings_of_other_seeds_differ():
    table = pa.table({"example": np.arange(99), "user": np.arange(99, dtype=np.int32)})
    drawings = [sequences.drawn(table, 20, 1, seed)["example"].to_pylist() for seed in (0, 1)]
    assert drawings[0] != drawings[1]


def test_a_target_at_the_time_of_the_last_history_item_is_marked():
    corpus = corpus_of([[(0, 5), (1, 5), (2, 6), (3, 7), (4, 7)]])
    assert sequences.examples(corpus, 1)["tied"].to_pylist() == [True, False, False, True]


@settings(max_examples=200, deadline=None)
@given(who, st.integers(0, 3))
def test_strangers_are_others_unless_one_user_has_more_than_half(users, seed):
    users = np.array(users)
    other = sequences.strangers(users, seed)
    assert sorted(other) == list(range(len(users)))
    if 2 * np.bincount(users).max() <= len(users):
        assert (users != users[other]).all()


def test_the_first_users_of_a_drawing_are_different_ones():
    table = pa.table({"user": [5, 5, 7, 9, 7], "draw": [3, 1, 0, 4, 2]})
    assert sequences.first_users(table, 3).tolist() == [2, 1, 3]
    assert sequences.first_users(table.to_pandas(), 2).tolist() == [2, 1]
    assert sequences.first_users(table.slice(0, 2), 3).tolist() == [1]
