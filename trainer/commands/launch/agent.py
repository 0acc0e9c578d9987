"""torch's elastic agent, with three changes: workers that are asked to stop get time to save; there is no restart for a
failure that a restart cannot cure; and what ended an attempt is found out over all nodes.

All uses of the agent's private interface are here; tests/unit/test_launch_agent.py tests them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from typing import Any

from torch.distributed import PrefixStore
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import LogsSpecs

from trainer.commands.launch.attempt import SECONDS_AFTER_GRACE, Attempt
from trainer.commands.launch.ends import Verdict
from trainer.commands.launch.meeting import Meeting
from trainer.commands.launch.nodes import Node, Nodes
from trainer.errors import ExitCode
from trainer.run.world import ATTEMPT


class PatientAgent(LocalElasticAgent):
    """Runs in its own thread, where torch installs no signal handlers: those of the main thread stay."""

    def __init__(self, spec: WorkerSpec, logs_specs: LogsSpecs, meeting: Meeting, grace_seconds: float) -> None:
        super().__init__(spec=spec, logs_specs=logs_specs)
        self.meeting = meeting
        """That of ``spec``."""
        self.grace_seconds = grace_seconds
        self.stopped_by: int | None = None
        self.handed_on: set[int] = set()
        self.started = False
        self.attempt: Attempt | None = None
        self.verdict: Verdict | None = None
        """On the last attempt that failed."""
        self._stopped_at = 0.0

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

    def _restart_workers(self, worker_group: WorkerGroup) -> None:
        spec = worker_group.spec
        if self.meeting.failing and self.verdict is not None:
            number = spec.max_restarts - self._remaining_restarts
            say(f"{self.verdict.text}; restart {number} of {spec.max_restarts}")
        else:
            say("a node wants to join: the workers start again with it")
        super()._restart_workers(worker_group)

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, int]:
        self.started = True
        self.attempt = self._meet(worker_group)
        self.meeting.failing = False
        pids: dict[int, int] = super()._start_workers(worker_group)
        if self.stopped_by is not None:  # the signal came while they were being started
            send(self.stopped_by, self.pids())
        return pids

    def _meet(self, worker_group: WorkerGroup) -> Attempt:
        """Agree with the other nodes' agents on a name for this attempt, under which its workers and they connect."""
        store, workers = worker_group.store, worker_group.workers
        number, count = worker_group.group_rank, worker_group.group_world_size
        assert store is not None  # set by the rendezvous, as are the two numbers
        assert number is not None
        assert count is not None
        # A static rendezvous has one store for all attempts, which fail together.
        key = f"{ATTEMPT}-{worker_group.spec.max_restarts - self._remaining_restarts}"
        key = key if self.meeting.get_backend() == "static" else ATTEMPT
        if number == 0:
            store.set(key, uuid.uuid4().hex)
        name = os.environ[ATTEMPT] = store.get(key).decode()
        ranks = [worker.global_rank for worker in workers]
        node = Node(socket.gethostname(), ranks[0], ranks[-1])
        return Attempt(Nodes(PrefixStore(name, store), number, count, node), ranks)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        """Give workers time to end by themselves after one has failed, here or on another node.

        torch would end all workers of this node at once, and know nothing of other nodes.
        """
        attempt = self.attempt
        assert attempt is not None
        running = attempt.note([process.poll() for process in self._processes()])
        self.meeting.failing = bool(attempt.ends)
        asked_long_ago = self.stopped_by is not None and time.monotonic() - self._stopped_at > self.grace_seconds
        if running and (asked_long_ago or attempt.had_their_time(self.grace_seconds)):
            self._kill(attempt)
        elif running:
            return RunResult(state=WorkerState.HEALTHY)
        result: RunResult = super()._monitor_workers(worker_group)
        attempt.nodes.finish()
        if result.is_failed():
            self.meeting.failing = True
            self.verdict = attempt.conclude(self.handed_on, self.meeting.endpoint)
            if self.stopped_by is not None or self.verdict.final or attempt.nodes.gone:
                self._remaining_restarts = 0
        return result

    def _kill(self, attempt: Attempt) -> None:
        """End the workers that still run, with all processes that they have started.

        Not by SIGTERM: a worker that waits in a collective does not hear it, and one that does hear it would report
        that it was stopped, over the report of what has really happened.
        """
        assert self._pcontext is not None
        self._pcontext.close(signal.SIGKILL, timeout=int(SECONDS_AFTER_GRACE))
        attempt.note([process.poll() for process in self._processes()], killed=True)


def say(text: str) -> None:
    """One line of the launcher."""
    print(f"launch: {text}", file=sys.stderr, flush=True)


def send(number: int, pids: Iterable[int]) -> None:
    """Send a signal to processes, some of which may have ended."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
