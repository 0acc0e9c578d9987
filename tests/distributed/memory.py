"""A rank's peak memory, measured in a real process and rehearsed on the fake backend, for the test beside it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from recipes.parts import make_backend, make_mesh
from recipes.rehearse import piece_of
from trainer.batch import Batch
from trainer.commands.entry import register_schema
from trainer.config.compose import to_config
from trainer.config.diagnose import CONF
from trainer.config.schema import Config
from trainer.models.decoder import CausalLM
from trainer.models.initialise import Initialiser
from trainer.models.sharding import sharding_plan
from trainer.rehearsal.rehearse import RankReport, rehearse_rank
from trainer.rules.derived import derive
from trainer.run.world import World

MICROBATCHES = 2


def configured(overrides: Sequence[str]) -> Config:
    """The configuration of a command line."""
    register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_config(compose("train", list(overrides)))


def rehearsed(overrides: Sequence[str], world: int) -> RankReport:
    """Rank 0 of ``world`` on the fake backend."""
    config = configured(overrides)
    derived = derive(config, World(size=world, cpu_bf16=True))
    piece = replace(piece_of(config, derived), microbatches=MICROBATCHES)
    return rehearse_rank(piece, make_mesh(config, derived, 0))


def give_freed_memory_back() -> None:
    """Keep the size from which a block is a mapping of its own at its initial 128 KiB (man 3 mallopt).

    By itself it rises with the blocks that are freed, up to 32 MiB, and what is freed then stays with the process: up
    to a quarter more here, from one run to the next.
    """
    mmap_threshold = -3
    assert ctypes.CDLL(None).mallopt(mmap_threshold, 128 * 1024)


def anonymous_bytes() -> int:
    """Resident anonymous memory of this process: RssAnon of /proc/self/status (man 5 proc)."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


@contextmanager
def sampling(peak: list[int]) -> Iterator[None]:
    """Keep the largest reading of every millisecond or so in ``peak``."""
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.001):
            peak[0] = max(peak[0], anonymous_bytes())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def measured(overrides: Sequence[str]) -> int:
    """Bytes that a step and what it stands on add to this process after set-up. Collective."""
    give_freed_memory_back()
    world, config = replace(World.from_environment(), cpu_bf16=True), configured(overrides)
    backend = make_backend(config, derive(config, world), world)
    backend.setup()
    shape = (config.train.microbatch, config.data.seq_len)
    tokens = torch.randint(config.model.vocab, shape)
    positions = torch.arange(shape[1]).expand(shape).contiguous()
    rest = (tokens.clone(), positions, torch.zeros_like(tokens))
    batches = [Batch.undrawn(tokens, *rest) for _ in range(MICROBATCHES)]
    # What the first product of matrices brings, threads and workspaces, is no part of a step.
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))
    before = anonymous_bytes()
    peak = [before]
    with sampling(peak):
        backend.shard(lambda: CausalLM(config.model), sharding_plan(config.model), config.precision.mode)
        backend.load_initial(Initialiser(sharding_plan(config.model), 1))
        backend.clip_and_apply(0.0)  # gradients and moments become resident
        backend.forward_backward(batches, 1e-3)
        backend.clip_and_apply(1e-4)
    backend.close()
    return peak[0] - before
