"""Turns the end of a job into one report, one exit code and exit.json."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.errors import ElsewhereError, ExitCode, RunError
from trainer.run.exit_json import CRASH, write_crash, write_exit
from trainer.run.signals import interrupts_shown, uninterrupted
from trainer.run.world import World

REPORT_SECONDS = 2.0

ENDINGS = {
    int(ExitCode.DONE): "done",
    int(ExitCode.PREEMPTED): "stopped by a signal, saved; the same command goes on",
}


class Ending:
    """How the jobs of this process end: hydra.main drops return values, and a sweep runs several jobs.

    codes: of the jobs that have begun, in order. directory: the run's, for exit.json; guessed from the command line
    until Hydra has composed; None while unknown, and where nothing is to be left.
    """

    def __init__(self) -> None:
        self.begin(None)

    def begin(self, directory: Path | None) -> None:
        """Before the process's first job."""
        self.codes: list[int] = []
        self.directory = directory

    @property
    def code(self) -> int:
        """The process's exit code: the largest of its jobs'."""
        return max(self.codes, default=int(ExitCode.DONE))

    @contextmanager
    def job(self, world: World) -> Iterator[None]:
        """Turns whatever ends the block into an exit code, a report and exit.json."""
        self.codes.append(ExitCode.DONE)
        try:
            with interrupts_shown():
                yield
        except RunError as error:
            self.codes[-1] = self.report(error, world)
        except KeyboardInterrupt as stop:
            self.codes[-1] = self.interrupted(world, stop.__cause__)
        except SystemExit as error:  # called by a plug-in: whatever its code, the run is not done
            self.codes[-1] = CRASH
            crash = RuntimeError(f"the run's own code called sys.exit({error.code!r})")
            write_crash(self.directory, world.rank, crash)
            print(f"rank {world.rank}: {crash}", file=sys.stderr, flush=True)
        except Exception as error:
            self.codes[-1] = CRASH
            write_crash(self.directory, world.rank, error)
            raise

    def finished(self, code: int, world: World) -> None:
        """The job has ended by itself: keep its code, and write exit.json where it is in ENDINGS. Rank 0 writes."""
        self.codes[-1] = code
        if world.rank == 0 and code in ENDINGS:
            write_exit(self.directory, code, 0, ENDINGS[code])

    def interrupted(self, world: World, cause: BaseException | None = None) -> int:
        """Report a stop that did not wait for the end of a step: outside training, or at the second SIGINT.

        cause: the exception that was raised because of the interrupt, or at the same time.
        """
        if world.rank == 0:
            text = "interrupted at once"
            if self.directory is not None:
                text += "; the same command goes on from the last checkpoint, if there is one"
            write_exit(self.directory, ExitCode.PREEMPTED, world.rank, text)
            print(text, file=sys.stderr, flush=True)
        if isinstance(cause, RunError):  # a consequence of the interrupt, or an error the next launch will hit
            print(f"rank {world.rank}: on the way, {cause.report()}", file=sys.stderr, flush=True)
        return int(ExitCode.PREEMPTED)

    def report(self, error: RunError, world: World) -> int:
        """Print the error and write exit.json; see ``tell``."""
        return tell(error, world, self.directory)


def tell(error: RunError, world: World, directory: Path | None) -> int:
    """Print the error, in full on the rank that reports it and as one line elsewhere; return its exit code.

    The first process of each node prints it in full too, since rank 0 may not see what is wrong with that node. The
    other ranks wait REPORT_SECONDS: torchrun ends all processes when one exits, and the report would be lost.
    """
    with uninterrupted():
        if (world.rank == error.rank or world.leads_node) and not isinstance(error, ElsewhereError):
            write_exit(directory, int(error.code), world.rank, error.title, error)
            prefix = f"rank {world.rank}: " if world.rank else ""
            print(prefix + error.report(), file=sys.stderr, flush=True)
        else:
            print(f"rank {world.rank}: {error.one_line()}", file=sys.stderr, flush=True)
            time.sleep(REPORT_SECONDS)
    return int(error.code)
