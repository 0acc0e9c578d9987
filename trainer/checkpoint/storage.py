"""DCP storage in safetensors: one file per rank and one JSON index, since DCP's own writer stores a pickle.

``index.json``: {"tensors": {name: {"dtype", "shape", "chunks": [{"offsets", "sizes", "file", "key"}]}}}. A tensor
that one rank holds whole is stored under its canonical name, so any safetensors reader can use the file.
"""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from trainer.files import read_json, sha256, sync, write_json

INDEX = "index.json"


@dataclasses.dataclass(frozen=True)
class Stored:
    """A chunk's file and key, with the file's size and SHA-256."""

    file: str
    key: str
    file_size: int
    file_sha256: str


class SafetensorsWriter(StorageWriter):
    """Writes this rank's chunks to ``<directory>/rank-NNNNN.safetensors``, fsynced and hashed."""

    def __init__(self, directory: Path, rank: int) -> None:
        self.directory, self.rank = directory, rank
        self.files: dict[str, tuple[int, str]] = {}
        """After finish, on the coordinator: size and SHA-256 of every file of every rank, by name."""

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing is kept between saves."""
        self.files = {}

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: Saver has made the directory."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Unchanged."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Unchanged."""
        return plans

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write all chunks of this rank into one file."""
        done: Future[list[WriteResult]] = Future()
        done.set_result(self._write(plan, planner) if plan.items else [])
        return done

    def _write(self, plan: SavePlan, planner: SavePlanner) -> list[WriteResult]:
        path = self.directory / f"rank-{self.rank:05d}.safetensors"
        keys = [_key(item) for item in plan.items]
        tensors = {}
        for item, key in zip(plan.items, keys, strict=True):
            values = planner.resolve_data(item)
            assert isinstance(values, torch.Tensor)
            # safetensors refuses tensors that share memory, as two boxes of one fused tensor do.
            alone = values.is_contiguous() and values.untyped_storage().nbytes() == values.nbytes
            tensors[key] = values if alone else values.clone(memory_format=torch.contiguous_format)
        save_file(tensors, path, metadata={"format": "pt"})
        sync(path)
        size, digest = path.stat().st_size, sha256(path)
        return [
            WriteResult(item.index, tensors[key].nbytes, Stored(path.name, key, size, digest))
            for item, key in zip(plan.items, keys, strict=True)
        ]

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On the coordinator: write the index of all ranks' chunks."""
        stored = {result.index: result.storage_data for rank in results for result in rank}
        tensors: dict[str, Any] = {}
        for name, tensor in metadata.state_dict_metadata.items():
            assert isinstance(tensor, TensorStorageMetadata)
            chunks = []
            for chunk in tensor.chunks:
                place: Stored = stored[MetadataIndex(name, chunk.offsets)]
                self.files[place.file] = (place.file_size, place.file_sha256)
                chunks.append(
                    {
                        "offsets": list(chunk.offsets),
                        "sizes": list(chunk.sizes),
                        "file": place.file,
                        "key": place.key,
                    }
                )
            dtype = str(tensor.properties.dtype).removeprefix("torch.")
            tensors[name] = {"dtype": dtype, "shape": list(tensor.size), "chunks": chunks}
        index = self.directory / INDEX
        write_json(index, {"tensors": tensors})
        self.files[INDEX] = (index.stat().st_size, sha256(index))

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Paths only."""
        return True

    def storage_meta(self) -> StorageMeta | None:
        """Nothing beyond the index."""
        return None


def _key(item: WriteItem) -> str:
    """The canonical name for a whole tensor; with its offsets for a part of one."""
    assert item.tensor_data is not None and item.index.offset is not None
    if item.tensor_data.chunk.sizes == item.tensor_data.size:
        return item.index.fqn
    return f"{item.index.fqn}@{','.join(map(str, item.index.offset))}"


class SafetensorsReader(StorageReader):
    """Reads what SafetensorsWriter wrote, slice by slice, never a whole file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._places: dict[MetadataIndex, tuple[str, str]] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing is kept between loads."""

    def read_metadata(self) -> Metadata:
        """From the JSON index."""
        tensors: dict[str, Any] = {}
        for name, entry in read_json(self.directory / INDEX)["tensors"].items():
            chunks = []
            for chunk in entry["chunks"]:
                offsets = torch.Size(chunk["offsets"])
                chunks.append(ChunkStorageMetadata(offsets, torch.Size(chunk["sizes"])))
                self._places[MetadataIndex(name, offsets)] = (chunk["file"], chunk["key"])
            properties = TensorProperties(dtype=getattr(torch, entry["dtype"]))
            tensors[name] = TensorStorageMetadata(properties, torch.Size(entry["shape"]), chunks)
        return Metadata(state_dict_metadata=tensors)

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Read the index on ranks other than the coordinator, which has called read_metadata."""
        if not self._places:
            self.read_metadata()

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Unchanged."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Unchanged."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy each wanted slice straight into its destination."""
        by_file = defaultdict(list)
        for item in plan.items:
            file, key = self._places[item.storage_index]
            by_file[file].append((key, item))
        for file, wanted in by_file.items():
            with safe_open(self.directory / file, framework="pt") as reader:
                for key, item in wanted:
                    slices = tuple(slice(o, o + n) for o, n in zip(item.storage_offsets, item.lengths, strict=True))
                    target = planner.resolve_tensor(item)
                    target.copy_(reader.get_slice(key)[slices])
                    planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Paths only."""
        return True
