"""Whether a run may go on with other values than those it was started with: what alters its loss curve is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from trainer.config.compose import to_config
from trainer.config.keys import flatten
from trainer.config.schema import OUTSIDE_TRAJECTORY, Config
from trainer.errors import ConfigError, Problem

CONFIG = "config.yaml"
SOURCES, INIT_FROM = "data.sources", "model.init_from"
UNCHANGEABLE = {
    "data.seq_len": "the data's position is counted in samples of that length",
    "data.packing": "the data's position is counted in samples that were packed so",
    "data.long_documents": "the data's position is counted in samples that were packed so",
    "adapter.kind": "its checkpoints hold what was trained so, and nothing else",
    "adapter.rank": "its checkpoints hold adapters of that rank",
    "adapter.dora": "its checkpoints hold adapters of that kind",
}
"""Trajectory keys that resume.allow cannot free, and why. The sources' names are another one."""


class Change(NamedTuple):
    """A value of the trajectory that differs from the saved configuration's."""

    key: str
    """As the command line would set it: a field of a source by its place in the present list."""
    before: Any
    now: Any
    of: str = ""
    """Whose: of one source, by name; empty for a key that says it itself."""

    def __str__(self) -> str:
        return f"{self.key}: {self.before!r} -> {self.now!r}{self.of}"


def refuse_changes(path: Path, config: Config) -> None:
    """Raise ConfigError listing every trajectory key that differs from the saved run and was not allowed to.

    A run without a checkpoint has no trajectory to protect: a first start that failed may be mended freely.
    """
    if not any((path / "checkpoints").glob("step-*")):
        return
    found = [(change, _why_fixed(change)) for change in differences(path, config)]
    problems = [
        Problem(key, now, f"{before!r}, as the run was started with: {why}", "restore it, or run.name=<another>")
        for (key, before, now, _), why in found
        if why
    ]
    changed = [change for change, why in found if not why and not _covered(change.key, config.resume.allow)]
    every = ",".join([*config.resume.allow, *(change.key for change in changed)])
    problems += [
        Problem(
            key,
            now,
            f"the run {config.run.name} was started with {before!r}{of}, and this alters its loss curve",
            f"run.name=<another> for a new run, or 'resume.allow=[{every}]' to go on with the change",
        )
        for key, before, now, of in changed
    ]
    if problems:
        raise ConfigError(problems)


def _why_fixed(change: Change) -> str | None:
    if change.key == SOURCES and set(change.before) != set(change.now):
        return "the data's position is counted in samples of each source, by name"
    return UNCHANGEABLE.get(change.key)


def differences(path: Path, config: Config) -> list[Change]:
    """Values of the trajectory that differ from the saved configuration.

    A key that the saved file does not have, because it is older than the key, holds the schema's default. A source is
    compared with the one of its name; data.sources itself stands for the names, in the order that held-out text has.
    Where text lies is no part of the trajectory: its content is, and a resume compares that with the checkpoint's.
    """
    try:
        before = to_config(yaml.safe_load((path / CONFIG).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return []
    except (yaml.YAMLError, OSError, TypeError, ValueError, ConfigError) as error:
        rule = f"its {CONFIG} can be read ({' '.join(str(error).split())})"
        raise ConfigError(Problem("run.name", path.name, rule, "restore it, or use another run.name")) from error
    changes = _changed("", _leaves(before), _leaves(config)) + _changed_sources(before, config)
    outside = (*OUTSIDE_TRAJECTORY, *([INIT_FROM] if stands_on_base(before) and stands_on_base(config) else []))
    return [change for change in changes if not _covered(change.key, outside)]


def stands_on_base(config: Config) -> bool:
    """Whether checkpoints leave weights to model.init_from: what lies there is compared, and where is no matter."""
    return config.model.init_from is not None and bool(config.model.frozen or config.adapter.kind != "none")


def _leaves(config: Config) -> dict[str, Any]:
    names = [source.name for source in config.data.sources]
    return {**flatten(dataclasses.asdict(config)), SOURCES: names}


def _changed(prefix: str, before: dict[str, Any], now: dict[str, Any], of: str = "") -> list[Change]:
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return [Change(prefix + key, before.get(key), now.get(key), of) for key in keys]


def _changed_sources(before: Config, config: Config) -> list[Change]:
    saved = {source.name: source for source in before.data.sources}
    changes = []
    for index, source in enumerate(config.data.sources):
        if (old := saved.get(source.name)) is not None:
            fields, was = flatten(dataclasses.asdict(source)), flatten(dataclasses.asdict(old))
            found = _changed(f"{SOURCES}.{index}.", was, fields, of=f" (source {source.name})")
            changes += [change for change in found if change.key != f"{SOURCES}.{index}.paths"]
    return changes


def _covered(key: str, parents: Iterable[str]) -> bool:
    return any(key == parent or key.startswith(f"{parent}.") for parent in parents)
