"""A run, a checkpoint or a Hugging Face directory, opened to compute with: weights that are only read, and words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from trainer.backends.common.host import HostExchange
from trainer.backends.native.backend import NativeBackend
from trainer.backends.native.device import device_of_process
from trainer.checkpoint.verify import fault
from trainer.config.groups.backend import BackendConfig
from trainer.config.groups.model import ModelConfig
from trainer.errors import ConfigError, Problem
from trainer.generation.frozen import no_optimizer
from trainer.generation.words import KEY, Words, words_of
from trainer.models.family import family_of
from trainer.parallel.mesh import Mesh
from trainer.pretrained.refused import refused
from trainer.pretrained.source import Source, fingerprint, open_source
from trainer.pretrained.weights import weights_of
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


@contextmanager
def opened_model(given: str, dtype: str | None = None, world: World | None = None) -> Iterator[Opened]:
    """Open it on every rank of this launch, whose processes are its tensor-parallel ranks; leave them behind it.

    dtype: float32 | bfloat16; None: BF16 where all tensors are, else FP32. Raises ConfigError where the source is not
    sound, its model cannot be cut over so many ranks, or ranks have different sources; DataError for its tokenizer.
    """
    world = World.from_environment() if world is None else world
    source = _source(given, world)
    mesh = Mesh(world.rank, tp=world.size)
    backend = NativeBackend(mesh, no_optimizer, BackendConfig().timeout_seconds, device=device_of_process())
    # Before ranks meet: a mistake that all of them find is answered by each, and nobody waits for anybody.
    words, family, read = words_of(source), family_of(source.model), weights_of(source, source.model.vocab)
    if dtype is None:
        dtype = "bfloat16" if set(source.dtypes) == {"bfloat16"} else "float32"
    backend.setup()
    try:
        _refuse_other_sources(source, backend.host)
        plan = replace(family.plan, frozen=("*",))
        backend.shard(family.build, plan, PRECISIONS[dtype])
        backend.load_initial(read)
        backend.model.eval()
        decoder, head = (backend.model.get_submodule(path) for path in (plan.decoder, plan.head))
        window = window_of(source.model)
        yield Opened(source, source.model, backend.model, decoder, head, backend.dtype, window, words, backend.host)
    finally:
        backend.close()


def window_of(model: ModelConfig) -> int:
    """Tokens that the model is meant for; dynamic scaling stretches them by its factor."""
    scaling = model.rope_scaling
    stretched = int(scaling.factor * scaling.original_max_positions) if scaling.kind == "dynamic" else 0
    return max(model.max_positions, stretched)


def _source(given: str, world: World) -> Source:
    """Every byte of a checkpoint is verified, each rank its share; a directory has nothing to hold it against."""
    try:
        source = open_source(given)
        if source.stored is not None and (why := fault(source.path, world.rank, world.size)) is not None:
            raise refused(given, f"is a sound checkpoint; {why}", "name another step of the same run")
    except ConfigError as error:
        raise ConfigError(replace(problem, key=KEY) for problem in error.problems) from None
    return source


def _refuse_other_sources(source: Source, host: HostExchange) -> None:
    marks = [mark.decode() for mark in host.gather(fingerprint(source.path).encode())]
    others = [rank for rank, mark in enumerate(marks) if mark != marks[0]]
    if others:
        rule = f"the same on every rank; on ranks {others} it is not what rank 0 has"
        raise ConfigError(Problem(KEY, source.given, rule, "copy it to all nodes, or mount it"))
