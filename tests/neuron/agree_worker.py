"""What NxD's API gives in a rank, as JSON: run once on the original and once on the double (test_double_agrees.py).

Written against NxD's documented interface alone, and with the arguments that keep clear of its defects.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.distributed as dist

BATCH, SEQUENCE, HIDDEN, WIDE, VOCAB = 2, 8, 8, 16, 24
MARKS = ("tensor_model_parallel", "partition_dim", "partition_stride", "num_partitions", "sequence_parallel_enabled")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def dtypes(tp: int) -> list[tuple[str, torch.dtype]]:
    """BF16 at TP 2 only: gloo's order of a sum depends on an element's place, which shows from three ranks on."""
    return [(word, dtype) for word, dtype in DTYPES.items() if tp == 2 or word == "fp32"]


def start(**sizes: int) -> Any:
    """Join the gloo world and make NxD's groups; its parallel_state."""
    from neuronx_distributed.parallel_layers import parallel_state

    dist.init_process_group("gloo")
    parallel_state.initialize_model_parallel(**sizes)
    return parallel_state


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The same numbers on every rank."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def finished(found: Any) -> Any:
    """The finding, once every rank has its own: one that leaves early breaks the others' connections."""
    dist.barrier()
    return found


def told(tensor: torch.Tensor | None) -> Any:
    """Shape, dtype and values of a tensor."""
    if tensor is None:
        return None
    return {
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype),
        "values": tensor.detach().float().flatten().tolist(),
    }


def marked(parameter: torch.Tensor) -> dict[str, Any]:
    """NxD's marks on a parameter."""
    return {mark: getattr(parameter, mark, None) for mark in MARKS}


def measured(layer: torch.nn.Module, x: torch.Tensor, seed: int) -> dict[str, Any]:
    """Output, every gradient, every parameter and its marks."""
    x = x.clone()
    if x.is_floating_point():
        x.requires_grad_()
    y = layer(x)
    y.backward(draw(seed, *y.shape, dtype=y.dtype))
    found = {"output": told(y), "input gradient": told(x.grad)}
    for name, parameter in layer.named_parameters():
        found |= {name: told(parameter), f"{name} gradient": told(parameter.grad), f"{name} marks": marked(parameter)}
    return found


def sequence_styles() -> list[tuple[str, dict[str, Any]]]:
    """Without sequence parallelism, and with it along either dim."""
    off: tuple[str, dict[str, Any]] = ("whole", {})
    return [off, *((f"sp{dim}", {"sequence_parallel_enabled": True, "sequence_dimension": dim}) for dim in (0, 1))]


def linears(tp: int) -> dict[str, Any]:
    """Both linear layers in every style, and their options."""
    from neuronx_distributed.parallel_layers import layers

    state = start(tensor_model_parallel_size=tp)
    rank = state.get_tensor_model_parallel_rank()
    found = {}

    def cell(name: str, build: Any, *shape: int, cut: int | None = None) -> None:
        torch.manual_seed(5)
        layer = build()
        x = draw(1, *shape, dtype=layer.weight.dtype)
        found[name] = measured(layer, x if cut is None else x.chunk(tp, cut)[rank].contiguous(), seed=2 + rank)

    for (style, sequence), (word, dtype), wide in itertools.product(sequence_styles(), dtypes(tp), (False, True)):
        cut = sequence.get("sequence_dimension")
        # Without sequence parallelism NxD needs reduce_dtype = dtype (its defect S1).
        shared = {"dtype": dtype, "reduce_dtype": torch.float32 if wide else dtype, **sequence}
        if cut is not None or not wide or dtype == torch.float32:
            build = lambda kw=shared: layers.ColumnParallelLinear(HIDDEN, WIDE, gather_output=False, **kw)  # noqa: E731
            cell(f"column {style} {word} {wide}", build, BATCH * 4, SEQUENCE, HIDDEN, cut=cut)
        build = lambda kw=shared: layers.RowParallelLinear(WIDE, HIDDEN, input_is_parallel=True, **kw)  # noqa: E731
        cell(f"row {style} {word} {wide}", build, BATCH * 4, SEQUENCE, WIDE // tp)
    shape = (BATCH, SEQUENCE, HIDDEN)
    cell("column gathers", lambda: layers.ColumnParallelLinear(HIDDEN, WIDE), *shape)
    cell("column stride", lambda: layers.ColumnParallelLinear(HIDDEN, WIDE, bias=False, stride=2), *shape)
    ones = torch.nn.init.ones_
    cell(
        "column init", lambda: layers.ColumnParallelLinear(HIDDEN, WIDE, gather_output=False, init_method=ones), *shape
    )
    cell("row scatters", lambda: layers.RowParallelLinear(HIDDEN, WIDE, bias=False), *shape)
    cell(
        "row unreduced",
        lambda: layers.RowParallelLinear(WIDE, HIDDEN, bias=False, input_is_parallel=True, reduce_output=False),
        BATCH,
        SEQUENCE,
        WIDE // tp,
    )
    return finished(found)


def embeddings(tp: int) -> dict[str, Any]:
    """The embedding, cut along either dim, and the vocabulary-parallel loss."""
    from neuronx_distributed.parallel_layers import layers, parallel_cross_entropy

    state = start(tensor_model_parallel_size=tp)
    rank = state.get_tensor_model_parallel_rank()
    ids = torch.randint(0, VOCAB, (BATCH, SEQUENCE), generator=torch.Generator().manual_seed(3))
    found = {}
    styles: list[tuple[str, dict[str, Any]]] = [
        *sequence_styles(),
        ("hidden", {"shard_across_embedding": True}),
        ("kept apart", {"collect_output": False}),
        ("padding", {"padding_idx": int(ids[0, 0]) or 1}),
    ]
    for (style, options), (word, dtype) in itertools.product(styles, dtypes(tp)):
        torch.manual_seed(6)
        embedding = layers.ParallelEmbedding(VOCAB, HIDDEN, dtype=dtype, **options)
        found[f"embedding {style} {word}"] = measured(embedding, ids, seed=4 + rank)
    with torch.device("meta"):
        found["on meta"] = marked(layers.ParallelEmbedding(VOCAB, HIDDEN).weight) | marked(
            layers.ColumnParallelLinear(HIDDEN, WIDE, gather_output=False).bias
        )
    logits = draw(7, BATCH, SEQUENCE, VOCAB).chunk(tp, -1)[rank].clone().requires_grad_()
    targets = ids.clone()
    targets[0, :2] = -100
    loss = parallel_cross_entropy(logits * 3.0, targets)
    loss.backward(draw(8, BATCH, SEQUENCE))
    found["loss"] = {"loss": told(loss), "gradient": told(logits.grad)}
    return finished(found)


def regions(tp: int) -> dict[str, Any]:
    """The autograd functions at the borders of the tensor-parallel region."""
    from neuronx_distributed.parallel_layers import mappings

    state = start(tensor_model_parallel_size=tp)
    rank = state.get_tensor_model_parallel_rank()
    cases: dict[str, Any] = {
        f"{name} {dim}": lambda x, name=name, dim=dim: getattr(mappings, name)(x, dim)
        for name in (
            "scatter_to_sequence_parallel_region",
            "gather_from_sequence_parallel_region",
            "reduce_scatter_to_sequence_parallel_region",
            "gather_from_tensor_model_parallel_region_with_dim",
        )
        for dim in (0, 1)
    }
    cases |= {
        f"{name}_tensor_model_parallel_region": getattr(mappings, f"{name}_tensor_model_parallel_region")
        for name in ("copy_to", "reduce_from", "gather_from", "scatter_to")
    }
    cases["gather, not summed back"] = lambda x: mappings.gather_from_sequence_parallel_region(x, 1, False)
    found = {}
    for name, region in cases.items():
        x = draw(20 + rank, 8, 8, 8).requires_grad_()
        y = region(x * 1.0)  # not a leaf: the original reduces in place
        y.backward(draw(30 + rank, *y.shape))
        found[name] = {"output": told(y), "gradient": told(x.grad)}
    return finished(found)


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
    return finished(found | {"destroyed": not state.model_parallel_is_initialized()})


def meshes(table: list[list[int]], cores: int) -> list[Any]:
    """Layouts of worlds of any size, by torch's fake process group: [tp, cp, dp, pp] each, ``cores`` on a node."""
    import os

    from neuronx_distributed.parallel_layers import parallel_state
    from torch.testing._internal.distributed.fake_pg import FakeStore

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
    from neuronx_distributed.optimizer import NeuronZero1Optimizer

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
            from neuronx_distributed.parallel_layers.grads import allreduce_sequence_parallel_gradients

            allreduce_sequence_parallel_gradients(optimizer)
        optimizer.step()
        norms.append(told(optimizer.grad_norm))
    found: dict[str, Any] = {"norms": norms}
    shards = [shard for group in optimizer.base_optimizer.param_groups for shard in group["params"]]
    for (name, parameter), shard in zip(model.named_parameters(), shards, strict=True):
        moments = {key: told(value) for key, value in optimizer.base_optimizer.state[shard].items()}
        found[name] = {"parameter": told(parameter), "master": told(shard), **moments}
    return finished(found)


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
    from neuronx_distributed.optimizer import NeuronZero1Optimizer
    from neuronx_distributed.pipeline import NxDPPModel

    from tests.neuron.agree_model import Block

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
    return finished(found)


def _initialise(module: torch.nn.Module, device: torch.device) -> None:
    """Fill a module's own parameters by their shape alone."""
    for parameter in module.parameters(recurse=False):
        seed = sum(size * 7**i for i, size in enumerate(parameter.shape))
        parameter.data.copy_(draw(seed, *parameter.shape) / 4 + (parameter.dim() == 1))


def small_model(
    sequence_parallel: bool, dtype: torch.dtype = torch.float32, layers: int = 1, tied: bool = False
) -> Any:
    """A toy language model of NxD's layers: ids and targets [batch, sequence] -> (mean loss)."""
    from tests.neuron.agree_model import Toy

    torch.manual_seed(9)
    return Toy(VOCAB, HIDDEN, WIDE, layers, sequence_parallel, dtype, tied)
