"""GPT-2 (Radford et al. 2019) and GPT-3 (arXiv:2005.14165) with dense attention in every layer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from trainer.config.groups.model import ModelConfig, RopeScalingConfig
from trainer.errors import Problem
from trainer.pretrained.format import FileTensor, Format, Part, elsewhere, renamed
from trainer.pretrained.keys import Keys
from trainer.pretrained.llama_like import SWITCHES, lacking, other_head_dim, read_head_dim, unsaid
from trainer.pretrained.rope import THETA
from trainer.pretrained.shapes import parameter_shapes

if TYPE_CHECKING:
    from trainer.models.family import Family

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}
ATTENTION = "the decoder scales by 1 / sqrt(head size) alone; choose a model that does so"


def family(config: ModelConfig) -> Family:
    """The decoder; what writes into the residual stream begins smaller, as many layers write there (GPT-2's paper,
    section 2.3; two in each layer).
    """
    from trainer.models.plain import plain_family
    from trainer.parallel.plan import matrix

    std = config.init_std / math.sqrt(2 * config.layers)
    plain = plain_family(config)
    residual = {
        "model.layers.*.self_attn.o_proj.weight": matrix("row", std, heads=True),
        "model.layers.*.mlp.down_proj.weight": matrix("row", std),
    }
    return type(plain)(plain.build, plain.plan.adding(residual))


def read(values: Mapping[str, Any]) -> dict[str, Any]:
    """Its dropout is not read: model.dropout says what training drops."""
    keys = Keys(values)
    keys.only("scale_attn_weights", True, ATTENTION)
    keys.only("scale_attn_by_inverse_layer_idx", False, ATTENTION)
    keys.only("add_cross_attention", False, "the decoder attends to its own sequence; choose a model without")
    # reorder_and_upcast_attn changes the order and precision of the same function.
    hidden, heads = keys.whole("n_embd"), keys.whole("n_head")
    return {
        **SWITCHES,
        "norm": "layer",
        "position": "learned",
        "activation": keys.choice(
            "activation_function", ACTIVATIONS, "gelu_new", "the decoder's plain feed-forward computes GELU"
        ),
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
        "hidden": hidden,
        "layers": keys.whole("n_layer"),
        "heads": heads,
        "kv_heads": heads,
        "mlp": keys.whole("n_inner", 4 * hidden),
        "vocab": keys.whole("vocab_size"),
        "max_positions": keys.whole("n_positions", 1024),
        "norm_eps": keys.number("layer_norm_epsilon", 1e-5),
        "rope_theta": THETA,
        "rope_scaling": RopeScalingConfig(),
        **read_head_dim(keys, hidden, heads, None),
    }


def write(model: ModelConfig) -> dict[str, Any]:
    """The inverse of ``read``."""
    names = {meaning: name for name, meaning in reversed(ACTIVATIONS.items())}
    return {
        "n_embd": model.hidden,
        "n_layer": model.layers,
        "n_head": model.heads,
        "n_inner": model.mlp,
        "n_positions": model.max_positions,
        "n_ctx": model.max_positions,
        "activation_function": names[model.activation],
        "layer_norm_epsilon": model.norm_eps,
        "embd_pdrop": model.dropout,
        "resid_pdrop": model.dropout,
        "attn_pdrop": 0.0,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "reorder_and_upcast_attn": False,
    }


def lacks(model: ModelConfig) -> Iterator[Problem]:
    """Its one switch is the kind of GELU."""
    yield from unsaid(
        model,
        norm=("layer",),
        position=("learned",),
        activation=("gelu_tanh", "gelu"),
        qkv_bias=(True,),
        o_bias=(True,),
        mlp_bias=(True,),
    )
    yield from other_head_dim(model)
    if model.kv_heads != model.heads:
        yield lacking(model, "kv_heads", "model.heads")


LAYER = "transformer.h"
NAMES = {
    "model.embed_tokens": "transformer.wte",
    "model.embed_positions": "transformer.wpe",
    "model.norm": "transformer.ln_f",
    "lm_head": "lm_head",
    "self_attn.q_proj": "attn.c_attn",  # of all three
    "self_attn.o_proj": "attn.c_proj",
    "mlp.up_proj": "mlp.c_fc",
    "mlp.down_proj": "mlp.c_proj",
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
}


def tensors(model: ModelConfig) -> Iterator[FileTensor]:
    """Conv1D holds [inputs, outputs]; queries, keys and values are one tensor, one behind the other."""
    for name, shape in parameter_shapes(model).items():
        path, _, kind = name.rpartition(".")
        turned = "_proj" in path and kind == "weight"
        if path.endswith("q_proj"):
            rows, fused = shape[0], (3 * shape[0], *shape[1:])
            parts = tuple(
                Part(name.replace("q_proj", f"{which}_proj"), 0, i * rows, rows) for i, which in enumerate("qkv")
            )
            on_disk = fused[::-1] if turned else fused
            yield FileTensor(f"{elsewhere(path, NAMES, LAYER)}.{kind}", on_disk, parts, turned)
        elif not path.endswith(("k_proj", "v_proj")):
            yield renamed(f"{elsewhere(path, NAMES, LAYER)}.{kind}", name, shape, turned)


FORMAT = Format(
    model_types=("gpt2",),
    architectures=("GPT2LMHeadModel",),
    read=read,
    write=write,
    tensors=tensors,
    lacks=lacks,
    ignored=("*.attn.bias", "*.attn.masked_bias"),
    tied=True,
    prefix="transformer.",
)
