"""Where runs, the cache and data lie: on this machine or what is mounted on it. Whether it can be read comes later."""

from __future__ import annotations

from collections.abc import Iterator

from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.run.world import World

REMOTE = "://"
S3 = "s3://"
IN_S3 = ("files", "indexed", "prepared")
"""Kinds of sources that are read from S3."""


def run_root(config: Config, world: World) -> Iterator[Problem]:
    """run.root is a directory. A run whose root or name is refused leaves nothing on the disk."""
    yield from _directory("run.root", config.run.root, "checkpoints and metrics are written there")


def register(config: Config, world: World) -> Iterator[Problem]:
    """Local jobs are found by their names there."""
    yield from _directory("launcher.local.register", config.launcher.local.register, "jobs lock their names there")


def data_places(config: Config, world: World) -> Iterator[Problem]:
    """The cache is a directory; sources and tokenizer are files that can be opened."""
    yield from _directory("data.cache_dir", config.data.cache_dir, "tokens are read from there as from memory")
    path = config.data.tokenizer.path
    if path is not None:
        yield from _readable("data.tokenizer.path", path)
    for index, source in enumerate(config.data.sources):
        for path in source.paths:
            key = f"data.sources.{index}.paths"
            yield from _bucket(key, path) if path.startswith(S3) and source.kind in IN_S3 else _readable(key, path)
    for index, one in enumerate(config.evaluation.sets):
        for path in one.paths:
            yield from _readable(f"evaluation.sets.{index}.paths", path)


def place(key: str, value: str) -> Iterator[Problem]:
    """A directory, or a prefix of a bucket: where jobs keep what they know, and what they publish."""
    if value.startswith(S3):
        yield from _bucket(key, value)
    elif REMOTE in value:
        yield Problem(key, value, "is a directory, or s3://BUCKET/PREFIX", "mount the storage, and name the mount")
    elif not value.strip("/ ") or "\0" in value:
        yield Problem(key, value, "names a directory, and not that above all others", f"set {key}, or leave it out")
    else:
        yield from _home(key, value)


def _directory(key: str, value: str, use: str) -> Iterator[Problem]:
    if not value.strip():
        yield Problem(key, value, "names a directory", f"set {key}, or leave it out")
    elif REMOTE in value:
        remedy = f"mount the storage and name the mount ({key}=/mnt/...), or use a local disk and copy afterwards"
        yield Problem(key, value, f"a local or mounted directory: {use}", remedy)
    else:
        yield from _home(key, value)


def _readable(key: str, value: str) -> Iterator[Problem]:
    if REMOTE in value:
        kinds = f"{', '.join(IN_S3[:-1])} or {IN_S3[-1]}"
        remedy = f"copy the files here, or mount the storage and name that; s3:// is for sources of kind {kinds}"
        yield Problem(key, value, "remote paths are not read", remedy)
    else:
        yield from _home(key, value)


def _bucket(key: str, value: str) -> Iterator[Problem]:
    bucket, _, name = value.removeprefix(S3).partition("/")
    if not bucket or not name.strip("/") or any(character in bucket for character in "*?[@:"):
        rule = "names a bucket, and a key or a prefix of keys"
        yield Problem(key, value, rule, "write s3://BUCKET/KEY; the bucket's name is spelt out")


def _home(key: str, value: str) -> Iterator[Problem]:
    """What is left of ~ once homes are spelt out (trainer.config.homes)."""
    if value.startswith("~"):
        name = value.partition("/")[0]
        yield Problem(
            key, value, f"{name} is the home of a user of this machine", f"write ./{value} for a directory here"
        )
