"""Whether two checkpoints hold the same weights and moments, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.commands.smoke.page import Line, judged
from trainer.files import read_json

PARTS = ("model/", "optimizer/")


def same(name: str, one: Path, other: Path) -> Line:
    """Compare two checkpoint directories by the SHA-256 in their manifests, which a resume has verified."""
    wanted = "weights and moments equal, byte for byte"
    try:
        a, b = _sums(one), _sums(other)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        return judged(name, False, f"no manifest to compare: {error}", wanted)
    different = sorted(file for file in a.keys() | b.keys() if a.get(file) != b.get(file))
    tensors = sum(file.endswith(".safetensors") for file in a)
    found = f"{len(different)} files differ, {different[0]} first" if different else f"{tensors} files of tensors equal"
    return judged(name, bool(tensors) and not different, found, wanted)


def _sums(checkpoint: Path) -> dict[str, Any]:
    files = read_json(checkpoint / "manifest.json")["files"]
    return {name: entry["sha256"] for name, entry in files.items() if name.startswith(PARTS)}
