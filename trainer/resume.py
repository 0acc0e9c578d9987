"""Where a run begins: at its newest checkpoint that verifies, or at initial weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from trainer.backends.base import Backend, Initialise
from trainer.checkpoint.directory import name_of, newest_sound, step_of
from trainer.checkpoint.load import load_checkpoint, topology_changes
from trainer.errors import CheckpointError, Problem
from trainer.rundir import RunDirectory, trim_metrics
from trainer.state import TrainState

NONE, UNSOUND = -1, -2
"""What rank 0 tells the others instead of a step."""


def resume_or_initialise(
    directory: RunDirectory,
    backend: Backend,
    initialise: Initialise,
    seed: int,
    topology: Mapping[str, Any],
    report: Callable[[str], None] | None,
) -> TrainState:
    """Fill the backend's weights and moments. Collective: rank 0 verifies and decides, for all.

    topology: what this launch runs on, to be compared with what saved. report: where rank 0's lines go; None on the
    other ranks. Raises CheckpointError on every rank when there are checkpoints and none verifies: starting anew would
    throw away a run.
    """
    torch.manual_seed(seed)
    step, failure = NONE, None
    if report is not None:
        try:
            found, faults = newest_sound(directory.checkpoints)
            for fault in faults:
                report(f"passed over {fault}")
            step = step_of(found) if found else NONE
        except CheckpointError as error:
            step, failure = UNSOUND, error
        if step != UNSOUND:
            trim_metrics(directory.path, max(step, 0))
    step = backend.host_broadcast(step)
    if step == UNSOUND:
        raise failure or CheckpointError(Problem("checkpoints", str(directory.checkpoints), "one verifies", ""))
    if step == NONE:
        backend.load_initial(initialise)
        return TrainState()
    checkpoint = directory.checkpoints / name_of(step)
    state = load_checkpoint(checkpoint, backend.store())
    backend.loaded(state.updates)
    if report is not None:
        report(f"resuming {directory.path.name} from step {state.step}")
        if changes := topology_changes(checkpoint, topology):
            report(f"  on other terms ({'; '.join(changes)}): the same curve, but not to the last bit")
    return state
