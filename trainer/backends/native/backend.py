"""The native backend: PyTorch on CPU, data and tensor parallel over gloo."""

from __future__ import annotations

import base64
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from trainer.backends.base import BuildModel, Facts, Initialise, StepMetrics
from trainer.backends.native.groups import join
from trainer.backends.native.optimizer import MakeOptimizer, Optimizer
from trainer.backends.native.peak import measure_peak_flops
from trainer.backends.native.replicas import SharedHead, add_copies, shared_heads
from trainer.backends.native.tensor_parallel import lower
from trainer.batch import Batch
from trainer.parallel.boxes import Placed, Store
from trainer.parallel.heads import lay_out
from trainer.parallel.mesh import Mesh
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Plan
from trainer.world import cpu_model


class NativeBackend:
    """Implements trainer.backends.base.Backend.

    With one process there is no process group, no wrapper and no collective. Gradients and the loss are summed over
    the data-parallel ranks once a step, after the last microbatch; tensor-parallel ranks meet in every layer
    (tensor_parallel.py) and agree on everything that is not cut.
    """

    model: Any
    """The lowered model: callable on a Batch, with ``logits`` and ``materialised``."""
    _optimizer: Optimizer
    _placements: Mapping[str, Placement]
    host_group: dist.ProcessGroup | None = None
    fetch_delay = 0

    def __init__(self, mesh: Mesh, make_optimizer: MakeOptimizer, timeout_seconds: float) -> None:
        self._make_optimizer = make_optimizer
        self.mesh = mesh
        self.distributed = mesh.world > 1
        self._timeout = timedelta(seconds=timeout_seconds)
        self._groups: dict[str, dist.ProcessGroup] = {}
        self._shared_heads: list[SharedHead] = []
        self._loss = torch.zeros((), dtype=torch.float32)
        self._facts: Facts | None = None

    def setup(self) -> None:
        """Join the gloo process group, when there is more than one process, and one for each axis in use."""
        if self.distributed:
            self._groups = join(self.mesh, self._timeout)

    def shard(self, build: BuildModel, plan: Plan, precision: str) -> None:
        """Build on meta, cut by the plan, allocate on the CPU; data parallelism leaves the model as it is."""
        with torch.device("meta"):
            model: nn.Module = build()
        self.dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        # A tied parameter appears once, under its first name.
        shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        tp, rank = self.mesh.tp, self.mesh.coordinate("tp")
        self._placements = plan.place(shapes, tp, rank)
        if tp > 1:
            lower(model, plan, self._placements, self._groups["tp"])
            self._shared_heads = shared_heads(plan, lay_out(plan.heads, tp), self._placements, self.mesh)
        self.model = model.to(self.dtype).to_empty(device="cpu")
        self.model.materialised()
        parameters = dict(self.model.named_parameters())
        counted = {
            name: [box.local for box in placement.boxes if box.copy == 0]
            for name, placement in self._placements.items()
        }
        self._optimizer = self._make_optimizer(parameters, precision, counted)

    @torch.no_grad()
    def load_initial(self, initialise: Initialise) -> None:
        """Draw the masters in FP32, then round them into the model; padding is zero."""
        for name, placed in self.store().model.items():
            if self._placements[name].padded:
                placed.tensor.zero_()
            for box in placed.boxes:
                box.of(placed.tensor).copy_(initialise(box))
        self._optimizer.publish()

    def forward_backward(self, microbatches: Sequence[Batch], scale: float) -> None:
        """Accumulate gradients of scale * summed loss."""
        self._loss.zero_()
        for microbatch in microbatches:
            loss, _ = self.model(*microbatch)
            loss = loss * scale
            loss.backward()
            self._loss += loss.detach()

    @torch.no_grad()
    def clip_and_apply(self, lr: float) -> StepMetrics:
        """Sum gradients and loss over the ranks that share them, then clip by the norm over all ranks and update."""
        loss = self._loss.clone()
        self._clear_padding()
        gradients = {name: self._optimizer.gradient(name) for name in self._placements} if self._shared_heads else {}
        add_copies(self._shared_heads, gradients)
        if "dp" in self._groups:
            dist.all_reduce(self._optimizer.gradients, group=self._groups["dp"])
            dist.all_reduce(loss, group=self._groups["dp"])
        squared = self._optimizer.squared_norm()
        if "tp" in self._groups:
            dist.all_reduce(squared, group=self._groups["tp"])
        norm = squared.sqrt()
        finite = self._optimizer.update(lr, norm)
        return StepMetrics(loss, norm, finite)

    def _clear_padding(self) -> None:
        """The output projection's columns of padded heads get a gradient, though nothing may come of it."""
        for name, placement in self._placements.items():
            if placement.padded:
                gradient = self._optimizer.gradient(name)
                kept = [box.of(gradient).clone() for box in placement.boxes]
                gradient.zero_()
                for box, values in zip(placement.boxes, kept, strict=True):
                    box.of(gradient).copy_(values)

    def step_end(self) -> None:
        """Nothing to cut: PyTorch ran eagerly."""

    @torch.no_grad()
    def evaluate(self, microbatches: Sequence[Batch]) -> tuple[float, int]:
        """Sum losses in FP64 on the host: thousands of windows add up."""
        total, targets = 0.0, 0
        for microbatch in microbatches:
            loss, count = self.model(*microbatch)
            total, targets = total + loss.item(), targets + int(count.item())
        if "dp" not in self._groups:
            return total, targets
        sums = torch.tensor([total, float(targets)], dtype=torch.float64)
        dist.all_reduce(sums, group=self._groups["dp"])
        return sums[0].item(), int(sums[1].item())

    @torch.no_grad()
    def next_token_logits(self, tokens: Sequence[int], length: int) -> torch.Tensor:
        """Run the last ``length`` tokens, padded on the right; causality hides the padding."""
        window = list(tokens[-length:])
        padded = torch.tensor([window + [0] * (length - len(window))])
        positions = torch.arange(length).unsqueeze(0)
        logits: torch.Tensor = self.model.logits(padded, positions, torch.zeros_like(positions))
        return logits[0, len(window) - 1]

    def fetch(self, metrics: StepMetrics) -> tuple[float, float, bool]:
        """Read the scalars: on CPU they are here already."""
        return metrics.loss_sum.item(), metrics.grad_norm.item(), bool(metrics.finite.item())

    def store(self) -> Store:
        """By the plan's boxes; the data-parallel ranks take turns at being the writer."""
        moments = self._optimizer.moments()
        # A moment is called <moment>.<parameter>, and lies where its parameter does.
        return Store(
            self._placed({name: (name, tensor) for name, tensor in self._optimizer.masters.items()}),
            self._placed({name: (name.partition(".")[2], tensor) for name, tensor in moments.items()}),
        )

    def _placed(self, tensors: Mapping[str, tuple[str, torch.Tensor]]) -> dict[str, Placed]:
        placed = {}
        for index, (name, (parameter, tensor)) in enumerate(tensors.items()):
            turn = index % self.mesh.dp == self.mesh.coordinate("dp")
            placement = self._placements[parameter]
            boxes = tuple(replace(box, writer=turn and box.copy == 0) for box in placement.boxes)
            placed[name] = Placed(tensor.detach(), boxes, placement.shape)
        return placed

    def loaded(self, updates: int) -> None:
        """Round the loaded masters into the model and set the optimizer's step count."""
        self._optimizer.publish()
        self._optimizer.updates = updates

    def rng_state(self) -> str:
        """PyTorch's CPU generator. Nothing in our step draws from it; a user's model may."""
        return base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()

    def set_rng_state(self, state: str) -> None:
        """Put the generator back."""
        torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(state)), dtype=torch.uint8))

    def facts(self) -> Facts:
        """CPU, threads and the measured matrix-multiply peak of all ranks at once."""
        if self._facts is None:
            self.host_sum([0])  # together: ranks that share a machine slow each other down in training too
            peak = torch.tensor(measure_peak_flops(self.dtype), dtype=torch.float64)
            if self.distributed:
                dist.all_reduce(peak)
            self._facts = Facts(
                device=cpu_model(),
                peak_flops=peak.item(),
                peak_source=f"measured {str(self.dtype).removeprefix('torch.')} matrix multiply on this machine",
                threads=torch.get_num_threads(),
                versions={"torch": torch.__version__, "python": platform.python_version()},
            )
        return self._facts

    def host_sum(self, values: Sequence[int]) -> list[int]:
        """Sum small integers over the ranks."""
        if not self.distributed:
            return list(values)
        sums = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(sums)
        return [int(value) for value in sums]

    def host_broadcast(self, value: int) -> int:
        """Rank 0's value."""
        if not self.distributed:
            return value
        holder = torch.tensor(value, dtype=torch.int64)
        dist.broadcast(holder, 0)
        return int(holder.item())

    def close(self) -> None:
        """Leave the process group."""
        if self.distributed and dist.is_initialized():
            dist.destroy_process_group()
