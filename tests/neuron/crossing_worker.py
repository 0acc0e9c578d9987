"""One leg of a journey of checkpoints between backends and layouts: load, save again, train on, save."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.distributed import matrix_worker
from tests.distributed.exchange_worker import lead, padding_is_zero
from tests.distributed.layouts import parse
from tests.distributed.matrix_worker import load, one_step
from trainer.backends.base import Backend
from trainer.checkpoint.load import load_checkpoint
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.config.schema import Config
from trainer.data.corpus import prepare_corpus
from trainer.data.order import Cursor
from trainer.rules.derived import Derived

AGAIN, CURVE = "again", "curve.json"
"""What a leg leaves in its directory: the checkpoint that it has loaded, saved from its own layout; and its losses."""


@dataclass(frozen=True)
class Leg:
    """Train a layout from a checkpoint (or from the beginning) to ``saves[-1]`` steps, saving after each of ``saves``.

    out: its directory. source: a checkpoint's.
    """

    backend: str
    layout: str
    precision: str
    out: str
    saves: list[int]
    source: str = ""


def go(**arguments: Any) -> None:
    """A rank's part of a leg."""
    torch.set_num_threads(1)
    leg = Leg(**arguments)
    Path(leg.out).mkdir(parents=True, exist_ok=True)
    backend, config, derived = _bring_up(leg)
    out, state, cursor = Path(leg.out), TrainState(step=0, updates=0, cursor=None, rng=""), None
    save = partial(_save, backend, leg)
    if leg.source:
        state = load_checkpoint(Path(leg.source), backend.store(), backend.host_group)
        backend.loaded(state.updates)
        assert padding_is_zero(backend)
        save(out / AGAIN, state)
        cursor = Cursor.from_json(state.cursor or {})
    batches = load(backend, config, derived, prepare_corpus(config.data, config.model.vocab), cursor)
    lines = []
    for step in range(state.step, leg.saves[-1]):
        batch = next(batches)
        lines.append(one_step(backend, config, derived, batch, step))
        if step + 1 in leg.saves:
            save(out, TrainState(step=step + 1, updates=step + 1, cursor=batch.cursor, rng=backend.rng_state()))
    assert padding_is_zero(backend)
    if backend.mesh.rank == 0:
        (out / CURVE).write_text(json.dumps(lines))
    backend.close()


def _save(backend: Backend, leg: Leg, directory: Path, state: TrainState) -> None:
    leading = partial(lead, backend)
    Saver(directory, backend.mesh.rank, leading, 0, "", {}, backend.host_group).save(backend.store(), state)


def _bring_up(leg: Leg) -> tuple[Backend, Config, Derived]:
    if leg.backend == "native":
        return matrix_worker.bring_up(parse(leg.layout), leg.precision)
    from tests.neuron import curves  # imports NxD, which is not there for a native leg

    config = curves.configured(leg.layout, leg.precision)
    backend, derived = curves.bring_up(config, leg.precision)
    return backend, config, derived
