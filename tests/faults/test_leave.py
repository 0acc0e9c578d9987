"""A stop before training ends the process even where Python cannot run a handler, or nothing may raise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import harness

BLOCKED_IN_C = """
import sys
from torch.distributed import FileStore
from trainer.reliability.signals import end_before_training

end_before_training(0.5, lambda: print("reported", flush=True))
store = FileStore(sys.argv[1], 2)
print("waiting", flush=True)
store.get("of a peer that is gone")
"""

IMPORTED_FROM_C = """
import ctypes, sys
from trainer.reliability.signals import end_before_training

end_before_training(60, lambda: print("reported", flush=True))
sys.path.insert(0, sys.argv[1])

@ctypes.CFUNCTYPE(None)
def callback():
    import slow

callback()  # as a C extension's initialisation does; what is raised in here is lost, or aborts
print("went on", flush=True)
"""

IN_PLAIN_CODE = """
import time
from trainer.reliability.signals import end_before_training

end_before_training(60, lambda: print("reported", flush=True))
try:
    print("waiting", flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    print("tidied up", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    ("program", "code", "last"),
    [(BLOCKED_IN_C, 10, "reported\n"), (IMPORTED_FROM_C, 10, "reported\n"), (IN_PLAIN_CODE, 0, "tidied up\n")],
    ids=["blocked-in-c", "imported-from-c", "in-plain-code"],
)
def test_a_stop_before_training_ends_the_process(
    tmp_path: Path, program: str, code: int, last: str, number: signal.Signals
) -> None:
    (tmp_path / "slow.py").write_text("import time\nprint('waiting', flush=True)\ntime.sleep(30)\n")
    argument = tmp_path / "store" if program is BLOCKED_IN_C else tmp_path
    command = [sys.executable, "-c", program, str(argument)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(number)
        assert process.wait(10) == code
        assert process.stdout.read() == last


@pytest.mark.slow
def test_an_interrupted_rehearsal_ends_all_its_processes_without_a_traceback(tmp_path: Path) -> None:
    """A terminal sends SIGINT to the whole group, the forks that rehearse the ranks included."""
    with subprocess.Popen(
        harness.command(["recipe=deepseek67b", "backend=fake"], 1),
        cwd=tmp_path,
        env=harness.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        while not harness.children(process.pid):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=30)  # until the last that holds the pipe is gone
    assert process.returncode == 10, output
    assert "interrupted at once" in output
    assert "Traceback" not in output
