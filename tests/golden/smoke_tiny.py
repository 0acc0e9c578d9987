"""Writes smoke_tiny.json: the curve of the smoke test's tiny model, one process, native backend, CPU.

python -m tests.golden.smoke_tiny     about half a minute; look at the difference before committing it
"""

from __future__ import annotations

import json
import platform
import tempfile
from pathlib import Path

import torch

from tests.harness import ROOT, records, train
from trainer.commands.smoke.jobs import TINY

PATH = Path(__file__).with_suffix(".json")
PRECISIONS = ("fp32", "bf16_mixed")


def curve(precision: str, directory: Path) -> dict[str, list[float]]:
    """Losses and gradient norms of every step."""
    own = [
        f"precision={precision}",
        "precision.cpu_fallback=null",
        "backend=native",
        f"run.root={directory}",
        f"run.name={precision}",
    ]
    done = train(ROOT, [*TINY, *own, f"data.cache_dir={directory}/data"], timeout=900)
    assert done.code == 0, done.output
    steps = records(directory / precision)
    return {"loss": [step["loss"] for step in steps], "norm": [step["grad_norm"] for step in steps]}


def main() -> None:
    """Train in each precision and write the file."""
    with tempfile.TemporaryDirectory() as scratch:
        curves = {precision: curve(precision, Path(scratch)) for precision in PRECISIONS}
    made = {"by": "python -m tests.golden.smoke_tiny", "torch": torch.__version__, "machine": platform.machine()}
    PATH.write_text(json.dumps({"made": made, "overrides": list(TINY), "curves": curves}, indent=1) + "\n")


if __name__ == "__main__":
    main()
