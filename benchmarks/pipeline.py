"""How long the ranks of a pipeline wait: measured over two processes of one thread each, beside the published formula.

    python benchmarks/pipeline.py [--schedule 1f1b] [--microbatches 4 8] [--steps 20]

Idle share of a rank: 1 - time inside forward and backward / time of the step; of the pipeline: the mean over its ranks.
Formula, p ranks and m microbatches: (p - 1) / (m + p - 1) for 1f1b (Narayanan et al. 2021, arXiv:2104.04473); those of
the other schedules stand in trainer/parallel/bubble.py. Wants two idle cores: other jobs disturb it either way.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from trainer.backends.native.pipeline.engine import Pipeline
from trainer.backends.native.pipeline.stage import Stage
from trainer.batch import Batch
from trainer.config.groups.model import ModelConfig
from trainer.models.decoder import CausalLM
from trainer.parallel.bubble import idle_share
from trainer.parallel.stages import cut_layers, local_stages, stage_costs

PP = 2
# The head costs as much as a layer, so nine layers make two equal stages: five, and four with the head.
MODEL = ModelConfig(hidden=512, layers=9, heads=8, kv_heads=8, mlp=1408, vocab=6400)


class Stopwatch:
    """Seconds that this process spends computing, communication excluded."""

    def __init__(self) -> None:
        self.seconds = 0.0
        for name in ("forward_one_chunk", "backward_one_chunk", "backward_weight_one_chunk"):
            setattr(Stage, name, self._timed(getattr(Stage, name)))

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return wrapped


def build(rank: int, virtual_stages: int, seq: int, kind: str) -> Pipeline:
    """This rank's stages of a randomly initialised model, with gradients in place."""
    cut = cut_layers(MODEL, seq, PP * virtual_stages)
    modules: dict[int, nn.Module] = {}
    for stage in local_stages(rank, PP, virtual_stages):
        model = CausalLM(MODEL)
        model.keep_stage(cut[stage])
        model.materialised()
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        modules[stage] = model
    return Pipeline(
        modules, PP * virtual_stages, kind, dist.group.WORLD,
        lambda batch, length: (batch, length, MODEL.hidden), torch.float32, lambda: None,
    )  # fmt: skip


def samples(count: int, seq: int) -> list[Batch]:
    """Microbatches of one sample, one document."""
    draw = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, MODEL.vocab, (count, 1, seq), generator=draw)
    positions = torch.arange(seq).unsqueeze(0)
    return [Batch.undrawn(t, t.roll(-1, dims=1), positions, torch.zeros_like(t)) for t in tokens]


def work(rank: int, store: str, arguments: argparse.Namespace) -> None:
    """One process: time the steps, and let rank 0 print."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=PP)
    watch, kind = Stopwatch(), arguments.schedule
    virtual_stages = 1 if kind == "1f1b" else 2
    pipeline = build(rank, virtual_stages, arguments.seq, kind)
    for count in arguments.microbatches:
        batches, times = samples(count, arguments.seq), []
        for _ in range(arguments.steps + 2):
            dist.barrier()
            watch.seconds, start = 0.0, time.perf_counter()
            pipeline.train(batches, 1e-3)
            times.append([time.perf_counter() - start, watch.seconds])
        gathered = [torch.empty(arguments.steps, 2, dtype=torch.float64) for _ in range(PP)]
        dist.all_gather(gathered, torch.tensor(times[2:], dtype=torch.float64))  # the first steps warm caches up
        if rank == 0:
            report(kind, virtual_stages, count, torch.stack(gathered))
    dist.destroy_process_group()


def report(kind: str, virtual_stages: int, count: int, times: torch.Tensor) -> None:
    """times: [ranks, steps, (step, computing)] in seconds. Prints one line: medians over the steps."""
    steps, busy = times[:, :, 0].amax(dim=0), times[:, :, 1]
    idle = statistics.median((1 - busy / steps).mean(dim=0).tolist())
    ranks = " ".join(f"{statistics.median(row.tolist()):8.3f}" for row in busy)
    expected = idle_share(kind, PP, virtual_stages, count)
    seconds = statistics.median(steps.tolist())
    print(f"{count:12d} {seconds:9.3f} {ranks} {idle:9.3f} {expected:9.3f} {idle - expected:+11.3f}", flush=True)


def measure(arguments: argparse.Namespace) -> None:
    """Spawn the two processes and print the table."""
    virtual_stages = 1 if arguments.schedule == "1f1b" else 2
    cut = cut_layers(MODEL, arguments.seq, PP * virtual_stages)
    costs = ", ".join(f"{cost:.3f}" for cost in stage_costs(MODEL, arguments.seq, cut))
    print(f"{arguments.schedule} over {PP} processes, one thread each; median of {arguments.steps} steps")
    print(f"layers of the stages {[len(layers) for layers in cut]}, their FLOPs relative to the mean {costs}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("microbatches    step s  rank 0 s rank 1 s      idle   formula  difference")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (str(Path(folder) / "store"), arguments), nprocs=PP)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedule", default="1f1b", choices=["1f1b", "interleaved_1f1b", "interleaved_zero_bubble"])
    parser.add_argument("--microbatches", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seq", type=int, default=128)
    measure(parser.parse_args())
