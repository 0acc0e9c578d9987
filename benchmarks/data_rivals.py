"""Other libraries' loaders of packed samples, over the rows of benchmarks/data.py. Each yields batches without end."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from trainer.data.packing import PackedSamples

FIELDS = ("tokens", "labels", "positions", "document_ids")
"""Labels say what is no target. Megatron's GPTDataset has a mask for that, and no ids of documents."""
VOCAB = 50_000
Batches = Iterator[Any]


def rows(packed: PackedSamples) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Every whole sample with its fields, made beforehand: the others only have to read them."""
    for index in range(len(packed) - 1):
        yield dict(zip(FIELDS, packed[index], strict=False))


def again(loader: Iterable[Any]) -> Batches:
    """Epoch after epoch."""
    while True:
        yield from loader


def huggingface(folder: Path, packed: PackedSamples, batch: int, seed: int, workers: int) -> Batches:
    """Hugging Face datasets as numpy, drawn by a torch DataLoader."""
    import datasets

    place = folder / "huggingface"
    if not place.exists():
        table: dict[str, list[Any]] = {name: [] for name in FIELDS}
        for row in rows(packed):
            for name, values in row.items():
                table[name].append(values)
        datasets.Dataset.from_dict(table).save_to_disk(place)
    opened = datasets.load_from_disk(place).with_format("numpy")
    loader: DataLoader[Any] = DataLoader(
        opened,  # type: ignore[arg-type]
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(seed),
        drop_last=True,
    )
    return again(loader)


def litdata(folder: Path, packed: PackedSamples, batch: int, seed: int) -> Batches:
    """Lightning's litdata."""
    import litdata as library

    place = folder / "litdata"
    if not place.exists():
        writer = library.streaming.Cache(str(place), chunk_bytes="64MB")
        for index, row in enumerate(rows(packed)):
            writer[index] = {name: torch.from_numpy(values) for name, values in row.items()}
        writer.done()
        writer.merge()
    opened = library.StreamingDataset(str(place), shuffle=True, drop_last=True, seed=seed)
    return again(library.StreamingDataLoader(opened, batch_size=batch, num_workers=0))


def mosaicml(folder: Path, packed: PackedSamples, batch: int, seed: int) -> Batches:
    """MosaicML's streaming."""
    import transformers.feature_extraction_utils  # noqa: F401  # it looks for the real torchvision

    if "torchvision" not in sys.modules:  # for its data sets of pictures only, and no build goes with every torch
        sys.modules.update({name: types.ModuleType(name) for name in ("torchvision", "torchvision.transforms")})
        for name in ("torchvision.transforms.functional", "torchvision.datasets"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["torchvision.transforms.functional"].to_tensor = None  # type: ignore[attr-defined]
        sys.modules["torchvision.datasets"].VisionDataset = object  # type: ignore[attr-defined]
    import streaming

    place = folder / "mosaicml"
    if not place.exists():
        columns = dict.fromkeys(FIELDS, f"ndarray:int64:{packed.seq_len}")
        with streaming.MDSWriter(out=str(place), columns=columns) as writer:
            for row in rows(packed):
                writer.write(row)
    opened = streaming.StreamingDataset(local=str(place), shuffle=True, batch_size=batch, shuffle_seed=seed)
    return again(DataLoader(opened, batch_size=batch, drop_last=True))


def megatron(folder: Path, packed: PackedSamples, batch: int, seed: int, documents: int, eod: int) -> Batches:
    """megatron-core's GPTDataset, which cuts the same .bin/.idx: positions and loss mask restart with documents."""
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.indexed_dataset import IndexedDataset
    from megatron.core.datasets.utils import Split

    config = GPTDatasetConfig(
        random_seed=seed,
        sequence_length=packed.seq_len,
        split="1,0,0",
        path_to_cache=str(folder / "megatron"),
        reset_position_ids=True,
        reset_attention_mask=False,
        eod_mask_loss=True,
        create_attention_mask=False,
        tokenizer=types.SimpleNamespace(eod=eod, pad=eod, vocab_size=VOCAB, unique_identifiers={"name": "bench"}),
    )
    prefix = str(folder / "tokens")
    indexed = IndexedDataset(prefix)
    opened = GPTDataset(indexed, prefix, np.arange(documents, dtype=np.int32), None, Split.train, config)
    return again(DataLoader(opened, batch_size=batch, drop_last=True))


def rivals(
    folder: Path, packed: PackedSamples, batch: int, seed: int, documents: int, eod: int
) -> dict[str, Callable[[], Batches]]:
    """What makes each one's batches, by name."""
    given = (folder, packed, batch, seed)
    return {
        "datasets, 0 workers": partial(huggingface, *given, 0),
        "datasets, 2 workers": partial(huggingface, *given, 2),
        "litdata": partial(litdata, *given),
        "mosaicml-streaming": partial(mosaicml, *given),
        "megatron-core": partial(megatron, *given, documents, eod),
    }
