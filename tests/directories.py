"""Small model directories in Hugging Face's layout, written by hand, for tests of what is read of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from trainer.config.groups.model import ModelConfig
from trainer.pretrained.config_json import format_of, read_config

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 40,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


def tensors_of(config: Mapping[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random FP32 tensors under the names and in the shapes of the family's format."""
    family, fields = read_config(config)
    generator = torch.Generator().manual_seed(seed)
    model = ModelConfig(family=family, **fields)
    return {tensor.name: torch.randn(tensor.shape, generator=generator) for tensor in format_of(family).tensors(model)}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def write_tokenizer(path: Path, ids: int) -> None:
    """A word-level tokenizer.json."""
    vocabulary = {("<unk>", "<|endoftext|>")[index] if index < 2 else f"w{index}": index for index in range(ids)}
    end = {"id": 1, "content": "<|endoftext|>", "special": True, "normalized": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    value = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [end | flags],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    write_json(path / "tokenizer.json", value)


def write(
    path: Path, config: Mapping[str, Any] | None = None, tensors: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """One file and config.json; what is in the file."""
    path.mkdir(parents=True, exist_ok=True)
    config = CONFIG if config is None else config
    found = dict(tensors_of(config) if tensors is None else tensors)
    write_json(path / "config.json", config)
    save_file(found, path / "model.safetensors", metadata={"format": "pt"})
    return found


def write_shards(path: Path, tensors: Mapping[str, torch.Tensor], count: int = 2) -> dict[str, str]:
    """Shards and their index in place of the one file; the index's map."""
    (path / "model.safetensors").unlink(missing_ok=True)
    names = list(tensors)
    weight_map = {}
    for number in range(count):
        file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        mine = names[number::count]
        save_file({name: tensors[name] for name in mine}, path / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(mine, file)
    write_json(path / "model.safetensors.index.json", {"metadata": {"total_size": 0}, "weight_map": weight_map})
    return weight_map
