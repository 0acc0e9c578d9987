"""The batch and the parallel axes against the number of processes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.rules.quantities import backend_name, model_parallel_size
from trainer.rules.values import lookup
from trainer.run.world import World
from trainer.trainium.topology import CORES_OF_A_NODE
from trainer.trainium.torchrun import torchrun


def batch(config: Config, world: World) -> Iterator[Problem]:
    """The global batch must split evenly into samples, ranks and microbatches."""
    per_step, seq, micro = config.train.tokens_per_step, config.data.seq_len, config.train.microbatch
    if min(per_step, seq, micro, model_parallel_size(config)) <= 0:
        return
    if per_step % seq:
        near = max(seq, round(per_step / seq) * seq)
        yield Problem("train.tokens_per_step", per_step, f"a multiple of data.seq_len ({seq})", f"use {near}")
        return
    dp, left_over = divmod(world.size, model_parallel_size(config))
    samples = per_step // seq
    if dp and not left_over and samples % (micro * dp):
        fits = [n for n in range(1, samples + 1) if samples % (n * dp) == 0]
        remedy = (
            f"train.microbatch={max(n for n in fits if n <= micro or n == fits[0])}"
            if fits
            else f"train.tokens_per_step={seq * micro * dp}, or a number of processes that divides {samples}"
        )
        yield Problem(
            "train.microbatch",
            micro,
            f"microbatch x data-parallel size ({dp}) divides the {samples} samples of a step",
            remedy,
        )


def layout(config: Config, world: World) -> Iterator[Problem]:
    """The parallel axes against the number of processes."""
    size = model_parallel_size(config)
    if size > 0 and world.size % size:
        yield Problem(
            "parallel",
            f"tp {config.parallel.tp} x pp {config.parallel.pp} x cp {config.parallel.cp}",
            f"their product ({size}) divides the number of processes ({world.size})",
            command_line(config, world),
        )


def command_line(config: Config, world: World) -> str:
    """How to start this configuration with the smallest number of processes that fits it."""
    size, recipe = model_parallel_size(config), f"scripts/train.py recipe={config.recipe}"
    if backend_name(config, world) == "fake":
        return f"rehearsal.world={max(size, world.size // size * size)}, or another multiple of {size}"
    if backend_name(config, world) != "neuron":
        return f"torchrun --standalone --nproc_per_node {size} {recipe} ... (and your overrides)"
    nodes = math.lcm(size, CORES_OF_A_NODE) // CORES_OF_A_NODE
    launch = " ".join(argument.text for argument in torchrun(nodes, config.recipe or "run"))
    command = f"{launch} {recipe} ... (and your overrides)"
    if nodes == 1:
        return command
    return f"on each of {nodes} nodes or a multiple: {command}; HOST: the first node's address"


def tensor_parallel(config: Config, world: World) -> Iterator[Problem]:
    """Dims that the tensor-parallel ranks cut evenly. Heads need not divide: they are padded and replicated."""
    tp = config.parallel.tp
    if tp <= 1:
        return
    for key, what in (("model.mlp", "the feed-forward's width"), ("model.vocab", "rows of the embedding and the head")):
        size = lookup(config, key)
        if size > 0 and size % tp:
            legal = max(n for n in range(1, min(tp, size + 1)) if size % n == 0)
            remedy = f"parallel.tp={legal}, or {key}={-(-size // tp) * tp}"
            yield Problem(key, size, f"divided by parallel.tp ({tp}), which cuts {what}", remedy)


def rehearsal(config: Config, world: World) -> Iterator[Problem]:
    """backend=fake: one process pretends to be a rank of a world. Called with that world."""
    if config.backend.name != "fake":
        return
    if (world.launched or 1) > 1:
        rule = f"one process pretends all of them, and there are {world.launched}"
        yield Problem(
            "backend.name", "fake", rule, f"leave out torchrun: python scripts/train.py recipe={config.recipe} ..."
        )
    if ":" in config.optim.name:
        rule = "one of ours for a rehearsal: an optimizer of your own acts on values, and its tensors have none"
        yield Problem("optim.name", config.optim.name, rule, "optim.name=adamw; it keeps as much state or more")
    rank = config.rehearsal.rank
    if rank is not None and not 0 <= rank < world.size:
        rule = f"a rank of the pretended world: 0 to {world.size - 1}"
        yield Problem("rehearsal.rank", rank, rule, "choose one of them, a larger rehearsal.world, or leave it out")
