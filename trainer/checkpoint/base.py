"""The base of a fine-tuned checkpoint: weights that were not trained are named, by their files, and not stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trainer.checkpoint.hashed_file import Written
from trainer.checkpoint.names import MANIFEST
from trainer.checkpoint.strict_json import Unsound, mapping, shown, whole
from trainer.files import is_directory_name
from trainer.parallel.boxes import Store

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Base:
    """path: as the user gave it. files: by name in it, those that say the weights: config.json and the weights' files
    of a directory, a GGUF file itself, the manifest of a checkpoint of ours, which names the others. run, step: of a
    checkpoint of ours.
    """

    path: str
    files: Mapping[str, Written]
    run: str | None = None
    step: int | None = None

    @property
    def bytes(self) -> int:
        """Of its files."""
        return sum(file.size for file in self.files.values())

    def __str__(self) -> str:
        if self.run is not None:
            return f"step {self.step:,} of {self.run} ({self.path})"
        return f"{self.path} ({len(self.files)} file{'s' if len(self.files) > 1 else ''})"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        files = {name: {"size": one.size, "sha256": one.sha256} for name, one in sorted(self.files.items())}
        own = {} if self.run is None else {"run": self.run, "step": self.step}
        return {"path": self.path, **own, "files": files}

    @classmethod
    def from_json(cls, value: Any) -> Base | None:
        """Inverse; None for a checkpoint that holds all of its weights. Raises Unsound."""
        if value is None:
            return None
        found = mapping(value, "base")
        path, run = found.get("path"), found.get("run")
        if not isinstance(path, str) or not path or "\0" in path:
            raise Unsound(f"the base's path is {shown(path)}")
        if run is not None and not isinstance(run, str):
            raise Unsound(f"the base's run is {shown(run)}")
        files = {name: _file(name, one) for name, one in mapping(found.get("files"), "the base's files").items()}
        if not files or (run is not None and list(files) != [MANIFEST]):
            raise Unsound("the base names no files of its own")
        return cls(path, files, run, None if run is None else whole(found.get("step"), "the base's step"))

    def unlike(self, other: Base) -> str | None:
        """The first file in which another base differs, in words; None where it is the same."""
        for name in sorted({*self.files, *other.files}):
            mine, its = self.files.get(name), other.files.get(name)
            if mine is None or its is None:
                return f"{name} is {'one file too many' if mine is None else 'not there'}"
            if mine.size != its.size:
                return f"{name} has {its.size:,} bytes instead of {mine.size:,}"
            if mine.sha256 != its.sha256:
                return f"{name} has another SHA-256, {its.sha256[:12]}... instead of {mine.sha256[:12]}..."
        return None


def _file(name: str, value: Any) -> Written:
    entry = mapping(value, f"the base's {name[:100]}")
    digest = entry.get("sha256")
    if not is_directory_name(name) or not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise Unsound(f"of the base's file {shown(name)} the sha256 is {shown(digest)}")
    return Written(whole(entry.get("size"), f"size of {name}"), digest)


def without(store: Store, names: Collection[str]) -> Store:
    """A store less these weights."""
    if not names:
        return store
    return replace(store, model={name: placed for name, placed in store.model.items() if name not in names})
