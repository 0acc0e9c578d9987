"""A directory in Hugging Face's layout as a checkpoint of ours: once, on any machine, a few megabytes at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from trainer.checkpoint.commit import Place
from trainer.checkpoint.exchange import Exchange, WriteError
from trainer.checkpoint.hashed_file import BLOCK
from trainer.checkpoint.names import PARTS, name_of
from trainer.checkpoint.pieces import Piece, as_bytes
from trainer.checkpoint.state import TrainState
from trainer.checkpoint.write import write
from trainer.commands.ckpt.places import CommandError
from trainer.config.groups.data import DataConfig, TokenizerConfig
from trainer.config.homes import expanded
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.files import write_json
from trainer.parallel.boxes import whole_box
from trainer.pretrained.refused import refused
from trainer.pretrained.shapes import parameter_shapes
from trainer.pretrained.source import IMPORTED, Source, open_source
from trainer.pretrained.target import KEY, new_directory, place_of, refuse_target
from trainer.pretrained.tokenizer_files import GENERATION, MORE_TEMPLATES, SETTINGS, TEMPLATE, stated_ends
from trainer.pretrained.tokens import FILE, ids_of, refuse_other_vocabulary
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
    final = place_of(target)
    try:
        refuse_target(final)
        source = _source(given)
        yield f"{given}: {source.model.family}, {source.model.layers} layers, {sum(source.dtypes.values()):,} tensors"
        yield from (f"  {note}" for note in [*source.notes, *_of_tokenizer(source)])
        with new_directory(final) as directory:
            if source.directory is not None:
                _copy_beside(source.path, directory)
            size = _write(source, directory, final, dtype)
    except ConfigError as error:
        named = {KEY: "CHECKPOINTS", "model.init_from": "DIRECTORY"}
        raise CommandError([replace(one, key=named.get(one.key, one.key)) for one in error.problems]) from error
    rounded = [kind for kind in source.dtypes if dtype == "bfloat16" and kind not in ("bfloat16", "bf16")]
    count = len(parameter_shapes(source.model))
    yield f"{final / name_of(0)}: {count:,} tensors, {size:,} bytes, {dtype}{', rounded' if rounded else ''}"
    yield f"train from it with model.init_from={target}"


def _write(source: Source, directory: Path, final: Path, dtype: str) -> int:
    """The checkpoint; its bytes. final: what the directory will be called."""
    described = config_yaml(_config(source, final), final)
    place = Place(directory, 0, 0, described, {IMPORTED: source.given})
    found, read = _pieces(source, dtype), weights_of(source, source.model.vocab)
    try:
        return write(
            place, Exchange(None), lambda: {PARTS[0]: found}, lambda piece: _contents(read, piece), TrainState()
        )
    except WriteError as error:
        rule = f"takes a checkpoint ({error})"
        raise ConfigError(Problem(KEY, str(final), rule, "make room, or name another directory")) from error


def _of_tokenizer(source: Source) -> Iterator[str]:
    """What will be said of it when a run begins from this. Raises ConfigError for another model's."""
    if source.gguf is not None:
        return  # its note says so
    if source.tokenizer is None or source.tokenizer.path is None:
        yield "no tokenizer.json: a run from it names one (data.tokenizer.kind=file data.tokenizer.path=...)"
        return
    ids, rows = ids_of(source.path, Path(source.tokenizer.path)), source.model.vocab
    refuse_other_vocabulary(source.path, ids, max(ids, rows), rows)
    if ids > rows:
        yield f"its tokenizer has {ids:,} ids, the embedding {rows:,} rows: a run from it says model.vocab={ids}"


def _copy_beside(source: Path, directory: Path) -> None:
    """Where there is no generation_config.json, config.json says which ids end a text, and that does not go along."""
    for file in (found for pattern in BESIDE for found in source.glob(pattern) if found.is_file()):
        try:
            data = file.read_bytes()
        except OSError as error:
            raise refused(source, f"{file.name} can be read ({error.strerror})", "restore access to it") from None
        copy = directory / file.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(data)
    if (ends := stated_ends(source)) and not (directory / GENERATION).exists():
        write_json(directory / GENERATION, {"eos_token_id": ends})


def _source(given: str) -> Source:
    source = open_source(expanded(given))
    if source.stored is not None:
        rule = "is a directory in Hugging Face's layout, or a GGUF file; it is a checkpoint of ours"
        raise refused(given, rule, f"model.init_from={given} takes it as it is")
    return source


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
