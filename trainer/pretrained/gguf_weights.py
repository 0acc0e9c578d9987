"""Values of any box of a GGUF file: the rows and blocks that it needs are dequantised, and nothing else."""

from __future__ import annotations

import mmap

import numpy as np
import torch

from trainer.checkpoint.mapped import map_file
from trainer.checkpoint.strict_json import Unsound
from trainer.parallel.boxes import Box
from trainer.pretrained.gguf import GgufFile, GgufTensor
from trainer.pretrained.gguf_header import Placed, read_header

ELEMENTS = 1 << 22
"""Dequantised at a time: the package takes several times as much memory meanwhile."""


class FromGguf:
    """Reads boxes as FP32. Raises Unsound where the file is not what it was."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self._mapped: mmap.mmap | None = None

    def __call__(self, box: Box) -> torch.Tensor:
        """FP32 of shape ``box.sizes``."""
        tensor = self._file.tensors.get(box.name)
        if tensor is None or tensor.placed.shape != box.shape:
            raise Unsound(f"it has no {box.name} of shape {list(box.shape)}")
        out = np.empty(box.sizes, dtype=np.float32)
        if out.ndim == 1:
            self._fill(out.reshape(1, -1), tensor.placed, np.zeros(1, dtype=np.int64), box.offsets[0])
        else:
            self._fill(out, tensor.placed, _rows(tensor, box.offsets[0], box.sizes[0]), box.offsets[1])
        return torch.from_numpy(out)

    def _fill(self, out: np.ndarray, placed: Placed, rows: np.ndarray, first: int) -> None:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

        kind = GGMLQuantizationType[placed.kind]
        block, width = GGML_QUANT_SIZES[kind]
        low, high = first // block, -(-(first + out.shape[1]) // block)  # blocks lie along rows
        inside = slice(first - low * block, first - low * block + out.shape[1])
        data = self._bytes(placed)[:, low * width : high * width]
        step = max(1, ELEMENTS // ((high - low) * block))
        for start in range(0, len(rows), step):
            mine = np.ascontiguousarray(data[rows[start : start + step]])
            out[start : start + step] = dequantize(mine, kind)[:, inside]

    def _bytes(self, placed: Placed) -> np.ndarray:
        """Of a tensor: [rows, bytes of a row]; one row of a vector."""
        if self._mapped is None:
            now = set(read_header(self._file.path).tensors.values())
            if any(one.placed not in now for one in self._file.tensors.values()):
                raise Unsound("its header is another now")
            self._mapped = map_file(self._file.path)
        rows = placed.shape[0] if len(placed.shape) == 2 else 1
        data = np.frombuffer(self._mapped, dtype=np.uint8, count=placed.bytes, offset=placed.start)
        return data.reshape(rows, -1)


def _rows(tensor: GgufTensor, first: int, count: int) -> np.ndarray:
    """Where the wanted rows lie in the file: a head's row of half s and pair d is its row 2 d + s there."""
    rows = np.arange(first, first + count)
    if tensor.heads is None:
        return rows
    length = tensor.placed.shape[0] // tensor.heads
    head, inner = np.divmod(rows, length)
    half, pair = np.divmod(inner, length // 2)
    return head * length + 2 * pair + half
