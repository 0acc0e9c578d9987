"""Is a checkpoint sound? Its files are what the manifest says, and what they say of each other is true.

A resume asks this of the newest checkpoint, then of the one before it, and so on. So everything that makes a
checkpoint unusable for every run is found here; what only does not fit the present run is refused by load.py.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from trainer.checkpoint.index import INDEX, rank_of, read_index
from trainer.checkpoint.manifest import LONGEST, Manifest, read_manifest
from trainer.checkpoint.names import DATA, MANIFEST, STATE
from trainer.checkpoint.places import Held, Places
from trainer.checkpoint.state import TrainState, data_of, progress_of
from trainer.checkpoint.strict_json import Unsound, mapping, read, regular
from trainer.checkpoint.tensorfile import read_header
from trainer.files import sha256


def fault(checkpoint: Path, rank: int = 0, size: int = 1, hashes: bool = True) -> str | None:
    """What is wrong with a checkpoint; None if it is sound. The first word names the file.

    With several ranks, each verifies its share of the files: one rank alone would hash hundreds of gigabytes.
    hashes: read every byte; without, damage inside a tensor goes unnoticed.
    """
    try:
        manifest = read_manifest(checkpoint)
    except OSError as error:
        return f"{error.filename or checkpoint}: {error.strerror}"
    except Unsound as error:
        return f"{MANIFEST}: {error}"
    contents = _Contents(checkpoint, manifest)
    for name in sorted(manifest.files)[rank::size]:
        try:
            contents.verify(name, hashes)
        except OSError as error:
            return f"{error.filename or name}: {error.strerror}"
        except Unsound as error:
            return f"{name}: {error}"
    return None


class _Contents:
    """The files of a checkpoint, each against the manifest and against the others."""

    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        self._checkpoint, self._manifest = checkpoint, manifest
        self._places: dict[str, Places] = {}

    def verify(self, name: str, hashes: bool) -> None:
        """Raises Unsound or OSError. Damage is named as damage: what a file says is read after its bytes are right."""
        path, wanted = self._checkpoint / name, self._manifest.files[name]
        if path.resolve() != self._home / name:
            raise Unsound("a link, which leads elsewhere")
        if (found := regular(path)) != wanted.size:
            raise Unsound(f"{found:,} bytes instead of {wanted.size:,}")
        if hashes and sha256(path) != wanted.sha256:
            raise Unsound("its SHA-256 is not the manifest's")
        part, _, file = name.rpartition("/")
        if part and file == INDEX:
            self._index(part)
        elif part:
            self._shard(part, file)
        elif name == STATE:
            self._state()
        elif name == DATA:
            data_of(mapping(read(path, LONGEST), DATA))

    @cached_property
    def _home(self) -> Path:
        return self._checkpoint.resolve()

    def _index(self, part: str) -> None:
        """It names the files that the manifest lists, and no others."""
        listed = {name.rpartition("/")[2] for name in self._manifest.files if name.startswith(f"{part}/")} - {INDEX}
        named = self._of(part).files()
        if missing := sorted(named - listed):
            raise Unsound(f"names {missing[0]}, which the manifest does not list")
        if extra := sorted(listed - named):
            raise Unsound(f"holds nothing in {part}/{extra[0]}, which the manifest lists")

    def _shard(self, part: str, file: str) -> None:
        """It holds the chunks that the index says, and no others, with their dtypes and shapes."""
        try:
            wanted = self._of(part).held(rank_of(file))
        except (Unsound, OSError) as error:
            raise Unsound(f"cannot be told from {part}/{INDEX}: {error}") from None
        found = {key: (entry.dtype, entry.shape) for key, entry in read_header(self._checkpoint / part / file).items()}
        for key in sorted(wanted.keys() | found.keys()):
            if key not in found:
                raise Unsound(f"lacks {key}, which the index says it holds")
            if key not in wanted:
                raise Unsound(f"holds {key[:100]}, which the index does not name")
            if found[key] != wanted[key]:
                raise Unsound(f"{key} is {_text(found[key])}, the index says {_text(wanted[key])}")

    def _of(self, part: str) -> Places:
        if part not in self._places:
            self._places[part] = Places(read_index(self._checkpoint / part))
        return self._places[part]

    def _state(self) -> None:
        step = progress_of(mapping(read(self._checkpoint / STATE, LONGEST), STATE))["step"]
        if step != self._manifest.step:
            raise Unsound(f"step is {step}, the manifest's {self._manifest.step}")


def read_state(checkpoint: Path) -> TrainState:
    """What a checkpoint keeps besides tensors. Raises Unsound or OSError."""
    parts = (mapping(read(checkpoint / name, LONGEST), name) for name in (STATE, DATA))
    return TrainState.from_json(*parts)


def _text(chunk: Held) -> str:
    return f"{chunk[0]} [{', '.join(map(str, chunk[1]))}]"
