"""Load a checkpoint of any layout into this layout's boxes: tensors and JSON only, never a pickle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from trainer.checkpoint.base import Base
from trainer.checkpoint.index import INDEX, Stored, read_index
from trainer.checkpoint.manifest import read_manifest
from trainer.checkpoint.names import MANIFEST, PARTS
from trainer.checkpoint.pieces import dtype_name
from trainer.checkpoint.slices import fill
from trainer.checkpoint.state import TrainState
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.verify import read_state
from trainer.errors import CheckpointError, ConfigError, Problem
from trainer.parallel.boxes import Placed, Store

T = TypeVar("T")


def _sound(checkpoint: Path, file: str, read: Callable[[], T]) -> T:
    """What a verified checkpoint holds. Raises CheckpointError if it has changed since, or was never verified."""
    try:
        return read()
    except (Unsound, OSError) as error:
        rule = f"is what it was when it was saved; {file}: {error}"
        remedy = "restore it from a copy, or move it away: the same command then goes on from the one before it"
        raise CheckpointError(Problem("checkpoints", str(checkpoint), rule, remedy)) from error


def topology_changes(checkpoint: Path, now: Mapping[str, Any]) -> list[str]:
    """How a verified checkpoint's topology differs from this launch's, as "threads 1, was 2".

    Without changes a resume is bitwise identical; with changes its curve agrees within the layout contract.
    """
    before = _sound(checkpoint, MANIFEST, lambda: read_manifest(checkpoint)).topology
    keys = sorted(before.keys() | now.keys())
    return [f"{key} {now.get(key)}, was {before.get(key)}" for key in keys if before.get(key) != now.get(key)]


def _index(checkpoint: Path, part: str) -> Mapping[str, Stored]:
    return _sound(checkpoint, f"{part}/{INDEX}", lambda: read_index(checkpoint / part))


def base_of(checkpoint: Path) -> Base | None:
    """What a verified checkpoint says of its base; None where it holds all weights. Raises CheckpointError."""
    return _sound(checkpoint, "state", lambda: read_state(checkpoint)).base


def stored_names(checkpoint: Path) -> set[str]:
    """Of the weights that a verified checkpoint holds. Raises CheckpointError."""
    return set(_index(checkpoint, PARTS[0]))


def refuse_other_tensors(checkpoint: Path, store: Store) -> None:
    """Raise ConfigError when a checkpoint does not hold these tensors: another model or optimizer wrote it.

    Not collective, and before anything that is: a pipeline's ranks hold different tensors, and may disagree.
    """
    model, optimizer = (_index(checkpoint, part) for part in PARTS)
    _refuse_other_shapes(checkpoint, PARTS[0], model, store.model)
    _refuse_other_optimizer(checkpoint, optimizer, store.optimizer)
    _refuse_other_shapes(checkpoint, PARTS[1], optimizer, store.optimizer)


def _refuse_other_optimizer(checkpoint: Path, index: Mapping[str, Stored], moments: Mapping[str, Placed]) -> None:
    stored = {name.partition(".")[0] for name in index}
    known = {name.partition(".")[0] for name in moments}
    if known and stored and known != stored:
        rule = f"{checkpoint.name} holds {', '.join(sorted(stored))}, this optimizer begins with {', '.join(known)}"
        remedy = "restore optim.name and its options, or use another run.name"
        raise ConfigError(Problem("optim.name", sorted(known), rule, remedy))


def _refuse_other_shapes(
    checkpoint: Path, part: str, index: Mapping[str, Stored], tensors: Mapping[str, Placed]
) -> None:
    for name, placed in tensors.items():
        stored = index.get(name)
        if stored is None or stored.shape != placed.shape:
            shape = None if stored is None else stored.shape
            rule = f"{checkpoint.name} holds {name} with shape {shape}, this model wants {placed.shape}"
            remedy = "restore the model's dimensions, or use another run.name"
            if stored is None:
                of = "moments" if part == PARTS[1] else "weights of its own here"
                remedy = f"if it was frozen, restore model.frozen and adapter: what was not trained has no {of}"
            raise ConfigError(Problem("model", name, rule, remedy))
        if stored.dtype != (dtype := dtype_name(placed.tensor.dtype)):
            rule = f"{checkpoint.name} holds {name} in {stored.dtype}, and this run keeps it in {dtype}"
            remedy = "restore precision: a resume keeps it; or use another run.name"
            raise ConfigError(Problem("precision", dtype, rule, remedy))


def load_checkpoint(checkpoint: Path, store: Store, process_group: dist.ProcessGroup | None = None) -> TrainState:
    """Fill the store's tensors in place from a verified checkpoint, and return the rest of the state.

    All ranks call together, after ``refuse_other_tensors`` has passed on all of them. Moments must be allocated
    already. Raises ConfigError on every rank when the checkpoint has tensors that no rank asks for, and CheckpointError
    where it is not what it was when it verified.
    """
    indexes = [_index(checkpoint, part) for part in PARTS]
    held = (store.model, store.optimizer)
    extra = [_held_by_none(index, tensors, process_group) for index, tensors in zip(indexes, held, strict=True)]
    # Moments of a parameter that is frozen now are let go of; it is in the model all the same.
    foreign = [*extra[0], *(name for name in extra[1] if name.partition(".")[2] not in indexes[0])]
    if foreign:
        rule = f"{checkpoint.name} holds {len(foreign)} tensors that this model does not have, {foreign[0]} first"
        raise ConfigError(Problem("model", foreign[0], rule, "restore the model's settings, or use another run.name"))
    for part, index, tensors in zip(PARTS, indexes, held, strict=True):
        _sound(checkpoint, part, lambda p=part, i=index, t=tensors: fill(checkpoint / p, i, t))  # type: ignore[misc]
    return _sound(checkpoint, "state", lambda: read_state(checkpoint))


def _held_by_none(index: Mapping[str, Stored], names: Iterable[str], group: dist.ProcessGroup | None) -> list[str]:
    """The stored tensors that no rank has: a pipeline's ranks hold different ones. Collective."""
    mine = set(names)
    asked = torch.tensor([name in mine for name in index], dtype=torch.int64)
    if dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1:
        dist.all_reduce(asked, op=dist.ReduceOp.MAX, group=group)
    return [name for name, count in zip(index, asked.tolist(), strict=True) if not count]
