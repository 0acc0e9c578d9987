"""Which numbers and groups of NeuronCores a job on trn1 can use. No torch.

Sources, by file of the AWS Neuron documentation (github.com/aws-neuron/aws-neuron-sdk at 81ce03a):
core counts and alignment: archive/nxd-training/torch-neuron-envvars.rst, NEURON_RT_VISIBLE_CORES;
EFA: frameworks/torch/torch-neuronx/setup-trn1-multi-node-execution.rst; cores of an instance:
about-neuron/arch/neuron-hardware/trn1-arch.rst. TP 4: neuronx-distributed 0.17.0, parallel_layers/parallel_state.py,
initialize_model_parallel, which lays the group out with a stride where the hardware is trn1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log2

from trainer.errors import Problem

CORES_OF_A_NODE = 32
"""NeuronCores of a trn1.32xlarge."""
CORES_OF_A_JOB = (1, 2, 8, 32)
"""Numbers of cores of one instance that a job can use, from a core whose number it divides."""
TENSOR_PARALLEL = (1, 2, 8, 32)
"""Tensor-parallel sizes of trn1: groups that lie within a node and that the runtime can connect."""


@dataclass(frozen=True)
class Instance:
    """A kind of machine."""

    name: str
    cores: int
    efa: int
    """EFA devices, when it was launched with all of them."""


INSTANCES = (Instance("trn1.2xlarge", 2, 0), Instance("trn1.32xlarge", 32, 8), Instance("trn1n.32xlarge", 32, 16))
CORES_OF_A_DEVICE = 2
MOST_CORES = 1024
"""Far more than a machine has."""


@dataclass(frozen=True)
class Topology:
    """The processes of a job, one a core, and the axes over them."""

    world: int
    per_node: int
    """Processes of this node."""
    tp: int = 1
    pp: int = 1
    cp: int = 1
    first_core: int = 0
    """Core of the first process of this node."""

    @property
    def nodes(self) -> int:
        """Nodes, of which the last may be incomplete."""
        return -(-self.world // self.per_node)

    @property
    def dp(self) -> int:
        """Copies of the model."""
        return self.world // (self.tp * self.pp * self.cp)


def instance_of(name: str | None, devices: int) -> Instance | None:
    """The kind of machine, by its name or else by its /dev/neuron* devices; None where trn1 has no such."""
    if name is not None and "." in name:
        return next((instance for instance in INSTANCES if instance.name == name), None)
    return next((instance for instance in INSTANCES if instance.cores == devices * CORES_OF_A_DEVICE), None)


def problems(topology: Topology, instance: Instance) -> Iterator[Problem]:
    """Everything that this instance, or several of them, cannot connect. The axes divide the world already."""
    yield from _cores(topology, instance)
    if topology.nodes > 1:
        yield from _nodes(topology, instance)
    yield from _tensor_parallel(topology)


def _cores(t: Topology, instance: Instance) -> Iterator[Problem]:
    legal = [n for n in CORES_OF_A_JOB if n <= instance.cores]
    if t.per_node not in legal:
        rule = f"{', '.join(map(str, legal))} on one {instance.name}"
        if instance.cores == CORES_OF_A_NODE:
            rule += f", or all {CORES_OF_A_NODE} of each of several: the runtime connects no other group"
        best = max(n for n in legal if n <= max(1, t.per_node))
        remedy = f"torchrun --nproc_per_node {best}" + (f", or {instance.cores}" if best < instance.cores else "")
        yield Problem("number of processes", t.per_node, rule, remedy)
    elif t.first_core % t.per_node:
        rule = f"a job of {t.per_node} cores begins at a multiple of {t.per_node}"
        first = t.first_core // t.per_node * t.per_node
        yield Problem("NEURON_RT_VISIBLE_CORES", t.first_core, rule, visible(first, t.per_node))
    elif t.first_core + t.per_node > instance.cores:
        rule = f"{instance.name} has the cores 0 to {instance.cores - 1}"
        remedy = visible(instance.cores - t.per_node, t.per_node)
        yield Problem("NEURON_RT_VISIBLE_CORES", t.first_core, rule, remedy)


def visible(first: int, count: int) -> str:
    """The assignment that gives a job these cores."""
    return f"NEURON_RT_VISIBLE_CORES={first}" + (f"-{first + count - 1}" if count > 1 else "")


def _nodes(t: Topology, instance: Instance) -> Iterator[Problem]:
    if not instance.efa:
        rule = f"1: {instance.name} has no EFA, over which nodes exchange"
        yield Problem("number of nodes", t.nodes, rule, "run on one, or rent trn1.32xlarge instances")
    elif t.per_node != CORES_OF_A_NODE and t.per_node in CORES_OF_A_JOB:
        rule = f"{CORES_OF_A_NODE}: a job on several nodes uses all cores of each"
        remedy = f"on every node: torchrun --nnodes {t.nodes} --nproc_per_node {CORES_OF_A_NODE}"
        yield Problem("processes of a node", t.per_node, rule, remedy)
    if t.world % t.per_node:
        rule = f"a multiple of the {t.per_node} processes of this node: all nodes have as many"
        remedy = f"the same --nproc_per_node {CORES_OF_A_NODE} on every node"
        yield Problem("number of processes", t.world, rule, remedy)


def _tensor_parallel(t: Topology) -> Iterator[Problem]:
    yield from illegal_tensor_parallel(t)
    if t.tp in TENSOR_PARALLEL and t.tp > t.per_node:
        rule = f"at most the {t.per_node} cores that the job has of a node: a group lies within a node"
        remedy = f"torchrun --nproc_per_node {CORES_OF_A_NODE}, or {_nearest(t)}"
        yield Problem("parallel.tp", t.tp, rule, remedy)


def illegal_tensor_parallel(t: Topology) -> Iterator[Problem]:
    """A size that no world makes legal."""
    legal, off = f"one of {', '.join(map(str, TENSOR_PARALLEL))} on trn1", "; off the device it is allowed"
    if t.tp == 4:
        rule = (
            f"{legal}: neuronx-distributed lays a group of 4 out with a stride ([0, 8, 16, 24] of 32 cores), and the"
            " mesh of this project, its checkpoints included, has neighbours in a group"
        )
        if (t.pp > 1 or t.cp > 1) and t.dp < t.per_node // 4:
            rule += f"; besides, it cannot lay out tp 4 with pp {t.pp} x cp {t.cp} and dp {t.dp} below {t.per_node}/4"
        yield Problem("parallel.tp", 4, rule, _nearest(t) + off)
    elif t.tp == 16:
        rule = f"{legal}: 16 cores are a group of trn2, and on trn1 the collectives' initialisation fails"
        yield Problem("parallel.tp", 16, rule, _nearest(t) + off)
    elif t.tp not in TENSOR_PARALLEL:
        rule = f"{legal}: a group lies within a node"
        yield Problem("parallel.tp", t.tp, rule, f"{_nearest(t)}, and parallel.pp for what does not fit")


def _nearest(t: Topology) -> str:
    """The legal sizes next to this one, in a node and with the other axes; or any of a smaller copy of the model."""
    fit = [n for n in TENSOR_PARALLEL if n <= t.per_node and t.world % (n * t.pp * t.cp) == 0]
    if not fit:
        return "a smaller parallel.tp, parallel.pp or parallel.cp"
    apart = {n: abs(log2(n / t.tp)) for n in fit}
    best = sorted((n for n in fit if apart[n] == min(apart.values())), reverse=True)
    return " or ".join(f"parallel.tp={n}" for n in best)


def parse_cores(text: str) -> list[int] | None:
    """The cores that a value of NEURON_RT_VISIBLE_CORES names, as torch-xla reads it; None where it is none."""
    cores: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) >= MOST_CORES:
            return None
        cores += range(int(first), int(last or first) + 1)
    return cores
