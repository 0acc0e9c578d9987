"""The sharding plan of the decoder: which way each parameter is cut when a model is larger than a core.

A layer's first matrices are cut by output (column), its last by input (row): one sum over the ranks per block in the
forward pass and one in the backward pass (Shoeybi et al. 2019, arXiv:1909.08053, section 3).
"""

from __future__ import annotations

from trainer.config.arithmetic import head_dim
from trainer.config.groups.model import ModelConfig
from trainer.parallel.heads import Heads
from trainer.parallel.plan import Plan, Rule, bias, matrix, norm


def sharding_plan(config: ModelConfig) -> Plan:
    """The decoder's plan: its rules, with the heads and the initial weights of this configuration."""
    return Plan(rules(config), Heads(config.heads, config.kv_heads, head_dim(config)), hidden=config.hidden)


def rules(config: ModelConfig) -> dict[str, Rule]:
    """A rule for each parameter of trainer.models.decoder; a family of its own extends a copy."""
    std, layer = config.init_std, "model.layers.*"
    return {
        "model.embed_tokens.weight": matrix("vocab", std),
        f"{layer}.self_attn.q_proj.weight": matrix("column", std, heads=True),
        f"{layer}.self_attn.q_proj.bias": bias("column", heads=True),
        f"{layer}.self_attn.[kv]_proj.weight": matrix("kv", std),
        f"{layer}.self_attn.[kv]_proj.bias": bias("kv"),
        f"{layer}.self_attn.o_proj.weight": matrix("row", std, heads=True),
        f"{layer}.mlp.gate_proj.weight": matrix("column", std),
        f"{layer}.mlp.up_proj.weight": matrix("column", std),
        f"{layer}.mlp.down_proj.weight": matrix("row", std),
        f"{layer}.input_layernorm.weight": norm(),
        f"{layer}.post_attention_layernorm.weight": norm(),
        "model.norm.weight": norm(),
        "lm_head.weight": matrix("vocab", std),
    }
