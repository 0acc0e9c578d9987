"""What a rank does in the curve tests: train a layout by the neuron backend, and say what the contract asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from recipes.parts import make_backend
from tests.distributed import matrix_worker
from tests.distributed.layouts import configuration, parse
from tests.distributed.matrix_worker import FIRST, INITIAL, within
from tests.neuron.faults import FAULTS
from trainer.backends.neuron.backend import NeuronBackend
from trainer.config.groups.backend import BackendConfig
from trainer.config.schema import Config
from trainer.models.family import family_of
from trainer.models.initialise import Initialiser
from trainer.parallel.boxes import Box
from trainer.rules.derived import Derived, derive
from trainer.run.world import World


def configured(layout: str, precision: str) -> Config:
    """The matrix's configuration of a layout, on the neuron backend."""
    config = configuration(parse(layout), precision)
    return replace(config, backend=BackendConfig(name="neuron"))


def bring_up(config: Config, precision: str) -> tuple[NeuronBackend, Derived]:
    """The backend as the recipes make it, with initial weights."""
    world = World.from_environment()
    derived = derive(config, world)
    backend = make_backend(config, derived, world)
    assert isinstance(backend, NeuronBackend)
    backend.setup()
    family = family_of(config.model)
    backend.shard(family.build, family.plan, precision)
    backend.load_initial(Initialiser(family.plan, config.seed))
    return backend, derived


def train(layout: str, precision: str, steps: int, reference: str, fault: str) -> dict[str, Any]:
    """This rank's findings, as tests.distributed.contract compares them with the reference's."""
    torch.set_num_threads(1)
    if fault:
        FAULTS[fault]()
    config = configured(layout, precision)
    backend, derived = bring_up(config, precision)
    try:
        found = compare_initial(backend, Path(reference) / INITIAL)
        return {**found, **matrix_worker.train(backend, config, derived, steps, Path(reference) / FIRST)}
    finally:
        backend.close()


def compare_initial(backend: NeuronBackend, reference: Path) -> dict[str, int]:
    """Over all ranks: elements of any box that differ from the reference's, and elements that some rank is to write."""
    expected = load_file(reference)
    different = written = 0
    for placed in backend.store().model.values():
        different += sum(_unlike(box, placed.tensor, expected[f"master {box.name}"]) for box in placed.boxes)
        written += sum(box.of(placed.tensor).numel() for box in placed.boxes if box.writer)
    for box, weight in weights(backend):
        different += _unlike(box, weight, expected[f"weight {box.name}"])
    different, written = backend.host_sum([different, written])
    total = sum(tensor.numel() for name, tensor in expected.items() if name.startswith("master "))
    return {"different": different, "written": written, "parameters": total}


def weights(backend: NeuronBackend) -> Iterator[tuple[Box, torch.Tensor]]:
    """What the model computes with, before ZeRO-1 cuts it."""
    for name, parameter in backend._parameters.items():
        local = backend._host._locals[name]
        for _, _, boxes in local.boxes(0, local.shape[0]):
            for box in boxes:
                yield box, parameter.detach()


def _unlike(box: Box, tensor: torch.Tensor, expected: torch.Tensor) -> int:
    return int((box.of(tensor.cpu()) != within(box, expected)).sum())
