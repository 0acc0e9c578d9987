"""What a training reads, and whether a container finds it: its image has code and configuration alone."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from trainer.config.groups.launcher import LauncherConfig
from trainer.config.schema import Config
from trainer.errors import Problem

OF_A_HUB = "huggingface"
"""Kind of a source whose paths may be names of a hub."""


def unmounted(config: Config) -> Iterator[Problem]:
    """What a training reads that its container would not find."""
    return beside_the_volume(config.launcher, _paths(config))


def beside_the_volume(launcher: LauncherConfig, paths: Iterable[tuple[str, str]]) -> Iterator[Problem]:
    """Relative paths that would lie in the image. Absolute ones are the image's own affair. paths: with their keys."""
    if launcher.name not in ("kubernetes", "batch"):
        return
    settings = launcher.kubernetes if launcher.name == "kubernetes" else launcher.batch
    for key, path in paths:
        inside = PurePosixPath(posixpath.normpath(posixpath.join(settings.directory, path)))
        if "://" not in path and not path.startswith("/") and not inside.is_relative_to(settings.volume_path):
            rule = f"lies below {settings.volume_path} in the container, where the volume is mounted; it is {inside}"
            remedy = f"put it on the volume: runs/{path}; or an absolute path that the image has"
            yield Problem(key, path, rule, remedy)


def _paths(config: Config) -> Iterator[tuple[str, str]]:
    """Key and path, of everything that is read."""
    singles = {
        "model.init_from": config.model.init_from,
        "adapter.init_from": config.adapter.init_from,
    }
    model, tokenizer = config.model.init_from, config.data.tokenizer.path
    if tokenizer and (model is None or PurePosixPath(tokenizer).parent != PurePosixPath(model)):
        singles["data.tokenizer.path"] = tokenizer
    yield from ((key, path) for key, path in singles.items() if path)
    for group, sources in (("data.sources", config.data.sources), ("evaluation.sets", config.evaluation.sets)):
        for source in sources:
            if source.kind != OF_A_HUB:
                yield from ((f"{group}[{source.name}].paths", path) for path in source.paths)
