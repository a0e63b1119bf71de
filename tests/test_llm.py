"""Loading: what comes out of quantisation, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy import fresh_adapter, make_tiny_llm

from bigrec_lib.files import StudyError
from bigrec_lib.method import cpu
from bigrec_lib.method.llm import LLM, Dropout, fingerprint, load_llm, may_unpack

ASKED = cpu.multiplies_bfloat16.__wrapped__  # before the fixture that answers for it


def test_a_folder_loads_in_the_dtype_asked_for(tiny_llm):
    llm = load_llm(str(tiny_llm), dtype="float32")
    assert llm.model.dtype == torch.float32 and not llm.model.training
    assert llm.tokenizer.pad_token_id is not None


def test_a_cpu_that_cannot_multiply_bfloat16_computes_in_float32(tiny_llm, monkeypatch):
    for able, dtype in {True: torch.bfloat16, False: torch.float32}.items():
        monkeypatch.setattr(cpu, "multiplies_bfloat16", lambda able=able: able)
        for quantisation in ("none", "nf4"):
            model = load_llm(str(tiny_llm), quantisation).model
            assert {weight.dtype for weight in model.parameters()} == {dtype}
    assert load_llm(str(tiny_llm), dtype="float16").model.dtype == torch.float16


@pytest.mark.parametrize(
    "flags, able",
    [
        ("avx2 avx512f avx512_bf16 avx512_vnni", True),
        ("avx512f amx_bf16", True),
        ("fp asimd i8mm bf16 dgh", True),
        ("avx2 f16c avx512f avx512_vnni", False),
        ("avx_ne_convert avx2", False),
    ],
)
def test_what_a_processor_says_of_bfloat16(tmp_path, monkeypatch, flags, able):
    told = tmp_path / "cpuinfo"
    told.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    monkeypatch.setattr(cpu, "CPUINFO", told)
    assert ASKED() == able
    monkeypatch.setattr(cpu, "CPUINFO", tmp_path / "none")
    assert ASKED()


def test_nf4_on_a_cpu_is_the_quantised_base_turned_back_once(tiny_llm):
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    plain = load_llm(str(tiny_llm), dtype="float32").model
    quantised = load_llm(str(tiny_llm), "nf4", dtype="float32").model
    before = plain.model.layers[0].mlp.up_proj.weight.data
    after = quantised.model.layers[0].mlp.up_proj.weight.data
    packed, state = quantize_4bit(before, compress_statistics=True, quant_type="nf4")
    assert torch.equal(after, dequantize_4bit(packed, state))
    assert not torch.equal(after, before)
    assert torch.equal(plain.lm_head.weight, quantised.lm_head.weight)


def test_logits_equal_those_of_the_4_bit_module(tmp_path):
    from transformers import AutoModelForCausalLM

    from bigrec_lib.method.llm import quantisation_config

    folder = make_tiny_llm(tmp_path, hidden=64)  # bitsandbytes packs in blocks of 64
    packed = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=quantisation_config("nf4", "float32")
    )
    ours = load_llm(str(folder), "nf4", dtype="float32").model
    ids = torch.arange(2, 42)[None]
    # With gradients on: without, bitsandbytes takes a CPU kernel that rounds scales to bf16.
    torch.testing.assert_close(ours(ids).logits, packed.train()(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["no/such-model", "elsewhere"])
def test_an_unknown_model_is_named_with_what_to_give_instead(name):
    with pytest.raises(StudyError, match=f"cannot load '{name}'.*smollm2-135m-instruct") as caught:
        load_llm(name)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_causal_is_refused(tmp_path, tiny_llm):
    import shutil

    folder = shutil.copytree(tiny_llm, tmp_path / "t5")
    (folder / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(StudyError, match="causal"):
        load_llm(str(folder))


@pytest.mark.parametrize("token", ["</s>", "Red"])
def test_a_tokenizer_that_ends_every_text_is_refused(tmp_path, tiny_llm, token):
    import json
    import shutil

    folder = shutil.copytree(tiny_llm, tmp_path / "ends")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    number = load_llm(str(tiny_llm)).tokenizer.convert_tokens_to_ids(token)
    end = {"id": token, "ids": [number], "tokens": [token]}
    template = [
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": token, "type_id": 0}},
    ]
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": template,
        "pair": template,
        "special_tokens": {token: end},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(StudyError, match=f"ends every text with {token}.* tokenizer.json"):
        load_llm(str(folder))


def test_an_adapter_of_another_base_is_refused(tmp_path, tiny_llm):
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    other = get_peft_model(LlamaForCausalLM(config), LoraConfig(target_modules=["q_proj"]))
    other.save_pretrained(tmp_path / "adapter")
    with pytest.raises(StudyError, match="does not fit"):
        load_llm(str(tiny_llm), adapter=tmp_path / "adapter")


def test_an_adapter_for_more_layers_than_the_model_has_is_refused(tmp_path, tiny_llm):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, LlamaForCausalLM

    deeper = LlamaForCausalLM(AutoConfig.from_pretrained(tiny_llm, num_hidden_layers=3))
    get_peft_model(deeper, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(StudyError, match=r"does not fit this model: 2 of its.*layers\.2\."):
        load_llm(str(tiny_llm), adapter=tmp_path)


def test_a_folder_without_an_adapter_is_named(tmp_path, tiny_llm):
    with pytest.raises(StudyError, match="adapter_model.safetensors is missing"):
        load_llm(str(tiny_llm), adapter=tmp_path)


@pytest.mark.parametrize(("gpu_gb", "fits"), [(8.0, True), (7.9, False)])
def test_a_gpu_unpacks_what_an_eighth_of_it_holds(tiny_llm, monkeypatch, gpu_gb, fits):
    model = load_llm(str(tiny_llm)).model
    whole = sum(weight.numel() * 2 for weight in model.parameters())  # bytes, in bfloat16
    gpu = SimpleNamespace(total_memory=gpu_gb * whole)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    assert may_unpack(model, "cuda:0") == fits and may_unpack(model, "cpu")


def test_int8_on_a_cpu_is_turned_back_once(tiny_llm):
    plain = load_llm(str(tiny_llm), dtype="float32").model.model.layers[0].mlp.up_proj.weight
    again = load_llm(str(tiny_llm), "int8", dtype="float32").model.model.layers[0].mlp.up_proj
    assert type(again) is torch.nn.Linear and not torch.equal(again.weight, plain)
    # rows are scaled to -127..127 by their largest entry: at most half a step (and some) off
    step = plain.abs().amax(1, keepdim=True) / 127
    assert ((again.weight - plain).abs() <= 0.6 * step).all()


def test_the_fingerprint_sees_weights_dtype_adapter_and_vocabulary(tiny_llm):

    def load(dtype="float32"):
        return load_llm(str(tiny_llm), dtype=dtype)

    plain = fingerprint(load())
    assert fingerprint(load()) == plain and len(plain) == 32
    seen = {plain, fingerprint(load("bfloat16"))}
    permuted = load()
    weight = permuted.model.get_decoder().layers[0].self_attn.q_proj.weight
    weight.data = weight.data.flip(0)  # the same bytes in another order
    seen.add(fingerprint(permuted))
    for seed in (0, 1):
        tuned = load()
        seen.add(fingerprint(LLM(tuned.name, fresh_adapter(tuned, seed=seed), tuned.tokenizer)))
    renamed = load()
    renamed.tokenizer.add_tokens(["new"])
    seen.add(fingerprint(renamed))
    assert len(seen) == 6


def test_dropout_keeps_the_mean_and_drops_its_share():
    torch.manual_seed(0)
    x = torch.ones(1000, 1001)
    dropout = Dropout(0.05)
    y = dropout(x)
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.95)]
    assert (y == 0).float().mean().item() == pytest.approx(0.05, abs=5 * (0.05 / 1e6) ** 0.5)
    for i in range(4):  # the four noises of a word are independent of each other
        columns = (y.flatten()[: 4 * 250_000].view(-1, 4) == 0).double()
        assert abs(np.corrcoef(columns.T.numpy()) - np.eye(4)).max() < 0.01
        assert columns[:, i].mean().item() == pytest.approx(0.05, abs=0.003)
    assert torch.equal(dropout.eval()(x), x) and torch.equal(Dropout(0)(x), x)
