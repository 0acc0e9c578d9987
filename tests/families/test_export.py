"""Directories there and back: what transformers has saved is imported and exported bit for bit, and loads as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.families.checkpoints import parameters, save_run
from tests.families.pairs import pair, samples
from trainer.commands.import_hf import import_directory
from trainer.pretrained.config_json import read_config
from trainer.pretrained.export import export

CASES = [
    ("llama", "llama 3.2"),
    ("llama", "biased"),
    ("llama", "yarn, mscale"),
    ("mistral", "window"),
    ("mistral", "no window"),
    ("qwen2", "windows behind the first layer"),
    ("qwen3", "tied"),
    ("falcon", "7b"),
    ("falcon", "40b, odd, biased"),
    ("falcon", "old, multi-head"),
    ("gpt2", "gpt2"),
    ("olmo2", "grouped"),
]
CLOSE = 1e-5


def held(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in directory.glob("*.safetensors") for name, tensor in load_file(file).items()}


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=tokens, use_cache=False).logits
    return found


@pytest.mark.parametrize(("family", "name"), CASES, ids=str)
def test_transformers_loads_what_comes_out(family: str, name: str, tmp_path: Path) -> None:
    two = pair(family, name)
    checkpoint = save_run(tmp_path / "run", two.model, parameters(two.ours), (3, 2))
    export(checkpoint, tmp_path / "out")
    found, loading = AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", output_loading_info=True, attn_implementation="sdpa"
    )
    assert not any(loading.values()), loading
    batch = samples(two.model, masked=False)
    with torch.no_grad():
        ours = two.ours.logits(batch.tokens, batch.positions, batch.document_ids)
    theirs = logits(found, batch.tokens)
    assert (theirs - ours).abs().max() <= CLOSE * ours.abs().max()


@pytest.mark.parametrize(("family", "name"), CASES[::3], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_import_and_export_are_the_identity(family: str, name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """By way of FP32 masters: BF16 comes back as it was."""
    two = pair(family, name)
    two.theirs.to(dtype).save_pretrained(tmp_path / "source", max_shard_size="30KB")
    list(import_directory(str(tmp_path / "source"), str(tmp_path / "made")))
    export(tmp_path / "made" / "step-00000000", tmp_path / "out", str(dtype).removeprefix("torch."), 20_000)
    before, after = held(tmp_path / "source"), held(tmp_path / "out")
    assert before.keys() == after.keys()
    assert all(after[key].dtype is dtype and torch.equal(before[key], after[key]) for key in before)
    assert read_config(tmp_path / "out") == read_config(tmp_path / "source")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    theirs = json.loads((tmp_path / "source" / "model.safetensors.index.json").read_text())
    assert index["metadata"] == theirs["metadata"]
    assert index["weight_map"].keys() == theirs["weight_map"].keys()
