"""XLA drops what the CPU drops: a curve that depends on the device would be none."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.neuron.library import LAZY
from tests.ranks import Setting, Task, run


@pytest.mark.skipif(importlib.util.find_spec("torch_xla") is None, reason="torch_xla is not installed")
def test_masks_are_those_of_the_host(tmp_path: Path) -> None:
    [found] = run(Task("tests.neuron.dropout_worker:compared"), tmp_path, Setting(LAZY))
    assert found == {"hashes": True, "torch.float32": True, "torch.bfloat16": True}
