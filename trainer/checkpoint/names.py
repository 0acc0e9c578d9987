"""What stands where in a run's directory of checkpoints.

checkpoints/
  step-00000120/  model/ optimizer/ state.json data.json config.yaml manifest.json
  LATEST          name of the newest, for users and scripts; a resume verifies manifests instead
  .saving-...     a save that did not finish, and .removing-... a removal; the next launch or save clears them away
  .unsound-...    what a resume passed over
"""

from __future__ import annotations

import re
from pathlib import Path

MANIFEST, LATEST = "manifest.json", "LATEST"
STATE, DATA, CONFIG = "state.json", "data.json", "config.yaml"
SAVING, REMOVING = ".saving-", ".removing-"
PARTS = ("model", "optimizer")
FORMAT = 2
"""Of a manifest. Format 1 differs in index.json only; both are read."""
_NAME = re.compile(r"step-([0-9]{8,18})")


def name_of(step: int) -> str:
    """Directory name of a step's checkpoint."""
    return f"step-{step:08d}"


def is_checkpoint_name(name: str) -> bool:
    """Whether a directory of this name is a committed checkpoint."""
    match = _NAME.fullmatch(name)
    return match is not None and name_of(int(match[1])) == name


def step_of(path: Path) -> int:
    """Inverse of name_of."""
    match = _NAME.fullmatch(path.name)
    assert match is not None, path
    return int(match[1])


def checkpoints(directory: Path) -> list[Path]:
    """Committed checkpoints, newest first."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if is_checkpoint_name(path.name) and path.is_dir()]
    return sorted(found, key=step_of, reverse=True)
