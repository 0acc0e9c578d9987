"""Built once, whoever comes; nothing a dead builder left is in the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer.data import cache as cache_module
from trainer.data.cache import build_once
from trainer.errors import DataError

BUILDER = """
import sys, time
from pathlib import Path
from trainer.data.cache import build_once
root, seconds = Path(sys.argv[1]), float(sys.argv[2])
def build(directory):
    (directory / "data").write_text("content")
    with open(root / "builds", "a") as log:
        log.write("x")
    time.sleep(seconds)
print((build_once(root / "cache", "key", build) / "data").read_text())
"""


def start(root: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(root), str(seconds)], stdout=subprocess.PIPE, text=True)


def wait_for(condition: object, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def content(directory: Path) -> None:
    (directory / "sub").mkdir()
    (directory / "data").write_text("content", encoding="utf-8")
    (directory / "sub" / "more").write_text("more", encoding="utf-8")


def never(directory: Path) -> None:
    raise AssertionError("must not build")


def test_several_processes_build_once(tmp_path: Path) -> None:
    running = [start(tmp_path, 0.5) for _ in range(4)]
    assert [process.communicate(timeout=60)[0].strip() for process in running] == ["content"] * 4
    assert (tmp_path / "builds").read_text() == "x"
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["key", "key.lock"]


def test_killed_builder_is_no_obstacle(tmp_path: Path) -> None:
    victim = start(tmp_path, 600)
    wait_for(lambda: (tmp_path / "builds").exists())
    waiting = start(tmp_path, 0)
    time.sleep(0.3)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert waiting.communicate(timeout=60)[0].strip() == "content"
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == ["key", "key.lock"]
    victim.stdout.close()  # type: ignore[union-attr]


def test_leftovers_of_other_keys_go_unless_their_builder_lives(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / ".tmp-other-1").mkdir(parents=True)
    (cache / ".tmp-new-1").mkdir()
    living = start(tmp_path, 600)
    wait_for(lambda: (tmp_path / "builds").exists())
    assert list(cache.glob(".tmp-key-*"))
    build_once(cache, "new", content)
    assert len(list(cache.glob(".tmp-*"))) == 1 == len(list(cache.glob(".tmp-key-*")))
    living.kill()
    living.wait()
    living.stdout.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "no listing", "empty listing", "lost directory"])
def test_damage_is_repaired(tmp_path: Path, damage: str) -> None:
    final = build_once(tmp_path, "key", content)
    assert build_once(tmp_path, "key", never) == final
    file = final / "sub" / "more"
    if damage == "truncate":
        file.write_text("mor", encoding="utf-8")
    elif damage == "flip":
        file.write_text("mole", encoding="utf-8")
    elif damage == "delete":
        file.unlink()
    elif damage == "no listing":
        (final / "complete.json").unlink()
    elif damage == "empty listing":
        (final / "complete.json").write_text("", encoding="utf-8")
    else:
        shutil.rmtree(final / "sub")
    said: list[str] = []
    build_once(tmp_path, "key", content, said.append)
    assert file.read_text() == "more"
    assert "damaged" in said[0]
    assert build_once(tmp_path, "key", never) == final


def test_a_failing_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(directory: Path) -> None:
        content(directory)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        build_once(tmp_path, "key", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["key.lock"]
    build_once(tmp_path, "key", content)


def test_unwritable_and_full(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    def full(directory: Path) -> None:
        with open("/dev/full", "w", encoding="utf-8") as sink:
            sink.write("x" * 100000)

    for directory, build in [(tmp_path / "file", content), (tmp_path / "file" / "below", content), (tmp_path, full)]:
        with pytest.raises(DataError) as caught:
            build_once(directory, "key", build)
        (problem,) = caught.value.problems
        assert problem.key == "data.cache_dir"
        assert problem.remedy


def test_read_only_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = build_once(tmp_path, "key", content)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache_module, "_locked", refused)  # root may write anywhere, so chmod would prove nothing
    assert build_once(tmp_path, "key", never) == final
    with pytest.raises(DataError, match="Permission denied"):
        build_once(tmp_path, "other", content)
