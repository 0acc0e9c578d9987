"""What a save needs, against what it then takes; and what is said when there is too little."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from trainer.checkpoint import room
from trainer.checkpoint.background import Finished
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.errors import ConfigError
from trainer.parallel.boxes import Placed, Store, whole_box

Usage = namedtuple("Usage", "total used free")


def placed(name: str, tensor: torch.Tensor) -> Placed:
    return Placed(tensor, (whole_box(name, tuple(tensor.shape)),), tuple(tensor.shape))


def store() -> Store:
    weights = {"w": placed("w", torch.zeros(100, 30)), "n": placed("n", torch.zeros(7, dtype=torch.bfloat16))}
    return Store(weights, {"exp_avg.w": placed("exp_avg.w", torch.zeros(100, 30))})


def test_what_a_save_needs_is_what_it_takes(tmp_path: Path) -> None:
    needed = room.needs(store())
    saver = Saver(tmp_path, 0, "", {})
    saver.begin(store(), TrainState(step=1))
    done = saver.wait()
    assert done == Finished(1, tmp_path / "step-00000001", done.seconds if done else 0.0, needed.written)
    files = list((tmp_path / "step-00000001").glob("*/*.safetensors"))
    assert sum(path.stat().st_size for path in files) == needed.written
    tensors = 2 * 100 * 30 * 4 + 7 * 2
    assert tensors <= needed.buffer < tensors + 2 * 64


def test_too_little_disk_is_refused_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 5_000_000_000))
    directory = tmp_path / "runs" / "new" / "checkpoints"
    room.refuse_too_little_room(directory, 1_600_000_000, keep=2)
    with pytest.raises(ConfigError) as raised:
        room.refuse_too_little_room(directory, 1_700_000_000, keep=2)
    (problem,) = raised.value.problems
    assert problem.key == "run.root"
    assert "5.1 GB" in problem.rule, "three of 1.7 GB"
    assert "5.0 GB are free" in problem.rule
    room.refuse_too_little_room(directory, 4_900_000_000, keep=0)
    assert not directory.exists(), "a question leaves nothing"


def test_what_retention_will_remove_counts_as_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that resumes on a disk that holds its two checkpoints needs room for one more, not for three."""
    saver = Saver(tmp_path, 2, "", {})
    for step in (1, 2):
        saver.save(store(), TrainState(step=step))
    size = room.size_of(tmp_path / "step-00000002")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, size + 100))
    room.refuse_too_little_room(tmp_path, size, keep=2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, size - 100))
    with pytest.raises(ConfigError):
        room.refuse_too_little_room(tmp_path, size, keep=2)


def test_the_best_checkpoint_takes_room_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 3_500))
    room.refuse_too_little_room(tmp_path, 1_000, keep=2)
    with pytest.raises(ConfigError, match=r"evaluation\.best"):
        room.refuse_too_little_room(tmp_path, 1_000, keep=2, best=True)
    room.refuse_too_little_room(tmp_path, 1_000, keep=0, best=True)


def test_too_little_memory_is_one_line() -> None:
    assert room.why_synchronous(900, 1000) is None
    line = room.why_synchronous(9_100_000_000, 10_000_000_000)
    assert line is not None
    assert "9.1 GB" in line
    assert "10.0 GB" in line
    assert "\n" not in line


def test_available_memory_is_the_least_of_kernel_and_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  16000 kB\nMemAvailable:   9000 kB\n")
    monkeypatch.setattr(room, "_MEMORY", meminfo)
    monkeypatch.setattr(room, "_CGROUPS", tmp_path / "none")
    assert room.available_memory() == 9000 * 1024
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    monkeypatch.setattr(room, "_CGROUPS", tmp_path)
    for _, controllers, path in own:
        group = tmp_path / controllers / path.lstrip("/")
        if controllers in ("", "memory"):
            group.mkdir(parents=True, exist_ok=True)
            first, second, cache = room._V1 if controllers else room._V2
            (group / first).write_text("5000000\n")
            (group / second).write_text("2000000\n")
            (group / "memory.stat").write_text(f"anon 1\n{cache} 500000\n")
    assert room.available_memory() == 3_500_000


def test_without_any_of_these_files_it_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_MEMORY", tmp_path / "none")
    monkeypatch.setattr(room, "_CGROUPS", tmp_path / "none")
    assert room.available_memory() is None
