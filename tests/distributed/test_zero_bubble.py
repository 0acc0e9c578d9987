"""ZeRO accumulates in FP32 where the zero bubble computes weights' gradients apart from the inputs'."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import harness
from tests.distributed.layouts import parse
from tests.ranks import Task, attempt

pytestmark = pytest.mark.slow


def test_zero_adds_up_in_fp32_under_the_zero_bubble(tmp_path: Path) -> None:
    """The same BF16 gradients of the same microbatches, added by our accumulators and by FSDP2's: but for the
    order the same. Added up in BF16 they differ by 2e-3.
    """
    harness.write_corpus(tmp_path / "corpus")
    layouts = ["dp2-pp2-zb", "dp2-pp2-zb-zero1"]
    work = "tests.distributed.zero_bubble_worker:step"
    outcomes = attempt({name: Task(work, parse(name).processes, {"layout": name}) for name in layouts}, tmp_path)
    plain, other = (whole(tmp_path, name, len(outcomes[name])) for name in layouts)
    worst = {name: ((other[name] - plain[name]).norm() / plain[name].norm()).item() for name in plain}
    assert len(worst) > 40
    assert max(worst.values()) < 1e-5, max(worst.items(), key=lambda item: item[1])


def whole(out: Path, layout: str, ranks: int) -> dict[str, torch.Tensor]:
    """Each parameter's moment, its rows in order; both layouts cut rows only."""
    parts: dict[str, dict[int, torch.Tensor]] = {}
    for rank in range(ranks):
        for key, values in load_file(out / f"{layout}-{rank}.safetensors").items():
            name, _, offsets = key.partition("@")
            parts.setdefault(name, {})[int(offsets.partition(",")[0])] = values
    return {name: torch.cat([rows[first] for first in sorted(rows)]) for name, rows in parts.items()}
