"""A version as a directory of this machine: where it lies, or a copy of what lies in S3, each file held against its
SHA-256."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from trainer.errors import ConfigError, Problem
from trainer.files import sha256
from trainer.jobs.registry.versions import KEY, Registry
from trainer.storage.base import StorageError, is_remote

CACHE = Path(".cache/registry")


def fetched(registry: Registry, version: str, cache: Path = CACHE) -> Path:
    """Raises ConfigError where there is no such version, StorageError where a file is another than was published."""
    record = registry.record(version)
    if record is None:
        remedy = "name one that jobs.py registry lists"
        raise ConfigError(Problem("version", version, f"is a whole version of {registry.root}", remedy))
    if not is_remote(registry.root):
        return Path(registry.place(version)).absolute()
    directory = (cache / registry.root.partition("://")[2] / version).absolute()
    for name, known in record["files"].items():
        target = directory / _inside(name)
        if target.is_file() and target.stat().st_size == known["size"] and sha256(target) == known["sha256"]:
            continue
        _copy(registry, f"{registry.place(version)}/{name}", target, known["sha256"])
    return directory


def _copy(registry: Registry, path: str, target: Path, digest: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with beside.open("wb") as file:
        for block in registry.storage.stream(registry.storage.stat(path)):
            file.write(block)
    if sha256(beside) != digest:
        beside.unlink()
        raise StorageError(KEY, path, "is the file that was published, by its SHA-256", "publish the version again")
    beside.replace(target)


def _inside(name: str) -> PurePosixPath:
    """A record is a file like others: what it names stays below its directory."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(Problem(KEY, name, "names a file of the version", "publish the version again"))
    return path
