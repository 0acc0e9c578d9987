"""Adapters against peft: what it computes, merges, reads and writes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import adapted
from tests.families.old_environment import ask
from tests.families.old_worker import tokens
from trainer.backends.native.backend import NativeBackend
from trainer.config.groups.adapter import AdapterConfig
from trainer.generation.frozen import no_optimizer
from trainer.models.adapters.begin import Beginning
from trainer.models.family import family_of, shapes_of
from trainer.parallel.boxes import whole_box
from trainer.parallel.mesh import Mesh
from trainer.pretrained.export import config_of, export
from trainer.pretrained.merge import unmerged
from trainer.pretrained.peft.source import open_adapter
from trainer.pretrained.peft.weights import adapter_weights
from trainer.pretrained.peft.write import write_adapter
from trainer.pretrained.source import open_source
from trainer.pretrained.weights import parts_of, weights_of

pytestmark = pytest.mark.slow

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 40} | {
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
}
TOKENS = torch.arange(12).view(1, 12) * 3 % 40


def directory(path: Path, kind: str, tied: bool) -> Path:
    """A random model that transformers saved."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

    torch.manual_seed(1)
    small = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64}
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config, "gpt2": GPT2Config}[kind]
    sizes = small if kind == "gpt2" else SIZES
    made = AutoModelForCausalLM.from_config(config(**sizes, tie_word_embeddings=tied, initializer_range=0.3))
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    made.save_pretrained(path)
    return path


def theirs(base: Path, adapter: Path | None = None) -> Any:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    return model if adapter is None else PeftModel.from_pretrained(model, adapter).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(TOKENS, use_cache=False).logits[0]
    return found


CASES = {
    "lora": ("llama", False, LINEARS, {}),
    "biases": ("qwen2", False, LINEARS, {}),
    "rslora": ("llama", False, ["q_proj", "v_proj"], {"use_rslora": True}),
    "dora": ("llama", False, LINEARS, {"use_dora": True}),
    "ends": ("llama", False, [*LINEARS, "embed_tokens", "lm_head"], {}),
    "ends-dora": ("llama", False, ["q_proj", "embed_tokens", "lm_head"], {"use_dora": True}),
    "tied": ("llama", True, ["q_proj", "embed_tokens"], {}),
    "tied-head": ("llama", True, ["o_proj", "lm_head"], {}),
    "transposed": ("gpt2", True, ["c_fc", "c_proj"], {}),
    "saved": ("qwen2", False, ["q_proj"], {"modules_to_save": ["model.norm", "lm_head"]}),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A base, and an adapter beside it that peft saved; the base's bytes stay as they are."""
    from peft import LoraConfig, get_peft_model

    kind, tied, targets, more = CASES[request.param]
    base = directory(tmp_path / "base", kind, tied)
    before = [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(base.iterdir())]
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=targets, init_lora_weights=False, task_type="CAUSAL_LM", **more
    )
    model = get_peft_model(theirs(base), config)
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = 0.05 if "lora_embedding" in name else 0.2
            moved = torch.randn(parameter.shape, generator=generator) * scale
            parameter.data = parameter.data * 1.1 + moved if "lora" not in name or "magnitude" in name else moved
    model.save_pretrained(tmp_path / "adapter")
    yield base, tmp_path / "adapter"
    assert before == [hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(base.iterdir())]


def run_of(tmp_path: Path, base: Path, adapter: Path) -> tuple[Path, AdapterConfig]:
    """A checkpoint of ours with the adapters of peft's directory."""
    source = open_adapter(str(adapter), open_source(str(base)).model)
    read = adapter_weights(source)
    tensors = {name: read(whole_box(name, shape)).clone() for name, shape in source.shapes.items()}
    config = replace(source.config, init_from=None)
    return adapted.save(tmp_path / "run", base, config, tensors), config


def test_the_model_computes_what_peft_does(case: tuple[Path, Path]) -> None:
    base, adapter = case
    source = open_source(str(base))
    found = open_adapter(str(adapter), source.model)
    family = family_of(source.model, found.config)
    shapes, values = shapes_of(family), adapter_weights(found)
    beginning = Beginning.of(weights_of(source, source.model.vocab), family.plan, 0, shapes)
    backend = NativeBackend(Mesh(0), no_optimizer, 60.0)
    backend.setup()
    backend.shard(family.build, replace(family.plan, frozen=("*",)), "fp32")
    backend.load_initial(lambda box: values(box) if box.name in found.shapes else beginning(box))
    positions = torch.arange(TOKENS.shape[1]).view(1, -1)
    with torch.no_grad():
        ours = backend.model.logits(TOKENS, positions, torch.zeros_like(positions))[0]
    backend.close()
    torch.testing.assert_close(ours, logits(theirs(base, adapter)), rtol=0, atol=1e-5)
    trained = {name for name, rule in family.plan.match(shapes).items() if rule.trainable}
    assert trained == set(found.shapes)


def test_merged_weights_are_pefts(case: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = case
    model = theirs(base, adapter)
    expected = logits(model)
    checkpoint, _ = run_of(tmp_path, base, adapter)
    export(checkpoint, tmp_path / "merged")
    torch.testing.assert_close(logits(theirs(tmp_path / "merged")), expected, rtol=0, atol=2e-5)
    if model.config.tie_word_embeddings:
        return  # peft merges into the head as well
    merged = model.merge_and_unload().state_dict()
    written = load_file(tmp_path / "merged/model.safetensors")
    assert merged.keys() == written.keys()
    for name, values in written.items():
        torch.testing.assert_close(values, merged[name], rtol=0, atol=1e-5, msg=name)


def test_an_adapter_goes_out_through_peft_and_back_bit_for_bit(case: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = case
    checkpoint, config = run_of(tmp_path, base, adapter)
    write_adapter(checkpoint, config_of(checkpoint), tmp_path / "out")
    model = theirs(base, tmp_path / "out")
    assert torch.equal(logits(model), logits(theirs(base, adapter)))
    model.save_pretrained(tmp_path / "again")
    source = open_source(str(base)).model
    first, second = (open_adapter(str(tmp_path / name), source) for name in ("out", "again"))
    assert first.shapes == second.shapes
    assert replace(first.config, init_from=None) == replace(second.config, init_from=None) == config
    for name, shape in first.shapes.items():
        box = whole_box(name, shape)
        assert torch.equal(adapter_weights(first)(box), adapter_weights(second)(box)), name
    mine = load_file(tmp_path / "out/adapter_model.safetensors")
    assert not any("base_layer" in key for key in mine), "nothing of the base is written"
    peft = load_file(adapter / "adapter_model.safetensors")
    assert all(torch.equal(values, peft[key]) for key, values in mine.items())
    assert {key for key in peft if "base_layer" not in key} == mine.keys()


def test_what_was_merged_comes_out_again(tmp_path: Path) -> None:
    base = directory(tmp_path / "base", "llama", tied=False)
    config = AdapterConfig(kind="lora", rank=4, alpha=8)
    paths = [*adapted.linears(base), "model.embed_tokens"]
    checkpoint = adapted.save(tmp_path / "run", base, config, adapted.draw(base, config, paths))
    export(checkpoint, tmp_path / "merged")
    source, merged = open_source(str(checkpoint)), open_source(str(tmp_path / "merged"))
    assert source.adapters is not None
    again = unmerged(weights_of(merged, 40), parts_of(source), source.adapters)
    before = load_file(base / "model.safetensors")
    for name, values in before.items():
        found = again(whole_box(name, tuple(values.shape)))
        added = (load_file(tmp_path / "merged/model.safetensors")[name] - values).abs()
        assert bool(((found - values).abs() <= 2**-23 * (values.abs() + 2 * added) + 1e-12).all()), name


@pytest.mark.long
def test_peft_of_an_older_version_reads_and_writes_the_same(case: tuple[Path, Path], tmp_path: Path) -> None:
    """0.17.1, under transformers 4.48: its outputs, and what it saves again, bit for bit."""
    base, adapter = case
    checkpoint, config = run_of(tmp_path, base, adapter)
    write_adapter(checkpoint, config_of(checkpoint), tmp_path / "out")
    assert ask("adapter", base, tmp_path / "out", tmp_path / "again") == {"peft": "0.17.1"}
    model = theirs(base, adapter)
    with torch.no_grad():
        expected = model(tokens(40), use_cache=False).logits
    found = load_file(tmp_path / "again/logits.safetensors")["logits"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    source = open_source(str(base)).model
    first, second = (open_adapter(str(tmp_path / name), source) for name in ("out", "again"))
    assert first.shapes == second.shapes
    assert replace(second.config, init_from=None) == config
    for name, shape in first.shapes.items():
        box = whole_box(name, shape)
        assert torch.equal(adapter_weights(first)(box), adapter_weights(second)(box)), name
