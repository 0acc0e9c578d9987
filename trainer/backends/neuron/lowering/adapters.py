"""Adapters beside neuronx-distributed's layers.

A layer gathers and reduces inside itself, so that an adapter cannot share what it sends; it sends its own low-rank
activations [batch, seq, rank] instead, a small part of that. A column's enter the block behind A, a row's leave it
before B: both sides then see what stands between blocks, and the gradient of what is not cut is a part of a sum only
where sequence parallelism cuts the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from neuronx_distributed.parallel_layers.mappings import (
    copy_to_tensor_model_parallel_region,
    gather_from_sequence_parallel_region,
    reduce_from_tensor_model_parallel_region,
    reduce_scatter_to_sequence_parallel_region,
)
from neuronx_distributed.parallel_layers.utils import set_tensor_model_parallel_attributes
from torch import nn

from trainer.backends.common.vocabulary import rows_here
from trainer.backends.neuron.lowering.layers import SEQUENCE_DIM
from trainer.errors import ConfigError, Problem
from trainer.lookup import lookup
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Plan, Rule

Base = Callable[[], tuple[torch.Tensor, torch.Tensor | None]]
"""The base's weight and bias, as the layer holds them."""
LINEAR, EMBEDDING = ("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")
MAGNITUDES = "lora_magnitude_vector"


def lowered_rules(plan: Plan, rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """The plan's; but here what is not cut is whole unless sequence parallelism cuts the sequence."""
    return {
        name: replace(rule, summed="sequence") if plan.adapts(name) and rule.summed == "always" else rule
        for name, rule in rules.items()
    }


@dataclass(frozen=True)
class Adapters:
    """Puts adapters beside layers. placements, rules: of the whole model, by canonical name."""

    placements: Mapping[str, Placement]
    rules: Mapping[str, Rule]
    tp: int
    sequence: bool

    def hold(self, path: str, adapted: Any, holder: Any) -> None:
        """Give a module, which stands at the path now, the adapter's parameters."""
        if adapted.lora_magnitude_vector is not None and getattr(adapted, "dropout", None) and adapted.dropout.p:
            rule, remedy = "0 with adapter.dora on this backend", "adapter.dropout=0, or adapter.dora=false"
            raise ConfigError(Problem("adapter.dropout", adapted.dropout.p, rule, remedy))
        kinds = EMBEDDING if hasattr(adapted, EMBEDDING[0]) else LINEAR
        holder.scale, holder.keys, holder.between_blocks = adapted.scale, None, True
        for kind in (*kinds, MAGNITUDES):
            if getattr(adapted, kind) is None:
                holder.register_parameter(kind, None)
                continue
            name = f"{path}.{kind}"
            parameter = nn.Parameter(torch.empty(self.placements[name].local_shape, device="meta"))
            holder.register_parameter(kind, parameter)
            if (dim := self.rules[name].dim) is not None:
                set_tensor_model_parallel_attributes(parameter, True, dim, 1, num_partitions=self.tp)

    def column(self, path: str, adapted: Any, holder: Any, base: Base) -> Beside:
        """Of a linear that begins a block."""
        self.hold(path, adapted, holder)
        holder.input_dropout = adapted.dropout
        return Beside(holder, _added_to_linear, self._enter, base, _same)

    def head(self, path: str, adapted: Any, layer: Any) -> None:
        """Of the head, which is called with the keys: FX, which a pipeline traces with, sees no set attribute."""
        beside = self.column(path, adapted, layer, lambda: (layer.weight, layer.bias))
        forward = layer.forward

        def with_adapter(x: torch.Tensor, keys: torch.Tensor | None) -> torch.Tensor:
            layer.keys = keys
            return beside(x, forward(x))

        layer.forward = with_adapter

    def row(self, path: str, adapted: Any, layer: Any) -> None:
        """Of a linear that ends a block: what it gives gets the adapter's part."""
        self.hold(path, adapted, layer)
        layer.input_dropout, layer.between_blocks = adapted.dropout, False
        placement = self.placements[f"{path}.lora_A"]
        if not placement.whole:
            layer.input_dropout.cut(placement.runs(dim=1))
        beside = Beside(layer, _added_to_linear, self._leave, lambda: (layer.weight, layer.bias), self._total)
        layer.register_forward_hook(lambda _, args, out: beside(args[0], out))

    def embedding(self, path: str, adapted: Any, layer: Any) -> None:
        """Of the embedding of tokens."""
        self.hold(path, adapted, layer)
        beside = Beside(layer, _added_to_rows, self._leave, lambda: (layer.weight.t(), None), self._total)
        layer.register_forward_hook(lambda _, args, out: beside(args[0], out))

    def _enter(self, low: torch.Tensor) -> torch.Tensor:
        """What is the same on all ranks, or their parts of the sequence -> all of it, for each its own features."""
        if self.tp == 1:
            return low
        if self.sequence:
            return gather_from_sequence_parallel_region(low, SEQUENCE_DIM)
        return copy_to_tensor_model_parallel_region(low)

    def _leave(self, low: torch.Tensor) -> torch.Tensor:
        """Parts of a sum -> the sum, or this rank's part of the sequence of it."""
        if self.tp == 1:
            return low
        if self.sequence:
            return reduce_scatter_to_sequence_parallel_region(low, SEQUENCE_DIM)
        return reduce_from_tensor_model_parallel_region(low)

    def _total(self, squares: torch.Tensor) -> torch.Tensor:
        return squares if self.tp == 1 else reduce_from_tensor_model_parallel_region(squares)


def _same(squares: torch.Tensor) -> torch.Tensor:
    return squares


@dataclass(frozen=True)
class Beside:
    """What an adapter makes of a layer's output (trainer.models.adapters.lora says what it computes).

    move: low-rank activations over the ranks. total: of a rank's sums of squares.
    """

    holder: Any
    low: Callable[[Any, torch.Tensor, Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]
    move: Callable[[torch.Tensor], torch.Tensor]
    base: Base
    total: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """x: the layer's input; out: [..., features], bias included."""
        added = self.low(self.holder, x, self.move)
        if self.holder.lora_magnitude_vector is None:
            return out + added
        share, bias = self.share(), self.base()[1]
        return share * (out + added) if bias is None else share * (out - bias + added) + bias

    def share(self) -> torch.Tensor:
        """Magnitudes over lengths, [features here]."""
        holder = self.holder
        inward, outward = (
            (holder.lora_A, holder.lora_B)
            if hasattr(holder, "lora_A")
            else (holder.lora_embedding_A, holder.lora_embedding_B)
        )
        with torch.no_grad():
            merged = (self.base()[0] + holder.scale * (outward @ inward)).float()
            lengths = self.total(merged.square().sum(dim=1)).sqrt()
            safe = torch.where(lengths > 0, lengths, torch.ones_like(lengths))
        magnitudes: torch.Tensor = holder.lora_magnitude_vector
        return magnitudes / safe.to(magnitudes.dtype)


def _added_to_linear(holder: Any, x: torch.Tensor, move: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    dropped = holder.input_dropout(x, holder.keys)
    return F.linear(move(F.linear(dropped, holder.lora_A)), holder.lora_B) * holder.scale


def _added_to_rows(holder: Any, tokens: torch.Tensor, move: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    table = holder.lora_embedding_A.t()
    whole = holder.tensor_model_parallel_size == 1
    rows = lookup(tokens, table) if whole else rows_here(tokens, table, holder.start_index)
    return F.linear(move(rows), holder.lora_embedding_B) * holder.scale
