"""One leg of a journey of checkpoints between backends and layouts: load, save again, train on, save."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.distributed.exchange_worker import padding_is_zero
from tests.distributed.matrix_worker import bring_up, load, one_step
from trainer.backends.base import Backend
from trainer.checkpoint.load import load_checkpoint
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.data.corpus import prepare_corpus
from trainer.data.cursor import Cursor

AGAIN = "again"
"""Where a leg leaves, in its directory, the checkpoint that it has loaded, saved from its own layout."""


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


def go(**arguments: Any) -> list[dict[str, Any]]:
    """A rank's part of a leg; its losses."""
    leg = Leg(**arguments)
    Path(leg.out).mkdir(parents=True, exist_ok=True)
    backend, config, derived = bring_up(leg.layout, leg.precision, leg.backend)
    out, state, cursor = Path(leg.out), TrainState(step=0, updates=0, cursor=None, rng=""), None
    save = partial(_save, backend, leg)
    if leg.source:
        state = load_checkpoint(Path(leg.source), backend.store(), backend.saving.group)
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
    backend.close()
    return lines


def _save(backend: Backend, leg: Leg, directory: Path, state: TrainState) -> None:
    Saver(directory, 0, "", {}, backend.saving.group).save(backend.store(), state)
