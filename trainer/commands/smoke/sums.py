"""Whether long sums of BF16 gradients keep small parts: 256 + 1 is 256 where they are added up in BF16."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from trainer.commands.smoke.jobs import ROOT, Setting
from trainer.commands.smoke.page import Line, judged

COUNT = 4096
"""Ones in a sum: the tokens of a microbatch of the full-size recipes."""
LIMIT = 0.005
"""Largest relative distance from COUNT: what docs/numerics.md allows a gradient in BF16."""
SECONDS = 1800
NAME = "sums of gradients"


def measure(setting: Setting) -> dict[str, float] | str:
    """Run ones.py in a process of its own, on one core; or why there is nothing."""
    # A cache of its own: graphs of the runs are counted in theirs.
    environment = {**os.environ, "NEURON_COMPILE_CACHE_URL": f"{setting.cache}-sums", "NEURON_RT_NUM_CORES": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "trainer.commands.smoke.ones", "cpu" if setting.dry else "neuron"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found
    except subprocess.TimeoutExpired:
        return f"took more than {SECONDS} s"
    except (IndexError, ValueError):
        return (done.stderr.strip().splitlines() or ["it ended without saying why"])[-1]


def line(found: Mapping[str, float] | str) -> Line:
    """found: by kind of parameter, the element that is furthest off; or why there is none."""
    wanted = f"{COUNT:,} ones added up, to {LIMIT:.1%}, whatever the parameter"
    if isinstance(found, str):
        return judged(NAME, False, found, wanted)
    good = all(abs(value - COUNT) <= LIMIT * COUNT for value in found.values())
    return judged(NAME, good and bool(found), ", ".join(f"{kind} {value:g}" for kind, value in found.items()), wanted)
