"""A run, a checkpoint or a Hugging Face directory, opened to compute with: weights that are only read, and words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from trainer.backends.common.host import HostExchange
from trainer.backends.common.meeting import Meeting
from trainer.backends.native.backend import NativeBackend
from trainer.backends.native.device import device_of_process
from trainer.config.groups.backend import BackendConfig
from trainer.config.groups.model import ModelConfig
from trainer.errors import ConfigError, Problem
from trainer.generation.frozen import no_optimizer
from trainer.generation.words import KEY, Words, words_of
from trainer.models.family import Family, family_of
from trainer.parallel.mesh import Mesh
from trainer.pretrained.base import MOVED, verify_source
from trainer.pretrained.refused import KEY as KEY_HERE
from trainer.pretrained.source import Source, fingerprint, open_source
from trainer.pretrained.weights import Read, weights_of
from trainer.run.world import World

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}
"""The dtypes that a model computes in, and the trainer's words for them."""


@dataclass(frozen=True)
class Opened:
    """A model that is only read, on one process or cut over the tensor-parallel ranks of a launch.

    lowered: with the interface of trainer.models.decoder.CausalLM; decoder, head: its parts, as a Plan names them.
    window: tokens that prompt and answer may have together. words: None where the source has no tokenizer. host: all
    ranks.
    """

    source: Source
    model: ModelConfig
    lowered: Any
    decoder: Any
    head: Any
    dtype: torch.dtype
    window: int
    words: Words | None
    host: HostExchange


@dataclass(frozen=True)
class _Found:
    """What a rank has before it, and has looked through. mark: by which ranks know that it is the same."""

    source: Source
    words: Words | None
    family: Family
    read: Read
    mark: str


@contextmanager
def opened_model(
    given: str,
    dtype: str | None = None,
    world: World | None = None,
    meeting: Meeting | None = None,
    base: str | None = None,
) -> Iterator[Opened]:
    """Open it on every rank of this launch, whose processes are its tensor-parallel ranks; leave them behind it.

    dtype: float32 | bfloat16; None: BF16 where all tensors are, else FP32. meeting: of the launch, where its ranks have
    met. base: where the base of a fine-tuned run is now; None: where it says. Raises ConfigError, on every rank, where
    the source is not sound on one, its model cannot be cut over so many ranks, or ranks have different sources.
    """
    world = World.from_environment() if world is None else world
    meeting = Meeting.join(world) if meeting is None else meeting
    mesh = Mesh(world.rank, tp=world.size)
    backend = NativeBackend(mesh, no_optimizer, BackendConfig().timeout_seconds, device=device_of_process())
    # Each rank verifies its share of a checkpoint: not in a collective, which has a timeout.
    found = meeting.each(partial(_find, given, base, world))
    source, family = found.source, found.family
    _refuse_other_sources(given, meeting.everyone(found.mark))
    if dtype is None:
        dtype = "bfloat16" if set(source.dtypes) == {"bfloat16"} else "float32"
    backend.setup(meeting.peers)
    try:
        plan = replace(family.plan, frozen=("*",))
        try:
            backend.shard(family.build, plan, PRECISIONS[dtype])
        except ConfigError as error:
            raise _uncut(error, family, world.size) from None
        meeting.each(partial(backend.load_initial, found.read))
        backend.model.eval()
        decoder, head = (backend.model.get_submodule(path) for path in (plan.decoder, plan.head))
        window = window_of(source.model)
        yield Opened(
            source, source.model, backend.model, decoder, head, backend.dtype, window, found.words, backend.host
        )
    finally:
        backend.close()


def window_of(model: ModelConfig) -> int:
    """Tokens that the model is meant for; dynamic scaling stretches them by its factor."""
    scaling = model.rope_scaling
    stretched = int(scaling.factor * scaling.original_max_positions) if scaling.kind == "dynamic" else 0
    return max(model.max_positions, stretched)


def _find(given: str, base: str | None, world: World) -> _Found:
    """Every byte of a checkpoint is verified, each rank its share; a directory has nothing to hold it against."""
    try:
        source = open_source(given, base, MOVED)
        verify_source(source, world.rank, world.size)
        mark = "" if world.size == 1 else fingerprint(source.path)
    except ConfigError as error:
        named = {KEY_HERE: KEY}
        raise ConfigError(replace(one, key=named.get(one.key, one.key)) for one in error.problems) from None
    except OSError as error:
        raise ConfigError(Problem(KEY, given, f"can be read ({error.strerror})", "restore access to it")) from None
    words, model = words_of(source), source.model
    if model.vocab % world.size and ":" not in model.family:
        # As many rows more as make it even; no token has them, and they are cut off from the logits.
        model = replace(model, vocab=-(-model.vocab // world.size) * world.size)
    mark += "" if words is None or world.size == 1 else words.fingerprint()
    return _Found(source, words, family_of(model), weights_of(source, model.vocab), mark)


def _refuse_other_sources(given: str, marks: Sequence[str]) -> None:
    if others := [rank for rank, mark in enumerate(marks) if mark != marks[0]]:
        rule = f"the same on every rank, tokenizer included; on ranks {others} it is not what rank 0 has"
        raise ConfigError(Problem(KEY, given, rule, "copy it to all nodes, or mount it"))


def _uncut(error: ConfigError, family: Family, size: int) -> ConfigError:
    """One problem of all the parameters that cannot be cut over so many ranks, where another number can."""
    with torch.device("meta"):
        model: Any = family.build()
    names = model.canonical_names()
    shapes = {names[name]: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    fewer = [number for number in range(1, size) if _fits(family, shapes, number)]
    if not fewer:
        return error
    first, count = error.problems[0], len(error.problems)
    rule = f"cuts every parameter: {first.key} is {list(shapes[first.key])}, and {count - 1} more are like it"
    remedy = f"--nproc_per_node {fewer[-1]}" + (f"; {', '.join(map(str, fewer[:-1]))} do as well" if fewer[1:] else "")
    return ConfigError(Problem("number of processes", size, rule, remedy))


def _fits(family: Family, shapes: Mapping[str, tuple[int, ...]], size: int) -> bool:
    try:
        family.plan.place(shapes, size, 0)
    except ConfigError:
        return False
    return True
