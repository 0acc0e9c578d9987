"""The one mixed-precision implementation: masters and gradient accumulators, whatever optimizer updates the masters.

mode        model parameters   masters          moments   gradients accumulate in
fp32        FP32               the parameters   FP32      FP32
bf16_mixed  BF16               FP32 copies      FP32      FP32
bf16        BF16               the parameters   BF16      BF16
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from trainer.config.groups.optim import OptimConfig
from trainer.parallel.boxes import Regions
from trainer.parallel.plan import Rule

NORM_ROW = 16384
"""Elements whose squares are added up in one go; the flat gradient is padded to a multiple."""


class MixedPrecision(ABC):
    """Masters and accumulated gradients of the parameters that are trained. A subclass brings the update, masked by the
    finiteness of the global gradient norm. A pipeline stage may have nothing to train.

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

    @abstractmethod
    def make_inner(self, config: OptimConfig) -> None:
        """Make the optimizer over the masters, with its state allocated: a checkpoint is loaded into what exists."""

    def _allocate_gradients(self, counted: Regions | None) -> None:
        whole = [name for name in self.masters if counted is None or _is_whole(self.masters[name], counted[name])]
        rest = [name for name in self.masters if name not in set(whole)]
        lengths = [sum(self.masters[name].numel() for name in names) for names in (whole, rest)]
        rows = [-(-length // NORM_ROW) for length in lengths]
        dtype = torch.bfloat16 if self.mode == "bf16" else torch.float32
        self.device = next((master.device for master in self.masters.values()), torch.device("cpu"))
        self.gradients = torch.zeros(sum(rows) * NORM_ROW, dtype=dtype, device=self.device)
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

    @abstractmethod
    def apply(self, lr: float, norm: torch.Tensor) -> torch.Tensor:
        """Clip and step, masked; returns whether the norm was finite (bool scalar)."""

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the model's BF16 parameters."""
        if self.mode == "bf16_mixed":
            for name, master in self.masters.items():
                self.parameters[name].copy_(master)

    @abstractmethod
    def moments(self) -> dict[str, torch.Tensor]:
        """The optimizer's state by stored name: ``<key>.<parameter>``."""

    @property
    @abstractmethod
    def updates(self) -> int:
        """Updates made so far: steps whose gradient was finite."""

    @updates.setter
    @abstractmethod
    def updates(self, count: int) -> None: ...


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
