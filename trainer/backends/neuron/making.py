"""How a configuration becomes the neuron backend."""

from __future__ import annotations

from typing import Any

from trainer.backends.neuron.backend import NeuronBackend
from trainer.config.schema import Config
from trainer.parallel.mesh import Mesh
from trainer.rules.derived import Derived
from trainer.rules.quantities import why_no_kernel
from trainer.trainium.installed import found


def make(config: Config, derived: Derived, mesh: Mesh, make_optimizer: Any = None) -> NeuronBackend:
    """The neuron backend of a rank. Its optimizer is its own: rules refuse any other than adamw."""
    return NeuronBackend(
        mesh,
        config.optim,
        config.parallel,
        timeout_seconds=config.backend.timeout_seconds,
        flash=why_no_kernel(config, config.precision.mode, found()) is None,
        stages=derived.stages,
        microbatches=derived.accumulation,
        save_seconds=max(config.reliability.save_seconds, config.reliability.setup_seconds),
    )
