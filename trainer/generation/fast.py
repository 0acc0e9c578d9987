"""The same model with fewer and faster operations, for one process on a CPU: decoding costs its overheads per token.

What a token costs is reading the weights; what a decoder of 135M parameters spends beside that is hundreds of small
operations. So projections that read the same input become one matrix, norms one kernel, and queries and keys turn
together. Where there is a C++ compiler, kernels.cpp multiplies, and takes a token through most families' layers in one
call (trainer.generation.step). Without one, on a CPU without BF16 instructions torch multiplies BF16 matrices slowly
(torch 2.9.1: half of what memory gives for one row, an eighth of that for 8): there FBGEMM does it, by
trainer.generation.packed.

Everything is put into the model's own seams, in place; benchmarks/generate.py measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from trainer.generation.cache import LayerCache
from trainer.generation.kernels import Kernels, kernels
from trainer.generation.opened import Opened
from trainer.generation.packed import can_pack, pack
from trainer.generation.step import Step, has_step
from trainer.models.attention import Attention, Context
from trainer.models.feedforward import FeedForward
from trainer.models.norm import RMSNorm


def quicken(opened: Opened) -> None:
    """Make a model faster, in place, for decoding and nothing else: of what is fused, only the fusion stays.

    It computes the same function; with BF16 weights, less is rounded than before.
    """
    if opened.host.size > 1 or opened.dtype not in (torch.float32, torch.bfloat16):
        return
    if next(opened.lowered.parameters()).device.type != "cpu" or hasattr(opened.lowered, "quick"):
        return
    opened.lowered.quick = True
    modules: list[Any] = list(opened.decoder.modules())
    stepping = [module for module in modules if has_step(module)]
    angles = _Angles()
    for module in modules:
        # Exactly these: a family of a user's own may have overridden what is replaced here.
        if type(module) is Attention:
            _fuse_attention(module, angles)
        elif type(module) is FeedForward:
            _fuse_feed_forward(module)
        elif type(module) is RMSNorm:
            module.forward = _OneKernelNorm(module)  # type: ignore[method-assign]
    if _strangers(opened):
        return
    own = kernels()
    if own is not None:
        _widen(opened, partial(_take_over, own))
        for layer in stepping:
            layer.forward = Step(layer, own)
    elif opened.dtype == torch.bfloat16 and can_pack():
        # The head may be the embedding.
        _widen(opened, lambda linear: pack(linear, keep=linear is opened.head))


def _strangers(opened: Opened) -> bool:
    """Whether a family of a user's own has a linear of a kind that is not known here."""
    linears = [module for module in opened.lowered.modules() if isinstance(module, nn.Linear)]
    return any(type(linear) is not nn.Linear for linear in linears)


def _widen(opened: Opened, make: Callable[[nn.Linear], object]) -> None:
    """Faster products, of FP32 activations: from the embedding on, nothing is rounded to BF16 any more."""
    for module in (*opened.decoder.modules(), opened.head):
        if type(module) is nn.Linear and module.weight.numel():
            make(module)
        elif isinstance(getattr(module, "forward", None), _OneKernelNorm):
            module.forward.widen()
    embed = opened.decoder.embed
    opened.decoder.embed = lambda *given: embed(*given).float()


def _take_over(own: Kernels, linear: nn.Linear) -> None:
    bias = None if linear.bias is None else linear.bias.data.float()
    linear.forward = partial(own.linear, linear.weight.data.contiguous(), bias)  # type: ignore[method-assign]


def fused(linears: list[nn.Linear]) -> nn.Linear:
    """One linear of several that read the same input. They are empty behind it, so that nothing is held twice."""
    made = nn.Linear(1, 1, bias=linears[0].bias is not None)
    made.weight = nn.Parameter(torch.cat([one.weight.data for one in linears]), requires_grad=False)
    made.out_features, made.in_features = made.weight.shape
    if made.bias is not None:
        made.bias = nn.Parameter(torch.cat([one.bias.data for one in linears]), requires_grad=False)
    for one in linears:
        one.weight.data = one.weight.data.new_empty(0)
    return made


def _fuse_attention(module: Attention, angles: _Angles) -> None:
    linears = [module.q_proj, module.k_proj, module.v_proj]
    sizes = [linear.out_features for linear in linears]
    module.add_module("qkv_proj", fused(linears))
    if module.qk_norm == "none":
        module.forward = partial(_attention, module, sizes, angles)  # type: ignore[method-assign]
    else:
        module.project = lambda x: module.qkv_proj(x).split(sizes, dim=-1)  # type: ignore[method-assign, operator]


def _attention(module: Any, sizes: list[int], angles: _Angles, x: torch.Tensor, context: Context) -> torch.Tensor:
    """As trainer.models.attention.Attention.forward, with one projection, one rotation and one write to the cache."""
    batch, seq, _ = x.shape
    size = module.head_dim
    heads = module.qkv_proj(x).view(batch, seq, -1, size).transpose(1, 2)
    queries, keys, values = (rows // size for rows in sizes)
    if context.cosines is not None and context.sines is not None:
        angles.turn(heads.narrow(1, 0, queries + keys), context.cosines, context.sines)
    q, attend = heads.narrow(1, 0, queries), module.attend
    if isinstance(attend, LayerCache):
        out = attend.together(q, heads.narrow(1, queries, keys + values), context)
    else:
        out = attend(q, heads.narrow(1, queries, keys), heads.narrow(1, queries + keys, values), context)
    return module.o_proj(out.transpose(1, 2).reshape(batch, seq, -1))


class _Angles:
    """Turns heads in place, as trainer.models.rotary.rotate does. What all layers share is worked out once a token."""

    def __init__(self) -> None:
        self._of: torch.Tensor | None = None
        self._signed = torch.empty(0)

    def turn(self, x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> None:
        """x: [batch, heads, seq, head_dim]; cosines and sines: FP32 [batch, 1, seq, head_dim / 2]."""
        if self._of is not sines:
            self._of, self._signed = sines, torch.stack((-sines, sines), dim=-2)
        pairs = x.unflatten(-1, (2, -1))
        wide = (pairs * cosines.unsqueeze(-2)).addcmul_(pairs.flip(-2), self._signed)
        pairs.copy_(wide)


def _fuse_feed_forward(module: FeedForward) -> None:
    linears = [module.gate_proj, module.up_proj]
    module.add_module("gate_up_proj", fused(linears))
    module.gate_and_up = lambda x: module.gate_up_proj(x).chunk(2, dim=-1)  # type: ignore[method-assign, operator]


class _OneKernelNorm:
    """RMSNorm as a LayerNorm of x beside -x, whose mean is 0 and whose variance is the mean square of x.

    torch has a kernel for LayerNorm on a CPU; it makes RMSNorm of eight operations.
    """

    def __init__(self, norm: RMSNorm) -> None:
        self._shape, self._eps = (2, norm.weight.shape[0]), norm.eps
        self._weight = norm.weight.data.expand(2, -1).contiguous()
        self._signs = torch.tensor([[1.0], [-1.0]], dtype=norm.weight.dtype)

    def widen(self) -> None:
        """From now on for FP32 activations."""
        self._weight, self._signs = self._weight.float(), self._signs.float()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.layer_norm(x.unsqueeze(-2) * self._signs, self._shape, self._weight, None, self._eps)
        return both.select(-2, 0)
