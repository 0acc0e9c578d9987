"""What NxD's groups, ZeRO-1 and pipeline give in a rank, as JSON; see agree_layers.py."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from neuronx_distributed.optimizer import NeuronZero1Optimizer
from neuronx_distributed.parallel_layers import parallel_state
from neuronx_distributed.parallel_layers.grads import allreduce_sequence_parallel_gradients
from neuronx_distributed.pipeline import NxDPPModel
from torch.testing._internal.distributed.fake_pg import FakeStore

from tests.neuron.agree_model import BATCH, DTYPES, SEQUENCE, VOCAB, Block, draw, small_model, start, told


def groups(**sizes: int) -> dict[str, Any]:
    """What every getter says, on real groups."""
    state = start(**sizes)
    found: dict[str, Any] = {"zero": state.get_zero1_sharding_groups()}
    for axis in ("tensor_model", "data", "pipeline_model", "context_model"):
        get = {what: getattr(state, f"get_{axis}_parallel_{what}") for what in ("group", "size", "rank")}
        group = get["group"]()
        assert get["size"]() == group.size()
        found[axis] = {
            "size": get["size"](),
            "rank": get["rank"](),
            "members": dist.get_process_group_ranks(group),
            "listed": get["group"](as_list=True),
            "replicas": getattr(state, f"get_{axis}_parallel_replica_groups")(),
        }
    ranks = dist.get_process_group_ranks(state.get_world_group())
    found |= {"world": ranks, "initialized": state.model_parallel_is_initialized()}
    if sizes.get("pipeline_model_parallel_size", 1) > 1:
        found["next"] = state.get_pipeline_model_parallel_next_rank()
        found["previous"] = state.get_pipeline_model_parallel_prev_rank()
    state.destroy_model_parallel()
    return found | {"destroyed": not state.model_parallel_is_initialized()}


def meshes(table: list[list[int]], cores: int) -> list[Any]:
    """Layouts of worlds of any size, by torch's fake process group: [tp, cp, dp, pp] each, ``cores`` on a node."""
    found: list[Any] = []
    for tp, cp, dp, pp in table:
        world = tp * cp * dp * pp
        os.environ["LOCAL_WORLD_SIZE"] = str(min(world, cores))
        dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
        try:
            made = parallel_state.initialize_model_parallel(
                tp, pp, context_parallel_size=cp, skip_collective_init=True, mesh_only=True
            )
            found.append({name: getattr(made, f"{name}_groups") for name in ("tp", "cp", "dp", "pp", "ep_data")})
        except RuntimeError:
            found.append("refused")
        dist.destroy_process_group()
    return found


def zero(tp: int, sequence_parallel: bool, dtype: str, accumulate: bool) -> dict[str, Any]:
    """Three steps of ZeRO-1 on a small tensor-parallel model: masters, norms, parameters and AdamW's moments."""
    state = start(tensor_model_parallel_size=tp)
    model = small_model(sequence_parallel, DTYPES[dtype])
    optimizer = NeuronZero1Optimizer(
        list(model.parameters()),
        torch.optim.AdamW,
        optimizer_dtype=torch.float32,
        max_norm=0.5,
        pin_layout=False,
        sharding_groups=state.get_zero1_sharding_groups(),
        use_grad_acc_hook=accumulate,
        lr=1e-2,
        weight_decay=0.1,
    )
    norms = []
    for step in range(3):
        optimizer.zero_grad(set_to_none=True)
        ids = torch.randint(0, VOCAB, (4, BATCH, SEQUENCE), generator=torch.Generator().manual_seed(40 + step))
        for microbatch in ids.chunk(state.get_data_parallel_size())[state.get_data_parallel_rank()]:
            model(microbatch, microbatch.roll(-1, -1)).backward()
        if sequence_parallel:
            allreduce_sequence_parallel_gradients(optimizer)
        optimizer.step()
        norms.append(told(optimizer.grad_norm))
    found: dict[str, Any] = {"norms": norms}
    shards = [shard for group in optimizer.base_optimizer.param_groups for shard in group["params"]]
    for (name, parameter), shard in zip(model.named_parameters(), shards, strict=True):
        moments = {key: told(value) for key, value in optimizer.base_optimizer.state[shard].items()}
        found[name] = {"parameter": told(parameter), "master": told(shard), **moments}
    return found


def pipeline(
    tp: int,
    pp: int,
    cuts: list[str],
    virtual: int = 1,
    sequence_parallel: bool = False,
    tied: bool = False,
    broadcast: bool = True,
    zero: bool = True,
) -> dict[str, Any]:
    """Two steps of a pipeline of four layers and an evaluation: losses, gradients, parameters after ZeRO-1's AdamW."""
    state = start(tensor_model_parallel_size=tp, pipeline_model_parallel_size=pp)
    model = NxDPPModel(
        small_model(sequence_parallel, torch.float32, layers=4, tied=tied),
        transformer_layer_cls=Block,
        num_microbatches=4,
        virtual_pipeline_size=virtual,
        output_loss_value_spec=True,
        broadcast_and_average_loss=broadcast,
        use_zero1_optimizer=zero,
        use_optimizer_wrapper=zero,
        pipeline_cuts=cuts,
        input_names=["ids", "targets"],
        leaf_module_cls=["Norm"],
        param_init_fn=_initialise,
    )
    model.move_model_to_device()
    # Parameters of a stage may come in another order.
    local = dict(sorted(model.local_named_parameters()))
    parts, part = state.get_data_parallel_size(), state.get_data_parallel_rank()
    found: dict[str, Any] = {"losses": [], "norms": [], "shared": {n: bool(p.shared) for n, p in local.items()}}
    optimizer = (
        NeuronZero1Optimizer(list(local.values()), torch.optim.AdamW, pin_layout=False, lr=1e-2) if zero else None
    )
    for step in range(2):
        ids = torch.randint(0, VOCAB, (16, SEQUENCE), generator=torch.Generator().manual_seed(50 + step))
        mine = ids.chunk(parts)[part]
        loss = model.run_train(ids=mine, targets=mine.roll(-1, -1))
        found["losses"].append(told(loss))
        found[f"gradients {step}"] = {name: told(parameter.grad) for name, parameter in local.items()}
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            found["norms"].append(told(optimizer.grad_norm))
    if virtual == 1:  # NxD hangs
        found["evaluation"] = told(model.run_eval(ids=mine, targets=mine.roll(-1, -1)))
    found["parameters"] = {name: told(parameter) for name, parameter in local.items()}
    found["all"] = sorted(name for name, _ in model.named_parameters())
    found["wanting"] = sorted(name for name, p in model.named_parameters() if p.requires_grad)
    found["classes"] = sorted({type(module).__name__ for module in model.local_modules()} & {"Block", "Norm"})
    return found


def _initialise(module: torch.nn.Module, device: torch.device) -> None:
    """Fill a module's own parameters by their shape alone."""
    for parameter in module.parameters(recurse=False):
        seed = sum(size * 7**i for i, size in enumerate(parameter.shape))
        parameter.data.copy_(draw(seed, *parameter.shape) / 4 + (parameter.dim() == 1))
