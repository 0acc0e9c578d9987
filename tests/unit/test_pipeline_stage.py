"""Pipelines in a pretended world, and the private points of torch's stages that ours lean on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
import torch.distributed._tools.fake_collectives
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed.pipelining import PipelineStage
from torch.testing._internal.distributed.fake_pg import FakeStore

from trainer.backends.native.pipeline.engine import Pipeline
from trainer.backends.native.pipeline.stage import Stage, StageModule
from trainer.batch import Batch
from trainer.config.groups.model import ModelConfig
from trainer.models.decoder import CausalLM
from trainer.parallel.stages import cut_layers, local_stages

CONFIG = ModelConfig(hidden=64, layers=8, heads=4, kv_heads=4, mlp=96, vocab=128)
RANK, WORLD, PP = 5, 8, 4
GROUP = [1, 3, 5, 7]
"""Ranks of a pipeline where rank order is dp (2) fastest, then pp (4): rank 5 is its third."""


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[dist.ProcessGroup]:
    """The pipeline group of a rank (by default in the middle) of a world that does not exist."""
    dist.init_process_group("fake", rank=getattr(request, "param", RANK), world_size=WORLD, store=FakeStore())
    try:
        yield dist.new_group(GROUP)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(
    ("kind", "virtual_stages", "group"),
    [("1f1b", 1, 1), ("1f1b", 1, 5), ("1f1b", 1, 7), ("interleaved_1f1b", 2, 5), ("interleaved_zero_bubble", 2, 5)],
    indirect=["group"],
)
def test_a_step_in_a_pretended_world(group: dist.ProcessGroup, kind: str, virtual_stages: int) -> None:
    stages = PP * virtual_stages
    cut, mine = cut_layers(CONFIG, 32, stages), local_stages(dist.get_rank(group), PP, virtual_stages)
    modules: dict[int, nn.Module] = {}
    for stage in mine:
        with torch.device("meta"):
            model = CausalLM(CONFIG)
        model.keep_stage(cut[stage])
        modules[stage] = model.to(torch.bfloat16)
    with FakeTensorMode(allow_non_fake_inputs=True):  # the modules come from the meta device
        for module in modules.values():
            module.to_empty(device="cpu")
            module.materialised()
        parameters = [p for module in modules.values() for p in module.parameters()]
        folds = []
        pipeline = Pipeline(
            modules, stages, kind, group, lambda batch, seq: (batch, seq, CONFIG.hidden), torch.bfloat16,
            lambda: folds.append(1),
        )  # fmt: skip
        field = torch.zeros((2, 32), dtype=torch.int64)
        batch = Batch.undrawn(field, field, field, field)
        loss = pipeline.train([batch] * 5 if kind == "1f1b" else [batch] * 4, 1.0)
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert all(p.grad is not None and p.grad.shape == p.shape for p in parameters)
        summed, count = pipeline.loss(batch)
        assert summed.shape == ()
        assert count.shape == ()
    assert len(folds) == (8 if kind == "interleaved_zero_bubble" else 0)


def stage_of(kind: type[PipelineStage], group: dist.ProcessGroup) -> PipelineStage:
    meta = torch.empty((1, 4, 64), device="meta")
    module = StageModule(nn.Identity(), last=False)
    if kind is Stage:
        return Stage(module, 2, PP, group, meta, meta, lambda: None, torch.device("cpu"))
    return kind(module, 2, PP, torch.device("cpu"), input_args=meta, output_args=meta, group=group)


def test_torch_greets_neighbours_with_another_type_than_they_receive(group: dist.ProcessGroup) -> None:
    """The reason for Stage._get_init_p2p_neighbors_ops: gloo aborts. If this fails, torch has mended it."""
    operations = stage_of(PipelineStage, group)._get_init_p2p_neighbors_ops()
    sent = {operation.tensor.dtype for operation in operations if operation.op is dist.isend}
    received = {operation.tensor.dtype for operation in operations if operation.op is dist.irecv}
    assert (sent, received) == ({torch.int64}, {torch.float32})
    assert stage_of(Stage, group)._get_init_p2p_neighbors_ops() == []


def test_torch_keeps_a_buffer_for_each_microbatch(group: dist.ProcessGroup) -> None:
    """The reason for Stage's own buffers. If this fails, torch has mended it."""
    theirs, ours = stage_of(PipelineStage, group), stage_of(Stage, group)
    for stage in (theirs, ours):
        stage.has_backward = True
        stage._prepare_forward_infra(6, ())
        stage._prepare_backward_infra(6)
    for infos in (theirs.args_recv_info, theirs.grad_recv_info):
        assert [info.buffer.device.type for (info,) in infos.values()] == ["cpu"] * 6
    for infos in (ours.args_recv_info, ours.grad_recv_info):
        assert [info.buffer.device.type for (info,) in infos.values()] == ["meta"] * 6


class Doubled(torch.autograd.Function):
    """Reads a weight in Python."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * 2 + weight

    @staticmethod
    def backward(ctx: object, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return gradients[0] * 2, gradients[0]


def test_torch_frees_the_graph_that_a_python_function_lives_in() -> None:
    """The reason for Stage._settle_fused. If this fails, torch has mended it."""
    from torch.distributed.pipelining._backward import stage_backward_input, stage_backward_weight

    weight, x = nn.Parameter(torch.ones(3)), torch.ones(3, requires_grad=True)
    output = Doubled.apply(x, weight) * 3
    _, groups = stage_backward_input([output], [torch.ones(3)], [x], iter([weight]))
    with pytest.raises(RuntimeError, match="_input_metadata"):
        stage_backward_weight(iter([weight]), groups)


def test_weights_of_a_python_function_are_settled_with_the_inputs(group: dist.ProcessGroup) -> None:
    """By hand: output = 3 (2 x + w), so ones give 6 for the input and 3 for the weight; hooks run."""
    weight, hooked = nn.Parameter(torch.ones(1, 4, 64)), []
    weight.grad = torch.zeros_like(weight)
    kept = weight.grad
    weight.register_post_accumulate_grad_hook(lambda _: hooked.append(1))
    stage = stage_of(Stage, group)
    stage.submod = nn.ParameterList([weight])
    stage.has_backward = True
    stage._prepare_forward_infra(1, ())
    stage._prepare_backward_infra(1)
    stage.get_fwd_recv_ops(0)
    stage.get_bwd_recv_ops(0)
    x, gradient = stage.args_recv_info[0][0].buffer, stage.grad_recv_info[0][0].buffer
    gradient.fill_(1)
    stage.fwd_cache[0] = ((Doubled.apply(x, weight) * 3,), [x])
    stage.backward_one_chunk(0, full_backward=False)
    assert torch.equal(stage.bwd_cache[0][0], torch.full_like(x, 6))
    assert torch.equal(weight.grad, torch.full_like(x, 3))
    assert weight.grad is kept
    assert hooked == [1]
    stage.backward_weight_one_chunk(0)
    assert torch.equal(kept, torch.full_like(x, 3))


@pytest.mark.parametrize(
    ("kind", "stages", "mine", "words"),
    [
        ("1f1b", 4, [1], "does not hold stages"),
        ("1f1b", 8, [2, 6], "does not spread 8 stages over 4"),
        ("gpipe", 4, [2], "no pipeline schedule is called gpipe"),
    ],
)
def test_nonsense_is_refused(group: dist.ProcessGroup, kind: str, stages: int, mine: list[int], words: str) -> None:
    modules = {stage: nn.Identity() for stage in mine}
    with pytest.raises(ValueError, match=words):
        Pipeline(modules, stages, kind, group, lambda *_: (1,), torch.float32, lambda: None)
