"""How a configuration becomes the native backend."""

from __future__ import annotations

from trainer.backends.native.backend import NativeBackend
from trainer.backends.native.device import device_of_process
from trainer.backends.native.update.optimizer import MakeOptimizer
from trainer.config.schema import Config
from trainer.parallel.mesh import Mesh
from trainer.rules.derived import Derived


def make(config: Config, derived: Derived, mesh: Mesh, make_optimizer: MakeOptimizer) -> NativeBackend:
    """The native backend of a rank, in a world that may be pretended."""
    device = device_of_process()
    return NativeBackend(
        mesh,
        make_optimizer,
        config.backend.timeout_seconds,
        config.parallel,
        derived.stages,
        device,
        max(config.reliability.save_seconds, config.reliability.setup_seconds),
    )
