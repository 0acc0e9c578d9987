"""A run's checkpoints on disk, and how a resume verifies them.

checkpoints/
  step-00000120/  model/ optimizer/ state.json data.json config.yaml manifest.json
  LATEST          name of the newest, for users and scripts; a resume verifies manifests instead
  .saving-...     a save that did not finish; the next save removes it
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from trainer.errors import CheckpointError, Problem
from trainer.files import read_json, sha256

MANIFEST, LATEST, FORMAT = "manifest.json", "LATEST", 1
SAVING = ".saving-"
PARTS = ("model", "optimizer")
REQUIRED = {"model/index.json", "optimizer/index.json", "state.json", "data.json", "config.yaml"}
_NAME = re.compile(r"step-(\d{8,})")


def name_of(step: int) -> str:
    """Directory name of a step's checkpoint."""
    return f"step-{step:08d}"


def step_of(path: Path) -> int:
    """Inverse of name_of."""
    match = _NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def checkpoints(directory: Path) -> list[Path]:
    """Committed checkpoints, newest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def fault(checkpoint: Path, rank: int = 0, size: int = 1) -> str | None:
    """What is wrong with a checkpoint: every file must have the size and SHA-256 of the manifest. None if sound.

    With several ranks, each verifies its share of the files: one rank alone would hash hundreds of gigabytes.
    """
    try:
        manifest = read_json(checkpoint / MANIFEST)
        if manifest["format"] != FORMAT:
            return f"{MANIFEST}: format {manifest['format']}, this version reads {FORMAT}"
        files = manifest["files"]
        if missing := REQUIRED - files.keys():
            return f"{MANIFEST}: does not list {', '.join(sorted(missing))}"
        for name in sorted(files)[rank::size]:
            path = checkpoint / name
            if path.resolve().parent not in (checkpoint.resolve(), *(checkpoint.resolve() / p for p in PARTS)):
                return f"{MANIFEST}: names {name}, which is not inside the checkpoint"
            if (found := path.stat().st_size) != files[name]["size"]:
                return f"{name}: {found:,} bytes instead of {files[name]['size']:,}"
            if sha256(path) != files[name]["sha256"]:
                return f"{name}: its SHA-256 is not the manifest's"
    except OSError as error:
        return f"{error.filename or checkpoint}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST}: unreadable ({type(error).__name__}: {error})"
    return None


@dataclass(frozen=True)
class Ranks:
    """The ranks that search together, and their collectives. The defaults are for one process."""

    rank: int = 0
    size: int = 1
    any_of: Callable[[bool], bool] = bool
    """Logical or over the ranks."""
    same: Callable[[int], int] = int
    """Broadcast from rank 0, since ranks may see a shared directory at different moments."""


def newest_sound(directory: Path, ranks: Ranks | None = None) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and why this rank passed over newer ones. Collective.

    (None, []) without any checkpoint. Raises CheckpointError on every rank when there are some and none verifies.
    """
    ranks = ranks or Ranks()
    steps = [step_of(path) for path in checkpoints(directory)] if ranks.rank == 0 else []
    faults: list[str] = []
    tried = 0
    while (step := ranks.same(steps[tried] if tried < len(steps) else -1)) >= 0:
        path, tried = directory / name_of(step), tried + 1
        problem = fault(path, ranks.rank, ranks.size)
        if problem is not None:
            faults.append(f"{path.name}: {problem}")
        if not ranks.any_of(problem is not None):
            return path, faults
    if tried:
        rule = "at least one verifies; " + ("; ".join(faults) or "other ranks found faults, and name them")
        remedy = "restore one from a copy, or start anew under another run.name"
        raise CheckpointError(Problem("checkpoints", str(directory), rule, remedy))
    return None, faults


def set_aside(directory: Path, newer_than: Path) -> list[Path]:
    """Rename checkpoints that a resume passed over, so that retention and later resumes do not count them."""
    moved = []
    for path in checkpoints(directory):
        if step_of(path) > step_of(newer_than):
            target = next(t for n in count() if not (t := directory / f".unsound-{path.name}-{n}").exists())
            path.rename(target)
            moved.append(target)
    return moved
