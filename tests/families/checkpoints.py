"""Checkpoints of small models, as a run with a layout of its own would have saved them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.config.groups.model import ModelConfig
from trainer.config.schema import Config
from trainer.models.decoder import CausalLM
from trainer.parallel.boxes import Box, Placed, Store
from trainer.run.directory import config_yaml

TOPOLOGY = {"world": 4, "tp": 2, "cp": 1, "dp": 2, "pp": 1, "device": "cpu"}


def save_run(
    run: Path,
    model: ModelConfig,
    weights: Mapping[str, torch.Tensor],
    cut: tuple[int, int] = (1, 1),
    step: int = 3,
    config: Config | None = None,
) -> Path:
    """A checkpoint of a run; its path. cut: chunks of each matrix along its dims, of uneven sizes."""
    described = config_yaml(replace(config or Config(), model=model), run)
    saver = Saver(run / "checkpoints", 0, described, TOPOLOGY)
    placed = {
        name: Placed(values, tuple(_boxes(name, values, cut)), tuple(values.shape)) for name, values in weights.items()
    }
    saver.save(Store(placed, {}), TrainState(step=step, tokens=10 * step, updates=step))
    return saver.place.final(step)


def parameters(ours: CausalLM) -> dict[str, torch.Tensor]:
    """Canonical names and values; a tied head counts once."""
    return {name: dict(ours.named_parameters())[own].detach() for own, name in ours.canonical_names().items()}


def _boxes(name: str, values: torch.Tensor, cut: tuple[int, int]) -> Iterator[Box]:
    spans = [list(_spans(size, pieces)) for size, pieces in zip(values.shape, cut, strict=False)]
    if values.dim() == 1:
        spans = [[(0, len(values))]]
    for row in spans[0]:
        for column in spans[1] if values.dim() == 2 else [None]:
            span = [row] if column is None else [row, column]
            offsets, sizes = tuple(first for first, _ in span), tuple(last - first for first, last in span)
            local = tuple(slice(first, last) for first, last in span)
            yield Box(name, tuple(values.shape), offsets, sizes, local)


def _spans(size: int, pieces: int) -> Iterator[tuple[int, int]]:
    """Uneven: the first is the longest."""
    pieces = min(pieces, size)
    rest = (size - 1) // pieces
    starts = [0] + [size - rest * (pieces - 1 - n) for n in range(pieces - 1)]
    for start, end in zip(starts, [*starts[1:], size], strict=True):
        if end > start:
            yield start, end
