"""A thousand random changes of a checkpoint, half of them signed: refused by name, or loaded as what it should be."""

from __future__ import annotations

import json
import os
import pickle  # noqa: TID251 - to prove that nobody calls it
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.forgery import SHARD, edit_header, resume, save, sign, store
from tests.selection import in_ci
from trainer.checkpoint.state import TrainState
from trainer.errors import CheckpointError, ConfigError, RunError
from trainer.parallel.boxes import Store

pytestmark = pytest.mark.slow
ROUNDS = 10
EACH = 100
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2, 7, 2**31, 2**63, 2**64, 10**40, 0.5, -0.0, 1e308, "", "x", "../../x.safetensors",
    "/etc/passwd", "rank-00001.safetensors", "rank-00000.safetensors", "norm", "float16", "bfloat16", "float32", "F64",
    [], [0], [0, 0], [1, 2, 3], [[0], [0]], {}, {"a": 1}, [{}], "\u0000", "a" * 5000,
    "cos\nsystem\n(S'touch /tmp/x'\ntR.",
]  # fmt: skip
"""Values that turn up where others belong."""


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON value."""
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield from leaves(item, (*at, key))


def change_json(value: Any, draw: random.Random) -> None:
    """One to three places get an odd value, a neighbour's, another name, or go."""
    for _ in range(draw.randint(1, 3)):
        places = list(leaves(value))
        if not places:
            return
        *way, last = draw.choice(places)
        holder = value
        for key in way:
            holder = holder[key]
        kind = draw.randrange(5)
        if kind == 0:
            del holder[last]
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice([f"{last}x", "extra", "../x", "model/x.safetensors"])] = holder.pop(last)
        elif kind == 2 and isinstance(holder[last], int):
            holder[last] += draw.choice([-1, 1, 4, 2**33])
        elif kind == 3:
            other = draw.choice(places)
            found: Any = value
            for key in other:
                found = found[key] if isinstance(found, (dict, list)) and _has(found, key) else found
            holder[last] = json.loads(json.dumps(found))
        else:
            holder[last] = draw.choice(ODD)


def _has(value: Any, key: Any) -> bool:
    return key in value if isinstance(value, dict) else isinstance(key, int) and key < len(value)


def change_bytes(data: bytes, draw: random.Random) -> bytes:
    """Flip, cut, double or insert; mostly near the front, where headers are."""
    at = draw.randrange(max(1, len(data) if draw.random() < 0.5 else min(len(data), 200)))
    kind = draw.randrange(5)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :] if data else b"x"
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + data[at : at + 40] * 2 + data[at + 40 :]
    if kind == 3:
        return data[:at] + draw.randbytes(draw.randint(1, 12)) + data[at:]
    return data[at:]


def mutate(path: Path, draw: random.Random) -> str:
    """One change of a checkpoint; what kind."""
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())
    name = draw.choice(files)
    file, kind = path / name, draw.choice(["json", "json", "json", "header", "header", "bytes", "bytes", "file"])
    if kind == "json":
        name = draw.choice([name for name in files if name.endswith(".json")])
        value = json.loads((path / name).read_text())
        change_json(value, draw)
        (path / name).write_text(json.dumps(value))
    elif kind == "header":
        edit_header(path / SHARD, lambda header: change_json(header, draw))
    elif kind == "bytes":
        file.write_bytes(change_bytes(file.read_bytes(), draw))
    else:
        change_file(path, file, path / draw.choice(files), draw)
    return kind


def change_file(path: Path, file: Path, other: Path, draw: random.Random) -> None:
    """A file goes, or becomes another one, a link or a pipe."""
    kind = draw.randrange(5)
    content = other.read_bytes()
    file.unlink()
    if kind == 1:
        file.write_bytes(content)
    elif kind == 2:
        file.symlink_to(path.parent.parent / "outside")
    elif kind == 3:
        os.mkfifo(file)
    elif kind == 4:
        file.mkdir()


def same_schema(found: Store, state: TrainState) -> bool:
    """What was loaded has the types, dtypes and shapes that a run expects."""
    wanted = store()
    pairs = [(found.model, wanted.model), (found.optimizer, wanted.optimizer)]
    tensors = all(
        mine[name].tensor.shape == placed.tensor.shape and mine[name].tensor.dtype == placed.tensor.dtype
        for mine, theirs in pairs
        for name, placed in theirs.items()
    )
    counts = (state.step, state.tokens, state.updates, state.nonfinite)
    return tensors and all(type(count) is int and count >= 0 for count in counts) and isinstance(state.rng, str)


def attempt(run: Path, into: Store) -> tuple[RunError | None, TrainState]:
    """Resume: the refusal, or the state. Anything else that is raised is a defect."""
    try:
        return None, resume(run, into)[1]
    except (CheckpointError, ConfigError) as error:
        return error, TrainState()


def outside(root: Path) -> dict[str, tuple[int, int]]:
    """What stands beside the checkpoint that is changed."""
    return {
        str(file): (file.stat().st_size, file.stat().st_mtime_ns)
        for file in root.rglob("*")
        if "step-00000002" not in str(file) and file.is_file()
    }


@pytest.mark.parametrize("seed", in_ci(range(ROUNDS), range(3)))
def test_random_changes_are_refused_or_harmless(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was executed")

    for module, names in (
        (pickle, ("load", "loads", "Unpickler")),
        (os, ("system", "posix_spawn")),
        (subprocess, ("Popen",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    draw = random.Random(seed)
    run = tmp_path / "run" / "checkpoints"
    (sound,) = save(tmp_path / "kept", 2)
    (tmp_path / "outside").write_bytes(b"outside")
    before = outside(tmp_path)
    outcomes: Counter[str] = Counter()
    for number in range(EACH):
        shutil.rmtree(run.parent, ignore_errors=True)
        path = run / sound.name
        shutil.copytree(sound, path)
        kind = mutate(path, draw)
        signed = number % 2 == 0
        if signed:
            try:
                sign(path)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                signed = False  # the manifest itself is what was changed
        into = store()
        refusal, state = attempt(run, into)
        if refusal is None:
            assert same_schema(into, state)
            assert signed or kind != "header", "without a signature tensors are as they were"
            outcomes[f"{kind} loaded"] += 1
        else:
            (problem,) = refusal.problems
            assert refusal.code in (3, 13)
            assert problem.rule
            assert problem.remedy
            outcomes[f"{kind} refused {int(refusal.code)}"] += 1
        assert outside(tmp_path) == before, "nothing is written"
    print(dict(outcomes))
    assert sum(count for name, count in outcomes.items() if "refused" in name) > EACH // 2
    assert any("13" in name for name in outcomes)
