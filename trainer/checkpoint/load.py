"""Load a checkpoint of any layout into this layout's boxes: tensors and JSON only, never a pickle."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from trainer.checkpoint.boxed import BoxLoadPlanner, boxed
from trainer.checkpoint.directory import MANIFEST, PARTS
from trainer.checkpoint.state import TrainState
from trainer.checkpoint.storage import INDEX, SafetensorsReader
from trainer.errors import ConfigError, Problem
from trainer.files import read_json
from trainer.parallel.boxes import Placed, Store


def topology_changes(checkpoint: Path, now: Mapping[str, Any]) -> list[str]:
    """How a verified checkpoint's topology differs from this launch's, as "threads 1, was 2".

    Without changes a resume is bitwise identical; with changes its curve agrees within the layout contract.
    """
    before = read_json(checkpoint / MANIFEST)["topology"]
    keys = sorted(before.keys() | now.keys())
    return [f"{key} {now.get(key)}, was {before.get(key)}" for key in keys if before.get(key) != now.get(key)]


def refuse_other_tensors(checkpoint: Path, store: Store) -> None:
    """Raise ConfigError when a checkpoint does not hold these tensors: another model or optimizer wrote it.

    Not collective, and before anything that is: a pipeline's ranks hold different tensors, and may disagree.
    """
    _refuse_other_shapes(checkpoint / PARTS[0], store.model)
    _refuse_other_optimizer(checkpoint / PARTS[1], store.optimizer)
    _refuse_other_shapes(checkpoint / PARTS[1], store.optimizer)


def _refuse_other_optimizer(directory: Path, moments: Mapping[str, Placed]) -> None:
    stored = {name.partition(".")[0] for name in read_json(directory / INDEX)["tensors"]}
    known = {name.partition(".")[0] for name in moments}
    if known and stored and known != stored:
        rule = (
            f"{directory.parent.name} holds {', '.join(sorted(stored))}, this optimizer begins with {', '.join(known)}"
        )
        remedy = "restore optim.name and its options, or use another run.name"
        raise ConfigError(Problem("optim.name", sorted(known), rule, remedy))


def _refuse_other_shapes(directory: Path, tensors: Mapping[str, Placed]) -> None:
    stored = {name: tuple(entry["shape"]) for name, entry in read_json(directory / INDEX)["tensors"].items()}
    for name, placed in tensors.items():
        if stored.get(name) != placed.shape:
            rule = (
                f"{directory.parent.name} holds {name} with shape {stored.get(name)}, this model wants {placed.shape}"
            )
            remedy = "restore the model's dimensions, or use another run.name"
            if name not in stored and directory.name == PARTS[1]:
                remedy = "if it was frozen, restore model.frozen: what was not trained has no moments"
            raise ConfigError(Problem("model", name, rule, remedy))


def load_checkpoint(checkpoint: Path, store: Store, process_group: dist.ProcessGroup | None = None) -> TrainState:
    """Fill the store's tensors in place from a verified checkpoint, and return the rest of the state.

    All ranks call together, after ``refuse_other_tensors`` has passed on all of them. Moments must be allocated
    already: DCP fills only tensors that it is given.
    """
    for part, tensors in zip(PARTS, (store.model, store.optimizer), strict=True):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process: as intended
            reader = SafetensorsReader(checkpoint / part)
            dcp.load(boxed(tensors), storage_reader=reader, planner=BoxLoadPlanner(), process_group=process_group)
    return TrainState.from_json(read_json(checkpoint / "state.json"), read_json(checkpoint / "data.json"))
