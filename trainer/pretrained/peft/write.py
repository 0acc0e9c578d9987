"""The adapters of a checkpoint as a directory that peft loads, in FP32; nothing of the base is in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.checkpoint.hashed_file import write_synced
from trainer.checkpoint.pieces import as_bytes
from trainer.checkpoint.tensorfile import header
from trainer.config.groups.model import ModelConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.files import write_json
from trainer.parallel.boxes import whole_box
from trainer.pretrained.adapters import EMBEDDING, A, B, is_adapters, path_of, weight_shapes
from trainer.pretrained.composed import KEY
from trainer.pretrained.merge import Read
from trainer.pretrained.peft.config import NAME, PREFIX, WEIGHTS, written
from trainer.pretrained.peft.names import Modules, compressed
from trainer.pretrained.peft.source import AdapterSource, open_adapter
from trainer.pretrained.peft.weights import adapter_weights
from trainer.pretrained.target import new_directory, place_of, refuse_target
from trainer.pretrained.tokenizer_files import TokenizerFiles

MERGED = "export merged weights: scripts/export_hf.py RUN DIRECTORY"


@dataclass(frozen=True)
class Written:
    """What was written. base: where peft looks for the model. bytes: of the tensors' file."""

    modules: int
    rank: int
    parameters: int
    bytes: int
    base: str


def write_adapter(
    checkpoint: Path, config: Config, target: Path, tokenizer: TokenizerFiles | None = None, moved: str | None = None
) -> Written:
    """Write a new directory, which is there whole or not at all. config: what the checkpoint was trained with. moved:
    where its base is now; None: where the run had it.

    Raises ConfigError for what peft cannot say.
    """
    refuse_target(place_of(target))
    if config.adapter.kind == "none":
        rule = "has adapters; this one was trained without"
        raise ConfigError(Problem(KEY, str(checkpoint), rule, "leave --adapter out"))
    source, modules = open_adapter(str(checkpoint), config.model), Modules(config.model)
    names = _names(checkpoint, source, config.model, modules)
    adapted = {path_of(name) for name in source.shapes if is_adapters(name)}
    targets = compressed(
        [modules.theirs[path] for path in adapted], [modules.theirs.get(p, p) for p in modules.matrices]
    )
    saved = sorted({modules.theirs[path_of(name)] for name in source.shapes if not is_adapters(name)})
    base = moved or str(source.named.path if source.named is not None else config.model.init_from)
    values = written(config.adapter, targets, saved, bool(adapted & modules.transposed), base)
    with new_directory(target) as directory:
        write_json(directory / NAME, values)
        if tokenizer is not None:
            tokenizer.write(directory)
        size = write_synced(directory / WEIGHTS, _data(names, source.shapes, adapter_weights(source)))
    parameters = sum(torch.Size(shape).numel() for shape in source.shapes.values())
    return Written(len(adapted), config.adapter.rank, parameters, size, base)


def _names(checkpoint: Path, source: AdapterSource, model: ModelConfig, modules: Modules) -> dict[str, str]:
    """Canonical names by peft's key, in the order of the file."""
    found: dict[str, str] = {}
    for name in source.shapes:
        path, _, kind = name.rpartition(".")
        if path not in modules.theirs:
            rule = (
                f"has adapters that peft can have; {path} is a part of {modules.fused.get(path)}, which has one there"
            )
            raise ConfigError(Problem(KEY, str(checkpoint), rule, MERGED))
        ending = f"{kind}.weight" if kind in (A, B) else kind
        found[f"{PREFIX}{modules.theirs[path]}.{ending}"] = name
    own = [name for name in source.shapes if not is_adapters(name)]
    if why := next(_unsaid(own, source.shapes, model), None):
        raise ConfigError(Problem(KEY, str(checkpoint), f"has whole modules in adapter.also_train; {why}", MERGED))
    return dict(sorted(found.items()))


def _unsaid(own: Collection[str], shapes: Mapping[str, object], model: ModelConfig) -> Iterator[str]:
    """Why peft's modules_to_save would say something else of a parameter that was trained beside the adapters."""
    adapted = {path_of(name) for name in shapes if is_adapters(name)}
    known = weight_shapes(model)
    for path in dict.fromkeys(map(path_of, own)):
        if path in adapted:
            yield f"{path} has an adapter as well"
        if path == EMBEDDING and model.tied:
            yield f"{path} is tied to the head, which peft would leave as it was"
        missing = [name for name in known if path_of(name) == path and name not in own]
        if missing:
            yield f"{missing[0]} was not trained, and peft saves {path} whole"


def _data(names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], read: Read) -> Iterator[memoryview | bytes]:
    """The file, a tensor at a time."""
    yield header((key, "float32", shapes[name]) for key, name in names.items())
    for name in names.values():
        values = read(whole_box(name, shapes[name]))
        yield as_bytes(values.float().contiguous())
