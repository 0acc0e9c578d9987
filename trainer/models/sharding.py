"""The sharding plan of the decoder: which way each parameter is cut when a model is larger than a core.

A layer's first matrices are cut by output (column), its last by input (row): one sum over the ranks per block in the
forward pass and one in the backward pass (Shoeybi et al. 2019, arXiv:1909.08053, section 3).
"""

from __future__ import annotations

from dataclasses import replace

from trainer.config.arithmetic import head_dim
from trainer.config.groups.model import ModelConfig
from trainer.parallel.heads import Heads
from trainer.parallel.plan import Plan, Rule, bias, matrix, norm


def sharding_plan(config: ModelConfig) -> Plan:
    """The decoder's plan: its rules, with the heads and the initial weights of this configuration."""
    return Plan(rules(config), Heads(config.heads, config.kv_heads, head_dim(config)), hidden=config.hidden)


def rules(config: ModelConfig) -> dict[str, Rule]:
    """A rule for each parameter of trainer.models.decoder with these switches; a family of its own extends a copy."""
    std, layer = config.init_std, "model.layers.*"
    found = {
        "model.embed_tokens.weight": matrix("vocab", std),
        f"{layer}.self_attn.q_proj.weight": matrix("column", std, heads=True),
        f"{layer}.self_attn.q_proj.bias": bias("column", heads=True),
        f"{layer}.self_attn.[kv]_proj.weight": matrix("kv", std),
        f"{layer}.self_attn.[kv]_proj.bias": bias("kv"),
        f"{layer}.self_attn.o_proj.weight": matrix("row", std, heads=True),
        f"{layer}.mlp.gate_proj.weight": matrix("column", std),
        f"{layer}.mlp.up_proj.weight": matrix("column", std),
        f"{layer}.mlp.down_proj.weight": matrix("row", std),
        **{f"{name}.weight": norm() for name in NORMS},
        "lm_head.weight": matrix("vocab", std),
        **QK_NORMS.get(config.qk_norm, {}),
    }
    if config.position == "learned":
        found["model.embed_positions.weight"] = replace(matrix("none", std), summed="sequence")
    if config.norm == "layer":
        found |= {f"{name}.bias": bias() for name in NORMS}
    if config.o_bias:
        found[f"{layer}.self_attn.o_proj.bias"] = bias()
    if config.mlp_bias:
        found |= {f"{layer}.mlp.{name}_proj.bias": bias("column") for name in ("gate", "up")}
        found[f"{layer}.mlp.down_proj.bias"] = bias()
    return found


NORMS = (
    "model.layers.*.input_layernorm",
    "model.layers.*.post_attention_layernorm",
    "model.layers.*.post_feedforward_layernorm",
    "model.norm",
)
"""Between blocks; which of the three a layer has, model.block says."""
QK_NORMS: dict[str, dict[str, Rule]] = {
    # Of a rank's heads, whose gradients every rank has a part of; or cut between heads like what it normalises.
    "head": {"model.layers.*.self_attn.[qk]_norm.weight": norm("always")},
    "all": {
        "model.layers.*.self_attn.q_norm.weight": replace(norm("never"), cut="column", heads=True),
        "model.layers.*.self_attn.k_norm.weight": replace(norm("never"), cut="kv"),
    },
}
"""By model.qk_norm."""
