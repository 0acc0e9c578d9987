"""A layer's next token by one call of kernels.cpp, for layers as most families have them."""

from __future__ import annotations

from typing import Any

import torch

from trainer.generation.cache import LayerCache
from trainer.generation.kernels import Kernels, Layer, Place
from trainer.models.attention import Attention, Context
from trainer.models.decoder import DecoderLayer
from trainer.models.feedforward import FeedForward
from trainer.models.norm import RMSNorm


def has_step(layer: Any) -> bool:
    """Whether a layer is one that the kernel knows. Exactly these types: a family's own may compute something else."""
    if type(layer) is not DecoderLayer or layer.block != "pre":
        return False
    attention, norms = layer.self_attn, _norms(layer)
    if type(attention) is not Attention or attention.qk_norm == "all" or type(layer.mlp) is not FeedForward:
        return False
    return all(type(norm) is RMSNorm and norm.eps == norms[0].eps for norm in norms)


def _norms(layer: Any) -> list[Any]:
    between = [layer.input_layernorm, layer.post_attention_layernorm]
    heads = [layer.self_attn.q_norm, layer.self_attn.k_norm] if layer.self_attn.qk_norm == "head" else []
    return between + heads


class Step:
    """In the place of the forward pass of a layer with ``qkv_proj`` and ``gate_up_proj`` (trainer.generation.fast).

    Longer texts, and those without a cache, go the way that they went.
    """

    def __init__(self, layer: Any, own: Kernels) -> None:
        self._layer, self._own, self._longer = layer, own, layer.forward
        attention, mlp = layer.self_attn, layer.mlp
        linears = {
            "qkv": attention.qkv_proj,
            "o": attention.o_proj,
            "gate_up": mlp.gate_up_proj,
            "down": mlp.down_proj,
        }
        norms = dict(zip(("before", "between", "q_norm", "k_norm"), _norms(layer), strict=False))
        self._dtype = attention.qkv_proj.weight.dtype
        # Kept, as the kernel has their addresses only.
        self._tensors = {name: linear.weight.data.contiguous() for name, linear in linears.items()}
        given = {name: norm.weight for name, norm in norms.items()}
        given |= {f"{name}_bias": linear.bias for name, linear in linears.items() if linear.bias is not None}
        self._tensors |= {name: one.data.float().contiguous() for name, one in given.items()}
        size, keys = attention.head_dim, attention.k_proj.out_features // attention.head_dim
        queries = attention.q_proj.out_features // size
        numbers = {"hidden": attention.qkv_proj.in_features, "mlp": mlp.down_proj.in_features}
        numbers |= {"queries": queries, "keys": keys, "size": size}
        addresses = {name: tensor.data_ptr() for name, tensor in self._tensors.items()}
        self._shape, self._given = (2 * keys, size), Layer(**addresses, **numbers, eps=layer.input_layernorm.eps)

    def __call__(self, x: torch.Tensor, context: Context) -> torch.Tensor:
        """As DecoderLayer.forward."""
        attend = self._layer.self_attn.attend
        if x.shape[1] != 1 or not isinstance(attend, LayerCache):
            longer: torch.Tensor = self._longer(x, context)
            return longer
        mask = context.window if self._layer.windowed else context.mask
        batch, (stored, size) = x.shape[0], self._shape
        kept = attend.kept(x.new_empty((batch, stored, 0, size)))
        tensors = [_of_each_row(one, batch) for one in (context.cosines, context.sines, mask)]
        addresses = (None if one is None else one.data_ptr() for one in tensors)
        place = Place(kept.data_ptr(), *addresses, batch, kept.shape[2], attend.slot)
        return self._own.step(self._dtype, self._given, place, x)


def _of_each_row(given: torch.Tensor | None, batch: int) -> torch.Tensor | None:
    return None if given is None else given.expand(batch, -1, -1, -1).contiguous()
