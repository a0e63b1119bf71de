"""How long the jobs of a study may take, from those that ran."""

import pytest

from bigrec_lib.study import parameters, plan, provenance


def tuning(model, n_train, seconds=None, host=None):
    job = parameters.TuneLLM(study="toy", dataset="d", model=model, n_train=n_train, epochs=2)
    made = {"notebook": job.notebook, "parameters": job.model_dump(), "seconds": seconds}
    return made | {"host": host or provenance.host()}


def estimated(model, n_train, earlier):
    job = parameters.TuneLLM(study="toy", dataset="d", model=model, n_train=n_train, epochs=2)
    return plan.estimate(job, {job.job: job}, earlier)


def test_runs_of_the_same_llm_tell_by_their_work():
    earlier = [tuning("small-100m", 10, 7.0), tuning("large-1b", 10, 90.0)]
    assert estimated("small-100m", 30, earlier) == (pytest.approx(21.0), False)


def test_another_llm_tells_by_its_parameters():
    earlier = [tuning("small-100m", 10, 7.0), tuning("a/large-1.5B-chat", 10, 105.0)]
    assert estimated("b/huge-7b", 20, earlier) == (pytest.approx(2 * 7.0 * 70), True)
    assert estimated("no-size-in-its-name", 20, earlier) == (None, False)
    assert estimated("b/huge-7b", 20, []) == (None, False)


def test_a_machine_of_another_kind_tells_only_where_no_other_does():
    fast = tuning("small-100m", 10, 1.0, host="Linux x86_64, NVIDIA H200")
    assert estimated("small-100m", 10, [fast])[0] == pytest.approx(1.0)
    assert estimated("small-100m", 10, [fast, tuning("small-100m", 10, 7.0)])[0] == 7.0


def test_what_is_scaled_is_marked():
    job = parameters.TuneLLM(study="toy", dataset="d", model="huge-7b")
    lines = plan.table({job.job: plan.State(job, "missing", "", 30.0, scaled=True)}).splitlines()
    assert "~30 s" in lines[0] and "ratio of parameters" in lines[1]
