"""What a rank does in the curve tests: train a layout by the neuron backend, and say what the contract asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.distributed.layouts import parse
from tests.distributed.matrix_worker import Weight, bring_up, findings
from tests.neuron.faults import FAULTS
from trainer.backends.neuron.backend import NeuronBackend
from trainer.trainium import blocks


def train(layout: str, precision: str, steps: int, reference: str, fault: str) -> dict[str, Any]:
    """This rank's findings, as tests.distributed.contract compares them with the reference's."""
    if fault:
        FAULTS[fault]()
    cut_attention(layout)
    backend, config, derived = bring_up(layout, precision, "neuron")
    return findings(backend, weights(backend), config, derived, steps, Path(reference))


def cut_attention(layout: str) -> None:
    """Make attention's blocks as small as the layout says."""
    blocks.BLOCK = parse(layout).block or blocks.BLOCK


def weights(backend: NeuronBackend) -> Iterator[Weight]:
    """What the model computes with, before ZeRO-1 cuts it."""
    for name, parameter in backend._parameters.items():
        local = backend._host._locals[name]
        for _, _, boxes in local.boxes(0, local.shape[0]):
            for box in boxes:
                yield box, parameter.detach()
