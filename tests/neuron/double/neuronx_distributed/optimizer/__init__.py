"""ZeRO-1: torch_xla's own optimizer, with the norm taken over TP and PP as well."""

import torch
from torch_xla.distributed.zero_redundancy_optimizer import ZeroRedundancyOptimizer

from ..parallel_layers import parallel_state as ps
from ..parallel_layers.grads import clip_grads_with_norm, get_grad_norm

_MARKS = ("shared", "tensor_model_parallel")


class NeuronZero1Optimizer(ZeroRedundancyOptimizer):
    """Shards over the DP groups unless told other ``sharding_groups``. See torch_xla for the arguments."""

    def __init__(self, *args, **kwargs):
        if not ps.model_parallel_is_initialized():
            raise RuntimeError("initialize_model_parallel need to be called before creating NeuronZero1Optimizer")
        if kwargs.get("sharding_groups") is None:
            kwargs["sharding_groups"] = ps.get_data_parallel_replica_groups()
        super().__init__(*args, **kwargs)

    @property
    def grad_norm(self):
        """Norm [1] of the last step's gradient before clipping; None before the first."""
        return self._grad_norm

    def _set_grad_norm(self, grad_norm):
        self._grad_norm = grad_norm.detach().clone()

    def _get_params_and_grad_norm(self, norm_type):
        shards = []
        for group, cut in zip(self.param_groups, self.base_optimizer.param_groups, strict=True):
            for parameter, shard in zip(group["params"], cut["params"], strict=True):
                for mark in _MARKS:
                    if hasattr(parameter, mark):
                        setattr(shard, mark, getattr(parameter, mark))
                if shard.grad is not None:
                    shards.append(shard)
        return shards, get_grad_norm(shards, norm_type, True, self._sharding_groups)

    @torch.no_grad()
    def _clip_grad_norm(self, max_norm, norm_type=2.0):
        shards, norm = self._get_params_and_grad_norm(norm_type)
        self._set_grad_norm(norm)
        clip_grads_with_norm(shards, norm, max_norm)
