"""Where ranks meet neuronx-distributed (NxD): its real source or the double, over gloo or on lazy tensors."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.ranks import Setting

CURVES = "tests.neuron.curves:train"
"""Trains a layout by the neuron backend, for tests/distributed/bench.py."""
DOUBLE = Path(__file__).parent / "double"
LAZY = {"PJRT_DEVICE": "CPU"}
"""What torch_xla needs to compute on the CPU."""
_QUIET = {"NXD_LOG_LEVEL": "error", "PYTHONWARNINGS": "ignore"}


def over_gloo(source: Path) -> Setting:
    """torch_xla is redirected (gloo_xla.py). source: the directory that holds the package neuronx_distributed."""
    return Setting({**LAZY, **_QUIET, "NXD_CPU_MODE": "1"}, (source,), "tests.neuron.gloo_xla:install")


def lazily(source: Path) -> Setting:
    """On torch_xla's real lazy tensors."""
    return Setting({**LAZY, **_QUIET}, (source,), "tests.neuron.library:import_lazily")


def import_lazily() -> None:
    """Import NxD as it is."""
    from tests.neuron import gloo_xla, stand_ins

    stand_ins.install()
    gloo_xla.provide_host_count()
    importlib.import_module("neuronx_distributed")
