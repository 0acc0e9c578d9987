"""What can go wrong, said once: exit codes, problems with their remedies, and the errors that carry them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from trainer.redact import redact


class ExitCode(IntEnum):
    """Exit code of a worker process. Documented in docs/exit_codes.md; schedulers branch on them."""

    DONE = 0
    CONFIG = 3
    DATA = 4
    PREEMPTED = 10
    NONFINITE = 11
    HANG = 12
    NO_CHECKPOINT = 13
    GATE = 14
    REPLICAS = 15


@dataclass(frozen=True)
class Problem:
    """One mistake: which key, what it holds, the rule it breaks and what to do about it."""

    key: str
    value: object
    rule: str
    remedy: str

    def __str__(self) -> str:
        shown = redact({self.key: self.value})[self.key]
        return f"{self.key} = {shown!r}\n      rule:   {redact(self.rule)}\n      remedy: {redact(self.remedy)}"


def one_line(problem: Problem) -> str:
    """A problem for a ledger: without secrets, like all that is shown."""
    value = redact({problem.key: problem.value})[problem.key]
    return f"{problem.key} = {value}: {redact(problem.rule)}; {redact(problem.remedy)}"


class RunError(Exception):
    """A run that cannot go on, for reasons the user can mend: one message, an exit code, no traceback."""

    code: ExitCode = ExitCode.CONFIG
    title = "cannot start"
    rank = 0
    """The rank that reports it in full: all ranks raise the same, unless trainer.training.collective says otherwise."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(self.report())

    def report(self) -> str:
        """All problems as the text that rank 0 prints."""
        count = len(self.problems)
        head = f"{self.title}: {count} problem{'s' if count != 1 else ''} (exit {int(self.code)})"
        return "\n".join([head, *(f"  {i}. {problem}" for i, problem in enumerate(self.problems, 1))])

    def one_line(self) -> str:
        """What the other ranks print: enough to find the cause, not enough to drown the report."""
        keys = ", ".join(p.key for p in self.problems)
        return f"{self.title} (exit {int(self.code)}): {keys}; see rank {self.rank}"


class ConfigError(RunError):
    """The configuration is wrong, or the run directory refuses it."""

    code = ExitCode.CONFIG
    title = "the configuration cannot run"


class DataError(RunError):
    """The data cannot be read or yields nothing to train on."""

    code = ExitCode.DATA
    title = "the data cannot be used"


class NonFiniteError(RunError):
    """The gradient norm was not finite and the policy says stop."""

    code = ExitCode.NONFINITE
    title = "training stopped at a non-finite gradient"


class CheckpointError(RunError):
    """There are checkpoints, and none of them verifies."""

    code = ExitCode.NO_CHECKPOINT
    title = "no checkpoint verifies"


class HangError(RunError):
    """A rank did not arrive where the others wait for it."""

    code = ExitCode.HANG
    title = "a rank did not arrive"
    stacks: Mapping[str, str] = {}
    """Where some ranks' programs stood, by rank."""

    def report(self) -> str:
        """With the stacks that are known."""
        shown = [f"  rank {rank} stood at:\n{stack.rstrip()}" for rank, stack in self.stacks.items()]
        return "\n".join([super().report(), *shown])


class ReplicasError(RunError):
    """Copies of one tensor differ between ranks: nothing is saved, and the newest sound checkpoint is the truth."""

    code = ExitCode.REPLICAS
    title = "replicas differ"


class ElsewhereError(RunError):
    """Another rank stopped for a reason that it has printed; this rank stops with it, under the same code."""

    def __init__(self, code: int, rank: int = 0) -> None:
        self.code, self.rank = ExitCode(code), rank
        self.title = f"stopping with rank {rank}"
        super().__init__(())

    def one_line(self) -> str:
        """That rank says the rest."""
        return f"{self.title} (exit {int(self.code)})"
