"""Traps of directories, sprung with transformers' own hand: what it writes, and what import and export make of it.

The others of their kind are where they belong: rope, dtype, tying and windows in config.json in test_config_json.py;
what Falcon's variants compute in test_parity.py; tokenizers and chat templates in tests/unit/test_tokenizer_files.py;
both versions side by side in test_old_transformers.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from tests import directories, harness
from tests.families.checkpoints import save_run
from tests.families.mapping import to_theirs
from tests.unit.test_export import MODELS, weights
from trainer.checkpoint.tensorfile import header
from trainer.commands.import_hf import import_directory
from trainer.errors import ConfigError
from trainer.pretrained.config_json import format_of
from trainer.pretrained.export import export
from trainer.pretrained.source import open_source

SMALL: dict[str, Any] = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 40},
    "max_position_embeddings": 64,
}


def through(source: Path, dtype: str = "float32") -> Path:
    """Imported and exported."""
    made, out = source.with_name("made"), source.with_name("out")
    list(import_directory(str(source), str(made)))
    export(made / "step-00000000", out, dtype)
    return out


@pytest.mark.parametrize("said", ["float16", "bfloat16", None])
def test_each_tensors_own_dtype_counts_and_not_what_config_json_says(said: str | None, tmp_path: Path) -> None:
    """transformers 5 rounds all to what the key says, or to the first tensor's dtype: 70144 becomes infinite."""
    tensors = directories.tensors_of(directories.CONFIG)
    tensors["model.norm.weight"] += 1 / 3  # FP32, with more digits than BF16 has
    up = "model.layers.0.mlp.up_proj.weight"
    tensors[up] = tensors[up].bfloat16()
    tensors[up][3, 2] = 70144.0
    directories.write(tmp_path / "source", {**directories.CONFIG, "torch_dtype": said, "dtype": said}, tensors)
    found = load_file(through(tmp_path / "source") / "model.safetensors")
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in tensors.items())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_transformers_computes_in_the_dtype_that_an_export_says(dtype: str, tmp_path: Path) -> None:
    checkpoint = save_run(tmp_path / "run", MODELS["llama"], weights(MODELS["llama"]))
    export(checkpoint, tmp_path / "out", dtype)
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    held = load_file(tmp_path / "out" / "model.safetensors")
    assert all(found[name].dtype is getattr(torch, dtype) and torch.equal(found[name], held[name]) for name in held)


def test_a_checkpoint_of_two_dtypes_comes_out_in_the_wider(tmp_path: Path) -> None:
    """Else FP32 norms beside BF16 would be rounded: by us, or by transformers 5, whose first tensor decides for all."""
    values = weights(MODELS["llama"], torch.bfloat16)
    norm = values["model.norm.weight"] = values["model.norm.weight"].float() + 1 / 3
    export(save_run(tmp_path / "run", MODELS["llama"], values), tmp_path / "out")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(found[name], values[name].float()) for name in values)
    assert not torch.equal(norm, norm.bfloat16().float())


def test_shards_over_an_old_file_are_refused_since_the_old_file_wins(tmp_path: Path) -> None:
    old, new = LlamaForCausalLM(LlamaConfig(**SMALL)), LlamaForCausalLM(LlamaConfig(**SMALL))
    old.save_pretrained(tmp_path / "source")
    new.save_pretrained(tmp_path / "source", max_shard_size="5KB")
    found = LlamaForCausalLM.from_pretrained(tmp_path / "source")
    assert torch.equal(found.lm_head.weight, old.lm_head.weight), "the trap is gone"
    with pytest.raises(ConfigError) as raised:
        open_source(str(tmp_path / "source"))
    assert "model.safetensors.index.json" in raised.value.report()
    checkpoint = save_run(tmp_path / "run", MODELS["llama"], weights(MODELS["llama"]))
    with pytest.raises(ConfigError, match="model"):
        export(checkpoint, tmp_path / "source", shard_bytes=4000)


def test_a_pair_that_transformers_unties_and_saves_as_tied_is_refused(tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True))
    model.save_pretrained(tmp_path / "first")
    tensors = load_file(tmp_path / "first" / "model.safetensors")
    assert "lm_head.weight" not in tensors
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, tmp_path / "first" / "model.safetensors", metadata={"format": "pt"})
    LlamaForCausalLM.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["tie_word_embeddings"] is True
    assert "lm_head.weight" in load_file(tmp_path / "again" / "model.safetensors")
    with pytest.raises(ConfigError, match="tie_word_embeddings: false"):
        open_source(str(tmp_path / "again"))


def test_an_equal_pair_under_true_is_one_tensor_when_it_comes_out(tmp_path: Path) -> None:
    config = {**directories.CONFIG, "tie_word_embeddings": True}
    tensors = directories.tensors_of(config)
    directories.write(
        tmp_path / "source", config, {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    )
    found = load_file(through(tmp_path / "source") / "model.safetensors")
    assert found.keys() == tensors.keys()


@pytest.mark.parametrize("name", ["gpt2", "falcon"])
def test_weights_that_lie_transposed_or_strided_in_memory_come_out_right(name: str, tmp_path: Path) -> None:
    """safetensors.numpy 0.8.0 writes the memory as it lies, under the other shape, without an error."""
    model = MODELS[name]
    straight = weights(model)
    strided = {key: tensor.t().contiguous().t() if tensor.dim() == 2 else tensor for key, tensor in straight.items()}
    assert any(not tensor.is_contiguous() for tensor in strided.values())
    export(save_run(tmp_path / "run", model, strided), tmp_path / "out")
    wanted = to_theirs(straight, list(format_of(model.family).tensors(model)))
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("length", range(1, 9))
def test_data_begins_at_a_multiple_of_8_bytes_as_in_safetensors_own_files(length: int, tmp_path: Path) -> None:
    values = {"x" * length: torch.tensor([1.5])}
    save_file(values, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    ours = header([("x" * length, "float32", (1,))]) + values["x" * length].numpy().tobytes()
    assert ours == (tmp_path / "theirs.safetensors").read_bytes()
    assert (len(ours) - 4) % 8 == 0


def test_lint_knows_safetensors_numpy(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("from safetensors.numpy import save_file\n\n__all__ = ['save_file']\n")
    ruff = [sys.executable, "-m", "ruff", "check", "--config", str(harness.ROOT / "pyproject.toml"), "bad.py"]
    done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert "TID251" in done.stdout
