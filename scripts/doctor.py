"""Can this machine train with backend=neuron? Each thing that it needs: found, wanted, verdict and remedy.

python scripts/doctor.py [--nodes 4]      exit 0: all is fine; 3: something to mend
"""

from __future__ import annotations

import argparse
import sys

from trainer.commands.doctor import examine, limits
from trainer.errors import ExitCode
from trainer.trainium.host import detect


def count(text: str) -> int:
    """A number of nodes, of which there is one at least."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of nodes: give 1 or more")
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=count, default=1, help="nodes of the job that this machine is meant for")
    try:
        nodes = parser.parse_args().nodes
    except SystemExit as error:  # argparse has said what it does not understand
        return int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE)
    lines = list(examine(detect(), limits(), nodes))
    print("\n".join(map(str, lines)))
    wrong = [line.what for line in lines if not line.fine]
    print(f"{len(wrong)} of {len(lines)} to mend: {', '.join(wrong)}" if wrong else "all is fine")
    return int(ExitCode.CONFIG if wrong else ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main())
