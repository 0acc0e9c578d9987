"""scripts/ckpt.py: what it says of checkpoints whose contents the test has made, and what it does to them."""

from __future__ import annotations

import fcntl
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch

from tests import adapted, directories, harness
from trainer.checkpoint.names import checkpoints
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.commands.ckpt.difference import diff
from trainer.commands.ckpt.inspection import inspect
from trainer.commands.ckpt.listing import ls, verify
from trainer.commands.ckpt.pruning import prune
from trainer.config.groups.adapter import AdapterConfig
from trainer.errors import ConfigError, ExitCode
from trainer.parallel.boxes import Box, Placed, Store, whole_box

TOPOLOGY = {"world": 8, "tp": 2, "cp": 1, "dp": 4, "pp": 1, "device": "cpu"}


def placed(name: str, tensor: torch.Tensor, parts: int = 1) -> Placed:
    shape = tuple(tensor.shape)
    if parts == 1:
        return Placed(tensor, (whole_box(name, shape),), shape)
    rows, rest = shape[0] // parts, tuple(slice(0, n) for n in shape[1:])
    places = [slice(part * rows, (part + 1) * rows) for part in range(parts)]
    boxes = [Box(name, shape, (p.start, 0), (rows, *shape[1:]), (p, *rest)) for p in places]
    return Placed(tensor, tuple(boxes), shape)


def run_of(path: Path, *steps: int, parts: int = 1, **weights: torch.Tensor) -> Path:
    """A run that has saved. parts: chunks of each matrix."""
    saver = Saver(path / "checkpoints", 0, "seed: 1\n", TOPOLOGY)
    tensors = weights or {"wide": torch.arange(24.0).view(6, 4), "norm": torch.ones(4)}
    model = {name: placed(name, tensor, parts if tensor.dim() == 2 else 1) for name, tensor in tensors.items()}
    moments = {f"exp_avg.{name}": placed(f"exp_avg.{name}", torch.zeros_like(t)) for name, t in tensors.items()}
    for step in steps:
        saver.save(Store(model, moments), TrainState(step=step, tokens=10 * step, updates=step))
    return path


def names(run: Path) -> list[str]:
    return [path.name for path in checkpoints(run / "checkpoints")]


def test_ls_shows_a_row_for_each(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 5, 1200, 1300)
    (run / "checkpoints" / "step-00001200" / "data.json").write_text("{}")
    (run / "checkpoints" / "step-00001300" / "manifest.json").write_text("{")
    (run / "checkpoints" / ".unsound-step-00000001-0").mkdir()
    first, head, *rows, last = ls(str(run))
    assert first == f"{run / 'checkpoints'}: 3 checkpoints"
    assert head.split() == ["step", "saved", "size", "sound", "layout"]
    day = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    size = r"\d+\.\d kB"
    layout = r"8 ranks: tp 2, dp 4; cpu"
    assert re.fullmatch(rf"    5  {day}  {size}  yes    {layout}", rows[0])
    assert re.fullmatch(rf"1,200  {day}  {size}  NO     {layout}  data\.json: 2 bytes instead of \d+", rows[1])
    assert re.fullmatch(rf"1,300  {day} +\?  NO     \? +manifest\.json: no JSON .*<- LATEST", rows[2])
    assert last == "beside them: .unsound-step-00000001-0"
    assert list(ls(str(run / "checkpoints"))) == [first, head, *rows, last], "its directory of checkpoints will do"


def test_verify_reads_every_byte(tmp_path: Path) -> None:
    run, lines = run_of(tmp_path / "run", 1, 2), []
    assert verify(str(run), lines.append) == ExitCode.DONE
    shard = run / "checkpoints" / "step-00000001" / "model" / "rank-00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x55")
    assert all("yes" in row for row in list(ls(str(run)))[2:4]), "a flipped byte has no other size"
    lines.clear()
    assert verify(str(run), lines.append) == ExitCode.NO_CHECKPOINT
    assert lines[0].startswith(
        "step-00000001  UNSOUND: model/rank-00000.safetensors: its SHA-256 is not the manifest's"
    )
    assert lines[1].startswith("step-00000002  sound")
    assert lines[2] == "1 unsound: a resume passes over it"


def test_inspect_shows_tensors_and_progress(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 7, parts=3)
    lines = list(inspect(str(run), "*wide"))
    assert lines[0] == f"{run / 'checkpoints' / 'step-00000007'}: saved by 8 ranks: tp 2, dp 4; cpu"
    assert lines[1] == "  step 7, tokens 70, updates 7; cursor None"
    assert [line.split() for line in lines[3:]] == [
        ["model", "wide", "6", "x", "4", "float32", "3", "rank-00000.safetensors"],
        ["optimizer", "exp_avg.wide", "6", "x", "4", "float32", "1", "rank-00000.safetensors"],
    ]
    with pytest.raises(ConfigError, match="one of the 4 tensors"):
        list(inspect(str(run), "nothing"))


def test_diff_measures_tensors_across_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.commands.ckpt.difference.BLOCK", 5)  # a row at a time
    wide = torch.arange(24.0).view(6, 4)
    far = wide.clone()
    far[5, 0] += 2.3  # max |a| is 23
    a = run_of(tmp_path / "a", 1, wide=wide, same=torch.ones(3), gone=torch.ones(2), grown=torch.ones(2))
    half = torch.ones(3).bfloat16()
    b = run_of(tmp_path / "b", 1, parts=2, wide=far, same=half, grown=torch.ones(4), nan=torch.ones(1))
    rows = [re.split(r"  +", line) for line in list(diff(str(a), str(b)))[3:]]
    assert ["model", "wide", "2.300e+00", "1.000e-01", "6 x 4"] in rows
    assert ["model", "gone", "2, in A only"] in [[cell for cell in row if cell] for row in rows]
    assert ["model", "grown", "A 2, B 4"] in [[cell for cell in row if cell] for row in rows]
    assert ["model", "nan", "1, in B only"] in [[cell for cell in row if cell] for row in rows]
    assert rows[-1] == ["3 of 10 tensors are equal"], "same, and the moments of same and wide"
    newest = a / "checkpoints" / "step-00000001"
    assert list(diff(str(a), str(newest)))[2:] == ["8 of 8 tensors are equal"]


def test_a_nan_is_told_from_a_number_and_from_nothing_else(tmp_path: Path) -> None:
    values = torch.tensor([1.0, float("nan"), float("inf")])
    a = run_of(tmp_path / "a", 1, w=values)
    assert list(diff(str(a), str(run_of(tmp_path / "b", 1, w=values))))[2:] == ["2 of 2 tensors are equal"]
    c = run_of(tmp_path / "c", 1, w=torch.tensor([1.0, 2.0, float("inf")]))
    assert "nan" in list(diff(str(a), str(c)))[3]


def test_prune_shows_first_and_removes_when_told(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 1, 2, 3, 4, 5, 6)
    (run / "checkpoints" / "step-00000006" / "state.json").write_text("{}")
    (run / "checkpoints" / "step-00000001" / "state.json").write_text("{}")
    lines = list(prune(str(run), keep=2, keep_every=2, yes=False))
    assert [line.split()[1] for line in lines[:6]] == ["leave", "keep", "remove", "keep", "keep", "leave"]
    assert lines[6].startswith("1 checkpoints, ")
    assert "give --yes" in lines[6]
    assert len(names(run)) == 6
    lines = list(prune(str(run), keep=1, keep_every=0, yes=True))
    assert lines[-1].endswith("removed")
    assert names(run) == ["step-00000006", "step-00000005", "step-00000001"], "the newest sound one stays"
    assert list(prune(str(run), keep=1, keep_every=0, yes=True))[-1] == "nothing to remove"
    for keep, every in ((0, 0), (1, -1)):
        with pytest.raises(ConfigError):
            list(prune(str(run), keep, every, yes=True))


def test_prune_leaves_a_live_run_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 1, 2, 3)
    with open(run / ".lock", "a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="no process trains it"):
            list(prune(str(run), 1, 0, yes=True))
    assert len(names(run)) == 3


BAD = {
    "no such run": (["ls", "nowhere"], "RUN = 'nowhere'"),
    "a directory without checkpoints": (["verify", "."], "with a checkpoint in it"),
    "no command": ([], "required"),
    "an unknown command": (["rm", "run"], "invalid choice"),
    "a word for a number": (["prune", "run", "--keep", "all"], "invalid int"),
    "prune without a number": (["prune", "run"], "--keep"),
    "a broken index": (["inspect", "run"], "index.json"),
    "a diff with a broken one": (["diff", "run", "run"], "scripts/ckpt.py verify"),
}


@pytest.mark.slow
def test_mistakes_are_one_message_and_exit_3(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 1)
    (run / "checkpoints" / "step-00000001" / "model" / "index.json").write_text('{"tensors": 1}')
    code = "import sys, runpy; sys.argv[0] = 'ckpt.py'; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    for arguments, words in BAD.values():
        done = subprocess.run(
            [sys.executable, "-c", code, str(harness.ROOT / "scripts" / "ckpt.py"), *arguments],
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
            env=harness.environment() | {"PYTHONPATH": str(harness.ROOT)},
        )  # fmt: skip
        assert done.returncode == 3, (arguments, done)
        assert words.replace("index.json", "tensors is 1") in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_looking_needs_no_torch(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", 1)
    code = (
        "import sys; from trainer.commands.ckpt.listing import ls, verify; "
        "from trainer.commands.ckpt.inspection import inspect; from trainer.commands.ckpt.pruning import prune; "
        "run = sys.argv[1]; lines = [*ls(run), *inspect(run, '*'), *prune(run, 1, 0, False)]; "
        "verify(run, lines.append); "
        "assert len(lines) > 9; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, timeout=60, check=True,
        env=harness.environment() | {"PYTHONPATH": str(harness.ROOT)},
    )  # fmt: skip
    assert done.stdout == "False\n"


def test_a_base_is_listed_proven_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lora = AdapterConfig(kind="lora", rank=2)
    for name in ("one", "other"):
        directories.write(Path(name), tensors=directories.tensors_of(directories.CONFIG, seed=len(name)))
    tensors = adapted.draw(Path("one"), lora, ["lm_head"])
    for run, base in (("a", "one"), ("b", "one"), ("c", "other")):
        adapted.save(Path(run), Path(base), lora, tensors)
    shown = "\n".join(inspect("a", "*"))
    assert "beside its base, which holds what was not trained: one (2 files)" in shown
    assert sha256(Path("one/model.safetensors").read_bytes()).hexdigest()[:16] in shown
    assert list(diff("a", "b"))[2:] == ["both stand on one (2 files)", "2 of 2 tensors are equal"]
    (line,) = (line for line in diff("a", "c") if "stands on" in line)
    assert line.startswith("A stands on one (2 files), B on other (2 files): model.safetensors has another SHA-256")
    said: list[str] = []
    assert verify("a", said.append) == ExitCode.DONE
    assert "base one (2 files): as it was" in said
    Path("one").rename("elsewhere")
    said.clear()
    assert verify("a", said.append) == ExitCode.DONE, "it may be elsewhere"
    assert any(line.startswith("base one (2 files): not there as it was: is there") for line in said)
