"""Every named defect of neuronx-distributed has its canary, and files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trainer.backends.neuron.defects import DEFECTS

ROOT = Path(__file__).parents[2]
CANARIES = (ROOT / "tests/neuron/test_canaries.py").read_text(encoding="utf-8")
SAID = set(re.findall(r'mended\(\s*"(\w+)"', CANARIES))


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_has_a_canary_and_a_place(name: str) -> None:
    assert name in SAID
    for file in re.findall(r"\w+/\w+\.py", DEFECTS[name].here):
        assert any((root / file).exists() for root in (ROOT / "trainer/backends/neuron", ROOT / "trainer")), file


def test_a_canary_says_a_name_that_there_is() -> None:
    assert set(DEFECTS) == SAID
