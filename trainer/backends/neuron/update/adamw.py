"""AdamW as one graph: what changes from step to step is a device tensor, and a mask can undo the update."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from trainer.parallel.decay import rate_of


class DeviceAdamW(torch.optim.Optimizer):
    """AdamW (arXiv:1711.05101) over FP32 or BF16 shards; arithmetic is FP32.

    A Python scalar of 0 or 1 is baked into an XLA graph, and so is any exponent: learning rate, step count and clip
    factor are tensors here, given to ``prepare`` before each step.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float], eps: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        first = self.param_groups[0]["params"][0]
        self.updates = torch.zeros(1, dtype=torch.float32, device=first.device)
        for group in self.param_groups:
            for shard in group["params"]:
                self.state[shard] = {"exp_avg": torch.zeros_like(shard), "exp_avg_sq": torch.zeros_like(shard)}

    def prepare(self, lr: torch.Tensor, clip: torch.Tensor, finite: torch.Tensor) -> None:
        """FP32 [1] learning rate and factor for the gradients, and bool [1]: whether to update at all."""
        self._lr, self._clip, self._finite = lr, clip, finite

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every shard that has a gradient; where ``finite`` is false nothing changes, moments included."""
        updates = self.updates + self._finite.float()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            # 1 - beta ** n as a difference of nearly equal numbers would lose its digits in FP32.
            correction1 = -torch.expm1(updates * float(torch.log(torch.tensor(beta1, dtype=torch.float64))))
            correction2 = -torch.expm1(updates * float(torch.log(torch.tensor(beta2, dtype=torch.float64))))
            for shard in group["params"]:
                if shard.grad is not None:
                    self._update(shard, group, correction1, correction2.sqrt())
        self.updates.copy_(updates)

    def _update(
        self, shard: torch.Tensor, group: dict[str, Any], correction1: torch.Tensor, root2: torch.Tensor
    ) -> None:
        (beta1, beta2), state = group["betas"], self.state[shard]
        assert shard.grad is not None
        gradient, rate = shard.grad.float() * self._clip, rate_of(group, self._lr)
        mean = state["exp_avg"].float() * beta1 + gradient * (1 - beta1)
        square = state["exp_avg_sq"].float() * beta2 + gradient * gradient * (1 - beta2)
        weight = shard.float() * (1 - rate * group["weight_decay"])
        weight = weight - (rate / correction1) * mean / (square.sqrt() / root2 + group["eps"])
        for old, new in ((shard, weight), (state["exp_avg"], mean), (state["exp_avg_sq"], square)):
            old.copy_(torch.where(self._finite, new.to(old.dtype), old))
