"""ls and verify: the checkpoints of a run, a row each. Without torch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trainer.checkpoint.base import Base
from trainer.checkpoint.manifest import Manifest, read_manifest
from trainer.checkpoint.names import LATEST, MANIFEST, checkpoints, step_of
from trainer.checkpoint.sizes import in_bytes
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.verify import fault, read_state
from trainer.commands.ckpt.places import directory_of
from trainer.commands.ckpt.table import table
from trainer.errors import ConfigError, ExitCode
from trainer.pretrained.base import hashed, named
from trainer.pretrained.source import open_base, refuse_other_base

AXES = ("tp", "cp", "dp", "pp")


def ls(run: str) -> Iterator[str]:
    """A table of a run's checkpoints, oldest first, and what else lies there. Raises CommandError where there are none.

    Files are looked at, not read through: ``verify`` reads every byte.
    """
    directory = directory_of(run)
    found = checkpoints(directory)[::-1]
    rows = [("step", "saved", "size", "sound", "layout", "")]
    latest = _latest(directory)
    for path in found:
        manifest = _manifest(path)
        wrong = fault(path, hashes=False)
        rows.append(
            (
                f"{step_of(path):,}",
                _saved(path),
                "?" if manifest is None else in_bytes(sum(file.size for file in manifest.files.values())),
                "yes" if wrong is None else "NO",
                "?" if manifest is None else layout(manifest.topology),
                (wrong or "") + ("  <- LATEST" if path.name == latest else ""),
            )
        )
    yield f"{directory}: {len(found)} checkpoint{'s' if len(found) != 1 else ''}"
    yield from table(rows, right=(0, 2))
    others = sorted(path.name for path in directory.iterdir() if path.name.startswith("."))
    if others:
        yield f"beside them: {', '.join(others)}"


def verify(run: str, say: Any) -> ExitCode:
    """Read every byte of every checkpoint, oldest first, and say of each what is wrong with it, if anything.

    DONE if all are sound, NO_CHECKPOINT if one is not. say: is called with each line.
    """
    directory = directory_of(run)
    wrong = 0
    for path in checkpoints(directory)[::-1]:
        start = time.perf_counter()
        found = fault(path)
        wrong += found is not None
        say(f"{path.name}  {'sound' if found is None else f'UNSOUND: {found}'}  ({time.perf_counter() - start:.1f} s)")
    for line in _bases(directory):
        say(line)
    say("all are sound" if not wrong else f"{wrong} unsound: a resume passes over {'it' if wrong == 1 else 'them'}")
    return ExitCode.NO_CHECKPOINT if wrong else ExitCode.DONE


def _bases(directory: Path) -> Iterator[str]:
    """A line about each base that checkpoints stand on: a resume wants it, here or elsewhere."""
    seen: list[Base] = []
    for path in checkpoints(directory):
        try:
            base = read_state(path).base
        except (OSError, Unsound):
            continue
        if base is None or any(base.path == one.path and base.unlike(one) is None for one in seen):
            continue
        seen.append(base)
        try:
            refuse_other_base(base.path, base, named(source := open_base(base), hashed(source)))
            yield f"base {base}: as it was"
        except ConfigError as error:
            yield f"base {base}: not there as it was: {error.problems[0].rule}"


def layout(topology: Mapping[str, Any]) -> str:
    """What saved a checkpoint, as "8 ranks: tp 2, dp 4; cpu"."""
    world = topology.get("world", "?")
    axes = [f"{axis} {topology[axis]}" for axis in AXES if topology.get(axis, 1) != 1]
    text = f"{world} rank{'' if world == 1 else 's'}" + (f": {', '.join(axes)}" if axes else "")
    return f"{text}; {topology['device']}" if "device" in topology else text


def _manifest(path: Path) -> Manifest | None:
    try:
        return read_manifest(path)
    except (OSError, Unsound):
        return None


def _saved(path: Path) -> str:
    """When the manifest was written, in local time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((path / MANIFEST).stat().st_mtime))
    except OSError:
        return "?"


def _latest(directory: Path) -> str:
    try:
        return (directory / LATEST).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
