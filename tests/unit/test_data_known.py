"""A source is read once for its fingerprint, and again only when it may have changed."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.config.groups.data import SourceConfig
from trainer.data import known
from trainer.data.documents import fingerprint
from trainer.data.known import known_fingerprint
from trainer.data.paths import source_error
from trainer.errors import DataError


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourceConfig:
    """Two files, as if they had been there for a while."""
    monkeypatch.setattr(known, "SETTLED", -1)
    for name in ("a.txt", "b.txt"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text(f"{name} is here")
    return SourceConfig(paths=[str(tmp_path / "in")])


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []

    def counted(source: SourceConfig) -> str:
        made.append(source.name)
        return fingerprint(source)

    monkeypatch.setattr(known, "fingerprint", counted)
    return made


def test_files_are_read_once(source: SourceConfig, tmp_path: Path, reads: list[str]) -> None:
    found = [known_fingerprint(source, tmp_path / "cache") for _ in range(3)]
    assert found == [fingerprint(source)] * 3
    assert len(reads) == 1
    known_fingerprint(replace(source, name="other", weight=3.0), tmp_path / "cache")
    assert len(reads) == 1, "neither is part of it"
    known_fingerprint(replace(source, document_unit="line"), tmp_path / "cache")
    assert len(reads) == 2


def test_a_change_is_seen_though_size_and_time_stay(source: SourceConfig, tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / "in" / "a.txt"
    before, times = known_fingerprint(source, tmp_path / "cache"), file.stat()
    time.sleep(0.02)
    file.write_text("a.txt is hero")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)
    assert known_fingerprint(source, tmp_path / "cache") == fingerprint(source) != before
    (tmp_path / "in" / "c.txt").write_text("one more")
    assert known_fingerprint(source, tmp_path / "cache") == fingerprint(source)
    assert len(reads) == 3


def test_what_changed_just_now_is_not_relied_on(
    source: SourceConfig, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "SETTLED", 60 * 10**9)
    for _ in range(2):
        known_fingerprint(source, tmp_path / "cache")
    assert len(reads) == 2


@pytest.mark.parametrize("damage", ["", "[]", '{"fingerprint": 3}', '{"fingerprint": "x", "time": "y"}'])
def test_a_damaged_note_is_no_note(source: SourceConfig, tmp_path: Path, reads: list[str], damage: str) -> None:
    known_fingerprint(source, tmp_path / "cache")
    (note,) = (tmp_path / "cache" / "known").iterdir()
    note.write_text(damage)
    assert known_fingerprint(source, tmp_path / "cache") == fingerprint(source)
    assert len(reads) == 2


def test_a_name_on_a_hub_is_asked_once_and_serves_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SourceConfig(kind="huggingface", paths=["someone/something"])
    asked: list[int] = []
    online = True

    def resolve(one: SourceConfig) -> str:
        asked.append(1)
        if not online:
            raise source_error(one, "paths", one.paths, "cannot be read: no network", "check the network")
        return f"commit {len(asked)}"

    monkeypatch.setattr(known, "fingerprint", resolve)
    cache, said = tmp_path / "cache", []
    assert [known_fingerprint(source, cache) for _ in range(2)] == ["commit 1", "commit 1"]
    assert len(asked) == 1
    monkeypatch.setattr(known, "FRESH", 0)
    assert known_fingerprint(source, cache) == "commit 2"
    online = False
    assert known_fingerprint(source, cache, said.append) == "commit 2"
    assert "no network" in said[0]
    with pytest.raises(DataError, match="no network"):
        known_fingerprint(replace(source, split="test"), cache)
