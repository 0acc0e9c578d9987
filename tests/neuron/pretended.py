"""One rank of a full-size recipe's world, alone in this process: its parameters, its memory, and its step as a graph.

torch's fake store stands in for the other ranks, so process groups of any size exist; what would run a graph with
collectives in it is held back. Runs in a rank of tests/ranks.py, on torch_xla's lazy tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch_xla
import torch_xla.core.xla_model as xm
import torch_xla.runtime as xr
from neuronx_distributed.parallel_layers import parallel_state
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.testing._internal.distributed.fake_pg import FakeStore

from recipes.parts import make_mesh
from tests.neuron.full_size import planned
from trainer.backends.neuron import backend as module
from trainer.backends.neuron import groups
from trainer.backends.neuron.backend import NeuronBackend
from trainer.backends.neuron.graphs import pending
from trainer.backends.neuron.graphs.hlo import Collective
from trainer.backends.neuron.making import make
from trainer.batch import Batch
from trainer.config.schema import Config
from trainer.models.decoder import CausalLM
from trainer.models.family import family_of
from trainer.models.sharding import sharding_plan
from trainer.parallel.mesh import DATA, Mesh
from trainer.rules.derived import Derived


def pretend(mesh: Mesh) -> None:
    """Be the mesh's rank: NxD's groups, without the all-reduce by which it warms them up."""
    xr.world_size = xr.global_device_count = lambda: mesh.world
    xr.global_ordinal = lambda: mesh.rank
    import torch_xla.distributed.xla_backend  # noqa: F401  registers the backend "xla"

    dist.init_process_group("xla", store=FakeStore(), rank=mesh.rank, world_size=mesh.world)
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=mesh.tp,
        pipeline_model_parallel_size=mesh.pp,
        context_parallel_size=mesh.cp,
        skip_collective_init=True,
    )
    groups.check_order(mesh)


def sharded(config: Config, derived: Derived, mesh: Mesh, device: torch.device) -> NeuronBackend:
    """The backend as the recipes make it, up to the weights' values."""
    backend = make(config, derived, mesh)
    assert isinstance(backend, NeuronBackend)
    backend.device = device
    if config.adapter.kind == "none":
        backend.shard(lambda: CausalLM(config.model), sharding_plan(config.model), config.precision.mode)
    else:
        family = family_of(config.model, config.adapter)
        backend.shard(family.build, family.plan, config.precision.mode)
    return backend


def hold(recipe: str, rank: int) -> dict[str, Any]:
    """What one rank of the whole recipe holds, on tensors without memory."""
    config, derived = planned(recipe)
    mesh = make_mesh(config, derived, rank)
    pretend(mesh)
    _lower_for_real()
    with without_running(), FakeTensorMode(allow_non_fake_inputs=True):
        # An XLA tensor without memory: torch_xla's ZeRO-1 asserts the device.
        backend = sharded(config, derived, mesh, torch.device("xla", 0))
    return {
        "shapes": {name: list(parameter.shape) for name, parameter in backend._parameters.items()},
        "pieces": dict(_pieces(backend)),
        "shards": dict(_shards(backend)),
        "bytes": {
            "weights": _bytes(backend._parameters.values()),
            "gradients": _bytes(shard.main_grad for shard in backend._zero.shards.values()),  # type: ignore[misc]
            "optimizer": _bytes([*backend._zero.shards.values(), *(t for _, _, t in backend._zero.moments())]),
        },
    }


def _lower_for_real() -> None:
    """Up to its memory the model is on the meta device, and its code asks whether it is: a fake tensor denies it."""
    for name in ("lower", "Pipeline"):
        made = getattr(module, name)

        def make(*args: Any, made: Any = made, **kwargs: Any) -> Any:
            with unset_fake_temporarily():
                return made(*args, **kwargs)

        setattr(module, name, make)


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _pieces(backend: NeuronBackend) -> Iterator[tuple[str, list[Any]]]:
    """Canonical name -> the tensor it is in, rows there, columns, and its boxes as offsets, sizes, local starts."""
    for name, parameter in backend._parameters.items():
        local = backend._host._locals[name]
        for canonical, _, boxes in local.boxes(0, parameter.shape[0]):
            yield canonical, [name, [_box(box) for box in boxes]]


def _shards(backend: NeuronBackend) -> Iterator[tuple[str, list[Any]]]:
    """The same of what ZeRO-1 leaves of the tensor, which is what a checkpoint sees."""
    for name, shard in backend._zero.shards.items():
        local = backend._host._locals[name]
        for canonical, _, boxes in local.boxes(*backend._host.rows(name)):
            yield canonical, [name, list(shard.shape), [_box(box) for box in boxes]]


def _box(box: Any) -> list[Any]:
    return [list(box.offsets), list(box.sizes), [part.start for part in box.local], box.copy]


def blank(config: Config) -> Batch:
    """A microbatch of zeros."""
    shape = (config.train.microbatch, config.data.seq_len)
    return Batch(*(torch.zeros(shape, dtype=torch.int64) for _ in Batch._fields))


@contextmanager
def without_running() -> Iterator[None]:
    """A cut of the graph does nothing, and anything that would run one raises."""
    kept = torch_xla.sync, xm.mark_step, xm.unlazy
    torch_xla.sync = torch_xla.torch_xla.sync = xm.mark_step = xm.unlazy = lambda *_, **__: None
    torch_xla._XLAC._set_allow_execution(False)
    try:
        yield
    finally:
        torch_xla._XLAC._set_allow_execution(True)
        torch_xla.sync, xm.mark_step, xm.unlazy = kept
        torch_xla.torch_xla.sync = kept[0]


def lower_step(recipe: str, layers: int, rank: int) -> dict[str, Any]:
    """A whole step of a rank of the shortened recipe as a graph: microbatches, then the update. Nothing of it runs."""
    config, derived = planned(recipe, layers)
    mesh = make_mesh(config, derived, rank)
    pretend(mesh)
    know_what_is_received(config, mesh)
    backend = sharded(config, derived, mesh, torch_xla.device())
    batches = [blank(config)] * derived.accumulation
    with without_running():
        if mesh.pp > 1:  # the engine's first time infers shapes
            backend.forward_backward(batches, 1.0)
            _forget(backend)
        backend.forward_backward(batches, 1.0)
        metrics = backend.clip_and_apply(1e-4)
        graph = pending.pending_graph()
        del metrics
    return {
        "collectives": [describe(collective, mesh) for collective in graph.collectives],
        "dots": sorted({matmul.lhs.dtype for matmul in graph.matmuls} | {m.rhs.dtype for m in graph.matmuls}),
        "flops": graph.flops,
        "host": graph.host,
        "dynamic": graph.dynamic,
    }


def _forget(backend: NeuronBackend) -> None:
    """As if nothing had been accumulated, or sent, yet."""
    backend._zero.zero_grad()
    backend._loss = torch.zeros_like(backend._loss)
    torch_xla._XLAC._set_all_reduce_token(str(torch_xla.device()), None)


def know_what_is_received(config: Config, mesh: Mesh) -> None:
    """A stage tells the next the shape of what it will send, over the host: here the next knows."""
    if mesh.pp == 1:
        return
    from neuronx_distributed.pipeline import model as engine

    parts = mesh.tp if config.parallel.sp else 1
    hidden = torch.empty(
        config.train.microbatch,
        config.data.seq_len // mesh.cp // parts,
        config.model.hidden,
        dtype=torch.bfloat16,
        device="meta",
    )
    skeleton, _, metas = engine.SerializationManager().serialize(hidden.requires_grad_())
    engine.recv_python_object = lambda **_: (metas, skeleton)
    engine.send_python_object = lambda *_, **__: None


def describe(collective: Collective, mesh: Mesh) -> str:
    """Kind, axis, ranks, dtype and bytes that the rank hands in."""
    axis = _axis(collective.groups, mesh)
    size = collective.size or mesh.world
    return f"{collective.kind} {axis} {size} {collective.dtype} {collective.bytes}"


def _axis(replicas: tuple[tuple[int, ...], ...], mesh: Mesh) -> str:
    """Which ranks meet; the rank's own group does not do, the graph names everybody's."""
    found = sorted(tuple(sorted(group)) for group in replicas)
    for name, axes in (("tp", ("tp",)), ("data", DATA), ("cp", ("cp",))):
        if found == mesh.groups(*axes):
            return name
    if not found or found == [tuple(range(mesh.world))]:
        return "world"
    if all(len(group) == 2 and _neighbours(mesh, *group) for group in found):
        return "pp"
    if all(len({mesh.coordinate(axis, rank) for rank in group}) == 1 for group in found for axis in ("cp", "dp", "pp")):
        return f"tp/{math.ceil(mesh.tp / len(found[0]))}"
    raise AssertionError(f"ranks meet that no axis joins: {found[:3]}")


def _neighbours(mesh: Mesh, one: int, other: int) -> bool:
    """Whether two ranks are in the same place of stages that follow one another; the first follows the last."""
    apart = [axis for axis in ("tp", "cp", "dp") if mesh.coordinate(axis, one) != mesh.coordinate(axis, other)]
    return not apart and (mesh.coordinate("pp", one) - mesh.coordinate("pp", other)) % mesh.pp in (1, mesh.pp - 1)
