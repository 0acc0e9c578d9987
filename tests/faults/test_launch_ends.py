"""scripts/launch.py with small workers that do as told: whom it names, what it restarts, and how long it waits."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import harness
from tests.faults.test_replaced_node import Pair
from tests.selection import long
from trainer.commands.launch.attempt import SECONDS_AFTER_A_FAILURE

pytestmark = pytest.mark.slow

WORKER = """
import os, signal, sys, time
open(f"started-{os.environ['RANK']}", "a").write("x")
for word in sys.argv[1 + int(os.environ["RANK"])].split(","):
    what, value = word[0], float(word[1:] or 0)
    if what == "s":  # sleep
        time.sleep(value)
    elif what == "d":  # deaf
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    elif what == "k":  # killed by a signal
        os.kill(os.getpid(), int(value))
    elif what == "f":  # the first time only
        if len(open(f"started-{os.environ['RANK']}").read()) > 1:
            os._exit(0)
    else:
        os._exit(int(value))
"""


def launch(cwd: Path, first: str, second: str, *arguments: str) -> tuple[int, str, float]:
    """Code, output and seconds of a launch of two workers that act by their plans; without Python's own start."""
    (cwd / "worker.py").write_text(WORKER)
    script = str(harness.ROOT / "scripts" / "launch.py")
    done = subprocess.run(
        [sys.executable, script, "--standalone", "--nproc_per_node", "2", *arguments, "worker.py", first, second],
        cwd=cwd,
        env=harness.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, time.time() - (cwd / "started-0").stat().st_mtime


def starts(cwd: Path, rank: int = 0) -> int:
    """How often a worker was started."""
    return len((cwd / f"started-{rank}").read_text())


@pytest.mark.parametrize(
    ("first", "second", "code", "line"),
    [
        ("s0.7,x1", "s0.2,k9", 137, "rank 1 was killed by SIGKILL (out of memory?); exit 137"),
        ("s0.2,x1", "s0.7,x4", 4, "rank 1 ended first with DATA; exit 4"),
        ("s0.7,x1", "s0.2,x1", 1, "rank 1 crashed; exit 1"),
        *long(
            ("s0.2,k9", "s0.7,x1", 137, "rank 0 was killed by SIGKILL (out of memory?); exit 137"),
            ("s0.7,x12", "s0.2,k9", 137, "rank 1 was killed by SIGKILL (out of memory?); exit 137"),
            ("s0.7,x1", "s0.2,k11", 139, "rank 1 was killed by SIGSEGV; exit 139"),
            ("s0.7,x1", "s0.2,k6", 134, "rank 1 was killed by SIGABRT; exit 134"),
            ("s0.7,x1", "s0.2,k15", 143, "rank 1 was killed by SIGTERM; exit 143"),
            ("s0.7,x1", "s0.2,x15", 15, "rank 1 ended first with REPLICAS; exit 15"),
        ),
    ],
)
def test_whoever_ended_first_is_named(tmp_path: Path, first: str, second: str, code: int, line: str) -> None:
    ended, output, _ = launch(tmp_path, first, second)
    assert ended == code, output
    assert output.strip().startswith(f"launch: {line}"), output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    ("plan", "code"), [("x3", 3), ("x10", 10), *long(*((f"x{code}", code) for code in (4, 11, 13, 14)))]
)
def test_what_a_restart_cannot_cure_runs_once(tmp_path: Path, plan: str, code: int) -> None:
    ended, output, _ = launch(tmp_path, "s0.5,x1", plan, "--max-restarts", "2")
    assert ended == code, output
    assert starts(tmp_path) == 1


@pytest.mark.parametrize("plan", ["x12", "k9", *long("x1", "x15", "k11")])
def test_what_a_restart_may_cure_runs_again(tmp_path: Path, plan: str) -> None:
    ended, output, _ = launch(tmp_path, "f,s0.5,x1", f"f,{plan}", "--max-restarts", "2")
    assert ended == 0, output
    assert starts(tmp_path) == starts(tmp_path, 1) == 2
    assert "rank 1" in output
    assert "restart 1 of 2" in output


@pytest.mark.long
def test_those_that_hang_are_ended_within_seconds_and_not_after_the_grace(tmp_path: Path) -> None:
    """One that is deaf to SIGTERM too: torch would wait another 30 s for it."""
    ended, output, seconds = launch(tmp_path, "d,s600", "s0.5,x12")
    assert ended == 12, output
    assert seconds < SECONDS_AFTER_A_FAILURE + 10


def test_what_a_worker_has_started_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(
        "import os, subprocess, sys, time\n"
        "if os.environ['RANK'] == '1': time.sleep(3); os._exit(12)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('child', 'w').write(str(child.pid)); time.sleep(600)\n"
    )
    command = [sys.executable, str(harness.ROOT / "scripts" / "launch.py"), "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run([*command, "parent.py"], cwd=tmp_path, env=harness.environment(), check=False)
    assert done.returncode == 12
    status = Path(f"/proc/{(tmp_path / 'child').read_text()}/status")
    assert not status.exists() or "State:\tZ" in status.read_text()


def test_a_failure_on_one_node_ends_the_workers_of_the_other(tmp_path: Path) -> None:
    """torch lets them wait in their collective until it times out."""
    (tmp_path / "worker.py").write_text(WORKER)
    pair = Pair(tmp_path, "--max-restarts", "1", "worker.py", "s600", "s0.5,x4")
    for launcher in (pair.first, pair.second):
        output, _ = launcher.communicate(timeout=SECONDS_AFTER_A_FAILURE + 60)
        assert launcher.returncode == 4, output
        assert "rank 1 on " in output
        assert "Traceback" not in output
    assert starts(tmp_path) == 1


def test_a_worker_that_does_not_stop_is_killed_after_the_grace(tmp_path: Path) -> None:
    (tmp_path / "deaf.py").write_text(
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "open('deaf-' + os.environ['RANK'], 'w').close(); time.sleep(600)\n"
    )
    command = [sys.executable, str(harness.ROOT / "scripts" / "launch.py"), "--standalone", "--nproc_per_node", "2"]
    launcher = subprocess.Popen(
        [*command, "deaf.py", "recipe=tiny", "reliability.grace_seconds=2"],
        cwd=tmp_path,
        env=harness.environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not all((tmp_path / f"deaf-{rank}").exists() for rank in range(2)):
        assert launcher.poll() is None
        time.sleep(0.1)
    asked = time.monotonic()
    launcher.terminate()
    _, output = launcher.communicate(timeout=60)
    assert launcher.returncode == 137, output
    assert 2 <= time.monotonic() - asked < 20
    assert "did not end within reliability.grace_seconds and was killed; exit 137" in output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--no_python", "./nothing"], "the workers cannot be started"),
        *long(
            (["--nnodes", "2", "--rdzv_backend", "c10d", "worker.py"], "add --rdzv_endpoint HOST:29500"),
            (["--rdzv_backend", "nothing", "worker.py"], "the launch's arguments do not fit together"),
        ),
    ],
)
def test_a_mistake_in_the_launch_is_a_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    script = str(harness.ROOT / "scripts" / "launch.py")
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=tmp_path,
        env=harness.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
