"""Log-likelihood and effort, against a plain transformers loop of one sample at a time."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from toy import fresh_adapter
from toy_samples import toy_samples
from transformers import AutoModelForCausalLM

from bigrec_lib.files import StudyError
from bigrec_lib.method import answers, samples
from bigrec_lib.method.llm import LLM, load_llm

pytestmark = pytest.mark.usefixtures("one_thread")


def plainly(model, tokenizer, each) -> tuple[float, int]:
    """The log-likelihood of one answer, token after token, and how many there are."""
    encoded = samples.encode(tokenizer, each)
    ids = torch.from_numpy(encoded.ids)[None]
    with torch.no_grad():
        chances = model(input_ids=ids).logits[0].float().log_softmax(1)
    places = range(len(encoded.ids) - encoded.learnt, len(encoded.ids))
    return sum(chances[at - 1, ids[0, at]].item() for at in places), encoded.learnt


def test_log_likelihoods_are_those_of_a_plain_loop(tiny_llm):
    llm = load_llm(str(tiny_llm), dtype="float32")
    few = toy_samples(11)
    plain = AutoModelForCausalLM.from_pretrained(tiny_llm).eval()
    expected = [plainly(plain, llm.tokenizer, each) for each in few]
    for size in (1, 4, 32):
        found, tokens = answers.log_likelihoods(llm, few, size)
        np.testing.assert_allclose(found, [each[0] for each in expected], rtol=1e-5)
        assert tokens.tolist() == [each[1] for each in expected]


def test_the_adapter_counts(tiny_llm):
    llm = load_llm(str(tiny_llm), dtype="float32")
    few = toy_samples(5)
    before, _ = answers.log_likelihoods(llm, few, 2)
    model = fresh_adapter(llm).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    found, _ = answers.log_likelihoods(LLM("x", model, llm.tokenizer), few, 2)
    expected = [plainly(model, llm.tokenizer, each)[0] for each in few]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(found - before).min() > 0


def test_efforts_are_lengths_of_gradients_of_a_plain_loop(tiny_llm):
    llm = load_llm(str(tiny_llm), dtype="float32")
    few = toy_samples(4)
    before = {name: weight.clone() for name, weight in llm.model.state_dict().items()}
    found = answers.efforts(llm, few, rank=2, alpha=8, seed=3)
    after = llm.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert found.tolist() == answers.efforts(llm, few, 2, 8, 3).tolist()
    plain = AutoModelForCausalLM.from_pretrained(tiny_llm)
    torch.manual_seed(3)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=8, target_modules=["v_proj"])
    model = get_peft_model(plain, config).eval()
    weight = dict(model.named_parameters())[
        "base_model.model.model.layers.1.self_attn.v_proj.lora_B.default.weight"
    ]
    for each, effort in zip(few, found, strict=True):
        encoded = samples.encode(llm.tokenizer, each)
        ids = torch.from_numpy(encoded.ids)[None]
        labels = ids.clone()
        labels[0, : -encoded.learnt] = -100
        (slope,) = torch.autograd.grad(model(input_ids=ids, labels=labels).loss, [weight])
        assert effort == pytest.approx(slope.norm().item(), rel=1e-4)
    assert np.ptp(found) > 0


def test_an_llm_without_value_projections_has_no_effort():
    from toy_llms import FAST

    torch.manual_seed(0)
    model = FAST["gpt2"]()
    with pytest.raises(StudyError, match="target_modules v_proj match nothing"):
        answers.efforts(LLM("gpt2", model, None), [], 2, 4, 0)
