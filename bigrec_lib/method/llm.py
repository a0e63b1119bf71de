"""Load a causal LLM with its tokenizer: an asset, a Hugging Face id, or a local folder."""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bigrec_lib.files import StudyError
from bigrec_lib.method import assets, cpu

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase

NOISY = ("bitsandbytes", "transformers")  # loggers
UNPACKED = 1 / 8  # of a GPU's memory, for weights that need not stay packed
SMALL = 2e9  # parameters; 0.1 and 1.1 billion were measured (docs/gpu.md)


@dataclass(frozen=True)
class LLM:
    """A model with its tokenizer. `name` is what the user asked for."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def device(self) -> torch.device:
        return self.model.device


def load_llm(
    name: str,
    quantisation: str = "none",
    dtype: str = "bfloat16",
    device: str = "auto",
    adapter: Path | None = None,
) -> LLM:
    """Load an LLM in evaluation mode, its adapter (if any) kept separate from the base.

    name: an asset of `assets.MODELS`, a Hugging Face id, or a folder.
    quantisation: 'none', 'nf4' (4 bit with double quantisation, as in QLoRA) or 'int8'. On a CPU,
        and on a GPU with room to spare, the quantised weights are turned back into `dtype` once:
        the same function, several times faster than doing it at every step.
    dtype: of weights and arithmetic; float32 instead on a CPU that cannot multiply bfloat16.
    device: 'auto' takes a GPU where there is one.
    Raises StudyError for a name that cannot be loaded, a model that is not a causal LM, an adapter
    made for another base, or a tokenizer without an end of sequence or that ends every text.
    """
    with without_notices():
        import bitsandbytes  # noqa: F401  it logs notices when first imported
        from transformers import AutoModelForCausalLM

    source = assets.fetch(name) if name in assets.MODELS else name
    device = best_device(device)
    if device == "cpu" and dtype == "bfloat16" and not cpu.multiplies_bfloat16():
        dtype = "float32"
    try:
        tokenizer = load_tokenizer(source)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            device_map=device,
            quantization_config=quantisation_config(quantisation, dtype),
        )
    except (OSError, ValueError, TypeError) as error:
        raise StudyError(
            f"cannot load {name!r} as a causal LLM ({str(error).splitlines()[0]}): give one of "
            f"{', '.join(assets.MODELS)}, a Hugging Face id, or a folder"
        ) from None
    if quantisation != "none" and may_unpack(model, device):
        leave_file(model)
        with without_notices():
            model = model.dequantize()
        return_memory()
    if tokenizer.eos_token_id is None:
        raise StudyError(f"the tokenizer of {name!r} has no end-of-sequence token: set one")
    end = appended(tokenizer)
    if end:
        raise StudyError(
            f"the tokenizer of {name!r} ends every text with {end}, so no prompt can be continued: "
            "take it out of the post_processor in tokenizer.json, if there is one, and set "
            "add_eos_token to false in tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if adapter is not None:
        model = with_adapter(model, adapter)
    return LLM(name, model.eval(), tokenizer)


def may_unpack(model: PreTrainedModel, device: str) -> bool:
    """Whether packed weights are to become plain ones: those of a CPU always, those of a GPU where
    they then take no more than UNPACKED of its memory."""
    if device == "cpu":
        return True
    memory = torch.cuda.get_device_properties(device).total_memory
    return model.num_parameters() * model.dtype.itemsize <= UNPACKED * memory


def waits_for_starts(llm: LLM) -> bool:
    """Whether a GPU computes a model's products faster than they can be started."""
    return llm.device.type != "cpu" and n_parameters(llm) < SMALL


def leave_file(model: PreTrainedModel) -> None:
    """Copy the weights that are not quantised, which otherwise keep the whole file in memory."""
    for weight in model.parameters():
        if weight.is_floating_point():
            weight.data = weight.data.clone()
    return_memory()


def return_memory() -> None:
    """Give freed memory back to the system. glibc otherwise keeps it: twice the weights, once they
    are unpacked. Without glibc, nothing happens."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or Hugging Face id, which cuts texts as its tokenizer.json says.

    In transformers 5 the class that tokenizer_config.json names decides that, and it is often the
    wrong one: the digits of OLMo 2, Granite and others become other tokens than those the model
    was trained with (github.com/huggingface/transformers/issues/45920).
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer
    from transformers.utils import cached_file

    tokenizer = AutoTokenizer.from_pretrained(source)
    path = cached_file(
        source,
        "tokenizer.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path and tokenizer.is_fast:
        original, backend = Tokenizer.from_file(path), tokenizer.backend_tokenizer
        for part in ("model", "normalizer", "pre_tokenizer", "decoder"):
            setattr(backend, part, getattr(original, part))
    return tokenizer


def appended(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that a tokenizer puts after every text; '' for none."""
    *_, last = tokenizer("a")["input_ids"]
    *_, last_of_text = tokenizer("a", add_special_tokens=False)["input_ids"]
    ends = last != last_of_text or last == tokenizer.eos_token_id
    return tokenizer.convert_ids_to_tokens(last) if ends else ""


def tokenizer_of(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer alone of what `load_llm` loads under this name."""
    return load_tokenizer(assets.fetch(name) if name in assets.MODELS else name)


@contextmanager
def without_notices() -> Iterator[None]:
    """Silence notices about what is intended here, wherever the libraries are first used.

    tqdm: there are no widgets, bars are text. bitsandbytes: it has no kernel for 4-bit products on
    this CPU, where none are computed. transformers: weights were turned back to the dtype asked
    for. PEFT: it reads an attribute of models that transformers will rename, and sees for itself
    where weights are stored transposed (GPT-2).
    """
    levels = {name: logging.getLogger(name).level for name in NOISY}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def best_device(device: str) -> str:
    """The device, or for 'auto' a GPU where there is one."""
    if device != "auto":
        return device
    gpu = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"  # one GPU for each process
    return gpu if torch.cuda.is_available() else "cpu"


def quantisation_config(quantisation: str, dtype: str) -> BitsAndBytesConfig | None:
    """What transformers needs to load a base in 4 or 8 bit, or None."""
    from transformers import BitsAndBytesConfig

    if quantisation == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    return BitsAndBytesConfig(load_in_8bit=True) if quantisation == "int8" else None


def with_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The model with a PEFT adapter on it, which computes in the model's dtype.

    Raises StudyError if the folder holds no adapter in safetensors, or one that does not fit.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    path = Path(folder) / "adapter_model.safetensors"
    if not path.exists():
        raise StudyError(f"{path} is missing: give a folder that 02_tune_llm or PEFT has written")
    try:
        with without_notices():
            tuned = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
        with safe_open(path, framework="pt") as file:
            mismatches = set(file.keys()) ^ set(
                get_peft_model_state_dict(tuned, save_embedding_layers=False)
            )
    except (ValueError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StudyError(f"the adapter in {folder} does not fit this model: {reason}") from None
    if mismatches:
        raise StudyError(
            f"the adapter in {folder} does not fit this model: {len(mismatches)} of its weights or "
            f"places have no counterpart, such as {min(mismatches)}"
        )
    return tuned


def n_parameters(llm: LLM) -> int:
    """Parameters of a model without its adapters; tied ones count once, packed ones unpacked."""
    base = getattr(llm.model, "get_base_model", lambda: llm.model)()
    adapter_size = sum(w.numel() for name, w in base.named_parameters() if "lora_" in name)
    return base.num_parameters() - adapter_size


def positions(model: PreTrainedModel) -> float:
    """How many tokens a text may have in this model; infinite where its configuration is silent."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", math.inf)


@contextmanager
def plain_generate(model: PreTrainedModel | PeftModel) -> Iterator[PreTrainedModel]:
    """The model without its PEFT wrapper, its adapter still in use; its `generate` does only what
    it is asked.

    A model's own `generation_config` may set sampling, penalties, forced or forbidden tokens, and
    more: `generate` takes from it whatever its caller leaves open.
    """
    from transformers import GenerationConfig

    causal = getattr(model, "get_base_model", lambda: model)()
    config = causal.generation_config
    causal.generation_config = GenerationConfig()
    try:
        yield causal
    finally:
        causal.generation_config = config


def cache_problem(model: PreTrainedModel, length: int) -> str:
    """Why texts of up to `length` tokens cannot share a cache in this model; '' if they can.

    A token has to attend to all tokens before it, and to be given its position, since entries of
    other texts may stand between.
    """
    config = model.config.get_text_config()
    if model._is_stateful:
        return "a state in place of keys and values"
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        return "positions that cannot be told"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) or length
    if kinds <= {"full_attention", "sliding_attention"} and window >= length:
        return ""
    return f"attention of kind {', '.join(sorted(kinds))}, window {window}"


def fingerprint(llm: LLM) -> str:
    """A hash (32 hex digits) of a model's weights, its adapters' among them, and its vocabulary.

    Every tensor counts with its name, dtype, shape and bytes, so a permuted matrix is another one.
    An adapter's alpha and the model's configuration do not.
    """
    digest = hashlib.sha256()
    for name, tensor in llm.model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    for token, index in sorted(llm.tokenizer.get_vocab().items()):
        digest.update(f"{index} {token}".encode())
    return digest.hexdigest()[:32]


class Dropout(nn.Module):
    """Dropout whose mask takes 16 random bits an element.

    A CPU makes random numbers one after another: PyTorch's own dropout takes a fifth of a step.
    On a GPU it is one kernel, and this would be five.
    """

    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.share)
        words = torch.empty(math.ceil(x.numel() / 4), dtype=torch.int64, device=x.device)
        noise = words.random_(-(2**63), None).view(torch.int16)[: x.numel()].view(x.shape)
        keep = noise.ge_(round(self.share * 2**16) - 2**15)  # 1 or 0; a bool takes far longer
        return x * keep.to(x.dtype) * (1 / (1 - self.share))
