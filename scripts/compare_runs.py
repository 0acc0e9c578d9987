"""Runs side by side: settings that differ, losses, speed, ends, and the first step where they part.

python scripts/compare_runs.py runs/A runs/B ... [--html compare.html] [--json]    a directory of runs stands for them
exit 0: compared; 3: the report says what is wrong (docs/compare.md)
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from trainer.commands.compare_runs.comparison import as_json, compare
from trainer.commands.compare_runs.page import page
from trainer.commands.compare_runs.runs import CompareError, collect
from trainer.commands.compare_runs.table import describe
from trainer.errors import ExitCode, Problem, RunError
from trainer.files import write_atomically


def main() -> int:
    """Parse, compare, print; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's directory, or a directory of runs")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that opens without a network")
    parser.add_argument("--json", action="store_true", help="print JSON in the place of tables")
    try:
        options = parser.parse_args()
    except SystemExit as error:  # argparse has said what it does not understand
        return int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE)
    try:
        comparison = compare(collect(options.runs))
        if options.html is not None:
            write(options.html, page(comparison))
    except RunError as error:
        print(error.report(), file=sys.stderr)
        return int(error.code)
    lines = [json.dumps(as_json(comparison), indent=2)] if options.json else describe(comparison)
    print("\n".join(lines))
    if options.html is not None:
        print(options.html, file=sys.stderr)
    return int(ExitCode.DONE)


def write(path: Path, text: str) -> None:
    """Raises CompareError where the page cannot be written."""
    try:
        write_atomically(path, text)
    except (OSError, ValueError) as error:
        rule = f"a file that can be written: {getattr(error, 'strerror', None) or error}"
        remedy = "name a file in a directory that you may write to"
        raise CompareError(Problem("--html", str(path), rule, remedy)) from error


if __name__ == "__main__":
    sys.exit(main())
