"""What the main function of a command's script does: parse, act, report."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from trainer.errors import ConfigError, ExitCode, Problem, RunError
from trainer.run.ending import tell
from trainer.run.output import lost_output, outlive_readers
from trainer.run.world import World

INTERRUPTED = 130
"""As a shell has it of a program that Ctrl-C has ended."""


def run(parser: argparse.ArgumentParser, act: Callable[[argparse.Namespace], int | None]) -> int:
    """The exit code: what ``act`` returns, None for done; that of the error it raises; 3 for options that are none.

    Of a launch by torchrun one rank tells an error in full, every other in one line.
    """
    outlive_readers()
    try:
        options = parser.parse_args()
    except SystemExit as error:  # argparse has said what it does not understand
        return int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE)
    try:
        code = int(act(options) or ExitCode.DONE)
        _refuse_lost_output()
        return code
    except RunError as error:
        return tell(error, _world(), None)
    except KeyboardInterrupt:
        return INTERRUPTED


def _world() -> World:
    """This process in its launch, to report an error by; alone where the error is that there is no such launch."""
    try:
        return World.from_environment()
    except RunError:
        return World()


def _refuse_lost_output() -> None:
    """Who closes a pipe has read enough; a full disk has swallowed what was asked for."""
    if (error := lost_output()) is not None and not isinstance(error, BrokenPipeError):
        rule = "takes all that is written there; what came after this error is lost"
        raise ConfigError(Problem("standard output", error.strerror, rule, "make room, or write it elsewhere"))
