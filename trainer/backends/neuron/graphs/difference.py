"""What changed between two runs of a phase: in its inputs, or in its graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from trainer.backends.neuron.graphs.hlo import Graph, Shape

Signature = dict[str, object]
"""By path: a tensor's dtype, dims and device as text in a Described; a Python value unchanged."""


class Described(str):
    """The description of a tensor in a signature."""


def signature(inputs: Mapping[str, object]) -> Signature:
    """Flatten mappings, sequences and named tuples of tensors and Python values: ``batch[0].tokens``."""
    found: Signature = {}
    for name, value in inputs.items():
        _flatten(name, value, found)
    return found


def _flatten(path: str, value: object, found: Signature) -> None:
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        found[path] = Described(f"{dtype}{list(value.shape)} on {value.device.type}")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _flatten(f"{path}.{key}", item, found)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key, item in zip(value._fields, value, strict=True):
            _flatten(f"{path}.{key}", item, found)
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        found[f"len({path})"] = len(value)
        for index, item in enumerate(value):
            _flatten(f"{path}[{index}]", item, found)
    else:
        found[path] = value


def baked(value: object) -> bool:
    """Whether torch_xla makes this scalar a constant of the graph: 0, 1 and -1 (measured on torch_xla 2.9)."""
    return isinstance(value, (int, float)) and value in (0, 1, -1)


def changes(old: Signature, new: Signature) -> list[str]:
    """Differences that cause another graph, the most likely first; empty when there are none.

    Other changed floats are graph parameters, except as exponents: they are listed only when nothing else differs.
    """
    shapes, scalars, floats = [], [], []
    for path in dict.fromkeys((*old, *new)):
        before, after = old.get(path, _Absent()), new.get(path, _Absent())
        if type(before) is type(after) and before == after:
            continue
        text = f"{path}: {_show(before)} -> {_show(after)}"
        if (
            isinstance(before, (Described, _Absent))
            or isinstance(after, (Described, _Absent))
            or None in (before, after)
        ):
            shapes.append(text)
        elif isinstance(before, float) and isinstance(after, float):
            if baked(before) or baked(after):
                scalars.append(f"{text} (a scalar that is 0, 1 or -1 is part of the graph)")
            else:
                floats.append(f"{text} (a graph parameter, unless it is an exponent)")
        else:
            scalars.append(text)
    return shapes + scalars or floats


class _Absent:
    """Stands for a missing input."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Absent)

    def __hash__(self) -> int:
        return 0

    def __str__(self) -> str:
        return "absent"


def _show(value: object) -> str:
    return str(value) if isinstance(value, (Described, _Absent)) else repr(value)


def graph_changes(old: Graph, new: Graph) -> list[str]:
    """How a graph differs from the compiled one: shapes of parameters and outputs, constants, operation counts."""
    found = []
    edges = (
        ("parameters", old.parameters, new.parameters),
        ("outputs", old.outputs, new.outputs),
        ("constants", old.constants, new.constants),
    )
    for what, before, after in edges:
        found += _multisets(what, before, after)
    for opcode in sorted(set(old.ops) | set(new.ops)):
        if old.ops[opcode] != new.ops[opcode]:
            found.append(f"{opcode}: {old.ops[opcode]} -> {new.ops[opcode]}")
    return found


def _multisets(what: str, old: Sequence[Shape | str], new: Sequence[Shape | str]) -> list[str]:
    """Compare regardless of order: live tensors and hoisted constants have no fixed order in a graph."""
    before, after = Counter(map(str, old)), Counter(map(str, new))
    gone, come = list((before - after).elements()), list((after - before).elements())
    if not gone and not come:
        return []
    if len(gone) == len(come):
        return [f"{what}: {', '.join(gone[:3])} -> {', '.join(come[:3])}"]
    lists = [f"{word} {', '.join(items[:3])}" for word, items in (("without", gone), ("with", come)) if items]
    return [f"{what}: {len(old)} -> {len(new)}, {' and '.join(lists)}"]
