"""Weights and moments in boxes, as a checkpoint reads and writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from trainer.parallel.boxes import Placed, Store
from trainer.parallel.placement import Placement


def in_boxes(
    weights: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
    placements: Mapping[str, Placement],
    rank: int,
    ranks: int,
) -> Store:
    """weights by parameter, moments by ``<moment>.<parameter>``. Of ``ranks`` that hold the same, which take turns at
    being the writer, this is ``rank``.
    """

    def placed(tensors: Mapping[str, tuple[str, torch.Tensor]]) -> dict[str, Placed]:
        found = {}
        for index, (name, (parameter, tensor)) in enumerate(tensors.items()):
            turn, placement = index % ranks == rank, placements[parameter]
            boxes = tuple(replace(box, writer=turn and box.copy == 0) for box in placement.boxes)
            found[name] = Placed(tensor.detach(), boxes, placement.shape)
        return found

    return Store(
        placed({name: (name, tensor) for name, tensor in weights.items()}),
        placed({name: (name.partition(".")[2], tensor) for name, tensor in moments.items()}),
    )


def copies(store: Store, parameters: Mapping[str, torch.Tensor]) -> dict[str, Mapping[str, Placed]]:
    """What this rank has in common with others: what the model computes with, and the store."""
    weights = {name: replace(placed, tensor=parameters[name].detach()) for name, placed in store.model.items()}
    return {"weights": weights, "masters": store.model, "moments": store.optimizer}
