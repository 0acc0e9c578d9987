"""The sharding plan of the decoder: which way each parameter is cut when a model is larger than a core.

A layer's first matrices are cut by output (column), its last by input (row): one sum over the ranks per block in the
forward pass and one in the backward pass (Shoeybi et al. 2019, arXiv:1909.08053, section 3).
"""

from __future__ import annotations

from trainer.config.arithmetic import head_dim
from trainer.config.groups.model import ModelConfig
from trainer.parallel.heads import Heads
from trainer.parallel.plan import Plan, Rule

RULES = {
    "model.embed_tokens.weight": Rule("vocab"),
    "model.layers.*.self_attn.q_proj.*": Rule("column", heads=True),
    "model.layers.*.self_attn.[kv]_proj.*": Rule("kv"),
    "model.layers.*.self_attn.o_proj.weight": Rule("row", heads=True),
    "model.layers.*.mlp.gate_proj.weight": Rule("column"),
    "model.layers.*.mlp.up_proj.weight": Rule("column"),
    "model.layers.*.mlp.down_proj.weight": Rule("row"),
    "model.layers.*layernorm.weight": Rule("norm"),
    "model.norm.weight": Rule("norm"),
    "lm_head.weight": Rule("vocab"),
}


def sharding_plan(config: ModelConfig) -> Plan:
    """The decoder's plan, with the heads of this configuration."""
    return Plan(RULES, Heads(config.heads, config.kv_heads, head_dim(config)))
