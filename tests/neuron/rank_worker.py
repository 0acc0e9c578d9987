"""What the tests of the harness itself do in a rank."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist
import torch_xla
import torch_xla.core.xla_model as xm
import torch_xla.runtime as xr
from torch import nn


def collectives(groups: list[list[int]], dtype: str) -> dict[str, Any]:
    """Every redirected collective once, on small whole numbers, which BF16 represents."""
    dist.init_process_group("gloo")
    rank, kind = dist.get_rank(), getattr(torch, dtype)
    size = len(groups[0])
    value = torch.arange(2 * size * 3, dtype=kind).reshape(2 * size, 3) + rank
    inplace = [value.clone(), value.clone().t()]
    returned = xm.all_reduce(xm.REDUCE_SUM, inplace, scale=0.5, groups=groups)
    output = torch.empty(2, 3, dtype=kind)
    xm.reduce_scatter(xm.REDUCE_SUM, value, 1.0, 0, size, groups=groups, output=output)
    found = {
        "fresh": xm.all_reduce(xm.REDUCE_MAX, value, groups=groups),
        "untouched": value,
        "inplace": inplace[0],
        "strided": inplace[1],
        "gathered": xm.all_gather(value[:1], dim=1, groups=groups),
        "gathered_list": xm.all_gather_bucketized([value[:1], value[:1, :1]], groups=groups)[1],
        "scattered": output,
        "scattered_list": xm.reduce_scatter_bucketized("sum", [value], 2.0, 0, size, groups=groups)[0],
        "world": xm.all_reduce(xm.REDUCE_MIN, value[0, :1]),
    }
    assert returned is inplace
    assert all(tensor.dtype == kind for tensor in found.values())
    payloads = [payload.decode() for payload in xm.rendezvous("end", str(rank).encode())]
    return {name: tensor.tolist() for name, tensor in found.items()} | {"payloads": payloads}


def steps() -> dict[str, Any]:
    """Ordinals, the device, graph cuts and moves."""
    told: list[int] = []
    xm.add_step_closure(told.append, args=(1,))
    xm.add_step_closure(told.append, args=(2,), run_async=True)
    before = list(told)
    torch_xla.sync()
    after = list(told)
    xm.mark_step()
    module = nn.Linear(2, 2)
    weight = module.weight
    refused = ""
    try:
        xm.all_to_all(torch.ones(2), 0, 0, 2)
    except NotImplementedError as error:
        refused = str(error)
    return {
        "closures": [before, after, told],
        "ordinals": [xr.global_ordinal(), xr.local_ordinal(), xr.world_size(), xr.local_process_count()],
        "master": xm.is_master_ordinal(),
        "devices": [str(torch_xla.device()), str(xm.xla_device())],
        "stays": module.to("xla").weight is weight and module.to(device=torch.device("xla", 0)).weight is weight,
        "refused": refused,
    }


def fail(rank: int, how: str) -> int:
    """One rank raises or hangs; the others wait for it."""
    dist.init_process_group("gloo")
    if dist.get_rank() == rank:
        if how == "raise":
            raise ValueError("the reason")
        time.sleep(1000)
    dist.barrier()
    return 0


def block(sequence_dimension: int | None, recompute: bool) -> dict[str, float]:
    """A column and a row layer on two ranks against the same in one process: largest differences, relative.

    sequence_dimension: None, or the dimension that sequence parallelism splits.
    """
    from neuronx_distributed.parallel_layers import ColumnParallelLinear, RowParallelLinear, parallel_state
    from torch_xla.utils.checkpoint import checkpoint

    dist.init_process_group("gloo")
    parallel_state.initialize_model_parallel(tensor_model_parallel_size=2)
    split = sequence_dimension is not None
    options: dict[str, Any] = {
        "bias": False,
        "sequence_parallel_enabled": split,
        "sequence_dimension": sequence_dimension,
    }
    up = ColumnParallelLinear(8, 16, gather_output=False, **options)
    down = RowParallelLinear(16, 8, input_is_parallel=True, **options)
    torch.manual_seed(7)
    whole_up, whole_down, x, gradient = (torch.randn(shape) for shape in ((16, 8), (8, 16), (6, 4, 8), (6, 4, 8)))
    rank = dist.get_rank()
    up.weight.data.copy_(whole_up.chunk(2, 0)[rank])
    down.weight.data.copy_(whole_down.chunk(2, 1)[rank])

    def part(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.chunk(2, sequence_dimension)[rank].clone() if split else tensor.clone()

    def body(value: torch.Tensor) -> torch.Tensor:
        return down(torch.tanh(up(value)))

    local = part(x).requires_grad_()
    y = checkpoint(body, local, use_reentrant=True) if recompute else body(local)
    y.backward(part(gradient))
    leaves = [tensor.requires_grad_() for tensor in (whole_up, whole_down, x)]
    whole = torch.tanh(x @ whole_up.T) @ whole_down.T
    whole.backward(gradient)
    expected_up, expected_down, expected_x = (leaf.grad for leaf in leaves)
    pairs = {
        "output": (y, part(whole)),
        "input": (local.grad, part(expected_x)),
        "up": (up.weight.grad, expected_up.chunk(2, 0)[rank]),
        "down": (down.weight.grad, expected_down.chunk(2, 1)[rank]),
    }
    return {name: float((a - b).abs().max() / b.abs().max()) for name, (a, b) in pairs.items()}


def masters(hook: bool) -> dict[str, Any]:
    """One step of ZeRO-1 at rate 1 over two ranks: weights of 5 rows start at 0, gradients are 1 and 2."""
    from neuronx_distributed.optimizer import NeuronZero1Optimizer
    from neuronx_distributed.parallel_layers import parallel_state

    dist.init_process_group("gloo")
    parallel_state.initialize_model_parallel()
    weight = nn.Parameter(torch.zeros(5, 2, dtype=torch.bfloat16))
    optimizer = NeuronZero1Optimizer(
        [weight],
        torch.optim.SGD,
        lr=1.0,
        max_norm=1e9,
        pin_layout=False,
        use_grad_acc_hook=hook,
        higher_cc_precision=hook,
        bucket_cap_mb_all_gather=1,
        bucket_cap_mb_reduce_scatter=1,
    )
    [master] = optimizer.base_optimizer.param_groups[0]["params"]
    weight.data.fill_(7)
    apart = bool((master == 0).all())
    (weight.float().sum() * (dist.get_rank() + 1)).backward()
    optimizer.step()
    return {
        "apart": apart,
        "dtype": str(master.dtype),
        "rows": len(master),
        "norm": float(optimizer.grad_norm),
        "weight": weight.tolist(),
    }


def lazy() -> dict[str, Any]:
    """A layer of NxD on torch_xla's own tensors, in one process."""
    import torch_xla.distributed.xla_backend
    from neuronx_distributed.parallel_layers import ColumnParallelLinear, parallel_state
    from neuronx_distributed.utils import cpu_mode

    dist.init_process_group("xla", init_method="env://")
    parallel_state.initialize_model_parallel()
    device = torch_xla.device()
    layer = ColumnParallelLinear(4, 8, bias=False, gather_output=False).to(device)
    x = torch.ones(1, 2, 4, device=device)
    y = layer(x)
    torch_xla.sync()
    expected = torch.ones(1, 2, 4) @ layer.weight.detach().cpu().T
    return {"device": y.device.type, "cpu_mode": cpu_mode(), "right": torch.allclose(y.cpu(), expected, atol=1e-6)}
