"""Command lines rendered from recipes, read by torch's own parser."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest
from hydra import compose, initialize_config_dir
from torch.distributed.run import parse_args

from tests import harness
from trainer.commands.command import launches
from trainer.commands.entry import register_schema
from trainer.config.compose import to_config
from trainer.config.schema import Config
from trainer.errors import ConfigError


def configured(*overrides: str) -> Config:
    register_schema()
    with initialize_config_dir(str(harness.ROOT / "conf"), version_base="1.3"):
        config = to_config(compose("train", list(overrides)))
    return replace(config, run=replace(config.run, name=config.recipe))


def commands(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines if line.startswith("  torchrun")]


@pytest.mark.parametrize("nodes", [4, 16])
def test_the_command_of_several_nodes(nodes: int) -> None:
    lines = list(launches(configured("recipe=deepseek67b"), ["recipe=deepseek67b", "optim.lr=1e-4"], nodes))
    (command,) = commands(lines)
    given = shlex.split(command)
    assert given[0] == "torchrun"
    read = parse_args(given[1:])
    assert (read.nnodes, read.nproc_per_node) == (str(nodes), "32")
    assert (read.rdzv_backend, read.rdzv_endpoint, read.rdzv_id) == ("c10d", "HOST:29500", "deepseek67b")
    assert read.training_script == "scripts/train.py"
    assert read.training_script_args == ["recipe=deepseek67b", "optim.lr=1e-4"]
    text = "\n".join(lines)
    for argument in ("--nnodes", "--nproc_per_node", "--rdzv_backend", "--rdzv_endpoint", "--rdzv_id"):
        assert sum(line.strip().startswith(argument) for line in lines) == 1, "with a line for its reason"
    assert "FI_PROVIDER=efa" in text
    assert "NEURON_RT_STOCHASTIC_ROUNDING_EN=0" in text


def test_one_node_and_the_recipes_own_number() -> None:
    lines = list(launches(configured("recipe=deepseek7b"), ["recipe=deepseek7b"], None))
    one, several = (parse_args(shlex.split(command)[1:]) for command in commands(lines))
    assert (one.nnodes, one.nproc_per_node) == ("1:1", "32")
    assert several.nnodes == "8", "the batch is meant for 256 cores"


def test_a_number_of_nodes_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="divides the number of processes"):
        list(launches(configured("recipe=deepseek67b"), [], 3))
    with pytest.raises(ConfigError, match="1 or more"):
        list(launches(configured("recipe=deepseek67b"), [], 0))
    with pytest.raises(ConfigError, match="with a stride"):
        list(launches(configured("recipe=deepseek7b", "parallel.tp=4"), [], 1))


def test_an_override_that_a_shell_would_split_is_quoted() -> None:
    override = "data.sources=[{name: c, kind: indexed, paths: [data/c]}]"
    (command,) = commands(list(launches(configured("recipe=deepseek7b"), ["recipe=deepseek7b", override], 1)))
    assert parse_args(shlex.split(command)[1:]).training_script_args[-1] == override


def test_where_no_number_of_nodes_does_the_reasons_are_an_error() -> None:
    with pytest.raises(ConfigError) as raised:
        list(launches(configured("recipe=deepseek7b", "parallel.tp=16"), [], None))
    assert [problem.key for problem in raised.value.problems] == ["parallel.tp"]
    with pytest.raises(ConfigError) as raised:
        list(launches(configured("recipe=deepseek7b", "precision=bf16", "parallel.zero=0"), [], 1))
    assert [problem.key for problem in raised.value.problems] == ["parallel.zero"], "what the backend refuses"


def test_the_backend_is_neurons_whatever_was_asked() -> None:
    lines = list(launches(configured("recipe=deepseek7b"), ["backend=native", "backend.name=fake", "seed=3"], 1))
    assert commands(lines)[0].endswith("scripts/train.py seed=3")
