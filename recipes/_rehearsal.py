"""backend=fake: rehearse a step of the run instead of running it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from recipes._assembly import lower_natively, make_mesh, optimizer_maker
from trainer.config import Config
from trainer.derive import Derived
from trainer.errors import ExitCode
from trainer.models.decoder import CausalLM
from trainer.models.sharding import sharding_plan


def rehearse_run(config: Config, derived: Derived) -> ExitCode:
    """Take a step as backend.rank, or as one rank of each class, and print what it takes. Writes nothing."""
    # Not imported by an ordinary run: it brings private parts of torch.
    from trainer.backends.fake.rehearsal import Piece, rank_classes, rehearse
    from trainer.backends.fake.report import describe

    mesh, rank = make_mesh(config, derived, 0), config.backend.rank
    meshes = rank_classes(mesh, [config.model.layers]) if rank is None else [replace(mesh, rank=rank)]
    piece = Piece(
        build=lambda: CausalLM(config.model),
        plan=sharding_plan(config.model),
        precision=config.precision.mode,
        make_backend=partial(lower_natively, config),
        make_optimizer=optimizer_maker(config),
        samples=config.train.microbatch,
        seq_len=config.data.seq_len,
        microbatches=derived.accumulation,
    )
    for report in rehearse(piece, meshes):
        print("\n".join(describe(report)), flush=True)
    return ExitCode.DONE
