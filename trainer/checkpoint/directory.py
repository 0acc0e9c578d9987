"""Finding the checkpoint that a resume goes on from, and putting away the others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from trainer.checkpoint.names import REMOVING, SAVING, checkpoints, name_of, step_of
from trainer.checkpoint.verify import fault
from trainer.errors import CheckpointError, Problem
from trainer.files import sync


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


def surplus(directory: Path, step: int, keep: int, keep_every: int, best: int | None = None) -> list[Path]:
    """What retention removes after a save of ``step``, newest first; never a later checkpoint.

    keep: how many of the newest stay, this one among them; 0: all. keep_every: steps that it divides stay too; 0: none.
    best: a step that stays in any case.
    """
    older = [path for path in checkpoints(directory) if step_of(path) < step]
    passed = older[keep - 1 :] if keep else []
    return [path for path in passed if step_of(path) != best and (not keep_every or step_of(path) % keep_every)]


def remove(checkpoint: Path) -> None:
    """Rename first: what still has the name of a checkpoint is whole, wherever a removal is interrupted."""
    going = checkpoint.with_name(f"{REMOVING}{checkpoint.name}")
    _clear(going)
    checkpoint.rename(going)
    sync(checkpoint.parent)
    _clear(going)


def clear_leftovers(directory: Path) -> None:
    """Remove what interrupted saves and removals left."""
    for pattern in (SAVING, REMOVING):
        for leftover in directory.glob(f"{pattern}*"):
            _clear(leftover)


def _clear(path: Path) -> None:
    """Of a link, which a user may have put in a checkpoint's place, only the link."""
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
