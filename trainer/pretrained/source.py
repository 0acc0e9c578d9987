"""Where initial weights come from: a directory in Hugging Face's layout, a GGUF file, a checkpoint or run of ours.

No torch.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from trainer.checkpoint.base import Base
from trainer.checkpoint.hashed_file import Written
from trainer.checkpoint.index import Stored, read_index
from trainer.checkpoint.manifest import read_manifest
from trainer.checkpoint.names import CONFIG, MANIFEST, PARTS, checkpoints, is_checkpoint_name, name_of
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.verify import fault, read_state
from trainer.config.compose import to_config
from trainer.config.groups.data import TokenizerConfig
from trainer.config.groups.model import ModelConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.pretrained import gguf
from trainer.pretrained.adapters import Adapters, is_adapters
from trainer.pretrained.config_json import NAME
from trainer.pretrained.directory import Directory, fingerprint_of, open_directory
from trainer.pretrained.gguf import SUFFIX, GgufFile, open_gguf
from trainer.pretrained.peft.config import NAME as ADAPTER
from trainer.pretrained.refused import refused
from trainer.pretrained.shapes import parameter_shapes
from trainer.pretrained.shards import INDEX, SINGLE
from trainer.pretrained.tokens import FILE, tokenizer_of
from trainer.run.directory import CHECKPOINTS, TOKENIZER

MODELS = "models"
"""Where recipes look for directories that have been downloaded; nobody's name on the hub."""
DEEPEST = 16
"""Runs that stand on each other."""
IMPORTED = "imported"
"""In the manifest of what scripts/import_hf.py made: from which directory."""


@dataclass(frozen=True)
class Source:
    """An opened source. path: of the directory, or of one checkpoint. given: what the user named."""

    given: str
    path: Path
    model: ModelConfig
    """The dimensions; where adapters are, of the model that they are merged into."""
    dtypes: Mapping[str, int]
    """How many tensors have each."""
    tokenizer: TokenizerConfig | None
    """None where there is none."""
    notes: tuple[str, ...]
    directory: Directory | None = None
    """Of Hugging Face's layout."""
    gguf: GgufFile | None = None
    """Of llama.cpp."""
    stored: Mapping[str, Stored] | None = None
    """Of a checkpoint of ours."""
    imported: bool = False
    """A checkpoint that no run of ours has trained: the tokenizer is the directory's, or there is none."""
    base: Source | None = None
    """Of a checkpoint of ours: where the weights are that it leaves to its base."""
    named: Base | None = None
    """What it says of its base."""
    adapters: Adapters | None = None
    """Of a checkpoint of ours, that stand beside the weights."""


def open_source(given: str, base: str | None = None, remedy: str = "", below: int = 0) -> Source:
    """Raises ConfigError, with one problem of key model.init_from, where it is none or not whole.

    base: where the base is now, of a checkpoint that has one; None: where it says. remedy: how to say so. below: how
    many stand on this one.
    """
    try:
        return _open(given, base, remedy, below)
    except OSError as error:
        raise refused(given, f"can be read ({error.strerror})", "restore access to it") from None


def _open(given: str, base: str | None, remedy: str, below: int) -> Source:
    path = Path(given)
    if not path.exists():
        raise refused(given, "is a directory of this machine or mounted on it; it does not exist", _fetch(given))
    if not path.is_dir() and path.suffix.lower() == SUFFIX:
        return _of_gguf(given, path)
    if not path.is_dir():
        raise refused(given, "is a directory; it is a file", f"name the directory that it is in: {path.parent}")
    if (checkpoint := checkpoint_in(path)) is not None:
        found, notes = checkpoint
        return _of_checkpoint(given, found, notes, base, remedy, below)
    if base is not None:
        raise _no_base(base)
    if any((path / name).exists() for name in (NAME, SINGLE, INDEX)):
        return _of_directory(given, path)
    raise refused(given, *_no_source(path))


def _fetch(given: str) -> str:
    """What to do about a path that is not there: it may be a name on the hub."""
    owner, _, name = given.partition("/")
    if not name or "/" in name or owner.startswith((".", "~")) or not owner:
        return "correct the path"
    if owner == MODELS or Path(owner).is_dir():
        return f"correct the path, or download it there: hf download OWNER/{name} --local-dir {given}"
    return f"download it first: hf download {given} --local-dir DIRECTORY"


def _no_source(path: Path) -> tuple[str, str]:
    rule = f"holds a model ({NAME}, {SINGLE}), a checkpoint of ours ({MANIFEST}) or a run's checkpoints; it has neither"
    inside = [one.parent for pattern in ("*", "snapshots/*") for one in sorted(path.glob(f"{pattern}/{NAME}"))]
    if inside:
        return rule, f"name the directory inside that is meant, such as {inside[-1]}"
    if (path / CONFIG).exists():
        return "is a run that has saved; it has no checkpoint yet", "wait for its first save, or name another run"
    if (path / ADAPTER).exists():
        remedy = f"model.init_from=its base adapter=lora adapter.init_from={path}; or merge it with peft"
        return f"{rule}; it holds an adapter, which is no model", remedy
    return rule, "name the directory that save_pretrained or a run of ours wrote"


def checkpoint_in(path: Path) -> tuple[Path, list[str]] | None:
    """A checkpoint of ours: the directory itself, or the newest in it that is sound by its files' sizes and headers.

    With lines about newer ones that were passed over. None where it is nothing of ours.
    """
    if is_checkpoint_name(path.resolve().name) and (path / MANIFEST).exists():
        if (why := fault(path.resolve(), hashes=False)) is not None:
            raise refused(path, f"is a sound checkpoint; {why}", "name another step of the same run")
        return path, []
    for parent in (path / CHECKPOINTS, path):
        notes: list[str] = []
        for found in checkpoints(parent):
            if (why := fault(found, hashes=False)) is None:
                return found, notes
            notes.append(f"passed over {found.name}: {why}")
        if notes:
            raise refused(path, f"has a sound checkpoint; {'; '.join(notes)}", "restore one from a copy")
    return None


def _of_directory(given: str, path: Path) -> Source:
    opened = open_directory(path)
    dtypes = Counter(held.entry.dtype for held in opened.tensors.values())
    file = tokenizer_of(path)
    tokenizer = None if file is None else TokenizerConfig(kind="file", path=str(file))
    return Source(given, path, opened.model, dtypes, tokenizer, opened.notes, directory=opened)


def _of_gguf(given: str, path: Path) -> Source:
    opened = open_gguf(path)
    dtypes = Counter(one.placed.kind.lower() for one in opened.tensors.values())
    notes = ("its tokenizer is not read: data.tokenizer.kind=file data.tokenizer.path=... names the model's",)
    return Source(given, path, opened.model, dtypes, None, notes, gguf=opened)


def _of_checkpoint(given: str, path: Path, notes: list[str], moved: str | None, remedy: str, below: int) -> Source:
    try:
        config = to_config(yaml.safe_load((path / CONFIG).read_text(encoding="utf-8")))
        stored, topology = read_index(path / PARTS[0]), read_manifest(path).topology
        named = read_state(path).base
    except (OSError, Unsound, yaml.YAMLError, TypeError, ValueError, ConfigError) as error:
        rule = f"{path.name}'s {CONFIG} and index can be read ({' '.join(str(error).split())[:300]})"
        raise refused(given, rule, "name another step of the same run") from None
    if config.adapter.kind != "none":
        notes = [*notes, "its adapters are merged into its base, in FP32, when they are read"]
    base = None if named is None else _named_base(named, moved, remedy, below + 1)
    if base is None and moved is not None:
        raise _no_base(moved)
    adapters = _adapters(config, stored)
    _refuse_other_tensors(given, config.model, stored, base, adapters)
    imported = IMPORTED in topology
    tokenizer = None if imported else config.data.tokenizer
    kept = path.parent.parent / TOKENIZER if path.parent.name == CHECKPOINTS else path.parent  # a run's; an import's
    if (kept / FILE).exists():
        tokenizer = TokenizerConfig(kind="file", path=str(kept / FILE), eod=config.data.tokenizer.eod)
    dtypes = Counter(tensor.dtype for tensor in stored.values())
    return Source(
        given,
        path,
        config.model if adapters is None else adapters.merged(),
        dtypes,
        tokenizer,
        tuple(notes),
        stored=stored,
        imported=imported,
        base=base,
        named=named,
        adapters=adapters,
    )


def _named_base(named: Base, moved: str | None, remedy: str, below: int) -> Source:
    """What is wrong with a base that --base names is told by that name."""
    try:
        return open_base(named, moved, remedy, below)
    except ConfigError as error:
        if moved is None:
            raise
        raise ConfigError(replace(one, key="--base") for one in error.problems) from None


def _no_base(moved: str) -> ConfigError:
    rule = "belongs to a checkpoint of ours that names its base; MODEL holds all of its weights"
    return ConfigError(Problem("--base", moved, rule, "leave it out"))


def _adapters(config: Config, stored: Mapping[str, Stored]) -> Adapters | None:
    shapes = {name: one.shape for name, one in stored.items() if is_adapters(name)}
    return Adapters(config.adapter, config.model, shapes) if config.adapter.kind != "none" else None


def open_base(named: Base, moved: str | None = None, remedy: str = "", below: int = 1) -> Source:
    """The base that a checkpoint names, with files of the sizes that it names. moved: where it is now, if elsewhere.

    Raises ConfigError where it is not there, or is another one.
    """
    path = moved or named.path
    if named.step is not None:  # a run's directory is as good: its step is known
        inside = (Path(path) / CHECKPOINTS / name_of(named.step), Path(path) / name_of(named.step))
        path = str(next((one for one in inside if os.access(one, os.F_OK)), path))
    says = remedy or f"put it back, or a link to it, at {path}"
    if not os.access(path, os.F_OK):  # a Path raises for a name that is too long
        raise refused(path, "is there: the weights that were not trained are in this base, and not stored again", says)
    if below > DEEPEST:
        rule = f"ends in a base that holds all of its weights, {DEEPEST} deep at most; this goes on, or in a circle"
        raise refused(path, rule, "export merged weights, and name that directory")
    source = open_source(path, below=below)
    found = {name: Written(file.stat().st_size, "") for name, file in files_of(source).items()}
    sizes = {name: replace(one, sha256="") for name, one in named.files.items()}
    refuse_other_base(path, replace(named, files=sizes), replace(named, files=found), says)
    return source


def refuse_other_base(path: str, named: Base, found: Base, remedy: str = "") -> None:
    """Raise ConfigError with the first file in which a base is not the one that was named."""
    if (why := named.unlike(found)) is not None:
        rule = f"is the base that was trained on, file by file; {why}"
        raise refused(path, rule, remedy or "restore it: other weights beside these adapters are another model")


def files_of(source: Source) -> dict[str, Path]:
    """The files that say a source's weights, by name: of a checkpoint its manifest, which names the others."""
    if source.stored is not None:
        return {MANIFEST: source.path / MANIFEST}
    if source.directory is None:
        return {"model.gguf": source.path}  # whatever it is called now
    held = (*source.directory.tensors.values(), *source.directory.scales.values())
    names = {NAME, *(one.file for one in held), *([INDEX] if (source.path / INDEX).exists() else [])}
    return {name: source.path / name for name in sorted(names)}


def _refuse_other_tensors(
    given: str, model: ModelConfig, stored: Mapping[str, Stored], base: Source | None, adapters: Adapters | None
) -> None:
    """A family of a user's own has parameters that only its model knows: those are compared when they are loaded."""
    if ":" in model.family:
        return
    shapes = parameter_shapes(model)
    wrong = [name for name, shape in shapes.items() if name in stored and stored[name].shape != shape]
    wrong += [name for name in shapes if name not in stored and base is None]
    wrong += [name for name in stored if name not in shapes and (adapters is None or name not in adapters.shapes)]
    if adapters is not None and (faults := list(adapters.faults())):
        raise refused(given, f"holds the adapters in its {CONFIG}; {faults[0]}", "name another step of the same run")
    if wrong:
        rule = f"holds the tensors of the model in its {CONFIG}; {wrong[0]} is not as that says ({len(wrong):,} in all)"
        raise refused(given, rule, "name another step of the same run")


def fingerprint(path: Path) -> str:
    """By which ranks know that they have the same source before them. Raises ConfigError or OSError."""
    if (path / MANIFEST).exists():
        return hashlib.sha256((path / MANIFEST).read_bytes()).hexdigest()
    if path.is_file():
        return gguf.fingerprint_of(path)
    return fingerprint_of(path)
