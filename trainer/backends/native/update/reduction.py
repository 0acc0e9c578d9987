"""From each rank's accumulated gradients to the gradients of the global batch, and their norm over all ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist

from trainer.backends.native.groups import MakeGroup, ends_of_pipeline
from trainer.backends.native.update.optimizer import Optimizer
from trainer.backends.native.update.replicas import add_copies, shared_heads, sum_over
from trainer.parallel.heads import lay_out
from trainer.parallel.mesh import Mesh
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Plan


class Reduction:
    """Made once; makes process groups, so every rank of the world has to make it.

    placements: by canonical name, of the tensors that the optimizer has: nothing else has a gradient. sharded: ZeRO has
    summed them over the data axes. sequence: sequence parallelism is on. tied: the last stage's head is the first
    stage's embedding.
    """

    def __init__(
        self,
        mesh: Mesh,
        groups: Mapping[str, dist.ProcessGroup],
        plan: Plan,
        placements: Mapping[str, Placement],
        sharded: bool,
        sequence: bool,
        tied: bool,
        make_group: MakeGroup,
    ) -> None:
        self._groups, self._sharded = groups, sharded
        rules = plan.match(placements)
        self._padded = {name: placement for name, placement in placements.items() if placement.padded}
        self._partial = [name for name, rule in rules.items() if rule.is_partial(mesh.tp, sequence)]
        self._shared = (
            shared_heads(plan, lay_out(plan.heads, mesh.tp), placements, mesh, make_group) if mesh.tp > 1 else []
        )
        self._ends = ends_of_pipeline(mesh, make_group) if tied and mesh.pp > 1 else None
        tied_name = f"{plan.embedding}.weight"
        self._tied = [tied_name] if self._ends is not None and tied_name in placements else []

    def __call__(self, optimizer: Optimizer) -> None:
        """Sum the optimizer's gradients over the ranks that share them, in place."""
        self._clear_padding(optimizer)
        add_copies(self._shared, optimizer.gradient)
        if self._partial:
            sum_over([optimizer.gradient(name) for name in self._partial], self._groups["tp"])
        if self._ends is not None and self._tied:
            sum_over([optimizer.gradient(name) for name in self._tied], self._ends)
        if "data" in self._groups and not self._sharded and optimizer.gradients.numel():
            dist.all_reduce(optimizer.gradients, group=self._groups["data"])

    def norm(self, optimizer: Optimizer) -> torch.Tensor:
        """L2 norm of all gradients, FP32 scalar, the same on every rank."""
        squared = optimizer.squared_norm()
        for axis in ("tp", "pp", *(["data"] if self._sharded else [])):
            if axis in self._groups:
                dist.all_reduce(squared, group=self._groups[axis])
        return squared.sqrt()

    def loss(self, loss: torch.Tensor) -> None:
        """Sum the ranks' parts of the loss, in place: of the batch, of the sequence, and the last stage's."""
        for axis in ("data", "pp"):
            if axis in self._groups:
                dist.all_reduce(loss, group=self._groups[axis])

    def _clear_padding(self, optimizer: Optimizer) -> None:
        """The output projection's columns of padded heads get a gradient, though nothing may come of it."""
        for name, placement in self._padded.items():
            gradient = optimizer.gradient(name)
            kept = [box.of(gradient).clone() for box in placement.boxes]
            gradient.zero_()
            for box, values in zip(placement.boxes, kept, strict=True):
                box.of(gradient).copy_(values)
