"""Checkpoints: any boxes in, any boxes out; nothing half-written is ever trusted; nothing is pickled."""

from __future__ import annotations

import json
import os
import pickle  # noqa: TID251 - to prove that nobody calls it
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trainer.checkpoint.directory import Ranks, newest_sound, set_aside
from trainer.checkpoint.load import load_checkpoint
from trainer.checkpoint.names import checkpoints
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.checkpoint.verify import fault
from trainer.config.groups.run import RunConfig
from trainer.config.schema import Config
from trainer.errors import CheckpointError, ConfigError
from trainer.parallel.boxes import Box, Placed, Store, whole_box
from trainer.run.directory import open_run
from trainer.training.resume import begin


def values(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(name.encode())))


def whole(names: dict[str, tuple[int, ...]], fill: bool = True) -> dict[str, Placed]:
    make = values if fill else (lambda name, shape: torch.zeros(shape))
    return {name: Placed(make(name, shape), (whole_box(name, shape),), shape) for name, shape in names.items()}


NAMES = {"model.embed_tokens.weight": (10, 4), "model.norm.weight": (4,)}


def store(fill: bool = True) -> Store:
    return Store(whole(NAMES, fill), whole({f"exp_avg.{n}": s for n, s in NAMES.items()}, fill))


def saver(directory: Path, keep: int = 0) -> Saver:
    return Saver(directory, keep, "seed: 1\n", {"world": 1})


def state(step: int) -> TrainState:
    made = TrainState(step=step, tokens=step * 100, updates=step, cursor={"drawn": step, "per_source": {"a": step}})
    made.rng, made.corpus = "AAAA", {"tokenizer": "t"}
    return made


def test_round_trip_is_bitwise_and_the_state_comes_back(tmp_path: Path) -> None:
    path = saver(tmp_path).save(store(), state(7))
    assert path.name == "step-00000007"
    assert (tmp_path / "LATEST").read_text() == "step-00000007\n"
    empty = store(fill=False)
    loaded = load_checkpoint(path, empty)
    assert loaded == state(7)
    for part in ("model", "optimizer"):
        for name, placed in getattr(empty, part).items():
            assert torch.equal(placed.tensor, values(name, placed.boxes[0].shape)), name


def test_whole_tensors_are_plain_safetensors_under_their_canonical_names(tmp_path: Path) -> None:
    path = saver(tmp_path).save(store(), state(1))
    tensors = load_file(path / "model" / "rank-00000.safetensors")
    assert tensors.keys() == NAMES.keys()
    assert torch.equal(tensors["model.norm.weight"], values("model.norm.weight", (4,)))


def test_another_layout_reads_it(tmp_path: Path) -> None:
    """Two parameters fused in one local tensor, and rows 3..8 of another with padding: cut out of whole tensors."""
    shapes = {"gate": (6, 4), "up": (6, 4), "wide": (12, 4)}
    path = saver(tmp_path).save(Store(whole(shapes), {}), state(1))
    fused, padded = torch.zeros(6, 4), torch.full((8, 4), -1.0)
    all_of = slice(0, 4)
    target = {
        "gate": Placed(fused, (Box("gate", (6, 4), (2, 0), (3, 4), (slice(0, 3), all_of)),), (6, 4)),
        "up": Placed(fused, (Box("up", (6, 4), (2, 0), (3, 4), (slice(3, 6), all_of)),), (6, 4)),
        "wide": Placed(padded, (Box("wide", (12, 4), (3, 0), (5, 4), (slice(0, 5), all_of)),), (12, 4)),
    }
    load_checkpoint(path, Store(target, {}))
    assert torch.equal(fused[:3], values("gate", (6, 4))[2:5])
    assert torch.equal(fused[3:], values("up", (6, 4))[2:5])
    assert torch.equal(padded[:5], values("wide", (12, 4))[3:8])
    assert (padded[5:] == -1).all(), "padding is never stored and never touched"


def test_several_boxes_of_one_tensor_are_written_and_read(tmp_path: Path) -> None:
    full = values("w", (10, 4))
    local = torch.cat((full[7:], full[:2], full[2:7]))
    pieces = (
        Box("w", (10, 4), (7, 0), (3, 4), (slice(0, 3), slice(0, 4))),
        Box("w", (10, 4), (0, 0), (2, 4), (slice(3, 5), slice(0, 4))),
        Box("w", (10, 4), (2, 0), (5, 4), (slice(5, 10), slice(0, 4))),
    )
    path = saver(tmp_path).save(Store({"w": Placed(local, pieces, (10, 4))}, {}), state(1))
    assert load_file(path / "model" / "rank-00000.safetensors").keys() == {"w@7,0", "w@0,0", "w@2,0"}
    back = torch.zeros(5, 4)
    load_checkpoint(path, Store({"w": Placed(back, pieces[:2], (10, 4))}, {}))
    assert torch.equal(back, local[:5])


def test_a_later_save_that_dies_harms_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die at every system call of the commit in turn: the older checkpoint stays sound, and a new save works."""
    first = saver(tmp_path).save(store(), state(1))

    class Killed(BaseException):
        pass

    survived = 0
    for deadline in range(200):
        calls = 0

        def count(real):
            def call(*args, **kwargs):
                nonlocal calls
                calls += 1
                if calls > deadline:  # noqa: B023 - the loop's value is what is wanted
                    raise Killed
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ("fsync", "rename", "replace", "mkdir", "open"):
                patch.setattr(os, name, count(getattr(os, name)))
            try:
                saver(tmp_path).save(store(), state(2))
                survived += 1
            except Killed:
                pass
        found, faults = newest_sound(tmp_path)
        assert found is not None
        assert not faults, "what has the name of a checkpoint is complete"
        assert fault(first) is None
        if survived:
            assert found.name == "step-00000002"
            assert deadline > 10, "the commit takes more than ten system calls"
            break
        shutil.rmtree(tmp_path / "step-00000002", ignore_errors=True)
    assert survived
    saver(tmp_path).save(store(), state(3))
    assert [p.name for p in tmp_path.glob(".saving-*")] == []


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "manifest", "no manifest"])
def test_damage_is_noticed_and_the_older_checkpoint_is_used(tmp_path: Path, damage: str) -> None:
    older = saver(tmp_path).save(store(), state(1))
    newer = saver(tmp_path).save(store(), state(2))
    victim = newer / "optimizer" / "rank-00000.safetensors"
    data = victim.read_bytes()
    if damage == "truncate":
        victim.write_bytes(data[:-1])
    elif damage == "flip":
        victim.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "remove":
        victim.unlink()
    elif damage == "manifest":
        (newer / "manifest.json").write_text("{")
    else:
        (newer / "manifest.json").unlink()
    found, faults = newest_sound(tmp_path)
    assert found == older
    assert len(faults) == 1
    assert faults[0].startswith("step-00000002: ")
    shutil.rmtree(older)
    with pytest.raises(CheckpointError) as raised:
        newest_sound(tmp_path)
    assert raised.value.code == 13


def test_nothing_saved_is_not_an_error(tmp_path: Path) -> None:
    assert newest_sound(tmp_path / "nowhere") == (None, [])


def test_retention_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        saver(tmp_path, keep=2).save(store(), state(step))
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000004", "step-00000003"]


@pytest.mark.parametrize("killed", ["before LATEST", "in a removal", "in a save"])
def test_a_launch_finishes_what_the_last_save_was_killed_in(tmp_path: Path, killed: str) -> None:
    """The run is complete: no save comes that would do it."""
    config = Config(recipe="tiny", run=RunConfig(root=str(tmp_path), name="a"))
    config = replace(config, checkpoint=replace(config.checkpoint, keep=2, keep_every=3))
    run = open_run(config)
    saver(run.checkpoints).save(store(), state(3))
    for step in (4, 5, 6):
        saver(run.checkpoints).save(store(), state(step))
    left = run.checkpoints / ".removing-step-00000004"
    if killed == "before LATEST":
        (run.checkpoints / "LATEST").write_text("step-00000005\n")
    else:
        (run.checkpoints / "step-00000004").rename(left if "removal" in killed else left.with_name(".saving-x"))
    begin(run, config, [], state(6), steps=6)
    run.close()
    assert (run.checkpoints / "LATEST").read_text() == "step-00000006\n"
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "LATEST",
        *(f"step-{step:08d}" for step in (3, 5, 6)),
    ]


def test_a_save_never_retires_what_it_has_just_written(tmp_path: Path) -> None:
    """Newer checkpoints of an abandoned future are damaged; going on from an older one must not lose it to them."""
    for step in (60, 120, 180):
        saver(tmp_path).save(store(), state(step))
    for step in (120, 180):
        (tmp_path / f"step-{step:08d}" / "state.json").write_text("{}")
    found, faults = newest_sound(tmp_path)
    assert found is not None
    assert found.name == "step-00000060"
    assert len(faults) == 2
    saver(tmp_path, keep=1).save(store(), state(61))
    assert newest_sound(tmp_path)[0] == tmp_path / "step-00000061"
    assert (tmp_path / "LATEST").read_text() == "step-00000061\n"
    set_aside(tmp_path, newer_than=tmp_path / "step-00000061")
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000061"]
    assert len(list(tmp_path.glob(".unsound-*"))) == 2, "kept for whoever wants to look"


def test_each_rank_verifies_its_share(tmp_path: Path) -> None:
    """Damage in one file is found by exactly one of three ranks, and a checkpoint is sound if none finds any."""
    path = saver(tmp_path).save(store(), state(1))
    assert [fault(path, rank, 3) for rank in range(3)] == [None] * 3
    (path / "data.json").write_text("{}")
    assert sum(fault(path, rank, 3) is not None for rank in range(3)) == 1
    assert newest_sound(tmp_path / "none", Ranks(1, 2, any_of=bool, same=lambda _: -1)) == (None, [])
    with pytest.raises(CheckpointError):  # this rank's own share is sound; another rank says no
        newest_sound(tmp_path, Ranks(0, 3, any_of=lambda flag: True))


@pytest.mark.parametrize("name", ["../outside", "/elsewhere"])
def test_a_manifest_reaches_nothing_outside(tmp_path: Path, name: str) -> None:
    path = saver(tmp_path).save(store(), state(1))
    (tmp_path / "outside").write_text("x")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"][name] = {"size": 1, "sha256": ""}
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert "not inside the checkpoint" in str(fault(path))
    manifest["files"] = {}
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert "does not list" in str(fault(path))


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saver(tmp_path).save(store(), state(1))

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        saver(tmp_path).save(store(), state(2))
    found, _ = newest_sound(tmp_path)
    assert found is not None
    assert found.name == "step-00000001"


def test_nothing_is_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    path = saver(tmp_path).save(store(), state(1))
    load_checkpoint(path, store(fill=False))
    suffixes = {p.suffix for p in path.rglob("*") if p.is_file()}
    assert suffixes == {".json", ".safetensors", ".yaml"}
