"""A directory in Hugging Face's layout as a checkpoint of ours: once, on any machine, a few megabytes at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from trainer.checkpoint.commit import Place
from trainer.checkpoint.exchange import Exchange, WriteError
from trainer.checkpoint.hashed_file import BLOCK
from trainer.checkpoint.names import PARTS
from trainer.checkpoint.pieces import Piece, as_bytes
from trainer.checkpoint.state import TrainState
from trainer.checkpoint.write import write
from trainer.commands.ckpt.places import CommandError
from trainer.config.groups.data import DataConfig, TokenizerConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.files import write_json
from trainer.parallel.boxes import whole_box
from trainer.pretrained.shapes import parameter_shapes
from trainer.pretrained.source import Source, open_source
from trainer.pretrained.tokenizer_files import GENERATION, MORE_TEMPLATES, SETTINGS, TEMPLATE, stated_ends
from trainer.pretrained.tokens import FILE
from trainer.pretrained.weights import Read, weights_of
from trainer.run.directory import config_yaml

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BESIDE = (
    *(FILE, SETTINGS, "special_tokens_map.json", GENERATION),
    *(TEMPLATE, f"{MORE_TEMPLATES}/*.jinja"),
)
"""Globs of files that are copied, for training and for an export."""


def import_directory(given: str, target: str, dtype: str = "float32") -> Iterator[str]:
    """Write TARGET/step-00000000, and yield lines about it. Raises CommandError, and then leaves nothing."""
    source, place = _source(given), _place(target, given)
    yield f"{given}: {source.model.family}, {source.model.layers} layers, {sum(source.dtypes.values()):,} tensors"
    yield from (f"  {note}" for note in source.notes)
    config = _config(source, place.directory)
    place = replace(place, config_yaml=config_yaml(config, place.directory))
    found, ends = _pieces(source, dtype), stated_ends(source.path)
    read = weights_of(source, source.model.vocab)
    try:
        size = write(
            place, Exchange(None), lambda: {PARTS[0]: found}, lambda piece: _contents(read, piece), TrainState()
        )
        _copy_beside(source.path, place.directory, ends)
    except WriteError as error:
        rule = f"takes a checkpoint ({error})"
        raise CommandError(Problem("CHECKPOINTS", target, rule, "make room, or name another directory")) from error
    rounded = [kind for kind in source.dtypes if dtype == "bfloat16" and kind != "bfloat16"]
    yield f"{place.final(0)}: {len(found):,} tensors, {size:,} bytes, {dtype}{', rounded' if rounded else ''}"
    yield f"train from it with model.init_from={target}"


def _copy_beside(source: Path, directory: Path, ends: list[int]) -> None:
    """ends: config.json says them where there is no generation_config.json, and config.json does not go along."""
    for file in (found for pattern in BESIDE for found in source.glob(pattern) if found.is_file()):
        copy = directory / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)
    if ends and not (directory / GENERATION).exists():
        write_json(directory / GENERATION, {"eos_token_id": ends})


def _source(given: str) -> Source:
    try:
        source = open_source(given)
    except ConfigError as error:
        raise CommandError([replace(problem, key="DIRECTORY") for problem in error.problems]) from error
    if source.directory is None:
        rule = "is a directory in Hugging Face's layout; it is a checkpoint of ours"
        raise CommandError(Problem("DIRECTORY", given, rule, f"model.init_from={given} takes it as it is"))
    return source


def _place(target: str, given: str) -> Place:
    place = Place(Path(target).expanduser(), 0, 0, "", {"imported": str(given)})
    if place.directory.exists() and any(place.directory.iterdir()):
        rule = "is a directory to be made, or an empty one; there is something in it"
        raise CommandError(Problem("CHECKPOINTS", target, rule, "name another"))
    return place


def _config(source: Source, directory: Path) -> Config:
    """Of which an import reads the model and the tokenizer."""
    found = source.tokenizer
    tokenizer = TokenizerConfig() if found is None else replace(found, path=str(directory / FILE))
    return Config(task="pretrain", model=source.model, data=DataConfig(tokenizer=tokenizer))


def _pieces(source: Source, dtype: str) -> list[Piece]:
    """Whole tensors, in the order of a file: their values are read when it is their turn."""
    return [
        Piece(name, dtype, shape, whole_box(name, shape), torch.empty(shape, dtype=DTYPES[dtype], device="meta"))
        for name, shape in sorted(parameter_shapes(source.model).items())
    ]


def _contents(read: Read, piece: Piece) -> Iterable[memoryview]:
    rows = max(1, BLOCK * piece.shape[0] // piece.bytes)
    for start in range(0, piece.shape[0], rows):
        box = piece.box.rows(start, start + rows)
        assert box is not None
        yield as_bytes(torch.empty(box.sizes, dtype=DTYPES[piece.dtype]).copy_(read(box)))
