"""Parts that every kind of training puts together in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from trainer.backends import BACKENDS
from trainer.backends.base import Backend, Facts
from trainer.backends.native.update.optimizer import MakeOptimizer
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.config.plugins import call_named
from trainer.config.schema import Config
from trainer.data.corpus import Corpus
from trainer.data.cursor import Cursor
from trainer.data.heldout import HeldoutWindows, written_for_spoken
from trainer.data.loader import TrainLoader
from trainer.data.mixture import mixtures
from trainer.data.packings import Packing
from trainer.errors import ConfigError, DataError, Problem
from trainer.observe.sinks import Sink, open_sinks
from trainer.observe.wandb_sink import open_wandb
from trainer.optim.making import make_optimizer
from trainer.parallel.mesh import Mesh
from trainer.rules.derived import Derived
from trainer.rules.evaluation import HELDOUT
from trainer.run.directory import METRICS, RunDirectory, config_yaml
from trainer.run.world import World
from trainer.training.evaluation import Evaluator
from trainer.training.scoring import ChoiceScorer, ExactScorer, Scorer, Shape, TextScorer
from trainer.training.sets import ChoiceSet, EvaluationSet, TextSet


def optimizer_maker(config: Config) -> MakeOptimizer:
    """Makes the optimizer that this configuration names."""
    return partial(make_optimizer, config.optim)


def make_mesh(config: Config, derived: Derived, rank: int) -> Mesh:
    """The axes of this configuration, and a rank's place on them."""
    return Mesh(rank, tp=config.parallel.tp, cp=config.parallel.cp, dp=derived.dp, pp=config.parallel.pp)


def make_backend(config: Config, derived: Derived, world: World) -> Backend:
    """The backend that backend.name stands for; imported only now, since neuron brings XLA."""
    mesh = make_mesh(config, derived, world.rank)
    maker = BACKENDS.get(derived.backend, derived.backend)
    backend: Backend = call_named("backend.name", maker, config, derived, mesh, optimizer_maker(config))
    missing = [name for name in vars(Backend) if name[0] != "_" and not hasattr(backend, name)]
    if missing:
        rule = f"a maker that returns a trainer.backends.base.Backend; {type(backend).__name__} has no {missing[0]}"
        raise ConfigError(Problem("backend.name", config.backend.name, rule, "see docs/extending.md"))
    return backend


def make_evaluator(
    config: Config, derived: Derived, corpus: Corpus, sets: Sequence[EvaluationSet], dp_rank: int
) -> Evaluator | None:
    """What this rank scores; None where there is nothing to score, or evaluation is off. Raises DataError."""
    if not config.evaluation.every_steps:
        return None
    written = None if corpus.estimated else corpus.heldout_part.bytes
    heldout = text_scorer(config, derived, corpus, TextSet(HELDOUT, corpus.heldout, "", written), dp_rank)
    scorers = [make_scorer(config, derived, corpus, one, dp_rank) for one in sets]
    if heldout is None and not scorers:
        return None
    return Evaluator(
        config=config.evaluation,
        heldout=heldout,
        scorers=scorers,
        tokenizer=corpus.tokenizer,
        seq_len=config.data.seq_len,
        seed=config.seed,
    )


def text_scorer(config: Config, derived: Derived, corpus: Corpus, text: TextSet, dp_rank: int) -> TextScorer | None:
    """Of windows of a text; None where it has none."""
    data, tokenizer = config.data, corpus.tokenizer
    windows = HeldoutWindows(
        tokens=text.tokens,
        token_bytes=tokenizer.token_bytes,
        seq_len=data.seq_len,
        document_mask=data.document_mask,
        windows=config.evaluation.windows,
        packing=Packing(data.packing, data.long_documents),
        written=written_for_spoken(text.tokens, tokenizer, text.bytes),
    )
    return TextScorer.of(text.name, windows, config.train.microbatch, dp_rank, derived.dp)


def make_scorer(config: Config, derived: Derived, corpus: Corpus, one: EvaluationSet, dp_rank: int) -> Scorer:
    """Of one of evaluation.sets. Raises DataError for a text that is too short to be scored."""
    if isinstance(one, TextSet):
        if (found := text_scorer(config, derived, corpus, one, dp_rank)) is not None:
            return found
        rule = "has a document of two tokens: the first predicts the second"
        raise DataError(Problem("evaluation.sets", one.name, rule, "name a longer text"))
    parallel = config.parallel
    # What is compiled, and what is cut along the sequence, takes the shapes of training.
    free = derived.backend == "native" and parallel.cp == 1 and not parallel.sp
    shape = Shape(config.train.microbatch, config.data.seq_len, free)
    return ChoiceScorer(one, shape, dp_rank, derived.dp) if isinstance(one, ChoiceSet) else ExactScorer(one, shape)


def make_loader(config: Config, derived: Derived, corpus: Corpus, dp_rank: int, state: TrainState) -> TrainLoader:
    """This rank's batches, from where the state stands."""
    seq_len = config.data.seq_len
    changes = [(-(-stage.from_tokens // seq_len), stage.weights) for stage in config.data.stages]
    return TrainLoader(
        corpus=corpus,
        seq_len=seq_len,
        document_mask=config.data.document_mask,
        seed=config.seed,
        samples_per_step=derived.samples_per_step,
        microbatch=config.train.microbatch,
        dp_rank=dp_rank,
        dp_size=derived.dp,
        cursor=Cursor.from_json(state.cursor) if state.cursor else None,
        prefetch=config.data.prefetch,
        stages=mixtures(corpus.names, corpus.weights, changes),
        packing=Packing(config.data.packing, config.data.long_documents),
        draws=max(config.model.dropout, config.adapter.dropout) > 0
        or ":" in config.model.family,  # one from outside may draw by other keys
    )


def make_saver(config: Config, directory: RunDirectory, backend: Backend, facts: Facts) -> Saver:
    """What writes this run's checkpoints, with the launch's facts in each."""
    return Saver(
        directory=directory.checkpoints,
        keep=config.checkpoint.keep,
        config_yaml=config_yaml(config, directory.path),
        topology=facts.topology(backend.mesh),
        process_group=backend.saving.group,
        background_group=backend.beside.group,
        keep_every=config.checkpoint.keep_every,
    )


def make_sinks(
    config: Config, derived: Derived, world: World, directory: RunDirectory, state: TrainState, quiet: bool
) -> list[Sink]:
    """Where records go; nowhere on a quiet rank."""
    if quiet:
        return []
    sinks = list(open_sinks(directory.path / METRICS, config.logging, derived.steps, state.step))
    tracker = open_wandb(config, directory.path, world.wandb_account)
    return sinks if tracker is None else [*sinks, tracker]
