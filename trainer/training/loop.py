"""The only training loop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from trainer.backends.base import Backend, StepMetrics, StepSource
from trainer.batch import StepBatch
from trainer.checkpoint.state import TrainState
from trainer.config.schema import Config
from trainer.errors import ConfigError, ExitCode, NonFiniteError, Problem, ReplicasError, RunError
from trainer.observe.records import EvaluationRecord, Record, SaveRecord, SetRecord, StepRecord
from trainer.observe.sinks import Sink, write_all
from trainer.observe.stopwatch import Stopwatch
from trainer.optim.schedule import learning_rate
from trainer.rules.derived import Derived
from trainer.run.signals import StopRequest
from trainer.training.best import best_of, exhausted
from trainer.training.brake import Brake
from trainer.training.collective import on_every_rank
from trainer.training.evaluation import Evaluator
from trainer.training.in_flight import InFlight
from trainer.training.nonfinite import count_nonfinite
from trainer.training.result import result_of
from trainer.training.saving import Saves, short_grace
from trainer.training.step import Agreement, Wish, agree, train_step, watched_step
from trainer.training.watchdog import Watchdog

EXTRACTED_STEPS = 3
"""Steps that show every graph of training to neuron_parallel_compile; the guard's warm-up and one more."""
COMPILED_STEPS = 2
"""Steps of a launch in which graphs are still compiled: they have a longer limit."""


@dataclass
class Trainer:
    """Trains from ``state`` to the end, evaluating and saving on the way. A recipe assembles it and calls run."""

    config: Config
    derived: Derived
    backend: Backend
    batches: StepSource
    evaluator: Evaluator | None
    saves: Saves
    sinks: Sequence[Sink]
    state: TrainState
    watchdog: Watchdog
    evaluated: list[EvaluationRecord | SetRecord] = field(default_factory=list)
    """The records of this launch's last evaluation."""
    pace: float = 0.0
    """Seconds a step, as a moving average: what the remaining time is worked out from."""
    in_flight: deque[InFlight] = field(default_factory=deque)
    first_step: int = field(init=False)
    """Steps that were done before this process began."""
    failure: RunError | None = None
    """Why a batch could not be read, or a record or a checkpoint not be written; all ranks stop for it before the next
    step, saved."""
    told_grace: bool = False
    stopped: bool = False
    """All ranks have agreed to end here."""

    def __post_init__(self) -> None:
        self.first_step = self.state.step

    def run(self) -> ExitCode:
        """Train until the last step, or until asked to stop. Returns DONE or PREEMPTED; either way, saved."""
        try:
            return self._run()
        except (NonFiniteError, ReplicasError):  # of all ranks at once: what is being written is sound, and worth it
            self.collect_saves(wait=True)
            raise

    def _run(self) -> ExitCode:
        with StopRequest() as stop, self.watchdog.phase("step"):
            for agreed in self.steps(stop):
                self.evaluate_when_due(stop)
                self.save_when_due(agreed.save)
            if not self.stopped and self.complete and self.evaluator is not None and not self.evaluated:
                # Killed between the last save and the result: the records are there, the result is not.
                self.evaluate(stop)
            if self.stopped:
                self.save(wait=True)
                on_every_rank(self.backend.host, self.raise_failure)
                return ExitCode.PREEMPTED
        return ExitCode.DONE

    def steps(self, stop: StopRequest | None = None) -> Iterator[Agreement]:
        """Train step by step, recording each; what the caller does between steps is on nobody's clock.

        A stop that is agreed on before a step, or within it, ends them: no step is trained for it, or counted.
        """
        stop = stop or StopRequest()
        brake = self.brake(stop)
        batches, watch = iter(self.batches), Stopwatch()
        while self.state.step < self.last_step and not self.stopped and not self.exhausted:
            watch.charge_rest()
            with self.watchdog.phase("batch"):
                batch = self._next(batches)
            watch.lap("data")
            self.collect_saves()
            wish = Wish(stop.requested, self.failure is not None, self.saves.due_by_clock())
            agreed = agree(self.backend, batch, self.state.step, wish)
            lr = self.learning_rate()
            watch.charge_rest()  # waiting for other ranks is not compute
            metrics = None if agreed.stop or agreed.failed else self._take(batch, agreed.target_tokens, lr, brake)
            watch.lap("compute")
            if metrics is None:
                self.stopped = True
                return
            self.advance(batch)
            seconds = watch.close()
            done = (self.state.step, self.state.tokens, lr, agreed.target_tokens, batch.epochs)
            self.in_flight.append(InFlight(*done, metrics, seconds))
            self.settle(keep=self.backend.fetch_delay, watch=watch)
            paused = time.perf_counter()
            yield agreed
            watch.exclude(time.perf_counter() - paused)

    def _next(self, batches: Iterator[StepBatch]) -> StepBatch:
        """This rank's batches of a step; empty where they cannot be read, for which all ranks stop before it."""
        try:
            return next(batches)
        except RunError as error:
            self.failure = error
            return StepBatch([], 0, {})

    def _take(self, batch: StepBatch, targets: int, lr: float, brake: Brake) -> StepMetrics | None:
        begun = self.state.step - self.first_step
        brake.begin(f"step {self.state.step}")
        # A pipeline may say nothing within a step: what one takes is no sign of a rank that hangs.
        more = self.backend.compile_seconds if begun < COMPILED_STEPS else 2 * self.pace
        with self.watchdog.phase("step", more):
            if not begun:
                return watched_step(self.backend, batch, targets, lr, self.config.model.family, brake)
            return train_step(self.backend, batch, targets, lr, brake, self.saves.copied)

    def brake(self, stop: StopRequest, *axes: str) -> Brake:
        """Ends work between microbatches. axes: that meet within one besides those that always do."""
        return Brake(
            self.watchdog.peers,
            self.backend.mesh,
            ("tp", "cp", *(("dp",) if self.config.parallel.zero >= 2 else ()), *axes),
            self.backend.ahead_by,
            lambda: stop.requested,
            self.watchdog.passed,
        )

    @property
    def last_step(self) -> int:
        """Where this process ends: the schedule's end, or train.stop_after_steps; soon, where graphs are collected."""
        last = min(self.derived.steps, self.config.train.stop_after_steps or self.derived.steps)
        return min(last, self.first_step + EXTRACTED_STEPS) if self.backend.extracting else last

    @property
    def complete(self) -> bool:
        """Whether training reached the schedule's end, or that of evaluation.patience."""
        return self.state.step >= self.derived.steps or self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether the evaluations have said long enough that it gets no better. The same on every rank."""
        return exhausted(self.config.evaluation, self.state.step, self.state.best)

    def result(self) -> dict[str, Any]:
        """What the run amounts to."""
        return result_of(self.state, self.evaluated)

    def learning_rate(self) -> float:
        """Learning rate of the step that comes next."""
        return learning_rate(
            self.config.schedule, self.config.optim.lr, self.state.step, self.derived.steps, self.derived.warmup_steps
        )

    def advance(self, batch: StepBatch) -> None:
        """Count the step."""
        self.state.step += 1
        self.state.tokens += self.config.train.tokens_per_step
        self.state.cursor = batch.cursor

    def settle(self, keep: int = 0, watch: Stopwatch | None = None) -> None:
        """Read and record the metrics of all steps in flight but the last ``keep``.

        Raises NonFiniteError when the policy on non-finite gradients says stop. Evaluation and saving settle
        everything first, so that nothing is saved after such a step.
        """
        while len(self.in_flight) > keep:
            done = self.in_flight.popleft()
            if watch is not None:
                watch.charge_rest()
            loss, grad_norm, finite = self.backend.fetch(done.metrics)
            if watch is not None:
                watch.lap("compute")  # waiting for the device is compute; writing the record is not
            self.state.updates += int(finite)
            self.write(self.step_record(done, loss, grad_norm, finite))
            self.state.nonfinite = count_nonfinite(self.config.reliability, done.step, finite, self.state.nonfinite)

    def step_record(self, done: InFlight, loss: float, grad_norm: float, finite: bool) -> StepRecord:
        """The step's line in metrics.jsonl."""
        total = done.seconds.total
        self.pace = total if not self.pace else 0.9 * self.pace + 0.1 * total
        left = (self.last_step - done.step) * self.pace
        return done.record(self.config, self.backend.facts().peak_flops, loss, grad_norm, finite, left)

    def evaluate_when_due(self, stop: StopRequest) -> None:
        """Every so many steps, and after the last."""
        every, step = self.config.evaluation.every_steps, self.state.step
        if self.evaluator is None or not every:
            return
        if step % every == 0 or self.complete or (self.backend.extracting and step == self.last_step):
            self.settle()
            self.evaluate(stop)

    def evaluate(self, stop: StopRequest) -> None:
        """Score held-out text and sets; a stop ends it without a result, and all ranks with it."""
        assert self.evaluator is not None
        found: list[EvaluationRecord | SetRecord] = []
        begin = partial(self._begin, stop)
        with self.watchdog.phase("evaluation", more=0.0 if self.evaluated else self.backend.compile_seconds):
            for record in self.evaluator.evaluate(self.backend, self.state.step, self.state.tokens, begin):
                if record is None:
                    self.stopped = True
                    return
                found.append(record)
        self.evaluated = found
        for record in found:
            self.write(record)
        if (wanted := self.config.evaluation.best) is not None:
            self.state.best = best_of(wanted, found, self.state.step, self.state.best)

    def _begin(self, stop: StopRequest, part: str, together: bool) -> Brake:
        brake = self.brake(stop, "pp", *(("dp",) if together else ()))
        brake.begin(f"evaluation {self.state.step} {part}")
        return brake

    def save_when_due(self, by_clock: bool) -> None:
        """Every so many steps or minutes, where training was best so far, and after the last step.

        In between, the copies are compared.
        """
        step, audit = self.state.step, self.config.reliability.audit_steps
        last = self.stopped or step == self.last_step or self.exhausted
        best = self.state.best is not None and self.state.best.step == step
        if by_clock or last or best or self.saves.due(step):
            self.save(wait=last)
        elif audit and step % audit == 0 and not self.backend.extracting:
            self.saves.audit(step)

    def save(self, wait: bool = False) -> None:
        """Save where training stands; not where steps compute nothing. wait: until it, and any before, is written."""
        self.settle()
        if self.backend.extracting:
            return
        self.collect_saves(wait)
        if (record := self.saves.save(self.state, wait)) is not None:
            self.write_save(record)

    def collect_saves(self, wait: bool = False) -> None:
        """Record the saves beside training that have ended; one that failed stops all ranks before the next step."""
        for ended in self.saves.ended(wait):
            if isinstance(ended, RunError):
                self.failure = ended
            else:
                self.write_save(ended)

    def write_save(self, record: SaveRecord) -> None:
        """Record a save; the first one shows whether the grace is as long as a stop takes here."""
        self.write(record)
        if self.sinks and self.pace and not self.told_grace:
            self.told_grace = True
            if line := short_grace(self.config, self.derived.accumulation, self.backend, self.pace, record.seconds):
                print(f"  {line}", flush=True)

    def write(self, record: Record) -> None:
        """To every sink; ranks other than 0 have none.

        A failure stops all ranks together, before the next step and after a save: raised here, on rank 0 alone, it
        would leave the others in a collective.
        """
        if self.backend.extracting:
            return
        try:
            write_all(self.sinks, record)
        except OSError as error:
            rule = f"takes the run's records ({error.strerror}); the checkpoints are untouched"
            remedy = "make room or restore access, then give the same command again"
            self.failure = ConfigError(Problem("run.root", self.config.run.root, rule, remedy))

    def raise_failure(self) -> None:
        """Raise what kept a batch from being read or a record from being written."""
        if self.failure is not None:
            raise self.failure
