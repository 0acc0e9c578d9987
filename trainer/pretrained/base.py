"""A base by its bytes: the SHA-256 of its files, each process its share. No torch."""

from __future__ import annotations

from trainer.checkpoint.base import Base
from trainer.checkpoint.hashed_file import Written
from trainer.checkpoint.names import step_of
from trainer.checkpoint.verify import fault
from trainer.files import sha256
from trainer.pretrained.refused import refused
from trainer.pretrained.source import Source, files_of, refuse_other_base
from trainer.run.directory import CHECKPOINTS

MOVED = "--base DIRECTORY says where it is now"
Files = dict[str, Written]


def hashed(source: Source, rank: int = 0, size: int = 1) -> Files:
    """Of ``size`` processes this one's share of a source's files, by name; the longest first. Raises ConfigError."""
    files = files_of(source)
    try:
        ordered = sorted(files, key=lambda name: (-files[name].stat().st_size, name))
        return {name: Written(files[name].stat().st_size, sha256(files[name])) for name in ordered[rank::size]}
    except OSError as error:
        raise refused(source.given, f"can be read ({error.strerror})", "restore access to it") from None


def named(source: Source, files: Files) -> Base:
    """What a checkpoint says of a base with these files."""
    if source.stored is None:
        return Base(source.given, files)
    parent = source.path.resolve().parent
    run = parent.parent if parent.name == CHECKPOINTS else parent
    return Base(str(source.path), files, run.name, step_of(source.path.resolve()))


def verify_base(source: Source, rank: int = 0, size: int = 1) -> None:
    """Raise ConfigError where the base of a checkpoint, or that one's base, is not the one that was trained on.

    Each of ``size`` processes looks at its share of the files.
    """
    if source.base is None or source.named is None:
        return
    found = hashed(source.base, rank, size)
    wanted = {name: one for name, one in source.named.files.items() if name in found}
    if size == 1:
        wanted = dict(source.named.files)
    refuse_other_base(source.base.given, Base(source.named.path, wanted), Base(source.named.path, found))
    verify_source(source.base, rank, size)


def verify_source(source: Source, rank: int = 0, size: int = 1) -> None:
    """Raise ConfigError where a checkpoint of ours is damaged, or its base is another; each process its share.

    Of a directory in Hugging Face's layout there is nothing to hold it against.
    """
    if source.stored is None:
        return
    if (why := fault(source.path, rank, size)) is not None:
        raise refused(source.given, f"is a sound checkpoint; {why}", "name another step of the same run")
    verify_base(source, rank, size)
