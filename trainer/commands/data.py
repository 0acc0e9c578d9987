"""What scripts/data.py shows: the text of a configuration, and the samples that a run will see, in order."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.config.groups.parallel import ParallelConfig
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.rules.derived import Derived, derive
from trainer.run.directory import run_path
from trainer.run.trajectory import refuse_changes
from trainer.run.world import World

if TYPE_CHECKING:
    from trainer.checkpoint.state import TrainState
    from trainer.data.corpus import Corpus
    from trainer.data.cursor import Cursor
    from trainer.data.lengths import Lengths
    from trainer.data.loader import TrainLoader
    from trainer.data.order import Draw
    from trainer.data.packing import Sample

LISTED = 16
"""Samples that are listed."""
MOST = 1_000
"""Samples that are shown in full: all lines are made before the first is printed."""
WORDS = 60


@dataclass(frozen=True)
class Asked:
    """step: from which on, 1 for the first, None for the next; samples: shown in full; picture: a file, or None."""

    step: int | None = None
    samples: int = 2
    picture: str | None = None

    def __post_init__(self) -> None:
        for key, value, least in (("--step", self.step, 1), ("--samples", self.samples, 0)):
            if value is not None and value < least:
                raise ConfigError(Problem(key, value, f"a whole number, {least} or more", f"give {key} N"))
        if self.samples > MOST:
            remedy = f"give --samples {MOST}, and a later --step for those behind them"
            raise ConfigError(Problem("--samples", self.samples, f"{MOST:,} at the most", remedy))


def show(config: Config, asked: Asked) -> Iterator[str]:
    """Lines for people. Nothing of a run changes; the cache gets what training would put there.

    Raises ConfigError where the run's own resume would, or a picture cannot be drawn, and DataError.
    """
    from recipes.parts import make_loader
    from trainer.data.corpus import prepare_corpus
    from trainer.data.lengths import Lengths

    _look_at_picture(asked.picture)
    refuse_changes(run_path(config), config)
    # How ranks share the samples alters none of them: one looks at all.
    config = replace(config, parallel=ParallelConfig(), train=replace(config.train, microbatch=1))
    derived = derive(config, World())
    corpus = prepare_corpus(config.data, config.model.vocab, partial(print, file=sys.stderr, flush=True))
    state, said = _state(config, corpus, asked.step, derived.samples_per_step)
    loader = make_loader(config, derived, corpus, 0, state)
    lengths = [Lengths.of(tokens) for tokens in corpus.train]
    yield from _sources(corpus, lengths, loader, derived)
    yield said
    yield from _seen(loader, corpus, derived, asked, state.step)
    if asked.picture is not None:
        _draw(Path(asked.picture), dict(zip(corpus.names, lengths, strict=True)))
        yield f"drew {asked.picture}"


def _state(config: Config, corpus: Corpus, step: int | None, samples: int) -> tuple[TrainState, str]:
    """Where the run of this name stands, if it is not beyond ``step``, or the start; and words about that."""
    from trainer.checkpoint.directory import checkpoints
    from trainer.checkpoint.state import TrainState
    from trainer.checkpoint.strict_json import Unsound
    from trainer.checkpoint.verify import read_state
    from trainer.data.cursor import Cursor
    from trainer.data.growth import adapted, appended

    place = run_path(config)
    for path in checkpoints(place / "checkpoints"):
        try:
            state = read_state(path)
        except (OSError, Unsound):
            continue
        if state.cursor is None or (step is not None and state.step >= step):
            continue
        if state.corpus != corpus.fingerprints:
            grown = appended(corpus, state.corpus, config.data.cache_dir)
            cursor, _ = adapted(Cursor.from_json(state.cursor), corpus, grown)
            state.cursor = cursor.to_json()
        return state, f"the run {place} goes on from {path.name} as follows"
    begun = ", as the present weights and stages have it" if list(checkpoints(place / "checkpoints")) else ""
    return TrainState(), f"a run sees this, from its start{begun}"


def _sources(corpus: Corpus, lengths: Sequence[Lengths], loader: TrainLoader, derived: Derived) -> Iterator[str]:
    order, start = loader.order, loader.start
    epochs = order.epochs(order.ahead(start, derived.steps * derived.samples_per_step))
    padding = loader.padding()
    about = "about " if corpus.estimated else ""
    for name, figures, of in zip(corpus.names, corpus.figures, lengths, strict=True):
        part = figures.train
        yield (
            f"source {name}: {part.documents:,} documents, {part.tokens:,} tokens to train on,"
            f" {about}{part.bytes / max(1, part.tokens):.2f} bytes a token"
        )
        if name in corpus.chats:
            yield f"    {corpus.chats[name]}"
        if part.untrained:
            yield f"    {part.trained:,} of these tokens are trained on ({part.trained / part.tokens:.2%})"
        yield from of.lines()
        yield f"    {padding[name]:.2%} of its samples is padding; read {epochs[name]:.2f} times by the end of training"
    yield from loader.packed()


def _seen(loader: TrainLoader, corpus: Corpus, derived: Derived, asked: Asked, done: int) -> Iterator[str]:
    """The batch of a step by its digest, the samples from there on in a table, and the first of them in full."""
    from trainer.data import decoded

    step, size = asked.step or done + 1, derived.samples_per_step
    cursor = loader.order.skip(loader.start, (step - 1) * size - loader.start.drawn)
    draws, _ = loader.order.take(cursor, max(size, LISTED, asked.samples))
    yield f"step {step:,} of {derived.steps:,}: {size:,} samples, digest {digest(loader, cursor, size)}"
    yield f"  {'step':>9} {'sample':>12}  {'source':<12} {'epoch':>6} {'its sample':>12}  first words"
    for index, draw in enumerate(draws[: max(LISTED, asked.samples)]):
        number = cursor.drawn + index
        sample = _sample(loader, draw, number)
        epoch = int(loader.order.epochs({**cursor.per_source, draw.source: draw.number})[draw.source])
        words = decoded.first_words(sample, corpus.tokenizer, WORDS)
        yield (
            f"  {number // size + 1:>9,} {number:>12,}  {draw.source:<12} {epoch:>6,}"
            f" {loader.order.sample(draw):>12,}  {words}"
        )
    for index, draw in enumerate(draws[: asked.samples]):
        sample = _sample(loader, draw, cursor.drawn + index)
        yield f"sample {cursor.drawn + index:,}, of {draw.source}: {decoded.summary(sample)}"
        if draw.source in corpus.chats:
            yield from decoded.turns(sample, corpus.tokenizer, decoded.COLOURS if _coloured() else decoded.MARKS)
        else:
            yield from decoded.lines(sample, corpus.tokenizer)


def _coloured() -> bool:
    """Whether somebody looks who sees colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _sample(loader: TrainLoader, draw: Draw, number: int) -> Sample:
    rows = loader.samples([draw], number)
    return type(rows)(*(field[0] for field in rows))


def digest(loader: TrainLoader, cursor: Cursor, samples: int) -> str:
    """Of the five fields of so many samples from a cursor on, in the order of the global batch."""
    draws, _ = loader.order.take(cursor, samples)
    found = hashlib.blake2b(digest_size=8)
    for index, draw in enumerate(draws):
        for field in _sample(loader, draw, cursor.drawn + index):
            found.update(field.astype("<i8").tobytes())
    return found.hexdigest()


def _look_at_picture(picture: str | None) -> None:
    """Raise ConfigError where it could not be drawn."""
    from trainer.commands.plot import FORMATS, INSTALL
    from trainer.commands.target import refuse_target

    if picture is None:
        return
    if Path(picture).suffix not in FORMATS:
        rule = f"the name of a picture: {', '.join(FORMATS)}"
        raise ConfigError(Problem("--picture", picture, rule, "give --picture lengths.png"))
    refuse_target(Path(picture), "--picture")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError(Problem("--picture", picture, "needs matplotlib", INSTALL)) from None


def _draw(path: Path, lengths: dict[str, Lengths]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 2.4 * len(lengths)), dpi=100, layout="constrained")
    for axes, (name, of) in zip(figure.subplots(len(lengths), squeeze=False)[:, 0], lengths.items(), strict=True):
        bins = of.bins()
        axes.bar(range(len(bins)), [count for _, _, count in bins], color="#2563a8")
        axes.set_xticks(range(len(bins)), [f"{low:,}" for low, _, _ in bins])
        axes.set_title(f"source {name}: documents by tokens, {of.documents:,} in all".replace("$", r"\$"))
    figure.savefig(path)
