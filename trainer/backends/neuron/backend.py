"""The neuron backend: neuronx-distributed's layers, pipeline and ZeRO-1, in graphs that never change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from neuronx_distributed.parallel_layers import parallel_state
from torch import nn

from trainer.backends.base import BuildModel, Facts, GoOn, Initialise, StepMetrics, StepSource, always
from trainer.backends.common import random_state
from trainer.backends.common.host import HostExchange
from trainer.backends.common.losses import every, summed
from trainer.backends.common.peers import Peers
from trainer.backends.common.prompt import prompt_batch
from trainer.backends.common.share import Share
from trainer.backends.neuron import device, groups
from trainer.backends.neuron.device import Deferred
from trainer.backends.neuron.evaluation import losses_of_model, losses_of_stages, without_targets
from trainer.backends.neuron.facts import gather_facts
from trainer.backends.neuron.graphs import agreement
from trainer.backends.neuron.graphs.guard import CompileGuard
from trainer.backends.neuron.lowering.lower import Options, lower
from trainer.backends.neuron.lowering.materialise import materialise
from trainer.backends.neuron.lowering.pipeline import Pipeline
from trainer.backends.neuron.prefetch import Prefetch
from trainer.backends.neuron.update import audit
from trainer.backends.neuron.update.reduction import Reduction
from trainer.backends.neuron.update.store import HostStore
from trainer.backends.neuron.update.zero1 import Zero1
from trainer.batch import IGNORED_LABEL, Batch
from trainer.config.groups.optim import OptimConfig
from trainer.config.groups.parallel import ParallelConfig
from trainer.parallel.boxes import Placed, Store
from trainer.parallel.mesh import DATA, Mesh
from trainer.parallel.plan import Plan
from trainer.trainium.environment import patience_seconds


@dataclass(frozen=True)
class DeferredMetrics(StepMetrics):
    """Metrics that a step closure brings to the host."""

    deferred: Deferred


AHEAD_BY = 8
"""The runtime takes up to 3 graphs ahead of the device (trainer.trainium.environment), and the host works on one more;
the rest is margin."""


class NeuronBackend:
    """Implements trainer.backends.base.Backend.

    Two graphs in steady state: forward and backward of a microbatch; reduction, norm, update and gathering. With a
    pipeline, the engine cuts the first into its tasks.
    """

    fetch_delay = 1
    ahead_by = AHEAD_BY

    def __init__(
        self,
        mesh: Mesh,
        optim: OptimConfig,
        parallel: ParallelConfig,
        timeout_seconds: float,
        flash: bool,
        stages: Sequence[range] = (),
        microbatches: int = 1,
        save_seconds: float = 3600.0,
    ) -> None:
        """flash: attention may be the NKI kernel. stages: layers of each pipeline
        stage, empty without pipeline. microbatches: that a rank trains on in a step.
        timeout_seconds: of a collective in training; save_seconds: of one in set-up or a save.
        """
        self.mesh, self.parallel = mesh, parallel
        self._optim, self._stages, self._microbatches = optim, stages, microbatches
        self.compile_seconds = patience_seconds(timeout_seconds)
        self._timeout, self._save_timeout = timedelta(seconds=self.compile_seconds), timedelta(seconds=save_seconds)
        self.host = self.saving = self.beside = HostExchange()
        self._share = Share.of_rank(mesh, parallel.sp)
        self._flash_wanted = flash
        self._pipeline: Pipeline | None = None
        self.guard: CompileGuard | None = None
        self._facts: Facts | None = None
        self.extracting = device.is_extracting()

    def setup(self, peers: Peers | None = None) -> None:
        """Join the world, and NxD's groups in it."""
        groups.join(self.mesh, peers, self._timeout)
        self.host = HostExchange(groups.host_group(self._timeout))
        self.saving, self.beside = (HostExchange(groups.host_group(self._save_timeout)) for _ in range(2))
        self.device = device.device()
        if self.device.type == "xla":
            self.guard = CompileGuard(on_graph=agreement.comparing(self.mesh, self._timeout.total_seconds()))

    def shard(self, build: BuildModel, plan: Plan, precision: str) -> None:
        """Lower to NxD's layers on meta, cut the pipeline, allocate on the device, make ZeRO-1 over what is here."""
        self.dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        master = torch.bfloat16 if precision == "bf16" else torch.float32
        lowered = lower(build, plan, self._options())
        self.model = lowered.model
        if self._stages:
            self._pipeline = Pipeline(self.model, self._stages, self.mesh.pp, self._microbatches)
        modules = self._pipeline.modules() if self._pipeline is not None else [self.model]
        materialise(modules, self.device)
        self.model.model.derive_buffers(self.device)
        named = self._pipeline.named_parameters() if self._pipeline is not None else self.model.named_parameters()
        self._parameters: dict[str, nn.Parameter] = dict(named)
        audit.audit_reduction(self.model, self.dtype)
        self._make_optimizer(plan, lowered.locals, lowered.rules, master)

    def _options(self) -> Options:
        group = parallel_state.get_context_model_parallel_group() if self.mesh.cp > 1 else None
        return Options(
            tp=self.mesh.tp,
            tp_rank=self.mesh.coordinate("tp"),
            sequence=self.parallel.sp,
            dtype=self.dtype,
            recompute=self.parallel.recompute == "full",
            recompute_every=self.parallel.recompute_every,
            flash=self._flash_wanted and device.has_kernels(self.device),
            share=(self._share, group) if group is not None else None,
            pipeline=bool(self._stages),
        )

    def _make_optimizer(self, plan: Plan, locals_: Mapping[str, Any], rules: Mapping[str, Any], master: Any) -> None:
        mine = {name: locals_[name] for name in self._parameters}
        of_mine = {name: rules[name] for name in self._parameters}
        audit.audit_marks(self._parameters, mine, of_mine, self.mesh.tp, self.parallel.sp)
        self._rules, sharded = of_mine, self.parallel.zero > 0
        data = groups.as_lists(self.mesh.groups(*DATA)) if sharded else [[rank] for rank in range(self.mesh.world)]
        trained = {name: parameter for name, parameter in self._parameters.items() if of_mine[name].trainable}
        frozen = {name: parameter for name, parameter in self._parameters.items() if name not in trained}
        of_trained = {name: of_mine[name] for name in trained}
        placed = {name: mine[name] for name in trained}
        self._reduction = Reduction(self.mesh, plan, placed, of_trained, self.parallel.sp, not sharded, self.device)
        self._zero = Zero1(trained, of_trained, self._optim, master, data, self._reduction, self.device)
        self._host = HostStore(self._zero, frozen, mine, self.mesh, sharded)
        rows = {name: self._host.rows(name) for name in trained}
        self._zero.counted = self._reduction.counted(rows, self.device)
        # The data axes' mean is what ZeRO-1 takes, and the sum what the contract asks for.
        self._data_ranks = len(data[0])
        self._loss = torch.zeros(1, dtype=torch.float32, device=self.device)
        device.sync()

    @torch.no_grad()
    def load_initial(self, initialise: Initialise) -> None:
        """Draw the masters on the host, then round them into the model; padding is zero."""
        for placed in self._host.blank().model.values():
            for box in placed.boxes:
                box.of(placed.tensor).copy_(initialise(box))
        self._install()

    def _install(self) -> None:
        self._host.push()
        device.sync()
        with self._phase("publish", {}):
            self._zero.publish()
            device.sync()
        if not self.extracting:
            audit.audit_copies(self._parameters, self._rules, self.mesh, self.host)

    def _phase(self, name: str, inputs: Mapping[str, object], **allowed: Any) -> AbstractContextManager[None]:
        """A part of the step that has to stay the same graph; only XLA has any."""
        return nullcontext() if self.guard is None else self.guard.phase(name, inputs, **allowed)

    def ahead(self, source: StepSource) -> StepSource:
        """A step's batches travel while the one before computes; NxD's pipeline takes them from the host by itself."""
        return source if self._pipeline is not None or self.guard is None else Prefetch(source, self._mine)

    def forward_backward(self, microbatches: Sequence[Batch], scale: float, go_on: GoOn = always) -> bool:
        """Accumulate gradients of scale * summed loss. NxD's pipeline is not asked, and runs to its end."""
        self._host.forget()
        mine = [self._mine(microbatch) for microbatch in microbatches]
        # FP32 data, not a Python number: the number of targets changes from step to step, the graph must not.
        weight = torch.full((1,), scale * self._data_ranks, dtype=torch.float32)
        if self._pipeline is not None:
            with self._phase("pipeline", {"microbatches": mine}, cuts_itself=True):
                self._loss = self._pipeline.train(mine, weight, self.device)
                device.sync()
            return True
        weights = weight.expand(len(mine[0].tokens)).to(self.device)
        for index, batch in enumerate(device.send(mine)):
            if not go_on(index):
                return False
            with self._phase("forward-backward", {"batch": batch, "weights": weights}):
                loss = self.model(*batch, weights)
                loss.backward()
                self._loss += loss.detach()
                device.sync()
        return True

    def _mine(self, batch: Batch) -> Batch:
        """This rank's positions of a microbatch; what is on the device has been cut already."""
        return batch if batch.tokens.device.type == "xla" else self._share.of(batch)

    @torch.no_grad()
    def clip_and_apply(self, lr: float) -> StepMetrics:
        """Sum gradients and loss over the ranks that share them, then clip by the norm over all ranks and update."""
        rate = torch.full((1,), lr, dtype=torch.float32).to(self.device)
        with self._phase("optimizer", {"learning rate": rate, "loss": self._loss}):
            # Every tensor-parallel rank has the whole loss; and it carries the factor that ZeRO-1's mean takes out.
            loss, norm, finite = self._zero.update(rate, self._loss / (self.mesh.tp * self._data_ranks))
            self._loss = torch.zeros_like(self._loss)
            deferred = Deferred(*[scalar.reshape(()) for scalar in (loss, norm, finite)])
            device.sync()
        return DeferredMetrics(loss, norm, finite, deferred)

    @torch.no_grad()
    def evaluate(self, microbatches: Sequence[Batch], go_on: GoOn = always) -> tuple[float, int] | None:
        """Sum losses in FP64 on the host, over the ranks too."""
        batches = [self._mine(microbatch) for microbatch in microbatches]
        targets = sum(int((batch.labels != IGNORED_LABEL).sum()) for batch in batches)
        losses = self._losses(batches, go_on)
        nats = sum(float(loss) for loss in losses or ())
        return summed(nats / self.mesh.tp, targets / (self.mesh.tp * self.mesh.pp), losses is None, self.host.group)

    @torch.no_grad()
    def losses(self, microbatches: Sequence[Batch], go_on: GoOn = always) -> list[float] | None:
        """The pipeline gives the sum of those that go through it together: each goes with blank ones."""
        batches = [self._mine(microbatch) for microbatch in microbatches]
        if self._pipeline is not None:
            blanks = self._pipeline.microbatches - 1
            batches = [one for batch in batches for one in (batch, *[without_targets(batch)] * blanks)]
        losses = self._losses(batches, go_on)
        # Every tensor-parallel rank has the whole loss, and of a pipeline the last stage's ranks.
        found = None if losses is None else [float(loss) / self.mesh.tp for loss in losses]
        return every(found, len(microbatches), self.mesh, self.host.group)

    def _losses(self, batches: Sequence[Batch], go_on: GoOn) -> list[torch.Tensor] | None:
        if self._pipeline is None:
            return losses_of_model(self.model, batches, self.device, self._phase, go_on)
        zero_grad = self._zero.zero_grad
        return losses_of_stages(self._pipeline, batches, self.device, self._phase, go_on, zero_grad)

    @torch.no_grad()
    def next_token_logits(self, tokens: Sequence[int], length: int) -> torch.Tensor:
        """Of the last ``length`` tokens."""
        assert self._pipeline is None, "validation refuses samples with a pipeline: its engine returns losses only"
        batch, place = prompt_batch(tokens, length)
        batch = self._mine(batch)
        # The last token's row by a mask, not by its number: a number would be another graph for every length.
        last = (batch.positions[0] == place).float().unsqueeze(1).to(self.device)
        (sent,) = device.send([batch])
        with self._phase("sample", {"batch": sent, "last": last}):
            row = (self.model.logits(sent.tokens, sent.positions, sent.document_ids)[0] * last).sum(dim=0)
            device.sync()
        row = row.cpu()
        if self.mesh.cp > 1:
            dist.all_reduce(row, group=self.host.group)
            row /= self.mesh.world // self.mesh.cp
        return row

    def fetch(self, metrics: StepMetrics) -> tuple[float, float, bool]:
        """The scalars of an earlier step: its closure has brought them by now. Extracted graphs compute nothing."""
        if self.extracting:
            return 0.0, 0.0, True
        assert isinstance(metrics, DeferredMetrics)
        loss, norm, finite = metrics.deferred.values()
        return loss, norm, bool(finite)

    def store(self) -> Store:
        """Host copies, until the next step; ``loaded`` takes them back to the device."""
        device.sync()
        return self._host.pull()

    def copies(self) -> Mapping[str, Mapping[str, Placed]]:
        """Brought to the host: BF16 weights, and the store."""
        return self._host.copies(self._parameters)

    @torch.no_grad()
    def loaded(self, updates: int) -> None:
        """The host copies were filled: to the device with them, and round the masters into the model."""
        self._zero.base_optimizer.updates.fill_(updates)
        self._install()

    rng_state = staticmethod(random_state.rng_state)
    set_rng_state = staticmethod(random_state.set_rng_state)

    def facts(self) -> Facts:
        """Device, versions and peak."""
        if self._facts is None:
            self._facts = gather_facts(self.mesh.world, self.dtype)
        return self._facts

    def close(self) -> None:
        """Say how many graphs there were, and leave the process groups."""
        if self.guard is not None and self.guard.phases and not self.mesh.rank:
            print(self.guard.summary(), flush=True)
        groups.leave()
