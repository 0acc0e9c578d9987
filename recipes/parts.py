"""Parts that every kind of training puts together in the same way."""

from __future__ import annotations

from functools import partial

from trainer.backends.base import Backend
from trainer.backends.native.backend import NativeBackend
from trainer.backends.native.update.optimizer import MakeOptimizer
from trainer.config.schema import Config
from trainer.data.corpus import Corpus
from trainer.data.heldout import HeldoutWindows
from trainer.optim.making import make_optimizer
from trainer.optim.mixed_precision import parameter_groups
from trainer.parallel.mesh import Mesh
from trainer.rules.derived import Derived
from trainer.rules.quantities import why_plain_attention
from trainer.run.world import World
from trainer.training.evaluation import Evaluator


def optimizer_maker(config: Config) -> MakeOptimizer:
    """Makes the optimizer that this configuration names."""
    return partial(make_optimizer, config.optim)


def make_mesh(config: Config, derived: Derived, rank: int) -> Mesh:
    """The axes of this configuration, and a rank's place on them."""
    return Mesh(rank, tp=config.parallel.tp, cp=config.parallel.cp, dp=derived.dp, pp=config.parallel.pp)


def make_backend(config: Config, derived: Derived, world: World) -> Backend:
    """The backend of this configuration, with the optimizer that goes with it."""
    mesh = make_mesh(config, derived, world.rank)
    if derived.backend == "neuron":
        return lower_to_neuron(config, derived, mesh)
    return lower_natively(config, derived, mesh, optimizer_maker(config))


def lower_to_neuron(config: Config, derived: Derived, mesh: Mesh) -> Backend:
    """The neuron backend; importing it imports XLA, which an ordinary run on CPU does without."""
    from trainer.backends.neuron.backend import NeuronBackend

    return NeuronBackend(
        mesh,
        config.optim,
        parameter_groups,
        config.parallel,
        timeout_seconds=config.backend.timeout_seconds,
        flash=why_plain_attention(config, config.precision.mode) is None,
        stages=derived.stages,
        microbatches=derived.accumulation,
    )


def lower_natively(config: Config, derived: Derived, mesh: Mesh, make_optimizer: MakeOptimizer) -> NativeBackend:
    """The native backend, of a world that may be pretended."""
    return NativeBackend(mesh, make_optimizer, config.backend.timeout_seconds, config.parallel, derived.stages)


def make_evaluator(config: Config, corpus: Corpus, dp_rank: int, dp: int) -> Evaluator | None:
    """The held-out windows of this rank; None where nothing is held out or evaluation is off."""
    if not config.evaluation.every_steps or not config.data.heldout_fraction:
        return None
    windows = HeldoutWindows(corpus, config.data.seq_len, config.data.document_mask, config.evaluation.windows)
    baseline = windows.zlib_bits_per_byte()
    if baseline is None:
        return None
    return Evaluator(
        config=config.evaluation,
        batches=windows.batches(config.train.microbatch, dp_rank, dp),
        target_bytes=windows.target_bytes,
        zlib_bits_per_byte=baseline,
        tokenizer=corpus.tokenizer,
        seq_len=config.data.seq_len,
        seed=config.seed,
    )
