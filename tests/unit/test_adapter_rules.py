"""Values of an adapter, each with its remedy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_validate import ONE, VALID, changed
from trainer.rules.adapters import adapters


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("rank", 0, "rank >= 1"),
        ("rank", 10**12, "B A has no higher rank"),
        ("alpha", 0.0, "twice the rank"),
        ("alpha", float("nan"), "0 < alpha < inf"),
        ("lr_ratio", float("inf"), "0 < lr_ratio < inf"),
        ("dropout", 1.0, "dropout < 1"),
        ("targets", [], "all-linear"),
        ("targets", ["q_proj", " "], "leave empty ones out"),
        ("also_train", [""], "leave empty ones out"),
    ],
)
def test_values_of_an_adapter(key: str, value: Any, words: str) -> None:
    config = changed(changed(VALID, "adapter.kind", "lora"), "model.init_from", "models/one")
    assert not list(adapters(config, ONE))
    (problem,) = adapters(changed(config, f"adapter.{key}", value), ONE)
    assert problem.key == f"adapter.{key}"
    assert words in problem.rule + problem.remedy
