"""Where a run begins: at its newest checkpoint that verifies, or at initial weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainer.backends.base import Backend, Initialise
from trainer.checkpoint.directory import Ranks, newest_sound, set_aside, step_of
from trainer.checkpoint.load import load_checkpoint, refuse_other_tensors, topology_changes
from trainer.checkpoint.state import TrainState
from trainer.errors import ConfigError, Problem
from trainer.run.directory import RunDirectory, trim_metrics
from trainer.training.collective import on_every_rank, on_rank_zero


def resume_or_initialise(
    directory: RunDirectory,
    backend: Backend,
    initialise: Initialise,
    seed: int,
    steps: int,
    corpus: Mapping[str, str],
    allowed: Sequence[str],
    topology: Mapping[str, Any],
) -> TrainState:
    """Fill the backend's weights and moments. Collective: all ranks verify their share, rank 0 decides for all.

    steps: length of training. corpus: fingerprints of the text and the tokenizer as they are now; a checkpoint that saw
    others is refused unless ``allowed`` (resume.allow) names ``data``. topology: what this launch runs on, to be
    compared with what saved.
    Raises CheckpointError on every rank when there are checkpoints and none verifies: starting anew would throw away
    a run.
    """
    torch.manual_seed(seed)
    rank, world = backend.mesh.rank, backend.mesh.world
    found, faults = newest_sound(
        directory.checkpoints,
        Ranks(rank, world, lambda flag: backend.host.sum([int(flag)])[0] > 0, backend.host.broadcast),
    )
    for fault in faults:
        print(f"rank {rank} passed over {fault}", flush=True)
    if found is None:
        if rank == 0:
            print(f"starting {directory.path.name} at step 0", flush=True)
        backend.load_initial(initialise)
        if not backend.extracting:
            on_rank_zero(backend.host, lambda: _clear_the_way(directory, found))
        return TrainState(corpus=dict(corpus))
    store = backend.store()
    on_every_rank(backend.host, partial(refuse_other_tensors, found, store))
    state = on_every_rank(backend.host, partial(load_checkpoint, found, store, backend.saving.group))
    if state.step > steps:
        rule = f"at least the {state.step} steps that the run has trained already"
        raise ConfigError(Problem("train.steps", steps, rule, "lengthen it, or use another run.name"))
    on_every_rank(backend.host, partial(refuse_other_text, state.corpus, corpus, allowed))
    # Nothing on the disk has changed until here: a refused resume leaves the run as it was.
    if not backend.extracting:
        on_rank_zero(backend.host, lambda: _clear_the_way(directory, found))
    state.corpus = dict(corpus)
    backend.loaded(state.updates)
    backend.set_rng_state(state.rng)
    if rank == 0:
        print(f"resuming {directory.path.name} from step {state.step}", flush=True)
        if changes := topology_changes(found, topology):
            print(f"  on other terms ({'; '.join(changes)}): the same curve, but not to the last bit", flush=True)
    return state


def _clear_the_way(directory: RunDirectory, found: Path | None) -> None:
    """Drop the records that will be written again, and set aside newer checkpoints that did not verify."""
    trim_metrics(directory.path, step_of(found) if found else 0)
    if found is not None:
        set_aside(directory.checkpoints, newer_than=found)


def refuse_other_text(before: Mapping[str, str], now: Mapping[str, str], allowed: Sequence[str]) -> None:
    """Raise ConfigError when the text or the tokenizer is not what the checkpoint was trained on."""
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed and "data" not in allowed:
        rule = f"the run was trained on other content of: {', '.join(changed)}; going on would alter its meaning"
        remedy = "restore the files, start a new run.name, or resume.allow=[data] to go on with the change"
        raise ConfigError(Problem("data.sources", sorted(now), rule, remedy))
