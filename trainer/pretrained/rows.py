"""The bytes of a directory's tensors, read from a checkpoint of any layout a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

import torch

from trainer.checkpoint.pieces import as_bytes
from trainer.errors import ConfigError, Problem
from trainer.pretrained.composed import KEY, Contents, Described
from trainer.pretrained.format import FileTensor, Part

BLOCK, TRANSPOSED = 8 << 20, 128 << 20
"""Bytes made at a time. Rows of a transposed tensor are columns of the parameter: a block passes over all its rows."""
LARGEST_HALF = 65504
"""Of float16."""


class Rows:
    """Makes them, in one buffer."""

    def __init__(self, opened: Contents, dtype: torch.dtype) -> None:
        self._opened, self._dtype = opened, dtype
        self._memory = torch.empty(0, dtype=dtype)

    def of(self, tensor: FileTensor) -> Iterator[memoryview]:
        """The bytes of a tensor, in order. Raises ConfigError for values that float16 does not reach."""
        for first, block in self.blocks(tensor):
            if self._dtype is torch.float16 and not bool(torch.isfinite(block).all()):
                raise self._too_large(tensor, first, block)
            yield as_bytes(block)

    def blocks(self, tensor: FileTensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Rows of a tensor as they lie on the disk, and the first one's number; gone when the next ones are made."""
        count, width = tensor.shape[0], math.prod(tensor.shape[1:])
        most = TRANSPOSED if tensor.transposed else BLOCK
        rows = min(count, max(1, most // (width * self._dtype.itemsize)))
        for first in range(0, count, rows):
            last = min(first + rows, count)
            block = self._buffer((last - first) * width).view(last - first, *tensor.shape[1:])
            for part in tensor.parts:
                self._read(tensor, part, first, block)
            yield first, block

    def _buffer(self, elements: int) -> torch.Tensor:
        if len(self._memory) < elements:
            self._memory = torch.empty(elements, dtype=self._dtype)
        return self._memory[:elements]

    def _read(self, tensor: FileTensor, part: Part, first: int, block: torch.Tensor) -> None:
        """Fill a block, which begins with the tensor's row ``first``, with what it has of a part."""
        if tensor.transposed:
            self._opened.read(part.name, (part.start, first), block[:, part.at : part.at + part.rows].t())
            return
        low, high = max(first, part.at), min(first + len(block), part.at + part.rows)
        if low < high:
            offsets = (part.start + low - part.at, *(0 for _ in tensor.shape[1:]))
            self._opened.read(part.name, offsets, block[low - first : high - first])

    def _too_large(self, tensor: FileTensor, first: int, block: torch.Tensor) -> ConfigError:
        exact = torch.empty(block.shape, dtype=torch.float32)
        for part in tensor.parts:
            self._read(tensor, part, first, exact)
        value = exact[~torch.isfinite(block)][0].item()
        rule = f"within float16, which reaches {LARGEST_HALF}; {tensor.name} holds {value:g}"
        return ConfigError(Problem("--dtype", "float16", rule, "export in bfloat16 or float32"))


def refuse_other_tensors(tensors: Iterable[FileTensor], index: Mapping[str, Described], checkpoint: str) -> None:
    """Raise ConfigError where a checkpoint does not hold what these tensors are made of, or holds more."""
    problems = list(_others(list(tensors), index))
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        remedy = "its config.yaml is not of the model that it holds: restore it, or export another checkpoint"
        raise ConfigError(Problem(KEY, checkpoint, f"holds what its config.yaml says ({shown})", remedy))


def _others(tensors: list[FileTensor], index: Mapping[str, Described]) -> Iterator[str]:
    taken: dict[str, int] = {}
    for tensor in tensors:
        for part in tensor.parts:
            taken[part.name] = taken.get(part.name, 0) + part.rows
            wanted = (tensor.shape[0],) if tensor.transposed else tensor.shape[1:]
            if (stored := index.get(part.name)) is None:
                yield f"it lacks {part.name}"
            elif stored.shape[1:] != wanted or part.start + part.rows > stored.shape[0]:
                yield f"{part.name} has shape {list(stored.shape)}, and {tensor.name} is {list(tensor.shape)}"
    for name, stored in index.items():
        if name not in taken:
            yield f"it holds {name} besides"
        elif stored.shape and taken[name] != stored.shape[0]:
            yield f"{name} has {stored.shape[0]:,} rows, of which {taken[name]:,} are wanted"
