"""Parameters that are not trained: no gradient for them, and gradients where NxD and recomputation need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from trainer.backends.neuron.lowering.model import LoweredLM
from trainer.parallel.plan import Rule


def freeze(model: LoweredLM, rules: Mapping[str, Rule], pipeline: bool) -> None:
    """In place, before a pipeline cuts the model. rules: by the names that parameters have in it.

    With a frozen embedding nothing wants a gradient before the first layer that trains. From there on activations do:
    NxD's recomputation is reentrant and passes none on to a layer's weights unless its input wants one, and NxD's
    pipeline sends none back to a stage whose output wants none (so with a pipeline they want one from the start).
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(rules[name].trainable)
    embedding: Any = model.model.embed_tokens
    if any(parameter.requires_grad for parameter in embedding.parameters()):
        return
    if pipeline:
        embedding.register_forward_hook(lambda _, __, output: output.requires_grad_())
        return
    layers: Any = model.model.layers
    for layer in layers.values():
        if any(parameter.requires_grad for parameter in layer.parameters()):
            layer.register_forward_pre_hook(_wanting)
            return
        layer.recompute = False  # it keeps nothing


def _wanting(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (args[0].requires_grad_(), *args[1:])
