"""The weights that a run neither trains nor stores: which they are, where they lie, that every rank has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from trainer.backends.base import Backend
from trainer.backends.common.peers import Peers
from trainer.checkpoint.base import Base
from trainer.checkpoint.hashed_file import Written
from trainer.checkpoint.load import base_of, stored_names
from trainer.checkpoint.names import checkpoints
from trainer.checkpoint.strict_json import Unsound
from trainer.checkpoint.verify import read_state
from trainer.config.schema import Config
from trainer.errors import ConfigError, Problem
from trainer.models.family import Family, shapes_of
from trainer.parallel.boxes import Store
from trainer.pretrained.base import hashed, named, verify_base
from trainer.pretrained.refused import KEY
from trainer.pretrained.source import Source, open_base, open_source, refuse_other_base
from trainer.pretrained.weights import weights_of
from trainer.run.world import World
from trainer.training.collective import on_every_rank

TOPIC, SHARES = "the base's files", "what the base's files came to"
"""Of the exchanges before training."""
MOVED = "model.init_from=DIRECTORY says where it is now, if it has moved"


@dataclass
class Standing:
    """What a run stands on. base: its files, as they are now. names: of the parameters that checkpoints leave to it.
    vocab: rows of the run's embedding.
    """

    source: Source
    base: Base
    names: set[str]
    vocab: int

    def resume(self, checkpoint: Path, store: Store) -> None:
        """Fill what a verified checkpoint leaves to the base, and leave that to it from now on.

        What it holds is stored on: it was trained once, or an earlier version saved it. Raises ConfigError where the
        base is another one.
        """
        before = base_of(checkpoint)
        self.names = set() if before is None else self.names - stored_names(checkpoint)
        self.refuse_other(before)
        self._fill(store)

    def refuse_other(self, before: Base | None) -> None:
        """Raise ConfigError where a checkpoint was trained on another base."""
        if before is not None:
            refuse_other_base(self.source.given, before, self.base, f"name the base that it was; {MOVED}")

    @torch.no_grad()
    def _fill(self, store: Store) -> None:
        """This rank's boxes of its parameters; padding is zero."""
        mine = {name: placed for name, placed in store.model.items() if name in self.names}
        for placed in mine.values():
            placed.tensor.zero_()
        read = weights_of(self.source, self.vocab)
        for placed in mine.values():
            for box in placed.boxes:
                box.of(placed.tensor).copy_(read(box))


def stand(
    config: Config, family: Family, directory: Path, world: World, peers: Peers, backend: Backend
) -> Standing | None:
    """What this run stands on; None where all weights are trained, drawn by the seed, or stored. Collective.

    directory: of its checkpoints. The ranks of a node hash the files together, once in a launch, and every rank hears
    what all have found. Raises ConfigError where the base is not there, or not the same on every rank.
    """
    names = {name for name, rule in family.plan.match(shapes_of(family)).items() if not rule.trainable}
    if config.model.init_from is None or not names:
        return None
    seconds = config.reliability.data_seconds
    say = partial(print, flush=True) if not peers.rank else None
    meet = partial(peers.everyone, TOPIC, "", seconds, say)
    found = on_every_rank(backend.saving, partial(_find, config, directory, world), meet)
    if found is None:
        return None
    source, share = found
    mine = json.dumps({name: [one.size, one.sha256] for name, one in share.items()})
    shares = [json.loads(text) for text in peers.everyone(SHARES, mine, seconds, say)]
    return Standing(source, named(source, together(shares, source, peers)), names, config.model.vocab)


def _find(config: Config, directory: Path, world: World) -> tuple[Source, Mapping[str, Written]] | None:
    """The base, and this process's share of its files."""
    assert config.model.init_from is not None
    begun = checkpoints(directory)
    rank, size = world.local_rank or 0, world.local_size or 1
    if not begun:
        source = open_source(config.model.init_from)
    else:
        before = _named_by(begun)
        if before is None:  # none of them can be read, or they hold all weights, as those of earlier versions do
            return None
        here = config.model.init_from if Path(config.model.init_from).exists() else None
        source = open_base(before, here, MOVED)
    verify_base(source, rank, size)
    return source, hashed(source, rank, size)


def _named_by(begun: list[Path]) -> Base | None:
    """The base of the newest checkpoint that can be read."""
    for path in begun:
        try:
            return read_state(path).base
        except (Unsound, OSError):
            continue
    return None


def together(shares: list[dict[str, list[object]]], source: Source, peers: Peers) -> dict[str, Written]:
    """The files that all ranks have found. Raises ConfigError where two have found another."""
    files: dict[str, tuple[int, list[object]]] = {}
    for rank, share in enumerate(shares):
        for name, one in share.items():
            first, seen = files.setdefault(name, (rank, one))
            if seen != one:
                who = f"{name} of {peers.who([rank])} is not that of {peers.who([first])}"
                rule = f"the same files on every rank; {who}"
                raise ConfigError(Problem(KEY, source.given, rule, "copy the same base to all nodes, or mount it"))
    return {name: Written(int(str(size)), str(digest)) for name, (_, (size, digest)) in sorted(files.items())}
