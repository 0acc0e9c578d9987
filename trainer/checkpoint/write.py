"""One save by all ranks: each writes its files and reports them; rank 0 proves that they are whole, and commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from trainer.checkpoint.commit import Place, commit, make_room
from trainer.checkpoint.exchange import Exchange, WriteError, raise_said, said_of
from trainer.checkpoint.hashed_file import Written, write_hashed
from trainer.checkpoint.index import file_of
from trainer.checkpoint.pieces import Piece, file_header
from trainer.checkpoint.report import Chunk, Reports, encode
from trainer.checkpoint.state import TrainState

Parts = Mapping[str, Sequence[Piece]]
"""What this rank writes, in the order of its file, by part of the checkpoint."""
Bytes = Callable[[Piece], Iterable[memoryview]]
"""A piece's bytes, one after another."""


def write(place: Place, exchange: Exchange, find: Callable[[], Parts], contents: Bytes, state: TrainState) -> int:
    """Commit a checkpoint; the bytes that this rank wrote. Collective over the exchange's ranks.

    find: called here, so that the other ranks hear of it when it fails. When a rank fails, all raise: WriteError (an
    OSError) where files could not be written. Older checkpoints stay.
    """
    exchange.lead(partial(make_room, place, state))
    temporary, failure, report, size = place.temporary(state.step), None, b"", 0
    try:
        parts = find()
        files = _write_files(temporary, exchange.rank, parts, contents)
        report, size = encode(_chunks(parts), files), sum(file.size for file in files.values())
    except Exception as error:  # told to the others first: they wait for this rank's report
        failure = error
    said = said_of(failure) or b"R" + report
    if exchange.rank:
        exchange.send(said)
    try:
        exchange.lead(lambda: _conclude(place, state, exchange.received(said)))
    except RuntimeError:
        if failure is not None:  # a bug of this rank, with its own traceback
            raise failure from None
        raise
    return size


def _write_files(temporary: Path, rank: int, parts: Parts, contents: Bytes) -> dict[str, Written]:
    files = {}
    for part, found in parts.items():
        if found:
            name = f"{part}/{file_of(rank)}"
            files[name] = write_hashed(temporary / name, _stream(found, contents))
    return files


def _stream(found: Sequence[Piece], contents: Bytes) -> Iterable[memoryview | bytes]:
    yield file_header(found)
    for piece in found:
        yield from contents(piece)


def _chunks(parts: Parts) -> list[Chunk]:
    return [
        Chunk(part, piece.name, piece.dtype, piece.shape, piece.box.offsets, piece.box.sizes)
        for part, found in parts.items()
        for piece in found
    ]


def _conclude(place: Place, state: TrainState, gathered: Iterable[bytes]) -> None:
    """On rank 0: hear every rank to the end, and commit if all have written."""
    reports, disks = Reports(), []
    bug = b""
    for rank, said in enumerate(gathered):
        kind = said[:1]
        if kind == b"R":
            reports.add(rank, said[1:])
        elif kind == b"D":
            disks.append(f"rank {rank}: {said[1:].decode()}")
        else:
            bug = bug or b"B" + f"rank {rank}: ".encode() + said[1:]
    raise_said(bug)
    if disks:
        raise WriteError("; ".join(disks[:3]) + (f" and {len(disks) - 3} more" if len(disks) > 3 else ""))
    commit(place, state, reports)
