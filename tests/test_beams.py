"""What may be written, and one step of beam search, by hand."""

import pytest
import torch
from toy_llms import TEXTS, TITLES, load, search_of

from bigrec_lib.method import beams, prompts
from bigrec_lib.method.beams import NONE, GenerationError, Hypotheses, Rules, Trie
from bigrec_lib.method.samples import Sample, encode
from bigrec_lib.study import steps


@pytest.fixture
def tiny(tiny_llm):
    return load(tiny_llm)


def test_a_trie_by_hand():
    trie = Trie([[1, 2, 0], [1, 3, 0], [1, 2, 4, 0], [5, 0]])
    assert trie.children(trie.root, 0).tolist() == [1, 5]
    one = trie.child(trie.root, 0, 1)
    assert trie.children(one, 1).tolist() == [2, 3]
    assert trie.children(trie.child(one, 1, 2), 2).tolist() == [0, 4]
    nothing = trie.child(one, 1, 9)
    assert trie.children(nothing, 2).tolist() == []
    assert trie.child(nothing, 4, 9) == nothing, "beyond the longest answer there is nothing"
    end = trie.child(trie.child(trie.root, 0, 5), 1, 0)
    assert trie.children(end, 2).tolist() == []
    with pytest.raises(GenerationError, match="at least one title"):
        Trie([])


def test_answers_are_tokenised_as_tuning_does(tiny):
    answers = beams.answer_tokens(tiny.tokenizer, TITLES)
    for title, answer in zip(TITLES, answers, strict=True):
        learnt = encode(tiny.tokenizer, Sample(TEXTS[0], prompts.answer(title)))
        assert answer == learnt.ids[-learnt.learnt :].tolist()
    assert beams.room_for(answers, 1.0) == max(map(len, answers))
    assert beams.room_for([[0] * n for n in range(1, 1001)], 0.999) == 1000
    assert beams.room_for([[0] * n for n in range(1, 1002)], 0.999) == 1000


def after_one_step(probabilities, trie=None):
    """One prompt with 2 beams after its first step. Token 0 ends an answer."""
    rules = Rules(search_of(max_new_tokens=3, beams=2), 0, trie)
    start = Hypotheses.start([7], 1, rules, torch.device("cpu"))
    return beams.advance(start, torch.tensor([[probabilities]]).log(), rules)


def test_an_end_among_the_likeliest_counts_and_others_run_on():
    after, parents = after_one_step([0.4, 0.1, 0.2, 0.3])
    assert parents.tolist() == [[0, 0]]
    assert after.prompt.tolist() == [7] and after.length.tolist() == [1]
    assert after.last().tolist() == [[3, 2]]
    torch.testing.assert_close(after.scores.exp(), torch.tensor([[0.3, 0.2]]))
    torch.testing.assert_close(after.finished_scores[0, 0].exp(), torch.tensor(0.4))
    assert after.finished[0, 0].tolist() == [0, 0, 0] and after.finished_scores[0, 1] == NONE
    assert after.open.tolist() == [True]


def test_an_end_after_the_likeliest_is_dropped():
    after, _ = after_one_step([0.2, 0.1, 0.3, 0.4])
    assert after.last().tolist() == [[3, 2]]
    assert (after.finished_scores == NONE).all()


def test_a_trie_forbids_but_does_not_change_probabilities():
    trie = Trie([[1, 0], [2, 0]])
    after, _ = after_one_step([0.4, 0.1, 0.2, 0.3], trie)
    assert after.last().tolist() == [[2, 1]]
    torch.testing.assert_close(after.scores.exp(), torch.tensor([[0.2, 0.1]]))
    assert after.nodes.tolist() == [[[1, 2], [0, 1]]]


def test_titles_that_take_more_tokens_than_there_is_room_for_are_left_out_and_counted(capsys):
    answers = [[1, 2, 0], [1, 3, 4, 5, 0], [6, 0]]
    trie = steps.fitting_trie(answers, 3)
    assert trie.depth == 3 and trie.children(trie.root, 0).tolist() == [1, 6]
    assert "1 of 3 titles are left out" in capsys.readouterr().out
    assert steps.fitting_trie(answers, 5).depth == 5 and not capsys.readouterr().out
    with pytest.raises(GenerationError):
        steps.fitting_trie(answers, 1)
