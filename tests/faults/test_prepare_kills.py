"""What ends a preparation before its time costs a unit at the most, and changes no byte of what it leaves."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests import harness
from trainer.data.tokenizer import train_bpe

pytestmark = pytest.mark.slow
PROGRAM = """
import runpy, sys
from trainer.data.preparing import units
units.SMALLEST = 40_000
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""scripts/prepare.py, with units so small that there are many."""


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of about 30 units together, and a tokenizer."""
    cwd = tmp_path_factory.mktemp("kills")
    draw = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta", "caf\u00e9", "\u4f60\u597d", "\n", "12345"]
    for name in ("rows", "more"):
        texts = [" ".join(draw.choices(words, k=draw.randint(5, 400))) for _ in range(600)]
        texts[300:320] = texts[:20]
        (cwd / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (cwd / "tokenizer").mkdir()
    train_bpe(iter([" ".join(words)] * 5), 300).save(cwd / "tokenizer" / "tokenizer.json")
    (cwd / "program.py").write_text(PROGRAM)
    assert finished(start(cwd, "undisturbed"))[0] == 0
    return cwd


def start(cwd: Path, output: str, *more: str, before: str = "") -> subprocess.Popen[str]:
    words = [sys.executable, "program.py", str(harness.ROOT / "scripts" / "prepare.py"), "--source", "rows.jsonl"]
    words += ["--source", "more.jsonl", "--output", output, "--processes", "2", "--shard-tokens", "50000", *more]
    words += ["data.tokenizer.kind=file", "data.tokenizer.path=tokenizer", "data.heldout_fraction=0.05"]
    if before:
        words = ["bash", "-c", f'{before}; exec "$@"', "bash", *words]
    environment = harness.environment() | {"PYTHONPATH": str(harness.ROOT)}
    return subprocess.Popen(
        words, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def left(cwd: Path, output: str) -> dict[str, bytes]:
    found = {path.relative_to(cwd / output).as_posix(): path for path in (cwd / output).rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items()}


def kill_all(process: subprocess.Popen[str]) -> bool:
    """SIGKILL to the whole group; whether it was still at work."""
    alive = process.poll() is None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, finished(process)
        assert time.monotonic() < deadline
        time.sleep(0.002)


def units(cwd: Path, output: str) -> int:
    return sum(1 for _ in (cwd / output).glob("*/.work/unit-*"))


LONG = [pytest.param(20, dedup, marks=pytest.mark.long) for dedup in ("none", "exact", "near")]


@pytest.mark.parametrize(("kills", "dedup"), [(3, "exact"), *LONG])
def test_random_kills_change_no_byte(cwd: Path, kills: int, dedup: str) -> None:
    """Each strikes at a random moment of the work that is left; who survives begins anew elsewhere."""
    draw = random.Random(kills)
    attempt, struck = 0, 0
    name = f"{dedup}-{kills}"
    assert finished(start(cwd, name, "--dedup", dedup))[0] == 0
    whole = left(cwd, name)
    while struck < kills:
        output = f"killed-{name}-{attempt}"
        process = start(cwd, output, "--dedup", dedup)
        wait_for(process, (cwd / output / "tokenizer").exists)
        time.sleep(draw.uniform(0.0, 1.5))
        if kill_all(process):
            struck += 1
        else:
            assert left(cwd, output) == whole
            attempt += 1
    assert finished(start(cwd, output, "--dedup", dedup))[0] == 0
    assert left(cwd, output) == whole


def test_a_worker_that_dies_is_named_and_the_rest_is_kept(cwd: Path) -> None:
    process = start(cwd, "died")
    wait_for(process, lambda: units(cwd, "died") > 2)
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(victim := int(listed.split()[0]), signal.SIGKILL)
    code, output = finished(process)
    assert code == 4
    assert f"(process {victim}) was killed by SIGKILL, as the kernel does when memory runs out" in output
    assert "fewer --processes" in output
    assert "Traceback" not in output
    assert units(cwd, "died") > 2
    assert finished(start(cwd, "died"))[0] == 0
    assert left(cwd, "died") == left(cwd, "undisturbed")


def test_a_signal_stops_it_and_says_what_is_kept(cwd: Path) -> None:
    process = start(cwd, "stopped")
    wait_for(process, lambda: units(cwd, "stopped") > 2)
    process.send_signal(signal.SIGTERM)
    code, output = finished(process)
    assert code == 10
    assert "units are kept, and the same command goes on" in output
    assert "Traceback" not in output
    listed = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True, check=False).stdout
    assert not listed.split()
    assert finished(start(cwd, "stopped"))[0] == 0
    assert left(cwd, "stopped") == left(cwd, "undisturbed")


def test_what_cannot_be_written_is_said_and_goes_on_later(cwd: Path) -> None:
    """A limit on the size of files stands for a full disk: both are errors of write."""
    code, output = finished(start(cwd, "full", before="ulimit -f 60"))
    assert code == 4
    assert "--output" in output
    assert "cannot be written: File too large" in output
    assert "give the same command again" in output
    assert "Traceback" not in output
    assert finished(start(cwd, "full"))[0] == 0
    assert left(cwd, "full") == left(cwd, "undisturbed")


def test_a_second_one_is_refused_while_the_first_is_at_work(cwd: Path) -> None:
    first = start(cwd, "twice")
    wait_for(first, lambda: units(cwd, "twice") > 0)
    os.killpg(first.pid, signal.SIGSTOP)
    code, output = finished(start(cwd, "twice"))
    os.killpg(first.pid, signal.SIGCONT)
    assert (code, "another one is at it" in output) == (4, True), output
    assert finished(first)[0] == 0
    assert left(cwd, "twice") == left(cwd, "undisturbed")
