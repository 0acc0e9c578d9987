"""What the main function of a command's script does: parse, act, report."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from trainer.errors import ExitCode, RunError
from trainer.run.output import outlive_readers


def run(parser: argparse.ArgumentParser, act: Callable[[argparse.Namespace], int | None]) -> int:
    """The exit code: what ``act`` returns, None for done; that of the error it raises; 3 for options that are none.

    Of a launch by torchrun rank 0 tells an error in full, every other rank in one line.
    """
    outlive_readers()
    try:
        options = parser.parse_args()
    except SystemExit as error:  # argparse has said what it does not understand
        return int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE)
    try:
        return int(act(options) or ExitCode.DONE)
    except RunError as error:
        first = os.environ.get("RANK", "0") == "0"
        print(error.report() if first else error.one_line(), file=sys.stderr)
        return int(error.code)
    except KeyboardInterrupt:
        return 130
