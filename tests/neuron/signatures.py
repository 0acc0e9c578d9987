"""Signatures of NxD's training API: the recorded facts, and what the library at hand says.

nxd_signatures.json holds those of 0.17.0, which are the same in 0.18.0, read by inspect from the public source
(github.com/aws-neuron/neuronx-distributed, commit 22cadad). A double of the API is held to the same file.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

Signature = list[list[str | None]]
"""[name, default or None where required, kind] of every parameter, in order."""
OWN_MODULES = ("collectives", "exchange", "stages")
OWN_NAMES = ("copy_reducing_in", "gather_reducing_in")
"""What the double alone has, for its own use."""
FACTS = Path(__file__).with_name("nxd_signatures.json")


def recorded(modules: Collection[str] | None = None) -> dict[str, Signature]:
    """The facts by ``module:name``; of some modules, or of all."""
    facts: dict[str, Signature] = json.loads(FACTS.read_text())["signatures"]
    return {name: signature for name, signature in facts.items() if modules is None or _module(name) in modules}


def signatures_of(names: Collection[str]) -> dict[str, Signature]:
    """What the importable neuronx_distributed says about names, ``module:function`` or ``module:class.method``.

    A name that the library lacks is left out, so that a comparison shows it. To be called where NxD is importable: in a
    task of tests/ranks.py.
    """
    found = {}
    for name in names:
        target: Any = importlib.import_module(_module(name))
        for part in name.partition(":")[2].split("."):
            target = getattr(target, part, None)
        if target is not None:
            found[name] = [_parameter(parameter) for parameter in inspect.signature(target).parameters.values()]
    return found


def public(modules: Collection[str]) -> dict[str, Signature]:
    """Of all that the double's modules define or export, but for its own."""
    return signatures_of([name for module in modules for name in _public(module)])


def _public(module: str) -> list[str]:
    """Functions, classes and their methods."""
    found: list[str] = []
    if module.rpartition(".")[2] in OWN_MODULES:
        return found
    here = importlib.import_module(module)
    for name, value in vars(here).items():
        belongs = getattr(value, "__module__", "") == module or name in getattr(here, "__all__", ())
        if name.startswith("_") or name in OWN_NAMES or not callable(value) or not belongs:
            continue
        found.append(f"{module}:{name}")
        if inspect.isclass(value):
            methods = [key for key, member in vars(value).items() if inspect.isfunction(member)]
            found += [f"{module}:{name}.{method}" for method in methods if not method.startswith("_")]
    return found


def _module(name: str) -> str:
    return name.partition(":")[0]


def _parameter(parameter: inspect.Parameter) -> list[str | None]:
    return [parameter.name, _default(parameter.default), parameter.kind.name]


def _default(value: object) -> str | None:
    if value is inspect.Parameter.empty:
        return None
    return f"<{value.__name__}>" if inspect.isfunction(value) else repr(value)
