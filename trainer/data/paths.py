"""Which files a source names, and how a source's problems are reported."""

from __future__ import annotations

import glob
import os
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePath

from trainer.config.groups.data import SourceConfig
from trainer.config.homes import expanded
from trainer.data.remote import objects
from trainer.errors import DataError, Problem
from trainer.rules.places import IN_S3
from trainer.storage.base import Stored, is_remote
from trainer.storage.patterns import hidden

IN_PLACE = ("indexed", "prepared")
KINDS = ("files", "python_stdlib", "huggingface", *IN_PLACE)
NOT_STANDARD_LIBRARY = {"site-packages", "dist-packages", "__pycache__"}


@contextmanager
def typed_keys(names: Sequence[str], group: str = "data.sources", each: str = "source") -> Iterator[None]:
    """Files a DataError of a source, which this room knows by its name, under the key that an override would have.

    data.sources[NAME].paths becomes data.sources.0.paths, and the rule says the name. group, each: the list that has
    them, and what one is called.
    """
    try:
        yield
    except DataError as error:
        problems = error.problems
        for index, name in enumerate(names):
            named, typed = f"data.sources[{name}].", f"{group}.{index}."
            problems = tuple(
                replace(p, key=p.key.replace(named, typed, 1), rule=f"{p.rule} ({each} {name})")
                if p.key.startswith(named)
                else p
                for p in problems
            )
        raise DataError(problems) from error


def source_error(source: SourceConfig, field: str, value: object, rule: str, remedy: str) -> DataError:
    """The error for one field of a source, under its name: ``typed_keys`` makes it the key that a user can override."""
    return DataError(Problem(f"data.sources[{source.name}].{field}", value, rule, remedy))


def source_files(source: SourceConfig) -> list[Path]:
    """All local files that a source reads, in the order in which it reads them.

    A huggingface source that is no local directory has none, nor has one that lies in S3 (``source_objects``). Raises
    DataError for an unknown kind, for paths that are missing, and for a path or pattern that matches nothing.
    """
    if source.kind == "python_stdlib":
        return _standard_library()
    if source.kind == "plugin":
        return []
    if source.kind not in KINDS:
        raise source_error(source, "kind", source.kind, "unknown kind of source", f"use one of {', '.join(KINDS)}")
    if not source.paths:
        remedy = f"give at least one: data.sources.0.paths=[PATH], or another kind than {source.kind}"
        raise source_error(source, "paths", source.paths, "a source needs paths", remedy)
    if source.kind in IN_PLACE:
        _refuse_twice(source)
    if in_s3(source):
        return []
    if source.kind == "prepared":
        return _manifests(source)
    if source.kind == "indexed":
        return [file for path in source.paths for file in _indexed_pair(source, path)]
    found: dict[Path, None] = {}  # a dict keeps the order and drops what two patterns both match
    for path in source.paths:
        if source.kind == "huggingface" and not Path(path).expanduser().is_dir():
            continue
        try:
            found.update(dict.fromkeys(_matches(source, path)))
        except (OSError, RuntimeError, ValueError) as error:  # too long, a closed directory, somebody without a home
            why = getattr(error, "strerror", None) or str(error)
            shown = path if len(path) <= 80 else f"{path[:77]}..."
            raise source_error(source, "paths", shown, f"can be looked at ({why})", "correct the path") from None
    return list(found)


def in_s3(source: SourceConfig) -> bool:
    """Whether a source lies in S3. Raises DataError where only some of it does, or the kind cannot."""
    remote = [path for path in source.paths if is_remote(path)]
    if not remote:
        return False
    if source.kind not in IN_S3:
        remedy = f"copy it here, or use one of the kinds {', '.join(IN_S3)}"
        raise source_error(source, "paths", remote[0], f"kind {source.kind} is not read from S3", remedy)
    if len(remote) < len(source.paths):
        raise source_error(source, "paths", source.paths, "all in S3, or none", "make two sources of them")
    return True


def _refuse_twice(source: SourceConfig) -> None:
    """Raises DataError for tokens that are named twice: what is held out of the one would be learnt from the other."""
    seen: set[str] = set()
    for path in source.paths:
        place = path.rstrip("/") if is_remote(path) else os.path.realpath(expanded(path))
        if place in seen:
            remedy = "name it once; data.sources.N.weight, or more training, reads it more often"
            raise source_error(source, "paths", path, "each path is another one; this one is there twice", remedy)
        seen.add(place)


def source_objects(source: SourceConfig) -> list[Stored]:
    """All objects in S3 that a source of kind files reads, in order. Raises DataError, also where a path has none."""
    found: dict[str, Stored] = {}
    for path in source.paths:
        if not (some := objects(path, f"data.sources[{source.name}].paths")):
            remedy = "check the spelling: s3://BUCKET/KEY, a prefix of keys up to a /, or a pattern"
            raise source_error(source, "paths", path, "matches no object", remedy)
        found.update({stored.path: stored for stored in some if stored.path not in found})
    return list(found.values())


def root_of(files: Sequence[Path | Stored]) -> PurePath:
    """The deepest directory that holds all files: names below it survive a move of the corpus."""
    names = [file.name if isinstance(file, Stored) else file for file in files]
    return PurePath(os.path.commonpath([name.parent for name in names]))


def _matches(source: SourceConfig, path: str) -> list[Path]:
    if not path:  # to pathlib that is the current directory, to its author a variable that is not set
        raise source_error(source, "paths", path, "names a file or a directory; it is empty", "write the path")
    expanded = Path(path).expanduser().absolute()
    if expanded.is_dir():
        files = _below(expanded)
    elif expanded.is_file():  # before globbing: a file's own name may hold brackets
        files = [expanded]
    else:
        # Path.glob takes no absolute patterns.
        hits = (Path(hit) for hit in glob.glob(str(expanded), recursive=True))  # noqa: PTH207
        files = sorted({file for hit in hits for file in (_below(hit) if hit.is_dir() else [hit])})
    if (odd := next((file for file in files if file.exists() and not file.is_file()), None)) is not None:
        raise source_error(source, "paths", path, f"{odd} is no regular file", "name files or directories of text")
    if not files:
        remedy = f"check the spelling; relative paths start at {Path.cwd()}"
        raise source_error(source, "paths", path, "matches no file", remedy)
    return files


def _below(directory: Path) -> list[Path]:
    """Regular files at any depth, sorted by relative name; hidden ones and byte code are nobody's corpus."""
    files = []
    for file in directory.rglob("*"):
        parts = file.relative_to(directory).parts
        if not any(map(hidden, parts)) and file.is_file():
            files.append(file)
    return sorted(files, key=lambda file: file.relative_to(directory).as_posix())


def _indexed_pair(source: SourceConfig, path: str) -> list[Path]:
    prefix = Path(path).expanduser().absolute()
    pair = [Path(f"{prefix}.bin"), Path(f"{prefix}.idx")]
    for file in pair:
        if not file.is_file():
            remedy = "give the path without .bin or .idx; both files must be there"
            raise source_error(source, "paths", path, f"{file} does not exist", remedy)
    return pair


def _manifests(source: SourceConfig) -> list[Path]:
    """What is in a directory that was prepared, its manifest says; whether it is there, those who open it."""
    for path in source.paths:
        if not Path(path).expanduser().is_dir():
            raise source_error(source, "paths", path, "is a directory that scripts/prepare.py made", "correct the path")
    return [Path(path).expanduser().absolute() / "manifest.json" for path in source.paths]


def _standard_library() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    named = ((file.relative_to(root), file) for file in root.rglob("*.py"))
    kept = [(name.as_posix(), file) for name, file in named if not NOT_STANDARD_LIBRARY & set(name.parts)]
    return [file for _, file in sorted(kept) if file.is_file()]
