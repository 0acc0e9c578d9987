"""Runs the rows of the campaign and prints its table; exits 1 when any row fails."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests import harness

SHORT = {"killed": 6, "stopped": 2}


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the choice of instants")
    parser.add_argument("--short", action="store_true", help="a few kills and stops")
    parser.add_argument("--only", nargs="+", default=[], help="names of kinds, such as killed or stopped")
    arguments = parser.parse_args()
    environment = harness.environment()
    os.environ.clear()
    os.environ.update(environment)

    from tests.faults.campaign.kinds import KINDS, tried  # torch: after the environment
    from tests.faults.campaign.plan import Plan
    from tests.faults.campaign.settings import SETTINGS
    from tests.faults.campaign.table import table

    counts = SHORT if arguments.short else {kind: count for kind, (_, count) in KINDS.items()}
    if unknown := sorted(set(arguments.only) - set(counts)):
        parser.error(f"no kind {unknown[0]}; there are {', '.join(counts)}")
    directory, start = Path(tempfile.mkdtemp(prefix="campaign-")), time.monotonic()
    os.chdir(directory)
    plan = Plan(arguments.seed, SETTINGS[::2] if arguments.short else SETTINGS)
    rows = []
    for kind, count in counts.items():
        if not arguments.only or kind in arguments.only:
            for row in tried(kind, plan, count):
                rows.append(row)
                print(" | ".join(row.cells()), *row.complaints, sep="\n", file=sys.stderr, flush=True)
    passed = bool(rows) and all(row.passed for row in rows)
    print(f"\n{table(rows)}\n")
    print(f"{sum(row.count for row in rows)} faults in {time.monotonic() - start:.0f} s, seed {plan.seed}")
    if passed:
        shutil.rmtree(directory)
    else:
        print(f"failed; the runs are in {directory}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
