"""torch's elastic agent, with two changes: workers that are asked to stop get time to save, and there is no restart for
a failure that a restart cannot cure.

All uses of torch's private interface are here; tests/unit/test_launch_agent.py tests them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterable
from typing import Any

from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import LogsSpecs

from trainer.errors import ExitCode
from trainer.run.world import ATTEMPT

FINAL = {
    ExitCode.CONFIG, ExitCode.DATA, ExitCode.PREEMPTED, ExitCode.NONFINITE, ExitCode.NO_CHECKPOINT, ExitCode.GATE,
}  # fmt: skip
"""Never restarted: the same command would end the same way at once, or was asked to stop."""
SECONDS_AFTER_A_FAILURE = 15.0
"""How long the other workers may take to end by themselves: they notice a failure in their next collective."""
SECONDS_AFTER_GRACE = 5.0


class PatientAgent(LocalElasticAgent):
    """Runs in its own thread, where torch installs no signal handlers: those of the main thread stay."""

    def __init__(self, spec: WorkerSpec, logs_specs: LogsSpecs, grace_seconds: float) -> None:
        super().__init__(spec=spec, logs_specs=logs_specs)
        self.grace_seconds = grace_seconds
        self.stopped_by: int | None = None
        self.handed_on: set[int] = set()
        self.started = False
        self._stopped_at = self._failed_at = 0.0

    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [process.pid for process in self._processes() if process.poll() is None]

    def _processes(self) -> list[subprocess.Popen[bytes]]:
        context: Any = self._pcontext
        return [handler.proc for handler in context.subprocess_handlers.values()] if context is not None else []

    def stop(self, number: int) -> None:
        """Forward a signal to every worker; the first signal starts their grace period.

        The first SIGINT is forwarded as SIGTERM: a worker whose Python is still starting would answer with a traceback.
        """
        if self.stopped_by is None:
            number = signal.SIGTERM if number == signal.SIGINT else number
            self.stopped_by, self._stopped_at = number, time.monotonic()
        self.handed_on.add(number)
        send(number, self.pids())

    def _rendezvous(self, worker_group: WorkerGroup) -> None:
        """Wait for the other nodes, at the start or after a failure: meanwhile there are no workers to signal."""
        self.started = False
        if self.stopped_by is not None:
            os._exit(int(ExitCode.PREEMPTED))
        super()._rendezvous(worker_group)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, int]:
        self.started = True
        self._name_attempt(worker_group)
        pids: dict[int, int] = super()._start_workers(worker_group)
        self._failed_at = 0.0
        if self.stopped_by is not None:  # the signal came while they were being started
            send(self.stopped_by, self.pids())
        return pids

    def _name_attempt(self, worker_group: WorkerGroup) -> None:
        """Agree with the other nodes' agents on a name for this attempt, under which its workers connect."""
        store = worker_group.store
        assert store is not None  # set by the rendezvous
        if worker_group.group_rank == 0:
            store.set(ATTEMPT, uuid.uuid4().hex)
        os.environ[ATTEMPT] = store.get(ATTEMPT).decode()

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        """Give workers time to end by themselves after one has failed: torch would end all of them at once."""
        assert self._pcontext is not None
        codes = [process.poll() for process in self._processes()]
        now = time.monotonic()
        if None in codes and any(codes):
            self._failed_at = self._failed_at or now
            patience = self.grace_seconds if ExitCode.PREEMPTED in codes else SECONDS_AFTER_A_FAILURE
            if now - self._failed_at < patience:
                return RunResult(state=WorkerState.HEALTHY)
        if None in codes and self.stopped_by is not None and now - self._stopped_at > self.grace_seconds:
            self._pcontext.close(signal.SIGKILL, timeout=int(SECONDS_AFTER_GRACE))
        result: RunResult = super()._monitor_workers(worker_group)
        if result.is_failed() and (self.stopped_by is not None or self.code(result) in FINAL):
            self._remaining_restarts = 0
        return result

    def code(self, result: RunResult) -> int:
        """The launch's exit code: a documented one if there is any, else that of the worker which failed first."""
        failures = sorted(result.failures.values(), key=lambda failure: failure.timestamp)
        codes = [failure.exitcode for failure in failures]
        # A worker that has no handlers yet dies of a forwarded signal: nothing is lost.
        codes = [ExitCode.PREEMPTED if -code in self.handed_on else code for code in codes]
        documented = [code for code in codes if code in set(ExitCode)]
        first = (documented or codes)[0]
        return int(first) if first >= 0 else 128 - first


def send(number: int, pids: Iterable[int]) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
