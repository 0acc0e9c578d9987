"""Pretraining: assemble model, data, optimizer and checkpoints, and hand over to the loop."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from recipes.conclude import conclude
from recipes.parts import make_backend, make_evaluator, make_loader, make_saver, make_sinks
from recipes.together import LAUNCH, follow_text, read_text, refuse_apart, watching
from trainer.backends.base import Backend
from trainer.backends.common.peers import Peers
from trainer.checkpoint.state import TrainState
from trainer.config.schema import Config
from trainer.data.corpus import Corpus
from trainer.data.describe import describe
from trainer.data.outlook import outlook
from trainer.errors import ExitCode
from trainer.models.family import Family, family_of
from trainer.rules.derived import Derived
from trainer.run.directory import RunDirectory, environment, open_run, run_path
from trainer.run.world import World
from trainer.training.base import stand
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
    # First of all: what it refuses is refused before ranks meet and text is read.
    family = family_of(config.model, config.adapter)
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
            if config.checkpoint.export_hf and world.rank == 0 and not backend.extracting:
                exports = Exports(config.checkpoint, directory, derived.steps, say)
            launch = Launch(config, derived, world, overrides, peers, watchdog, backend, directory, exports)
            code = launch.go(family)
        finally:
            backend.close()
            directory.close()
    if exports is not None and code is ExitCode.DONE:
        exports.finish()  # the other ranks have nothing to wait for
    return code


@dataclass(frozen=True)
class Launch:
    """A launch whose ranks have met, in the run's directory."""

    config: Config
    derived: Derived
    world: World
    overrides: list[str]
    peers: Peers
    watchdog: Watchdog
    backend: Backend
    directory: RunDirectory
    exports: Exports | None

    def go(self, family: Family) -> ExitCode:
        """Read text and base, build the model, fill it, and train. Collective."""
        config, backend, directory = self.config, self.backend, self.directory
        corpus, sets = read_text(config, self.derived, self.peers, self.watchdog, backend)
        with self.watchdog.phase("data"):  # a large base takes long to hash
            standing = stand(config, family, directory.checkpoints, self.world, self.peers, backend)
        backend.shard(family.build, family.plan, config.precision.mode)
        initial = partial(initial_weights, config, family, backend.mesh, corpus.fingerprints, standing)
        here, allowed = backend.facts().topology(backend.mesh), config.resume.allow
        state = resume_or_initialise(
            directory, backend, initial, config.seed, self.derived.steps, corpus.fingerprints, allowed, here, standing
        )
        follow_text(config, backend, corpus, state)
        return self.train(corpus, sets, state, standing.names if standing else ())

    def train(
        self, corpus: Corpus, sets: Sequence[EvaluationSet], state: TrainState, left: Collection[str]
    ) -> ExitCode:
        """Wire data, evaluation, saving and sinks to the loop, and run it. left: tensors that stay in the base."""
        config, derived, backend, world = self.config, self.derived, self.backend, self.world
        dp_rank, facts = backend.mesh.coordinate("dp"), backend.facts()
        if world.rank == 0:
            print("\n".join([*describe(corpus), *facts.describe()]), flush=True)
        loader = make_loader(config, derived, corpus, dp_rank, state)
        samples = derived.steps * derived.samples_per_step
        lines = loader.packed() + list(outlook(loader.order, loader.start, samples, config.data.max_epochs))
        if world.rank == 0:
            print("\n".join(lines), flush=True)
        evaluator = make_evaluator(config, derived, corpus, sets, dp_rank)
        saves = self.saves(corpus, state, left)
        batches = backend.ahead(loader)
        sinks = make_sinks(config, derived, world, self.directory, state, quiet=world.rank > 0 or backend.extracting)
        trainer = Trainer(config, derived, backend, batches, evaluator, saves, sinks, state, self.watchdog)
        try:
            code = trainer.run()
        finally:
            batches.close()
            for sink in sinks:
                sink.close()
        conclude(trainer, self.directory, corpus)
        if self.exports is not None and trainer.complete:
            self.exports.complete()
        return code

    def saves(self, corpus: Corpus, state: TrainState, left: Collection[str]) -> Saves:
        """What saves, once whatever can refuse has done so: from here on files change."""
        config, backend, first = self.config, self.backend, not self.world.rank
        saver = make_saver(config, self.directory, backend, backend.facts())
        saved = self.exports.saved if self.exports else None
        saves = Saves(config.checkpoint, saver, backend, self.watchdog, newest=state.step, saved=saved, base=left)
        if not backend.extracting:
            line = saves.prepare(self.world.local_size or 1, config.evaluation.best is not None)
            if line and first:
                print(f"  {line}", flush=True)
            on_rank_zero(
                backend.saving, lambda: begin(self.directory, config, self.overrides, state, self.derived.steps)
            )
            if first:
                words, template = corpus.tokenizer, config.data.chat_template
                keep_tokenizer(self.directory, words.file, words.eod_token, say, template)
        return saves
