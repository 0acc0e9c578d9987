"""scripts/precompile.py from the command line, with stand-ins for neuronx-cc and for the run under extraction."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import harness
from tests.compilers import VERSION, compiler, entry, extraction
from tests.end_to_end.test_readme import commands
from tests.neuron.library import DOUBLE, LAZY
from trainer.commands.precompile.extract import command_of

GRAPHS = {"1": "ok", "2": "ok"}
DRY, PLAIN, SHARED = commands("docs/precompile.md")


def command(tmp_path: Path, graphs: dict[str, str], *more: str, code: int = 0, line: str = PLAIN) -> list[str]:
    """A line of the page, with the stand-ins."""
    given = ["--compiler", shlex.join(compiler(tmp_path)), "--extract", extraction(tmp_path, graphs, code)]
    script, *words = shlex.split(line)[1:]
    return [sys.executable, str(harness.ROOT / script), *words, *given, *more]


def environment(tmp_path: Path) -> dict[str, str]:
    own = {"COMPILER_LOG": str(tmp_path / "log"), "NEURON_COMPILE_CACHE_URL": str(tmp_path / "cache")}
    return {**harness.environment(), "PYTHONPATH": str(harness.ROOT), **own}


def run(tmp_path: Path, graphs: dict[str, str], *more: str, code: int = 0, line: str = PLAIN) -> tuple[int, str]:
    done = subprocess.run(
        command(tmp_path, graphs, *more, code=code, line=line),
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def neffs(tmp_path: Path) -> list[str]:
    return sorted(path.parent.name for path in (tmp_path / "cache" / VERSION).glob("*/model.done"))


@pytest.mark.slow
def test_what_misses_is_said_first_then_compiled_then_found(tmp_path: Path) -> None:
    code, said = run(tmp_path, GRAPHS, line=DRY)
    assert code == 0, said
    assert "2 graphs: 0 compiled in" in said
    assert "2 to compile" in said
    assert neffs(tmp_path) == []
    code, said = run(tmp_path, GRAPHS, "--jobs", "2", "--gib", "1")
    assert code == 0, said
    assert "[2/2] MODULE_" in said
    assert neffs(tmp_path) == ["MODULE_1+e30acd3a", "MODULE_2+e30acd3a"]
    code, said = run(tmp_path, {**GRAPHS, "3": "fail"}, "--retries", "0")
    assert code == 3, said
    assert "3 graphs: 2 compiled" in said
    assert "MODULE_3+e30acd3a = None" in said
    assert "too many instructions" in said


@pytest.mark.slow
def test_another_machine_takes_from_the_shared_cache(tmp_path: Path) -> None:
    line = SHARED.replace("s3://bucket/graphs", str(tmp_path / "shared"))
    code, said = run(tmp_path, GRAPHS, line=line)
    assert code == 0, said
    (tmp_path / "cache").rename(tmp_path / "first")
    (tmp_path / "log").unlink()
    code, said = run(tmp_path, GRAPHS, line=line)
    assert code == 0, said
    assert f"2 graphs: 0 compiled in {tmp_path / 'cache'}, 2 in {tmp_path / 'shared'}, 0 to compile" in said
    assert not (tmp_path / "log").exists(), "the compiler was not started"
    assert len(neffs(tmp_path)) == 2


def test_a_backend_without_graphs_and_a_mistake_are_refused(tmp_path: Path) -> None:
    code, said = run(tmp_path, GRAPHS, "backend=native")
    assert code == 3
    assert "no other backend compiles graphs" in said
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_an_extraction_that_fails_ends_with_its_code_and_nothing_is_compiled(tmp_path: Path) -> None:
    code, said = run(tmp_path, GRAPHS, code=4)
    assert code == 4, said
    assert neffs(tmp_path) == []
    code, said = run(tmp_path, {})
    assert code == 3
    assert "it left none there and named none" in said
    entry(tmp_path / "cache", "9").joinpath("model.hlo_module.pb.lock").mkdir()
    code, said = run(tmp_path, GRAPHS)
    assert code == 3
    assert "can be read and written: Is a directory" in said


@pytest.mark.slow
def test_a_stop_leaves_no_compiler_and_no_lock(tmp_path: Path) -> None:
    words = command(tmp_path, {"1": "slow", "2": "ok"}, "--jobs", "2", "--gib", "1")
    process = subprocess.Popen(words, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while neffs(tmp_path) != ["MODULE_2+e30acd3a"] and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 10
    assert list((tmp_path / "cache").iterdir()) == [tmp_path / "cache" / VERSION]
    assert list((tmp_path / "cache").rglob("*.lock")) == []
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
    assert not any(str(tmp_path).encode() in line for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_itself_is_extracted(tmp_path: Path) -> None:
    """Through scripts/launch.py, on XLA's CPU, which keeps no graphs in a cache: so the command ends by saying that."""
    harness.write_corpus(tmp_path / "corpus")
    words = [*harness.SMALL, "train.steps=50", "precision=fp32", "data.sources=[{paths: [corpus]}]"]
    words += ["evaluation.every_steps=20", "checkpoint.every_steps=20", "backend=neuron", "run.name=nightly"]
    own = {**LAZY, "PYTHONPATH": os.pathsep.join([str(harness.ROOT), str(DOUBLE)])}
    done = subprocess.run(
        [sys.executable, str(harness.ROOT / "scripts" / "precompile.py"), *words],
        cwd=tmp_path,
        env={**environment(tmp_path), **own},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 3, done.stdout
    assert "it left none there and named none" in done.stdout
    assert "nothing was computed or kept" in done.stdout
    (line,) = re.findall(r"graphs compiled: (.*); outside", done.stdout)
    assert set(re.findall(r"([a-z-]+) \d+ \(run", line)) >= {"publish", "forward-backward", "optimizer", "evaluation"}
    assert list((tmp_path / "runs").glob("*")) == []


def test_the_run_is_extracted_as_it_will_be_launched() -> None:
    words = command_of(["recipe=deepseek7b", "run.name=nightly", "run.root=/fsx/runs"], "/fsx/runs", "nightly", [], 32)
    assert words[2:5] == ["--standalone", "--nproc_per_node", "32"]
    assert words[6:] == ["recipe=deepseek7b", "run.root=/fsx/runs/.precompile", "run.name=nightly"]
    several = command_of([], "runs", "a", ["--nnodes", "2"], 32)
    assert several[2:4] == ["--nnodes", "2"]
