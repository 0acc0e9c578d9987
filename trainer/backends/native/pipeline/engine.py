"""Pipeline parallelism over torch.distributed.pipelining: one training step, and a plain pass for evaluation.

interleaved_zero_bubble computes weight gradients after input gradients, in several autograd calls. With recomputation
each call repeats a layer's forward (about ten times, where 1f1b repeats it once). Under ZeRO 3 FSDP2 re-shards weights
after forward, so they are no longer the graph's tensors: their gradients are wrong or missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import Schedule1F1B, ScheduleInterleaved1F1B, ScheduleInterleavedZeroBubble
from torch.distributed.pipelining.schedules import PipelineScheduleMulti, PipelineScheduleSingle

from trainer.backends.base import GoOn, always
from trainer.backends.native.pipeline.stage import Stage, StageModule
from trainer.batch import Batch
from trainer.config.groups.parallel import ParallelConfig
from trainer.errors import RunError
from trainer.parallel.stages import stage_rank

INTERLEAVED = {"interleaved_1f1b": ScheduleInterleaved1F1B, "interleaved_zero_bubble": ScheduleInterleavedZeroBubble}
"""Schedules with several stages a rank, by their name in the configuration."""


ENDED_EARLY = ("1f1b", "interleaved_1f1b")
"""Schedules in which the ranks of a stage meet in every piece of work, so that they can end before the same one. A zero
bubble's weight gradients are no such meeting: its steps are trained to their ends."""


def check_microbatches(kind: str, pp: int, microbatches: int) -> None:
    """Raise ValueError where torch's schedule cannot run, or would read inputs before they are received.

    The interleaved schedules split the microbatches into ``microbatches // pp`` rounds. With fewer microbatches than
    ranks torch 2.9 checks nothing and reads buffers before they are received.
    """
    if microbatches < pp:
        raise ValueError(f"{kind} over {pp} ranks needs at least {pp} microbatches a step, not {microbatches}")
    rounds = microbatches // pp
    if kind in INTERLEAVED and microbatches % rounds:
        whole = f"{rounds} rounds of {pp} or more; a multiple of {pp} always fits"
        raise ValueError(f"{kind} over {pp} ranks needs microbatches that make {whole}: not {microbatches}")


@dataclass(frozen=True)
class Step:
    """torch's schedule for one number and one shape of microbatches, with stage objects of its own."""

    schedule: PipelineScheduleSingle | PipelineScheduleMulti
    stages: tuple[Stage, ...]


class Pipeline:
    """Runs a step through all stages, of which this rank holds some. Every rank of the group gets the same batches."""

    def __init__(
        self,
        modules: Mapping[int, nn.Module],
        stages: int,
        kind: str,
        group: dist.ProcessGroup,
        activation: Callable[[int, int], tuple[int, ...]],
        dtype: torch.dtype,
        after_weights: Callable[[], None],
        device: str = "cpu",
    ) -> None:
        """modules: this rank's stages by their number among all ``stages``; stage s lives on rank s % group size.

        Each takes a Batch's fields, with activations for tokens behind the first, and returns (activations, or the
        summed loss on the last stage; number of targets), as CausalLM does; ``logits`` likewise without the labels.
        activation: (batch, seq) -> shape of the activations sent between stages; dtype: theirs.
        kind: 1f1b | interleaved_1f1b | interleaved_zero_bubble. after_weights: see Stage.
        """
        self._pp, rank = dist.get_world_size(group), dist.get_rank(group)
        if sorted(modules) != [stage for stage in range(stages) if stage_rank(stage, self._pp) == rank]:
            raise ValueError(f"rank {rank} of {self._pp} does not hold stages {sorted(modules)} out of {stages}")
        if stages % self._pp or (kind == "1f1b" and stages != self._pp):
            raise ValueError(f"{kind} does not spread {stages} stages over {self._pp} ranks")
        if kind != "1f1b" and kind not in INTERLEAVED:
            raise ValueError(f"no pipeline schedule is called {kind}")
        self._modules = {stage: modules[stage] for stage in sorted(modules)}
        self._wrapped = {
            stage: StageModule(module, stage == stages - 1, self._blank) for stage, module in self._modules.items()
        }
        self._stages, self._kind, self._group = stages, kind, group
        self._activation, self._dtype, self._device = activation, dtype, torch.device(device)
        self._after_weights = after_weights
        self._last_rank = stage_rank(stages - 1, self._pp)
        self._steps: dict[tuple[int, int, int], Step] = {}

    def train(self, microbatches: Sequence[Batch], scale: float, go_on: GoOn = always) -> torch.Tensor | None:
        """Accumulate gradients of scale * summed loss over the microbatches, which all have one shape.

        Returns that sum as an FP32 scalar on the rank of the last stage, zero on the others; None where ``go_on`` has
        ended the step. The schedule then runs to its end all the same, with zeros in place of what was to be computed:
        every stage still gets what it waits for, in no time.
        """
        shapes = {tuple(microbatch.tokens.shape) for microbatch in microbatches}
        if len(shapes) != 1:
            raise ValueError(f"the microbatches of a step have one shape, not {sorted(shapes)}")
        step = self._step(len(microbatches), *shapes.pop())
        numbers = count()
        for module in self._wrapped.values():
            module.begin(scale, numbers, go_on if self._kind in ENDED_EARLY else always)
        losses: list[torch.Tensor] = []
        try:
            for stage in step.stages:
                stage.has_backward = True
            # schedule.step would split a whole batch first; ours is in microbatches already.
            step.schedule._step_microbatches(
                [(batch.tokens,) if 0 in self._modules else () for batch in microbatches],
                [{key: value for key, value in batch._asdict().items() if key != "tokens"} for batch in microbatches],
                [batch.labels for batch in microbatches],  # torch needs a target; the module computes the loss
                losses,
            )
        except RuntimeError as error:  # torch puts its own around whatever a stage raises
            if isinstance(error.__cause__, RunError):
                raise error.__cause__ from None
            raise
        finally:
            for stage in step.stages:
                stage.clear_runtime_states()
        if any(module.dry for module in self._wrapped.values()):
            return None
        return torch.stack(losses).detach().sum() if losses else torch.zeros((), device=self._device)

    def _blank(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.zeros(self._activation(*tokens.shape), dtype=self._dtype, device=self._device)

    def _step(self, microbatches: int, batch: int, seq: int) -> Step:
        key = (microbatches, batch, seq)
        if key not in self._steps:
            check_microbatches(self._kind, self._pp, microbatches)
            stages = tuple(self._stage(index, batch, seq) for index in self._modules)
            schedule: PipelineScheduleSingle | PipelineScheduleMulti
            # scale_grads would divide by the number of microbatches, but our loss is a sum times ``scale``.
            if self._kind == "1f1b":
                schedule = Schedule1F1B(stages[0], microbatches, loss_fn=_is_the_loss, scale_grads=False)
            else:
                make = INTERLEAVED[self._kind]
                schedule = make(list(stages), microbatches, loss_fn=_is_the_loss, scale_grads=False)
            self._steps[key] = Step(schedule, stages)
        return self._steps[key]

    def _stage(self, index: int, batch: int, seq: int) -> Stage:
        tokens = torch.empty((batch, seq), dtype=torch.int64, device="meta")
        between = torch.empty(self._activation(batch, seq), dtype=self._dtype, device="meta")
        loss = torch.empty(1, dtype=torch.float32, device="meta")
        return Stage(
            self._wrapped[index],
            index,
            self._stages,
            self._group,
            tokens if index == 0 else between,
            loss if index == self._stages - 1 else between,
            self._after_weights,
            self._device,
        )

    @torch.no_grad()
    def loss(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed loss (FP32 scalar) and number of targets (int64 scalar), on every rank of the group."""
        targets = torch.zeros((), dtype=torch.int64, device=self._device)

        def run(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
            nonlocal targets
            out, targets = module(x, batch.labels, batch.positions, batch.document_ids, batch.keys)
            return out

        loss = self._relay(run, batch.tokens)
        if loss is None:
            loss = torch.empty((), dtype=torch.float32, device=self._device)
        dist.broadcast(loss, group=self._group, group_src=self._last_rank)
        return loss, targets

    @torch.no_grad()
    def logits(self, tokens: torch.Tensor, positions: torch.Tensor, document_ids: torch.Tensor) -> torch.Tensor:
        """FP32 [batch, seq, vocab] on every rank of the group."""
        logits = self._relay(lambda module, x: module.logits(x, positions, document_ids), tokens)  # type: ignore[operator]
        # Other ranks do not know the vocabulary size, which a tensor-parallel backend may have padded.
        vocab = torch.tensor(0 if logits is None else logits.shape[-1], device=self._device)
        dist.broadcast(vocab, group=self._group, group_src=self._last_rank)
        if logits is None:
            logits = torch.empty((*tokens.shape, int(vocab.item())), dtype=torch.float32, device=self._device)
        logits = logits.contiguous()
        dist.broadcast(logits, group=self._group, group_src=self._last_rank)
        return logits

    def _relay(
        self, run: Callable[[nn.Module, torch.Tensor], torch.Tensor], tokens: torch.Tensor
    ) -> torch.Tensor | None:
        """One batch through all stages, one after the other. The last stage's result on its rank, None elsewhere."""
        x, last = tokens, self._stages - 1
        for stage, module in self._modules.items():
            if stage > 0:
                x = torch.empty(self._activation(*tokens.shape), dtype=self._dtype, device=self._device)
                dist.recv(x, group=self._group, group_src=stage_rank(stage - 1, self._pp))
            x = run(module, x)
            if stage < last:
                dist.send(x.contiguous(), group=self._group, group_dst=stage_rank(stage + 1, self._pp))
        return x if last in self._modules else None


@dataclass(frozen=True)
class Layout:
    """How a model is spread over a pipeline. stages: of all ranks. hidden: width of the activations between them."""

    stages: int
    parallel: ParallelConfig
    hidden: int
    dtype: torch.dtype
    device: str

    def activation(self, batch: int, seq: int) -> tuple[int, int, int]:
        """Shape of what a rank sends: with sequence parallelism its part of the sequence."""
        return batch, seq // (self.parallel.tp if self.parallel.sp else 1), self.hidden

    def pipeline(
        self, modules: Mapping[int, nn.Module], group: dist.ProcessGroup, after_weights: Callable[[], None]
    ) -> Pipeline:
        """The pipeline of this rank's stages."""
        kind = self.parallel.pipeline.schedule
        return Pipeline(modules, self.stages, kind, group, self.activation, self.dtype, after_weights, self.device)


def _is_the_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the output, which is the loss: torch's schedules run backward only with a loss function."""
    return output
