"""Topologies and environments of Trainium: the documented verdict and remedy for each. No device, no Neuron package.

Expectations are AWS's documents' (core counts, EFA, packages, variables) and neuronx-distributed's source, not this
project's tables: trainer/trainium says where each stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.unit.test_validate import VALID, changed
from trainer.errors import ConfigError
from trainer.rules.check import RULES, validate
from trainer.run.world import World
from trainer.trainium.host import Host

PINNED = {
    "neuronx-cc": "2.23.6484.0+build",
    "torch-neuronx": "2.9.0.2.12.22436+build",
    "neuronx-distributed": "0.17.26814+build",
    "libneuronxla": "2.2.15515.0+build",
    "torch": "2.9.1",
    "torch-xla": "2.9.0",
}
SDK_229 = {
    **PINNED,
    "neuronx-cc": "2.24.5133.0",
    "torch-neuronx": "2.9.0.2.13.24727",
    "neuronx-distributed": "0.18.27753",
    "libneuronxla": "2.2.16408.0",
}
SDK_231 = {**PINNED, "neuronx-cc": "2.26.6360.0", "torch-neuronx": "2.9.0.2.15.32035", "libneuronxla": "2.2.17544.0"}
SDK_233 = {**PINNED, "neuronx-cc": "2.28.7631", "torch-neuronx": "2.9.0.2.15.32035", "libneuronxla": "3.0.10135"}
BIG = Host("trn1.32xlarge", devices=16, efa=8, driver="2.26.10.0", runtime="2.30.51.0-abc", packages=PINNED)
SMALL = replace(BIG, instance="trn1.2xlarge", devices=1, efa=0)
NETWORK = replace(BIG, instance="trn1n.32xlarge", efa=16)
ODD = replace(BIG, instance="trn2.48xlarge")
FINE = ""


@dataclass(frozen=True)
class Case:
    """processes on each node, nodes, host; then the key of the only problem, words of its rule, words of its remedy."""

    per_node: int
    nodes: int = 1
    host: Host = BIG
    layout: Mapping[str, Any] = field(default_factory=dict)
    key: str = FINE
    rule: str = ""
    remedy: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)


def with_variables(case: Case) -> Host:
    return replace(case.host, variables=case.variables)


PP = {"model.layers": 32, "train.tokens_per_step": 2**20}
CORES, NODE, CC = "number of processes", "processes of a node", "NEURON_CC_FLAGS"
VISIBLE, CACHE = "NEURON_RT_VISIBLE_CORES", "NEURON_COMPILE_CACHE_URL"
EXEC = "NEURON_RT_EXEC_TIMEOUT"
CASES = {
    # core counts of one node
    "one core": Case(1),
    "two cores": Case(2, layout={"parallel.tp": 2}),
    "eight cores": Case(8, layout={"parallel.tp": 8}),
    "a whole node": Case(32, layout={"parallel.tp": 32}),
    "a whole trn1n node": Case(32, host=NETWORK, layout={"parallel.tp": 8}),
    "four cores": Case(4, key=CORES, rule="1, 2, 8, 32", remedy="--nproc_per_node 2, or 32"),
    "sixteen cores": Case(16, key=CORES, rule="1, 2, 8, 32", remedy="--nproc_per_node 8, or 32"),
    "more than there are": Case(64, key=CORES, rule="of each of several", remedy="--nproc_per_node 32"),
    "both cores of the small one": Case(2, host=SMALL),
    "eight cores of the small one": Case(8, host=SMALL, key=CORES, rule="1, 2 on one trn1.2xlarge", remedy="node 2"),
    "another chip": Case(2, host=ODD, key="instance type", rule="trn1n.32xlarge", remedy="rent one"),
    "half of the devices": Case(8, host=replace(BIG, instance=None, devices=8), key="instance type", remedy="neuron*"),
    # several nodes
    "two nodes": Case(32, 2, layout={"parallel.tp": 32}),
    "four nodes of trn1n": Case(32, 4, host=NETWORK, layout={"parallel.tp": 8}),
    "eight cores of two nodes": Case(8, 2, key=NODE, rule="all cores of each", remedy="--nnodes 2 --nproc_per_node 32"),
    "two small ones": Case(2, 2, host=SMALL, key="number of nodes", rule="no EFA", remedy="trn1.32xlarge"),
    "no EFA": Case(32, 2, host=replace(BIG, efa=0), key="EFA devices", rule="8 of a trn1.32", remedy="efa-installer"),
    "half of trn1n's EFA": Case(32, 2, host=replace(NETWORK, efa=8), key="EFA devices", rule="16 of a trn1n"),
    "no EFA and no need": Case(32, host=replace(BIG, efa=0)),
    # tensor parallel
    "tp 4": Case(32, layout={"parallel.tp": 4}, key="parallel.tp", rule="[0, 8, 16, 24]", remedy="parallel.tp=8"),
    "tp 4 in a pipeline": Case(
        *(32, 1, BIG),
        {"parallel.tp": 4, "parallel.pp": 8, "evaluation.sample_prompt": "", **PP},
        *("parallel.tp", "dp 1 below 32/4", "parallel.tp=2"),
    ),
    "tp 4 on eight cores": Case(8, layout={"parallel.tp": 4}, key="parallel.tp", rule="with a stride"),
    "tp 16": Case(32, layout={"parallel.tp": 16}, key="parallel.tp", rule="trn2", remedy="parallel.tp=8"),
    "tp over two nodes": Case(
        32, 2, layout={"parallel.tp": 64}, key="parallel.tp", rule="within a node", remedy="tp=32"
    ),
    "not divisible": Case(
        *(32, 1, BIG, {"parallel.tp": 8, "parallel.pp": 3, "evaluation.sample_prompt": ""}, "parallel"),
        *("(24) divides the number of processes (32)", "on each of 3 nodes or a multiple: torchrun --nnodes 3"),
    ),
    # which cores
    "the second eight": Case(8, variables={VISIBLE: "8-15"}),
    "not aligned": Case(8, variables={VISIBLE: "4-11"}, key=VISIBLE, rule="multiple of 8", remedy=f"{VISIBLE}=0-7"),
    "not neighbours": Case(2, variables={VISIBLE: "0,2"}, key=VISIBLE, rule="neighbours", remedy=f"{VISIBLE}=0-1"),
    "too few": Case(8, variables={VISIBLE: "0-3"}, key=VISIBLE, rule="each of the 8", remedy=f"{VISIBLE}=0-7"),
    "in the wrong order": Case(2, variables={VISIBLE: "31,0"}, key=VISIBLE, rule="in order", remedy=f"{VISIBLE}=30-31"),
    "with a gap": Case(2, variables={VISIBLE: "1,3"}, key=VISIBLE, rule="neighbours", remedy=f"{VISIBLE}=0-1"),
    "beyond the last": Case(8, variables={VISIBLE: "32-39"}, key=VISIBLE, rule="0 to 31", remedy="24-31"),
    "no cores": Case(8, variables={VISIBLE: "all"}, key=VISIBLE, rule="a range", remedy="unset"),
    # packages
    "SDK 2.29": Case(32, host=replace(BIG, packages=SDK_229)),
    "SDK 2.31": Case(32, host=replace(BIG, packages=SDK_231), key="neuronx-cc", rule="SDK 2.31", remedy="2.23.6484.*"),
    "SDK 2.33, never tried": Case(32, host=replace(BIG, packages=SDK_233)),
    "TorchNeuron": Case(
        *(32, 1, replace(BIG, packages={**PINNED, "torch-neuronx": "2.13.3.0"}), {}),
        *("torch-neuronx", "another product, TorchNeuron, for trn2 and trn3", "torch-neuronx==2.9.0.2.12.22436"),
    ),
    "two SDKs mixed": Case(
        *(32, 1, replace(BIG, packages={**PINNED, "neuronx-distributed": "0.18.27753"})),
        *({}, "neuronx-distributed", "0.17.26814, of Neuron SDK 2.28.1", "pip.repos.neuron.amazonaws.com"),
    ),
    "no compiler": Case(
        *(32, 1, replace(BIG, packages={k: v for k, v in PINNED.items() if k != "neuronx-cc"})),
        *({}, "neuronx-cc", "installed", "pip.repos.neuron.amazonaws.com"),
    ),
    "torch too new": Case(32, host=replace(BIG, packages={**PINNED, "torch": "2.10.0"}), key="torch", remedy="2.9.*"),
    # variables
    "variables that are harmless": Case(32, variables={CC: "-O1", CACHE: "s3://b/c", "MALLOC_ARENA_MAX": "128"}),
    "BF16 behind the back": Case(32, variables={"XLA_USE_BF16": "1"}, key="XLA_USE_BF16", remedy="unset XLA_USE_BF16"),
    "the other, even as 0": Case(32, variables={"XLA_DOWNCAST_BF16": "0"}, key="XLA_DOWNCAST_BF16", remedy="unset"),
    "no functionalization": Case(
        32, variables={"XLA_DISABLE_FUNCTIONALIZATION": "1"}, key="XLA_DISABLE_FUNCTIONALIZATION", rule="aborts"
    ),
    "rounding against the mode": Case(
        *(32, 1, BIG, {}, "NEURON_RT_STOCHASTIC_ROUNDING_EN", "precision.mode=bf16_mixed", "unset"),
        {"NEURON_RT_STOCHASTIC_ROUNDING_EN": "1"},
    ),
    "buckets of NaN": Case(
        *(32, 1, BIG, {}, "ALL_GATHER_REDUCE_SCATTER_BUCKET_CAP_MB", "up to 130", "unset"),
        {"ALL_GATHER_REDUCE_SCATTER_BUCKET_CAP_MB": "512"},
    ),
    "sockets between nodes": Case(
        32, 2, variables={"FI_PROVIDER": "tcp"}, key="FI_PROVIDER", rule="efa", remedy="unset"
    ),
    "sockets on one node": Case(32, variables={"FI_PROVIDER": "tcp"}),
    "casts by the compiler": Case(32, variables={CC: "--auto-cast all"}, key=CC, rule="none", remedy="--auto-cast all"),
    "cache on NFS": Case(32, host=replace(BIG, cache_filesystem="nfs4"), key=CACHE, rule="file locks", remedy="s3://"),
    "cache on NFS, by a flag": Case(
        *(32, 1, replace(BIG, cache_filesystem="lustre"), {}, CC, "file locks", "take --cache_dir out"),
        {CC: "--cache_dir=/fsx/cache"},
    ),
    "an open quote": Case(32, variables={CC: "--foo 'bar"}, key=CC, rule="No closing quotation", remedy="close"),
    "the CPU in the device's place": Case(32, variables={"PJRT_DEVICE": "CPU"}, key="PJRT_DEVICE", rule="NEURON"),
    "no patience": Case(32, variables={EXEC: "30"}, key=EXEC, rule="7200 or more", remedy="unset"),
    "trn2's layout": Case(
        32, variables={"NEURON_PLATFORM_TARGET_OVERRIDE": "trn2"}, key="NEURON_PLATFORM_TARGET_OVERRIDE", remedy="unset"
    ),
}
EMPTY = {"neuronx-cc": "1.0.post1", "torch-neuronx": "1.0", "neuronx-distributed": "0.1", "libneuronxla": "1.0"}
for _name, _version in EMPTY.items():
    CASES[f"the empty {_name}"] = Case(
        *(32, 1, replace(BIG, packages={**PINNED, _name: _version})),
        *({}, _name, "the empty one of that name", "--extra-index-url https://pip.repos.neuron.amazonaws.com"),
    )


def check(case: Case) -> None:
    """Validate the case's configuration on its machine. Raises ConfigError with what is wrong."""
    config = VALID
    for key, value in {"backend.name": "neuron", "train.tokens_per_step": 2**17, **PP, **case.layout}.items():
        config = changed(config, key, value)
    config = changed(config, "train.microbatch", 1)
    config = changed(config, "model.mlp", 1024)  # every size of tensor parallelism divides it
    host = with_variables(case) if case.variables else case.host
    size = case.per_node * case.nodes
    world = World(size=size, local_rank=0, local_size=case.per_node, trainium=True, host=host, cpu_bf16=True)
    validate(config, world, RULES)


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_and_its_remedy(name: str) -> None:
    case = CASES[name]
    if case.key == FINE:
        check(case)
        return
    with pytest.raises(ConfigError) as raised:
        check(case)
    assert raised.value.code == 3
    problems = raised.value.problems
    assert [problem.key for problem in problems] == [case.key], "\n".join(map(str, problems))
    assert case.rule in problems[0].rule
    assert problems[0].remedy
    assert case.remedy in problems[0].remedy


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.key == "parallel.tp"])
def test_a_remedy_of_tensor_parallelism_is_legal(name: str) -> None:
    """Each size that it names, tried."""
    case = CASES[name]
    with pytest.raises(ConfigError) as raised:
        check(case)
    sizes = [int(size) for size in re.findall(r"parallel\.tp=(\d+)", raised.value.problems[0].remedy)]
    assert sizes
    for size in sizes:
        check(replace(case, layout={**case.layout, "parallel.tp": size}))


def test_there_are_as_many_as_promised() -> None:
    assert len(CASES) >= 25
