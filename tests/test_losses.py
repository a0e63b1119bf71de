"""Shared, padded batches have the loss and the gradients of each sample alone."""

import pytest
import torch
from toy import fresh_adapter
from toy_samples import reference_loss, toy_samples
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    MistralConfig,
    MptConfig,
)

from bigrec_lib.method import answers, losses, samples
from bigrec_lib.method.llm import LLM, load_llm


@pytest.fixture
def llm(tiny_llm):
    return load_llm(str(tiny_llm), dtype="float32")


@pytest.mark.parametrize("learn_prompt", [False, True])
@pytest.mark.parametrize("sharing", [False, True])
def test_loss_and_gradients_are_those_of_each_sample_alone(llm, learn_prompt, sharing):
    model = fresh_adapter(llm).eval()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with torch.no_grad():
        for weight in weights:  # LoRA's B starts at 0, and with it A's gradient
            weight.normal_(std=0.1)
    encoded = [samples.encode(llm.tokenizer, each, learn_prompt) for each in toy_samples(5)]
    shared = samples.shared_tokens(encoded) if sharing else 0
    assert (shared > 50) == (sharing and not learn_prompt)
    expected = reference_loss(model, encoded)
    gradients = torch.autograd.grad(expected, weights)
    for pad in (0, llm.tokenizer.eos_token_id):
        got = losses.loss_sum(model, losses.collate(encoded, shared, pad, "cpu"))
        assert got.item() == pytest.approx(expected.item(), rel=1e-5)
        for one, other in zip(torch.autograd.grad(got, weights), gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_padding_is_harmless_where_a_position_without_anything_to_see_gives_nan(
    llm, monkeypatch, checkpointing
):
    """As fused attention on a GPU does; on a CPU it gives 0."""
    fused = torch.nn.functional.scaled_dot_product_attention
    blind = []

    def attention(*args, attn_mask=None, **kwargs):
        out = fused(*args, attn_mask=attn_mask, **kwargs)
        if attn_mask is None:
            return out
        seeing = attn_mask.any(-1, keepdim=True)
        blind.append(bool((~seeing).any()))
        return out.masked_fill(~seeing, torch.nan)

    model = fresh_adapter(llm)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    encoded = [samples.encode(llm.tokenizer, each, True) for each in toy_samples(5)]
    batch = losses.collate(encoded, 0, llm.tokenizer.eos_token_id, "cpu")
    assert (batch.real[:, 0] == 0).any()
    torch.manual_seed(0)  # of dropout
    wanted = losses.loss_sum(model, batch)
    gradients = torch.autograd.grad(wanted, weights)
    torch.manual_seed(0)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    loss = losses.loss_sum(model, batch)
    assert torch.equal(loss, wanted)
    for one, other in zip(torch.autograd.grad(loss, weights), gradients, strict=True):
        assert torch.equal(one, other)
    assert blind and not any(blind)


LLAMA_LIKE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA_LIKE |= {"intermediate_size": 64, "num_key_value_heads": 2, "initializer_range": 0.3}
MAKES = {
    "a cap of the logits": lambda: Gemma2Config(**LLAMA_LIKE, head_dim=8, sliding_window=512),
    "a factor of the logits": lambda: CohereConfig(**LLAMA_LIKE, logit_scale=0.25),
    "a window shorter than the samples": lambda: MistralConfig(**LLAMA_LIKE, sliding_window=32),
    "distances counted in entries": lambda: MptConfig(d_model=32, n_heads=4, n_layers=2),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES.keys())
def test_the_loss_is_that_of_the_model_itself(make, tiny_llm):
    config = make()
    config.vocab_size = 400
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    llm = LLM("other", model, load_llm(str(tiny_llm)).tokenizer)
    data = losses.prepare(llm, toy_samples(5), False, True)
    tuned = fresh_adapter(llm, target_modules=("all-linear",)).eval()
    expected = reference_loss(tuned, data.encoded).item()
    assert losses.loss_sum(tuned, data.batch(range(5), llm)).item() == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize("more", [-20, 0, 1, 8, 40])
def test_padding_takes_no_place_in_a_window(tiny_llm, more):
    tokenizer = load_llm(str(tiny_llm)).tokenizer
    told = toy_samples(5)
    longest = max(len(samples.encode(tokenizer, each).ids) for each in told)
    torch.manual_seed(0)
    config = MistralConfig(**LLAMA_LIKE, sliding_window=longest + more, vocab_size=400)
    llm = LLM("windowed", AutoModelForCausalLM.from_config(config).eval(), tokenizer)
    together, _ = answers.log_likelihoods(llm, told, 5)
    for sample, found in zip(told, together, strict=True):
        alone = reference_loss(llm.model, [samples.encode(tokenizer, sample)])
        assert found == pytest.approx(-alone.item(), rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_on_the_dequantised_base_is_that_of_the_4_bit_module(tiny_llm, dtype):
    from bigrec_lib.method.llm import quantisation_config

    ours = load_llm(str(tiny_llm), "nf4", dtype=dtype)
    packed = AutoModelForCausalLM.from_pretrained(
        tiny_llm,
        dtype=getattr(torch, dtype),
        quantization_config=quantisation_config("nf4", dtype),
    )
    gradients = []
    for each in (ours, LLM("packed", packed, ours.tokenizer)):
        model = fresh_adapter(each, dropout=0.0).train()
        data = losses.prepare(each, toy_samples(4), False, True)
        loss = losses.loss_sum(model, data.batch(range(4), each))
        loss.backward()
        found = [w.grad.float() for w in model.parameters() if w.requires_grad]
        gradients.append((loss.item(), torch.cat([each.flatten() for each in found])))
    (loss, gradient), (packed_loss, packed_gradient) = gradients
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    assert loss == pytest.approx(packed_loss, rel=tolerance)
    assert torch.norm(gradient - packed_gradient) < tolerance * torch.norm(gradient)
