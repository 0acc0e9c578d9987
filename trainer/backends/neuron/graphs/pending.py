"""The graph that the next sync would run, or that computes some tensors: lowered, not executed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch_xla
import torch_xla.core.xla_model as xm

from trainer.backends.neuron.graphs import hlo, stablehlo
from trainer.backends.neuron.graphs.hlo import Graph

_DUMP = "Original HLO dump:\n"


def graph_of(tensors: Sequence[torch.Tensor]) -> Graph:
    """What computes these XLA tensors. Collectives are in the order of the lowered module."""
    return hlo.parse(text_of(tensors))


def text_of(tensors: Sequence[torch.Tensor]) -> str:
    """HLO text of what computes these XLA tensors."""
    text: str = torch_xla._XLAC._get_xla_tensors_hlo(list(tensors))
    return text


def pending_graph() -> Graph:
    """What the next sync would run: all live tensors of the device; those already computed are its parameters.

    Costs a lowering (host time proportional to the graph), so not for every step of a large model.
    """
    try:
        text: str = xm.get_stablehlo()
        return stablehlo.parse(text) if text else Graph()
    except RuntimeError as error:
        # all-to-all in tuple form has no StableHLO in torch_xla 2.9; the error carries the module's HLO instead.
        _, found, text = str(error).partition(_DUMP)
        if not found:
            raise
        return hlo.parse(text)
