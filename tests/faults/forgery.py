"""A small checkpoint, tools to change it and sign it again, and a resume that meets it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from trainer.backends.common.random_state import rng_state, set_rng_state
from trainer.checkpoint.directory import newest_sound
from trainer.checkpoint.load import load_checkpoint, refuse_other_tensors, topology_changes
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.parallel.boxes import Box, Placed, Store, whole_box

SHAPES = {"embed": (6, 4), "norm": (4,)}
SHARD, INDEX = "model/rank-00000.safetensors", "model/index.json"


def store(fill: bool = False) -> Store:
    """Two weights and their moments. The embedding lies in two boxes, so that the index has a grid with a cut."""

    def placed(name: str, shape: tuple[int, ...], seed: int) -> Placed:
        values = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) if fill else torch.zeros(shape)
        if len(shape) == 1:
            return Placed(values, (whole_box(name, shape),), shape)
        cuts = (slice(0, 2), slice(2, shape[0]))
        boxes = [Box(name, shape, (c.start, 0), (c.stop - c.start, shape[1]), (c, slice(0, shape[1]))) for c in cuts]
        return Placed(values, tuple(boxes), shape)

    model = {name: placed(name, shape, seed) for seed, (name, shape) in enumerate(SHAPES.items())}
    moments = {f"exp_avg.{name}": placed(f"exp_avg.{name}", shape, 10) for name, shape in SHAPES.items()}
    return Store(model, moments)


def save(directory: Path, *steps: int) -> list[Path]:
    """Sound checkpoints."""
    saver = Saver(directory, 0, "seed: 1\n", {"world": 1})
    made = []
    for step in steps:
        state = TrainState(step=step, tokens=100 * step, updates=step, cursor={"drawn": 8, "per_source": {"a": 8}})
        state.rng, state.corpus = rng_state(), {"tokenizer": "t"}
        made.append(saver.save(store(fill=True), state))
    return made


def resume(directory: Path, into: Store | None = None) -> tuple[Path, TrainState]:
    """What trainer.training.resume does with a directory of checkpoints, in one process."""
    into = into or store()
    found, _ = newest_sound(directory)
    assert found is not None
    refuse_other_tensors(found, into)
    state = load_checkpoint(found, into)
    set_rng_state(state.rng)
    topology_changes(found, {"world": 1})
    return found, state


def sign(checkpoint: Path) -> None:
    """Put the sizes and hashes of the files as they are now into the manifest."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, entry in manifest["files"].items():
        file = checkpoint / name
        if file.is_file():
            entry |= {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    path.write_text(json.dumps(manifest))


def edit(checkpoint: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a JSON file: the function changes the value, or returns another."""
    path = checkpoint / name
    value = json.loads(path.read_text())
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed))


def edit_header(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the JSON header of a safetensors file, and its length."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the tensors of a safetensors file, by the safetensors library."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
