"""AdamW on the masters, by torch's fused kernel."""

from __future__ import annotations

import torch

from trainer.config.groups.optim import OptimConfig
from trainer.optim.mixed_precision import MixedPrecision
from trainer.parallel.decay import parameter_groups, rate_of


class MaskedAdamW(torch.optim.AdamW):
    """torch's fused AdamW with the two tensors that torch.amp.GradScaler would set on it.

    The kernel divides gradients by grad_scale and leaves everything alone where found_inf is 1. These hooks are
    semi-private (``_step_supports_amp_scaling``): tests/unit/test_mixed_precision.py watches them.
    """

    grad_scale: torch.Tensor
    found_inf: torch.Tensor


class MixedPrecisionAdamW(MixedPrecision):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

    def make_inner(self, config: OptimConfig) -> None:
        """With moments, and the two tensors of the mask."""
        self._updates = torch.zeros((), dtype=torch.float32, device=self.device)
        groups = parameter_groups(self.masters, self.rules, config.weight_decay)
        self.adamw: MaskedAdamW | None = None
        if not groups:
            return
        self.adamw = MaskedAdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)
        for master in self.masters.values():
            self.adamw.state[master] = {
                "step": torch.zeros((), dtype=torch.float32, device=self.device),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
            }
        self.adamw.grad_scale = torch.ones((), dtype=torch.float32, device=self.device)
        self.adamw.found_inf = torch.zeros((), dtype=torch.float32, device=self.device)

    def apply(self, lr: float, norm: torch.Tensor) -> torch.Tensor:
        """Clip and step, masked; returns whether the norm was finite (bool scalar)."""
        finite = torch.isfinite(norm)
        self._updates += finite
        if self.adamw is not None:
            # The reciprocal of torch.nn.utils.clip_grad_norm_'s factor min(1, clip / (norm + 1e-6)).
            self.adamw.grad_scale.copy_(((norm + 1e-6) / self.clip_norm).clamp(min=1.0))
            self.adamw.found_inf.copy_(~finite)
            for group in self.adamw.param_groups:
                group["lr"] = rate_of(group, lr)
            self.adamw.step()
        return finite

    def moments(self) -> dict[str, torch.Tensor]:
        """``exp_avg.<parameter>``, ``exp_avg_sq.<parameter>``."""
        if self.adamw is None:
            return {}
        return {
            f"{moment}.{name}": self.adamw.state[master][moment]
            for moment in ("exp_avg", "exp_avg_sq")
            for name, master in self.masters.items()
        }

    @property
    def updates(self) -> int:
        """Updates made so far: steps whose gradient was finite."""
        return int(self._updates.item())

    @updates.setter
    def updates(self, count: int) -> None:
        self._updates.fill_(count)
        if self.adamw is not None:
            for state in self.adamw.state.values():
                state["step"].fill_(count)
