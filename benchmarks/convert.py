"""Weights in and out against what one would use instead, at 1.0B parameters (4 GB in FP32), ZeRO 3 over 4 processes.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc_per_node 4 benchmarks/convert.py [--rounds 3] [--scratch DIRECTORY]

In: the directory's weights into each rank's boxes. Against safetensors' own reader, which gets the same slices into
fresh tensors of the final dtype. In each round both take turns on all ranks together, files in the page cache, and the
slowest rank counts. Memory: RssAnon, by a process that looks every 5 ms: its peak while a fresh model is filled, over
what the rank holds when that is done.

Out: the same model's checkpoint as a directory, in a process of its own. Against os.write of as many bytes in blocks of
8 MB, then fsync. Printed are medians of rounds, and of ratios within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.distributed as dist
from checkpoint import Memory, anonymous, rested
from hydra import compose, initialize_config_dir
from safetensors import safe_open

from recipes.parts import make_backend
from trainer.backends.common.peers import Peers
from trainer.checkpoint.hashed_file import BLOCK, write_synced
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.checkpoint.tensorfile import header
from trainer.commands import entry
from trainer.config.compose import to_config
from trainer.config.diagnose import CONF
from trainer.config.schema import Config
from trainer.files import write_json
from trainer.models.family import family_of
from trainer.parallel.boxes import Box, Placed, Store
from trainer.pretrained.config_json import config_json, format_of
from trainer.pretrained.export import export
from trainer.pretrained.shards import INDEX, entries_in, index_json, split
from trainer.pretrained.source import open_source
from trainer.pretrained.weights import weights_of
from trainer.rules.derived import derive
from trainer.run.directory import config_yaml
from trainer.run.world import World

MODEL = [
    *("model.hidden=2048", "model.layers=16", "model.heads=32", "model.kv_heads=8", "model.mlp=8192"),
    *("model.vocab=16384", "model.tied=true"),
]
SHARD = 2 * 10**9


def configured() -> Config:
    """1.0B parameters in the shape of Llama 3.2."""
    entry.register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["recipe=tiny", *MODEL, "parallel.zero=3", "precision=fp32", "backend=native"]
        return to_config(compose("train", overrides=overrides))


def write_directory(directory: Path, config: Config) -> None:
    """Random weights, in shards."""
    directory.mkdir()
    shards = split(format_of(config.model.family).tensors(config.model), entries_in("float32"), SHARD)
    block = torch.randn(1 << 21).mul_(0.02)

    def data(number: int) -> Iterator[memoryview | bytes]:
        yield header((tensor.name, "float32", tensor.shape) for tensor in shards[number].tensors)
        left = sum(4 * torch.Size(tensor.shape).numel() for tensor in shards[number].tensors)
        while left:
            size = min(left, block.nbytes)
            yield memoryview(block.numpy()).cast("B")[:size]
            left -= size

    for number, shard in enumerate(shards):
        write_synced(directory / shard.file, data(number))
    write_json(directory / INDEX, index_json(shards, entries_in("float32")))
    write_json(directory / "config.json", config_json(config.model, "float32"))


def boxes(store: Store) -> list[Box]:
    return [box for placed in store.model.values() for box in placed.boxes]


def ours(directory: Path, wanted: list[Box], vocab: int) -> None:
    """Everything from opening the directory on."""
    read = weights_of(open_source(str(directory)), vocab)
    kept = [torch.empty(box.sizes).copy_(read(box)) for box in wanted]
    assert kept


def library(directory: Path, wanted: list[Box]) -> None:
    """The same slices by safetensors' reader, as one writes it by hand."""
    where = json.loads((directory / INDEX).read_text())["weight_map"]
    with ExitStack() as stack:
        files = {name: stack.enter_context(safe_open(directory / name, "pt")) for name in set(where.values())}
        kept = []
        for box in wanted:
            part = files[where[box.name]].get_slice(box.name)
            rows = part[tuple(slice(o, o + n) for o, n in zip(box.offsets, box.sizes, strict=True))]
            kept.append(torch.empty(box.sizes).copy_(rows))  # what it gives is a view of the mapped file
    assert kept


def slowest(action: Callable[[], object]) -> float:
    """Seconds of the slowest rank."""
    dist.barrier()
    start = time.perf_counter()
    action()
    seconds = torch.tensor(time.perf_counter() - start, dtype=torch.float64)
    dist.all_reduce(seconds, op=dist.ReduceOp.MAX)
    return float(seconds)


def bring_in(scratch: Path, rounds: int) -> tuple[Path, Iterator[str]]:
    """On every rank; the checkpoint that rank 0 then exports, and lines."""
    config, world = configured(), World.from_environment()
    backend = make_backend(config, derive(config, world), world)
    backend.setup(Peers.join(world, 60))
    directory = scratch / "model"
    if not world.rank:
        write_directory(directory, config)
    dist.barrier()
    family = family_of(config.model)
    backend.shard(family.build, family.plan, "fp32")
    with Memory() as memory:
        before = anonymous()
        backend.load_initial(weights_of(open_source(str(directory)), config.model.vocab))
        held = anonymous() * 1024
    share = torch.tensor((1024 * before + memory.above) / held, dtype=torch.float64)
    dist.all_reduce(share, op=dist.ReduceOp.MAX)
    wanted = boxes(backend.store())
    size = sum(4 * torch.Size(box.sizes).numel() for box in wanted)
    found: dict[str, list[float]] = {"ours": [], "safetensors": []}
    readers = {
        "ours": lambda: ours(directory, wanted, config.model.vocab),
        "safetensors": lambda: library(directory, wanted),
    }
    for number in range(rounds):
        for name in sorted(readers, reverse=bool(number % 2)):  # neither always goes first
            found[name].append(slowest(readers[name]))
    weights: dict[str, Placed] = dict(backend.store().model)
    saver = Saver(scratch / "checkpoints", 0, config_yaml(config, scratch), {}, backend.saving.group)
    checkpoint = saver.save(Store(weights, {}), TrainState(step=1))
    backend.close()
    return checkpoint, describe("in", size, found, {"peak / held when done": (float(share), "<= 1.15")})


def describe(what: str, size: int, found: dict[str, list[float]], more: dict[str, tuple[float, str]]) -> Iterator[str]:
    """Lines of a table. found: ours, and what it is held against."""
    mine, theirs = found.values()
    for name, seconds in found.items():
        median = statistics.median(seconds)
        yield f"{what:4} {name:22} {median:8.3f} s  {size / median / 1e9:6.2f} GB/s a process"
    ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
    for name, (value, limit) in {f"time, ours / {list(found)[1]}": (ratio, "<= 1.3"), **more}.items():
        yield f"{what:4} {name:34} {value:8.3f}   {limit}"


def raw(file: Path, size: int) -> None:
    """As many bytes, and nothing else."""
    block = memoryview(os.urandom(BLOCK))
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    for start in range(0, size, BLOCK):
        os.write(descriptor, block[: min(BLOCK, size - start)])
    os.fsync(descriptor)
    os.close(descriptor)


def resident_peak() -> int:
    """Of this program, bytes. getrusage's figure would begin with that of the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def take_out(checkpoint: Path, scratch: Path, rounds: int) -> Iterator[str]:
    """In a process that has done nothing else."""
    found: dict[str, list[float]] = {"ours": [], "os.write and fsync": []}
    size, anonymous_peak = 0, 0
    for number in range(rounds):
        with rested(scratch) as there, Memory() as memory:
            before, start = anonymous() * 1024, time.perf_counter()
            size = export(checkpoint, there / "out").bytes
            found["ours"].append(time.perf_counter() - start)
        anonymous_peak = max(anonymous_peak, before + memory.above)
        if not number:
            largest = resident_peak()
        with rested(scratch) as there:
            start = time.perf_counter()
            raw(there / "raw", size)
            found["os.write and fsync"].append(time.perf_counter() - start)
    memory_of = {
        "anonymous memory, peak, GB": (anonymous_peak / 1e9, "< 1.2"),
        "resident size, peak, GB": (largest / 1e9, "with mapped files"),
    }
    yield from describe("out", size, found, memory_of)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path(), help="where to write 12 GB: a real file system")
    parser.add_argument("--export", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export is not None:
        print("\n".join(take_out(options.export, options.scratch, options.rounds)))
        return
    rank = int(os.environ["RANK"])
    scratch = options.scratch.resolve() / "convert-scratch"
    if not rank:
        scratch.mkdir(parents=True)
    while not scratch.exists():
        time.sleep(0.05)
    try:
        checkpoint, lines = bring_in(scratch, options.rounds)
        if rank:
            return
        print("\n".join(lines), flush=True)
        alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
        command = [sys.executable, __file__, "--export", str(checkpoint), "--scratch", str(scratch)]
        subprocess.run([*command, "--rounds", str(options.rounds)], check=True, env=alone)
    finally:
        if not rank:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
