"""Saving: into a temporary directory, everything fsynced, the manifest last, one rename to commit.

Killed at any moment, the directory holds the older checkpoints untouched and at most one ``.saving-`` leftover.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch.distributed.checkpoint.api import CheckpointException

from trainer.checkpoint.boxed import BoxSavePlanner, boxed
from trainer.checkpoint.directory import FORMAT, LATEST, MANIFEST, SAVING, checkpoints, name_of
from trainer.checkpoint.storage import SafetensorsWriter
from trainer.errors import ConfigError, Problem
from trainer.files import sha256, sync, write_atomically, write_json
from trainer.parallel.boxes import Placed, Store
from trainer.state import TrainState


@dataclass(frozen=True)
class Saver:
    """Writes the checkpoints of a run. All ranks call save together; ``barrier`` waits for all of them."""

    directory: Path
    rank: int
    barrier: Callable[[], None]
    keep: int
    config_yaml: str
    topology: Mapping[str, Any]

    def save(self, store: Store, state: TrainState) -> Path:
        """Commit a checkpoint of the step. Raises ConfigError when the disk does not take it; older ones stay."""
        final = self.directory / name_of(state.step)
        temporary = self.directory / f"{SAVING}{final.name}"
        try:
            if self.rank == 0:
                self._make_room(temporary)
            self.barrier()
            files = {}
            for part, tensors in (("model", store.model), ("optimizer", store.optimizer)):
                written = self._save_tensors(temporary / part, tensors)
                files.update({f"{part}/{name}": entry for name, entry in written.items()})
            if self.rank == 0:
                self._commit(temporary, final, state, files)
            self.barrier()
        except (OSError, CheckpointException) as error:
            if (cause := _disk_error(error)) is None:
                raise
            rule = f"takes a checkpoint ({cause}); the older ones are untouched"
            remedy = "make room or restore access, then give the same command again"
            raise ConfigError(Problem("run.root", str(self.directory), rule, remedy)) from error
        return final

    def _make_room(self, temporary: Path) -> None:
        """Remove what interrupted saves left, and start a new directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.glob(f"{SAVING}*"):
            shutil.rmtree(leftover)
        for part in ("model", "optimizer"):
            (temporary / part).mkdir(parents=True)

    def _save_tensors(self, directory: Path, tensors: Mapping[str, Placed]) -> dict[str, tuple[int, str]]:
        writer = SafetensorsWriter(directory, self.rank)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process: as intended
            dcp.save(boxed(tensors), storage_writer=writer, planner=BoxSavePlanner())
        return writer.files

    def _commit(self, temporary: Path, final: Path, state: TrainState, files: dict[str, tuple[int, str]]) -> None:
        write_json(temporary / "state.json", state.to_json())
        write_json(temporary / "data.json", state.cursor)
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
        for part in (temporary / "model", temporary / "optimizer", temporary):
            sync(part)
        if final.exists():  # a step saved twice holds the same values; the newer save replaces it
            shutil.rmtree(final)
        os.rename(temporary, final)
        sync(self.directory)
        write_atomically(self.directory / LATEST, final.name + "\n")
        for old in checkpoints(self.directory)[self.keep :] if self.keep else []:
            shutil.rmtree(old)


def _disk_error(error: BaseException) -> str | None:
    """The operating system's words, out of the ranks' failures that DCP collected; None for any other failure."""
    causes = [error]
    if isinstance(error, CheckpointException):
        causes = [failure[0] for failure in error.failures.values()]
    if all(isinstance(cause, (OSError, SafetensorError)) for cause in causes):
        return "; ".join(str(cause) for cause in causes)
    return None
