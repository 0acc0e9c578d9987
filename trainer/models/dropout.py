"""Dropout whose mask no layout changes: a hash of the token's key, the feature and the place in the model.

torch's own draws from a generator, whose next numbers depend on which ranks hold what, on the microbatch and on what
was recomputed; and on XLA the device has another generator. Here nothing is drawn and nothing is kept: the backward
pass, a recomputation and another layout work out the same mask (trainer.batch says what a key is made of).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainer.errors import ConfigError, Problem

BITS = 31
"""Of a hash that is compared: int32 has no more without its sign."""


class Dropout(nn.Module):
    """Zeroes an activation between blocks with probability p, and scales what is left by 1 / (1 - p) (Srivastava et
    al. 2014, Dropout: a simple way to prevent neural networks from overfitting).

    p: 0 to below 1. size: of the activation's last dim, which no layout may have cut: inside a block, tensor
    parallelism cuts it. place: by what the model's other places differ; ``locate`` gives it.
    """

    def __init__(self, p: float, size: int) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ConfigError(Problem("model.dropout", p, "0 <= dropout < 1", "0.1 is usual; 0 drops nothing"))
        self.p, self.size, self.place = p, size, ""

    def forward(self, x: torch.Tensor, keys: torch.Tensor | None) -> torch.Tensor:
        """x: [batch, seq, size]; keys: int64 [batch, seq], of trainer.batch.Batch; negative, or None: no draw."""
        if keys is None or not self.p:
            return x
        if not self.place:
            remedy = "call trainer.models.dropout.locate(model) once it is built"
            raise ConfigError(Problem("model.dropout", self.p, "each dropout knows its place in the model", remedy))
        if x.shape[-1] != self.size or x.shape[:-1] != keys.shape:
            found = f"{tuple(x.shape)} at {self.place}, keys {tuple(keys.shape)}"
            rule = f"dropout takes whole activations between blocks: [batch, seq, {self.size}]"
            raise ConfigError(Problem("model.dropout", found, rule, "put it behind a block's last matrix"))
        result: torch.Tensor = _Dropped.apply(x, keys, self.factor)
        return result

    def factor(self, keys: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """[batch, seq] keys -> [batch, seq, size]: 0 or 1 / (1 - p); 1 where there is no draw."""
        features = mixed(self.features(keys.device) ^ _number(self.place))
        draws = mixed(keys.to(torch.int32).unsqueeze(-1) ^ features) & (2**BITS - 1)
        kept = (draws >= min(round(self.p * 2**BITS), 2**BITS - 1)).to(dtype) / (1 - self.p)
        return torch.where(keys.unsqueeze(-1) < 0, torch.ones_like(kept), kept)

    def features(self, device: torch.device) -> torch.Tensor:
        """int32 [size]: numbers of the activation's features."""
        return torch.arange(self.size, dtype=torch.int32, device=device)

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"p={self.p}, size={self.size}"


class _Dropped(torch.autograd.Function):
    """Keeps the keys for the backward pass, and not a mask of the activation's size."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, keys: torch.Tensor, factor: Callable[[torch.Tensor, torch.dtype], torch.Tensor]
    ) -> torch.Tensor:
        ctx.save_for_backward(keys)
        ctx.factor = factor
        return x * factor(keys, x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (keys,) = ctx.saved_tensors
        return gradients[0] * ctx.factor(keys, gradients[0].dtype), None, None


def mixed(x: torch.Tensor) -> torch.Tensor:
    """int32 -> int32, one to one, each bit depending on all: Wellons' lowbias32 (2018, nullprogram.com, Prospecting
    for hash functions). Products wrap around on every device.
    """
    x = (x ^ _shifted(x, 16)) * 0x7FEB352D
    x = (x ^ _shifted(x, 15)) * (0x846CA68B - 2**32)
    return x ^ _shifted(x, 16)


def _shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 shifted to the right, zeros coming in.

    torch_xla 2.9 makes a division of ``>>``, which rounds negative numbers the other way, and 64 bits of a shift by a
    Python number (findings/xla_right_shift.sh).
    """
    count = torch.full((), bits, dtype=torch.int32, device=x.device)
    return torch.bitwise_right_shift(x, count) & (2 ** (32 - bits) - 1)


def _number(place: str) -> int:
    """An int32 that stands for a place."""
    return int.from_bytes(hashlib.blake2b(place.encode(), digest_size=4).digest(), "little", signed=True)


def locate(model: nn.Module) -> None:
    """Tell each dropout of a model its place: its canonical path, which a pipeline stage keeps."""
    for path, module in model.named_modules():
        if isinstance(module, Dropout):
            module.place = path


KEY = "model.family"
RULE = "draws come from trainer.models.dropout.Dropout, which gives every layout the same ones"
REMEDY = "Dropout(p, size), called with the batch's keys: docs/extending.md"


def drawn(family: str, what: str) -> Problem:
    """What is wrong with a model that draws from torch's generator. what: the evidence."""
    return Problem(KEY, family, f"{RULE}; {what}", REMEDY)


DRAWING = (nn.modules.dropout._DropoutNd, nn.RReLU)
"""Modules of torch that draw from its generator in training."""


def refuse_generators(model: nn.Module, family: str) -> None:
    """Raise ConfigError for a module that draws from torch's generator: other layouts would train another model."""
    for path, module in model.named_modules():
        if isinstance(module, DRAWING) and getattr(module, "p", True):
            raise ConfigError(drawn(family, f"{path} is torch's {type(module).__name__}"))
