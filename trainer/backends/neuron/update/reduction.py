"""Sums over ranks that ZeRO-1 knows nothing of: copies of heads, norms under sequence parallelism; and what counts.

Everything here is the same sequence of collectives on every rank of a stage, whatever the rank holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch_xla.core.xla_model as xm

from trainer.backends.neuron.groups import as_lists
from trainer.backends.neuron.lowering.local import Local
from trainer.parallel.boxes import Box
from trainer.parallel.heads import HeadLayout, lay_out
from trainer.parallel.mesh import DATA, Mesh
from trainer.parallel.plan import Plan, Rule
from trainer.trainium.environment import BUCKET_MB

BUCKET_ELEMENTS = BUCKET_MB * 2**20 // 4
"""Of one collective over FP32 gradients."""


class Reduction:
    """Made once for the parameters of a rank that are trained (by their lowered names).

    sequence: sequence parallelism is on. replicated: without ZeRO-1 the data axes are summed here.
    """

    def __init__(
        self,
        mesh: Mesh,
        plan: Plan,
        locals_: Mapping[str, Local],
        rules: Mapping[str, Rule],
        sequence: bool,
        replicated: bool,
        device: torch.device,
    ) -> None:
        self._mesh, self._locals, self._rules = mesh, locals_, rules
        self._layout = lay_out(plan.heads, mesh.tp)
        self._partial = [name for name, rule in rules.items() if rule.is_partial(mesh.tp, sequence)]
        self._replicated = replicated and mesh.size(*DATA) > 1
        self._kept = {name: mask.to(device) for name, mask in self._padding()}
        self._copies = Copies(self._layout, mesh, device) if self._layout.copies > 1 else None

    def __call__(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """Sum the accumulated gradients where ranks share a parameter, in place."""
        for name, mask in self._kept.items():
            gradients[name].mul_(mask)
        if self._copies is not None:
            self._copies.add([rows for name, gradient in gradients.items() for rows in self._shared(name, gradient)])
        if self._partial:
            sum_over([gradients[name] for name in self._partial], as_lists(self._mesh.groups("tp")))
        if self._replicated:
            sum_over(list(gradients.values()), as_lists(self._mesh.groups(*DATA)))

    def _padding(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The output projection's columns of padded heads get a gradient, though nothing may come of it."""
        if self._layout.padded_queries:
            for name, rule in self._rules.items():
                if rule.cut == "row" and rule.heads:
                    (piece,) = self._locals[name].pieces
                    mask = torch.zeros(1, piece.placement.local_shape[1])
                    for box in piece.placement.boxes:
                        mask[:, box.local[1]] = 1.0
                    yield name, mask

    def _shared(self, name: str, gradient: torch.Tensor) -> Iterator[torch.Tensor]:
        """Rows of key-value heads, as [slots, rest]."""
        for piece in self._locals[name].pieces:
            if piece.rule.cut == "kv":
                rows = gradient[piece.row : piece.row + piece.rows]
                yield rows.view(self._layout.slots_per_rank, -1)

    def counted(self, rows: Mapping[str, tuple[int, int]], device: torch.device) -> dict[str, torch.Tensor | float]:
        """What the square of each shard's gradient counts in the global norm, where that is not 1.

        rows: of each parameter, those [first, last) that this rank's shard has.
        """
        found: dict[str, torch.Tensor | float] = {}
        share = 1.0 / self._mesh.size(*DATA) if self._replicated else 1.0
        for name, local in self._locals.items():
            factor: torch.Tensor | float = 0.0 if local.copy else share
            if self._rules[name].dim is None:
                factor = factor / self._mesh.tp
            elif self._copies is not None and any(piece.rule.cut == "kv" for piece in local.pieces):
                factor = _rows_that_count(local, *rows[name]).to(device) * factor
            if isinstance(factor, torch.Tensor) or factor != 1.0:
                found[name] = factor
        return found


def _rows_that_count(local: Local, first: int, last: int) -> torch.Tensor:
    """FP32 [rows, 1] (or [rows]): 1 where this rank holds the first copy."""
    rows = torch.zeros(last - first)
    for _, _, boxes in local.boxes(first, last):
        for box in boxes:
            rows[box.local[0]] = float(_first_copy(box))
    return rows.view(-1, *[1] * (len(local.shape) - 1))


def _first_copy(box: Box) -> bool:
    return box.copy == 0


class Copies:
    """Key-value heads that several tensor-parallel ranks hold: each sees the gradient of its own queries only."""

    def __init__(self, layout: HeadLayout, mesh: Mesh, device: torch.device) -> None:
        heads, slots = layout.heads.key_value, layout.slots_per_rank
        self._tp_groups = as_lists(mesh.groups("tp"))
        self._uniform = (layout.tp * slots) % heads == 0 and heads % slots == 0
        self._heads = heads
        self._groups = list(self._holders(slots)) if self._uniform else self._tp_groups
        mine = [slot.key_value for slot in layout.slots(mesh.coordinate("tp"))]
        self._mine = torch.tensor(mine).to(device)

    def _holders(self, slots: int) -> Iterator[list[int]]:
        """Ranks that hold the same heads in the same order: rank r begins with head r * slots % heads."""
        for group in self._tp_groups:
            for first in range(0, self._heads, slots):
                yield [rank for position, rank in enumerate(group) if position * slots % self._heads == first]

    def add(self, rows: Sequence[torch.Tensor]) -> None:
        """Sum over the copies, in place. rows: each [slots, rest], one for every parameter that has such heads.

        Where the copies are not evenly spread, everybody sums all heads, with zeros for those that it does not hold.
        """
        if self._uniform:
            sum_over(rows, self._groups)
            return
        for part in rows:
            whole = torch.zeros(self._heads, part.shape[1], dtype=part.dtype, device=part.device)
            total = _all_reduce(whole.index_add(0, self._mine, part), self._groups)
            part.copy_(total.index_select(0, self._mine))


def sum_over(tensors: Sequence[torch.Tensor], groups: list[list[int]]) -> None:
    """Sum tensors over replica groups, in place, in few collectives."""
    bucket: list[torch.Tensor] = []
    for tensor in tensors:
        if bucket and sum(each.numel() for each in bucket) + tensor.numel() > BUCKET_ELEMENTS:
            _sum_bucket(bucket, groups)
            bucket = []
        bucket.append(tensor)
    if bucket:
        _sum_bucket(bucket, groups)


def _sum_bucket(tensors: Sequence[torch.Tensor], groups: list[list[int]]) -> None:
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    total = _all_reduce(flat, groups)
    for tensor, part in zip(tensors, total.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def _all_reduce(tensor: torch.Tensor, groups: list[list[int]]) -> torch.Tensor:
    total = xm.all_reduce(xm.REDUCE_SUM, tensor, groups=groups, pin_layout=False)
    assert isinstance(total, torch.Tensor)
    return total
