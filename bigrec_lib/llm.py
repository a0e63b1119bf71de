"""Load a causal LLM with its tokenizer: an asset, a Hugging Face id, or a local folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bigrec_lib import assets
from bigrec_lib.files import StudyError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

QUANTISATIONS = ("none", "nf4", "int8")


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
    quantisation: one of QUANTISATIONS; 'nf4' has double quantisation (Dettmers et al., QLoRA).
    device: 'auto' takes a GPU where there is one.
    Raises StudyError for a name that cannot be loaded or is not a causal LM.
    """
    raise NotImplementedError(StudyError, assets)
