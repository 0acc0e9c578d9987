"""Counts the collectives of a rank and their bytes, by phase, axis and kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import ProcessGroup, _resolve_process_group

from trainer.parallel.mesh import AXES, DATA, Mesh

JOINED = {DATA: "data", AXES: "world"}
"""Names of groups over several axes: the ranks that hold the same weights, and all ranks."""


class Key(NamedTuple):
    """phase: set_up | forward_backward | update. axis: tp, cp, dp, pp, data, or several joined by ``+``.
    kind: all_reduce, all_gather, reduce_scatter, broadcast, all_to_all, send, recv.
    """

    phase: str
    axis: str
    kind: str


@dataclass(frozen=True)
class Traffic:
    """Number of collectives, and bytes of this rank's largest buffer in each, independent of the algorithm.

    all_reduce, broadcast: the tensor. all_gather: the output. reduce_scatter: the input. send, recv: the tensor.
    """

    count: int
    bytes: int

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.count + other.count, self.bytes + other.bytes)


@dataclass(frozen=True)
class _Form:
    """An operator's argument numbers: its largest buffers (None: its result), its process group, and in point-to-point
    the peer's position in the group.
    """

    kind: str
    buffers: int | None
    group: int
    peer: int | None = None


_FORMS = {
    "c10d.allreduce_": _Form("all_reduce", 0, 1),
    "c10d.allreduce_coalesced_": _Form("all_reduce", 0, 1),
    "c10d.broadcast_": _Form("broadcast", 0, 1),
    "c10d.reduce_": _Form("reduce", 0, 1),
    "c10d.allgather_": _Form("all_gather", 0, 2),
    "c10d._allgather_base_": _Form("all_gather", 0, 2),
    "c10d.allgather_into_tensor_coalesced_": _Form("all_gather", 0, 2),
    "c10d.reduce_scatter_": _Form("reduce_scatter", 1, 2),
    "c10d._reduce_scatter_base_": _Form("reduce_scatter", 1, 2),
    "c10d.reduce_scatter_tensor_coalesced_": _Form("reduce_scatter", 1, 2),
    "c10d.alltoall_": _Form("all_to_all", 0, 2),
    "c10d.alltoall_base_": _Form("all_to_all", 0, 2),
    "c10d.send": _Form("send", 0, 1, peer=2),
    "c10d.recv_": _Form("recv", 0, 1, peer=2),
    "_c10d_functional.all_reduce": _Form("all_reduce", 0, 2),
    "_c10d_functional.all_reduce_": _Form("all_reduce", 0, 2),
    "_c10d_functional.broadcast": _Form("broadcast", 0, 2),
    "_c10d_functional.all_gather_into_tensor": _Form("all_gather", None, 2),
    "_c10d_functional.reduce_scatter_tensor": _Form("reduce_scatter", 0, 3),
    "_c10d_functional.all_to_all_single": _Form("all_to_all", 0, 3),
}
_SILENT = ("c10d.barrier", "c10d.monitored_barrier_", "_c10d_functional.wait_tensor")


@dataclass
class Ledger:
    """Collectives so far. mesh: tells a group's axes from its ranks."""

    mesh: Mesh
    phase: str = "set_up"
    entries: dict[Key, Traffic] = field(default_factory=dict)
    _axes: dict[tuple[int, ...], str] = field(default_factory=dict)

    def recorder(self, operator: Any) -> Callable[[Any, Any], None] | None:
        """What to call with the arguments and the result of an operator; None for one that is no collective.

        Raises AssertionError for an unknown collective, which would otherwise go uncounted.
        """
        name = str(operator.overloadpacket)
        if name not in _FORMS:
            assert name in _SILENT or not name.startswith(("c10d.", "_c10d_functional.")), f"{name} is not counted"
            return None
        form = _FORMS[name]

        def record(args: Any, result: Any) -> None:
            ranks = _ranks(args[form.group])
            if form.peer is not None:
                ranks = (self.mesh.rank, ranks[args[form.peer]])
            key = Key(self.phase, self.axis(ranks), form.kind)
            size = buffer_bytes(result if form.buffers is None else args[form.buffers])
            self.entries[key] = self.entries.get(key, Traffic(0, 0)) + Traffic(1, size)

        return record

    def axis(self, ranks: tuple[int, ...]) -> str:
        """The axes along which the ranks differ, as one name. A subgroup of an axis counts as the axis."""
        if ranks not in self._axes:
            used = tuple(a for a in AXES if len({self.mesh.coordinate(a, rank) for rank in ranks}) > 1)
            self._axes[ranks] = JOINED.get(used) or "+".join(used) or "none"
        return self._axes[ranks]

    def take(self) -> Mapping[Key, Traffic]:
        """Return the entries and reset them."""
        taken, self.entries = self.entries, {}
        return taken


def _ranks(group: Any) -> tuple[int, ...]:
    """Global ranks of an operator's process group, given by name or boxed."""
    unboxed = _resolve_process_group(group) if isinstance(group, str) else ProcessGroup.unbox(group)
    return tuple(dist.get_process_group_ranks(unboxed))


def buffer_bytes(buffers: Any) -> int:
    """Bytes of the elements of a tensor, or of nested lists of them."""
    if isinstance(buffers, torch.Tensor):
        return buffers.numel() * buffers.element_size()
    if isinstance(buffers, Iterable):
        return sum(buffer_bytes(buffer) for buffer in buffers)
    return 0
