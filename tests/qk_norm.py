"""A model family of a user's own, as docs/extending.md shows it: QK norm, and LayerNorm with a bias between blocks."""

from functools import partial

from trainer.models.attention import Attention
from trainer.models.decoder import CausalLM, Parts
from trainer.models.family import Family
from trainer.models.norm import LayerNorm, RMSNorm
from trainer.models.sharding import sharding_plan
from trainer.parallel.plan import bias, norm


class QKNormAttention(Attention):
    """Queries and keys are normalised per head before the rotation, as in Qwen3."""

    def __init__(self, config):
        super().__init__(config)
        self.q_norm = RMSNorm(self.head_dim, config.norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.norm_eps)

    def normalise(self, queries, keys):
        return self.q_norm(queries), self.k_norm(keys)


def family(config):
    """What model.family=MODULE:family calls."""
    plan = sharding_plan(config).adding(
        {
            # Inside a cut block a rank sees its own heads only: the gradient is summed over TP, always.
            "model.layers.*.self_attn.[qk]_norm.weight": norm("always"),
            "model.layers.*.*layernorm.bias": bias(),
            "model.norm.bias": bias(),
        }
    )
    return Family(partial(CausalLM, config, Parts(QKNormAttention, LayerNorm)), plan)
