"""An optimizer with the interface of torch.optim.Optimizer under the one mixed-precision contract."""

from __future__ import annotations

from typing import Any

import torch

from trainer.config.groups.optim import OptimConfig
from trainer.config.plugins import call, told
from trainer.errors import ConfigError, Problem
from trainer.optim import OPTIMIZERS
from trainer.optim.mixed_precision import MixedPrecision
from trainer.parallel.decay import parameter_groups

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
        rules = {id(master): self.rules[name] for name, master in self.masters.items()}
        groups = [
            {**group, "rules": [rules[id(master)] for master in group["params"]]}
            for group in parameter_groups(self.masters, self.rules, config.weight_decay)
        ]
        self.inner: torch.optim.Optimizer | None = None
        if not groups:
            return
        self.inner = call(
            KEY,
            OPTIMIZERS.get(config.name, config.name).replace(":", "."),
            groups,
            options={"lr": config.lr, **config.options},
        )
        with torch.no_grad():
            for master in self.masters.values():
                master.zero_()
        self._try_step(self.inner, config.name)
        self._check_state(self.inner, config.name)
        kind = type(self.inner)
        of_torch = kind.__module__.startswith("torch.optim") and kind.__name__ in ELEMENTWISE
        self.elementwise = bool(getattr(kind, "elementwise", of_torch))
        self.updates = 0

    def _try_step(self, inner: torch.optim.Optimizer, target: str) -> None:
        try:
            inner.step()
        except Exception as error:  # whatever the user's code does
            rule = f"takes a step on parameters with gradients ({told(error)})"
            raise ConfigError(Problem(KEY, target, rule, "correct the options, or the plug-in")) from error

    def _check_state(self, inner: torch.optim.Optimizer, target: str) -> None:
        for name, master in self.masters.items():
            for key, value in inner.state[master].items():
                elementwise = isinstance(value, torch.Tensor) and value.shape == master.shape
                if not (elementwise or key == "step"):
                    rule = f"its state is element-wise, besides step; {key!r} of {name} is {_kind(value)}"
                    remedy = "use an optimizer whose state a checkpoint of any layout can hold"
                    raise ConfigError(Problem(KEY, target, rule, remedy))

    def apply(self, lr: float, norm: torch.Tensor) -> torch.Tensor:
        """Clip and step, where the norm is finite."""
        finite = torch.isfinite(norm)
        if bool(finite):
            self._updates += 1
        if bool(finite) and self.inner is not None:
            # torch.nn.utils.clip_grad_norm_'s factor.
            self.gradients.mul_((self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
            for group in self.inner.param_groups:
                group["lr"] = lr
            self.inner.step()
        return finite

    def moments(self) -> dict[str, torch.Tensor]:
        """The state by stored name: ``<key>.<parameter>``."""
        if self.inner is None:
            return {}
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
        for state in self.inner.state.values() if self.inner is not None else ():
            if isinstance(step := state.get("step"), torch.Tensor):
                step.fill_(count)
            elif step is not None:
                state["step"] = count


def _kind(value: Any) -> str:
    return f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
