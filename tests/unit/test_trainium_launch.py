"""Command lines rendered from recipes, read by torch's own parser; the doctor on machines that are described."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
from hydra import compose, initialize_config_dir
from torch.distributed.run import parse_args

from tests import harness
from tests.unit.test_topology import BIG, PINNED, SDK_229, SDK_233, SMALL
from trainer.commands.command import launches
from trainer.commands.doctor import Limits, examine, reserved_ports
from trainer.commands.entry import register_schema
from trainer.config.compose import to_config
from trainer.config.schema import Config
from trainer.errors import ConfigError

ROOMY = Limits(free_gib=500, open_files=65535, ephemeral=(32768, 60999), reserved="41000")


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


def test_a_machine_in_order() -> None:
    for nodes in (1, 4):
        assert [line.what for line in examine(BIG, ROOMY, nodes) if not line.fine] == []


@pytest.mark.parametrize(
    ("host", "here", "nodes", "what", "remedy"),
    [
        (replace(BIG, efa=0), ROOMY, 2, ["EFA devices"], "aws-efa-installer"),
        (replace(BIG, efa=0), ROOMY, 1, [], ""),
        (replace(BIG, driver=None), ROOMY, 1, ["driver"], "aws-neuronx-dkms=2.26.10"),
        (replace(BIG, driver="2.9.4.0"), ROOMY, 1, ["driver"], "aws-neuronx-dkms=2.26.10"),
        (replace(BIG, runtime="2.34.10.0"), ROOMY, 1, ["runtime library"], "aws-neuronx-runtime-lib=2.30.51"),
        (replace(BIG, devices=15), ROOMY, 1, ["Neuron devices"], "modprobe"),
        (SMALL, ROOMY, 2, ["instance", "EFA devices"], "rent one"),
        (BIG, replace(ROOMY, free_gib=8), 1, ["disk"], "root volume"),
        (BIG, replace(ROOMY, open_files=1024), 1, ["ulimit -n"], "ulimit -n 65535"),
        (BIG, replace(ROOMY, ephemeral=(1024, 65535)), 1, ["port 29500", "port 62182"], "reserved_ports=41000,29500"),
        (BIG, replace(ROOMY, ephemeral=(1024, 65535), reserved="29500,62000-62200"), 1, [], ""),
        (replace(BIG, variables={"XLA_USE_BF16": "1"}), ROOMY, 1, ["XLA_USE_BF16"], "unset"),
        (
            *(replace(BIG, packages={**PINNED, "torch-neuronx": "1.0"}), ROOMY, 1),
            *(["torch-neuronx", "Neuron SDK"], "--extra-index-url"),
        ),
    ],
)
def test_the_doctor_names_what_is_wrong(host: object, here: Limits, nodes: int, what: list[str], remedy: str) -> None:
    wrong = [line for line in examine(host, here, nodes) if not line.fine]  # type: ignore[arg-type]
    assert [line.what for line in wrong] == what
    assert not wrong or remedy in wrong[0].remedy


TORCHNEURON = {**PINNED, "torch-neuronx": "2.13.3.0+x", "torch": "2.13.0"}


@pytest.mark.parametrize(
    ("instance", "packages", "rule", "remedy"),
    [
        ("trn1.32xlarge", TORCHNEURON, "another product, TorchNeuron", "pip install"),
        (None, TORCHNEURON, "another product, TorchNeuron", "pip install"),
        ("trn2.48xlarge", PINNED, "2.9.* is the old product", "torch-neuronx==2.14.3.0 is its own"),
        ("trn3.48xlarge", PINNED, "2.9.* is the old product", "torch-neuronx==2.14.3.0 is its own"),
        ("trn2.48xlarge", TORCHNEURON, "is the product of this trn2.48xlarge", "keep it here; on trn1"),
    ],
)
def test_the_doctor_tells_the_two_products_apart(
    instance: str | None, packages: dict[str, str], rule: str, remedy: str
) -> None:
    """torch-neuronx 2.9.* is XLA, for trn1; 2.13 and later is TorchNeuron, for trn2 and trn3."""
    host = replace(BIG, instance=instance, packages=packages)
    (line,) = [line for line in examine(host, ROOMY, 1) if line.what == "torch-neuronx"]
    assert not line.fine
    assert rule in line.remedy
    assert remedy in line.remedy
    assert '"torch-neuronx==2.9.0.2.12.22436"' in line.remedy


@pytest.mark.parametrize(
    ("packages", "sdk", "flash"),
    [(PINNED, "SDK 2.28.1", "NKI"), (SDK_229, "SDK 2.29.1", "off"), (SDK_233, "2.33.0 (unverified)", "off")],
)
def test_the_doctor_names_the_release_and_its_attention(packages: dict[str, str], sdk: str, flash: str) -> None:
    lines = {line.what: line for line in examine(replace(BIG, packages=packages), ROOMY, 1)}
    assert all(line.fine for line in lines.values())
    assert sdk in lines["Neuron SDK"].found
    assert flash in lines["flash attention"].found


def test_reserved_ports_are_read_as_the_kernel_writes_them() -> None:
    assert reserved_ports("41000,44000-44002") == {41000, 44000, 44001, 44002}
    assert reserved_ports("") == set()


def test_here_the_doctor_finds_no_device() -> None:
    done = subprocess.run(
        [sys.executable, str(harness.ROOT / "scripts" / "doctor.py")],
        env=harness.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3
    assert "0 /dev/neuron*" in done.stdout
    assert "Traceback" not in done.stderr


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
