"""Checkpoints with adapters, as a run beside a base would have saved them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.schema import Config
from trainer.parallel.boxes import Placed, Store, whole_box
from trainer.pretrained.adapters import EMBEDDING, shapes_beside, weight_shapes
from trainer.pretrained.base import hashed, named
from trainer.pretrained.source import open_source
from trainer.run.directory import config_yaml


def draw(base: Path, config: AdapterConfig, paths: list[str], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random adapters at these modules of a directory's model, by canonical name; magnitudes near 1."""
    generator, weights = torch.Generator().manual_seed(seed), weight_shapes(open_source(str(base)).model)
    found = {}
    for path in paths:
        for name, shape in shapes_beside(path, weights[f"{path}.weight"], config).items():
            values = torch.randn(shape, generator=generator) * 0.1
            found[name] = values + 1 if len(shape) == 1 else values
    return found


def save(run: Path, base: Path, adapter: AdapterConfig, tensors: Mapping[str, torch.Tensor], step: int = 3) -> Path:
    """A checkpoint of a run that holds these tensors and stands on the base; its path."""
    source = open_source(str(base))
    model = replace(source.model, init_from=str(base))
    config = Config(task="pretrain", model=model, adapter=adapter)
    saver = Saver(run / "checkpoints", 0, config_yaml(config, run), {"world": 1})
    placed = {
        name: Placed(one, (whole_box(name, tuple(one.shape)),), tuple(one.shape)) for name, one in tensors.items()
    }
    state = TrainState(step=step, tokens=10 * step, updates=step, base=named(source, hashed(source)))
    saver.save(Store(placed, {}), state)
    return saver.place.final(step)


def linears(base: Path) -> list[str]:
    """Paths of the linears of a directory's layers."""
    shapes = weight_shapes(open_source(str(base)).model)
    names = [name.removesuffix(".weight") for name, shape in shapes.items() if len(shape) == 2]
    return [path for path in names if path.startswith("model.layers.") and path != EMBEDDING]
