"""Many processes on one small directory of copies, some of them killed: the right bytes, and never beyond the bound."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from trainer.storage.copies import USED, Copies
from trainer.storage.local import LocalStorage

pytestmark = pytest.mark.slow
BOUND, LARGEST = 14_000_000, 3_000_000
READERS, OBJECTS, SECONDS = 4, 12, 6.0


def content(number: int) -> bytes:
    """Of a file, by its name."""
    drawn = random.Random(number)
    return drawn.randbytes(drawn.randint(1, LARGEST))


def read(source: Path, copies: Path, seed: int, until: float) -> None:
    """Whole files and ranges, in any order, compared with what they are."""
    drawn, storage, kept = random.Random(seed), LocalStorage("k"), Copies(copies, BOUND)
    while time.time() < until:
        number = drawn.randrange(OBJECTS)
        stored, expected = storage.stat(str(source / str(number))), content(number)
        if drawn.random() < 0.5:
            with kept.whole(storage, stored) as file:
                assert file.read_bytes() == expected
        else:
            offset = drawn.randrange(len(expected))
            size = min(len(expected) - offset, drawn.choice([1, 70_000, 2_000_000]))
            assert kept.read(storage, stored, offset, size) == expected[offset : offset + size]


def bytes_of(copies: Path) -> int:
    """What is there while nobody reserves, finishes or removes anything; room that is reserved counts."""
    with Copies(copies, BOUND)._counter():
        return sum(file.stat().st_size for file in copies.iterdir() if file.name != USED)


def test_the_bound_holds_for_many_processes_and_kills(tmp_path: Path) -> None:
    source, copies = tmp_path / "source", tmp_path / "copies"
    for place in (source, copies):
        place.mkdir()
    for number in range(OBJECTS):
        (source / str(number)).write_bytes(content(number))
    spawn, until, sizes = multiprocessing.get_context("spawn"), time.time() + SECONDS, []
    readers = [spawn.Process(target=read, args=(source, copies, seed, until)) for seed in range(READERS)]
    victims = [spawn.Process(target=read, args=(source, copies, 100 + seed, until)) for seed in range(READERS)]
    for process in (*readers, *victims):
        process.start()
    for victim in victims:
        for _ in range(20):
            time.sleep(SECONDS / READERS / 25)
            sizes.append(bytes_of(copies))
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
    for process in (*readers, *victims):
        process.join(60)
    assert [process.exitcode for process in readers] == [0] * READERS
    assert BOUND / 2 < max(sizes) <= BOUND
