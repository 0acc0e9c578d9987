"""Units put together as shards: in the order of the source, cut between documents, a shard at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data.indexed import AT_ONCE, DTYPES, code_for, index_blocks, read_lengths
from trainer.data.progress import Advance
from trainer.files import sync, temporary_of, write_json

BLOCK = 8 << 20


class Run(NamedTuple):
    """Documents of a unit that stand in one shard. unit: its directory. first, end: of the documents."""

    unit: str
    first: int
    end: int


@dataclass
class Shard:
    """One pair of files. directory: of the source; work: where its record stays until the source is complete."""

    part: str
    prefix: str
    runs: list[Run]
    directory: str
    work: str
    vocab: int
    key: str
    masked: bool = False

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of its files."""
        return (".bin", ".idx", ".mask") if self.masked else (".bin", ".idx")

    @property
    def bytes(self) -> int:
        """Of the tokens, about: those of its documents' index are left out."""
        size = np.dtype(DTYPES[code_for(self.vocab)]).itemsize
        return size * sum(int(lengths.sum(dtype=np.int64)) for lengths in _lengths(self))

    @property
    def record(self) -> Path:
        """Where its sizes and its digest stand, once it is whole."""
        return Path(self.work) / f"{self.prefix}.json"

    def written(self) -> dict[str, Any] | None:
        """What the manifest says of it, if it is there."""
        try:
            record: dict[str, Any] = json.loads(self.record.read_text(encoding="utf-8"))
            sizes = [Path(self.directory, f"{self.prefix}{suffix}").stat().st_size for suffix in self.suffixes]
            expected = [record["bin_bytes"], record["idx_bytes"], *([record["mask_bytes"]] if self.masked else [])]
        except (OSError, ValueError, KeyError):
            return None
        whole = record.pop("key") == self.key and sizes == expected
        return record if whole else None


def plan(
    part: str,
    units: list[tuple[Path, str]],
    limit: int,
    directory: Path,
    work: Path,
    vocab: int,
    masked: bool = False,
) -> list[Shard]:
    """The shards of a part of a source. units: directories and keys, in order. limit: tokens of a shard. masked:
    whether units say which tokens are trained on.

    A document that alone is longer has a shard to itself.
    """
    found: list[list[Run]] = []
    tokens = limit
    for unit, _ in units:
        ends = np.cumsum(read_lengths(unit / part), dtype=np.int64)
        at = 0
        while at < len(ends):
            before = int(ends[at - 1]) if at else 0
            stop = int(np.searchsorted(ends, before + limit - tokens, "right"))
            if stop == at:
                found.append([])
                tokens = 0
                stop = max(at + 1, int(np.searchsorted(ends, before + limit, "right")))
            found[-1].append(Run(str(unit), at, stop))
            tokens = min(limit, tokens + int(ends[stop - 1]) - before)
            at = stop
    keys = {str(unit): key for unit, key in units}
    return [
        Shard(part, f"{part}-{number:05d}", runs, str(directory), str(work), vocab, _key(runs, keys), masked)
        for number, runs in enumerate(found)
    ]


def _key(runs: list[Run], keys: dict[str, str]) -> str:
    content = json.dumps([[keys[run.unit], run.first, run.end] for run in runs])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def write_shard(shard: Shard, advance: Advance) -> None:
    """Write PREFIX.bin, PREFIX.idx, PREFIX.mask of a masked one, and the record. Raises OSError where it cannot."""
    digest = hashlib.blake2b(digest_size=16)
    code = code_for(shard.vocab)
    size = np.dtype(DTYPES[code]).itemsize
    documents = sum(run.end - run.first for run in shard.runs)
    tokens = shard.bytes // size
    target = Path(shard.directory, shard.prefix)
    index = index_blocks(code, documents, lambda: _lengths(shard))
    written = []
    for suffix, source in zip(shard.suffixes, (_tokens(shard, size), index, _tokens(shard, 1, ".mask")), strict=False):
        path = target.with_name(target.name + suffix)
        written.append(_write(path, source, digest.update, advance))
    record = {"part": shard.part, "prefix": shard.prefix, "documents": documents, "tokens": tokens}
    record |= {"bin_bytes": written[0], "idx_bytes": written[1], "digest": digest.hexdigest()}
    record |= {"mask_bytes": written[2]} if shard.masked else {}
    write_json(shard.record, record | {"key": shard.key})


def _write(path: Path, blocks: Iterator[bytes], update: Callable[[bytes], object], advance: Advance) -> int:
    temporary, size = temporary_of(path), 0
    with open(temporary, "wb") as file:
        for block in blocks:
            file.write(block)
            update(block)
            advance(len(block))
            size += len(block)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(path.parent)
    return size


def _lengths(shard: Shard) -> Iterator[NDArray[np.int32]]:
    for run in shard.runs:
        lengths = read_lengths(Path(run.unit, shard.part))
        for start in range(run.first, run.end, AT_ONCE):
            yield np.asarray(lengths[start : min(start + AT_ONCE, run.end)])


def _tokens(shard: Shard, size: int, suffix: str = ".bin") -> Iterator[bytes]:
    """Bytes of the documents. size: of a token in the files of that suffix."""
    for run in shard.runs:
        lengths = read_lengths(Path(run.unit, shard.part))
        begin = int(lengths[: run.first].sum(dtype=np.int64)) * size
        left = int(lengths[run.first : run.end].sum(dtype=np.int64)) * size
        with open(Path(run.unit, f"{shard.part}{suffix}"), "rb") as file:
            file.seek(begin)
            while left:
                block = file.read(min(BLOCK, left))
                if not block:
                    raise OSError(f"{run.unit}/{shard.part}{suffix} ends too early")
                left -= len(block)
                yield block


def to_json(shard: Shard) -> dict[str, Any]:
    """For a pipe."""
    return asdict(shard)


def from_json(value: dict[str, Any]) -> Shard:
    """What ``to_json`` made."""
    return Shard(**value | {"runs": [Run(*run) for run in value["runs"]]})
