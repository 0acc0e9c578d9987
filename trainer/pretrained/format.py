"""What a family says of its directories: what config.json means, and which tensor holds which parameter. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.config.groups.model import ModelConfig
from trainer.errors import Problem


@dataclass(frozen=True)
class Part:
    """Rows of a canonical parameter inside a file's tensor, both counted along dim 0 of the parameter's orientation.

    name: canonical. start: first row of the parameter. at: first row of the file's tensor. rows: how many.
    """

    name: str
    start: int
    at: int
    rows: int


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a directory: its parts cover it, each row once.

    shape: on disk. transposed: the disk holds [inputs, outputs] where the parameter is [outputs, inputs] (GPT-2's
    Conv1D), so that rows of the parameter are columns on disk.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    transposed: bool = False


@dataclass(frozen=True)
class Format:
    """A family's directories.

    model_types, architectures: of config.json; the first of each is the one that is written.
    read: config.json -> fields of ModelConfig (dimensions, switches, rope_scaling, tied: the same fields whatever the
    family); raises ConfigError for what the decoder does not compute, naming the key, its value and the remedy. write:
    the inverse, without what all families have in common (config_json.py). tensors: of a model, in the file's order; a
    tied head is not among them. lacks: what of a ModelConfig the format cannot say. ignored: globs of tensors that may
    stand in a file and are no parameters. tied: what a config.json without tie_word_embeddings means. prefix: of the
    tensors' names; a directory may lack it on all of them (GPT-2's own does). head: name of the head's tensor, which a
    tied model's directory may have too, equal to the embedding.
    """

    model_types: tuple[str, ...]
    architectures: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]
    tensors: Callable[[ModelConfig], Iterable[FileTensor]]
    lacks: Callable[[ModelConfig], Iterable[Problem]]
    ignored: tuple[str, ...] = ()
    tied: bool = False
    prefix: str = ""
    head: str = "lm_head.weight"


def elsewhere(path: str, names: Mapping[str, str], layers: str) -> str:
    """A module's name in another layout. names: by the name here, within a layer for those of layers; layers: where
    that layout has them.
    """
    if not path.startswith("model.layers."):
        return names[path]
    layer, _, inner = path.removeprefix("model.layers.").partition(".")
    return f"{layers}.{layer}.{names[inner]}"


def renamed(name: str, canonical: str, shape: tuple[int, ...], transposed: bool = False) -> FileTensor:
    """A tensor that is one parameter. shape: the parameter's."""
    on_disk = shape[::-1] if transposed else shape
    return FileTensor(name, on_disk, (Part(canonical, 0, 0, shape[0]),), transposed)
