"""How a launch ends that has trained: the result of a run that is complete, or a line about how far it came."""

from __future__ import annotations

from trainer.data.corpus import Corpus
from trainer.data.describe import compressor_references
from trainer.run.directory import RunDirectory
from trainer.training.collective import on_rank_zero
from trainer.training.loop import Trainer


def early(trainer: Trainer) -> list[str]:
    """A line where evaluation.patience has ended training before its schedule."""
    best, step = trainer.state.best, trainer.state.step
    if best is None or step >= trainer.derived.steps:
        return []
    waited = f"{trainer.config.evaluation.patience} evaluations since step {best.step:,}"
    return [f"ended at step {step:,} of {trainer.derived.steps:,}: {waited} had no better {best.metric} (patience)"]


def conclude(trainer: Trainer, directory: RunDirectory, corpus: Corpus) -> None:
    """Keep the result of a run that is complete, and say how this launch has ended. Collective."""
    backend, first = trainer.backend, trainer.backend.mesh.rank == 0
    if backend.extracting:
        if first:
            print("graphs collected, of training, evaluation and samples; nothing was computed or kept", flush=True)
    elif trainer.complete and not trainer.stopped:
        result = {**trainer.result(), **compressor_references(corpus)}
        on_rank_zero(backend.saving, lambda: directory.finish(result))
        if first:
            print("\n".join([*early(trainer), *directory.describe()]), flush=True)
    elif first:
        print(
            f"stopped at step {trainer.state.step:,} of {trainer.derived.steps:,}, saved; the same command goes on",
            flush=True,
        )
