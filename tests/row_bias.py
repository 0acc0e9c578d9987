"""A family whose attention ends in a linear with a bias, as GPT-2's does: one bias for the sum of the ranks."""

from functools import partial

from torch import nn

from trainer.models.attention import Attention
from trainer.models.decoder import CausalLM, Parts
from trainer.models.family import Family
from trainer.models.sharding import sharding_plan
from trainer.parallel.plan import bias


class BiasedAttention(Attention):
    """Attention with a bias behind its last matrix."""

    def __init__(self, config):
        super().__init__(config)
        self.o_proj = nn.Linear(self.o_proj.in_features, self.o_proj.out_features, bias=True)


def family(config):
    """What model.family=tests.row_bias:family calls."""
    plan = sharding_plan(config).adding({"model.layers.*.self_attn.o_proj.bias": bias()})
    return Family(partial(CausalLM, config, Parts(BiasedAttention)), plan)
