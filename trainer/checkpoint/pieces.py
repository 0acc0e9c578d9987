"""What this rank writes of a part of a checkpoint: its boxes in the order of its file, and their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from trainer.checkpoint.hashed_file import BLOCK
from trainer.checkpoint.index import key_of
from trainer.checkpoint.tensorfile import element_bytes, header
from trainer.parallel.boxes import Box, Placed


@dataclass(frozen=True)
class Piece:
    """A box that this rank writes. values: of shape ``box.sizes``, sharing memory with the live tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    box: Box
    values: torch.Tensor

    @property
    def bytes(self) -> int:
        """Of its values."""
        return self.values.nbytes

    @property
    def key(self) -> str:
        """In the file."""
        return key_of(self.name, self.shape, self.box.offsets, self.box.sizes)


def dtype_name(dtype: torch.dtype) -> str:
    """As an index calls it: torch's name without ``torch.``."""
    return str(dtype).removeprefix("torch.")


def pieces(tensors: Mapping[str, Placed]) -> list[Piece]:
    """The boxes whose writer this rank is. Larger elements first, as the file format wants it for alignment."""
    found = [
        Piece(name, dtype_name(placed.tensor.dtype), placed.shape, box, box.of(placed.tensor.detach()))
        for name, placed in tensors.items()
        for box in placed.boxes
        if box.writer and all(box.sizes)
    ]
    return sorted(found, key=lambda piece: (-element_bytes(piece.dtype), piece.key))


def file_header(found: Sequence[Piece]) -> bytes:
    """What stands before the pieces' values in their file."""
    return header((piece.key, piece.dtype, piece.box.sizes) for piece in found)


def live_bytes(piece: Piece) -> Iterator[memoryview]:
    """The values' bytes from where they live. What is not contiguous there, or not on the host, is copied by blocks."""
    if piece.values.is_contiguous() and piece.values.device.type == "cpu":
        yield as_bytes(piece.values)
        return
    values = piece.values if piece.box.sizes else piece.values.reshape(1)
    rows = max(1, BLOCK * len(values) // piece.bytes)
    for part in values.split(rows):
        yield as_bytes(part.cpu().contiguous())


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the host, without a copy."""
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy().data)
