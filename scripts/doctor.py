"""Can this machine train? Each thing that it needs: found, wanted, verdict and remedy (docs/doctor.md).

python scripts/doctor.py [--nodes 4] [--backend native] [--launcher slurm] [--ranks 2] [--json]
exit 0: all is fine; 3: something to mend; under scripts/launch.py the ranks are examined together
"""

from __future__ import annotations

import json
import sys

from trainer.commands.doctor.line import as_json, verdict
from trainer.commands.doctor.run import launch, of_the_launch, of_this_machine, parser
from trainer.errors import ExitCode, RunError
from trainer.run.world import World


def main() -> int:
    """Look, print, and say by the exit code whether all is fine."""
    try:
        asked = parser(__doc__).parse_args()
    except SystemExit as error:  # argparse has said what it does not understand
        return int(ExitCode.CONFIG) if error.code else int(ExitCode.DONE)
    try:
        world = World.from_environment()
        if asked.ranks and world.size == 1:
            launch(asked, sys.argv[1:])
        lines = of_the_launch(asked, world) if world.size > 1 else list(of_this_machine(asked))
    except RunError as error:
        print(error.report(), file=sys.stderr)
        return int(error.code)
    if isinstance(lines, bool):  # rank 0 prints
        return int(ExitCode.DONE if lines else ExitCode.CONFIG)
    print(json.dumps(as_json(lines), indent=2) if asked.json else "\n".join([*map(str, lines), verdict(lines)]))
    return int(ExitCode.DONE if all(line.fine for line in lines) else ExitCode.CONFIG)


if __name__ == "__main__":
    sys.exit(main())
