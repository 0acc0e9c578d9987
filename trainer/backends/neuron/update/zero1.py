"""ZeRO-1 by neuronx-distributed, with a norm that counts every element once and an update that can be masked.

Two of NxD's defects end here (defects.py): clipping_norm_ignored, because clipping is a factor that our optimizer gets,
and old_masters_over_loaded_weights, because masters are loaded before weights are derived from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch_xla.core.xla_model as xm
from neuronx_distributed.optimizer import NeuronZero1Optimizer
from torch import nn

from trainer.backends.neuron.update.adamw import DeviceAdamW
from trainer.config.groups.optim import OptimConfig
from trainer.parallel.decay import parameter_groups
from trainer.parallel.plan import Rule
from trainer.trainium.environment import BUCKET_MB


class Zero1(NeuronZero1Optimizer):
    """Masters and moments of this rank's rows of every parameter.

    before: sums gradients over ranks that ZeRO-1 knows nothing of, in place, before
    ZeRO-1 takes the data axes' mean.
    counted: FP32 factors for the squares of a shard's gradient, broadcastable to it; 1 where a parameter is missing.
    device: where the parameters are. A pipeline stage may have nothing to train: a parameter of no use stands in then,
    because the norm and the mask are collective.
    Gradients accumulate in ``main_grad`` (of the masters' dtype), which exists from the start: the first microbatch has
    the same graph as the others.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        rules: Mapping[str, Rule],
        config: OptimConfig,
        dtype: torch.dtype,
        groups: list[list[int]],
        before: Callable[[Mapping[str, torch.Tensor]], None],
        device: torch.device,
    ) -> None:
        self.clip_norm, self._before = config.clip_norm, before
        self.counted: Mapping[str, torch.Tensor | float] = {}
        self._lr = self._loss = torch.zeros(1)
        unused = nn.Parameter(torch.zeros(len(groups[0]), dtype=torch.float32, device=device))
        super().__init__(
            parameter_groups(parameters, rules, config.weight_decay) or [{"params": [unused], "weight_decay": 0.0}],
            DeviceAdamW,
            optimizer_dtype=dtype,
            grad_clipping=True,
            max_norm=config.clip_norm,
            pin_layout=False,
            sharding_groups=groups,
            bucket_cap_mb_all_gather=max(1, BUCKET_MB // len(groups[0])),
            bucket_cap_mb_reduce_scatter=BUCKET_MB,
            use_grad_acc_hook=True,
            save_master_weights=True,
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
        )
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self.shards: dict[str, nn.Parameter] = dict(self._walk())
        self.gradients: dict[str, torch.Tensor] = {}
        for name, parameter in parameters.items():
            self.gradients[name] = torch.zeros(parameter.shape, dtype=dtype, device=parameter.device)
            for holder in (parameter, self.shards[name]):
                holder.main_grad = self.gradients[name]  # type: ignore[attr-defined]

    def _walk(self) -> list[tuple[str, nn.Parameter]]:
        pairs = zip(self.param_groups, self.base_optimizer.param_groups, strict=True)
        return [
            (self._names[id(whole)], shard)
            for group, shards in pairs
            for whole, shard in zip(group["params"], shards["params"], strict=True)
            if id(whole) in self._names
        ]

    def update(self, lr: torch.Tensor, loss: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reduce, clip, step, gather. lr, loss: FP32 [1]; loss: this rank's part of the global sum.

        Returns global loss, gradient norm before clipping and whether it was finite, each [1], equal on all ranks.
        """
        self._lr, self._loss = lr, loss
        self.step()
        self.zero_grad()
        return self._results

    def _reduce_gradients(self, **kwargs: Any) -> None:
        self._before(self.gradients)
        super()._reduce_gradients(**kwargs)

    @torch.no_grad()
    def _clip_grad_norm(self, max_norm: float | int, norm_type: float | int = 2.0) -> None:
        """Called by step() between reduction and update. One collective for the norm and the loss."""
        squared = torch.zeros(1, dtype=torch.float32, device=self.device)
        for name, shard in self.shards.items():
            if shard.grad is not None:
                squared = squared + self._squared(name, shard.grad)
        (sums,) = xm.all_reduce(xm.REDUCE_SUM, [torch.cat((squared, self._loss))], pin_layout=False)
        norm = sums[:1].sqrt()
        finite = torch.isfinite(norm)
        clip = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        self.base_optimizer.prepare(self._lr, clip, finite)
        self._results = (sums[1:], norm, finite)

    def _squared(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        squares = gradient.float().square()
        factor = self.counted.get(name)
        total = (squares if factor is None else squares * factor).sum()
        # 0 * inf is not finite: what another rank counts stops the step here too.
        return total.reshape(1)

    def publish(self) -> None:
        """The masters have changed: gather and round them into the model's parameters."""
        self.allgather_weights_and_update_full_parameter()

    def moments(self) -> Sequence[tuple[str, str, torch.Tensor]]:
        """(moment, parameter, this rank's rows of it)."""
        state: Mapping[Any, Mapping[str, torch.Tensor]] = self.base_optimizer.state
        return [
            (moment, name, state[shard][moment])
            for moment in ("exp_avg", "exp_avg_sq")
            for name, shard in self.shards.items()
        ]
