"""What adapter.init_from refuses: one problem, its rule and its remedy, before torch is imported; and what it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests import adapted, bad_adapters, directories, harness
from tests.bad_adapters import CASES
from trainer.config.groups.adapter import AdapterConfig
from trainer.errors import ConfigError, ExitCode, Problem
from trainer.parallel.boxes import whole_box
from trainer.pretrained.export import config_of
from trainer.pretrained.peft.source import open_adapter
from trainer.pretrained.peft.weights import adapter_weights, refuse_other_copies
from trainer.pretrained.peft.write import write_adapter
from trainer.pretrained.source import open_source
from trainer.pretrained.weights import weights_of

EMBEDDING = "base_model.model.model.embed_tokens.base_layer.weight"


@pytest.fixture(autouse=True)
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directories.write(Path("model"))


def problem_of(path: Path) -> Problem:
    with pytest.raises(ConfigError) as raised:
        open_adapter(str(path), open_source("model").model)
    (problem,) = raised.value.problems
    assert raised.value.code == ExitCode.CONFIG
    return problem


@pytest.mark.parametrize("case", CASES)
def test_a_bad_adapter_is_refused_by_name(case: str, tmp_path: Path) -> None:
    change, rule, remedy = CASES[case]
    bad_adapters.write(tmp_path / "adapter")
    change(tmp_path / "adapter")
    problem = problem_of(tmp_path / "adapter")
    assert problem.key == "adapter.init_from"
    assert problem.value == str(tmp_path / "adapter")
    assert rule in problem.rule
    assert remedy in problem.remedy
    for line in (problem.rule, problem.remedy):
        assert "\n" not in line
        assert len(line) < 700


@pytest.mark.parametrize("given", ["nowhere", "model/config.json", "model", "x" * 300])
def test_it_is_a_directory_of_pefts(given: str) -> None:
    assert problem_of(Path(given)).value == given


@pytest.mark.parametrize(
    "targets",
    [["q_proj", "v_proj"], [f"model.layers.{layer}.self_attn.{name}_proj" for name in "vq" for layer in (1, 0)],
     r".*\.(q|v)_proj"],
)  # fmt: skip
def test_targets_are_the_shortest_names_that_mean_them(targets: list[str] | str) -> None:
    tensors = bad_adapters.write(Path("adapter"), target_modules=targets)
    found = open_adapter("adapter", open_source("model").model)
    expected = AdapterConfig(kind="lora", rank=2, alpha=4.0, targets=["q_proj", "v_proj"], init_from="adapter")
    assert found.config == expected
    read = adapter_weights(found)
    for key, values in tensors.items():
        name = key.removeprefix("base_model.model.").removesuffix(".weight")
        assert torch.equal(read(whole_box(name, tuple(values.shape))), values)
    assert len(found.shapes) == len(tensors)


def test_modules_of_some_layers_are_named_in_full() -> None:
    bad_adapters.write(Path("adapter"), target_modules=["q_proj", "v_proj"], layers_to_transform=[0])
    bad_adapters.weights(lambda tensors: [tensors.pop(key) for key in list(tensors) if ".1." in key])(Path("adapter"))
    found = open_adapter("adapter", open_source("model").model)
    assert found.config.targets == ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_when_it_is_read(value: float) -> None:
    bad_adapters.write(Path("adapter"))
    bad_adapters.put(bad_adapters.A, torch.full((2, 16), value))(Path("adapter"))
    read = adapter_weights(open_adapter("adapter", open_source("model").model))
    with pytest.raises(ConfigError, match=r"q_proj\.lora_A holds NaN or infinities"):
        read(whole_box("model.layers.0.self_attn.q_proj.lora_A", (2, 16)))


@pytest.mark.parametrize("key", [EMBEDDING, EMBEDDING.replace(".base_layer", "")])
def test_a_copy_of_another_base_is_refused(key: str) -> None:
    source, table = open_source("model"), directories.tensors_of(directories.CONFIG)["model.embed_tokens.weight"]
    base = weights_of(source, 40)
    for change in (0.0, 1.0):
        bad_adapters.write(Path("adapter"))
        bad_adapters.put(key, table + change)(Path("adapter"))
        found = open_adapter("adapter", source.model)
        if not change:
            refuse_other_copies(found, base)
            continue
        with pytest.raises(ConfigError, match="is not equal to it"):
            refuse_other_copies(found, base)


def test_it_is_opened_without_torch() -> None:
    bad_adapters.write(Path("adapter"))
    code = (
        "import sys; from trainer.pretrained.peft.source import open_adapter;"
        "from trainer.pretrained.source import open_source;"
        "open_adapter('adapter', open_source('model').model); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env=harness.environment() | {"PYTHONPATH": str(harness.ROOT)})  # fmt: skip
    assert done.stdout == "False\n"


def test_an_adapter_of_a_part_of_a_fused_tensor_goes_neither_way() -> None:
    """GPT-2's c_attn holds queries, keys and values, and has one adapter in peft."""
    sizes = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "layer_norm_epsilon": 1e-5}
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", **sizes}
    directories.write(Path("gpt2"), config)
    model, lora = open_source("gpt2").model, AdapterConfig(kind="lora", rank=2)
    bad_adapters.write(Path("adapter"))
    save_file({bad_adapters.OTHER: torch.zeros(2, 16)}, "adapter/adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"attn\.c_attn holds several of ours in one"):
        open_adapter("adapter", model)
    queries = "model.layers.0.self_attn.q_proj"
    checkpoint = adapted.save(Path("run"), Path("gpt2"), lora, adapted.draw(Path("gpt2"), lora, [queries]))
    with pytest.raises(ConfigError, match=r"q_proj is a part of transformer\.h\.0\.attn\.c_attn") as raised:
        write_adapter(checkpoint, config_of(checkpoint), Path("out"))
    assert raised.value.problems[0].remedy.startswith("export merged weights")
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("also", "told"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "q_proj has an adapter as well"),
        ("model.norm.weight", None),
        ("model.embed_tokens.weight", "is tied to the head"),
    ],
)
def test_whole_modules_that_peft_cannot_say_are_refused(also: str, told: str | None) -> None:
    tensors = directories.write(Path("tied"), directories.CONFIG | {"tie_word_embeddings": True})
    lora = AdapterConfig(kind="lora", rank=2, also_train=[also])
    parts = adapted.draw(Path("tied"), lora, ["model.layers.0.self_attn.q_proj"]) | {also: tensors[also]}
    checkpoint = adapted.save(Path("run"), Path("tied"), lora, parts)
    if told is None:
        write_adapter(checkpoint, config_of(checkpoint), Path("out"))
        assert json.loads(Path("out/adapter_config.json").read_text())["modules_to_save"] == ["model.norm"]
        return
    with pytest.raises(ConfigError, match=told):
        write_adapter(checkpoint, config_of(checkpoint), Path("out"))
