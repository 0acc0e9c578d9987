"""launcher=local: real processes, which are killed, asked to stop, submitted twice and at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.harness import ROOT
from tests.launchers.jobs import end_of, request, wait_for
from trainer.config.groups.launcher import LauncherConfig, LocalConfig
from trainer.launchers.base import LaunchError, State
from trainer.launchers.local import LocalLauncher
from trainer.launchers.pids import process_of
from trainer.launchers.request import Task

WAITS = ["Path('ready').touch()", "time.sleep(60)"]
SUBMITTER = """
import os, signal, subprocess, sys
from pathlib import Path
from tests.launchers.jobs import request
from trainer.config.groups.launcher import LauncherConfig, LocalConfig
from trainer.launchers import local

root = Path(sys.argv[1])
launcher = local.LocalLauncher(LauncherConfig(local=LocalConfig(str(root / "register"))))
asked = request(root, sys.argv[3].split(";"))
"""


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[LocalLauncher]:
    """Ends the jobs that a failed test has left."""
    yield LocalLauncher(LauncherConfig(local=LocalConfig(str(tmp_path / "register"))))
    for record in (tmp_path / "register").glob("*.json"):
        for process in filter(None, [json.loads(record.read_text())[key] for key in ("job", "watch")]):
            try:
                os.kill(process["pid"], signal.SIGKILL)
            except ProcessLookupError:
                continue


def submitter(root: Path, lines: list[str], how: str) -> subprocess.Popen[str]:
    """A process that submits the job `job`, and then does what ``how`` says."""
    code = SUBMITTER + how
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(root), "-", ";".join(lines)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_job_leaves_its_code_and_its_lines(launcher: LocalLauncher, tmp_path: Path) -> None:
    asked = request(
        tmp_path, ["print('one')", "print('two', file=sys.stderr)", "print('three', end='')", "sys.exit(4)"]
    )
    assert launcher.find("job") is None
    id = launcher.submit(asked)
    assert launcher.find("job") == id
    status = end_of(launcher, id, asked)
    assert (status.code, status.reason) == (4, "ended by itself")
    assert sorted(launcher.logs(id, asked)) == ["one", "three", "two"]
    with pytest.raises(LaunchError, match="one job only"):
        launcher.submit(asked)


def test_it_outlives_a_submitter_that_is_killed(launcher: LocalLauncher, tmp_path: Path) -> None:
    lines = [*WAITS[:1], "time.sleep(0.5)", "sys.exit(11)"]
    killed = submitter(tmp_path, lines, "launcher.submit(asked)\nos.kill(os.getpid(), signal.SIGKILL)")
    assert killed.wait(60) == -signal.SIGKILL
    asked = request(tmp_path, lines)
    assert launcher.find("job") == "job"
    assert end_of(launcher, "job", asked).code == 11


def test_a_submitter_that_dies_in_the_middle_is_found_out(launcher: LocalLauncher, tmp_path: Path) -> None:
    """It is killed as soon as the job's process exists, long before that has recorded itself."""
    how = """
def start_and_die(command, **options):
    options.pop("check")
    subprocess.Popen(command, **options)
    os.kill(os.getpid(), signal.SIGKILL)

local.subprocess = type("Dying", (), {"run": start_and_die, "DEVNULL": subprocess.DEVNULL})
launcher.submit(asked)
"""
    assert submitter(tmp_path, ["sys.exit(0)"], how).wait(60) == -signal.SIGKILL
    assert launcher.find("job") == "job"  # waits for the record
    assert end_of(launcher, "job", request(tmp_path, ["sys.exit(0)"])).code == 0


def test_a_submitter_that_dies_before_the_job_leaves_none(launcher: LocalLauncher, tmp_path: Path) -> None:
    how = "local.subprocess = None\nlauncher._start = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    assert submitter(tmp_path, ["sys.exit(0)"], how + "launcher.submit(asked)").wait(60) == -signal.SIGKILL
    assert launcher.find("job") is None
    asked = request(tmp_path, ["sys.exit(0)"])
    assert end_of(launcher, launcher.submit(asked), asked).code == 0


def test_one_of_many_submitters_gets_the_name(tmp_path: Path) -> None:
    lines = [f"os.mkdir({str(tmp_path / 'once')!r})"]
    how = "try:\n    print(launcher.submit(asked))\nexcept local.LaunchError:\n    print('refused')"
    racing = [submitter(tmp_path, lines, how) for _ in range(4)]
    said = sorted(process.communicate(timeout=60)[0].strip() for process in racing)
    assert said == ["job", "refused", "refused", "refused"]
    launcher = LocalLauncher(LauncherConfig(local=LocalConfig(str(tmp_path / "register"))))
    assert end_of(launcher, "job", request(tmp_path, lines)).code == 0


def test_cancel_asks_and_the_job_saves(launcher: LocalLauncher, tmp_path: Path) -> None:
    save = "signal.signal(signal.SIGTERM, lambda *_: (Path('saved').touch(), sys.exit(10)))"
    asked = request(tmp_path, [save, *WAITS])
    id = launcher.submit(asked)
    wait_for((tmp_path / "ready").exists)
    assert launcher.status(id, asked).state is State.RUNNING
    launcher.cancel(id)
    status = end_of(launcher, id, asked)
    assert (status.code, status.reason) == (10, "stopped by SIGTERM")
    assert (tmp_path / "saved").exists()
    launcher.cancel(id)  # of what has ended


def test_a_job_that_dies_of_the_signal_has_lost_nothing(launcher: LocalLauncher, tmp_path: Path) -> None:
    asked = request(tmp_path, WAITS)
    id = launcher.submit(asked)
    wait_for((tmp_path / "ready").exists)
    launcher.cancel(id)
    assert end_of(launcher, id, asked).code == 10


@pytest.mark.slow
def test_a_job_that_does_not_listen_is_killed_with_what_it_has_started(launcher: LocalLauncher, tmp_path: Path) -> None:
    start = "import subprocess; Path('child').write_text(str(subprocess.Popen(['sleep', '300']).pid))"
    asked = request(tmp_path, ["signal.signal(signal.SIGTERM, signal.SIG_IGN)", start, *WAITS], grace_seconds=0.1)
    id = launcher.submit(asked)
    wait_for((tmp_path / "ready").exists)
    launcher.cancel(id)
    assert end_of(launcher, id, asked).code == 128 + signal.SIGKILL
    assert process_of(int((tmp_path / "child").read_text())) is None


def test_the_limit_asks_it_to_stop(launcher: LocalLauncher, tmp_path: Path) -> None:
    save = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(10))"
    asked = request(tmp_path, [save, *WAITS], limit_minutes=1 / 60)
    status = end_of(launcher, launcher.submit(asked), asked)
    assert (status.code, status.reason) == (10, "stopped by launcher.limit_minutes")


def test_a_killed_watch_stops_its_job(launcher: LocalLauncher, tmp_path: Path) -> None:
    """kill -9 of the process beside it: the kernel tells the job, and the run's exit.json tells the rest."""
    run = tmp_path / "run"
    save = "time.sleep(0.5), write_exit(Path('run'), 10, 0, 'saved'), sys.exit(10)"
    leave = [
        "from trainer.run.exit_json import write_exit",
        f"signal.signal(signal.SIGTERM, lambda *_: ({save}))",
    ]
    asked = request(tmp_path, [*leave, *WAITS], run=run)
    id = launcher.submit(asked)
    wait_for((tmp_path / "ready").exists)
    record = json.loads((tmp_path / "register" / "job.json").read_text())
    os.kill(record["watch"]["pid"], signal.SIGKILL)
    assert launcher.status(id, asked).state is State.RUNNING  # it saves
    status = end_of(launcher, id, asked)
    assert (status.code, status.reason) == (10, "saved")


def test_a_pid_that_another_process_has_by_now_is_not_the_job(launcher: LocalLauncher, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            asked = request(tmp_path, ["sys.exit(0)"])
            id = launcher.submit(asked)
            end_of(launcher, id, asked)
            (asked.directory / "end.json").unlink()
            register = tmp_path / "register" / "job.json"
            record = json.loads(register.read_text())
            for key in ("watch", "job"):
                record[key]["pid"] = other.pid
            register.write_text(json.dumps(record))
            status = launcher.status(id, asked)
            assert (status.state, status.code) == (State.ENDED, None)
            assert "without a word" in status.reason
            launcher.cancel(id)
            assert other.poll() is None
        finally:
            other.kill()


def test_a_job_of_another_machine_is_unknown(launcher: LocalLauncher, tmp_path: Path) -> None:
    asked = request(tmp_path, WAITS)
    id = launcher.submit(asked)
    register = tmp_path / "register" / "job.json"
    before = register.read_text()
    wait_for(lambda: json.loads(register.read_text())["job"] is not None)
    record = json.loads(register.read_text())
    for key in ("watch", "job"):
        record[key]["host"] = "elsewhere"
    register.write_text(json.dumps(record))
    assert launcher.status(id, asked).state is State.UNKNOWN
    register.write_text(before)


def test_the_runs_own_word_goes_first(launcher: LocalLauncher, tmp_path: Path) -> None:
    """torchrun ends with 1 whatever a worker said; an exit.json of an earlier launch says nothing."""
    run = tmp_path / "run"
    run.mkdir()

    def left(code: int, time: datetime) -> None:
        record = {"code": code, "title": f"said {code}", "time": time.isoformat(timespec="seconds")}
        (run / "exit.json").write_text(json.dumps(record))

    asked = request(tmp_path, ["sys.exit(1)"], run=run)
    left(13, datetime(2020, 1, 1, tzinfo=timezone.utc))
    id = launcher.submit(asked)
    assert end_of(launcher, id, asked).code == 1
    left(12, datetime.now(timezone.utc))
    status = launcher.status(id, asked)
    assert (status.code, status.reason) == (12, "said 12")


def test_the_runs_of_a_sweep_follow_each_other(launcher: LocalLauncher, tmp_path: Path) -> None:
    lines = ["open('order', 'a').write(sys.argv[1])", "sys.exit(int(sys.argv[1]))"]
    asked = request(tmp_path, lines, tasks=tuple(Task((code,)) for code in "0430"))
    assert end_of(launcher, launcher.submit(asked), asked).code == 4
    assert (tmp_path / "order").read_text() == "0430"


def test_a_sweep_that_is_stopped_begins_no_other_run(launcher: LocalLauncher, tmp_path: Path) -> None:
    save = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.5), Path('saved').touch(), sys.exit(10)))"
    asked = request(tmp_path, ["Path(sys.argv[1]).touch()", save, *WAITS], tasks=(Task(("a",)), Task(("b",))))
    id = launcher.submit(asked)
    wait_for((tmp_path / "ready").exists)
    launcher.cancel(id)
    assert end_of(launcher, id, asked).code == 10
    assert [(tmp_path / name).exists() for name in ("a", "saved", "b")] == [True, True, False]


def test_a_register_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    launcher = LocalLauncher(LauncherConfig(local=LocalConfig(str(tmp_path / "file" / "register"))))
    with pytest.raises(LaunchError, match=r"launcher\.local\.register"):
        launcher.submit(request(tmp_path, ["pass"]))
