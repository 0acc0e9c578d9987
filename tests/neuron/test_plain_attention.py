"""Attention that the neuron backend writes out, against PyTorch's: documents, padding and shared key-value heads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.neuron.library import DOUBLE, over_gloo
from tests.ranks import Task, run


@pytest.mark.slow
def test_it_is_pytorchs_attention(tmp_path: Path) -> None:
    """BF16 has 8 bits: a few roundings of 1/256 each."""
    [found] = run(Task("tests.neuron.attention_worker:differences"), tmp_path, over_gloo(DOUBLE))
    assert set(found) == {"torch.float32", "torch.bfloat16"}
    assert found["torch.float32"] < 2e-6
    assert found["torch.bfloat16"] < 2e-2
