"""Save a checkpoint: write and fsync a temporary directory, the manifest last, and commit by one rename.

A kill at any moment leaves the older checkpoints untouched and at most one ``.saving-`` directory.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from trainer.checkpoint.boxed import BoxSavePlanner, boxed
from trainer.checkpoint.directory import (
    FORMAT,
    LATEST,
    MANIFEST,
    PARTS,
    SAVING,
    checkpoints,
    name_of,
    set_aside,
    step_of,
)
from trainer.checkpoint.state import TrainState
from trainer.checkpoint.storage import SafetensorsWriter
from trainer.errors import ConfigError, Problem
from trainer.files import sha256, sync, write_atomically, write_json
from trainer.parallel.boxes import Placed, Store

Lead = Callable[[Callable[[], None]], object]
"""Runs an action on rank 0; if it raises a RunError, every rank raises. See trainer.training.collective."""


@dataclass(frozen=True)
class Saver:
    """Writes the checkpoints of a run. All ranks call save together.

    process_group: of all ranks, for planning on the host; None for the default one, or for one process.
    """

    directory: Path
    rank: int
    lead: Lead
    keep: int
    config_yaml: str
    topology: Mapping[str, Any]
    process_group: dist.ProcessGroup | None = None

    def save(self, store: Store, state: TrainState) -> Path:
        """Commit a checkpoint of the step. Raises ConfigError on a disk error; older checkpoints stay."""
        final = self.directory / name_of(state.step)
        temporary = self.directory / f"{SAVING}{final.name}"
        self.lead(partial(self._make_room, temporary))
        files = {}
        with self._disk_errors():
            for part, tensors in zip(PARTS, (store.model, store.optimizer), strict=True):
                written = self._save_tensors(temporary / part, tensors)
                files.update({f"{part}/{name}": entry for name, entry in written.items()})
        self.lead(partial(self._commit, temporary, final, state, files))
        return final

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turn a disk error, which the user can fix, into a ConfigError; any other failure keeps its traceback."""
        try:
            yield
        except (OSError, CheckpointException) as error:
            if (cause := _disk_error(error)) is None:
                raise
            rule = f"takes a checkpoint ({cause}); the older ones are untouched"
            remedy = "make room or restore access, then give the same command again"
            raise ConfigError(Problem("run.root", str(self.directory), rule, remedy)) from error

    def _make_room(self, temporary: Path) -> None:
        """Remove what interrupted saves left, and start a new directory."""
        with self._disk_errors():
            self.directory.mkdir(parents=True, exist_ok=True)
            for leftover in self.directory.glob(f"{SAVING}*"):
                shutil.rmtree(leftover)
            for part in PARTS:
                (temporary / part).mkdir(parents=True)

    def _save_tensors(self, directory: Path, tensors: Mapping[str, Placed]) -> dict[str, tuple[int, str]]:
        writer = SafetensorsWriter(directory, self.rank)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process: as intended
            dcp.save(boxed(tensors), storage_writer=writer, planner=BoxSavePlanner(), process_group=self.process_group)
        return writer.files

    def _commit(self, temporary: Path, final: Path, state: TrainState, files: dict[str, tuple[int, str]]) -> None:
        with self._disk_errors():
            self._write_manifest(temporary, state, files)
            for part in (*(temporary / name for name in PARTS), temporary):
                sync(part)
            if final.exists():  # it did not verify, or the resume would have started from it
                set_aside(self.directory, final.with_name(name_of(state.step - 1)))
            os.rename(temporary, final)
            sync(self.directory)
            sync(self.directory.parent)
            write_atomically(self.directory / LATEST, final.name + "\n")
            for old in older_than(self.directory, state.step)[self.keep - 1 :] if self.keep else []:
                shutil.rmtree(old)

    def _write_manifest(self, temporary: Path, state: TrainState, files: dict[str, tuple[int, str]]) -> None:
        write_json(temporary / "state.json", state.to_json())
        write_json(temporary / "data.json", state.data_json())
        write_atomically(temporary / "config.yaml", self.config_yaml)
        for name in ("state.json", "data.json", "config.yaml"):
            files[name] = ((temporary / name).stat().st_size, sha256(temporary / name))
        manifest = {
            "format": FORMAT,
            "step": state.step,
            "topology": dict(self.topology),
            "files": {name: {"size": size, "sha256": digest} for name, (size, digest) in sorted(files.items())},
        }
        write_json(temporary / MANIFEST, manifest)


def older_than(directory: Path, step: int) -> list[Path]:
    """Checkpoints before a step, newest first: a save deletes no later ones."""
    return [path for path in checkpoints(directory) if step_of(path) < step]


def _disk_error(error: BaseException) -> str | None:
    """The operating system's messages, from the failures that DCP collected from ranks; None for other failures."""
    causes = [error]
    if isinstance(error, CheckpointException):
        causes = [failure[0] for failure in error.failures.values()]
    if causes and all(isinstance(cause, (OSError, SafetensorError)) for cause in causes):
        return "; ".join(str(cause) for cause in causes)
    return None
