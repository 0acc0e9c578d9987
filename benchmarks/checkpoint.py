"""Saving and loading against what one would use instead: torch.save, the safetensors library, plain DCP.

    OMP_NUM_THREADS=2 python benchmarks/checkpoint.py [--gb 2] [--rounds 3] [--scratch DIRECTORY]

One process; the same state for all (weights and two moments, FP32). In each round all take turns, each after the disk
has come to rest, so that every ratio is of neighbours in time; printed are medians of rounds, and of ratios.

  raw         os.write of as many bytes in blocks of 8 MB, then fsync: what the disk can do
  torch.save  as people save: without fsync, a hash or a manifest
  begin()     what the loop waits for: the copy; a thread writes, hashes, fsyncs and commits beside it
  lazily      the copy too is made beside the next second of products (forward and backward); the loop waits for what is
              left of it before the update

Memory: a process of its own reads RssAnon of this one from /proc every 5 ms; the peak, less what it was before (the
live state; the page cache and mapped files are no anonymous memory). Steps: matrix products, timed alone and while a
save is in flight.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

from trainer.checkpoint.load import load_checkpoint
from trainer.checkpoint.save import Saver
from trainer.checkpoint.state import TrainState
from trainer.parallel.boxes import Placed, Store, whole_box

SIDE = 2048
WATCH = """
import sys, time
most = 0
path = f"/proc/{sys.argv[1]}/status"
print("ready", flush=True)
import select
while not select.select([sys.stdin], [], [], 0.005)[0]:
    for line in open(path):
        if line.startswith("RssAnon:"):
            most = max(most, int(line.split()[1]))
print(most)
"""


def anonymous() -> int:
    """This process's anonymous memory, kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


class Memory:
    """The peak of anonymous memory in a block, above what there was before it, bytes."""

    def __enter__(self) -> Memory:
        arguments = [sys.executable, "-c", WATCH, str(os.getpid())]
        self._watcher = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._watcher.stdout is not None
        self._watcher.stdout.readline()
        self._before, self.above = anonymous(), 0
        return self

    def __exit__(self, *exception: object) -> None:
        out, _ = self._watcher.communicate("stop\n")
        self.above = max(0, int(out) - self._before) * 1024


def make_store(gb: float) -> Store:
    """Square matrices; a third are weights, the others their moments."""
    count = max(1, round(gb * 1e9 / (SIDE * SIDE * 4) / 3))
    kinds = [f"layer.{i}" for i in range(count)]

    def placed(name: str) -> Placed:
        return Placed(torch.randn(SIDE, SIDE), (whole_box(name, (SIDE, SIDE)),), (SIDE, SIDE))

    moments = [f"{moment}.{name}" for moment in ("exp_avg", "exp_avg_sq") for name in kinds]
    return Store({name: placed(name) for name in kinds}, {name: placed(name) for name in moments})


def tensors(store: Store) -> dict[str, torch.Tensor]:
    """All of it, flat."""
    return {name: placed.tensor for part in (store.model, store.optimizer) for name, placed in part.items()}


def raw(directory: Path, state: dict[str, torch.Tensor]) -> None:
    descriptor = os.open(directory / "raw", os.O_WRONLY | os.O_CREAT)
    for tensor in state.values():
        data = memoryview(tensor.view(-1).view(torch.uint8).numpy())
        for start in range(0, len(data), 8 << 20):
            os.write(descriptor, data[start : start + (8 << 20)])
    os.fsync(descriptor)
    os.close(descriptor)


@contextmanager
def rested(scratch: Path) -> Iterator[Path]:
    """A directory of its own, on a disk that has nothing else to do."""
    directory = scratch / "turn"
    directory.mkdir()
    os.sync()
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
        os.sync()


class Steps:
    """A stand-in for training: matrix products."""

    def __init__(self) -> None:
        self._a, self._out = torch.randn(1024, 1024), torch.empty(1024, 1024)

    def while_(self, going: Callable[[], bool]) -> float:
        """Seconds a step, on average, as long as something goes on; the last step included."""
        start, count = time.perf_counter(), 0
        while going() or not count:
            torch.mm(self._a, self._a, out=self._out)
            count += 1
        return (time.perf_counter() - start) / count

    def alone(self, seconds: float = 2.0) -> float:
        deadline = time.perf_counter() + seconds
        return self.while_(lambda: time.perf_counter() < deadline)


class Bench:
    """Seconds and bytes by what was done: a list of rounds each."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self.store, self.state, self.scratch = store, tensors(store), scratch
        self.bytes = sum(tensor.nbytes for tensor in self.state.values())
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.memory: dict[str, list[float]] = defaultdict(list)
        self.steps = Steps()

    def timed(self, what: str, action: Callable[[], object]) -> None:
        with Memory() as memory:
            start = time.perf_counter()
            action()
            self.seconds[what].append(time.perf_counter() - start)
        self.memory[what].append(memory.above / self.bytes)

    def round(self) -> None:
        with rested(self.scratch) as there:
            self.timed("raw", lambda: raw(there, self.state))
        self.library_saves()
        with rested(self.scratch) as there:
            saver = Saver(there, 0, "", {})
            self.timed("ours: save()", lambda: saver.save(self.store, TrainState(step=1)))
            path = there / "step-00000001"
            self.timed("ours: load", lambda: load_checkpoint(path, self.store))
        self.save_beside()

    def library_saves(self) -> None:
        """Each saves and then loads, into new memory or into the live tensors, as it does by itself."""
        with rested(self.scratch) as there:
            file = there / "state.pt"
            self.timed("torch.save", lambda: torch.save(self.state, file))  # noqa: TID251 - to compare with
            self.timed("torch.load", lambda: torch.load(file, weights_only=True))  # noqa: TID251
        with rested(self.scratch) as there:
            self.timed("safetensors save_file", lambda: save_file(self.state, there / "state.safetensors"))
            self.timed("safetensors load_file", lambda: load_file(there / "state.safetensors"))
        with rested(self.scratch) as there:
            writer = dcp.FileSystemWriter(there / "dcp")  # noqa: TID251
            self.timed("DCP save", lambda: dcp.save(dict(self.state), storage_writer=writer, no_dist=True))
            reader = dcp.FileSystemReader(there / "dcp")  # noqa: TID251
            self.timed("DCP load", lambda: dcp.load(dict(self.state), storage_reader=reader, no_dist=True))

    def save_beside(self) -> None:
        """The first copy allocates its memory; rounds after the first use it again."""
        with rested(self.scratch) as there, Memory() as memory:
            saver = Saver(there, 0, "", {})
            start = time.perf_counter()
            saver.begin(self.store, TrainState(step=1))
            self.seconds["ours: begin(), cold"].append(time.perf_counter() - start)
            saver.wait()
            self.memory["ours: begin()"].append(0.0)
        self.memory["ours: begin()"][-1] = memory.above / self.bytes
        with rested(self.scratch) as there:
            saver.place = replace(saver.place, directory=there)
            stall = self.waits(lambda: saver.begin(self.store, TrainState(step=3), wait_for_copy=False))
            self.steps.alone(1.0)  # forward and backward; the update would come then
            self.seconds["ours: begin(), lazily"].append(stall + self.waits(saver.copied))
            saver.wait()
        for with_steps in (False, True):
            with rested(self.scratch) as there:
                saver.place = replace(saver.place, directory=there)
                start = time.perf_counter()
                saver.begin(self.store, TrainState(step=2))
                if not with_steps:
                    self.seconds["ours: begin()"].append(time.perf_counter() - start)
                    saver.wait()
                    self.seconds["ours: begin() to commit"].append(time.perf_counter() - start)
                    continue
                during = self.steps.while_(lambda: saver.finished() is None)
            self.seconds["a step during a save"].append(during)
            self.seconds["a step alone"].append(self.steps.alone())

    def waits(self, action: Callable[[], object]) -> float:
        """Seconds that the loop waits for an action."""
        start = time.perf_counter()
        action()
        return time.perf_counter() - start

    def ratio(self, one: str, other: str) -> float:
        """Median over rounds of the ratio within a round."""
        return statistics.median(a / b for a, b in zip(self.seconds[one], self.seconds[other], strict=True))


def report(bench: Bench) -> Iterator[str]:
    yield f"{bench.bytes / 1e9:.2f} GB of state, {len(bench.state)} tensors, {torch.get_num_threads()} thread(s)"
    yield f"{'':24}  {'seconds':>8}  {'GB/s':>6}  {'of raw':>7}  {'memory above the state':>22}"
    for what, seconds in bench.seconds.items():
        if what.startswith("a step"):
            continue
        median = statistics.median(seconds)
        memory = f"{statistics.median(bench.memory[what]):.3f} x" if what in bench.memory else ""
        yield (
            f"{what:24}  {median:8.3f}  {bench.bytes / median / 1e9:6.2f}  "
            f"{bench.ratio('raw', what):7.2f}  {memory:>22}"
        )
    yield ""
    limits = {
        "stall of begin(), lazily / torch.save": (bench.ratio("ours: begin(), lazily", "torch.save"), "<= 0.05"),
        "stall of begin() / torch.save": (bench.ratio("ours: begin()", "torch.save"), "printed"),
        "throughput to commit / raw with fsync": (bench.ratio("raw", "ours: begin() to commit"), ">= 0.8"),
        "throughput of save() / raw with fsync": (bench.ratio("raw", "ours: save()"), ">= 0.8"),
        "memory of begin() / state": (max(bench.memory["ours: begin()"]), "<= 1.1"),
        "memory of save() / state": (max(bench.memory["ours: save()"]), "<= 0.15"),
        "memory of load / state": (max(bench.memory["ours: load"]), "<= 0.3"),
        "a step during a save / alone": (bench.ratio("a step during a save", "a step alone"), "printed"),
    }
    for what, (value, limit) in limits.items():
        yield f"{what:40}  {value:8.3f}   {limit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path(), help="where to write: a real file system")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="bench-") as scratch:
        bench = Bench(make_store(options.gb), Path(scratch))
        for number in range(options.rounds):
            bench.round()
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    print("\n".join(report(bench)))


if __name__ == "__main__":
    main()
