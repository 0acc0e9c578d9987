"""Checkpoints that somebody made up, or that a tool broke: signed, so that every hash is right.

What no run can use is passed over, as any unsound checkpoint is; what only does not fit this run is refused with 3.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.forgery import INDEX, SHARD, edit, edit_header, edit_tensors, resume, save, sign, store
from trainer.checkpoint.directory import newest_sound
from trainer.errors import CheckpointError, ConfigError
from trainer.parallel.boxes import Placed, Store

Change = Callable[[Path], None]


def index(change: Callable[[dict[str, Any]], Any]) -> Change:
    """A change of the model's tensors in the index."""
    return lambda path: edit(path, INDEX, lambda value: change(value["tensors"]))


def embed(**fields: Any) -> Change:
    """Other values in the embedding's entry."""
    return index(lambda tensors: tensors["embed"].update(fields))


def listed(**fields: Any) -> Change:
    """The norm's chunk as format 1 has it, with other values."""
    chunk = {"offsets": [0], "sizes": [4], "file": "rank-00000.safetensors", "key": "norm", **fields}
    return index(lambda tensors: tensors.update(norm={"dtype": "float32", "shape": [4], "chunks": [chunk]}))


def state(**fields: Any) -> Change:
    return lambda path: edit(path, "state.json", lambda value: value.update(fields))


def data(**fields: Any) -> Change:
    return lambda path: edit(path, "data.json", lambda value: value.update(fields))


def manifest(change: Callable[[dict[str, Any]], Any]) -> Change:
    return lambda path: edit(path, "manifest.json", change)


def header(change: Callable[[dict[str, Any]], Any]) -> Change:
    return lambda path: edit_header(path / SHARD, change)


def text(name: str, content: bytes) -> Change:
    def change(path: Path) -> None:
        (path / name).write_bytes(content)

    return change


def replaced(name: str, make: Callable[[Path], Any]) -> Change:
    """A file becomes something else, made at its path."""

    def change(path: Path) -> None:
        (path / name).unlink()
        make(path / name)

    return change


def link_out(path: Path) -> None:
    """A shard is a link to the same bytes elsewhere."""
    outside = path.parent.parent / "outside"
    shutil.move(path / SHARD, outside)
    (path / SHARD).symlink_to(outside)


def link_part(path: Path) -> None:
    outside = path.parent.parent / "outside"
    shutil.move(path / "model", outside)
    (path / "model").symlink_to(outside)


def outside_shard(path: Path) -> None:
    """The index follows a path to a file that is there and right."""
    shutil.copy(path / SHARD, path.parent.parent / "rank-00000.safetensors")
    listed(file="../../../rank-00000.safetensors")(path)


def unlisted_shard(path: Path) -> None:
    """A second file, right in itself, which the manifest does not know."""
    shutil.copy(path / SHARD, path / "model" / "rank-00001.safetensors")
    edit_tensors(path / "model" / "rank-00001.safetensors", lambda t: [t.pop(k) for k in list(t) if k != "norm"])
    edit_tensors(path / SHARD, lambda tensors: tensors.pop("norm"))
    index(lambda tensors: tensors["norm"].update(ranks=[1]))(path)


def idle_shard(path: Path) -> None:
    """The manifest lists a file in which the index finds nothing."""
    shutil.copy(path / SHARD, path / "model" / "rank-00001.safetensors")
    entry = {"model/rank-00001.safetensors": {"size": 0, "sha256": "0" * 64}}
    manifest(lambda value: value["files"].update(entry))(path)


def header_length(length: int) -> Change:
    def change(path: Path) -> None:
        content = (path / SHARD).read_bytes()
        (path / SHARD).write_bytes(length.to_bytes(8, "little") + content[8:])

    return change


def swapped(tensors: dict[str, Any]) -> None:
    """The same bytes under two keys, and a hole where one of them was."""
    tensors["embed@0,0"]["data_offsets"] = [32, 64]


DEEP = b"[" * 200_000 + b"]" * 200_000
UNSOUND: dict[str, tuple[Change, str]] = {
    "a shard by a path that leads out": (outside_shard, "no rank's file"),
    "an absolute shard": (listed(file="/etc/passwd"), "no rank's file"),
    "a shard that the manifest does not list": (unlisted_shard, "rank-00001.safetensors, which the manifest"),
    "a shard that the index does not name": (idle_shard, "rank-00001"),
    "chunks with a gap": (embed(shape=[7, 4], cuts=[[1, 2], [0]]), "exactly once"),
    "chunks in the wrong order": (embed(cuts=[[2, 0], [0]]), "exactly once"),
    "chunks that overlap": (
        index(lambda t: t.update(norm={"dtype": "float32", "shape": [4], "chunks": [
            {"offsets": [0], "sizes": [3], "file": "rank-00000.safetensors", "key": "norm@0"},
            {"offsets": [2], "sizes": [2], "file": "rank-00000.safetensors", "key": "norm@2"},
        ]})),
        "overlap",
    ),
    "a tensor of no chunks": (listed(offsets=[4], sizes=[0], key="norm@4"), "exactly once"),
    "a chunk of more dims than its tensor": (listed(offsets=[0, 0], sizes=[4, 1]), "dims"),
    "a key that says another place": (listed(key="embed@0,0"), "key"),
    "a tensor in the file that the index does not name": (
        lambda path: edit_tensors(path / SHARD, lambda t: t.update(extra=torch.ones(2))),
        "holds extra, which the index does not name",
    ),
    "a tensor in the index that the file lacks": (
        lambda path: edit_tensors(path / SHARD, lambda t: t.pop("norm")),
        "lacks norm",
    ),
    "a dtype in the file that is not the index's": (
        lambda path: edit_tensors(path / SHARD, lambda t: t.update(norm=t["norm"].bfloat16())),
        r"norm is bfloat16 \[4\], the index says float32 \[4\]",
    ),
    "a shape in the file that is not the index's": (
        lambda path: edit_tensors(path / SHARD, lambda t: t.update(norm=torch.ones(2, 2))),
        r"norm is float32 \[2, 2\]",
    ),
    "an unknown dtype in the index": (embed(dtype="float31"), "unknown"),
    "a dtype that is an attribute of torch": (embed(dtype="load"), "unknown"),
    "an unknown dtype in the file": (header(lambda h: h["norm"].update(dtype="F31")), "unknown"),
    "a negative shape": (embed(shape=[-6, 4]), "shape"),
    "a shape of floats": (embed(shape=[6.0, 4]), "shape"),
    "a shape with true": (embed(shape=[True, 4]), "shape"),
    "a huge shape": (embed(shape=[2**61, 2**61]), "larger than anything|whole number"),
    "a cut that is NaN": (embed(cuts=[[float("nan")], [0]]), "NaN"),
    "a cut beyond 64 bits": (embed(cuts=[[0, 2**70], [0]]), "whole number"),
    "a rank that is text": (embed(ranks=["0", "0"]), "ranks"),
    "negative offsets in the file": (header(lambda h: h["norm"].update(data_offsets=[-16, 0])), "data_offsets"),
    "two tensors on the same bytes": (header(swapped), "overlap or leave gaps|data_offsets"),
    "an index nested without end": (text(INDEX, DEEP), "nested too deeply"),
    "a key that stands there twice": (text(INDEX, b'{"tensors": {}, "tensors": {}}'), "twice"),
    "an index in UTF-16": (text(INDEX, '{"tensors": {}}'.encode("utf-16")), "no JSON"),
    "an index of a later format": (lambda path: edit(path, INDEX, lambda v: v.update(format=3)), "format 3"),
    "an index that is a list": (text(INDEX, b"[]"), "not an object"),
    "a header longer than its file": (header_length(1 << 40), "a header of"),
    "a header of the largest length": (header_length((1 << 64) - 1), "a header of"),
    "a header that ends in its middle": (header_length(16), "no JSON"),
    "an empty shard": (text(SHARD, b""), "a header of"),
    "a manifest with an absolute path": (manifest(lambda m: m["files"].update({"/x": m["files"][INDEX]})), "inside"),
    "a manifest that climbs": (manifest(lambda m: m["files"].update({"model/../../x": m["files"][INDEX]})), "inside"),
    "a manifest of another step": (manifest(lambda m: m.update(step=3)), "of step 3, in step-00000002"),
    "a manifest whose step is text": (manifest(lambda m: m.update(step="2")), "whole number"),
    "a manifest of a later format": (manifest(lambda m: m.update(format=99)), "format 99"),
    "a manifest without topology": (manifest(lambda m: m.pop("topology") and None), "topology"),
    "a state of another step": (state(step=1, updates=1), "step is 1, the manifest's 2"),
    "a negative step": (state(step=-2), "step is -2"),
    "tokens as a float": (state(tokens=2.0), "tokens is 2.0"),
    "more updates than steps": (state(updates=5), "updates is 5"),
    "random state that is no base64": (state(rng="!!"), "rng is '!!'"),
    "random state that is a list": (state(rng=[1]), "rng"),
    "a state without random state": (lambda path: edit(path, "state.json", lambda v: v.pop("rng") and None), "rng"),
    "a cursor of floats": (data(cursor={"drawn": 1.5}), "cursor"),
    "a cursor that is a list": (data(cursor=[1]), "cursor"),
    "no cursor": (lambda path: edit(path, "data.json", lambda v: v.pop("cursor") and None), "cursor is missing"),
    "fingerprints that are numbers": (data(corpus={"tokenizer": 5}), "fingerprint"),
    "a link to a shard elsewhere": (link_out, "a link"),
    "a link to a part elsewhere": (link_part, "a link"),
    "a pipe for a shard": (replaced(SHARD, os.mkfifo), "no regular file"),
    "a directory for a shard": (replaced(SHARD, os.mkdir), "no regular file"),
    "a pipe for the manifest": (replaced("manifest.json", os.mkfifo), "no regular file"),
}  # fmt: skip
UNSIGNED = {
    "a size as text": (manifest(lambda m: m["files"][INDEX].update(size="12")), "size of model/index.json"),
    "a size that is true": (manifest(lambda m: m["files"][INDEX].update(size=True)), "size of model/index.json"),
    "a hash that is a number": (manifest(lambda m: m["files"][INDEX].update(sha256=7)), "sha256 of model/index.json"),
    "a hash in capitals": (manifest(lambda m: m["files"][INDEX].update(sha256="A" * 64)), "sha256 of"),
}
"""What signing would put right."""


@pytest.mark.parametrize("kind", [*UNSOUND, *UNSIGNED])
def test_what_no_run_can_use_is_passed_over(tmp_path: Path, kind: str) -> None:
    change, words = {**UNSOUND, **UNSIGNED}[kind]
    directory = tmp_path / "checkpoints"
    older, newer = save(directory, 1, 2)
    change(newer)
    if kind not in UNSIGNED and (newer / "manifest.json").is_file():
        sign(newer)
    _, faults = newest_sound(directory)
    assert len(faults) == 1
    assert re.search(words, faults[0]), faults[0]
    found, loaded = resume(directory)
    assert (found, loaded.step) == (older, 1)
    shutil.rmtree(older)
    with pytest.raises(CheckpointError, match="step-00000002") as raised:
        resume(directory)
    assert raised.value.code == 13


def with_weight(name: str, values: torch.Tensor) -> Change:
    """A weight more or another one, in the file and in the index alike."""

    def change(path: Path) -> None:
        edit_tensors(path / SHARD, lambda tensors: tensors.update({name: values}))
        dtype = str(values.dtype).removeprefix("torch.")
        entry = {"dtype": dtype, "shape": list(values.shape), "cuts": [[0]] * values.dim(), "ranks": [0]}
        index(lambda tensors: tensors.update({name: entry}))(path)

    return change


def with_moment(name: str) -> Change:
    def change(path: Path) -> None:
        edit_tensors(path / SHARD.replace("model", "optimizer"), lambda tensors: tensors.update({name: torch.ones(4)}))
        entry = {"dtype": "float32", "shape": [4], "cuts": [[0]], "ranks": [0]}
        edit(path, INDEX.replace("model", "optimizer"), lambda value: value["tensors"].update({name: entry}))

    return change


def without_norm(path: Path) -> None:
    edit_tensors(path / SHARD, lambda tensors: tensors.pop("norm"))
    index(lambda tensors: tensors.pop("norm") and None)(path)


OTHER: dict[str, tuple[Change, str, str]] = {
    "a weight that this model does not have": (with_weight("extra", torch.ones(2)), "extra", "1 tensors that"),
    "a weight that the checkpoint lacks": (without_norm, "norm", "shape None"),
    "another shape": (with_weight("norm", torch.ones(5)), "norm", r"shape \(5,\)"),
    "another precision": (with_weight("norm", torch.ones(4).bfloat16()), "float32", "norm in bfloat16"),
    "a moment of an unknown weight": (with_moment("exp_avg.extra"), "exp_avg.extra", "1 tensors that"),
    "a moment of an unknown kind": (with_moment("momentum.norm"), "exp_avg", "exp_avg, momentum"),
}


@pytest.mark.parametrize("kind", OTHER)
def test_what_does_not_fit_this_run_is_refused(tmp_path: Path, kind: str) -> None:
    change, value, words = OTHER[kind]
    (path,) = save(tmp_path, 1)
    change(path)
    sign(path)
    assert newest_sound(tmp_path) == (path, []), "sound in itself"
    into = store()
    with pytest.raises(ConfigError) as raised:
        resume(tmp_path, into)
    (problem,) = raised.value.problems
    assert re.search(words, problem.rule), problem
    assert value in str(problem.value)
    held = [*into.model.values(), *into.optimizer.values()]
    assert not any(placed.tensor.any() for placed in held), "refused before anything is read"


def test_moments_of_what_is_frozen_now_are_let_go_of(tmp_path: Path) -> None:
    """A resume may freeze more: the weight is still there, and nobody asks for its moments."""
    save(tmp_path, 1)
    into = store()
    fewer: dict[str, Placed] = {name: placed for name, placed in into.optimizer.items() if name != "exp_avg.norm"}
    assert resume(tmp_path, Store(into.model, fewer))[1].step == 1
    assert into.model["norm"].tensor.any()


def test_random_state_of_another_generator_is_refused_by_name(tmp_path: Path) -> None:
    (path,) = save(tmp_path, 1)
    state(rng="AAAA")(path)
    sign(path)
    with pytest.raises(CheckpointError, match=r"state\.json"):
        resume(tmp_path)
