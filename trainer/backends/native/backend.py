"""The native backend: PyTorch's parallelism on a device, in any product of data, tensor, context and pipeline axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from trainer.backends.base import BuildModel, Facts, GoOn, Initialise, StepMetrics, StepSource, always
from trainer.backends.common.host import HostExchange
from trainer.backends.common.losses import every, losses_of, summed
from trainer.backends.common.peers import Peers
from trainer.backends.common.prompt import prompt_batch
from trainer.backends.common.share import Share
from trainer.backends.native.device import CPU, Device
from trainer.backends.native.facts import gather_facts
from trainer.backends.native.groups import join, new_group
from trainer.backends.native.lowering.fully_sharded import data_mesh, local, take_gradients
from trainer.backends.native.lowering.lower import Stage, lower
from trainer.backends.native.pipeline.engine import Layout, Pipeline
from trainer.backends.native.update.optimizer import MakeOptimizer, Optimizer, refuse_shards
from trainer.backends.native.update.reduction import Reduction
from trainer.backends.native.update.store import copies, in_boxes
from trainer.batch import Batch
from trainer.config.groups.parallel import ParallelConfig
from trainer.parallel.boxes import Placed, Store
from trainer.parallel.mesh import DATA, Mesh
from trainer.parallel.placement import Placement
from trainer.parallel.plan import Plan


class NativeBackend:
    """Implements trainer.backends.base.Backend. With one process: no process group, no wrapper and no collective.

    Gradients and loss are summed over the data axes once a step (ZeRO 2 and 3: every microbatch); tensor-parallel ranks
    meet in every layer and agree on everything that is not cut; pipeline ranks hand activations on.
    """

    fetch_delay = 0
    ahead_by = 1
    compile_seconds = 0.0
    extracting = False
    _stages: list[Stage]
    _pipeline: Pipeline | None = None
    _data_mesh: DeviceMesh | None = None
    _optimizer: Optimizer
    _reduction: Reduction
    _placements: dict[str, Placement]

    def __init__(
        self,
        mesh: Mesh,
        make_optimizer: MakeOptimizer,
        timeout_seconds: float,
        parallel: ParallelConfig | None = None,
        stages: Sequence[range] = (),
        device: Device = CPU,
        save_seconds: float = 3600.0,
    ) -> None:
        """stages: the layers of each pipeline stage, first to last; empty without pipeline. timeout_seconds,
        save_seconds: of a collective in training, and in set-up or a save.
        """
        self.mesh, self.device, self._make_optimizer = mesh, device, make_optimizer
        self.distributed = mesh.world > 1
        self.parallel = parallel or ParallelConfig(tp=mesh.tp, pp=mesh.pp, cp=mesh.cp)
        self._layers_of_stages = stages
        self._timeout, self._save_timeout = timedelta(seconds=timeout_seconds), timedelta(seconds=save_seconds)
        self._groups: dict[str, dist.ProcessGroup] = {}
        self._share = Share.of_rank(mesh, self.parallel.sp)
        self._loss = torch.zeros((), dtype=torch.float32, device=device.kind)
        self.host = self.saving = self.beside = HostExchange()
        self._facts: Facts | None = None

    @property
    def model(self) -> Any:
        """The lowered model, or this rank's first pipeline stage."""
        return self._stages[0].model

    def setup(self, peers: Peers | None = None) -> None:
        """Join the process group, when there is more than one process, and one for each axis in use."""
        if self.distributed:
            self._groups = join(self.mesh, peers, self._new_group, self._timeout, self.device.collectives)
            self.host = HostExchange(dist.group.WORLD)
            groups = [new_group(range(self.mesh.world), self._save_timeout) for _ in range(2)]
            self.saving, self.beside = map(HostExchange, groups)
        if self.parallel.zero and "data" in self._groups:
            self._data_mesh = data_mesh(self._groups["data"], self.device.kind)

    def _new_group(self, ranks: Sequence[int]) -> dist.ProcessGroup:
        return new_group(ranks, self._timeout)

    def shard(self, build: BuildModel, plan: Plan, precision: str) -> None:
        """Build on meta, cut by the plan, allocate on the device, make the optimizer over what this rank updates."""
        self.dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        self._stages = lower(
            build,
            plan,
            self.mesh,
            self._groups,
            self._data_mesh,
            self.parallel,
            self._layers_of_stages,
            precision,
            self.device.attention,
        )
        self._placements = {name: p for stage in self._stages for name, p in stage.placements.items()}
        self._shards = [stage.sharded for stage in self._stages if stage.sharded is not None]
        self._sharded = bool(self._shards)
        for stage in self._stages:
            self._materialise(stage)
        self._parameters = {
            stage.names[name]: parameter for stage in self._stages for name, parameter in stage.model.named_parameters()
        }
        self._make_update(plan, precision)
        if self._layers_of_stages:
            modules = {stage.number: stage.model for stage in self._stages}
            layout = Layout(len(self._layers_of_stages), self.parallel, plan.hidden, self.dtype, self.device.kind)
            self._pipeline = layout.pipeline(modules, self._groups["pp"], self._collect)

    def _materialise(self, stage: Stage) -> None:
        if stage.sharded is None:
            stage.model.to(self.dtype)
        stage.model.to_empty(device=self.device.kind)
        stage.model.materialised()
        if stage.sharded is not None:
            stage.sharded.materialised()

    def _make_update(self, plan: Plan, precision: str) -> None:
        """Optimizer and reduction, of what is trained."""
        rules = {name: rule for name, rule in plan.match(self._parameters).items() if rule.trainable}
        placements = {name: self._placements[name] for name in rules}
        counted = {
            name: [box.local for box in placement.boxes if box.copy == 0] for name, placement in placements.items()
        }
        parameters, mode = self._updated(list(rules), precision)
        self._optimizer = self._make_optimizer(parameters, rules, mode, counted)
        if not self._optimizer.elementwise:
            refuse_shards(self._placements)  # frozen ones too: every pipeline stage then says the same
        tied = self._stages[0].tied
        self._reduction = Reduction(
            self.mesh, self._groups, plan, placements, self._sharded, self.parallel.sp, tied, self._new_group
        )

    def _updated(self, names: Sequence[str], precision: str) -> tuple[dict[str, nn.Parameter], str]:
        """What the optimizer updates, and the precision as it sees it: FSDP2's shards are masters already."""
        if not self._sharded:
            return {name: self._parameters[name] for name in names}, precision
        shards = {name: nn.Parameter(local(self._parameters[name])) for name in names}
        return shards, "fp32" if precision == "bf16_mixed" else precision

    def _collect(self) -> None:
        """Gradients have appeared without a hook (zero bubble): they join those that are accumulated."""
        self._optimizer.collect()
        for sharded in self._shards:
            sharded.collect()

    @torch.no_grad()
    def load_initial(self, initialise: Initialise) -> None:
        """Draw the masters in FP32, then round them into the model; padding is zero."""
        for name, placed in self.store().model.items():
            if self._placements[name].padded:
                placed.tensor.zero_()
            for box in placed.boxes:
                box.of(placed.tensor).copy_(initialise(box))
        self._publish()

    def ahead(self, source: StepSource) -> StepSource:
        """As it is: the batches are in the device's memory already."""
        return source

    def forward_backward(self, microbatches: Sequence[Batch], scale: float, go_on: GoOn = always) -> bool:
        """Accumulate gradients of scale * summed loss."""
        self._loss.zero_()
        microbatches = [self._mine(microbatch) for microbatch in microbatches]
        if self._pipeline is not None:
            return self._through_pipeline(microbatches, scale, go_on)
        for index, microbatch in enumerate(microbatches):
            if not go_on(index):
                return False
            self._before_backward(index == len(microbatches) - 1)
            loss, _ = self.model(*microbatch)
            loss = loss * scale
            loss.backward()
            self._loss += loss.detach()
        return True

    def _through_pipeline(self, microbatches: Sequence[Batch], scale: float, go_on: GoOn) -> bool:
        assert self._pipeline is not None
        self._before_backward(last=False)
        loss = self._pipeline.train(microbatches, scale, go_on)
        if loss is None:
            return False
        self._loss += loss
        for sharded in self._shards:
            sharded.reduce()
        return True

    def _before_backward(self, last: bool) -> None:
        for sharded in self._shards:
            sharded.before_backward(last)

    def _mine(self, batch: Batch) -> Batch:
        """This rank's positions of a microbatch, on the device."""
        return self.device.send(self._share.of(batch))

    @torch.no_grad()
    def clip_and_apply(self, lr: float) -> StepMetrics:
        """Sum gradients and loss over the ranks that share them, then clip by the norm over all ranks and update."""
        loss = self._loss.clone()
        if self._sharded:
            take_gradients(self._parameters, self._optimizer.gradient)
        self._reduction(self._optimizer)
        self._reduction.loss(loss)
        norm = self._reduction.norm(self._optimizer)
        finite = self._optimizer.update(lr, norm)
        self._forget_gathered()
        return StepMetrics(loss, norm, finite)

    def _publish(self) -> None:
        """The masters have changed: so must what the model computes with."""
        self._optimizer.publish()
        self._forget_gathered()

    def _forget_gathered(self) -> None:
        for sharded in self._shards:
            sharded.forget_gathered()

    @torch.no_grad()
    def evaluate(self, microbatches: Sequence[Batch], go_on: GoOn = always) -> tuple[float, int] | None:
        """Summed in FP64 on the host: thousands of windows add up."""
        found = list(losses_of(self._loss_of, microbatches, go_on))
        nats, targets = sum(loss for loss, _ in found), sum(targets for _, targets in found)
        return summed(nats, targets, len(found) < len(microbatches), self._groups.get("data"))

    @torch.no_grad()
    def losses(self, microbatches: Sequence[Batch], go_on: GoOn = always) -> list[float] | None:
        """Context-parallel ranks have parts of one."""
        found = [loss for loss, _ in losses_of(self._loss_of, microbatches, go_on)]
        return every(found, len(microbatches), self.mesh, self._groups.get("data"))

    def _loss_of(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        mine = self._mine(batch)
        return self.model(*mine) if self._pipeline is None else self._pipeline.loss(mine)

    @torch.no_grad()
    def next_token_logits(self, tokens: Sequence[int], length: int) -> torch.Tensor:
        """Of the last ``length`` tokens."""
        batch, last = prompt_batch(tokens, length)
        batch = self._mine(batch)
        logits = self.model.logits if self._pipeline is None else self._pipeline.logits
        rows: torch.Tensor = logits(batch.tokens, batch.positions, batch.document_ids)[0]
        row = rows[batch.positions[0] == last].sum(dim=0)  # one row; none where another rank has it
        if "cp" in self._groups:
            dist.all_reduce(row, group=self._groups["cp"])
        return row.cpu()

    def fetch(self, metrics: StepMetrics) -> tuple[float, float, bool]:
        """Read the scalars: on CPU they are here already."""
        return metrics.loss_sum.item(), metrics.grad_norm.item(), bool(metrics.finite)

    def store(self) -> Store:
        """By the plan's boxes: masters, and the frozen parameters themselves, in the model's order."""
        masters = self._optimizer.masters
        weights = {name: masters.get(name, local(parameter)) for name, parameter in self._parameters.items()}
        turn, turns = (0, 1) if self._sharded else (self.mesh.position(*DATA), self.mesh.size(*DATA))
        return in_boxes(weights, self._optimizer.moments(), self._placements, turn, turns)

    def copies(self) -> Mapping[str, Mapping[str, Placed]]:
        """Weights, masters and moments; under ZeRO this rank's rows of them."""
        return copies(self.store(), {name: local(parameter) for name, parameter in self._parameters.items()})

    def loaded(self, updates: int) -> None:
        """Round the loaded masters into the model and set the optimizer's step count."""
        self._publish()
        self._optimizer.updates = updates

    def rng_state(self) -> str:
        """Of the device's generator."""
        return self.device.rng_state()

    def set_rng_state(self, state: str) -> None:
        """Inverse."""
        self.device.set_rng_state(state)

    def facts(self) -> Facts:
        """Device, threads and the peak of all ranks at once."""
        if self._facts is None:
            self.saving.sum([0])  # together: ranks that share a machine slow each other down in training too
            self._facts = gather_facts(self.device, self.dtype, self.distributed)
        return self._facts

    def close(self) -> None:
        """Leave the process group."""
        if self.distributed and dist.is_initialized():
            dist.destroy_process_group()
