"""What a family of a user's own may get wrong is one clear mistake, before any rank meets another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.test_fake_step import MODEL
from trainer.errors import ConfigError
from trainer.models.decoder import CausalLM
from trainer.models.dropout import Dropout
from trainer.models.family import Family, family_of
from trainer.models.sharding import rules, sharding_plan


class WithoutKeys(CausalLM):
    def forward(self, tokens: Any, labels: Any, positions: Any, document_ids: Any) -> Any:  # type: ignore[override]
        return super().forward(tokens, labels, positions, document_ids)


class NamesOfSome(CausalLM):
    def canonical_names(self) -> dict[str, str]:
        return dict(list(super().canonical_names().items())[1:])


class Misplaced(CausalLM):
    def __init__(self) -> None:
        super().__init__(MODEL)
        self.model.layers["1"].mlp_dropout = Dropout(0.1, MODEL.hidden // 2)


class Misshapen(CausalLM):
    def __init__(self) -> None:
        super().__init__(MODEL)
        self.model.norm = nn.LayerNorm(MODEL.hidden + 1)


def broken() -> nn.Module:
    raise KeyError("width")


def fails() -> Family:
    raise LookupError("no such size")


def frozen() -> Family:
    plan = sharding_plan(MODEL)
    plan = plan.adding({glob: replace(rule, trainable=False) for glob, rule in rules(MODEL).items()})
    return Family(lambda: CausalLM(MODEL), plan)


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "no family": (lambda: CausalLM(MODEL), "returns a trainer.models.family.Family, not CausalLM"),
    "no plan": (lambda: Family(lambda: CausalLM(MODEL), None), "whose plan is NoneType"),  # type: ignore[arg-type]
    "nothing built": (lambda: Family(lambda: None, sharding_plan(MODEL)), "NoneType has no keep_stage"),  # type: ignore[arg-type, return-value]
    "another model": (lambda: Family(lambda: nn.Linear(2, 2), sharding_plan(MODEL)), "Linear has no keep_stage"),
    "no keys": (lambda: Family(lambda: WithoutKeys(MODEL), sharding_plan(MODEL)), "document_ids, keys: too many"),
    "some names": (lambda: Family(lambda: NamesOfSome(MODEL), sharding_plan(MODEL)), "a name to each of its 30"),
    "a builder that fails": (
        lambda: Family(broken, sharding_plan(MODEL)),
        r"KeyError: 'width' in test_family_door\.py",
    ),
    "a maker that fails": (fails, r"LookupError: no such size in test_family_door\.py, line"),
    "a dropout of another size": (lambda: Family(Misplaced, sharding_plan(MODEL)), "whole activations between blocks"),
    "a part of another size": (lambda: Family(Misshapen, sharding_plan(MODEL)), "its model takes a batch"),
    "nothing to train": (frozen, "leaves a parameter to train"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_in_a_family_is_told(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, message = CASES[case]
    monkeypatch.setattr("tests.unit.test_family_door.maker", lambda config: make(), raising=False)
    with pytest.raises(ConfigError, match=message):
        family_of(replace(MODEL, family=f"{__name__}:maker"))


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_dropout_takes_a_share(p: float) -> None:
    with pytest.raises(ConfigError, match="0 <= dropout < 1"):
        Dropout(p, 4)


def test_a_sound_family_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Family(lambda: CausalLM(MODEL), sharding_plan(MODEL))
    monkeypatch.setattr("tests.unit.test_family_door.maker", lambda config: made, raising=False)
    with torch.device("meta"):
        assert isinstance(family_of(replace(MODEL, family=f"{__name__}:maker")).build(), CausalLM)
