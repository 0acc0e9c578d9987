"""What peft calls a model's modules, and which of them a list of targets means. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

from trainer.config.groups.model import ModelConfig
from trainer.pretrained.adapters import EMBEDDING, HEAD, path_of, weight_shapes
from trainer.pretrained.config_json import format_of

ALL_LINEAR = "all-linear"


class Modules:
    """Of a model. theirs: the name in transformers by canonical path, of each module that is a module there too.

    fused: of the others, the name of the module that holds theirs and others' rows. transposed: paths whose weights lie
    on the disk as [inputs, outputs].
    """

    def __init__(self, model: ModelConfig) -> None:
        form, shapes = format_of(model.family), weight_shapes(model)
        self.theirs: dict[str, str] = {}
        self.fused: dict[str, str] = {}
        self.transposed: set[str] = set()
        for tensor in form.tensors(model):
            whole = len(tensor.parts) == 1 and tensor.parts[0].rows == shapes[tensor.parts[0].name][0]
            for part in tensor.parts:
                (self.theirs if whole else self.fused)[path_of(part.name)] = path_of(tensor.name)
            if tensor.transposed:
                self.transposed.update(path_of(part.name) for part in tensor.parts)
        if model.tied:
            self.theirs[HEAD] = path_of(form.head)
        self.matrices = [path_of(name) for name, shape in shapes.items() if len(shape) == 2 and "positions" not in name]
        """Canonical paths of what may have an adapter."""

    def canonical(self) -> Mapping[str, str]:
        """The canonical path by the name in transformers."""
        return {name: path for path, name in self.theirs.items()}


def resolved(targets: Iterable[str], paths: Iterable[str]) -> set[str]:
    """The modules that adapter.targets means (trainer/models/adapters/targets.py), among ``paths``."""
    found: set[str] = set()
    for target in targets:
        if target == ALL_LINEAR:
            found.update(path for path in paths if path not in (EMBEDDING, HEAD))
        found.update(path for path in paths if matches(path, target) or fnmatchcase(path, target))
    return found


def matches(path: str, target: str) -> bool:
    """As peft has it: the path, or its end."""
    return path == target or path.endswith(f".{target}")


def compressed(paths: Collection[str], known: Collection[str]) -> list[str]:
    """The shortest targets that mean these modules and no others of those that are ``known``, sorted.

    The last part of a path where all that end so are meant; the whole path where they are not.
    """
    chosen = set(paths)
    found = set()
    for path in chosen:
        last = path.rpartition(".")[2]
        alike = {one for one in known if matches(one, last)}
        found.add(last if alike <= chosen else path)
    return sorted(found)
