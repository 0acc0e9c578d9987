"""The limits of a save's planning on rank 0, at the size for which they are promised (docs/checkpoints.md)."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests import harness


@pytest.mark.slow
def test_planning_for_3200_ranks_takes_seconds_and_little_memory() -> None:
    """Chunks by a closed form: 4,096 rows in 400 shares are 373 of 11 rows, for each of eight ranks or for one."""
    done = subprocess.run(
        [sys.executable, str(harness.ROOT / "benchmarks" / "checkpoint_planning.py")],
        env=harness.environment() | {"PYTHONPATH": str(harness.ROOT)},
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    chunks, seconds, megabytes = re.search(
        r"3,200 ranks: ([\d,]+) chunks .*?\(([\d.]+) s of computing\) +(\d+) MB", done.stdout, re.DOTALL
    ).groups()  # type: ignore[union-attr]

    def shares(rows: int) -> int:
        return -(-rows // -(-rows // 400))

    column, mlp, row, norm, vocabulary = 4096 // 8, 11008 // 8, 4096, 4096, 102400 // 8
    matrices = 8 * (3 * shares(column) + 2 * shares(mlp) + 2 * shares(row))
    parameters = 30 * (matrices + 2 * shares(norm)) + shares(norm) + 2 * 8 * shares(vocabulary)
    assert int(chunks.replace(",", "")) == 3 * parameters
    assert float(seconds) < 10
    assert int(megabytes) < 200
