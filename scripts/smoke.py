"""The smoke test for the day a trn1.32xlarge is at hand: a page of results, pass or fail a line (docs/trainium.md).

python scripts/smoke.py [--dry] [--root DIRECTORY] [--golden FILE] [--hours PER_RUN]     or: make trn1-smoke [DRY=1]
"""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path

from trainer.commands.smoke.curve import GOLDEN
from trainer.commands.smoke.jobs import Setting
from trainer.commands.smoke.run import smoke
from trainer.errors import RunError


def main() -> int:
    """Parse, run, report; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    now = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
    parser.add_argument("--dry", action="store_true", help="the same jobs, small, on the native backend and this CPU")
    parser.add_argument(
        "--root", type=Path, default=Path("runs") / f"smoke-{now}", help="a directory that is not there"
    )
    parser.add_argument("--golden", type=Path, default=GOLDEN, help="the curve that CPU gave")
    parser.add_argument("--hours", type=float, default=3.0, help="the longest that one run may take; it compiles first")
    options = parser.parse_args()
    root = options.root.absolute()
    # Beside the compiler's own cache: runs/ may be shared by nodes, where a cache breaks.
    cache = Path("/var/tmp") / f"neuron-compile-cache-{root.name}"
    setting = Setting(root, cache, options.dry, options.hours * 3600)
    try:
        return smoke(setting, options.golden)
    except RunError as error:
        print(error.report(), file=sys.stderr)
        return int(error.code)


if __name__ == "__main__":
    sys.exit(main())
