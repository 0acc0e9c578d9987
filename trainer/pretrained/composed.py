"""All weights of a checkpoint, those of its base and what its adapters make of them, as an export reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch

from trainer.checkpoint.base import Base
from trainer.checkpoint.names import PARTS
from trainer.checkpoint.opened import Opened
from trainer.checkpoint.verify import read_state
from trainer.config.groups.model import ModelConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.parallel.boxes import Box
from trainer.pretrained.base import MOVED, verify_base
from trainer.pretrained.refused import KEY as HERE
from trainer.pretrained.shapes import parameter_shapes
from trainer.pretrained.source import Source, open_source
from trainer.pretrained.weights import weights_of

KEY = "CHECKPOINT"


class Described(Protocol):
    """What is known of a tensor before it is read."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...


class Contents(Protocol):
    """As trainer.checkpoint.opened.Opened has it."""

    @property
    def index(self) -> Mapping[str, Described]: ...
    def read(self, name: str, offsets: Sequence[int], target: torch.Tensor) -> None: ...


@dataclass(frozen=True)
class Entry:
    """A tensor."""

    dtype: str
    shape: tuple[int, ...]


class Composed:
    """Of a source whose weights are not all its own."""

    def __init__(self, source: Source) -> None:
        self._read = weights_of(source, source.model.vocab)
        own = source.stored or {}
        merged = set() if source.adapters is None else {f"{path}.weight" for path in source.adapters.paths}
        base = {} if source.base is None else source.base.dtypes
        widest = "float32" if merged or len(base) != 1 else next(iter(base))
        self.index: dict[str, Entry] = {
            name: Entry(own[name].dtype if name in own and name not in merged else widest, shape)
            for name, shape in parameter_shapes(source.model).items()
        }

    def read(self, name: str, offsets: Sequence[int], target: torch.Tensor) -> None:
        """Copy the region that begins at ``offsets`` and has the target's shape, converted to the target's dtype."""
        sizes = tuple(target.shape)
        local = tuple(slice(0, size) for size in sizes)
        target.copy_(self._read(Box(name, self.index[name].shape, tuple(offsets), sizes, local)))


def composed(checkpoint: Path, base: str | None, hashes: bool) -> Source | None:
    """A checkpoint that has adapters, or leaves weights to its base, opened with it; None where it has neither.

    base: where the base is now. hashes: read its bytes. Raises ConfigError, Unsound or OSError.
    """
    named: Base | None = read_state(checkpoint).base
    if named is None and base is None:
        return None
    try:
        source = open_source(str(checkpoint), base, MOVED)
        if hashes:
            verify_base(source)
    except ConfigError as error:
        keys = {HERE: KEY}
        raise ConfigError(replace(one, key=keys.get(one.key, one.key)) for one in error.problems) from None
    return source


def contents_of(checkpoint: Path, config: Config, source: Source | None) -> tuple[Contents, ModelConfig]:
    """What there is to read, and the model that it is of. source: what ``composed`` gave."""
    if source is not None:
        return Composed(source), source.model
    if config.adapter.kind != "none":
        rule = "names the base beside which its adapters stand; this one does not"
        raise ConfigError(Problem(KEY, str(checkpoint), rule, "train a step with this version, and export that"))
    return Opened(checkpoint / PARTS[0]), config.model
