"""Masters and moments on the host, in boxes: what a checkpoint reads and writes. The device has its own copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from trainer.backends.neuron.lowering.local import Local, shard_rows
from trainer.backends.neuron.update.zero1 import Zero1
from trainer.parallel.boxes import Placed, Store
from trainer.parallel.mesh import DATA, Mesh


class HostStore:
    """Host copies of this rank's shards, refreshed from the device or written back to it.

    sharded: ZeRO-1 has cut the shards over the data axes; else its ranks hold the same and take turns at writing.
    frozen: what is not trained, which every rank holds as it computes with it.
    """

    def __init__(
        self,
        zero: Zero1,
        frozen: Mapping[str, torch.Tensor],
        locals_: Mapping[str, Local],
        mesh: Mesh,
        sharded: bool,
    ) -> None:
        self._zero, self._frozen, self._locals, self._mesh, self._sharded = zero, frozen, locals_, mesh, sharded
        self._position = mesh.position(*DATA)
        self._masters: dict[str, torch.Tensor] = {}
        self._moments: dict[str, torch.Tensor] = {}

    def rows(self, name: str) -> tuple[int, int]:
        """The rows of a parameter that this rank's shard has; past its end there is only padding."""
        sharded = self._sharded and name not in self._frozen
        ranks = self._mesh.size(*DATA) if sharded else 1
        return shard_rows(self._locals[name].shape[0], self._position if sharded else 0, ranks)

    def _devices(self) -> Iterator[tuple[dict[str, torch.Tensor], str, torch.Tensor]]:
        """(host tensors, key among them, the device's tensor)."""
        for name, tensor in self._weights():
            yield self._masters, name, tensor
        for moment, name, tensor in self._zero.moments():
            yield self._moments, f"{moment}.{name}", tensor

    def _weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, weight in {**self._zero.shards, **self._frozen}.items():
            yield name, weight.data

    def pull(self) -> Store:
        """Copy everything to the host, by boxes."""
        for host, key, tensor in self._devices():
            host[key] = tensor.cpu().clone() if tensor.device.type == "cpu" else tensor.cpu()
        return Store(dict(self._placed(self._masters, "")), dict(self._placed_moments()))

    def copies(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, Mapping[str, Placed]]:
        """What this rank has in common with others. parameters: that the model computes with."""
        store = (
            Store(dict(self._placed(self._masters, "")), dict(self._placed_moments())) if self._masters else self.pull()
        )
        weights = {}
        for name, parameter in parameters.items():
            tensor = parameter.detach().cpu()
            for canonical, placement, boxes in self._locals[name].boxes(0, len(tensor)):
                weights[canonical] = Placed(tensor, tuple(boxes), placement.shape)
        return {"weights": weights, "masters": store.model, "moments": store.optimizer}

    def forget(self) -> None:
        """Let go of the host copies: a save is over."""
        self._masters.clear()
        self._moments.clear()

    def blank(self) -> Store:
        """The masters' places, zeroed, without reading the device; moments stay as they are there."""
        for name, weight in self._weights():
            self._masters[name] = torch.zeros(weight.shape, dtype=weight.dtype)
        return Store(dict(self._placed(self._masters, "")), {})

    def push(self) -> None:
        """Copy what the host has back to the device."""
        for host, key, tensor in self._devices():
            if key in host:
                tensor.copy_(host[key].to(tensor.device))
        self.forget()

    def _placed_moments(self) -> Iterator[tuple[str, Placed]]:
        for moment in ("exp_avg", "exp_avg_sq"):
            of_this = {
                key.removeprefix(f"{moment}."): tensor
                for key, tensor in self._moments.items()
                if key.startswith(f"{moment}.")
            }
            yield from self._placed(of_this, f"{moment}.")

    def _placed(self, tensors: Mapping[str, torch.Tensor], prefix: str) -> Iterator[tuple[str, Placed]]:
        for index, (name, tensor) in enumerate(tensors.items()):
            alone = self._sharded and name not in self._frozen
            turns, mine = (1, 0) if alone else (self._mesh.size(*DATA), self._position)
            for canonical, placement, boxes in self._locals[name].boxes(*self.rows(name)):
                written = tuple(replace(box, writer=box.copy == 0 and index % turns == mine) for box in boxes)
                yield prefix + canonical, Placed(tensor, written, placement.shape)
