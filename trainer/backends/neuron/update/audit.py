"""What neuronx-distributed does silently wrong when a parameter is marked wrong: looked for once, after building."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from trainer.backends.common.host import HostExchange
from trainer.backends.neuron.defects import DEFECTS
from trainer.backends.neuron.lowering.local import Local
from trainer.errors import ConfigError, Problem
from trainer.parallel.mesh import Mesh
from trainer.parallel.plan import Rule

UNREDUCED = "input_gradient_not_reduced"
REMEDY = "this is a defect of the lowering (trainer/backends/neuron), or neuronx-distributed has changed: report it"


def audit_marks(
    parameters: Mapping[str, nn.Parameter],
    locals_: Mapping[str, Local],
    rules: Mapping[str, Rule],
    tp: int,
    sequence: bool,
) -> None:
    """Shapes, and NxD's marks, against the sharding plan. Raises ConfigError naming every parameter that differs.

    Unmarked shards understate the norm and are averaged as copies would be; a norm without its mark of
    sequence parallelism keeps a partial gradient.
    """
    problems = [
        problem
        for name, parameter in parameters.items()
        for problem in _differences(name, parameter, locals_[name], rules[name], tp, sequence)
    ]
    if problems:
        raise ConfigError(problems)


def _differences(
    name: str, parameter: nn.Parameter, local: Local, rule: Rule, tp: int, sequence: bool
) -> Iterator[Problem]:
    expected: dict[str, object] = {"shape": local.shape, "tensor_model_parallel": rule.dim is not None}
    if rule.dim is not None:
        expected |= {"partition_dim": rule.dim, "num_partitions": tp}
    else:
        expected["sequence_parallel_enabled"] = sequence and tp > 1 and rule.summed == "sequence"
    for mark, value in expected.items():
        found = tuple(parameter.shape) if mark == "shape" else getattr(parameter, mark, False)
        if found != value:
            yield Problem(f"{name}.{mark}", found, f"{value}, by cut {rule} of the sharding plan", REMEDY)


def audit_reduction(model: nn.Module, dtype: torch.dtype) -> None:
    """A column-parallel layer that reduces in another dtype than its own does not reduce at all."""
    problems = [
        Problem(
            f"{name}.reduce_dtype",
            layer.reduce_dtype,
            f"the layer's own dtype, {dtype}: {DEFECTS[UNREDUCED].says}",
            REMEDY,
        )
        for name, layer in model.named_modules()
        if getattr(layer, "reduce_dtype", dtype) != dtype
    ]
    if problems:
        raise ConfigError(problems)


def audit_copies(
    parameters: Mapping[str, nn.Parameter], rules: Mapping[str, Rule], mesh: Mesh, host: HostExchange
) -> None:
    """What is not cut is equal to the byte on all tensor-parallel ranks. Collective; ConfigError on all ranks."""
    if mesh.tp == 1:
        return
    digest = hashlib.blake2b()
    for name, parameter in parameters.items():
        if rules[name].dim is None:
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    everyone = host.gather(digest.digest())
    unlike = [ranks for ranks in mesh.groups("tp") if len({everyone[rank] for rank in ranks}) > 1]
    if unlike:
        rule = "parameters that are not cut are equal on all tensor-parallel ranks"
        raise ConfigError(Problem("replicated parameters", f"they differ within ranks {unlike[0]}", rule, REMEDY))
