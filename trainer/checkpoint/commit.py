"""Rank 0's part of a save: a new directory before, and after all ranks have written: index, manifest, one rename."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint.directory import clear_leftovers, remove, set_aside, surplus
from trainer.checkpoint.hashed_file import Written
from trainer.checkpoint.index import INDEX, write_index
from trainer.checkpoint.manifest import Manifest, write_manifest
from trainer.checkpoint.names import CONFIG, DATA, LATEST, PARTS, SAVING, STATE, name_of
from trainer.checkpoint.report import Reports
from trainer.checkpoint.state import TrainState
from trainer.files import sha256, sync, write_atomically, write_json


@dataclass(frozen=True)
class Place:
    """Where a run's checkpoints go, how many stay, and what each says of the run.

    keep, keep_every: see trainer.checkpoint.directory.surplus.
    """

    directory: Path
    keep: int
    keep_every: int
    config_yaml: str
    topology: Mapping[str, Any]

    def final(self, step: int) -> Path:
        """A step's checkpoint."""
        return self.directory / name_of(step)

    def temporary(self, step: int) -> Path:
        """Where it is written, on the same file system."""
        return self.directory / f"{SAVING}{name_of(step)}"


def make_room(place: Place, state: TrainState) -> None:
    """Remove what interrupted saves and retention left, and start a new directory. Raises OSError."""
    place.directory.mkdir(parents=True, exist_ok=True)
    clear_leftovers(place.directory)
    _retain(place, state, place.keep and place.keep + 1)
    for part in PARTS:
        (place.temporary(state.step) / part).mkdir(parents=True)


def commit(place: Place, state: TrainState, reports: Reports) -> None:
    """Index, state and manifest, fsynced; then the rename; then retention. Raises OSError, or Unsound for a bug."""
    temporary, final = place.temporary(state.step), place.final(state.step)
    files = reports.files | _write_indexes(temporary, reports) | _write_state(temporary, place, state)
    write_manifest(temporary, Manifest(state.step, place.topology, files))
    for directory in (*(temporary / part for part in PARTS), temporary):
        sync(directory)
    if final.exists():  # it did not verify, or the resume would have started from it
        set_aside(place.directory, final.with_name(name_of(state.step - 1)))
    os.rename(temporary, final)
    sync(place.directory)
    sync(place.directory.parent)
    write_atomically(place.directory / LATEST, final.name + "\n")
    _retain(place, state, place.keep)


def _retain(place: Place, state: TrainState, keep: int) -> None:
    """Also before a save: killed each time before its retention, a run would fill the disk by one more each time."""
    best = None if state.best is None else state.best.step
    for old in surplus(place.directory, state.step, keep, place.keep_every, best):
        remove(old)


def _write_indexes(temporary: Path, reports: Reports) -> dict[str, Written]:
    tensors = reports.together()
    return {f"{part}/{INDEX}": write_index(temporary / part / INDEX, tensors.of(part)) for part in PARTS}


def _write_state(temporary: Path, place: Place, state: TrainState) -> dict[str, Written]:
    writers: dict[str, Callable[[Path], None]] = {
        STATE: lambda path: write_json(path, state.to_json()),
        DATA: lambda path: write_json(path, state.data_json()),
        CONFIG: lambda path: write_atomically(path, place.config_yaml),
    }
    found = {}
    for name, write in writers.items():
        write(temporary / name)
        found[name] = Written((temporary / name).stat().st_size, sha256(temporary / name))
    return found
