"""Small GGUF files, written with the gguf package's own writer, for tests of what is read of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, MLP, VOCAB = 256, 2, 4, 2, 512, 48
HEAD = {"llama": 128, "qwen2": 64, "qwen3": 128}
"""transformers takes 128 for Qwen3 whatever the file says, and the width's share for Qwen2."""
F32 = gguf.GGMLQuantizationType.F32


def shapes_of(architecture: str, tied: bool = False) -> dict[str, tuple[int, ...]]:
    """By llama.cpp's names."""
    size = HEAD[architecture]
    query, key_value = HEADS * size, KV_HEADS * size
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        inside: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (HIDDEN,),
            "ffn_norm.weight": (HIDDEN,),
            "attn_q.weight": (query, HIDDEN),
            "attn_k.weight": (key_value, HIDDEN),
            "attn_v.weight": (key_value, HIDDEN),
            "attn_output.weight": (HIDDEN, query),
            "ffn_gate.weight": (MLP, HIDDEN),
            "ffn_up.weight": (MLP, HIDDEN),
            "ffn_down.weight": (HIDDEN, MLP),
        }
        if architecture == "qwen2":
            inside |= {"attn_q.bias": (query,), "attn_k.bias": (key_value,), "attn_v.bias": (key_value,)}
        if architecture == "qwen3":
            inside |= {"attn_q_norm.weight": (size,), "attn_k_norm.weight": (size,)}
        found |= {f"blk.{layer}.{name}": shape for name, shape in inside.items()}
    return found if tied else {**found, "output.weight": (VOCAB, HIDDEN)}


def metadata_of(architecture: str) -> dict[str, Any]:
    """After the architecture's name."""
    return {
        "block_count": LAYERS,
        "context_length": 512,
        "embedding_length": HIDDEN,
        "feed_forward_length": MLP,
        "vocab_size": VOCAB,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "rope.dimension_count": HEAD[architecture],
        "rope.freq_base": 500000.0,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }


def write(
    path: Path,
    architecture: str = "llama",
    kind: gguf.GGMLQuantizationType = F32,
    tied: bool = False,
    change: Mapping[str, Any] | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
    without: str | None = None,
    endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
    name: str | None = None,
) -> dict[str, np.ndarray]:
    """A file whose matrices are of a type, from random bytes where gguf cannot quantise to it; their FP32 values.

    change: other metadata, None takes it away. name: of the architecture in the metadata.
    """
    name = architecture if name is None else name
    writer = gguf.GGUFWriter(path, name, endianess=endianess)
    for key, value in {**metadata_of(architecture), **(change or {})}.items():
        full = key if key.startswith(("general.", "split.", "tokenizer.")) else f"{name}.{key}"
        if isinstance(value, float):
            writer.add_float32(full, value)
        elif isinstance(value, str):
            writer.add_string(full, value)
        elif value is not None:
            writer.add_uint32(full, value)
    random, values = np.random.default_rng(3), {}
    for tensor, shape in shapes_of(architecture, tied).items():
        exact = random.standard_normal(shape, dtype=np.float32)
        if tensor == without:
            continue
        mine = kind if len(shape) == 2 else F32
        data = packed(exact, mine, random)
        writer.add_tensor(tensor, data, raw_dtype=mine)
        values[tensor] = gguf.dequantize(data, mine).astype(np.float32)
    for tensor, data in (extra or {}).items():
        writer.add_tensor(tensor, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def packed(exact: np.ndarray, kind: gguf.GGMLQuantizationType, random: np.random.Generator) -> np.ndarray:
    """In a type's blocks."""
    try:
        return gguf.quantize(exact, kind)
    except NotImplementedError:
        shape = gguf.quant_shape_to_byte_shape(exact.shape, kind)
        return random.integers(0, 256, shape, dtype=np.uint8)


def readable(kind: gguf.GGMLQuantizationType) -> bool:
    """Whether gguf dequantises a type."""
    try:
        gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8), kind)
    except NotImplementedError:
        return False
    return True


KINDS = [kind for kind in gguf.GGMLQuantizationType if readable(kind)]
