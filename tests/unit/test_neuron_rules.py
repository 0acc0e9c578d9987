"""What backend=neuron refuses of a configuration, and where it may run without a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_validate import VALID, changed
from trainer.errors import ConfigError, Problem
from trainer.rules.check import RULES, validate
from trainer.rules.derived import derive
from trainer.rules.quantities import why_no_kernel
from trainer.run.world import World, has_module
from trainer.trainium.host import Host

CPU = World(neuron_on_cpu=True, cpu_bf16=True)
PIPELINE = {"parallel.pp": 2, "evaluation.sample_prompt": "", "train.microbatch": 1}
INTERLEAVED = {
    **PIPELINE,
    "parallel.pipeline.schedule": "interleaved_1f1b",
    "parallel.pipeline.virtual_stages": 2,
    "evaluation.every_steps": 0,
}


def problems(changes: dict[str, Any], world: World = CPU) -> list[Problem]:
    config = changed(VALID, "backend.name", "neuron")
    for key, value in changes.items():
        config = changed(config, key, value)
    try:
        validate(config, world, RULES)
    except ConfigError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, 1),
        ({"precision.mode": "fp32"}, 1),
        ({"precision.mode": "bf16"}, 1),
        ({"parallel.zero": 1}, 2),
        ({"parallel.tp": 4}, 4),  # no group of a node is asked for where there is no device
        ({"parallel.recompute": "full", "parallel.recompute_every": 2}, 1),
        ({"parallel.cp": 2, "parallel.zero": 1}, 2),
        (PIPELINE, 2),
        ({"parallel.pp": 2, "evaluation.every_steps": 0, "train.microbatch": 1}, 2),
        (INTERLEAVED, 2),
        ({**INTERLEAVED, "evaluation.every_steps": 5, "evaluation.sample_prompt": ""}, 2),
    ],
)
def test_what_it_takes(changes: dict[str, Any], size: int) -> None:
    assert problems(changes, replace(CPU, size=size)) == []


@pytest.mark.parametrize(
    ("changes", "size", "key", "rule", "remedy"),
    [
        ({"precision.mode": "bf16", "parallel.zero": 0}, 2, "parallel.zero", "stochastically", "parallel.zero=1"),
        ({"parallel.zero": 2}, 2, "parallel.zero", "native", "parallel.zero=1"),
        ({"parallel.zero": 3}, 2, "parallel.zero", "native", "parallel.zero=1"),
        ({"parallel.cp": 2}, 2, "parallel.zero", "twice", "parallel.zero=1"),
        (
            {**INTERLEAVED, "parallel.pipeline.schedule": "interleaved_zero_bubble"},
            *(2, "parallel.pipeline.schedule", "native", "interleaved_1f1b"),
        ),
        ({"parallel.recompute": "selective"}, 1, "parallel.recompute", "native", "recompute=full"),
        ({"parallel.pp": 2, "train.microbatch": 1}, 2, "evaluation.sample_prompt", "logits", 'sample_prompt=""'),
        ({"optim.name": "torch.optim:SGD"}, 1, "optim.name", "native", "optim.name=adamw"),
        # 15 samples of 512 in microbatches of 1: an odd number for two ranks
        ({**INTERLEAVED, "train.tokens_per_step": 7680}, 2, "train.tokens_per_step", "divides the 15", "=8192"),
    ],
)
def test_what_it_refuses(changes: dict[str, Any], size: int, key: str, rule: str, remedy: str) -> None:
    found = [p for p in problems(changes, replace(CPU, size=size)) if p.key == key and rule in p.rule]
    assert len(found) == 1
    assert remedy in found[0].remedy


def test_the_native_backend_keeps_what_is_its_own() -> None:
    native = changed(changed(VALID, "backend.name", "native"), "parallel.recompute", "selective")
    validate(changed(native, "parallel.zero", 3), replace(CPU, size=2))


def test_it_needs_a_device_or_the_users_word() -> None:
    (problem,) = problems({}, World(cpu_bf16=True))
    assert problem.key == "backend.name"
    assert "no Neuron device" in problem.rule


@pytest.mark.parametrize(
    ("variable", "package", "allowed"), [("CPU", 1, 1), ("CPU", 0, 0), ("NEURON", 1, 0), ("", 1, 0)]
)
def test_where_the_cpu_stands_in(monkeypatch: pytest.MonkeyPatch, variable: str, package: int, allowed: int) -> None:
    monkeypatch.setenv("PJRT_DEVICE", variable)
    monkeypatch.setattr("trainer.run.world.has_module", lambda name: name == "neuronx_distributed" and bool(package))
    assert World.from_environment().neuron_on_cpu is bool(allowed)


def test_a_module_is_found_without_importing_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "left_alone.py").write_text("raise RuntimeError")
    monkeypatch.syspath_prepend(tmp_path)
    assert has_module("left_alone")
    assert not has_module("not_there_at_all")


def test_plain_attention_is_announced() -> None:
    config = changed(VALID, "backend.name", "neuron")
    assert any("plain" in line and "no document masks" in line for line in derive(config, CPU).reasons)
    without = derive(changed(config, "data.document_mask", False), CPU).reasons
    assert not any("document masks" in line for line in without)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"parallel.cp": 2, "parallel.tp": 2}, "parallel.cp=1"),
        ({"precision.mode": "bf16", "parallel.tp": 2}, "precision=bf16_mixed"),
    ],
)
def test_a_remedy_does_not_lead_back(changes: dict[str, Any], remedy: str) -> None:
    """Copies of key-value heads that lie apart allow no ZeRO, which these want: something else has to change."""
    heads = {"model.family": "mistral", "model.heads": 9, "model.kv_heads": 3, "model.head_dim": 16}
    world = replace(CPU, size=8)
    (with_zero,) = problems({**heads, **changes, "parallel.zero": 1}, world)
    assert "parallel.zero=0" in with_zero.remedy
    (without,) = problems({**heads, **changes, "parallel.zero": 0}, world)
    assert (without.key, without.remedy.split(",")[0]) == ("parallel.zero", remedy)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"precision.mode": "fp32"}, "multiplies in BF16"),
        ({"model.head_dim": 256}, "at most 128"),
        ({"data.seq_len": 1024}, "multiple of 2048"),
        ({"data.document_mask": True}, "document masks"),
    ],
)
def test_attention_that_the_kernel_would_change_does_without(changes: dict[str, Any], words: str | None) -> None:
    config = VALID
    sized = {
        "data.seq_len": 2048,
        "model.max_positions": 2048,
        "data.document_mask": False,
        "precision.mode": "bf16_mixed",
    }
    for key, value in {**sized, **changes}.items():
        config = changed(config, key, value)
    why = why_no_kernel(config, config.precision.mode, {})
    assert (why is None) == (words is None)
    assert words is None or words in str(why)


@pytest.mark.parametrize(
    ("compiler", "flash"),
    [("2.23.6484.0+3b612583", True), ("2.24.5133.0", False), ("2.28.7631", False), ("3.0.1", False), (None, True)],
)
def test_the_kernel_ends_with_sdk_2_28(compiler: str | None, flash: bool) -> None:
    """NKI 0.3 came with SDK 2.29, compiler 2.24."""
    config = VALID
    for key, value in {"data.seq_len": 2048, "model.max_positions": 2048, "data.document_mask": False}.items():
        config = changed(config, key, value)
    packages = {} if compiler is None else {"neuronx-cc": compiler}
    why = why_no_kernel(config, "bf16_mixed", packages)
    assert (why is None) == flash
    assert flash or ("NKI (0.3 on) has no kernels" in str(why) and str(compiler) in str(why))
    world = World(trainium=True, host=Host("trn1.32xlarge", 16, packages=packages))
    config = changed(changed(config, "precision.mode", "bf16_mixed"), "backend.name", "neuron")
    (line,) = [reason for reason in derive(config, world).reasons if reason.startswith("attention")]
    assert ("NKI flash" in line) == flash
    assert ("blockwise" in line) == (not flash)
    short = derive(changed(changed(config, "data.seq_len", 512), "train.tokens_per_step", 8192), world)
    (line,) = [reason for reason in short.reasons if reason.startswith("attention")]
    assert line.split()[1] == "plain", "512 tokens are one block"


def test_a_tied_head_in_a_pipeline_takes_no_random_rounding() -> None:
    """Its two copies are updated by different programs."""
    tied = {**PIPELINE, "precision.mode": "bf16", "model.tied": True, "parallel.zero": 1}
    (problem,) = problems(tied, replace(CPU, size=2))
    assert problem.key == "precision.mode"
    assert problems({**tied, "model.tied": False}, replace(CPU, size=2)) == []
    assert problems({**tied, "precision.mode": "bf16_mixed"}, replace(CPU, size=2)) == []
