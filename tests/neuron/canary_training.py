"""Defects of NxD's trainer, optimizer, checkpoints and pipeline, measured; see canary_layers.py."""

from __future__ import annotations

from typing import Any

import neuronx_distributed as nxd
import torch
import torch.distributed as dist
from neuronx_distributed.parallel_layers import ColumnParallelLinear, parallel_state
from torch import nn


class Line(nn.Module):
    """One weight of 8 by 4; the loss is the mean of its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x).mean()


def config(zero: bool, clip: bool = True, limit: float = 1.0, **more: Any) -> dict[str, Any]:
    """NxD's configuration; makes the groups."""
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return nxd.neuronx_distributed_config(
        optimizer_config={"zero_one_enabled": zero, "grad_clipping": clip, "max_grad_norm": limit}, **more
    )


def make(settings: dict[str, Any], seed: int, **defaults: float) -> tuple[Any, Any, nn.Parameter]:
    """A model of its own values, its optimizer, and its one weight."""

    def build() -> nn.Module:
        torch.manual_seed(seed)
        return Line()

    model = nxd.initialize_parallel_model(settings, build)
    parameters = list(model.parameters())
    return model, nxd.initialize_parallel_optimizer(settings, torch.optim.SGD, parameters, **defaults), parameters[0]


def resumed_masters() -> dict[str, Any]:
    """FP32 masters, and the weight after a step that changes nothing, once a checkpoint is loaded.

    Of old_masters_over_loaded_weights.
    """
    settings = config(zero=True)
    model, optimizer, weight = make(settings, seed=0, lr=0.0)
    saved = weight.detach().clone()
    model.run_train(x=torch.ones(2, 4))
    optimizer.step()  # at rate 0; a checkpoint of before the first step lacks what step() adds
    nxd.save_checkpoint("checkpoint", tag="one", model=model, optimizer=optimizer)
    found = {}
    for order in ("together", "apart"):
        model, optimizer, weight = make(settings, seed=123, lr=0.0)
        old = weight.detach().clone()
        if order == "together":
            nxd.load_checkpoint("checkpoint", tag="one", model=model, optimizer=optimizer)
        else:
            nxd.load_checkpoint("checkpoint", tag="one", model=model)
            nxd.load_checkpoint("checkpoint", tag="one", optimizer=optimizer)
        loaded = weight.detach().clone()
        model.run_train(x=torch.ones(2, 4))
        optimizer.step()
        found[order] = {
            "loaded": loaded.equal(saved),
            "kept": weight.equal(saved),
            "went_back": weight.equal(old),
        }
    return found


def clipping_limit() -> dict[str, Any]:
    """The limit that ZeRO-1 clips to, when NxD's configuration says 0.25 and when the constructor does.

    Of clipping_norm_ignored.
    """
    settings = config(zero=True, limit=0.25)
    limits = [
        make(settings, 0, lr=0.0)[1].optimizer.max_norm,
        make(settings, 0, lr=0.0, max_norm=0.25)[1].optimizer.max_norm,
    ]
    return {"configured": limits[0], "constructed": limits[1]}


def context_gradient(zero: bool) -> dict[str, Any]:
    """What a step of plain SGD at rate 1 subtracts, of gradients that are 1 on rank 0 and 2 on rank 1.

    Of context_gradient_added_twice.
    """
    where = {"mixed_precision_config": {"use_fp32_grad_acc": False}}  # in .grad, where this puts them
    settings = config(zero=zero, clip=False, context_parallel_size=2, **(where if zero else {}))
    _, optimizer, weight = make(settings, 0, lr=1.0)
    before = weight.detach().clone()
    weight.grad = torch.full_like(weight, float(dist.get_rank() + 1))
    optimizer.step()
    change = before - weight.detach()
    return {"least": float(change.min()), "most": float(change.max())}


def manual_stage() -> dict[str, Any]:
    """Parameters and state of a stage that was cut by hand.

    Of manual_stage_stateless.
    """
    pipeline = {
        "manual_pp_partition": True,
        "manual_pp_loss_fn": lambda output, labels: (output[0] - labels).mean(),
        "num_microbatches": 2,
        "use_optimizer_wrapper": True,
    }
    settings = config(zero=False, pipeline_parallel_size=2, pipeline_config=pipeline)
    model = nxd.initialize_parallel_model(settings, lambda: [nn.Linear(4, 4), nn.Linear(4, 4)])
    return {"parameters": len(list(model.parameters())), "state": len(model.state_dict())}


def drawn_on_meta() -> dict[str, Any]:
    """A column layer's shards, drawn by param_init_fn with one seed on all ranks.

    Of same_draws_on_every_rank.
    """

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = ColumnParallelLinear(8, 16, bias=False, gather_output=False)

    def draw(module: nn.Module, device: torch.device) -> None:
        for parameter in module.parameters(recurse=False):
            nn.init.normal_(parameter)

    settings = config(
        zero=False, tensor_parallel_size=2, model_init_config={"meta_device_init": True, "param_init_fn": draw}
    )
    torch.manual_seed(3)
    weight = next(iter(nxd.initialize_parallel_model(settings, Model).parameters())).detach()
    shards = [torch.empty_like(weight) for _ in range(2)]
    dist.all_gather(shards, weight, group=parallel_state.get_tensor_model_parallel_group())
    return {"same": torch.equal(*shards), "spread": float(weight.std())}


class Layer(nn.Module):
    """A layer for the tracer."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.line(x)


class Stack(nn.Module):
    """Four of them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x.mean()


def evaluation(virtual: int) -> dict[str, Any]:
    """A training step, then an evaluation, with two pipeline stages of so many parts each.

    Of interleaved_evaluation_hangs.
    """
    pipeline = {
        "transformer_layer_cls": Layer,
        "num_microbatches": 4,
        "virtual_pipeline_size": virtual,
        "output_loss_value_spec": True,
        "broadcast_and_average_loss": True,
        "use_optimizer_wrapper": True,
        "input_names": ["x"],
        "auto_partition": True,
    }
    settings = config(zero=False, pipeline_parallel_size=2, pipeline_config=pipeline)
    torch.manual_seed(0)
    model = nxd.initialize_parallel_model(settings, Stack)
    trained = float(model.run_train(x=torch.ones(4, 4)))
    print("trained", flush=True)
    return {"trained": trained, "evaluated": float(model.run_eval(x=torch.ones(4, 4)))}
