"""Numbered logs: two writers, gaps, and things that do not belong there, in memory, in a directory and in S3."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.jobs.memory import Memory
from trainer.jobs.log import Conflict, Log
from trainer.storage.base import Storage
from trainer.storage.local import LocalStorage


@pytest.fixture(params=["memory", "directory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    storage: Storage = Memory() if request.param == "memory" else LocalStorage("test")
    return Log(storage, "log/" if request.param == "memory" else f"{tmp_path}/log/")


def test_what_is_appended_is_read_in_its_order(log: Log) -> None:
    assert log.read() == []
    assert log.newest() == (0, None)
    for number in range(12):
        log.append({"n": number}, number)
    assert [entry["n"] for entry in log.read()] == list(range(12))
    assert log.newest() == (12, {"n": 11})


def test_of_two_who_have_seen_the_same_one_is_told(log: Log) -> None:
    log.append({"by": "a"}, 0)
    with pytest.raises(Conflict):
        log.append({"by": "b"}, 0)
    assert log.read() == [{"by": "a"}]


def test_what_is_behind_a_gap_or_is_no_entry_is_not_read(log: Log) -> None:
    log.append({"n": 1}, 0)
    log.append({"n": 3}, 2)
    log.storage.write(f"{log.prefix}README", b"hello")
    log.storage.write(f"{log.prefix}00000002.json.bak", b"{}")
    assert log.read() == [{"n": 1}]


def test_a_secret_is_not_written(log: Log) -> None:
    log.append({"api_key": "hunter2hunter2", "why": "fine"}, 0)
    assert "hunter2hunter2" not in str(log.read())


def test_of_many_threads_each_number_is_written_once(tmp_path: Path) -> None:
    log, won = Log(LocalStorage("test"), f"{tmp_path}/log/"), []

    def write(name: int) -> None:
        for after in range(20):
            try:
                log.append({"by": name}, after)
            except Conflict:
                continue
            won.append((after, name))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(after for after, _ in won) == list(range(20))
    assert [entry["by"] for entry in log.read()] == [name for _, name in sorted(won)]
