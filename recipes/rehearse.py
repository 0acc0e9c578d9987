"""backend=fake: rehearse a step of the run instead of running it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from recipes.parts import make_mesh, optimizer_maker
from trainer.backends.native.lowering.recompute import recomputing
from trainer.backends.native.making import make
from trainer.config.schema import Config
from trainer.errors import ExitCode
from trainer.models.family import family_of
from trainer.parallel.mesh import Mesh
from trainer.rehearsal.rehearse import Piece, rank_classes, rehearse
from trainer.rehearsal.report import describe
from trainer.rehearsal.scores import Scores, Strips, scores_of_rank
from trainer.rules.derived import Derived
from trainer.rules.quantities import model_parallel_size, why_no_kernel
from trainer.rules.trn1 import refusals


def rehearse_run(config: Config, derived: Derived) -> ExitCode:
    """Take a step as rehearsal.rank, or as one rank of each class, and print what it takes. Writes nothing."""
    for report in rehearse(piece_of(config, derived), ranks_of(config, derived)):
        print("\n".join(describe(report)), flush=True)
    print(whole_logits(config), flush=True)
    if problems := refusals(config, derived.dp * model_parallel_size(config)):
        print(f"trn1: refuses this configuration: {len(problems)} problem{'s' if len(problems) > 1 else ''}")
        print("\n".join(f"    {problem}" for problem in problems), flush=True)
    return ExitCode.DONE


def whole_logits(config: Config) -> str:
    """What the head of the neuron backend keeps, whose loss takes all positions at once."""
    p = config.parallel
    elements = config.train.microbatch * config.data.seq_len // p.cp * config.model.vocab // p.tp
    parts = "microbatch x seq_len / cp x vocab / tp x (2 for logits + 4 for their softmax + 2 for their gradient)"
    return (
        f"not in the activations: whole logits on trn1, {8 * elements / 2**30:.2f} GiB on the last stage ({parts});"
        " model.loss_chunk_tokens is of the native backend"
    )


def piece_of(config: Config, derived: Derived) -> Piece:
    """What this configuration asks a rank to do."""
    family = family_of(config.model, config.adapter)
    return Piece(
        build=family.build,
        plan=family.plan,
        precision=config.precision.mode,
        make_backend=partial(make, config, derived),
        make_optimizer=optimizer_maker(config),
        samples=config.train.microbatch,
        seq_len=config.data.seq_len,
        microbatches=derived.accumulation,
        virtual_stages=config.parallel.pipeline.virtual_stages,
        recomputing=recomputing,
        make_unsharded=partial(make, without_zero(config), derived) if config.parallel.zero else None,
        scores=scores_of(config, derived),
    )


def scores_of(config: Config, derived: Derived) -> Callable[[Mesh], Scores | Strips] | None:
    """What a rank keeps of attention's scores on trn1; None where attention is the flash kernel."""
    mode = config.precision.mode
    if (why := why_no_kernel(config, mode, {})) is None:
        return None
    heads = family_of(config.model, config.adapter).plan.heads
    shape = (config.train.microbatch, config.data.seq_len, derived.accumulation)
    stages = derived.stages or (range(config.model.layers),)
    return partial(scores_of_rank, why, heads, mode, config.parallel, *shape, stages)


def without_zero(config: Config) -> Config:
    """The same layout with nothing cut over the data axes."""
    return replace(config, parallel=replace(config.parallel, zero=0))


def ranks_of(config: Config, derived: Derived) -> Sequence[Mesh]:
    """rehearsal.rank, or one rank of each class."""
    mesh, rank = make_mesh(config, derived, 0), config.rehearsal.rank
    layers = [len(stage) for stage in derived.stages] or [config.model.layers]
    return rank_classes(mesh, layers) if rank is None else [replace(mesh, rank=rank)]
