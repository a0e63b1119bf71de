"""Windows and their steps; ranks, lists and scores of any model."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from toy_windows import PAD, markov_corpus, windows_of

from bigrec_lib.method import baselines, grounding, windows
from bigrec_lib.method.windows import BaselineError

ROOT = Path(__file__).parent.parent


def test_windows_keep_the_newest_items_as_candidates_filled_up_on_the_left():
    table = pa.table(
        {
            "example": [7, 8],
            "user": [3, 4],
            "history": pa.array([[0, 1, 2, 3], [4]], pa.list_(pa.int32())),
            "target": [2, 0],
            "time": pa.array([30, 50], pa.int64()),
        }
    )
    of_item = np.array([0, 1, 2, 2, 3])  # items 2 and 3 are namesakes
    found = windows.windows(table, of_item, 3)
    assert found.histories.tolist() == [[1, 2, 2], [4, 4, 3]] and found.n_items == 4
    assert found.targets.tolist() == [2, 0] and found.users.tolist() == [3, 4]
    assert found.times.tolist() == [30, 50]
    again = windows.windows(pa.concat_tables([table, table]).slice(1, 2), of_item, 3)
    assert again.histories.tolist() == [[4, 4, 3], [1, 2, 2]]


def test_windows_in_parts_are_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    rows = [rng.integers(PAD, size=rng.integers(2, 7)).tolist() for _ in range(40)]
    whole = windows_of(rows, length=3)
    monkeypatch.setattr(windows, "ROWS", 7)
    assert (windows_of(rows, length=3).histories == whole.histories).all()


def test_an_empty_history_is_refused():
    with pytest.raises(BaselineError, match="example 1 has no history"):
        windows_of([[1, 2], [3]])


def test_steps_are_every_step_once_a_user_with_its_longest_history():
    rows = [[0, 1, 2, 3], [1, 2, 3, 4], [0, 1]]
    found = windows.steps(windows_of(rows, users=[5, 5, 6]))
    as_tuples = {
        (int(user), tuple(h[h != PAD].tolist()), int(target))
        for user, h, target in zip(found.users, found.histories, found.targets, strict=True)
    }
    assert as_tuples == {
        (5, (0,), 1),
        (5, (0, 1), 2),
        (5, (0, 1, 2), 3),
        (5, (1, 2, 3), 4),
        (6, (0,), 1),
    }
    assert len(found) == 5 and set(found.times[found.users == 6]) == {2}
    assert all((h[1:][h[:-1] != PAD] != PAD).all() for h in found.histories)  # filled on the left


def steps_all_at_once(samples):
    """`windows.steps`, from one sorted table of all of them."""
    rows, length = samples.rows, samples.histories.shape[1]
    row, at = np.nonzero(rows[:, :-1] != samples.n_items)
    size = at - (rows == samples.n_items).sum(1)[row]
    key = np.column_stack((samples.users[row], rows[row, at], rows[row, at + 1]))
    order = np.lexsort((-size, *key.T))
    new = np.r_[True, (np.diff(key[order], axis=0) != 0).any(axis=1)]
    kept = np.sort(order[new])
    padded = np.pad(rows, ((0, 0), (length - 1, 0)), constant_values=samples.n_items)
    row, at = row[kept], at[kept]
    return (
        samples.users[row],
        samples.times[row],
        padded[row[:, None], at[:, None] + np.arange(length)],
        rows[row, at + 1],
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_steps_in_parts_are_those_of_one_sorted_table(seed, rows, monkeypatch):
    """Short and repetitive histories, users in any order, parts of any size."""
    monkeypatch.setattr(windows, "ROWS", rows)
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(4, size=rng.integers(2, 7)).tolist() for _ in range(100)]
    samples = windows_of(drawn, users=rng.integers(9, size=100), n_items=4, length=5)
    found = windows.steps(samples)
    arrays = (found.users, found.times, found.histories, found.targets)
    for ours, wanted in zip(arrays, steps_all_at_once(samples), strict=True):
        assert ours.dtype == wanted.dtype and (ours == wanted).all()
    whole = windows.whole_users(samples.users)
    assert sorted(np.concatenate(whole)) == list(range(100))
    users = [set(samples.users[some]) for some in whole]
    assert sum(map(len, users)) == len(set().union(*users)) and len(users) <= 9


def test_no_step_reaches_into_the_future():
    corpus = markov_corpus(50, n_items=200)
    whole = ["-".join(map(str, row)) for row in corpus.rows]
    found = windows.steps(corpus)
    for history, target in zip(found.histories, found.targets, strict=True):
        real = "-".join(map(str, [*history[history != 200], target]))
        assert any(real in row for row in whole)


@pytest.mark.parametrize(("block", "scores"), [(7, 1 << 26), (1024, 150), (1024, 1)])
def test_ranks_lists_and_scores_agree_over_blocks(block, scores, monkeypatch, tmp_path):
    monkeypatch.setattr(windows, "BLOCK", block)
    monkeypatch.setattr(windows, "SCORES", scores)
    samples = markov_corpus(30)
    score = baselines.markov(windows.steps(samples), 100.0)
    windows.save_scores(score, samples, tmp_path / "a" / "valid.npy")
    whole = windows.load_scores(tmp_path / "a", "valid")
    assert whole.shape == (30, 20) and whole.dtype == np.float32
    assert (whole == score(samples.histories)).all()
    pd.testing.assert_frame_equal(
        windows.ranks(score, samples), grounding.counted(-whole, samples.targets)
    )
    listed = windows.lists(score, samples, 5)
    for row, scores in zip(listed, whole, strict=True):
        assert row.tolist() == sorted(range(20), key=lambda i: (-scores[i], i))[:5]


@pytest.mark.parametrize("seed", range(5))
def test_unseen_ranks_by_brute_force(seed, monkeypatch):
    """Histories that repeat titles, are short, or hold the target; scores that tie."""
    monkeypatch.setattr(windows, "BLOCK", 7)
    rng = np.random.default_rng(seed)
    rows = [rng.integers(PAD, size=rng.integers(2, 7)).tolist() for _ in range(40)]
    samples = windows_of(rows, length=5)
    table = rng.integers(4, size=(PAD + 1, PAD)).astype(np.float32)

    def score(histories):
        return table[histories[:, -1]]

    found = windows.ranks(score, samples, unseen=True)
    plain = windows.ranks(score, samples)
    for at, (history, target) in enumerate(zip(samples.histories, samples.targets, strict=True)):
        scores = table[history[-1]]
        others = [i for i in range(PAD) if i not in history and i != target]
        assert found["rank"][at] == sum(scores[i] > scores[target] for i in others)
        assert found.ties[at] == sum(scores[i] == scores[target] for i in others)
    assert found.dtypes.tolist() == [np.int32, np.int32]
    assert (found["rank"] <= plain["rank"]).all() and (found["rank"] < plain["rank"]).any()


def test_keys_without_end_are_ranked_too():
    samples = windows_of([[0, 1, 2]])
    keys = np.full((1, PAD), np.inf, dtype=np.float32)
    keys[0, [0, 4]] = -1
    assert windows.ranks_of_keys(keys, samples).to_numpy().tolist() == [[2, PAD - 3]]
    assert windows.ranks_of_keys(keys, samples, True).to_numpy().tolist() == [[1, PAD - 4]]


def test_scores_that_were_not_kept_are_missed_by_name(tmp_path):
    with pytest.raises(BaselineError, match="dros .* `collaborative` of 06_train_baselines"):
        windows.load_scores(tmp_path / "dros", "test")


def test_windows_need_no_torch():
    code = "import sys; from bigrec_lib.method import windows; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stdout + done.stderr
