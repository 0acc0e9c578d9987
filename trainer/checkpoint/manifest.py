"""manifest.json: every file of a checkpoint with its size and SHA-256. Written last, believed in nothing unchecked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint.hashed_file import Written
from trainer.checkpoint.index import INDEX
from trainer.checkpoint.names import CONFIG, DATA, FORMAT, MANIFEST, PARTS, STATE, step_of
from trainer.checkpoint.strict_json import Unsound, mapping, read, shown, whole
from trainer.files import write_json

REQUIRED = {*(f"{part}/{INDEX}" for part in PARTS), STATE, DATA, CONFIG}
LONGEST = 64 << 20
"""Bytes of the largest manifest, state or cursor that is read."""
_INSIDE = re.compile(rf"(?:(?:{'|'.join(PARTS)})/)?[A-Za-z0-9_-][A-Za-z0-9._-]{{0,199}}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """step: of the checkpoint. topology: what saved it. files: by path in the checkpoint."""

    step: int
    topology: Mapping[str, Any]
    files: Mapping[str, Written]


def write_manifest(checkpoint: Path, manifest: Manifest) -> None:
    """Atomically."""
    files = {name: {"size": file.size, "sha256": file.sha256} for name, file in sorted(manifest.files.items())}
    value = {"format": FORMAT, "step": manifest.step, "topology": dict(manifest.topology), "files": files}
    write_json(checkpoint / MANIFEST, value)


def read_manifest(checkpoint: Path) -> Manifest:
    """Raises Unsound when anything is not as it should be, the step in the directory's name included; or OSError."""
    value = mapping(read(checkpoint / MANIFEST, LONGEST), "the manifest")
    if type(form := value.get("format")) is not int or not 1 <= form <= FORMAT:
        raise Unsound(f"format {shown(form)}, this version reads 1 to {FORMAT}")
    step = whole(value.get("step"), "step")
    if step != step_of(checkpoint):
        raise Unsound(f"is of step {step}, in {checkpoint.name}")
    topology = mapping(value.get("topology"), "topology")
    files = mapping(value.get("files"), "files")
    for name in files:
        if not _INSIDE.fullmatch(name):
            raise Unsound(f"names {shown(name)}, which is not inside the checkpoint")
    if missing := REQUIRED - files.keys():
        raise Unsound(f"does not list {', '.join(sorted(missing))}")
    return Manifest(step, topology, {name: _file(name, entry) for name, entry in files.items()})


def _file(name: str, value: Any) -> Written:
    entry = mapping(value, name)
    digest = entry.get("sha256")
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise Unsound(f"sha256 of {name} is {shown(digest)}")
    return Written(whole(entry.get("size"), f"size of {name}"), digest)
