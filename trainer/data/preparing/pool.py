"""Processes that do tasks one after another, each in a Python of its own: a death costs one task, and is named."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.config.groups.data import DataConfig
from trainer.errors import DataError, Problem
from trainer.run.orphans import LAUNCHER

ALONE = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
"""Processes and not threads share the cores. Nothing is imported from the current directory but by PYTHONPATH."""
WORKER = "trainer.data.preparing.worker"
ROOT = Path(__file__).parents[3]


class Worker:
    """One process, and what it is at."""

    def __init__(self, number: int, tokenizer: Path, config: DataConfig) -> None:
        self.number = number
        self.task: Any = None
        self._held = b""
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(tokenizer), config.cache_dir, str(config.cache_gb)],
            env=os.environ | ALONE | {"PYTHONPATH": path, LAUNCHER: str(os.getpid())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def give(self, task: Any, value: dict[str, Any]) -> None:
        """Begin a task. value: what the process is told of it."""
        assert self.process.stdin is not None
        self.task = task
        message = memoryview(json.dumps(value).encode() + b"\n")
        try:
            while message:
                message = message[self.process.stdin.write(message) :]
        except BrokenPipeError:
            raise self.died() from None

    def answers(self) -> Iterator[dict[str, Any]]:
        """Those that have come in. Raises DataError when the process has died."""
        assert self.process.stdout is not None
        block = os.read(self.process.stdout.fileno(), 1 << 16)
        if not block:
            raise self.died()
        *lines, self._held = (self._held + block).split(b"\n")
        for line in lines:
            yield json.loads(line)

    def died(self) -> DataError:
        """The error that says how."""
        code = self.process.wait()
        how = f"ended with code {code}; what it printed stands above"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += ", as the kernel does when memory runs out"
        rule = f"all workers live to the end; this one (process {self.process.pid}) {how}"
        remedy = "what is complete is kept: give the same command again, with fewer --processes if memory is short"
        return DataError(Problem("--processes", f"worker {self.number}", rule, remedy))

    def end(self) -> None:
        """At once: what it is at is done again by the next run."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def workers(count: int, tokenizer: Path, config: DataConfig) -> Iterator[list[Worker]]:
    """Started processes, that do not outlive the block.

    tokenizer: its directory. config: says where copies of objects in S3 are kept.
    """
    started: list[Worker] = []
    try:
        for number in range(count):
            started.append(Worker(number, tokenizer, config))
        yield started
    finally:
        for worker in started:
            worker.end()


def run(
    team: list[Worker],
    tasks: Iterable[Any],
    message: Callable[[Any], dict[str, Any]],
    answered: Callable[[Any, dict[str, Any]], None],
) -> None:
    """Have all tasks done, in order of their beginning. message: what a worker is told of a task, when it begins.

    answered: told each answer. Raises what it raises, and DataError for a worker that has died.
    """
    queue = iter(tasks)
    with selectors.DefaultSelector() as selector:
        busy = sum(_begin(worker, queue, message, selector) for worker in team)
        while busy:
            for key, _ in selector.select():
                worker = key.data
                for answer in worker.answers():
                    answered(worker.task, answer)
                    if "done" in answer:
                        selector.unregister(worker.process.stdout)
                        busy += _begin(worker, queue, message, selector) - 1


def _begin(worker: Worker, queue: Iterator[Any], message: Callable[[Any], dict[str, Any]], selector: Any) -> int:
    """Give a worker the next task; how many it got."""
    for task in queue:
        worker.give(task, message(task))
        selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        return 1
    return 0
