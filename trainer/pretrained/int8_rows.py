"""INT8 as it is written: per output channel, symmetric, a few rows in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from trainer.checkpoint.pieces import as_bytes
from trainer.checkpoint.tensorfile import header
from trainer.errors import ConfigError, Problem
from trainer.pretrained.composed import Contents
from trainer.pretrained.format import FileTensor
from trainer.pretrained.int8 import is_quantised, scale_name, scale_shape
from trainer.pretrained.rows import Rows
from trainer.pretrained.shards import Entries, Entry, Shard

LARGEST = 127
"""-128 is not used: the range is symmetric."""


@dataclass(frozen=True)
class Rounded:
    """What rounding did to a tensor.

    worst: largest error of a value, relative to the largest absolute value of its channel: 1 / 254 at most, and a
    little more where that is near FP32's smallest. rms: root mean square of the errors, relative to that of the values.
    """

    name: str
    worst: float
    rms: float


def scales_of(largest: torch.Tensor) -> torch.Tensor:
    """FP32 scales of channels with these largest absolute values, of the same shape: a 127th, and 1 for 0.

    A channel so small that its 127th is 0 in FP32 counts as one of zeros.
    """
    scales = largest.float() / LARGEST
    return torch.where(scales > 0, scales, torch.ones_like(scales))


def rounded(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """int8 of FP32 values [rows, columns]; half goes to even. scales: [rows, 1] or [1, columns]."""
    return (values / scales).round_().clamp_(-LARGEST, LARGEST).to(torch.int8)


def int8_entries(which: str) -> Entries:
    """What each tensor becomes in a file. which: ALL or LINEAR of trainer/pretrained/int8.py."""

    def entries(tensor: FileTensor) -> list[Entry]:
        if not is_quantised(tensor, which):
            return [(tensor.name, "float32", tensor.shape)]
        return [
            (tensor.name, "int8", tensor.shape),
            (scale_name(tensor.name), "float32", scale_shape(tensor)),
        ]

    return entries


def int8_data(shard: Shard, which: str, opened: Contents, errors: list[Rounded]) -> Iterator[memoryview | bytes]:
    """The bytes of a file: FP32 tensors, scales, int8 tensors, so that each is aligned.

    A matrix is read twice, for its scales and for its values, and what it lost is added to ``errors``. Raises
    ConfigError for a value that is not finite.
    """
    entries = int8_entries(which)
    small = [tensor for tensor in shard.tensors if not is_quantised(tensor, which)]
    large = [tensor for tensor in shard.tensors if is_quantised(tensor, which)]
    plain = [entry for tensor in small for entry in entries(tensor)]
    values, scales = ([entries(tensor)[at] for tensor in large] for at in (0, 1))
    yield header([*plain, *scales, *values])
    rows = Rows(opened, torch.float32)
    for tensor in small:
        for _, block in rows.blocks(tensor):
            _refuse_other_than_finite(tensor, block)
            yield as_bytes(block)
    found = [scales_of(_largest(tensor, rows.blocks(tensor))) for tensor in large]
    yield from map(as_bytes, found)
    for tensor, scale in zip(large, found, strict=True):
        measure = _Errors(tensor.name)
        for first, block in rows.blocks(tensor):
            mine = scale if tensor.transposed else scale[first : first + len(block)]
            made = rounded(block, mine)
            measure.add(block, made, mine)
            yield as_bytes(made)
        errors.append(measure.result())


def _largest(tensor: FileTensor, blocks: Iterable[tuple[int, torch.Tensor]]) -> torch.Tensor:
    """Absolute value in each output channel, of the scales' shape."""
    largest = torch.zeros(scale_shape(tensor))
    for first, block in blocks:
        _refuse_other_than_finite(tensor, block)
        if tensor.transposed:
            torch.maximum(largest, block.abs().amax(dim=0, keepdim=True), out=largest)
        else:
            largest[first : first + len(block)] = block.abs().amax(dim=1, keepdim=True)
    return largest


def _refuse_other_than_finite(tensor: FileTensor, block: torch.Tensor) -> None:
    finite = torch.isfinite(block)
    if not bool(finite.all()):
        rule = f"of finite values; {tensor.name} holds {block[~finite][0].item():g}"
        raise ConfigError(Problem("--int8", "int8", rule, "export a checkpoint from before the run diverged"))


class _Errors:
    """Of one tensor, added up in FP64."""

    def __init__(self, name: str) -> None:
        self._name, self._worst, self._wrong, self._all = name, 0.0, 0.0, 0.0

    def add(self, block: torch.Tensor, made: torch.Tensor, scales: torch.Tensor) -> None:
        wrong = made.float().mul_(scales).sub_(block)
        self._worst = max(self._worst, (wrong.abs() / (LARGEST * scales)).amax().item())
        self._wrong += _squares(wrong)
        self._all += _squares(block)

    def result(self) -> Rounded:
        return Rounded(self._name, self._worst, math.sqrt(self._wrong / self._all) if self._all else 0.0)


def _squares(values: torch.Tensor) -> float:
    """Row by row in FP64, so that no copy of a block is made."""
    return torch.linalg.vector_norm(values, dim=-1, dtype=torch.float64).square().sum().item()
