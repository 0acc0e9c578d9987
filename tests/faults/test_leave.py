"""A stop outside training ends the process even where Python cannot run a handler, or nothing may raise."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from tests import harness
from tests.programs import read_until, rest, started

BLOCKED_IN_C = """
import sys
from torch.distributed import FileStore
from trainer.run.signals import end_outside_training

end_outside_training(0.5, lambda: print("reported", flush=True))
store = FileStore(sys.argv[1], 2)
print("waiting", flush=True)
store.get("of a peer that is gone")
"""

IMPORTED_FROM_C = """
import ctypes, sys
from trainer.run.signals import end_outside_training

end_outside_training(60, lambda: print("reported", flush=True))
sys.path.insert(0, sys.argv[1])

@ctypes.CFUNCTYPE(None)
def callback():
    import slow

callback()  # as a C extension's initialisation does; what is raised in here is lost, or aborts
print("went on", flush=True)
"""

AFTER_TRAINING = BLOCKED_IN_C.replace("import end", "import StopRequest, end").replace(
    "store =", "with StopRequest():\n    pass\nstore =", 1
)

IN_PLAIN_CODE = """
import time
from trainer.run.signals import end_outside_training

end_outside_training(60, lambda: print("reported", flush=True))
try:
    print("waiting", flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    print("tidying up", flush=True)
    time.sleep(1)
    print("tidied up", flush=True)
"""

HIDES_IT = """
import time

def wait(*arguments, **options):
    try:
        print("waiting", flush=True)
        time.sleep(30)
    finally:
        raise {error}("of a library, about a state half made")
"""

STORM = """
import time
from trainer.run.signals import StopRequest, end_outside_training

end_outside_training(60, lambda: None)
with StopRequest() as stop:
    print("waiting", flush=True)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        pass
print("requested" if stop.requested else "forgotten")
"""

SWALLOWS = """
import time
from trainer.run.signals import StopRequest, end_outside_training, interrupts_shown

end_outside_training(60, lambda: None)
try:
    print("waiting", flush=True)
    time.sleep(30)
except BaseException:
    pass
try:
    with interrupts_shown(), StopRequest() as stop:
        print("requested" if stop.requested else "forgotten")
        raise ValueError("a real error")
except ValueError as error:
    print(error)
"""

COMPOSES = (
    HIDES_IT
    + """
import sys
from trainer.commands import entry

sys.exit(entry.enter(wait))
"""
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    ("program", "code", "last"),
    [
        (BLOCKED_IN_C, 10, "reported\n"),
        (AFTER_TRAINING, 10, "reported\n"),
        (IMPORTED_FROM_C, 10, "reported\n"),
        (IN_PLAIN_CODE, 0, "tidying up\ntidied up\n"),
    ],
    ids=["blocked-in-c", "after-training", "imported-from-c", "in-plain-code"],
)
def test_a_stop_outside_training_ends_the_process(
    tmp_path: Path, program: str, code: int, last: str, number: signal.Signals
) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('waiting', flush=True)\ntime.sleep(30)\n")
    argument = tmp_path if program is IMPORTED_FROM_C else tmp_path / "store"
    with started([sys.executable, "-c", program, str(argument)], tmp_path) as process:
        read_until(process, "waiting")
        with pytest.raises(TimeoutExpired):
            process.wait(0.3)
        process.send_signal(number)
        assert rest(process, code) == last


def test_a_second_stop_does_not_disturb_the_first(tmp_path: Path) -> None:
    """Ctrl-C under a launcher is two signals: the terminal's, to everybody, and the launcher's to its workers."""
    with started([sys.executable, "-c", IN_PLAIN_CODE], tmp_path) as process:
        read_until(process, "waiting")
        process.send_signal(signal.SIGINT)
        read_until(process, "tidying up")
        process.send_signal(signal.SIGTERM)
        assert rest(process, 0) == "tidied up\n"


@pytest.mark.parametrize(
    ("error", "composing"),
    [
        ("AttributeError", True),
        ("ValueError", True),
        pytest.param("AttributeError", False, marks=pytest.mark.slow),
        pytest.param("ValueError", False, marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_a_stop_is_reported_where_a_library_raises_an_error_of_its_own(
    tmp_path: Path, error: str, composing: bool
) -> None:
    """Once, OmegaConf's ``finally`` met a node half copied: a traceback and exit 1 for a run that goes on."""
    (tmp_path / "hides.py").write_text((COMPOSES if composing else HIDES_IT).format(error=error))
    harness.write_corpus(tmp_path / "corpus")
    (tmp_path / "runs" / "hidden").mkdir(parents=True)
    data = "data.sources=[{paths: [corpus]}]"
    overrides = [*harness.SMALL, data, "run.name=hidden", "optim.name=hides:wait"]
    command = [sys.executable, "hides.py", "recipe=tiny", "run.name=hidden"]
    with started(command if composing else harness.command(overrides, 1), tmp_path) as process:
        read_until(process, "waiting")
        process.send_signal(signal.SIGTERM)
        output = rest(process, 10)
    assert "Traceback" not in output
    assert output.count("interrupted at once") == 1
    record = json.loads((tmp_path / "runs" / "hidden" / "exit.json").read_text())
    assert (record["code"], record["name"]) == (10, "PREEMPTED")


def test_a_stop_that_was_swallowed_is_acted_on_in_training_and_hides_no_later_error(tmp_path: Path) -> None:
    (tmp_path / "swallows.py").write_text(SWALLOWS)
    with started([sys.executable, "swallows.py"], tmp_path) as process:
        read_until(process, "waiting")
        process.send_signal(signal.SIGTERM)
        assert rest(process, 0) == "requested\na real error\n"


def test_signals_that_interrupt_each_other_in_training_are_one_request(tmp_path: Path) -> None:
    """A handler that took a lock waited for itself: the kernel tells of a dead launcher several times."""
    with started([sys.executable, "-c", STORM], tmp_path) as process:
        read_until(process, "waiting")
        for _ in range(20_000):
            process.send_signal(signal.SIGTERM)
        assert rest(process, 0) == "requested\n"


def test_a_stopped_sweep_leaves_the_run_of_the_same_name_alone(tmp_path: Path) -> None:
    (tmp_path / "hides.py").write_text(COMPOSES.format(error="AttributeError"))
    with started([sys.executable, "hides.py", "recipe=tiny", "--multirun", "optim.lr=1e-3,2e-3"], tmp_path) as process:
        read_until(process, "waiting")
        process.send_signal(signal.SIGTERM)
        assert "interrupted at once" in rest(process, 10)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_an_interrupted_rehearsal_ends_all_its_processes_without_a_traceback(tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group, the forks that rehearse the ranks included."""
    with started(harness.command(["recipe=deepseek67b", "backend=fake"], 1), tmp_path) as process:
        while not harness.children(process.pid):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        output = rest(process, 10)
    assert "interrupted at once" in output
    assert "Traceback" not in output
