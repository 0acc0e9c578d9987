"""The weights' files of a directory: their names, which holds what, and the index of several."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.checkpoint.tensorfile import element_bytes
from trainer.pretrained.format import FileTensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9
"""What the hub and other loaders are used to."""
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}

Entry = tuple[str, str, tuple[int, ...]]
"""Name, dtype and shape of what stands in a file."""
Entries = Callable[[FileTensor], Sequence[Entry]]
"""What a tensor of the format becomes in a file: itself in a dtype, or int8 values and their scales."""


def entries_in(dtype: str) -> Entries:
    """Each tensor is one, in this dtype."""
    return lambda tensor: [(tensor.name, dtype, tensor.shape)]


@dataclass(frozen=True)
class Shard:
    """A file and its tensors, in order."""

    file: str
    tensors: tuple[FileTensor, ...]


def parse_size(text: str) -> int | None:
    """Bytes of "5GB", "500MB" or "4GiB"; None for anything else."""
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)\s*([a-z]*)", text.strip(), re.IGNORECASE)
    unit = UNITS.get(match[2].upper()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    return size or None


def bytes_of(entries: Iterable[Entry]) -> int:
    """Of their values."""
    return sum(element_bytes(dtype) * math.prod(shape) for _, dtype, shape in entries)


def split(tensors: Iterable[FileTensor], entries: Entries, most: int) -> list[Shard]:
    """Files of at most ``most`` bytes, tensors in their order; a larger tensor has a file of its own."""
    groups: list[list[FileTensor]] = []
    size = 0
    for tensor in tensors:
        more = bytes_of(entries(tensor))
        if not groups or size + more > most:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += more
    if len(groups) == 1:
        return [Shard(SINGLE, tuple(groups[0]))]
    count = len(groups)
    return [Shard(f"model-{n:05d}-of-{count:05d}.safetensors", tuple(group)) for n, group in enumerate(groups, 1)]


def index_json(shards: Sequence[Shard], entries: Entries) -> dict[str, Any]:
    """What model.safetensors.index.json says."""
    elements = sum(math.prod(tensor.shape) for shard in shards for tensor in shard.tensors)
    where = {name: shard.file for shard in shards for tensor in shard.tensors for name, _, _ in entries(tensor)}
    size = sum(bytes_of(entries(tensor)) for shard in shards for tensor in shard.tensors)
    about = {"total_parameters": elements, "total_size": size}
    return {"metadata": about, "weight_map": dict(sorted(where.items()))}
