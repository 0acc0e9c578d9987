"""The table of optimizers takes what its walkthrough shows, and tells an optimizer what its parameters are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from trainer.config.groups.optim import OptimConfig
from trainer.errors import ConfigError
from trainer.optim import OPTIMIZERS
from trainer.optim.adamw import MixedPrecisionAdamW
from trainer.optim.making import make_optimizer
from trainer.optim.plugin import PluginOptimizer
from trainer.parallel.plan import matrix, norm

NOTHING_APART = {name: [(slice(None),)] for name in ("head", "gate", "scale")}
"""Every gradient counts whole."""
RULES = {"head": matrix("vocab", 0.02), "gate": matrix("column", 0.02), "scale": norm()}


def parameters() -> dict[str, nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"head": (8, 4), "gate": (6, 4), "scale": (4,)}
    return {name: nn.Parameter(torch.randn(shape, generator=draw)) for name, shape in shapes.items()}


class Matrices(torch.optim.Optimizer):
    """Subtracts the orthogonal part of a matrix's gradient (Jordan 2024, Muon, without momentum); else the gradient."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p, rule in zip(group["params"], group["rules"], strict=True):
                if rule.cut in ("column", "row", "kv"):
                    u, _, v = torch.linalg.svd(p.grad, full_matrices=False)
                    p.sub_(u @ v, alpha=group["lr"])
                else:
                    p.sub_(p.grad, alpha=group["lr"])


@pytest.mark.parametrize("name", ["mine", f"{__name__}:Matrices"])
def test_a_table_entry_and_a_name_from_outside_are_the_same_thing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMIZERS, "mine", f"{__name__}:Matrices")
    made = parameters()
    before = {key: value.detach().clone() for key, value in made.items()}
    optimizer = make_optimizer(OptimConfig(name=name, clip_norm=1e9), made, RULES, "fp32", NOTHING_APART)
    assert isinstance(optimizer, PluginOptimizer)
    assert not optimizer.elementwise, "unless its class says so"
    draw = torch.Generator().manual_seed(1)
    gradients = {key: torch.randn(value.shape, generator=draw) for key, value in made.items()}
    for key, value in before.items():
        made[key].data.copy_(value)  # its state was allocated by a step on zeros
        optimizer.gradient(key).copy_(gradients[key])
    optimizer.update(0.1, optimizer.squared_norm().sqrt())
    steps = {key: (before[key] - made[key].detach()) / 0.1 for key in made}
    for key in ("head", "scale"):
        torch.testing.assert_close(steps[key], gradients[key])
    torch.testing.assert_close(steps["gate"].T @ steps["gate"], torch.eye(4), atol=1e-4, rtol=0)


class Late(torch.optim.SGD):
    """Gets another state in its third step."""

    def step(self) -> None:  # type: ignore[override]
        super().step()
        for p in self.param_groups[0]["params"]:
            self.state[p]["step"] = self.state[p].get("step", 0) + 1
            if self.state[p]["step"] > 2:
                self.state[p]["memory"] = torch.zeros_like(p)


@pytest.mark.parametrize("trained", [True, False])
def test_state_that_comes_late_is_refused_on_every_stage(trained: bool) -> None:
    made = parameters() if trained else {}
    optimizer = make_optimizer(OptimConfig(name=f"{__name__}:Late"), made, RULES, "fp32", NOTHING_APART)
    norm = torch.tensor(1.0)
    for _ in range(2):
        optimizer.update(0.1, norm)
    with pytest.raises(ConfigError, match="memory came later"):
        optimizer.update(0.1, norm)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("torch.optim:SGD", {"momentun": 0.9}, "takes its options"),
        ("torch.optim:AdamW", {"fused": True, "foreach": True}, "takes its options"),
        ("torch.optim:AdamW", {"capturable": True}, "takes a step"),
        ("torch.optim:Adafactor", {}, "its state is element-wise"),
    ],
)
def test_a_stage_with_nothing_to_train_tells_the_mistakes_that_others_tell(
    name: str, options: dict[str, Any], told: str
) -> None:
    for made in (parameters(), {}):
        with pytest.raises(ConfigError, match=told):
            make_optimizer(OptimConfig(name=name, options=options), made, RULES, "fp32", NOTHING_APART)


def test_adamw_is_its_own_contract() -> None:
    made = make_optimizer(OptimConfig(), parameters(), RULES, "fp32", NOTHING_APART)
    assert type(made) is MixedPrecisionAdamW
