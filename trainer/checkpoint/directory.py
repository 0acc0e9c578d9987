"""What a run's checkpoints look like on disk, and which of them can be trusted.

checkpoints/
  step-00000120/  model/ optimizer/ state.json data.json config.yaml manifest.json
  LATEST          name of the newest, for people and scripts; a resume trusts manifests, not this
  .saving-...     a save that did not finish; the next save removes it
"""

from __future__ import annotations

import re
from pathlib import Path

from trainer.errors import CheckpointError, Problem
from trainer.files import read_json, sha256

MANIFEST, LATEST, FORMAT = "manifest.json", "LATEST", 1
SAVING = ".saving-"
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


def fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint: every file must have the size and SHA-256 of the manifest. None if sound."""
    try:
        manifest = read_json(checkpoint / MANIFEST)
        if manifest["format"] != FORMAT:
            return f"{MANIFEST}: format {manifest['format']}, this version reads {FORMAT}"
        for name, entry in manifest["files"].items():
            path = checkpoint / name
            if (size := path.stat().st_size) != entry["size"]:
                return f"{name}: {size:,} bytes instead of {entry['size']:,}"
            if sha256(path) != entry["sha256"]:
                return f"{name}: its SHA-256 is not the manifest's"
    except OSError as error:
        return f"{error.filename or checkpoint}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST}: unreadable ({type(error).__name__}: {error})"
    return None


def newest_sound(directory: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and why newer ones were passed over.

    (None, []) when there is none at all. Raises CheckpointError when there are some and none verifies.
    """
    faults: list[str] = []
    for path in checkpoints(directory):
        problem = fault(path)
        if problem is None:
            return path, faults
        faults.append(f"{path.name}: {problem}")
    if faults:
        raise CheckpointError(
            Problem(
                "checkpoints",
                str(directory),
                "at least one verifies; " + "; ".join(faults),
                "restore one from a copy, or start anew under another run.name",
            )
        )
    return None, faults
