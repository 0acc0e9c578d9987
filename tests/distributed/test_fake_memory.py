"""The fake backend's peak memory against a real process's, for layouts with at least 1 GB of state."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed import memory
from tests.ranks import Task, run

pytestmark = pytest.mark.slow

MODEL = [
    *("recipe=tiny", "model.hidden=768", "model.heads=12", "model.kv_heads=12", "model.mlp=2048", "model.vocab=16384"),
    *("model.tied=false", "data.seq_len=512", "train.microbatch=1", "backend=native", "precision.cpu_fallback=null"),
    *("model.loss_chunk_tokens=512", "precision=fp32"),
]
LAYOUTS = {
    "tp2-sp-full": (2, ["model.layers=16", "parallel.tp=2", "parallel.sp=true", "parallel.recompute=full"]),
    "pp2": (2, ["model.layers=16", "parallel.pp=2"]),
    "dp2-zero1": (2, ["model.layers=16", "parallel.zero=1"]),
}
"""Processes, and what the layout asks for besides. FP32: without BF16 instructions a CPU takes minutes for a step."""


@pytest.mark.parametrize(
    "layout", [pytest.param(layout, marks=[pytest.mark.long] * (layout != "tp2-sp-full")) for layout in LAYOUTS]
)
def test_peak_memory_is_that_of_a_real_process(layout: str, tmp_path: Path) -> None:
    processes, overrides = LAYOUTS[layout]
    task = Task("tests.distributed.memory:measured", processes, {"overrides": [*MODEL, *overrides]}, seconds=300)
    real, *_ = run(task, tmp_path)
    report = memory.rehearsed([*MODEL, *overrides], processes)
    fake = report.static.total + max(report.totals.peaks.values())
    state = report.static.total
    print(f"{layout}: rehearsed {fake / 1e6:,.0f} MB, {state / 1e6:,.0f} MB of it state; real {real / 1e6:,.0f} MB")
    assert state >= 1e9
    assert abs(fake - real) <= 0.15 * real
