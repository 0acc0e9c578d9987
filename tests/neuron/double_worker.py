"""What the double does where no original can be asked: on lazy tensors, and where it differs on purpose."""

from __future__ import annotations

import importlib
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
import torch_xla
from neuronx_distributed.optimizer import NeuronZero1Optimizer
from neuronx_distributed.parallel_layers import ColumnParallelLinear, parallel_cross_entropy, parallel_state
from neuronx_distributed.parallel_layers.grads import bucket_allreduce_gradients
from neuronx_distributed.pipeline import NxDPPModel
from neuronx_distributed.utils.model_utils import move_model_to_device
from torch_xla.debug import metrics

from tests.neuron.agree_model import DTYPES, VOCAB, Block, draw, marked, small_model, start, told


def steps(device: str, tied: bool, dtype: str) -> dict[str, Any]:
    """Five steps in one process: losses, norms, weights; and what each step made XLA do."""
    if device == "xla":
        importlib.import_module("torch_xla.distributed.xla_backend")  # registers it
    dist.init_process_group("xla" if device == "xla" else "gloo")
    parallel_state.initialize_model_parallel()
    model = small_model(False, DTYPES[dtype], layers=2, tied=tied)
    before = {name: marked(parameter) for name, parameter in model.named_parameters()}
    move_model_to_device(model, torch_xla.device())
    weights = list(model.parameters())
    optimizer = NeuronZero1Optimizer(weights, torch.optim.AdamW, pin_layout=False, lr=1e-2, capturable=device == "xla")
    counts, kept = [], []
    for step in range(5):
        ids = torch.randint(0, VOCAB, (4, 8), generator=torch.Generator().manual_seed(60 + step))
        ids = ids.to(torch_xla.device())
        torch_xla.sync()
        already = _counters()
        loss = model(ids, ids.roll(-1, -1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        untouched = _counters()
        torch_xla.sync(wait=True)
        counts.append([[b - a for a, b in zip(already, now, strict=True)] for now in (untouched, _counters())])
        kept.append((loss.detach(), optimizer.grad_norm))
    return {
        "counts": counts,
        "losses": [told(loss.cpu()) for loss, _ in kept],
        "norms": [told(norm.cpu()) for _, norm in kept],
        "weights": {name: told(parameter.cpu()) for name, parameter in model.named_parameters()},
        "marks kept": {name: marked(parameter) for name, parameter in model.named_parameters()} == before,
        "tied": model.head.weight is model.embed.weight,
    }


def _counters() -> list[int]:
    """Graphs compiled, graphs run again, values read, operations that fell back to the CPU; so far.

    Counted as a graph is cut: execution times are recorded by another thread, some time later.
    """
    graphs = [metrics.counter_value(name) or 0 for name in ("UncachedCompile", "CachedCompile")]
    read = (metrics.metric_data("TransferFromDeviceTime") or [0])[0]
    return [*graphs, read, sum(metrics.counter_value(n) for n in metrics.counter_names() if n.startswith("aten::"))]


def differences(tp: int) -> dict[str, float]:
    """Largest errors against one process's plain PyTorch, where NxD itself is wrong."""
    state = start(tensor_model_parallel_size=tp, context_parallel_size=2)
    rank = state.get_tensor_model_parallel_rank()
    column = ColumnParallelLinear(8, 16, bias=False, gather_output=False, dtype=torch.bfloat16)
    whole = draw(1, 16, 8, dtype=torch.bfloat16)
    column.weight.data.copy_(whole.chunk(tp)[rank])
    x = draw(2, 2, 4, 8, dtype=torch.bfloat16).requires_grad_()
    gradient = draw(3, 2, 4, 16, dtype=torch.bfloat16)
    column(x).backward(gradient.chunk(tp, -1)[rank])
    found = {"column": float((x.grad.float() - gradient.float() @ whole.float()).abs().max())}  # type: ignore[union-attr]

    logits, targets = draw(4, 6, 16).to(torch.bfloat16), torch.arange(6) * 2
    mine = logits.chunk(tp, -1)[rank].clone().requires_grad_()
    loss = parallel_cross_entropy(mine, targets)
    loss.sum().backward()
    plain = logits.float().requires_grad_()
    expected = F.cross_entropy(plain, targets, reduction="none")
    expected.sum().backward()
    found["loss"] = float((loss - expected).abs().max())
    found["loss gradient"] = float((mine.grad - plain.grad.chunk(tp, -1)[rank]).abs().max())  # type: ignore[operator,union-attr]
    found["logits overwritten"] = float((mine - logits.chunk(tp, -1)[rank]).abs().max())

    averaged = torch.full((3,), float(state.get_context_model_parallel_rank()))
    bucket_allreduce_gradients([averaged])
    found["average over cp"] = float((averaged - 0.5).abs().max())
    refused = 0
    try:
        parallel_cross_entropy(mine, targets, label_smoothing=0.1)
    except NotImplementedError:
        refused = 1
    return {**found, "smoothing refused": refused}


def shapes() -> dict[str, bool]:
    """A pipeline that meets another batch: refused, unless told to forget; then the loss of a plain model."""
    start(pipeline_model_parallel_size=2)
    plain = small_model(False, torch.float32, layers=4)
    model = NxDPPModel(
        small_model(False, torch.float32, layers=4),
        transformer_layer_cls=Block,
        num_microbatches=2,
        virtual_pipeline_size=2,
        output_loss_value_spec=True,
        broadcast_and_average_loss=True,
        pipeline_cuts=["layers.0", "layers.1", "layers.2"],
        input_names=["ids", "targets"],
    )

    def same(sequence: int) -> bool:
        ids = torch.randint(0, VOCAB, (4, sequence), generator=torch.Generator().manual_seed(sequence))
        expected = sum(float(plain(part, part.flip(-1))) for part in ids.chunk(2)) / 2
        losses = [float(run(ids=ids, targets=ids.flip(-1))) for run in (model.run_train, model.run_eval)]
        return all(abs(loss - expected) < 1e-6 for loss in losses)

    found = {"first": same(8)}
    try:
        same(6)
    except RuntimeError as error:
        found["refused"] = "(4, 6)" in str(error)
    model.shape_traced = False
    return {**found, "second": same(6)}
