"""Where a run begins: at its newest checkpoint that verifies, or at initial weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainer.backends.base import Backend, Initialise
from trainer.checkpoint.base import without
from trainer.checkpoint.directory import Ranks, clear_leftovers, newest_sound, remove, set_aside, surplus
from trainer.checkpoint.load import load_checkpoint, refuse_other_tensors, topology_changes
from trainer.checkpoint.names import LATEST, name_of
from trainer.checkpoint.state import TrainState
from trainer.config.groups.checkpoint import CheckpointConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.files import write_atomically
from trainer.observe.wandb_sink import forget_wandb
from trainer.run.directory import RunDirectory
from trainer.training.base import Standing
from trainer.training.collective import on_every_rank


def resume_or_initialise(
    directory: RunDirectory,
    backend: Backend,
    initial: Callable[[], Initialise],
    seed: int,
    steps: int,
    corpus: Mapping[str, str],
    allowed: Sequence[str],
    topology: Mapping[str, Any],
    standing: Standing | None = None,
) -> TrainState:
    """Fill the backend's weights and moments. Collective: all ranks verify their share, rank 0 decides for all.

    Nothing on the disk changes: a refused resume leaves the run as it was. ``begin`` comes once nothing can refuse.

    initial: opens the initial weights, where there is no checkpoint. steps: length of training. corpus: fingerprints of
    the text and the tokenizer as they are now; a checkpoint that saw others is refused unless ``allowed``
    (resume.allow) names ``data``. topology: what this launch runs on, to be compared with what saved. standing: where
    weights are that checkpoints do not hold.
    The state keeps the checkpoint's fingerprints: ``follow_text`` makes them those of now.
    Raises CheckpointError on every rank when there are checkpoints and none verifies: starting anew would throw away
    a run.
    """
    torch.manual_seed(seed)
    rank, world = backend.mesh.rank, backend.mesh.world
    found, faults = newest_sound(
        directory.checkpoints,
        Ranks(rank, world, lambda flag: backend.saving.sum([int(flag)])[0] > 0, backend.saving.broadcast),
    )
    for fault in faults:
        print(f"rank {rank} passed over {fault}", flush=True)
    if found is None:
        if rank == 0:
            print(f"starting {directory.path.name} at step 0", flush=True)
        backend.load_initial(on_every_rank(backend.host, initial))
        return TrainState(corpus=dict(corpus), base=None if standing is None else standing.base)
    store = backend.store()
    if standing is not None:
        on_every_rank(backend.saving, partial(standing.resume, found, store))
        store = without(store, standing.names)
    on_every_rank(backend.saving, partial(refuse_other_tensors, found, store))
    state = on_every_rank(backend.saving, partial(load_checkpoint, found, store, backend.saving.group))
    if state.step > steps:
        rule = f"at least the {state.step} steps that the run has trained already"
        raise ConfigError(Problem("train.steps", steps, rule, "lengthen it, or use another run.name"))
    other_text = on_every_rank(backend.saving, partial(refuse_other_text, state.corpus, corpus, allowed))
    state.base = None if standing is None or not standing.names else standing.base
    backend.loaded(state.updates)
    backend.set_rng_state(state.rng)
    if rank == 0:
        print(f"resuming {directory.path.name} from step {state.step}", flush=True)
        _say_what_changed(other_text, topology_changes(found, topology))
    return state


def _say_what_changed(text: Sequence[str], changes: Sequence[str]) -> None:
    if text:
        print(f"  going on with other content of: {', '.join(text)}", flush=True)
    if changes:
        print(f"  on other terms ({'; '.join(changes)}): the same curve, but not to the last bit", flush=True)


def begin(directory: RunDirectory, config: Config, overrides: list[str], state: TrainState, steps: int) -> None:
    """Make the run's directory ready for training from ``state``. For rank 0 alone, once nothing more can refuse.

    Drops the records that will be written again, and puts the checkpoints in order. steps: length of training.
    """
    for change in directory.begin(config, overrides, state.step, evaluates_first=state.step >= steps):
        print(f"  going on with {change}", flush=True)
    if not state.step:
        forget_wandb(directory.path)
    else:
        _put_in_order(directory.checkpoints, config.checkpoint, state.step)


def _put_in_order(directory: Path, config: CheckpointConfig, step: int) -> None:
    """Set aside newer checkpoints that did not verify, and finish what the save of ``step`` may have been killed in.

    A save that comes would do the latter; after the last step none comes.
    """
    try:
        set_aside(directory, newer_than=directory / name_of(step))
        clear_leftovers(directory)
        write_atomically(directory / LATEST, name_of(step) + "\n")
        for old in surplus(directory, step, config.keep, config.keep_every):
            remove(old)
    except OSError as error:
        rule = f"can be written ({error.strerror}: {error.filename}); its checkpoints are untouched"
        remedy = "restore access, then give the same command again"
        raise ConfigError(Problem("run.root", str(directory), rule, remedy)) from error


def refuse_other_text(before: Mapping[str, str], now: Mapping[str, str], allowed: Sequence[str]) -> list[str]:
    """The names of text and tokenizer that are not what the checkpoint was trained on.

    Raises ConfigError where there are some and ``allowed`` does not name data.
    """
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed and "data" not in allowed:
        rule = f"the run was trained on other content of: {', '.join(changed)}; going on would alter its meaning"
        every = ",".join([*allowed, "data"])
        remedy = f"restore the files, start a new run.name, or 'resume.allow=[{every}]' to go on with the change"
        raise ConfigError(Problem("data.sources", sorted(now), rule, remedy))
    return changed
