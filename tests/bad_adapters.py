"""What may be wrong with a directory of peft's: how each is made of a good one, and words of what is said about it."""

from __future__ import annotations

import json
import os
import pickle  # noqa: TID251 - to make what must not be read
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Case = tuple[Callable[[Path], object], str, str]
"""What is done to a good directory, words of the rule, words of the remedy."""

CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "model",
    "r": 2,
    "lora_alpha": 4,
    "lora_dropout": 0.05,
    "target_modules": ["q_proj", "v_proj"],
    "bias": "none",
    "megatron_core": "megatron.core",
    "init_lora_weights": True,
    "rank_pattern": {},
    "modules_to_save": None,
    "a_key_of_a_later_version": None,
}
NAME, FILE = "adapter_config.json", "adapter_model.safetensors"
LAYER = "base_model.model.model.layers.0.self_attn"
SIZES = {"q_proj": 16, "v_proj": 8}
"""Outputs, of tests.directories.CONFIG."""


def write(path: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """A sound adapter of the model of tests.directories; its tensors."""
    path.mkdir(parents=True, exist_ok=True)
    (path / NAME).write_text(json.dumps({**CONFIG, **changes}))
    generator = torch.Generator().manual_seed(2)
    tensors = {}
    for layer in range(2):
        for name, size in SIZES.items():
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{key}.lora_A.weight"] = torch.randn(2, 16, generator=generator)
            tensors[f"{key}.lora_B.weight"] = torch.randn(size, 2, generator=generator)
    save_file(tensors, path / FILE, metadata={"format": "pt"})
    return tensors


def config(**changes: Any) -> Callable[[Path], object]:
    return lambda path: (path / NAME).write_text(json.dumps({**CONFIG, **changes}))


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def rewrite(path: Path) -> None:
        tensors = load_file(path / FILE)
        change(tensors)
        save_file(tensors, path / FILE)

    return rewrite


def put(key: str, values: torch.Tensor) -> Callable[[Path], object]:
    return weights(lambda tensors: tensors.__setitem__(key, values))


def pop(key: str) -> Callable[[Path], object]:
    return weights(lambda tensors: tensors.pop(key))


def pickled(path: Path) -> None:
    (path / FILE).unlink()
    (path / "adapter_model.bin").write_bytes(pickle.dumps({"a": 1}))


A, B = f"{LAYER}.q_proj.lora_A.weight", f"{LAYER}.q_proj.lora_B.weight"
OTHER = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
CASES: dict[str, Case] = {
    "no configuration": (lambda path: (path / NAME).unlink(), f"{NAME} is not there", "peft's directory"),
    "a configuration that is none": (lambda path: (path / NAME).write_text("{"), "no JSON", "copy the directory"),
    "a key twice": (lambda path: (path / NAME).write_text('{"r": 2, "r": 4}'), "stands there twice", "copy"),
    "another kind": (config(peft_type="IA3"), "the adapter is LoRA", "merge it with peft"),
    "no kind": (config(peft_type=None), "the adapter is LoRA", "merge it with peft"),
    "biases": (config(bias="lora_only"), "bias: none", "merge it with peft"),
    "lora_bias": (config(lora_bias=True), "lora_bias = True", "merge it with peft"),
    "several ranks": (config(rank_pattern={"q_proj": 4}), "one rank and one scale", "merge it with peft"),
    "several scales": (config(alpha_pattern={"q_proj": 4}), "alpha_pattern", "merge it with peft"),
    "a base that was changed": (config(init_lora_weights="pissa"), "changes the base first", "merge it with peft"),
    "tokens": (config(trainable_token_indices=[1]), "trainable_token_indices", "merge it with peft"),
    "a later feature": (config(use_bdlora={"a": 1}), "use_bdlora", "merge it with peft"),
    "transposed": (config(fan_in_fan_out=True), "fan_in_fan_out is false", "adapter of this model"),
    "a rank of no number": (config(r="2"), "r is '2'", "copy"),
    "a rank of none": (config(r=0), "r is 0", "copy"),
    "no scale": (config(lora_alpha=-1), "lora_alpha is -1", "copy"),
    "a scale beyond all floats": (config(lora_alpha=10**400), "lora_alpha is 1000", "copy"),
    "a switch that is none": (config(use_dora="yes"), "use_dora is 'yes'", "copy"),
    "another rank": (config(r=4), "for this model and rank 4", "adapter of this model"),
    "magnitudes missing": (config(use_dora=True), "lora_magnitude_vector is missing", "adapter of this model"),
    "targets that are not there": (config(target_modules=["q_proj", "v_proj", "o_proj"]), "o_proj is missing", "copy"),
    "a target too few": (config(target_modules=["q_proj"]), "v_proj is not meant", "copy"),
    "no tensors": (lambda path: (path / FILE).unlink(), "it is not there", "finish the download"),
    "pickled": (pickled, "unpickling runs code", "save_pretrained writes safetensors"),
    "truncated": (lambda path: os.truncate(path / FILE, 900), "whole safetensors file", "copy the directory"),
    "half of a pair missing": (pop(B), "q_proj.lora_B is missing", "adapter of this model"),
    "another shape": (put(A, torch.zeros(2, 17)), "is [2, 17], for this model and rank 2 [2, 16]", "adapter of this"),
    "another architecture": (put(OTHER, torch.zeros(2, 16)), "the model has no such module", "adapter of this model"),
    "a tensor too many": (
        put(f"{LAYER}.q_proj.lora_C.weight", torch.zeros(2)),
        "no such module",
        "adapter of this model",
    ),
    "a weight that nobody saved": (put(f"{LAYER}.o_proj.weight", torch.zeros(16, 16)), "o_proj.weight", "adapter of"),
    "whole numbers": (put(A, torch.zeros(2, 16, dtype=torch.int32)), "is int32", "float32"),
    "a base of another shape": (
        put("base_model.model.model.embed_tokens.weight", torch.zeros(41, 16)),
        "is [40, 16] in this model; it has [41, 16]",
        "model.init_from",
    ),
}
