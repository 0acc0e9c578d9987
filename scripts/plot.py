"""The curves of runs as a picture: training loss at each step, held-out bits per byte beside zlib -9.

python scripts/plot.py runs/tiny [runs/other ...] --out curve.png      exit 0: drawn; 3: the report says what is wrong
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from trainer.commands.plot import plot
from trainer.errors import ExitCode, RunError


def main() -> int:
    """Parse, draw, report; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the directory of a run")
    parser.add_argument("--out", type=Path, required=True, help="the picture: NAME.png, NAME.svg or NAME.pdf")
    try:
        options = parser.parse_args()
    except SystemExit as error:  # argparse has said what it does not understand
        return int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE)
    try:
        plot(options.runs, options.out)
    except RunError as error:
        print(error.report(), file=sys.stderr)
        return int(error.code)
    print(options.out)
    return int(ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main())
