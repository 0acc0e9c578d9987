"""The linears of a block as NxD's layers: those of one input as one layer, and the one that ends the block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer.backends.neuron.lowering.adapters import Adapters, Beside
from trainer.backends.neuron.lowering.layers import Layers
from trainer.backends.neuron.lowering.local import Local, fuse
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Rule


@dataclass(frozen=True)
class Linears:
    """Replaces a block's linears, in place. locals: by parameter, to which what was fused is added."""

    placements: Mapping[str, Placement]
    rules: Mapping[str, Rule]
    layers: Layers
    locals: dict[str, Local]
    adapters: Adapters

    def columns(self, module: Any, path: str, parts: Sequence[str], fused: str, method: str) -> None:
        """One layer for the parts, in the place of the method that calls them; where some of them are trained and
        others not, a layer for each.
        """
        kinds = ["weight", "bias"] if getattr(module, parts[0]).bias is not None else ["weight"]
        names = {kind: [f"{path}.{part}.{kind}" for part in parts] for kind in kinds}
        if any(len({self.rules[name].trainable for name in of_kind}) > 1 for of_kind in names.values()):
            for part in parts:
                self.column(module, path, part)
            return
        for kind in kinds:
            self.locals[f"{path}.{fused}.{kind}"] = fuse(names[kind], self.placements, self.rules)
        widths = [piece.rows for piece in self.locals[f"{path}.{fused}.weight"].pieces]
        layer = self.layers.column(getattr(module, parts[0]).in_features, sum(widths), bias=len(kinds) > 1)
        setattr(module, fused, layer)
        beside = [self._beside(module, path, part, layer, widths, index) for index, part in enumerate(parts)]
        setattr(module, method, _split(layer, widths, beside))

    def _beside(self, module: Any, path: str, part: str, layer: Any, widths: list[int], index: int) -> Beside | None:
        """The adapter of a part of a fused layer, under the part's name; without one, nothing stands there any more."""
        linear = getattr(module, part)
        delattr(module, part)
        if not hasattr(linear, "lora_A"):
            return None
        rows = slice(sum(widths[:index]), sum(widths[: index + 1]))
        setattr(module, part, holder := nn.Module())

        def base() -> tuple[torch.Tensor, torch.Tensor | None]:
            return layer.weight[rows], None if layer.bias is None else layer.bias[rows]

        return self.adapters.column(f"{path}.{part}", linear, holder, base)

    def column(self, module: Any, path: str, name: str) -> None:
        """One linear that begins the block."""
        linear = getattr(module, name)
        rows = self.placements[f"{path}.{name}.weight"].local_shape[0]
        layer: Any = self.layers.column(linear.in_features, rows, bias=linear.bias is not None)
        setattr(module, name, layer)
        if hasattr(linear, "lora_A"):
            beside = self.adapters.column(f"{path}.{name}", linear, layer, lambda: (layer.weight, layer.bias))
            layer.register_forward_hook(lambda _, args, out: beside(args[0], out))

    def row(self, module: Any, path: str, name: str) -> None:
        """The linear that ends the block."""
        linear, out = getattr(module, name), self.placements[f"{path}.{name}.weight"].local_shape
        setattr(module, name, self.layers.row(out[1], out[0], bias=linear.bias is not None))
        if hasattr(linear, "lora_A"):
            self.adapters.row(f"{path}.{name}", linear, getattr(module, name))


def _split(
    layer: nn.Module, widths: list[int], beside: Sequence[Beside | None]
) -> Callable[[torch.Tensor], tuple[torch.Tensor, ...]]:
    """One matrix product, one collective on the input's gradient, several outputs."""

    def project(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # By tensor_split: torch.split along another dim than 0 is wrong in some torch_xla (pytorch/xla#8640).
        ends = [sum(widths[: index + 1]) for index in range(len(widths) - 1)]
        parts = torch.tensor_split(layer(x), ends, dim=-1)
        return tuple(part if adapter is None else adapter(x, part) for part, adapter in zip(parts, beside, strict=True))

    return project
