"""An optimizer with the interface of torch.optim.Optimizer under the one mixed-precision contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from trainer.config.groups.optim import OptimConfig
from trainer.config.plugins import call, told
from trainer.errors import ConfigError, Problem
from trainer.optim import OPTIMIZERS
from trainer.optim.mixed_precision import MixedPrecision
from trainer.parallel.decay import parameter_groups, rate_of
from trainer.parallel.plan import Rule, matrix

KEY = "optim.name"
ELEMENTWISE = {"ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"}
"""Of torch.optim, by name. Not Muon, Adafactor or LBFGS, whose update of an element depends on the others."""


class PluginOptimizer(MixedPrecision):
    """Any class with torch.optim.Optimizer's interface whose state is element-wise, besides a count of steps.

    It is called as target(parameter groups, lr=..., **options) on the masters. A group also has ``rules``, one for each
    of its params, by which a Muon tells matrices (cut column, row, kv) from the embedding, the head and norms. The
    update is masked by a branch on the host, which the native backend can afford; the flag is the same on every rank.
    """

    def make_inner(self, config: OptimConfig) -> None:
        """Make it, and let it allocate its state by a step on zeros: a checkpoint is loaded into what exists."""
        self._updates = 0
        # A pipeline stage with nothing to train makes one too: what is wrong with it is wrong on every stage.
        updated, rules = (self.masters, self.rules) if self.masters else _stand_in()
        of = {id(tensor): rules[name] for name, tensor in updated.items()}
        groups = [
            {**group, "rules": [of[id(tensor)] for tensor in group["params"]]}
            for group in parameter_groups(updated, rules, config.weight_decay)
        ]
        self.inner: torch.optim.Optimizer = call(
            KEY,
            OPTIMIZERS.get(config.name, config.name).replace(":", "."),
            groups,
            options={"lr": config.lr, **config.options},
        )
        with torch.no_grad():
            for tensor in updated.values():
                tensor.zero_()
        self._try_step(config.name)
        self._check_state(updated, config.name)
        self._target, self._state = config.name, {name: set(self.inner.state[t]) for name, t in updated.items()}
        self._updated = updated
        kind = type(self.inner)
        of_torch = kind.__module__.startswith("torch.optim") and kind.__name__ in ELEMENTWISE
        self.elementwise = bool(getattr(kind, "elementwise", of_torch))
        self.updates = 0

    def _try_step(self, target: str) -> None:
        try:
            self.inner.step()
        except Exception as error:  # whatever the user's code does
            rule = f"takes a step on parameters with gradients ({told(error)})"
            raise ConfigError(Problem(KEY, target, rule, "correct the options, or the plug-in")) from error

    def _check_state(self, updated: Mapping[str, torch.Tensor], target: str) -> None:
        for name, tensor in updated.items():
            for key, value in self.inner.state[tensor].items():
                elementwise = isinstance(value, torch.Tensor) and value.shape == tensor.shape
                if not (elementwise or key == "step"):
                    rule = f"its state is element-wise, besides step; {key!r} of {name} is {_kind(value)}"
                    remedy = "use an optimizer whose state a checkpoint of any layout can hold"
                    raise ConfigError(Problem(KEY, target, rule, remedy))

    def apply(self, lr: float, norm: torch.Tensor) -> torch.Tensor:
        """Clip and step, where the norm is finite."""
        finite = torch.isfinite(norm)
        if bool(finite):
            self._updates += 1
            # torch.nn.utils.clip_grad_norm_'s factor.
            self.gradients.mul_((self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
            for group in self.inner.param_groups:
                group["lr"] = rate_of(group, lr)
            self.inner.step()
            self._refuse_late_state()
        return finite

    def _refuse_late_state(self) -> None:
        """A resume fills the state that there is before the first step: what comes later would be lost in it."""
        for name, tensor in self._updated.items():
            if late := set(self.inner.state[tensor]) - self._state[name]:
                rule = f"its state is there after its first step; {', '.join(sorted(map(str, late)))} came later"
                raise ConfigError(Problem(KEY, self._target, rule, "allocate it in the first step, which is on zeros"))

    def moments(self) -> dict[str, torch.Tensor]:
        """The state by stored name: ``<key>.<parameter>``."""
        return {
            f"{key}.{name}": value
            for name, master in self.masters.items()
            for key, value in self.inner.state[master].items()
            if key != "step"
        }

    @property
    def updates(self) -> int:
        """Updates made so far."""
        return self._updates

    @updates.setter
    def updates(self, count: int) -> None:
        self._updates = count
        for state in self.inner.state.values():
            if isinstance(step := state.get("step"), torch.Tensor):
                step.fill_(count)
            elif step is not None:
                state["step"] = count


def _stand_in() -> tuple[dict[str, torch.Tensor], dict[str, Rule]]:
    """A matrix that nothing is computed with."""
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros(2, 2)
    return {"a stand-in": parameter}, {"a stand-in": matrix("column", 0.0)}


def _kind(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
