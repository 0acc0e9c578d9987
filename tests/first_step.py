"""A run of scripts/train.py that tells, on every rank, what it took to get to its first step.

FIRST_STEP: a directory; each rank leaves RANK.json there. BEGUN: when the command was given, in seconds of the epoch.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import trainer.training.loop as loop
from tests import harness
from tests.simulated import bytes_read
from tests.unit.test_data_support import byte_tokenizer

original = loop.watched_step


def told(*given: Any, **named: Any) -> Any:
    """The first step of a launch, after a word about what was before it."""
    found = {
        "seconds": time.time() - float(os.environ["BEGUN"]),
        "megabytes": getrusage(RUSAGE_SELF).ru_maxrss / 1000,
        "read": bytes_read(),
    }
    (Path(os.environ["FIRST_STEP"]) / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(found))
    return original(*given, **named)


def measure(cwd: Path, paths: list[str], processes: int = 1, kind: str = "indexed") -> list[dict[str, float]]:
    """One start on these token files: seconds since the command, peak MB and bytes read, of every rank."""
    byte_tokenizer().save(cwd / "tokenizer.json")
    told_in = cwd / "told"
    told_in.mkdir(exist_ok=True)
    name = f"run-{time.time_ns()}"
    sources = f"data.sources=[{{kind: {kind}, name: m, paths: [{', '.join(paths)}]}}]"
    tokenizer = ["data.tokenizer.kind=file", f"data.tokenizer.path={cwd / 'tokenizer.json'}"]
    rest = ["train.steps=1", "schedule.warmup_steps=0", "evaluation.every_steps=10", "data.heldout_fraction=0.02"]
    more = {"FIRST_STEP": str(told_in), "BEGUN": str(time.time()), "PYTHONPATH": str(harness.ROOT)}
    overrides = [*harness.SMALL, sources, *tokenizer, *rest, f"run.name={name}"]
    done = harness.train(cwd, overrides, processes, timeout=500, more=more, program=Path(__file__))
    assert done.code == 0, done.output
    return [json.loads((told_in / f"{rank}.json").read_text()) for rank in range(processes)]


if __name__ == "__main__":
    loop.watched_step = told
    sys.argv[0] = str(harness.TRAIN)
    sys.path.pop(0)  # this directory: tests.recipes is not recipes
    runpy.run_path(str(harness.TRAIN), run_name="__main__")
