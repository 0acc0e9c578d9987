"""Boxes for torch.distributed.checkpoint (DCP): its planners learn which parts of a tensor this rank holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from trainer.parallel.boxes import Box, Placed


class BoxedTensor:
    """Answers DCP's ``__create_write_items__`` and ``__create_chunk_list__`` from a tensor's boxes."""

    def __init__(self, placed: Placed) -> None:
        self.tensor, self.boxes, self.shape = placed.tensor, placed.boxes, placed.shape

    def size(self) -> torch.Size:
        """Shape of the global tensor."""
        return torch.Size(self.shape)

    def values(self, index: MetadataIndex) -> torch.Tensor:
        """The local view of the box that begins at the index's offset."""
        for box in self.boxes:
            if index.offset is None or tuple(index.offset) == box.offsets:
                return box.of(self.tensor)
        raise KeyError(index)

    def __create_write_items__(self, name: str, _: object) -> list[WriteItem]:
        properties = TensorProperties(dtype=self.tensor.dtype)
        return [
            WriteItem(
                index=MetadataIndex(name, torch.Size(box.offsets)),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(_chunk(box), properties, torch.Size(box.shape)),
            )
            for box in self.boxes
            if box.writer
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [_chunk(box) for box in self.boxes]


def _chunk(box: Box) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size(box.offsets), torch.Size(box.sizes))


def boxed(tensors: Mapping[str, Placed]) -> dict[str, Any]:
    """A state dict for DCP."""
    return {name: BoxedTensor(placed) for name, placed in tensors.items()}


class BoxSavePlanner(DefaultSavePlanner):
    """DCP's planner, which takes the values to write from boxes."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def lookup_object(self, index: MetadataIndex) -> torch.Tensor:
        """The values to write."""
        return cast(BoxedTensor, self.state_dict[index.fqn]).values(index)


class BoxLoadPlanner(DefaultLoadPlanner):
    """DCP's planner, which reads into boxes: it slices stored chunks of any layout to fit this rank's boxes."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Keep the state dict as it is: the default walks it and replaces values that are not tensors."""
        self.state_dict, self.metadata, self.is_coordinator = state_dict, metadata, is_coordinator

    def lookup_tensor(self, index: MetadataIndex) -> torch.Tensor:
        """The memory to read into."""
        return cast(BoxedTensor, self.state_dict[index.fqn]).values(index)
