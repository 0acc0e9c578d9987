"""A stop before training ends the process even where Python cannot run a handler."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED_IN_C = """
import signal, sys
from torch.distributed import FileStore
from trainer.reliability.signals import leave_within

def interrupt(number, frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGTERM, interrupt)
leave_within(0.5, lambda: print("reported", flush=True))
store = FileStore(sys.argv[1], 2)
print("waiting", flush=True)
store.get("of a peer that is gone")
"""


def test_a_process_that_waits_in_c_for_a_peer_reports_and_leaves(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BLOCKED_IN_C, str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 10
        assert process.stdout.read() == "reported\n"
