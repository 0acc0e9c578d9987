"""A checkpoint of any layout as a directory that transformers reads: streaming, on any machine, in one process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from trainer.checkpoint.hashed_file import write_synced
from trainer.checkpoint.manifest import read_manifest
from trainer.checkpoint.names import CONFIG, PARTS
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.tensorfile import element_bytes, header
from trainer.checkpoint.verify import fault
from trainer.config.compose import to_config
from trainer.config.schema import Config
from trainer.errors import CheckpointError, ConfigError, Problem
from trainer.files import sha256, write_json
from trainer.pretrained.composed import KEY, Contents, composed, contents_of
from trainer.pretrained.config_json import DTYPES, NAME, config_json, format_of
from trainer.pretrained.int8 import quantization_config
from trainer.pretrained.int8_rows import Rounded, int8_data, int8_entries
from trainer.pretrained.rows import Rows, refuse_other_tensors
from trainer.pretrained.shards import INDEX, SHARD_BYTES, Shard, entries_in, index_json, split
from trainer.pretrained.target import new_directory, place_of, refuse_target
from trainer.pretrained.tokenizer_files import TokenizerFiles

WEIGHTS = PARTS[0]
ROLES = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Exported:
    """What an export has written. held: the checkpoint's dtype. bytes: of the weights' files."""

    family: str
    parameters: int
    dtype: str
    held: str
    files: int
    bytes: int
    errors: tuple[Rounded, ...] = ()
    """Of what INT8 rounded, in the files' order."""


def config_of(checkpoint: Path) -> Config:
    """What a checkpoint was trained with. Raises ConfigError."""
    try:
        values = yaml.safe_load((checkpoint / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("no mapping")
    except (OSError, ValueError, yaml.YAMLError) as error:
        rule = f"has a readable {CONFIG} ({' '.join(str(error).split())[:200]})"
        raise ConfigError(Problem(KEY, str(checkpoint), rule, "restore it from a copy")) from None
    return to_config(values)


def export(
    checkpoint: Path,
    target: Path,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    tokenizer: TokenizerFiles | None = None,
    hashes: bool = True,
    int8: str | None = None,
    base: str | None = None,
) -> Exported:
    """Write a new directory, which is there whole or not at all.

    dtype: of all its tensors; None: the widest of the checkpoint's. hashes: read the weights' bytes for damage beside
    the writing. int8: which matrices are rounded (trainer/pretrained/int8.py): ALL or LINEAR; the others are FP32.
    base: where the base of a fine-tuned run is now, beside whose weights adapters are merged.
    Raises ConfigError for what cannot be exported, and CheckpointError where the checkpoint is not sound.
    """
    if int8 is not None and dtype not in (None, "float32"):
        rule = "not said together with --int8, whose scales, norms and biases are float32"
        raise ConfigError(Problem("--dtype", dtype, rule, "leave out one of the two"))
    refuse_target(place_of(target))
    if wrong := fault(checkpoint, hashes=False):
        raise unsound(checkpoint, wrong)
    config = config_of(checkpoint)
    _refuse_other_tokenizer(config, tokenizer)
    try:
        opened, model = contents_of(checkpoint, config, composed(checkpoint, base, hashes))
        tensors = list(format_of(model.family).tensors(model))
        refuse_other_tensors(tensors, opened.index, str(checkpoint))
        held = max((stored.dtype for stored in opened.index.values()), key=_width)
        made = dtype or (held if held in DTYPES and int8 is None else "float32")
        ids = tokenizer.ids if tokenizer is not None else {}
        # null is said as well: where a key is absent, transformers takes 1 for the first token and 2 for the last.
        values = config_json(model, made, {role: ids.get(role) for role in ROLES})
        if int8 is not None:
            values["quantization_config"] = quantization_config(tensors, int8)
        entries = entries_in(made) if int8 is None else int8_entries(int8)
        shards = split(tensors, entries, shard_bytes)
        errors: list[Rounded] = []
        size = 0
        with new_directory(target) as directory:
            write_json(directory / NAME, values)
            if tokenizer is not None:
                tokenizer.write(directory)
            with _proven(checkpoint, hashes):
                for shard in shards:
                    data = _plain(shard, made, opened) if int8 is None else int8_data(shard, int8, opened, errors)
                    size += write_synced(directory / shard.file, data)
            if len(shards) > 1:
                write_json(directory / INDEX, index_json(shards, entries))
    except Unsound as error:
        raise unsound(checkpoint, f"{WEIGHTS}/{error}") from None
    parameters = sum(math.prod(tensor.shape) for tensor in tensors)
    kind = made if int8 is None else "int8"
    return Exported(model.family, parameters, kind, held, len(shards), size, tuple(errors))


def _refuse_other_tokenizer(config: Config, tokenizer: TokenizerFiles | None) -> None:
    if tokenizer is not None and tokenizer.size > config.model.vocab:
        rule = f"a row of the embedding for each of the tokenizer's {tokenizer.size:,} ids"
        remedy = "export with the tokenizer that the run used"
        raise ConfigError(Problem("model.vocab", config.model.vocab, rule, remedy))


def _width(dtype: str) -> tuple[int, bool]:
    return element_bytes(dtype), dtype == "bfloat16"


def _plain(shard: Shard, dtype: str, opened: Contents) -> Iterator[memoryview | bytes]:
    """A file whose tensors are all of one dtype."""
    rows = Rows(opened, getattr(torch, dtype))
    yield header((tensor.name, dtype, tensor.shape) for tensor in shard.tensors)
    for tensor in shard.tensors:
        yield from rows.of(tensor)


@contextmanager
def _proven(checkpoint: Path, hashes: bool) -> Iterator[None]:
    """Beside the block, on another core, the weights' files are read for damage. Raises Unsound at its end."""
    if not hashes:
        yield
        return
    stop: list[bool] = []
    with ThreadPoolExecutor(1, thread_name_prefix="hash") as other:
        found: Future[str | None] = other.submit(_damage, checkpoint, lambda: bool(stop))
        try:
            yield
        except BaseException:
            stop.append(True)
            raise
        if damaged := found.result():
            raise Unsound(damaged)


def _damage(checkpoint: Path, stopped: Callable[[], bool]) -> str | None:
    """The first of the weights' files whose bytes are not the manifest's."""
    for name, written in sorted(read_manifest(checkpoint).files.items()):
        if stopped():
            return None
        part, _, file = name.rpartition("/")
        try:
            if part == WEIGHTS and sha256(checkpoint / name) != written.sha256:
                return f"{file}: its SHA-256 is not the manifest's"
        except OSError as error:
            return f"{file}: {error.strerror}"
    return None


def unsound(checkpoint: Path, wrong: str) -> CheckpointError:
    """What to raise where a checkpoint is not sound."""
    remedy = "export another one, or restore it from a copy; scripts/ckpt.py verify says what is wrong with each"
    return CheckpointError(Problem(KEY, str(checkpoint), f"is what it was when it was saved; {wrong}", remedy))
