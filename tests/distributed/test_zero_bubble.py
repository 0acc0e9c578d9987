"""ZeRO accumulates in FP32 where the zero bubble computes weights' gradients apart from the inputs'."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import harness

pytestmark = pytest.mark.slow


def test_zero_adds_up_in_fp32_under_the_zero_bubble(tmp_path: Path) -> None:
    """The same BF16 gradients of the same microbatches, added by our accumulators and by FSDP2's: but for the
    order the same. Added up in BF16 they differ by 2e-3.
    """
    harness.write_corpus(tmp_path / "corpus")
    layouts = ["dp2-pp2-zb", "dp2-pp2-zb-zero1"]
    harness.work_in_forks("tests.distributed.zero_bubble_worker", ["out", *layouts], tmp_path, 300)
    worst = json.loads((tmp_path / "out" / "worst.json").read_text())
    assert len(worst) > 40
    assert max(worst.values()) < 1e-5, max(worst.items(), key=lambda item: item[1])
