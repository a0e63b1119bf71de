"""What a GPU would do, where there is none: its self-test with tiny LLMs, a device that only says
it is one, and `meta`, a device without data, on which waiting for a value is an error."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toy import fresh_adapter, tuning_settings
from toy_llms import search_of
from toy_samples import toy_samples
from transformers import LlamaConfig, LlamaForCausalLM

from bigrec_lib.method import (
    adapters,
    answers,
    attention,
    beams,
    generation,
    llm,
    losses,
    tree_cache,
    tuning,
)

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    """The module benchmarks/gpu.py."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    return gpu


@pytest.fixture
def world(gpu, tmp_path):
    """A tiny LLM, an adapter, titles."""
    titles = gpu.made_titles(60)
    gpu.make_llm(tmp_path / "llm", gpu.TINY_SHAPES["tiny"], titles, "cpu")
    folder = str(tmp_path / "llm")
    gpu.make_adapter(llm.load_llm(folder), tmp_path / "adapter")
    return folder, tmp_path / "adapter", titles


# ------------------------------------------------------------------------------- the self-test


@pytest.mark.slow
def test_the_self_test_is_green(tmp_path):
    path = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", "--json", path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS.parent), "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(path.read_text())
    assert result == json.loads(done.stdout.splitlines()[-1])
    assert result["ok"] and all(check["ok"] for check in result["checks"].values())
    assert len(result["checks"]) == 8 and not result["left_out"]
    rows = {(row["llm"], row["quantisation"]) for row in result["measured"]}
    assert len(rows) == 6
    assert all(row["generation_over_floor"] > 1 for row in result["measured"])


def test_it_needs_little_beyond_torch_and_transformers():
    absent = "bm25s faiss gguf matplotlib nbformat papermill pydantic seaborn snakemake"
    code = f"import sys; sys.modules.update(dict.fromkeys({absent.split()!r})); import gpu"
    command = [sys.executable, "-c", code]
    env = os.environ | {"PYTHONPATH": f"{BENCHMARKS}{os.pathsep}{BENCHMARKS.parent}"}
    subprocess.run(command, check=True, env=env)


def test_its_check_of_the_search_fails_when_beams_see_each_other(gpu, world, monkeypatch):
    folder, adapter, titles = world
    exact = gpu.load(folder, "none", "float32", "cpu", adapter)
    texts = [sample.prompt for sample in gpu.made_samples(titles, 4)]
    assert gpu.check_search(exact, texts, search_of(6, batch_size=4))["ok"]
    alone = tree_cache.additive
    monkeypatch.setattr(
        tree_cache,
        "additive",
        lambda visible, dtype: alone(visible.any(1, keepdim=True).expand_as(visible), dtype),
    )
    monkeypatch.setattr(generation, "tree_problem", lambda *_: "")
    assert not gpu.check_search(exact, texts, search_of(6, batch_size=4))["ok"]


def test_its_check_of_the_losses_fails_on_other_weights(gpu, world, tmp_path, monkeypatch):
    folder, adapter, titles = world
    samples = gpu.made_samples(titles, 8)
    arguments = (folder, "nf4", samples, adapter, "cpu")
    assert gpu.check_tuning(*arguments, tmp_path / "same")["ok"]
    load = gpu.load

    def other(*wanted):
        loaded = load(*wanted)
        with torch.no_grad():
            loaded.model.get_output_embeddings().weight.mul_(1.1)
        return loaded

    monkeypatch.setattr(gpu, "load", other)
    assert not gpu.check_tuning(*arguments, tmp_path / "other")["ok"]


def test_its_check_of_grounding_fails_on_rounded_vectors(gpu, monkeypatch):
    vectors = torch.randn(500, 16, generator=torch.Generator().manual_seed(0)).numpy()
    assert gpu.check_grounding(vectors, "cpu")["ok"]
    exact = gpu.grounding.ranks
    monkeypatch.setattr(
        gpu.grounding, "ranks", lambda queries, *rest: exact(queries.round(), *rest)
    )
    assert not gpu.check_grounding(vectors, "cpu")["ok"]


@pytest.mark.parametrize("quantisation", ["none", "nf4", "int8"])
def test_the_memory_it_plans_is_what_the_weights_take(gpu, world, quantisation):
    model = gpu.load(world[0], quantisation, "bfloat16", "cpu").model
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}
    planned = gpu.needed(gpu.TINY_SHAPES["tiny"], quantisation) * 1e9
    assert planned == pytest.approx(sum(tensors.values()), rel=0.03)


def test_a_llama_of_seven_billion_weights_takes_what_it_is_known_to(gpu):
    assert gpu.needed(gpu.SHAPES["random 7B"], "none") == pytest.approx(13.5, abs=0.1)
    assert gpu.needed(gpu.SHAPES["random 7B"], "nf4") == pytest.approx(3.9, abs=0.1)


# ---------------------------------------------------------------------- a device without data


@pytest.fixture
def nowhere():
    """A Llama on `meta`."""
    sizes = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 64}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(**sizes, **heads)).eval()


def test_a_step_of_the_search_waits_for_no_value_and_stays_on_the_device(nowhere):
    rules = beams.Rules(search_of(12, batch_size=4), eos=1)
    prefix = tree_cache.prefill(nowhere, [1, 2, 3])
    with torch.inference_mode(), attention.attending(nowhere, attention.GROUPED):
        batch = generation.Batch(nowhere, prefix, [[5, 6, 7], [6, 7], [6, 8], [9]], rules)
        for _ in range(3):
            batch.step()
    values = vars(batch.hypotheses).values()
    assert {value.device.type for value in [*values, batch.tree.lineage]} == {"meta"}
    with pytest.raises((NotImplementedError, RuntimeError)):  # which does wait
        batch.done()


def test_a_checkpoint_is_restored_to_where_the_weights_are(nowhere):
    weights = adapters.Weights(fresh_adapter(llm.LLM("nowhere", nowhere, None)))
    state = {
        f"{name}{part}": torch.zeros(weight.shape)
        for name, weight in weights.exact.items()
        for part in ("", "/exp_avg", "/exp_avg_sq")
    }
    weights.restore(state, 1)
    assert len(weights.optimiser.state) == len(weights.exact) > 0
    for moments in weights.optimiser.state.values():
        assert {moments[name].device.type for name in ("exp_avg", "exp_avg_sq")} == {"meta"}


# -------------------------------------------------------------- a device that only says it is one


class Elsewhere(torch.Tensor):
    """A tensor of the CPU that says it is on a GPU."""

    @property
    def device(self):
        return torch.device("cuda")


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_on_a_gpu_is_that_of_a_cpu(heads):
    torch.manual_seed(0)
    query = torch.randn(3, 4, 5, 8)
    key, value = torch.randn(2, 3, heads, 32, 8)
    mask = tree_cache.additive(torch.rand(3, 5, 30) < 0.5, torch.float32)
    mask[..., 0] = 0  # everybody sees something
    here, _ = attention.grouped_attention(None, query, key, value, mask, 0.3)
    query = query.as_subclass(Elsewhere)
    there, _ = attention.grouped_attention(None, query, key, value, mask, 0.3)
    torch.testing.assert_close(there.as_subclass(torch.Tensor), here)


def test_likeliest_tokens_on_a_gpu_are_those_of_a_cpu():
    torch.manual_seed(0)
    rules = beams.Rules(search_of(6), eos=1)
    hypotheses = beams.Hypotheses.start([0, 1, 2], 4, rules, torch.device("cpu"))
    logits = torch.randn(3, 4, 50)
    here = beams.likeliest(logits, 8, hypotheses, None)
    there = beams.likeliest(logits.as_subclass(Elsewhere), 8, hypotheses, None)
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one, other.as_subclass(torch.Tensor))


def test_dropout_on_a_gpu_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(200, 500)
    out = llm.Dropout(0.2)(x.as_subclass(Elsewhere)).as_subclass(torch.Tensor)
    assert set(out.unique().tolist()) == {0, 1.25}
    assert float(out.mean()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("device", "size", "waits"), [("cuda", 1, True), ("cpu", 1, False),
                                                       ("cuda", 7e9, False)])  # fmt: skip
def test_only_a_gpu_waits_for_starts_and_only_of_a_small_model(monkeypatch, device, size, waits):
    monkeypatch.setattr(llm, "n_parameters", lambda llm: size)
    assert llm.waits_for_starts(SimpleNamespace(device=torch.device(device))) == waits


def test_a_gpu_that_waits_for_starts_reads_every_sample_whole(world, monkeypatch):
    loaded = llm.load_llm(world[0])
    samples = toy_samples(3)
    assert losses.prepare(loaded, samples, False, True).shared
    monkeypatch.setattr(losses, "waits_for_starts", lambda llm: True)
    assert not losses.prepare(loaded, samples, False, True).shared


def test_gradients_are_never_those_of_cudnn(world, tmp_path, monkeypatch):
    """With padding they held NaN: Qwen2.5-0.5B in bfloat16, PyTorch 2.11 on an H200."""
    allowed = []

    def loss_sum(*arguments):
        allowed.append(torch.backends.cuda.cudnn_sdp_enabled())
        return real(*arguments)

    real = losses.loss_sum
    monkeypatch.setattr(tuning, "loss_sum", loss_sum)
    monkeypatch.setattr(answers, "loss_sum", loss_sum)
    loaded, samples = llm.load_llm(world[0]), toy_samples(4)
    tuning.tune(loaded, samples, samples, tuning_settings(), tmp_path / "tuned")
    steps = len(allowed)
    answers.efforts(loaded, samples, 2, 4, 0)
    assert steps and len(allowed) == steps + 4 and not any(allowed)
    assert torch.backends.cuda.cudnn_sdp_enabled()


# ------------------------------------------------------------------------------ packed layers


def test_packed_layers_keep_their_adapter_apart(gpu, world):
    """Merged into a packed weight, an adapter would be rounded to 4 bit."""
    folder, adapter, _ = world
    packed = gpu.load(folder, "nf4", "float32", "cpu", adapter)
    before = {name: type(layer) for name, layer in packed.model.get_base_model().named_modules()}
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        expected = packed.model(input_ids=ids).logits
        with generation.plain(packed.model) as model:
            assert {name: type(layer) for name, layer in model.named_modules()} == before
            torch.testing.assert_close(model(input_ids=ids).logits, expected)
