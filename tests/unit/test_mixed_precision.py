"""The optimizer wrapper against a by-hand AdamW, and the mask that keeps non-finite gradients out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainer.config.groups.optim import OptimConfig
from trainer.optim.adamw import MixedPrecisionAdamW
from trainer.parallel.plan import matrix, norm

RULES = {"matrix": matrix("none", 0.02), "norm.weight": norm(), "w": matrix("none", 0.02)}
CONFIG = OptimConfig(lr=1e-2, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0)


def parameters(dtype: torch.dtype) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {
        "matrix": nn.Parameter(torch.randn(8, 4, generator=generator).to(dtype)),
        "norm.weight": nn.Parameter(torch.ones(4).to(dtype)),
    }


def push(made: dict[str, nn.Parameter], gradients: dict[str, torch.Tensor]) -> None:
    """Bring gradients in through autograd, as a backward pass does."""
    sum((p * gradients[name].to(p.dtype)).sum() for name, p in made.items()).backward()


def apply(optimizer: MixedPrecisionAdamW, lr: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What a backend of one process does with reduced gradients: the norm, and whether it was finite."""
    norm = optimizer.squared_norm().sqrt()
    return norm, optimizer.update(lr, norm)


def test_the_norm_of_a_large_model_is_exact() -> None:
    """Against FP64 over 30M elements, where a plain FP32 sum is off by 1e-3."""
    made = {"w": nn.Parameter(torch.empty(30_000_001))}
    optimizer = MixedPrecisionAdamW(made, RULES, CONFIG, "fp32")
    made["w"].grad.normal_(generator=torch.Generator().manual_seed(0))
    exact = math.sqrt(sum(float(piece.double().square().sum()) for piece in made["w"].grad.split(1_000_000)))
    assert optimizer.squared_norm().sqrt().item() == pytest.approx(exact, rel=1e-6)


def test_fp32_equals_adamw_by_its_formula() -> None:
    """Loshchilov & Hutter's algorithm 2 in FP64, clipped by the global norm, decay on the matrix only."""
    made = parameters(torch.float32)
    optimizer = MixedPrecisionAdamW(made, RULES, CONFIG, "fp32")
    reference = {name: p.detach().double().clone() for name, p in made.items()}
    first = {name: torch.zeros_like(p) for name, p in reference.items()}
    second = {name: torch.zeros_like(p) for name, p in reference.items()}
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 6):
        gradients = {name: torch.randn(p.shape, generator=generator) * 3 for name, p in made.items()}
        lr = 1e-2 / step
        push(made, gradients)
        norm, finite = apply(optimizer, lr)
        expected_norm = math.sqrt(sum(float(g.double().pow(2).sum()) for g in gradients.values()))
        assert norm.item() == pytest.approx(expected_norm, rel=1e-6)
        assert finite.item()
        clip = min(1.0, 1.0 / (expected_norm + 1e-6))
        for name, weight in reference.items():
            g = gradients[name].double() * clip
            first[name].mul_(0.9).add_(g, alpha=0.1)
            second[name].mul_(0.95).addcmul_(g, g, value=0.05)
            if name == "matrix":
                weight.mul_(1 - lr * 0.1)
            corrected = first[name] / (1 - 0.9**step)
            weight.sub_(lr * corrected / ((second[name] / (1 - 0.95**step)).sqrt() + 1e-8))
    for name, weight in reference.items():
        torch.testing.assert_close(made[name].detach().double(), weight, rtol=1e-5, atol=1e-7)
    assert optimizer.updates == 5


@pytest.mark.parametrize("mode", ["fp32", "bf16_mixed", "bf16"])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_non_finite_gradient_touches_nothing(mode: str, poison: float) -> None:
    made = parameters(torch.float32 if mode == "fp32" else torch.bfloat16)
    optimizer = MixedPrecisionAdamW(made, RULES, CONFIG, mode)
    good = {name: torch.ones(p.shape) for name, p in made.items()}
    push(made, good)
    apply(optimizer, 1e-2)

    def everything() -> list[torch.Tensor]:
        return [*made.values(), *optimizer.masters.values(), *optimizer.moments().values()]

    before = [t.detach().clone() for t in everything()]
    bad = {name: g.clone() for name, g in good.items()}
    bad["matrix"][3, 1] = poison
    push(made, bad)
    norm, finite = apply(optimizer, 1e-2)
    assert not finite.item()
    assert not math.isfinite(norm.item())
    for old, new in zip(before, everything(), strict=True):
        assert torch.equal(old, new)
    assert optimizer.updates == 1
    push(made, good)
    _, finite = apply(optimizer, 1e-2)
    assert finite.item()
    assert optimizer.updates == 2
    assert not torch.equal(before[0], made["matrix"])


def test_an_overflowing_norm_is_not_finite_even_if_every_gradient_is() -> None:
    made = parameters(torch.float32)
    optimizer = MixedPrecisionAdamW(made, RULES, CONFIG, "fp32")
    push(made, {name: torch.full(p.shape, 1e30) for name, p in made.items()})
    before = made["matrix"].detach().clone()
    _, finite = apply(optimizer, 1e-2)
    assert not finite.item()
    assert torch.equal(before, made["matrix"])


def test_bf16_mixed_accumulates_and_updates_in_fp32() -> None:
    """Steps too small for BF16 still arrive: 100 updates of 1e-4 move a weight of 1 by 0.01, not by 0."""
    made = {"norm.weight": nn.Parameter(torch.ones(4, dtype=torch.bfloat16))}
    config = OptimConfig(lr=1e-4, weight_decay=0.0, clip_norm=100.0)
    optimizer = MixedPrecisionAdamW(made, RULES, config, "bf16_mixed")
    for _ in range(100):
        push(made, {"norm.weight": torch.ones(4)})
        apply(optimizer, 1e-4)
    torch.testing.assert_close(optimizer.masters["norm.weight"].detach(), torch.full((4,), 0.99), rtol=0, atol=1e-5)
    assert optimizer.masters["norm.weight"].dtype == torch.float32
    assert torch.equal(made["norm.weight"].detach(), optimizer.masters["norm.weight"].detach().bfloat16())
    # 256 + 1 is not a BF16 number: a BF16 accumulator would stay at 256.
    push(made, {"norm.weight": torch.full((4,), 256.0)})
    push(made, {"norm.weight": torch.ones(4)})
    assert torch.equal(optimizer.gradients[:4], torch.full((4,), 257.0))
    assert made["norm.weight"].grad is None


def test_fp32_keeps_one_copy_of_the_weights() -> None:
    made = parameters(torch.float32)
    optimizer = MixedPrecisionAdamW(made, RULES, CONFIG, "fp32")
    assert all(optimizer.masters[name] is p for name, p in made.items())
    storage = optimizer.gradients.untyped_storage().data_ptr()
    push(made, {name: torch.ones(p.shape) for name, p in made.items()})
    assert all(p.grad.untyped_storage().data_ptr() == storage for p in made.values()), "autograd replaced a view"
