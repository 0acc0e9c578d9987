"""The one mixed-precision implementation: masters, moments and gradient accumulators around torch's fused AdamW.

mode        model parameters   masters          moments   gradients accumulate in
fp32        FP32               the parameters   FP32      FP32
bf16_mixed  BF16               FP32 copies      FP32      FP32
bf16        BF16               the parameters   BF16      BF16
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from trainer.config.groups.optim import OptimConfig
from trainer.parallel.boxes import Regions
from trainer.parallel.decay import parameter_groups
from trainer.parallel.plan import Rule

NORM_ROW = 16384
"""Elements whose squares are added up in one go; the flat gradient is padded to a multiple."""


class MaskedAdamW(torch.optim.AdamW):
    """torch's fused AdamW with the two tensors that torch.amp.GradScaler would set on it.

    The kernel divides gradients by grad_scale and leaves everything alone where found_inf is 1. These hooks are
    semi-private (``_step_supports_amp_scaling``): tests/unit/test_mixed_precision.py watches them.
    """

    grad_scale: torch.Tensor
    found_inf: torch.Tensor


class MixedPrecisionAdamW:
    """AdamW (arXiv:1711.05101) whose update is masked by the finiteness of the global gradient norm.

    Gradients live in one flat tensor with a view per parameter: they exist from the start (the first microbatch is
    no special case), are reduced by one collective and measured by one norm.

    counted: the parts of each gradient that this rank counts in the norm; None: all of all. The flat tensor holds
    first what counts whole, then the rest.
    """

    elementwise = True
    """The update of an element does not depend on the others, so that a rank may have a part of a matrix."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        rules: Mapping[str, Rule],
        config: OptimConfig,
        mode: str,
        counted: Regions | None = None,
    ) -> None:
        self.parameters, self.rules, self.mode, self.clip_norm = dict(parameters), rules, mode, config.clip_norm
        self.masters = {
            name: p.detach().float().requires_grad_() if mode == "bf16_mixed" else p for name, p in parameters.items()
        }
        self._allocate_gradients(counted)
        self.make_inner(config)

    def make_inner(self, config: OptimConfig) -> None:
        """The optimizer over the masters, with its state allocated."""
        self.adamw = MaskedAdamW(
            parameter_groups(self.masters, self.rules, config.weight_decay),
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            fused=True,
        )
        # Moments exist before the first step, so that a checkpoint can be loaded into them.
        for master in self.masters.values():
            self.adamw.state[master] = {
                "step": torch.zeros((), dtype=torch.float32),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
            }
        self.adamw.grad_scale = torch.ones((), dtype=torch.float32)
        self.adamw.found_inf = torch.zeros((), dtype=torch.float32)

    def _allocate_gradients(self, counted: Regions | None) -> None:
        whole = [name for name in self.masters if counted is None or _is_whole(self.masters[name], counted[name])]
        rest = [name for name in self.masters if name not in set(whole)]
        lengths = [sum(self.masters[name].numel() for name in names) for names in (whole, rest)]
        rows = [-(-length // NORM_ROW) for length in lengths]
        dtype = torch.bfloat16 if self.mode == "bf16" else torch.float32
        self.gradients = torch.zeros(sum(rows) * NORM_ROW, dtype=dtype)
        halves = self.gradients.split([count * NORM_ROW for count in rows])
        for names, half, length in zip((whole, rest), halves, lengths, strict=True):
            pieces = half[:length].split([self.masters[name].numel() for name in names]) if names else ()
            for name, piece in zip(names, pieces, strict=True):
                gradient = piece.view_as(self.masters[name])
                self.masters[name].grad = gradient
                if self.mode == "bf16_mixed":
                    self.parameters[name].register_post_accumulate_grad_hook(_accumulate_into(gradient))
        self._counted_whole, self._rest = halves
        self._counted_parts = [self.gradient(name)[part] for name in rest for part in (counted or {})[name]]

    def gradient(self, name: str) -> torch.Tensor:
        """The accumulated gradient of a parameter: a view of the flat tensor."""
        gradient = self.masters[name].grad
        assert gradient is not None
        return gradient

    def collect(self) -> None:
        """Add up gradients that autograd has left on the BF16 parameters without calling their hooks."""
        if self.mode == "bf16_mixed":
            for name, parameter in self.parameters.items():
                if parameter.grad is not None:
                    self.gradient(name).add_(parameter.grad)
                    parameter.grad = None

    def squared_norm(self) -> torch.Tensor:
        """Sum of the squares of the gradients that this rank counts, FP32 scalar.

        What it does not count adds nothing, unless it is not finite: then neither is the result.
        """
        total = _squared(self._counted_whole.view(-1, NORM_ROW))
        for part in self._counted_parts:
            total += _squared(part)
        if self._rest.numel():
            total += 0 * _squared(self._rest.view(-1, NORM_ROW))
        return total

    def update(self, lr: float, norm: torch.Tensor) -> torch.Tensor:
        """Clip by the global norm (FP32 scalar), update, clear the gradients, which are reduced already.

        Returns whether the norm was finite (bool scalar). If not, weights, masters, moments and the step count are
        untouched.
        """
        finite = self.apply(lr, norm)
        self.publish()
        self.gradients.zero_()
        return finite

    def apply(self, lr: float, norm: torch.Tensor) -> torch.Tensor:
        """Clip and step, masked."""
        finite = torch.isfinite(norm)
        # The reciprocal of torch.nn.utils.clip_grad_norm_'s factor min(1, clip / (norm + 1e-6)).
        self.adamw.grad_scale.copy_(((norm + 1e-6) / self.clip_norm).clamp(min=1.0))
        self.adamw.found_inf.copy_(~finite)
        for group in self.adamw.param_groups:
            group["lr"] = lr
        self.adamw.step()
        return finite

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the model's BF16 parameters."""
        if self.mode == "bf16_mixed":
            for name, master in self.masters.items():
                self.parameters[name].copy_(master)

    def moments(self) -> dict[str, torch.Tensor]:
        """Moments by stored name: ``exp_avg.<parameter>``, ``exp_avg_sq.<parameter>``."""
        return {
            f"{moment}.{name}": self.adamw.state[master][moment]
            for moment in ("exp_avg", "exp_avg_sq")
            for name, master in self.masters.items()
        }

    @property
    def updates(self) -> int:
        """Updates made so far: steps whose gradient was finite."""
        return int(next(iter(self.adamw.state.values()))["step"].item())

    @updates.setter
    def updates(self, count: int) -> None:
        for state in self.adamw.state.values():
            state["step"].fill_(count)


def _squared(values: torch.Tensor) -> torch.Tensor:
    """Sum of squares, FP32 scalar, in rows of the last dim: over one long vector the CPU kernel adds up one by one, and
    loses 1e-4 of 5M elements, 1e-2 of 100M.
    """
    return torch.linalg.vector_norm(values, dim=-1, dtype=torch.float32).square().sum()


def _is_whole(tensor: torch.Tensor, parts: Sequence[tuple[slice, ...]]) -> bool:
    return len(parts) == 1 and tensor[parts[0]].numel() == tensor.numel()


def _accumulate_into(accumulator: torch.Tensor) -> Callable[[torch.Tensor], None]:
    """A hook that adds a parameter's BF16 gradient to its FP32 accumulator and frees it at once."""

    def accumulate(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        accumulator.add_(parameter.grad)
        parameter.grad = None

    return accumulate
