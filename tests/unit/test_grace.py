"""The estimate of a stop, by the formula written out, and the recipes' own grace against it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hydra import compose, initialize_config_dir

from trainer.commands import entry
from trainer.config.compose import to_config
from trainer.config.diagnose import CONF
from trainer.config.schema import Config
from trainer.rules.grace import grace, save_seconds, step_seconds, stop_line, stop_share, too_short
from trainer.rules.trn1 import full_nodes, refusals

FULL_SIZE = sorted(
    path.stem for path in (CONF / "recipe").glob("*.yaml") if not path.stem.startswith(("tiny", "smollm2"))
)


def recipe(name: str, *overrides: str) -> Config:
    entry.register_schema()
    with initialize_config_dir(str(CONF.resolve()), version_base="1.3"):
        return to_config(compose("train", overrides=[f"recipe={name}", *overrides]))


def test_deepseek_67b_by_hand() -> None:
    """67,425,001,472 parameters (its own closed form), 4,608 samples of 4,096 tokens, 512 cores."""
    config = recipe("deepseek67b")
    assert step_seconds(config, 512) == pytest.approx(6 * 67_425_001_472 * 4608 * 4096 / (512 * 95e12 * 0.39))
    assert save_seconds(config) == pytest.approx(67_425_001_472 * 12 / 1e9)
    assert stop_share(config, full_nodes(512)) == 1.0
    assert "1,212 s (estimated)" in stop_line(config, full_nodes(512))


def test_without_a_pipeline_a_stop_ends_within_the_step() -> None:
    """deepseek7b: 2,304 samples over 32 copies of the model are 72 microbatches, of which 9 are still trained."""
    assert stop_share(recipe("deepseek7b"), full_nodes(256)) == 9 / 72


def test_adapters_of_deepseek_67b_by_hand() -> None:
    """95 layers of hidden 8192, 64 heads, 8 of keys and values, mlp 22,016: rank 16 on seven linears a layer.

    Frozen weights cost 4 FLOPs and are not saved.
    """
    config = recipe("deepseek67b_lora")
    beside = 95 * 16 * (2 * (8192 + 8192) + 2 * (8192 + 1024) + 3 * (8192 + 22016))
    tokens = 64 * 4096
    flops = (4 * 67_425_001_472 + 6 * beside) * tokens
    assert step_seconds(config, 32) == pytest.approx(flops / (32 * 95e12 * 0.39))
    assert save_seconds(config) == pytest.approx(beside * 12 / 1e9)
    assert f"4 x 67,425,001,472 + 6 x {beside:,}" in stop_line(config, full_nodes(32))


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_recipes_pass(name: str) -> None:
    config = recipe(name)
    smallest = max(32, config.parallel.tp * config.parallel.pp)
    for cores in (smallest, config.parallel.cores or 0):
        assert [problem.key for problem in refusals(config, cores) if "grace" in problem.key] == []
    # GPT-3 175B: a save takes 35 minutes, and is not to be followed by the next at once.
    assert config.checkpoint.every_minutes * 60 <= max(1800, 2 * save_seconds(config))
    assert config.checkpoint.every_steps == 0


@pytest.mark.parametrize("name", FULL_SIZE)
def test_too_short_a_grace_is_refused_and_the_remedy_passes(name: str) -> None:
    config = recipe(name, "reliability.grace_seconds=1")
    world = full_nodes(config.parallel.cores or 0)
    (problem,) = grace(config, world)
    assert problem.key == "reliability.grace_seconds"
    assert "(estimated)" in problem.rule
    mended = float(problem.remedy.partition("=")[2].split()[0])
    assert not list(grace(replace(config, reliability=replace(config.reliability, grace_seconds=mended)), world))


def test_other_machines_are_not_reckoned() -> None:
    assert not list(grace(recipe("deepseek67b", "backend=native", "reliability.grace_seconds=1"), full_nodes(512)))


def test_what_a_run_has_measured_is_said_where_the_grace_is_shorter() -> None:
    """A step of 400 s of which a ninth is still trained, and a save of 280 s: 324.4 s, and a quarter more is 7 min."""
    assert too_short(300, 400, 1 / 9, 250) is None
    line = too_short(300, 400, 1 / 9, 280)
    assert line is not None
    assert "324 s, measured" in line
    assert line.endswith("reliability.grace_seconds=420")
