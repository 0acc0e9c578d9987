"""What ranks pay for not trusting each other: the exchange before a step, the look at the store, and the checksums.

    torchrun --standalone --nproc_per_node 2 benchmarks/trust.py [--run runs/tiny] [--gigabytes 1]

Exchanges: median of 1,000, ranks aligned by a barrier before each. Checksums: of a store of so many gigabytes, against
a synchronous save of the same store, on rank 0. run: a finished run, whose median step the exchanges are compared with.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from trainer.backends.common.host import HostExchange
from trainer.backends.common.peers import Peers
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.parallel.boxes import Placed, Store, whole_box
from trainer.run.world import World
from trainer.training.replicas import checksum, copies_of

ROUNDS = 1000
BEFORE, NOW = 3, 6
"""Integers of the exchange that opens a step: targets, stop, failed; and now place, its square, save."""


def median_seconds(action: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Of an action that all ranks begin together."""
    found = []
    for _ in range(rounds):
        dist.barrier()
        start = time.perf_counter()
        action()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def median_step(run: Path) -> float:
    """Seconds of a run's median step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return statistics.median(line["step_seconds"] for line in lines if line["kind"] == "step")


def state(gigabytes: float) -> Store:
    """Weights and two moments in matrices of 16 MB, FP32."""
    count, shape = max(1, round(gigabytes * 2**30 / 3 / 2**24)), (2048, 2048)
    names = [f"layers.{index}.weight" for index in range(count)]
    weights = {name: Placed(torch.randn(shape), (whole_box(name, shape),), shape) for name in names}
    moments = {
        f"{moment}.{name}": Placed(torch.randn(shape), (whole_box(name, shape),), shape)
        for moment in ("exp_avg", "exp_avg_sq")
        for name in names
    }
    return Store(weights, moments)


def checksums_against_a_save(gigabytes: float) -> tuple[float, float]:
    """Seconds of the checksums, and of a synchronous save; the best of three each, in turns."""
    store, scratch = state(gigabytes), Path(tempfile.mkdtemp(dir="."))
    held = {"weights": store.model, "moments": store.optimizer}
    sums, saves = [], []
    try:
        for step in range(3):
            start = time.perf_counter()
            for copy in copies_of(held):
                checksum(copy.values)
            sums.append(time.perf_counter() - start)
            start = time.perf_counter()
            Saver(scratch, 1, "", {}).save(store, TrainState(step=step + 1))
            saves.append(time.perf_counter() - start)
    finally:
        shutil.rmtree(scratch)
    return min(sums), min(saves)


def main() -> None:
    """Measure, and print on rank 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    options = parser.parse_args()
    peers = Peers.join(World.from_environment(), 60)
    dist.init_process_group("gloo", store=peers.store, rank=peers.rank, world_size=peers.size)
    host = HostExchange(dist.group.WORLD)
    before = median_seconds(lambda: host.sum([1] * BEFORE))
    now = median_seconds(lambda: host.sum([1] * NOW))
    second = median_seconds(lambda: host.sum([0]))
    look = median_seconds(lambda: peers.look("stop"))
    if peers.rank == 0:
        step = median_step(options.run) if options.run else None
        share = (lambda seconds: f"{seconds / step:9.4%}") if step else (lambda seconds: "")
        print(f"{'':<44}{'us':>8}   of a step" + (f" of {step * 1e3:,.1f} ms" if step else ""))
        for name, seconds in (
            ("exchange before a step, 3 integers", before),
            ("exchange before a step, 6 integers", now),
            ("  what the three more add", now - before),
            ("exchange before gradients are reduced", second),
            ("look at the store, a microbatch", look),
        ):
            print(f"{name:<44}{seconds * 1e6:8.1f}   {share(seconds)}")
    dist.barrier()
    dist.destroy_process_group()
    if peers.rank == 0:  # alone: a saver without a group is one of a single process
        sums, save = checksums_against_a_save(options.gigabytes)
        print(f"checksums of {options.gigabytes:g} GB: {sums:.3f} s; a save: {save:.3f} s; ratio {sums / save:.1%}")


if __name__ == "__main__":
    main()
