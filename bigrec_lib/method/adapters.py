"""LoRA adapters: put on a model, saved in PEFT's format, their weights while they are tuned, and
what several of them have in common."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bigrec_lib.files import StudyError, atomic, write_json
from bigrec_lib.method.llm import Dropout, without_notices

if TYPE_CHECKING:
    from peft import PeftModel

    from bigrec_lib.method.llm import LLM

CLIP = 1.0  # largest norm of a gradient


def add_adapter(
    llm: LLM,
    rank: int,
    alpha: int,
    dropout: float,
    target_modules: tuple[str, ...],
    seed: int,
    start: Path | None = None,
) -> PeftModel:
    """Put a LoRA adapter on the model, in place: initialised under `seed`, or read from `start`.

    Its output is scaled by alpha / rank, and it computes in the model's dtype.
    target_modules: names of layers, or ('all-linear',). start: the folder of a saved adapter.
    Raises StudyError for a name that no layer has, a model that cannot be adapted, or a `start`
    that holds an adapter of another shape.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer

    targets = list(target_modules)
    check_targets(llm.model, targets)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
    )
    torch.manual_seed(seed)
    try:
        with without_notices():
            model = get_peft_model(llm.model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"{llm.name} cannot be given an adapter: {reason}") from None
    config.base_model_name_or_path = llm.name
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            layer.lora_dropout["default"] = Dropout(dropout)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(llm.model.dtype)
    if start is not None:
        try:
            load_adapter(model, start)
        except BaseException:
            model.unload()
            raise
    return model


def check_targets(model: nn.Module, targets: list[str]) -> None:
    """Raise StudyError for a target module that is no linear layer of the model."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer

    layers = [
        name
        for name, module in model.named_modules()
        if hasattr(module, "in_features") or isinstance(module, Conv1D)
    ]
    ends = [f".{name}" for name in layers]
    absent = [target for target in targets if not any(end.endswith(f".{target}") for end in ends)]
    if absent and targets != ["all-linear"]:
        raise StudyError(
            f"target_modules {', '.join(absent)} match nothing in this model: choose from "
            f"{', '.join(sorted({name.split('.')[-1] for name in layers}))}, or all-linear"
        )


def load_adapter(model: PeftModel, folder: Path) -> None:
    """Load the weights of a saved adapter of the same shape into the model's.

    Raises StudyError if it has another shape.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = load_file(folder / "adapter_model.safetensors", device=str(model.device))
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    if {n: w.shape for n, w in weights.items()} != {n: w.shape for n, w in state.items()}:
        raise StudyError(
            f"the adapter in {folder} has another rank or other target_modules: continue with "
            "the ones it was tuned with"
        )
    set_peft_model_state_dict(model, weights)


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter in PEFT's format into `folder`, each file atomically."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = model.peft_config["default"].to_dict() | {"inference_mode": True}
    fields = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
    }
    write_json(fields, folder / "adapter_config.json")
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    with atomic(folder / "adapter_model.safetensors") as partial:
        save_file({name: weight.contiguous() for name, weight in weights.items()}, partial)


def count_parameters(model: PeftModel) -> tuple[int, int]:
    """The number of parameters of the adapter, and of the model with it."""
    adapter = sum(w.numel() for name, w in model.named_parameters() if "lora_" in name)
    return adapter, model.get_nb_trainable_parameters()[1]


class Weights:
    """The adapter's weights twice: exact ones in fp32, and the copies the model computes with.

    AdamW moves the exact ones; in bf16, small moves would be rounded away.
    """

    def __init__(self, model: PeftModel):
        self.copies = {n: w for n, w in model.named_parameters() if w.requires_grad}
        self.exact = {n: nn.Parameter(w.detach().float()) for n, w in self.copies.items()}
        for weight in self.exact.values():
            weight.grad = torch.zeros_like(weight)
        self.optimiser = torch.optim.AdamW(self.exact.values(), weight_decay=0.0)

    def collect(self) -> None:
        """Add the copies' gradients to those of the exact weights, and clear them.

        Layers that no text goes through, such as those for pictures, have none.
        """
        for name, copy in self.copies.items():
            if copy.grad is not None:
                self.exact[name].grad += copy.grad
                copy.grad = None

    def move(self, learning_rate: float) -> None:
        """One AdamW step along the collected gradients."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        nn.utils.clip_grad_norm_(self.exact.values(), CLIP)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=False)
        self.copy()

    @torch.no_grad()
    def copy(self) -> None:
        for name, copy in self.copies.items():
            copy.copy_(self.exact[name])

    def state(self) -> dict[str, Tensor]:
        """The exact weights and their two AdamW moments, by name."""
        tensors = {}
        for name, weight in self.exact.items():
            tensors[name] = weight.data
            for moment in ("exp_avg", "exp_avg_sq"):
                tensors[f"{name}/{moment}"] = self.optimiser.state[weight][moment]
        return tensors

    def restore(self, state: dict[str, Tensor], steps: int) -> None:
        """Take over what `state` gave after `steps` steps, on whatever device its tensors are."""
        for name, weight in self.exact.items():
            weight.data.copy_(state[name])
            self.optimiser.state[weight] = {
                "step": torch.tensor(float(steps)),
                "exp_avg": state[f"{name}/exp_avg"].to(weight.device),
                "exp_avg_sq": state[f"{name}/exp_avg_sq"].to(weight.device),
            }
        self.copy()


# --------------------------------------------------------------- adapters as updates of weights


@dataclass(frozen=True)
class Update:
    """What an adapter adds to each layer's weights: scale · B A, kept as its factors.

    layers: name of the layer -> A (r, in), B (out, r), in the dtype they were saved in.
    """

    layers: dict[str, tuple[Tensor, Tensor]]
    config: dict[str, Any]

    @property
    def scale(self) -> float:
        return self.config["lora_alpha"] / self.config["r"]


def read_update(folder: Path) -> Update:
    """The adapter that `save_adapter` wrote into a folder. Raises StudyError if it is no LoRA."""
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "adapter_model.safetensors")
    ends = (".lora_A.weight", ".lora_B.weight")
    names = sorted({name.removesuffix(ends[0]) for name in weights if name.endswith(ends[0])})
    if {name + end for name in names for end in ends} != set(weights):
        raise StudyError(f"{folder} holds more than LoRA's A and B: it has no plain weight update")
    layers = {name: (weights[name + ends[0]], weights[name + ends[1]]) for name in names}
    return Update(layers, config)


def on_same_layers(updates: Sequence[Update]) -> list[Update]:
    """The updates, each with factors of zeros for the layers that only others change."""
    layers = {name: factors for update in updates for name, factors in update.layers.items()}
    zeros = {name: (torch.zeros_like(a), torch.zeros_like(b)) for name, (a, b) in layers.items()}
    return [
        Update(dict(sorted((zeros | update.layers).items())), update.config | named_targets(layers))
        for update in updates
    ]


def named_targets(layers: Iterable[str]) -> dict[str, list[str]]:
    """PEFT's setting for which layers have an adapter, by the last parts of their names."""
    return {"target_modules": sorted({name.rpartition(".")[2] for name in layers})}


def mean_update(updates: Sequence[Update]) -> Update:
    """The mean of k weight updates, exactly: an adapter of rank k r with the same alpha.

    The mean of scale · B_i A_i is alpha / (k r) · [B_1 … B_k][A_1; …; A_k]: no number changes, so
    nothing is rounded. (PEFT's `add_weighted_adapter` with 'cat' stacks them in the same way.)
    Raises StudyError for adapters of other layers, rank or alpha.
    """
    first, *others = updates
    for other in others:
        if shape_of(other) != shape_of(first):
            raise StudyError(
                "adapters of other layers, rank or alpha have no mean of the same kind: tune all "
                "of them with the same settings"
            )
    layers = {
        name: tuple(
            torch.cat([update.layers[name][part] for update in updates], dim=part)
            for part in (0, 1)
        )
        for name in first.layers
    }
    rank = first.config["r"] * len(updates)
    return Update(layers, first.config | {"r": rank})  # type: ignore[arg-type]


def shape_of(update: Update) -> tuple:
    """What adapters must have in common to be averaged."""
    shapes = {name: (a.shape, b.shape) for name, (a, b) in update.layers.items()}
    return shapes, update.config["r"], update.config["lora_alpha"]


def save_update(update: Update, folder: Path) -> None:
    """Write an adapter in PEFT's format into `folder`, each file atomically."""
    from safetensors.torch import save_file

    write_json(update.config, folder / "adapter_config.json")
    weights = {
        f"{name}.lora_{part}.weight": factor.contiguous()
        for name, factors in update.layers.items()
        for part, factor in zip("AB", factors, strict=True)
    }
    with atomic(folder / "adapter_model.safetensors") as partial:
        save_file(weights, partial)


def inner_products(first: Update, second: Update) -> dict[str, float]:
    """Inner product of two weight updates, layer by layer, in fp64.

    <B_1 A_1, B_2 A_2> = trace(A_1ᵀ B_1ᵀ B_2 A_2) = sum of (B_1ᵀ B_2) ∘ (A_1 A_2ᵀ): products of
    r x r numbers, never a matrix as large as the layer.
    """
    scale = first.scale * second.scale
    products = {}
    for name, (a1, b1) in first.layers.items():
        a2, b2 = second.layers[name]
        left, right = b1.double().T @ b2.double(), a1.double() @ a2.double().T
        products[name] = scale * float((left * right).sum())
    return products


def cosines(first: Update, second: Update) -> dict[str, float]:
    """Cosine of two weight updates: layer -> cosine, and '' -> that of all layers together.

    NaN where one of them is zero. Raises StudyError for adapters of other layers.
    """
    if set(first.layers) != set(second.layers):
        raise StudyError("adapters of other layers cannot be compared: tune the same layers")
    pairs = ((first, second), (first, first), (second, second))
    dot, square1, square2 = (
        products | {"": sum(products.values())}
        for products in (inner_products(*pair) for pair in pairs)
    )
    lengths = {name: math.sqrt(square1[name] * square2[name]) for name in dot}
    return {name: dot[name] / length if length else math.nan for name, length in lengths.items()}
