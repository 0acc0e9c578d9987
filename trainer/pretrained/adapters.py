"""Adapters as files hold them: their names, and shapes that follow from the weights they stand beside. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from trainer.config.adapters import EMBEDDING, EMBEDDING_A, EMBEDDING_B, HEAD, KINDS, MAGNITUDE, A, B
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.model import ModelConfig
from trainer.pretrained.shapes import Shapes, parameter_shapes


def is_adapters(name: str) -> bool:
    """Whether a canonical name is that of an adapter's parameter."""
    return name.rpartition(".")[2] in KINDS


def path_of(name: str) -> str:
    """The module that a parameter belongs to."""
    return name.rpartition(".")[0]


@dataclass(frozen=True)
class Adapters:
    """config: rank, scale and whether they are DoRA's. model: that they stand beside. shapes: of their parameters."""

    config: AdapterConfig
    model: ModelConfig
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def paths(self) -> tuple[str, ...]:
        """The modules that have one, each once."""
        return tuple(dict.fromkeys(path_of(name) for name in self.shapes))

    def merged(self) -> ModelConfig:
        """The model once they are merged: where either side of a tied pair has one, the two are no longer the same."""
        apart = self.model.tied and any(path in (EMBEDDING, HEAD) for path in self.paths)
        return replace(self.model, tied=False) if apart else self.model

    def faults(self) -> Iterator[str]:
        """What does not belong to the model, or is missing."""
        weights = weight_shapes(self.model)
        for path in self.paths:
            shape = weights.get(f"{path}.weight")
            if shape is None or len(shape) != 2:
                yield f"{path} is no linear of the model, nor its embedding of tokens"
                continue
            wanted = shapes_beside(path, shape, self.config)
            mine = {name: found for name, found in self.shapes.items() if path_of(name) == path}
            for name in sorted(wanted.keys() | mine.keys()):
                if name not in mine:
                    yield f"{name} is missing"
                elif name not in wanted:
                    yield f"{name} does not belong there (rank {self.config.rank}, dora {self.config.dora})"
                elif mine[name] != wanted[name]:
                    fits = f"for this model and rank {self.config.rank} {list(wanted[name])}"
                    yield f"{name} is {list(mine[name])}, {fits}"


def weight_shapes(model: ModelConfig) -> Shapes:
    """Of the parameters, a tied head's too: it may have an adapter of its own."""
    return {**parameter_shapes(model), f"{HEAD}.weight": (model.vocab, model.hidden)}


def shapes_beside(path: str, weight: tuple[int, ...], config: AdapterConfig) -> Shapes:
    """What an adapter at a module has. weight: shape of the module's."""
    rows, columns = weight
    table = path == EMBEDDING
    a, b = (EMBEDDING_A, EMBEDDING_B) if table else (A, B)
    inward, outward = (rows, columns) if table else (columns, rows)
    found: Shapes = {f"{path}.{a}": (config.rank, inward), f"{path}.{b}": (outward, config.rank)}
    return {**found, f"{path}.{MAGNITUDE}": (outward,)} if config.dora else found


def split_names(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Names of the model's own parameters, and of adapters'."""
    own: list[str] = []
    theirs: list[str] = []
    for name in names:
        (theirs if is_adapters(name) else own).append(name)
    return own, theirs
