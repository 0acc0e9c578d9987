"""Layouts exchange their state: each trains and saves, then each loads what every one of them has saved.

Below the ranks' directory: LAYOUT has its own checkpoint, LAYOUT/SOURCE that of SOURCE saved again from this layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tests.distributed.matrix_worker import bring_up, load, one_step
from trainer.backends.base import Backend
from trainer.backends.native.backend import NativeBackend
from trainer.checkpoint.load import load_checkpoint
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.data.corpus import prepare_corpus
from trainer.data.cursor import Cursor
from trainer.parallel.boxes import Placed

SAVED, MORE = 6, 3
CHECKPOINT = f"step-{SAVED:08d}"
"""Steps before the checkpoint, and after it."""


def boxes(tensors: Mapping[str, Placed], prefix: str = "") -> dict[str, torch.Tensor]:
    """Every box that this rank holds, copies included, by name and offsets."""
    return {
        f"{prefix}{name}@{','.join(map(str, box.offsets))}": box.of(placed.tensor).clone().contiguous()
        for name, placed in tensors.items()
        for box in placed.boxes
    }


def padding_is_zero(backend: Backend) -> bool:
    """What no box covers, in masters and moments; several parameters may share a tensor."""
    store, rest = backend.store(), {}
    for placed in [*store.model.values(), *store.optimizer.values()]:
        left = rest.setdefault(id(placed.tensor), placed.tensor.clone())
        for box in placed.boxes:
            box.of(left).zero_()
    return not any(tensor.any() for tensor in rest.values())


def save(layout: str) -> list[dict[str, Any]]:
    """Train, save, train on; the curve beyond the checkpoint."""
    backend, config, derived = bring_up(layout, "fp32")
    batches = load(backend, config, derived, prepare_corpus(config.data, config.model.vocab))
    lines = []
    for step in range(SAVED + MORE):
        batch = next(batches)
        lines.append(one_step(backend, config, derived, batch, step))
        if step + 1 == SAVED:
            state = TrainState(step=SAVED, updates=SAVED, cursor=batch.cursor, rng=backend.rng_state())
            save_from(backend, Path(layout), state)
    assert padding_is_zero(backend)
    backend.close()
    return lines[SAVED:]


def exchange(layout: str, sources: list[str]) -> dict[str, Any]:
    """Load each checkpoint, save it again, train on: the curves by source. And how many poisoned steps were tried."""
    backend, config, derived = bring_up(layout, "fp32")
    corpus, curves = prepare_corpus(config.data, config.model.vocab), {}
    for source in sources:
        state = load_checkpoint(Path(source) / CHECKPOINT, backend.store())
        backend.loaded(state.updates)
        assert padding_is_zero(backend)
        save_from(backend, Path(layout) / source, state)
        assert state.cursor is not None
        batches = load(backend, config, derived, corpus, Cursor.from_json(state.cursor))
        curves[source] = [one_step(backend, config, derived, next(batches), state.step + more) for more in range(MORE)]
        assert padding_is_zero(backend)
    tried = poison(backend)
    backend.close()
    return {"curves": curves, "poisoned": tried}


def save_from(backend: NativeBackend, directory: Path, state: TrainState) -> None:
    Saver(directory, 1, "", {}).save(backend.store(), state)


def poison(backend: NativeBackend) -> int:
    """A gradient that is not finite, on one rank, in each kind of parameter: nobody's weights or moments move.

    Of what the last rank holds, the norm counts another rank's copy. Of padding nothing can come. The number of steps.
    """
    tried = 0
    for value in (float("nan"), float("inf")):
        for rank in {max(0, backend.mesh.world - 2), backend.mesh.world - 1}:
            for kind in ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj", "input_layernorm"):
                backend._optimizer.gradients.normal_()
                before = {**boxes(backend.store().model), **boxes(backend.store().optimizer, "moment ")}
                mine = backend.mesh.rank == rank and put(backend, f"{kind}.weight", value)
                finite = backend.fetch(backend.clip_and_apply(1e-3))[2]
                if not backend.host.sum([int(mine)])[0]:
                    continue
                after = {**boxes(backend.store().model), **boxes(backend.store().optimizer, "moment ")}
                assert not finite, (kind, rank, value)
                assert all(torch.equal(before[key], after[key]) for key in before), (kind, rank, value)
                tried += 1
    assert tried >= 6
    backend._optimizer.gradients.normal_()
    assert backend.fetch(backend.clip_and_apply(1e-3))[2], "the next step is sound again"
    return tried


def put(backend: NativeBackend, ending: str, value: float) -> bool:
    """Put a value into one gradient, outside padding; False where this rank has none of that name."""
    for name, placed in backend.store().model.items():
        if name.endswith(ending) and placed.boxes:
            gradient = placed.boxes[0].of(backend._optimizer.gradient(name))
            gradient[(0,) * gradient.dim()] = value
            return True
    return False
