"""What requests take: services answer as the study does, and clocks count as they should."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
from toy import toy_titles
from toy_llms import TEXTS, load, search_of

from bigrec_lib.method import cheaper, embedding, finders, generation, grounding, prompts, services
from bigrec_lib.method.windows import Windows

TITLES = toy_titles(30)


class Fixed:
    """A service whose stages take what it is told."""

    def __init__(self):
        self.asked = []

    def answer(self, numbers):
        self.asked.append(list(numbers))
        return np.tile(np.arange(3), (len(numbers), 1)), {"scores": 2.0, "search": 0.5}


def test_requests_are_counted_after_the_first_answer_and_then_in_batches():
    service = Fixed()
    found = services.measure(nullcontext(service), 5, [2, 5])
    one_by_one = [[0], [0], [1], [2], [3], [4]]
    assert service.asked == one_by_one + [[0, 1], [2, 3], [4], [0, 1, 2, 3, 4]]
    assert found.seconds == {"request": [2.5] * 5, "scores": [2.0] * 5, "search": [0.5] * 5}
    assert set(found.per_second) == {2, 5} and found.lists == [[0, 1, 2]] * 5
    assert found.shown()["ready"] >= 0


def test_energy_is_read_or_left_empty(tmp_path, monkeypatch):
    monkeypatch.setattr(services, "RAPL", tmp_path)
    assert math.isnan(services.counter())
    for package, used in enumerate((1_500_000, 2_000_000)):
        folder = tmp_path / f"intel-rapl:{package}"
        folder.mkdir()
        (folder / "energy_uj").write_text(f"{used}\n")
    assert services.counter() == 3.5


def test_scores_are_answered_as_they_rank():
    table = np.random.default_rng(0).random((6, 40)).astype(np.float32)
    histories = np.arange(6)[:, None]
    nothing = np.zeros(6, dtype=np.int64)
    samples = Windows(nothing, nothing, histories, nothing, 40)
    service = services.Scores(lambda rows: table[rows[:, 0]], samples)
    shown, seconds = service.answer([4, 1])
    assert np.array_equal(shown, np.argsort(-table[[4, 1]], axis=1, kind="stable")[:, :20])
    assert set(seconds) == {"scores", "search"}


@pytest.mark.parametrize("cached", [False, True])
def test_bigrec_answers_what_generation_and_grounding_give(tiny_llm, cached):
    llm = load(tiny_llm)
    vectors = embedding.embed(llm, TITLES)
    search = search_of(8, beams=2, batch_size=4)
    way = cheaper.Scan(vectors, services.K)
    if cached:
        way = cheaper.Cascade([finders.Equal(TITLES)], cheaper.Rows(vectors, services.K))
    service = services.Titles(llm, llm, TEXTS[:4], search, None, way)
    shown, seconds = service.answer([0, 1, 2, 3])
    beams = generation.generate(llm, TEXTS[:4], search)
    queries = embedding.embed(llm, [prompts.title_of(of[0].text) for of in beams])
    wanted, _ = grounding.nearest(queries, vectors, services.K)
    assert np.array_equal(shown, wanted)
    assert set(seconds) == {"writing", "embedding", "search"} and min(seconds.values()) > 0
    assert 0 < service.reading(0) < 10
