"""Import stand-ins for what neuronx-distributed (NxD) imports and a machine without the Neuron SDK does not have.

``install()`` goes before the first import of neuronx_distributed. Real packages always win: the finder is the last that
Python asks, and leaves a package alone whose root is installed.

What stands in for the closed packages is inert: a name of a stand-in module is a class that can be a base, an
annotation, an exception or a decorator, so that NxD's modules import. A call on tensors raises, since a kernel that
silently does nothing would make a test pass for no reason. The few functions that NxD really needs are ours (PROVIDED).
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Sequence
from typing import Any

import torch

CLOSED = ("torch_neuronx", "neuronxcc", "libneuronxla", "nki", "nkilib")
"""AWS's packages, which are not public or need the Neuron runtime."""
UNUSED = ("boto3", "botocore", "tenacity", "requests", "scipy")
"""Imported by NxD for S3 checkpoints, retries and inference kernels, none of which this project uses."""
GONE = ("transformers.utils.fx",)
"""Modules that transformers 5 dropped; NxD's pipeline tracer takes a base class from there."""


class Inert(type):
    """Class of the placeholders: attributes, items and calls of one give more of the same."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return placeholder(f"{cls.__module__}.{cls.__qualname__}", name)

    def __getitem__(cls, item: object) -> Any:
        return cls  # a launch grid, or a type parameter

    def __or__(cls, other: object) -> Any:
        return cls

    __ror__ = __or__

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if not cls.__dict__.get("_stand_in"):
            return super().__call__(*args, **kwargs)  # a real class of NxD that derives from a placeholder
        if any(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values())):
            raise NotImplementedError(f"{cls.__module__}.{cls.__qualname__} is closed code: a stand-in cannot compute")
        decorates = len(args) == 1 and not kwargs and isinstance(args[0], types.FunctionType)
        return args[0] if decorates else cls


def placeholder(parent: str, name: str) -> Any:
    """An inert class, an exception so that ``except`` may name it."""
    return Inert(name, (Exception,), {"_stand_in": True, "__module__": parent})


class CollectivesConfig:
    """Ring neighbours of every rank, which initialize_model_parallel reads for context parallelism."""

    def __init__(self, replica_groups: Sequence[Sequence[int]] = (), **_: Any) -> None:
        self.replica_groups = replica_groups
        self.rank_src_tgt_pairs: dict[int, list[list[int]]] = {}
        for group in replica_groups:
            ring = [[source, target] for source, target in zip(group, [*group[1:], group[0]], strict=True)]
            self.rank_src_tgt_pairs |= dict.fromkeys(group, ring)


def get_platform_target() -> str:
    """The instance family that NxD is to lay its groups out for."""
    return os.environ.get("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")


class HFTracer(torch.fx.Tracer):
    """transformers 5 has none; NxD only derives a class from it unless it traces a Hugging Face model."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("tracing a Hugging Face model needs transformers < 5")


PROVIDED: dict[str, dict[str, Any]] = {
    "torch_neuronx.utils": {"get_platform_target": get_platform_target},
    "torch_neuronx.utils.utils": {"get_platform_target": get_platform_target, "SUPPORTED_TYPES": ()},
    "neuronxcc.nki._pre_prod_kernels.collectives": {"CollectivesConfig": CollectivesConfig},
    "neuronxcc.nki._private_kernels.collectives": {"CollectivesConfig": CollectivesConfig},
    "transformers.utils.fx": {"HFTracer": HFTracer},
}


class StandIn(types.ModuleType):
    """A module that has every name."""

    __path__: list[str] = []  # noqa: RUF012  (what makes it a package)
    __version__ = "0+stand.in"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = placeholder(self.__name__, name)
        setattr(self, name, value)
        return value


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers imports at or below the absent packages, and of the modules that are gone."""

    def __init__(self, absent: Sequence[str]) -> None:
        self.absent = tuple(absent)

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        """Only asked when no other finder knew the module."""
        if fullname in GONE or fullname.partition(".")[0] in self.absent:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        """An empty stand-in."""
        return StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """What is ours in it."""
        vars(module).update(PROVIDED.get(module.__name__, {}))


def absent() -> tuple[str, ...]:
    """Packages that a stand-in has to replace on this machine."""
    return tuple(name for name in CLOSED + UNUSED if name not in sys.modules and not importlib.util.find_spec(name))


def install() -> tuple[str, ...]:
    """Add the finder once; the packages that are stood in for."""
    # First: torch_xla looks for libneuronxla as it is imported, and would set up a Neuron runtime with a stand-in's.
    import torch_xla  # noqa: F401

    installed = [finder for finder in sys.meta_path if isinstance(finder, Finder)]
    if not installed:
        installed = [Finder(absent())]
        sys.meta_path.extend(installed)
        if "torch_neuronx" in installed[0].absent:
            for name in ("SPMDModel", "LayoutTransformation"):  # TorchScript classes that NxD's annotations name
                setattr(torch.classes.neuron, name, placeholder("torch.classes.neuron", name))
    return installed[0].absent
