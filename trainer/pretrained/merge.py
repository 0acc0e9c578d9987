"""Adapters merged into their base, or taken out again: any box of any layout, in FP32, a few rows at a time.

A linear     W + s B A;      with DoRA each row of it, times its magnitude over its length
An embedding W + s (B A)^T;  with DoRA each column

Rows are made in blocks of the uncut weight, whatever is asked for: every layout gets bitwise the same values.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainer.checkpoint.strict_json import Unsound
from trainer.config.adapters import EMBEDDING, EMBEDDING_A, EMBEDDING_B, HEAD, MAGNITUDE, A, B, scale_of
from trainer.parallel.boxes import Box, whole_box
from trainer.pretrained.adapters import Adapters

Read = Callable[[Box], torch.Tensor]
BLOCK_ROWS = 256
"""That are made at a time."""


class Merged:
    """Values of any box of the model that adapters were merged into; FP32 where there was one.

    Where a tied pair comes apart, the head is the base's embedding, with the head's own adapter.
    """

    def __init__(self, base: Read, adapters: Read, held: Adapters, sign: int = 1) -> None:
        """base: of the model's own parameters, in the shapes of ``held.model``. sign: -1 takes them out again."""
        self._base, self._adapters, self._held = base, adapters, held
        self._scale = sign * scale_of(held.config)
        self._parts: dict[str, torch.Tensor] = {}
        self._of = ""
        self._last: tuple[str, int, torch.Tensor] | None = None

    def __call__(self, box: Box) -> torch.Tensor:
        """Of shape ``box.sizes``, only to be read."""
        path, _, kind = box.name.rpartition(".")
        if kind != "weight" or not self._adapted(path):
            return self._base(self._source(box))
        first, last = box.offsets[0], box.offsets[0] + box.sizes[0]
        columns = slice(box.offsets[1], box.offsets[1] + box.sizes[1])
        out = torch.empty(box.sizes, dtype=torch.float32)
        for start in range(first // BLOCK_ROWS * BLOCK_ROWS, last, BLOCK_ROWS):
            rows = self._rows(path, box, start)
            low, high = max(first, start), min(last, start + len(rows))
            out[low - first : high - first] = rows[low - start : high - start, columns]
        return out

    def _adapted(self, path: str) -> bool:
        return f"{path}.{A}" in self._held.shapes or f"{path}.{EMBEDDING_A}" in self._held.shapes

    def _source(self, box: Box) -> Box:
        """A head that was tied has its values in the embedding."""
        if box.name != f"{HEAD}.weight" or not self._held.model.tied:
            return box
        return Box(f"{EMBEDDING}.weight", box.shape, box.offsets, box.sizes, box.local, box.copy, box.writer)

    def _rows(self, path: str, box: Box, start: int) -> torch.Tensor:
        """FP32 [up to BLOCK_ROWS, columns] of the merged weight from row ``start`` on."""
        if self._last is not None and self._last[:2] == (path, start):
            return self._last[2]
        rows = self._sum(path, box, start)
        if self._held.config.dora:
            magnitudes = self._part(f"{path}.{MAGNITUDE}")
            if path == EMBEDDING:
                rows *= _over(magnitudes, self._columns(path, box))
            else:
                share = _over(magnitudes[start : start + len(rows)], rows.square().sum(dim=1).sqrt())
                rows *= share.unsqueeze(1)
        self._last = path, start, rows
        return rows

    def _sum(self, path: str, box: Box, start: int) -> torch.Tensor:
        """W + s B A there."""
        block = self._source(whole_box(box.name, box.shape)).rows(start, min(start + BLOCK_ROWS, box.shape[0]))
        assert block is not None
        if path == EMBEDDING:
            a, b = self._part(f"{path}.{EMBEDDING_A}"), self._part(f"{path}.{EMBEDDING_B}")
            added = a[:, start : start + block.sizes[0]].t() @ b.t()
        else:
            a, b = self._part(f"{path}.{A}"), self._part(f"{path}.{B}")
            added = b[start : start + block.sizes[0]] @ a
        return added.mul_(self._scale).add_(self._base(block))

    def _columns(self, path: str, box: Box) -> torch.Tensor:
        """FP32 [columns]: their lengths; the whole table is read once for them."""
        name = f"{path} lengths"
        if name not in self._parts:
            total = torch.zeros(box.shape[1], dtype=torch.float64)
            for start in range(0, box.shape[0], BLOCK_ROWS):
                total += self._sum(path, box, start).double().square().sum(dim=0)
            self._parts[name] = total.sqrt().float()
        return self._parts[name]

    def _part(self, name: str) -> torch.Tensor:
        """A parameter of an adapter, in FP32; those of one module at a time."""
        path = name.rpartition(".")[0]
        if path != self._of:
            self._parts, self._of = {}, path
        if name not in self._parts:
            self._parts[name] = self._adapters(whole_box(name, self._held.shapes[name])).float()
        return self._parts[name]


def _over(magnitudes: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Their quotient; 1 for a length of 0, whose values are 0 whatever they are multiplied by."""
    return torch.where(lengths > 0, magnitudes / lengths, torch.ones_like(lengths))


def unmerged(merged: Read, adapters: Read, held: Adapters) -> Read:
    """The base again, from merged weights and the adapters that were merged into them.

    Exact but for rounding: of each element at most 2^-24 (|W| + |s B A|) of the merge and as much of this, and half a
    unit of the last place of the dtype that the merged weight was stored in. held.model: the merged one, whose head is
    its own where an adapter has taken it apart. Raises Unsound for DoRA, whose merged rows have lost their length.
    """
    if held.config.dora:
        raise Unsound("DoRA has scaled each row to a length of its own, and the base's length is nowhere any more")
    return Merged(merged, adapters, held, sign=-1)
