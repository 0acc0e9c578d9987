"""Take a whole step of a run for each class of ranks, on fake tensors, and say what it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from trainer.backends.base import Backend, BuildModel
from trainer.backends.native.update.optimizer import MakeOptimizer, Optimizer
from trainer.batch import Batch
from trainer.parallel.mesh import DATA, Mesh
from trainer.parallel.plan import Plan
from trainer.rehearsal.collectives import Ledger
from trainer.rehearsal.flops import FlopCounter
from trainer.rehearsal.memory import LiveBytes, storage_bytes
from trainer.rehearsal.processes import in_processes
from trainer.rehearsal.scaling import Totals, counts, scale
from trainer.rehearsal.scores import Scores, Strips
from trainer.rehearsal.verdict import Verdict
from trainer.rehearsal.watch import Watch
from trainer.rehearsal.world import pretended_world

PHASES = ("forward_backward", "update")


class MakeBackend(Protocol):
    """Makes the lowering to rehearse, of this mesh, which makes its optimizers by ``make_optimizer``."""

    def __call__(self, mesh: Mesh, make_optimizer: MakeOptimizer) -> Backend: ...


@dataclass(frozen=True)
class Piece:
    """What to rehearse: a model, its lowering and the shape of a step. The same for every rank.

    make_unsharded: the same lowering without ZeRO, where make_backend has it: the gathered weights and the gradients
    of FSDP2 come and go with the activations, which are measured without them. samples: of a microbatch. microbatches:
    of a step, on each rank. virtual_stages: pipeline stages of each rank. recomputing: whether the operators that run
    are a recomputation. scores: what a rank has of attention's on trn1; None where attention is a kernel there.
    """

    build: BuildModel
    plan: Plan
    precision: str
    make_backend: MakeBackend
    make_optimizer: MakeOptimizer
    samples: int
    seq_len: int
    microbatches: int
    virtual_stages: int = 1
    recomputing: Callable[[], bool] = field(default=lambda: False)
    make_unsharded: MakeBackend | None = None
    scores: Callable[[Mesh], Scores | Strips] | None = None


@dataclass(frozen=True)
class Static:
    """Bytes that a rank holds between steps. optimizer: moments, and masters where they are not the parameters."""

    parameters: int
    gradients: int
    optimizer: int
    other: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.parameters + self.gradients + self.optimizer + self.other


@dataclass(frozen=True)
class RankReport:
    """One rank's step. parameters: elements by its tensor and pipeline cut, padding included, before ZeRO.

    simulated: numbers of microbatches that were run; more than one: totals are scaled. activations: peak bytes above
    weights, gradients and optimizer state, wherever ZeRO puts those. seconds: that the rehearsal took, on one core.
    """

    mesh: Mesh
    parameters: int
    static: Static
    totals: Totals
    microbatches: int
    simulated: tuple[int, ...]
    activations: int
    verdict: Verdict
    seconds: float


def rehearse(piece: Piece, meshes: Sequence[Mesh]) -> list[RankReport]:
    """A report for each mesh's rank: side by side where there are several, on as many cores as there are."""
    wholes = [_Part(piece, mesh, piece.make_backend) for mesh in meshes]
    unsharded = [_Part(piece, mesh, piece.make_unsharded) for mesh in meshes] if piece.make_unsharded else []
    found = in_processes([*wholes, *unsharded])
    return [_report(piece, mesh, found[index :: len(meshes)]) for index, mesh in enumerate(meshes)]


def rehearse_rank(piece: Piece, mesh: Mesh) -> RankReport:
    """One rank's report, in this process. Makes and destroys torch's default process group."""
    makers = [piece.make_backend, *([piece.make_unsharded] if piece.make_unsharded else [])]
    return _report(piece, mesh, [_Part(piece, mesh, make_backend)() for make_backend in makers])


@dataclass(frozen=True)
class _Found:
    """runs: a step of each number of microbatches. parameters: this rank's elements before ZeRO; frozen: of them."""

    runs: Sequence[Totals]
    static: Static
    parameters: int
    frozen: int
    seconds: float


@dataclass(frozen=True)
class _Part:
    """A lowering of a piece, to be run in a process of its own."""

    piece: Piece
    mesh: Mesh
    make_backend: MakeBackend

    def __call__(self) -> _Found:
        """Without ZeRO activations alone are of interest, and they peak as soon as the pipeline is full."""
        start = time.monotonic()
        simulated = counts(self.piece.microbatches, self.mesh.pp, self.piece.virtual_stages)
        if self.make_backend is self.piece.make_unsharded:
            simulated = simulated[:1]
        runs, static, parameters, frozen = _run(self.piece, self.mesh, self.make_backend, simulated)
        return _Found(runs, static, parameters, frozen, time.monotonic() - start)


def _report(piece: Piece, mesh: Mesh, found: Sequence[_Found]) -> RankReport:
    """found: of the lowering, and where it has ZeRO, of that without."""
    simulated, (whole, unsharded) = counts(piece.microbatches, mesh.pp, piece.virtual_stages), (found[0], found[-1])
    totals = whole.runs[0]
    if len(whole.runs) == 2:
        few, more = zip(simulated, whole.runs, strict=True)
        totals = scale(few, more, piece.microbatches)
    activations = unsharded.runs[-1].peaks["forward_backward"]
    return RankReport(
        mesh=mesh,
        parameters=whole.parameters,
        static=whole.static,
        totals=totals,
        microbatches=piece.microbatches,
        simulated=simulated,
        activations=activations,
        verdict=Verdict(
            piece.precision,
            whole.parameters,
            mesh.size(*DATA) if len(found) > 1 else 1,
            activations,
            whole.frozen,
            None if piece.scores is None else piece.scores(mesh),
        ),
        seconds=sum(part.seconds for part in found),
    )


def _run(
    piece: Piece, mesh: Mesh, make_backend: MakeBackend, simulated: Sequence[int]
) -> tuple[list[Totals], Static, int, int]:
    """A step of each number of microbatches; bytes between steps; this rank's elements before ZeRO, and the frozen."""
    with pretended_world(mesh.world, mesh.rank) as fake:
        optimizers: list[Optimizer] = []
        backend = make_backend(mesh, _collecting(piece.make_optimizer, optimizers))
        backend.setup()
        watch = Watch(fake, Ledger(mesh), FlopCounter(piece.recomputing), LiveBytes())
        with _both(watch):
            backend.shard(piece.build, piece.plan, piece.precision)
        runs = [_step(piece, backend, watch, count) for count in simulated]
        static = _static(backend, piece.plan, optimizers, watch.memory.live)
        parameters, frozen = _local_parameters(backend, piece.plan, mesh)
        backend.close()
    return runs, static, parameters, frozen


def _step(piece: Piece, backend: Backend, watch: Watch, count: int) -> Totals:
    with watch.fake:
        batches = [_batch(piece) for _ in range(count)]
    for batch in batches:
        watch.memory.ignore(batch)  # a step's tokens are the loader's, there before it begins
    resting, peaks = watch.memory.restart(), {}
    with _both(watch):
        watch.ledger.phase = "forward_backward"
        backend.forward_backward(batches, 1.0 / (count * piece.samples * piece.seq_len))
        peaks["forward_backward"] = watch.memory.peak - resting
        watch.memory.restart()
        watch.ledger.phase = "update"
        backend.clip_and_apply(1e-4)
        peaks["update"] = watch.memory.peak - resting
    return Totals(watch.flops.take(), watch.ledger.take(), peaks)


def _batch(piece: Piece) -> Batch:
    """One document a sample: values do not matter, and the mask is dense whatever it holds."""
    shape = (piece.samples, piece.seq_len)
    return Batch(*(torch.zeros(shape, dtype=torch.int64) for _ in Batch._fields))


@contextmanager
def _both(watch: Watch) -> Iterator[None]:
    with watch.fake, watch:
        yield


def _collecting(make: MakeOptimizer, made: list[Optimizer]) -> MakeOptimizer:
    """The same maker, which also keeps what it makes: the lowering's optimizers tell what its memory is for."""

    def make_and_keep(*arguments: object) -> Optimizer:
        made.append(make(*arguments))  # type: ignore[arg-type]
        return made[-1]

    return make_and_keep


def _static(backend: Backend, plan: Plan, optimizers: Sequence[Optimizer], live: int) -> Static:
    seen: set[int] = set()
    stored = backend.store()
    rules = plan.match(stored.model)
    frozen = [placed.tensor for name, placed in stored.model.items() if not rules[name].trainable]
    trained = [p for optimizer in optimizers for p in optimizer.parameters.values()]
    parameters = storage_bytes([*trained, *frozen], seen)
    gradients = storage_bytes((optimizer.gradients for optimizer in optimizers), seen)
    state = [placed.tensor for tensors in (stored.model, stored.optimizer) for placed in tensors.values()]
    optimizer = storage_bytes(state, seen)
    return Static(parameters, gradients, optimizer, live - parameters - gradients - optimizer)


def _local_parameters(backend: Backend, plan: Plan, mesh: Mesh) -> tuple[int, int]:
    """Elements of this rank's parameters after the tensor and pipeline cuts, whatever ZeRO leaves of them; and of those
    that are frozen.
    """
    shapes = {name: placed.shape for name, placed in backend.store().model.items()}
    placements = plan.place(shapes, mesh.tp, mesh.coordinate("tp"))
    rules = plan.match(placements)
    elements = {name: math.prod(placement.local_shape) for name, placement in placements.items()}
    return sum(elements.values()), sum(count for name, count in elements.items() if not rules[name].trainable)


def rank_classes(mesh: Mesh, layers: Sequence[int]) -> list[Mesh]:
    """One rank of each class, in the order of the pipeline: ranks that hold the same layers do the same work.

    layers: of each of the model's stages, virtual ones included, first to last. Ranks between the ends of the pipeline
    that have equally many layers are one class; the first of them stands for it, since it keeps the most microbatches.
    """
    found: dict[object, Mesh] = {}
    for position in range(mesh.pp):
        ends = (position == 0, position == mesh.pp - 1)
        mine = tuple(layers[position :: mesh.pp])
        rank = position * mesh.size("tp") * mesh.size("cp") * mesh.size("dp")
        found.setdefault((ends, mine), replace(mesh, rank=rank))
    return list(found.values())
