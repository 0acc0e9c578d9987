"""What the ranks of a launch do together before they train: watch each other, find one directory, read one text."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from trainer.backends.base import Backend
from trainer.backends.common.peers import Peers
from trainer.checkpoint.state import TrainState
from trainer.config.schema import Config
from trainer.data.corpus import Corpus, prepare_corpus
from trainer.data.cursor import Cursor
from trainer.data.growth import adapted, appended
from trainer.rules.derived import Derived
from trainer.run.ending import tell
from trainer.run.shared import find_nonce, leave_nonce, remove_nonce
from trainer.run.world import World
from trainer.training.collective import on_every_rank, on_rank_zero
from trainer.training.sets import EvaluationSet, read_sets
from trainer.training.trust import agree_on
from trainer.training.watchdog import Watchdog

LAUNCH, ROOT, DATA, TEXT = "launch", "the run's directory", "the text of this run", "what the text came to"
"""Topics of the exchanges before training."""


@contextmanager
def watching(config: Config, world: World, peers: Peers, directory: Path) -> Iterator[Watchdog]:
    """A watchdog over the block, in set-up to begin with; an error of a collective becomes what is behind it."""
    limits = config.reliability
    step = config.backend.timeout_seconds
    seconds = {
        "set-up": limits.setup_seconds,
        "data": limits.data_seconds,
        "batch": step,
        "step": step,
        "evaluation": step,
        "save": limits.save_seconds,
    }
    with Watchdog(peers, seconds, lambda error: tell(error, world, directory)) as watchdog, watchdog.phase("set-up"):
        try:
            yield watchdog
        except Exception as error:
            if (behind := watchdog.explain(error)) is None:
                raise
            raise behind from error


def refuse_apart(backend: Backend, peers: Peers, directory: Path, seconds: float) -> None:
    """Raise ConfigError on every rank where they do not all have the run's directory. Collective.

    seconds: longest wait for a rank.
    """
    if backend.saving.size == 1:
        return
    nonce = backend.saving.broadcast(secrets.randbits(62))
    on_rank_zero(backend.saving, lambda: leave_nonce(directory, nonce))
    try:
        meet = partial(peers.everyone, ROOT, "", seconds)
        on_every_rank(backend.saving, partial(find_nonce, directory, nonce, peers.rank), meet)
    finally:
        if backend.saving.rank == 0:
            remove_nonce(directory, nonce)


def read_text(
    config: Config, derived: Derived, peers: Peers, watchdog: Watchdog, backend: Backend
) -> tuple[Corpus, list[EvaluationSet]]:
    """The corpus, prepared by the first process of each node that needs it, and what else the model is scored on.

    The same on every rank. Collective.

    A rank may take hours for it: the others wait for its word, and not in a collective.
    """
    seconds = config.reliability.data_seconds
    say = partial(print, flush=True) if not peers.rank else None
    losses_only = derived.backend == "neuron" and config.parallel.pp > 1

    def prepare() -> tuple[Corpus, list[EvaluationSet]]:
        corpus = prepare_corpus(config.data, config.model.vocab, say)
        return corpus, read_sets(config, corpus, losses_only, say)

    with watchdog.phase("data"):
        meet = partial(peers.everyone, DATA, "", seconds, say)
        corpus, sets = on_every_rank(backend.saving, prepare, meet)
    marks = {
        **corpus.shards,
        **corpus.fingerprints,
        **{f"evaluation.sets, {one.name}": one.fingerprint for one in sets},
    }
    agree_on(peers, TEXT, {f"text of {name}": value for name, value in marks.items()}, seconds)
    return corpus, sets


def follow_text(config: Config, backend: Backend, corpus: Corpus, state: TrainState) -> None:
    """Let a state that was trained on other text go on with this one: what was appended comes next. Collective."""
    before, state.corpus = state.corpus, dict(corpus.fingerprints)
    if state.cursor is None or before == state.corpus:
        return
    # Rank 0's word: another node's cache may have lost the earlier text.
    told = on_rank_zero(backend.saving, lambda: appended(corpus, before, config.data.cache_dir))
    grown = backend.saving.sum([int(one) for one in told or [False] * len(corpus.names)])
    cursor, lines = adapted(Cursor.from_json(state.cursor), corpus, [bool(one) for one in grown])
    state.cursor = cursor.to_json()
    if not backend.mesh.rank:
        print("\n".join(f"  {line}" for line in lines), end="\n" if lines else "", flush=True)
