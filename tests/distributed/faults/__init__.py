"""Lowerings broken on purpose: each fault replaces a piece of the native backend in a forked rank, by name."""

from tests.distributed.faults import context, data, pipeline, tensor
from tests.distributed.faults.registry import FAULTS, inject

__all__ = ["FAULTS", "context", "data", "inject", "pipeline", "tensor"]
