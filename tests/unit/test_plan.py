"""The sharding plan: every parameter and every index exactly once; what cannot be cut is refused by name."""

from __future__ import annotations

import math
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import harness
from trainer.config.groups.model import ModelConfig
from trainer.errors import ConfigError
from trainer.models.decoder import CausalLM
from trainer.models.sharding import sharding_plan
from trainer.parallel.heads import Heads
from trainer.parallel.plan import Plan, matrix, norm

SMALL = ModelConfig(hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, vocab=512)


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(p.shape) for name, p in CausalLM(config).named_parameters()}


def test_a_forgotten_parameter_is_named() -> None:
    plan = sharding_plan(SMALL)
    rules = {glob: rule for glob, rule in plan.rules.items() if "down_proj" not in glob}
    with pytest.raises(ConfigError) as raised:
        replace(plan, rules=rules).place(shapes(SMALL), 2, 0)
    assert [p.key for p in raised.value.problems] == [f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)]
    assert all("matches each parameter" in p.rule and "sharding.py" in p.remedy for p in raised.value.problems)


def test_a_parameter_matched_twice_is_named_with_both_globs() -> None:
    plan = sharding_plan(SMALL)
    with pytest.raises(ConfigError) as raised:
        replace(plan, rules={**plan.rules, "model.norm.*": norm("never")}).place(shapes(SMALL), 2, 0)
    (problem,) = raised.value.problems
    assert problem.key == "model.norm.weight"
    assert "model.norm.*" in problem.rule
    assert "model.norm.weight" in problem.rule


@pytest.mark.parametrize(
    ("change", "tp", "names"),
    [
        ({"mlp": 97}, 2, ["gate_proj", "up_proj", "down_proj"]),
        ({"vocab": 510}, 4, ["embed_tokens", "lm_head"]),
        ({"heads": 2}, 2, []),
    ],
)
def test_a_dim_that_cannot_be_cut_is_named(change: dict[str, int], tp: int, names: list[str]) -> None:
    config = replace(SMALL, **change)
    if not names:
        sharding_plan(config).place(shapes(config), tp, 0)
        return
    with pytest.raises(ConfigError) as raised:
        sharding_plan(config).place(shapes(config), tp, 0)
    found = {name for name in names for problem in raised.value.problems if name in problem.key}
    assert found == set(names)
    assert all("divides it" in p.rule and "parallel.tp" in p.remedy for p in raised.value.problems)


def test_heads_that_are_not_the_parameters_are_refused() -> None:
    plan = Plan({"*": matrix("column", 0.02, heads=True)}, Heads(3, 1, 16))
    with pytest.raises(ConfigError, match="3 x 16 = 48"):
        plan.place({"q_proj.weight": (64, 64)}, 2, 0)
    with pytest.raises(ConfigError, match="has a dim 1"):
        Plan({"*": matrix("row", 0.02)}, Heads(3, 1, 16)).place({"o_proj.bias": (64,)}, 2, 0)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 9), st.booleans())
def test_boxes_of_copy_zero_tile_every_parameter(kv_heads: int, group: int, tp: int, bias: bool) -> None:
    """Painted onto the global tensor: every element once, the copies on top of what copy zero has, none outside."""
    config = replace(SMALL, heads=kv_heads * group, kv_heads=kv_heads, head_dim=4, qkv_bias=bias)
    config = replace(config, mlp=12 * tp, vocab=16 * tp)
    names = shapes(config)
    painted = {name: np.zeros(shape, dtype=int) for name, shape in names.items()}
    for rank in range(tp):
        for name, placement in sharding_plan(config).place(names, tp, rank).items():
            local = np.zeros(placement.local_shape, dtype=int)
            for box in placement.boxes:
                assert local[box.local].shape == box.sizes
                local[box.local] += 1
                where = tuple(slice(o, o + n) for o, n in zip(box.offsets, box.sizes, strict=True))
                painted[name][where] += box.copy == 0
            assert local.max(initial=0) <= 1, "boxes of a rank do not overlap"
            assert placement.padded == (local.min(initial=1) == 0)
    assert all((values == 1).all() for values in painted.values())


@pytest.mark.parametrize("tp", [1, 8, 32])
def test_deepseek_67b_has_its_local_shapes(tp: int) -> None:
    """Closed form: what is cut is divided by tp; 8 key-value heads of 128 never become less than one."""
    config = ModelConfig(hidden=8192, layers=1, heads=64, kv_heads=8, mlp=22016, vocab=102400)
    placed = sharding_plan(config).place(shapes(config), tp, tp - 1)
    layer = "model.layers.0"
    expected = {
        "model.embed_tokens.weight": (102400 // tp, 8192),
        f"{layer}.self_attn.q_proj.weight": (8192 // tp, 8192),
        f"{layer}.self_attn.k_proj.weight": (max(128, 1024 // tp), 8192),
        f"{layer}.self_attn.v_proj.weight": (max(128, 1024 // tp), 8192),
        f"{layer}.self_attn.o_proj.weight": (8192, 8192 // tp),
        f"{layer}.mlp.gate_proj.weight": (22016 // tp, 8192),
        f"{layer}.mlp.down_proj.weight": (8192, 22016 // tp),
        f"{layer}.input_layernorm.weight": (8192,),
        "lm_head.weight": (102400 // tp, 8192),
    }
    assert {name: placed[name].local_shape for name in expected} == expected
    assert not any(placement.padded for placement in placed.values())
    if tp == 32:
        (box,) = placed[f"{layer}.self_attn.k_proj.weight"].boxes
        assert (box.offsets[0] // 128, box.copy) == (31 % 8, 31 // 8)
    assert math.prod(placed["lm_head.weight"].local_shape) * tp == 102400 * 8192


def run_script(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(harness.ROOT / "scripts" / "plan.py"), *arguments],
        cwd=cwd,
        env=harness.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_script_prints_deepseek_67b_in_under_ten_seconds(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run_script(tmp_path, "recipe=deepseek67b", "parallel.pp=1", "--rank", "31")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time: other tests may share the machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert sum(line[0].startswith(("model.", "lm_head")) for line in lines) == 95 * 9 + 3
    k_proj = next(line for line in lines if line[0] == "model.layers.94.self_attn.k_proj.weight")
    assert " ".join(k_proj[1:]) == "kv never normal(0.006) yes yes 1024 x 8192 128 x 8192 [896:1024, 0:8192] copy 3"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [["--rank=-1"], ["--rank", "1"], ["--rank", "x"], ["--rank"]])
def test_a_rank_that_is_none_is_a_mistake_with_a_remedy(given: list[str], tmp_path: Path) -> None:
    """One process has rank 0 alone."""
    done = run_script(tmp_path, "recipe=tiny", *given)
    assert done.returncode == 3
    assert "1. --rank = " in done.stderr
    assert "remedy:" in done.stderr
    assert "Traceback" not in done.stderr
