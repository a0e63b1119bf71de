"""A GGUF file becomes a Hugging Face folder, once, with as many weights as the model has."""

from pathlib import Path

import numpy as np

from bigrec_lib.files import StudyError

ONE_MATRIX = 0.2  # relative difference: 0.04 to 0.08 by quantisation, 1.4 for unrelated matrices


class ConversionError(StudyError):
    """A GGUF file that transformers cannot read, or reads wrongly."""


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Turn a GGUF file into a Hugging Face folder: bf16 safetensors, config and tokenizer.

    Raises ConversionError for an architecture or a tokenizer that transformers cannot read, or
    reads wrongly.
    """
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    print(f"converting {gguf.name} to safetensors, once", flush=True)
    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(
            **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
    except (ValueError, KeyError, NotImplementedError) as error:
        raise ConversionError(
            f"transformers {transformers.__version__} cannot read {gguf.name} "
            f"({str(error).splitlines()[0]}): choose another model, or give the folder or Hugging "
            "Face id of this one in safetensors"
        ) from None
    ends = model.config.eos_token_id  # one, several or None
    if ends is not None and tokenizer.eos_token_id not in np.atleast_1d(ends):
        raise ConversionError(
            f"transformers {transformers.__version__} reads {tokenizer.eos_token} from {gguf.name} "
            "as the end of a text, and the file names another token (5.17 does so, 5.23 does not): "
            "update transformers, or give this model's folder or Hugging Face id in safetensors"
        )
    tie_copies(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tie_copies(model) -> None:
    """Tie output weights and embeddings again where they are two quantisations of one matrix.

    A GGUF file may hold tied weights twice, with more bits for the output, and transformers then
    takes them for two matrices. The output's copy stays, as it is the finer one.
    """
    output, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if output.weight.shape != embedding.weight.shape:
        return
    difference = (output.weight - embedding.weight).norm() / output.weight.norm()
    if difference < ONE_MATRIX:
        embedding.weight = output.weight
        model.config.tie_word_embeddings = True
