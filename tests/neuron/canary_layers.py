"""Defects of NxD's layers, measured: each function runs in the ranks of one task and returns figures, as JSON."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from neuronx_distributed.modules.lora import LoraConfig
from neuronx_distributed.modules.lora.model import LoraModel
from neuronx_distributed.modules.qkv_linear import GQAQKVColumnParallelLinear
from neuronx_distributed.parallel_layers import ColumnParallelLinear, parallel_cross_entropy, parallel_state
from neuronx_distributed.parallel_layers import set_tensor_model_parallel_attributes as mark
from neuronx_distributed.parallel_layers.grads import get_grad_norm
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore


def begin(tp: int = 1, **sizes: int) -> tuple[int, int]:
    """Groups; this rank's place in tensor parallelism, and how many places there are."""
    dist.init_process_group("gloo")
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=tp, **sizes)
    torch.manual_seed(11)
    return parallel_state.get_tensor_model_parallel_rank(), tp


def everywhere(tensor: torch.Tensor, dim: int = 0) -> torch.Tensor:
    """All ranks' tensors, concatenated."""
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts, dim)


def input_gradient(mended: bool) -> dict[str, Any]:
    """The gradient of a BF16 column layer's input, beside this rank's own term of it and the sum over ranks.

    Of input_gradient_not_reduced.
    """
    begin(tp=2)
    kind = {"dtype": torch.bfloat16, "reduce_dtype": torch.bfloat16} if mended else {"dtype": torch.bfloat16}
    layer = ColumnParallelLinear(16, 32, bias=False, gather_output=False, **kind)
    x = torch.randn(2, 8, 16, dtype=torch.bfloat16, requires_grad=True)
    gradient = torch.randn(2, 8, 16, dtype=torch.bfloat16)
    layer(x).backward(gradient)
    local = gradient.matmul(layer.weight.detach())
    total = local.clone()
    dist.all_reduce(total)
    return {"local": torch.equal(x.grad, local), "total": torch.equal(x.grad, total), "apart": not local.equal(total)}


def fused_marks() -> dict[str, Any]:
    """Whether a fused QKV weight says that it is sharded; the norm of a gradient of ones over its true norm.

    Of fused_weight_unmarked.
    """
    begin(tp=2)
    layers = {
        fused: GQAQKVColumnParallelLinear(16, [32, 16], bias=False, gather_output=False, fuse_qkv=fused)
        for fused in (True, False)
    }
    weight = layers[True].weight_qkv
    weight.grad = torch.ones_like(weight)
    true = (2 * weight.numel()) ** 0.5
    plain = float(get_grad_norm([weight])) / true
    marked = getattr(weight, "tensor_model_parallel", False)
    if not marked:
        mark(weight, True, 0, 1, 2)
    return {
        "fused": marked,
        "apart": getattr(layers[False].weight_q, "tensor_model_parallel", False),
        "norm": plain,
        "norm_when_marked": float(get_grad_norm([weight])) / true,
    }


def smoothed_loss(smoothing: float) -> dict[str, Any]:
    """The loss under label smoothing, of four tokens.

    Of smoothed_loss_wrong.
    """
    place, tp = begin(tp=2)
    logits, target = torch.randn(4, 32), torch.tensor([1, 30, 17, 2])
    shard = logits.chunk(tp, -1)[place].clone()
    loss = parallel_cross_entropy(shard, target, smoothing)
    # What it computes: an intended formula in which the size and the mean are those of this rank's slice.
    slice_of = logits.log_softmax(-1).chunk(tp, -1)[place]
    share = smoothing * 16 / 15
    defect = (1 - share) * F.cross_entropy(logits, target, reduction="none") - share * slice_of.mean(-1)
    right = F.cross_entropy(logits, target, reduction="none", label_smoothing=smoothing)
    return {
        "loss": loss.tolist(),
        "from_defect": float((loss - defect).abs().max()),
        "from_right": float((loss - right).abs().max()),
    }


def adapter_gradient() -> dict[str, Any]:
    """The gradient of the replicated half of a LoRA adapter under sequence parallelism.

    Of adapter_gradient_partial.
    """
    place, tp = begin(tp=2)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = ColumnParallelLinear(
                16, 32, bias=False, gather_output=False, sequence_parallel_enabled=True, sequence_dimension=0
            )

        def forward(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
            return self.up(input_ids)  # LoraModel calls it as Hugging Face's models are

    model = LoraModel(Model(), LoraConfig(lora_rank=4, lora_alpha=4, target_modules=["up"]))
    adapter = next(module for module in model.modules() if hasattr(module, "lora_A") and hasattr(module, "lora_B"))
    down, up = adapter.lora_A.weight, adapter.lora_B.weight
    torch.manual_seed(5)
    x, gradient, whole_up = torch.randn(8, 2, 16), torch.randn(8, 2, 32), torch.randn(32, 4)
    up.data.copy_(whole_up.chunk(tp)[place])  # it starts at zero, and passes no gradient on
    dist.broadcast(down.data, 0)
    model(x.chunk(tp)[place].clone()).backward(gradient.chunk(tp, -1)[place])
    # Of y = x A^T B^T, in one process: each position's contribution to A's gradient.
    terms = torch.einsum("sbo,or,sbi->sri", gradient, whole_up, x)
    return {
        "flag": bool(getattr(down, "sequence_parallel_enabled", False)),
        "from_own_positions": _farthest(down.grad, terms.chunk(tp)[place].sum(0)),
        "from_all_positions": _farthest(down.grad, terms.sum(0)),
    }


def _farthest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def strided_groups() -> dict[str, Any]:
    """Groups of four on 32 ranks, and what happens with two pipeline stages.

    Of strided_groups_of_four.
    """
    os.environ["LOCAL_WORLD_SIZE"] = "32"
    dist.init_process_group("fake", rank=0, world_size=32, store=FakeStore())
    groups = parallel_state.initialize_model_parallel(4, 1, mesh_only=True).tp_groups
    error = ""
    try:
        parallel_state.initialize_model_parallel(4, 8, mesh_only=True)
    except RuntimeError as raised:
        error = str(raised)
    return {"first": groups[0], "error": error}


def source_rank() -> dict[str, Any]:
    """The first rank of a group of four, as NxD names it.

    Of source_rank_of_four.
    """
    begin(tp=4)
    return {"source": parallel_state.get_tensor_model_parallel_src_rank(), "group": [0, 1, 2, 3]}


def query_bias() -> dict[str, Any]:
    """What becomes of a bias in the grouped-query layer, for which it is the default.

    Of grouped_query_bias_raises.
    """
    begin(tp=2)
    try:
        GQAQKVColumnParallelLinear(16, [32, 16], gather_output=False)
    except TypeError as error:
        return {"error": str(error)}
    return {"error": ""}
