"""scripts/export_hf.py: a run's weights as a directory that transformers reads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from trainer.checkpoint.directory import newest_sound
from trainer.checkpoint.names import checkpoints, is_checkpoint_name
from trainer.checkpoint.sizes import in_bytes
from trainer.checkpoint.verify import fault
from trainer.config.homes import expanded
from trainer.errors import CheckpointError, ConfigError, Problem
from trainer.pretrained.composed import composed
from trainer.pretrained.export import Exported, config_of, export, unsound
from trainer.pretrained.peft.write import write_adapter
from trainer.pretrained.shards import SHARD_BYTES, parse_size
from trainer.pretrained.target import place_of, refuse_target
from trainer.pretrained.tokenizer_files import TOKENIZER, TokenizerFiles, tokenizer_files
from trainer.run.directory import CHECKPOINTS
from trainer.run.directory import TOKENIZER as KEPT


def export_hf(
    given: str,
    target: str,
    dtype: str | None,
    shard_size: str | None,
    int8: str | None = None,
    base: str | None = None,
) -> Iterator[str]:
    """Write the directory; lines about it. int8: which matrices are rounded. base: where the base of a fine-tuned
    run is now. Raises ConfigError or CheckpointError."""
    size = SHARD_BYTES if shard_size is None else parse_size(shard_size)
    if size is None:
        raise ConfigError(Problem("--shard-size", shard_size, "a size, as 5GB, 500MB or 4GiB", "write one, or none"))
    directory = place_of(target)
    refuse_target(directory)
    checkpoint = checkpoint_of(given)
    tokenizer, about = tokenizer_of(checkpoint)
    yield f"{checkpoint} -> {target}"
    done = export(checkpoint, directory, dtype, size, tokenizer, int8=int8, base=base)
    yield from described(done)
    yield from table(done)
    yield about


def export_adapter(
    given: str, target: str, base: str | None = None, others: Mapping[str, str | None] | None = None
) -> Iterator[str]:
    """Write the adapters as peft's directory; lines about it. base: where the run's base is now, which peft is told.
    others: options about weights, by name, of which none may be said. Raises ConfigError or CheckpointError."""
    if said := {name: value for name, value in (others or {}).items() if value is not None}:
        rule = "not said together with --adapter, which writes one file in FP32"
        raise ConfigError(Problem(name, value, rule, "leave out one of the two") for name, value in said.items())
    directory = place_of(target)
    refuse_target(directory)
    checkpoint = checkpoint_of(given)
    if (why := fault(checkpoint)) is not None:
        raise unsound(checkpoint, why)
    if base is not None:
        composed(checkpoint, base, hashes=True)  # refuses another one
    tokenizer, about = tokenizer_of(checkpoint)
    yield f"{checkpoint} -> {target}"
    done = write_adapter(checkpoint, config_of(checkpoint), directory, tokenizer, base)
    size = f"{done.parameters:,} parameters in float32; {in_bytes(done.bytes)}"
    yield f"  rank {done.rank} at {done.modules} modules: {size}"
    yield f"  beside {done.base}: PeftModel.from_pretrained(model, {target!r})"
    yield about


def described(done: Exported) -> Iterator[str]:
    """What was written, for people."""
    converted = f", from {done.held}" if done.dtype != done.held else ""
    files = "1 file" if done.files == 1 else f"{done.files} files"
    size = in_bytes(done.bytes)
    yield f"  {done.family}: {done.parameters:,} parameters in {done.dtype}{converted}; {files}, {size}"


def table(done: Exported) -> Iterator[str]:
    """What INT8 rounded, tensor by tensor; nothing without."""
    if not done.errors:
        return
    width = max(len("tensor"), *(len(one.name) for one in done.errors))
    yield f"  {'tensor':<{width}}  largest error   RMS error"
    for one in done.errors:
        yield f"  {one.name:<{width}}  {one.worst:13.3%}  {one.rms:10.3%}"
    yield "  errors: the largest relative to its channel's largest value; RMS relative to that of the values"


def checkpoint_of(given: str) -> Path:
    """One checkpoint; of a run the newest that looks sound. Raises ConfigError, or CheckpointError where none is."""
    path = place_of(given)
    if not os.access(path, os.R_OK | os.X_OK) or not path.is_dir():
        rule = "is a directory that can be read: a run's, or a checkpoint's"
        raise ConfigError(Problem("RUN", given, rule, "give one, as runs/tiny or runs/tiny/checkpoints/step-00000360"))
    if is_checkpoint_name(path.name):
        return path
    directory = next((place for place in (path / CHECKPOINTS, path) if checkpoints(place)), None)
    if directory is None:
        rule = "has saved a checkpoint (checkpoints/step-...); this has none"
        raise CheckpointError(Problem("RUN", given, rule, "train it until it saves, or give another"))
    for found in checkpoints(directory):
        if fault(found, hashes=False) is None:
            return found
    newest_sound(directory)  # says what is wrong with each
    raise AssertionError("a checkpoint verifies that did not before")


def tokenizer_of(checkpoint: Path) -> tuple[TokenizerFiles | None, str]:
    """That of the run whose checkpoint it is, or the one that its configuration names; and a line about it."""
    config = config_of(checkpoint).data.tokenizer
    of_run, imported = checkpoint.parent.parent / KEPT, checkpoint.parent
    if checkpoint.parent.name == CHECKPOINTS and (of_run / TOKENIZER).is_file():
        return _from(of_run, None)
    if (imported / TOKENIZER).is_file():  # by scripts/import_hf.py
        return _from(imported, None)
    if config.kind == "file" and config.path is not None and Path(expanded(config.path)).exists():
        return _from(Path(expanded(config.path)), config.eod)
    where = f"{config.path} is not here" if config.kind == "file" else "the run has kept none"
    return None, f"  no tokenizer: {where}; transformers wants one beside the weights"


def _from(source: Path, eod: str | None) -> tuple[TokenizerFiles, str]:
    found = tokenizer_files(source, eod)
    ends = found.ids.get("eos_token_id")
    notes = "".join(f"; {note}" for note in found.notes)
    return found, f"  tokenizer: {source} ({found.size:,} ids, end of text {ends}{notes})"
