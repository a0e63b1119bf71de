"""Cheaper vectors of a text, against plain loops over transformers."""

import copy

import numpy as np
import pytest
import torch
from toy import make_encoder, toy_titles
from toy_llms import TEXTS, load

from bigrec_lib.files import StudyError
from bigrec_lib.method import cheaper, embedding, encoders, prompts
from bigrec_lib.method.samples import Sample

TITLES = toy_titles(12)


@pytest.fixture(scope="module")
def llm(tiny_llm):
    return load(tiny_llm)


def last_state(model, ids):
    with torch.inference_mode():
        return model.get_decoder()(torch.tensor([ids])).last_hidden_state[0]


def test_first_layers_are_a_model_that_has_no_more(llm):
    short = copy.deepcopy(llm.model)
    short.model.layers = short.model.layers[:1]
    short.config.num_hidden_layers = 1
    whole = embedding.embed(llm, TITLES)
    with encoders.first_layers(llm, 1) as shallow:
        found = embedding.embed(shallow, TITLES)
    for text, vector in zip(TITLES, found, strict=True):
        ids = llm.tokenizer(text)["input_ids"]
        assert vector == pytest.approx(last_state(short, ids)[-1].numpy(), abs=1e-5)
    assert np.array_equal(embedding.embed(llm, TITLES), whole)  # all layers are back
    assert np.abs(found - whole).max() > 0.1
    assert encoders.of_text(llm, TITLES[0]) == pytest.approx(whole[0], abs=1e-5)
    with pytest.raises(StudyError, match="has 2 layers: set layers to fewer, not 2"):
        encoders.first_layers(llm, 2).__enter__()


def test_states_in_context_are_those_of_whole_prompts(llm):
    written = [Sample(text, prompts.answer(TITLES[i])) for i, text in enumerate(TEXTS[:9])]
    before, after = encoders.in_context(llm, written)
    for row, sample in enumerate(written):
        prompt = llm.tokenizer(sample.prompt)["input_ids"]
        (answer,) = prompts.encode_answers(llm.tokenizer, [sample.answer])
        state = last_state(llm.model, prompt + answer[:-1])
        assert before[row] == pytest.approx(state[len(prompt) - 1].numpy(), abs=1e-4)
        assert after[row] == pytest.approx(state[-1].numpy(), abs=1e-4)
    alone = encoders.as_answers(llm, TITLES)
    (answer,) = prompts.encode_answers(llm.tokenizer, [prompts.answer(TITLES[3])])
    assert alone[3] == pytest.approx(last_state(llm.model, answer[:-1])[-1].numpy(), abs=1e-4)


def test_an_encoders_vectors_are_normalised_means_of_its_tokens(tmp_path):
    encoder = encoders.load_encoder(str(make_encoder(tmp_path / "encoder")))
    texts = [*TITLES, "", "🎬", "a" * 500]
    found = encoder.encode(texts, batch_size=4)
    for text, vector in zip(texts, found, strict=True):
        inputs = encoder.tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            mean = encoder.model(**inputs).last_hidden_state[0].mean(0).numpy()
        assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_an_encoder_that_is_none_is_refused(tmp_path):
    with pytest.raises(StudyError, match="give one of all-minilm-l6-v2, or a folder"):
        encoders.load_encoder(str(tmp_path))


def test_means_by_target_by_hand():
    before = np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 7.0]], dtype=np.float32)
    known, vectors = encoders.means_by_target(before, np.array([4, 4, 1]))
    assert known.tolist() == [1, 4] and vectors.tolist() == [[5, 7], [2, 0]]


def test_candidates_without_a_vector_come_behind_in_order():
    vectors = np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]], dtype=np.float32)
    way = encoders.Partly(vectors, np.array([5, 2, 0]), 7, 5)
    query = np.array([1.2, 0.0], dtype=np.float32)
    assert way.ground("", lambda: query).tolist() == [2, 5, 0, 1, 3]
    way.add("new", np.array([1.2, 0.0], dtype=np.float32))
    assert way.ground("", lambda: query).tolist() == [7, 2, 5, 0, 1]
    few = encoders.Partly(vectors, np.array([1, 2, 0]), 3, 20)
    assert few.ground("", lambda: query).tolist() == [2, 1, 0]


def test_partly_is_a_scan_where_every_candidate_has_a_vector():
    rng = np.random.default_rng(0)
    vectors, queries = (rng.normal(size=(n, 8)).astype(np.float32) for n in (50, 10))
    partly, scan = encoders.Partly(vectors, np.arange(50), 50, 20), cheaper.Scan(vectors, 20)
    for query in queries:
        assert np.array_equal(partly.ground("", lambda q=query: q), scan.nearest(query))


def test_seconds_are_of_each_request_and_none_of_the_first_try(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(encoders.time, "perf_counter", lambda: next(clock))
    done = []
    assert encoders.seconds_each(done.append, ["a", "b"]).tolist() == [1, 1]
    assert done == ["a", "a", "b"]
