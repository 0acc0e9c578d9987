"""Boxes read from a directory or a checkpoint of ours are what safetensors' own reader gives, whatever the box."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from tests import directories
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.commands.import_hf import import_directory
from trainer.config.groups.model import ModelConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError
from trainer.parallel.boxes import Box, Placed, Store, whole_box
from trainer.pretrained.shapes import parameter_shapes
from trainer.pretrained.source import fingerprint, open_source
from trainer.pretrained.weights import weights_of
from trainer.run.directory import config_yaml

GPT2: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    **{"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "vocab_size": 40},
}
FALCON: dict[str, Any] = {
    "architectures": ["FalconForCausalLM"],
    "model_type": "falcon",
    "new_decoder_architecture": True,
    **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 8, "num_kv_heads": 2, "vocab_size": 40},
}


def random_box(draw: random.Random, name: str, shape: tuple[int, ...]) -> Box:
    lows = [draw.randrange(extent) for extent in shape]
    sizes = tuple(draw.randint(1, extent - low) for low, extent in zip(lows, shape, strict=True))
    return Box(name, shape, tuple(lows), sizes, tuple(slice(0, n) for n in sizes))


def of_box(whole: torch.Tensor, box: Box) -> torch.Tensor:
    return whole[tuple(slice(o, o + n) for o, n in zip(box.offsets, box.sizes, strict=True))]


def assert_all_boxes(given: Path, expected: dict[str, torch.Tensor], vocab: int | None = None) -> None:
    source = open_source(str(given))
    read, draw = weights_of(source, vocab or source.model.vocab), random.Random(0)
    for name, whole in expected.items():
        for box in (
            whole_box(name, tuple(whole.shape)),
            *(random_box(draw, name, tuple(whole.shape)) for _ in range(8)),
        ):
            values = read(box)
            assert values.shape == torch.Size(box.sizes), box
            assert torch.equal(values.float(), of_box(whole, box).float()), box


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shards", [0, 3])
def test_llama_is_read_as_safetensors_reads_it(tmp_path: Path, dtype: torch.dtype, shards: int) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in directories.tensors_of(directories.CONFIG).items()}
    directories.write(tmp_path, tensors=tensors)
    if shards:
        directories.write_shards(tmp_path, tensors, shards)
    theirs: dict[str, torch.Tensor] = {}
    for file in tmp_path.glob("*.safetensors"):
        with safe_open(file, framework="pt") as reader:
            theirs |= {name: reader.get_tensor(name) for name in reader.keys()}  # noqa: SIM118 - it is no dict
    assert_all_boxes(tmp_path, theirs)
    read = weights_of(open_source(str(tmp_path)), 40)
    assert read(whole_box("model.norm.weight", (16,))).dtype == dtype, "no copy in FP32 is made"


@pytest.mark.parametrize("bare", [False, True])
def test_gpt2_is_split_and_turned(tmp_path: Path, bare: bool) -> None:
    """Its own directories lack the prefix on every tensor, and have masks for buffers."""
    tensors = directories.tensors_of(GPT2)
    written = {name.removeprefix("transformer.") if bare else name: tensor for name, tensor in tensors.items()}
    mask = f"{'' if bare else 'transformer.'}h.0.attn.bias"
    directories.write(tmp_path, GPT2, {**written, mask: torch.ones(1, 1, 4, 4, dtype=torch.uint8)})
    expected = {"model.embed_positions.weight": tensors["transformer.wpe.weight"]}
    for layer in range(2):
        q, k, v = tensors[f"transformer.h.{layer}.attn.c_attn.weight"].split(16, dim=1)
        attention = f"model.layers.{layer}.self_attn"
        expected |= {f"{attention}.q_proj.weight": q.t(), f"{attention}.k_proj.weight": k.t()}
        expected[f"{attention}.v_proj.weight"] = v.t()
        expected[f"{attention}.v_proj.bias"] = tensors[f"transformer.h.{layer}.attn.c_attn.bias"][32:]
        expected[f"model.layers.{layer}.mlp.up_proj.weight"] = tensors[f"transformer.h.{layer}.mlp.c_fc.weight"].t()
    assert_all_boxes(tmp_path, expected)


def test_falcon_is_taken_apart_by_groups(tmp_path: Path) -> None:
    tensors = directories.write(tmp_path, FALCON)
    fused = tensors["transformer.h.1.self_attention.query_key_value.weight"].view(2, 6, 4, 32)
    attention = "model.layers.1.self_attn"
    expected = {
        f"{attention}.q_proj.weight": fused[:, :4].reshape(32, 32),
        f"{attention}.k_proj.weight": fused[:, 4].reshape(8, 32),
        f"{attention}.v_proj.weight": fused[:, 5].reshape(8, 32),
    }
    assert_all_boxes(tmp_path, expected)


def test_parts_of_several_dtypes_meet_in_fp32(tmp_path: Path) -> None:
    tensors = directories.tensors_of(directories.CONFIG)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].bfloat16()
    directories.write(tmp_path, tensors=tensors)
    assert open_source(str(tmp_path)).dtypes == {"float32": 20, "bfloat16": 1}
    assert_all_boxes(tmp_path, tensors)


def grown(tensors: dict[str, torch.Tensor], rows: int) -> dict[str, torch.Tensor]:
    """What a vocabulary of ``rows`` begins with, by another way: the sum of all rows at once."""
    found = dict(tensors)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        mean = tensors[name].double().sum(dim=0) / len(tensors[name])
        found[name] = torch.cat([tensors[name].float(), mean.float().expand(rows - len(tensors[name]), -1)])
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_new_rows_are_the_mean_of_the_old(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in directories.tensors_of(directories.CONFIG).items()}
    directories.write(tmp_path, tensors=tensors)
    assert_all_boxes(tmp_path, grown(tensors, 57), vocab=57)


def test_the_mean_is_taken_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.pretrained.weights.BLOCK", 16 * 7)
    tensors = directories.write(tmp_path)
    read = weights_of(open_source(str(tmp_path)), 48)
    row = read(Box("lm_head.weight", (48, 16), (41, 0), (1, 16), (slice(0, 1), slice(0, 16))))
    assert torch.allclose(row, tensors["lm_head.weight"].mean(dim=0), rtol=0, atol=1e-6)


def chunks(name: str, tensor: torch.Tensor, parts: int) -> Placed:
    """A tensor in so many boxes along each dim."""
    shape = tuple(tensor.shape)

    def cuts(extent: int) -> Iterator[tuple[int, int]]:
        edges = sorted({extent * part // parts for part in range(parts + 1)})
        return ((a, b - a) for a, b in pairwise(edges))

    boxes = []
    for low, size in cuts(shape[0]):
        for left, width in cuts(shape[1]) if len(shape) == 2 else [(0, 0)]:
            offsets, sizes = (low, left)[: len(shape)], (size, width)[: len(shape)]
            local = tuple(slice(o, o + n) for o, n in zip(offsets, sizes, strict=True))
            boxes.append(Box(name, shape, offsets, sizes, local))
    return Placed(tensor, tuple(boxes), shape)


def save(run: Path, parts: int, *steps: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A run of ours that has saved, in chunks: its last weights."""
    _, fields = directories.read_config(directories.CONFIG)
    model = ModelConfig(**fields)
    saver = Saver(run / "checkpoints", 0, config_yaml(Config(model=model), run), {"world": 1})
    tensors: dict[str, torch.Tensor] = {}
    for step in steps:
        tensors = {name: torch.randn(shape).to(dtype) for name, shape in parameter_shapes(model).items()}
        saver.save(Store({n: chunks(n, t, parts) for n, t in tensors.items()}, {}), TrainState(step, updates=step))
    return tensors


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_checkpoint_of_ours_is_read_whatever_cut_it(tmp_path: Path, parts: int, dtype: torch.dtype) -> None:
    tensors = save(tmp_path / "run", parts, 9, dtype=dtype)
    assert_all_boxes(tmp_path / "run", tensors)
    assert_all_boxes(tmp_path / "run" / "checkpoints", tensors)
    assert_all_boxes(tmp_path / "run" / "checkpoints" / "step-00000009", tensors)
    assert_all_boxes(tmp_path / "run", grown(tensors, 64), vocab=64)


def test_the_newest_sound_checkpoint_of_a_run_is_taken(tmp_path: Path) -> None:
    run = tmp_path / "run"
    save(run, 1, 5, 9)
    (run / "checkpoints/step-00000009/model/rank-00000.safetensors").write_bytes(b"cut short")
    source = open_source(str(run))
    assert source.path.name == "step-00000005"
    assert "passed over step-00000009" in source.notes[0]
    with pytest.raises(ConfigError, match=r"step-00000009.*\n.*is a sound checkpoint"):
        open_source(str(run / "checkpoints/step-00000009"))
    (run / "checkpoints/step-00000005/manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match="restore one from a copy"):
        open_source(str(run))


def test_a_source_that_changes_after_it_was_opened_is_told(tmp_path: Path) -> None:
    directories.write(tmp_path)
    read, before = weights_of(open_source(str(tmp_path)), 40), fingerprint(tmp_path)
    with pytest.raises(ConfigError, match=r"it has no model\.nothing"):
        read(whole_box("model.nothing", (3,)))
    other = {**directories.CONFIG, "intermediate_size": 32}
    directories.write(tmp_path, other)
    with pytest.raises(ConfigError, match=r"is not there as float32 \[24, 16\] any more"):
        read(whole_box("model.layers.0.mlp.up_proj.weight", (24, 16)))
    assert fingerprint(tmp_path) != before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_directory_becomes_a_checkpoint(tmp_path: Path, dtype: str) -> None:
    tensors = directories.write(tmp_path / "gpt2", GPT2)
    directories.write_tokenizer(tmp_path / "gpt2", 40)
    lines = list(import_directory(str(tmp_path / "gpt2"), str(tmp_path / "made"), dtype))
    assert f"model.init_from={tmp_path / 'made'}" in lines[-1]
    source = open_source(str(tmp_path / "made"))
    assert source.model == open_source(str(tmp_path / "gpt2")).model
    assert source.tokenizer is not None
    assert source.tokenizer.path == str(tmp_path / "made" / "tokenizer.json")
    wanted = tensors["transformer.h.0.mlp.c_fc.weight"].t().to(getattr(torch, dtype))
    assert_all_boxes(tmp_path / "made", {"model.layers.0.mlp.up_proj.weight": wanted})
    with pytest.raises(ConfigError, match="is new or empty; it holds LATEST"):
        list(import_directory(str(tmp_path / "gpt2"), str(tmp_path / "made")))
    with pytest.raises(ConfigError, match="takes it as it is"):
        list(import_directory(str(tmp_path / "made"), str(tmp_path / "again")))
