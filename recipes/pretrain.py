"""Pretraining: assemble model, data, optimizer and checkpoints, and hand over to the loop."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from recipes.parts import make_backend, make_evaluator, make_loader, make_saver, make_sinks
from recipes.together import LAUNCH, follow_text, read_text, refuse_apart, watching
from trainer.backends.base import Backend
from trainer.backends.common.peers import Peers
from trainer.checkpoint.state import TrainState
from trainer.config.schema import Config
from trainer.data.corpus import Corpus
from trainer.data.describe import compressor_references, describe
from trainer.data.outlook import outlook
from trainer.errors import ExitCode
from trainer.models.family import family_of
from trainer.rules.derived import Derived
from trainer.run.directory import RunDirectory, environment, open_run, run_path
from trainer.run.world import World
from trainer.training.base import Standing, stand
from trainer.training.collective import on_rank_zero
from trainer.training.exporting import Exports, keep_tokenizer
from trainer.training.initial import initial_weights
from trainer.training.loop import Trainer
from trainer.training.resume import begin, resume_or_initialise
from trainer.training.saving import Saves
from trainer.training.sets import EvaluationSet
from trainer.training.trust import agree_on, launch_facts
from trainer.training.watchdog import Watchdog

say = partial(print, flush=True)


def run(config: Config, derived: Derived, world: World, overrides: list[str]) -> ExitCode:
    """Run to the end, or resume, or say that it is done. Collective over the ranks of this launch."""
    if derived.backend == "fake":
        # Not imported by an ordinary run: it brings private parts of torch.
        from recipes.rehearse import rehearse_run

        return rehearse_run(config, derived)
    family = family_of(
        config.model, config.adapter
    )  # first of all: what it refuses is refused before ranks meet and text is read
    limits, directory = config.reliability, RunDirectory(run_path(config), result=None)
    peers = Peers.join(world, limits.setup_seconds)
    backend = make_backend(config, derived, world)
    exports: Exports | None = None
    with watching(config, world, peers, directory.path) as watchdog:
        agree_on(peers, LAUNCH, launch_facts(config, environment(), derived.backend), limits.setup_seconds)
        backend.setup(peers)
        try:
            directory = on_rank_zero(backend.saving, lambda: open_run(config)) or directory
            if backend.saving.broadcast(int(directory.result is not None)):
                if world.rank == 0:
                    print("\n".join(directory.describe()), flush=True)
                return ExitCode.DONE
            refuse_apart(backend, peers, directory.path, limits.setup_seconds)
            corpus, sets = read_text(config, derived, peers, watchdog, backend)
            with watchdog.phase("data"):  # a large base takes long to hash
                standing = stand(config, family, directory.checkpoints, world, peers, backend)
            backend.shard(family.build, family.plan, config.precision.mode)
            initial = partial(initial_weights, config, family, backend.mesh, corpus.fingerprints, standing)
            here, allowed = backend.facts().topology(backend.mesh), config.resume.allow
            state = resume_or_initialise(
                directory,
                backend,
                initial,
                config.seed,
                derived.steps,
                corpus.fingerprints,
                allowed,
                here,
                standing,
            )
            follow_text(config, backend, corpus, state)
            if config.checkpoint.export_hf and world.rank == 0 and not backend.extracting:
                exports = Exports(config.checkpoint, directory, derived.steps, say)
            code = train(
                config, derived, world, directory, corpus, sets, backend, state, watchdog, overrides, exports, standing
            )
        finally:
            backend.close()
            directory.close()
    if exports is not None and code is ExitCode.DONE:
        exports.finish()  # the other ranks have nothing to wait for
    return code


def train(
    config: Config,
    derived: Derived,
    world: World,
    directory: RunDirectory,
    corpus: Corpus,
    sets: Sequence[EvaluationSet],
    backend: Backend,
    state: TrainState,
    watchdog: Watchdog,
    overrides: list[str],
    exports: Exports | None,
    standing: Standing | None,
) -> ExitCode:
    """Wire data, evaluation, saving and sinks to the loop, and run it."""
    dp_rank, facts = backend.mesh.coordinate("dp"), backend.facts()
    if world.rank == 0:
        print("\n".join([*describe(corpus), *facts.describe()]), flush=True)
    loader = make_loader(config, derived, corpus, dp_rank, state)
    samples = derived.steps * derived.samples_per_step
    lines = loader.packed() + list(outlook(loader.order, loader.start, samples, config.data.max_epochs))
    if world.rank == 0:
        print("\n".join(lines), flush=True)
    evaluator = make_evaluator(config, derived, corpus, sets, dp_rank)
    saver = make_saver(config, directory, backend, facts)
    saved, left = exports.saved if exports else None, standing.names if standing else ()
    saves = Saves(config.checkpoint, saver, backend, watchdog, newest=state.step, saved=saved, base=left)
    if not backend.extracting:
        if (line := saves.prepare(world.local_size or 1, config.evaluation.best is not None)) and not world.rank:
            print(f"  {line}", flush=True)
        # Whatever can refuse has done so: from here on files change.
        on_rank_zero(backend.saving, lambda: begin(directory, config, overrides, state, derived.steps))
        if not world.rank:
            keep_tokenizer(directory, corpus.tokenizer.file, corpus.tokenizer.eod_token, say)
    batches = backend.ahead(loader)
    sinks = make_sinks(config, derived, world, directory, state, quiet=world.rank > 0 or backend.extracting)
    trainer = Trainer(
        config=config,
        derived=derived,
        backend=backend,
        batches=batches,
        evaluator=evaluator,
        saves=saves,
        sinks=sinks,
        state=state,
        watchdog=watchdog,
    )
    try:
        code = trainer.run()
    finally:
        batches.close()
        for sink in sinks:
            sink.close()
    conclude(trainer, directory, corpus)
    if exports is not None and trainer.complete:
        exports.complete()
    return code


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
