"""A small training step on torch_xla's lazy tensors, and mistakes that one can make in it.

Every scenario is played in a rank of its own: nothing of torch_xla's state passes from one to the next.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from trainer.backends.neuron import device
from trainer.backends.neuron.graphs.guard import CompileGuard
from trainer.errors import RunError

STEPS, LATE = 8, 5
"""Steps of a scenario, and the step in which its mistake happens; the guard warms up in 2."""


class Step:
    """Two microbatches through an embedding and a head, then gradient descent with momentum; subclasses err."""

    microbatches, shape, evaluated, seq = 2, (2, 4), 2, 4
    lr, exponent = 0.5, 2.0
    dtype = torch.float32

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16)).to(device.device())
        self.parameters = list(self.model.parameters())
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.momentum = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.losses: list[device.Deferred] = []
        self.kept: list[Any] = []
        device.sync()
        self.guard = CompileGuard(warm_up=2, keep_graphs=True)

    def run(self, steps: int) -> None:
        for number in range(1, steps + 1):
            self.step(number)

    def step(self, number: int) -> None:
        tokens = [torch.full(self.shape, number % 16) for _ in range(self.microbatches)]
        with self.guard.phase("forward-backward", {"tokens": tokens, "exponent": self.exponent, "dtype": self.dtype}):
            loss = self.forward_backward(tokens, number)
            self.losses.append(device.Deferred(loss))
            device.sync()
        with self.guard.phase("optimizer", {"lr": self.lr}), torch.no_grad():
            self.update(number)
            device.sync()
        if number % 2 == 0:
            with self.guard.phase("evaluation", {"samples": self.evaluated}), torch.no_grad():
                total = self.loss(torch.zeros(self.evaluated, self.seq, dtype=torch.int64).to(device.device()))
                device.sync()
            total.item()

    def forward_backward(self, tokens: list[torch.Tensor], number: int) -> torch.Tensor:
        total = torch.zeros((), device=device.device())
        for microbatch in tokens:
            loss = self.loss(microbatch.to(device.device()))
            self.after_loss(loss, number)
            loss.backward()
            total = total + loss.detach()
        return total

    def loss(self, tokens: torch.Tensor) -> torch.Tensor:
        return (self.model(tokens).to(self.dtype) ** self.exponent).mean().float() * 0.05

    def after_loss(self, loss: torch.Tensor, number: int) -> None:
        """For mistakes."""

    def update(self, number: int) -> None:
        for parameter, momentum in zip(self.parameters, self.momentum, strict=True):
            momentum.mul_(0.9).add_(parameter.grad)
            parameter.add_(momentum * -self.lr)
            parameter.grad.zero_()


class Changing(Step):
    """From the late step on, an attribute has another value."""

    change: ClassVar[dict[str, Any]]

    def step(self, number: int) -> None:
        if number == LATE:
            vars(self).update(self.change)
        super().step(number)


CHANGES: dict[str, dict[str, Any]] = {
    "BatchSize": {"shape": (3, 4)},
    "SequenceLength": {"shape": (2, 5)},
    "Microbatches": {"microbatches": 3},
    "LearningRateOne": {"lr": 1.0},
    "LearningRateZero": {"lr": 0.0},
    "Exponent": {"exponent": 3.0},
    "Precision": {"dtype": torch.bfloat16},
    "EvaluationShape": {"evaluated": 1},
}


class Item(Step):
    def after_loss(self, loss: torch.Tensor, number: int) -> None:
        if loss.item() > 1e9:  # the mistake
            raise ValueError


class Print(Step):
    def after_loss(self, loss: torch.Tensor, number: int) -> None:
        print(f"loss {loss}")


class DataBranch(Step):
    def after_loss(self, loss: torch.Tensor, number: int) -> None:
        if loss > 0:
            self.kept = []


class FinishedRead(Step):
    """Reads a tensor that is computed already: no graph, yet the host waits for the device."""

    def after_loss(self, loss: torch.Tensor, number: int) -> None:
        self.parameters[1].detach().cpu()


class FirstMicrobatch(Step):
    """Gradients that are None are written, those that exist are added to."""

    def step(self, number: int) -> None:
        if number == LATE:
            for parameter in self.parameters:
                parameter.grad = None
        super().step(number)


class StepBranch(Step):
    def update(self, number: int) -> None:
        if number % LATE == 0:
            self.momentum[0].clamp_(-1.5, 1.5)
        super().update(number)


class Shorter(Step):
    """One operation less, at the very end."""

    def update(self, number: int) -> None:
        super().update(number)
        if number < LATE:
            self.parameters[0].clamp_(-1.5, 1.5)


class LateState(Step):
    """Another tensor of optimizer state appears in the middle of training."""

    def update(self, number: int) -> None:
        super().update(number)
        if number == LATE:
            self.kept = [torch.ones(7, device=device.device()) * 3.5]


class KeptAlive(Step):
    """Records the same operations, but an intermediate result survives: one more output."""

    def after_loss(self, loss: torch.Tensor, number: int) -> None:
        if number == LATE:
            self.kept = [loss]


class Elsewhere(Step):
    """Computes on the device between phases: the pending operation joins the next phase's graph."""

    def step(self, number: int) -> None:
        if number == LATE:
            self.kept = [self.parameters[0] * 2.5]
        super().step(number)


def mistakes() -> dict[str, type[Step]]:
    """By name."""
    changing = {name: type(name, (Changing,), {"change": change}) for name, change in CHANGES.items()}
    return changing | {kind.__name__: kind for kind in Step.__subclasses__() if kind is not Changing}


def play(mistake: str | None) -> dict[str, Any]:
    """A scenario's outcome, without a mistake that of a longer loop: the guard's message, or none."""
    run, message, code = (mistakes()[mistake] if mistake else Step)(), None, 0
    try:
        run.run(STEPS if mistake else 30)
    except RunError as error:
        message, code = str(error), int(error.code)
    outside = run.guard.outside()
    return {
        "message": message,
        "code": code,
        "steps": run.guard.phases["forward-backward"].occurrences,
        "graphs": run.guard.graphs(),
        "launches": run.guard.launches(),
        "outside": [outside.compiled, outside.launched],
        "losses": [] if message else [losses.values()[0] for losses in run.losses],
    }


def names() -> list[str]:
    """Every mistake's."""
    return list(mistakes())
