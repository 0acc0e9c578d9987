"""What planning a save costs rank 0: DeepSeek 7B on 3,200 simulated ranks (TP 8 x DP 400, ZeRO over data).

    python benchmarks/checkpoint_planning.py [--tp 8] [--dp 400] [--model deepseek7b]

Each rank's report is made as that rank would make it, one after another. Timed is what rank 0 does with them: put them
together, prove that the chunks of every tensor cover it exactly once, write both indexes. And what any rank does at a
load: read them. Memory: the highest resident size of the process from the first report on, less that before it.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

from trainer.backends.native.lowering.fully_sharded import rows_of
from trainer.checkpoint.index import read_index, write_index
from trainer.checkpoint.names import PARTS
from trainer.checkpoint.report import Chunk, Reports, encode
from trainer.commands import entry
from trainer.config.compose import to_config
from trainer.config.diagnose import CONF
from trainer.models.family import family_of
from trainer.parallel.placement import Placement

MOMENTS = ("exp_avg", "exp_avg_sq")


def reports(model: str, tp: int, dp: int) -> Iterator[bytes]:
    """Every rank's report, in order of rank: tensor-parallel fastest."""
    entry.register_schema()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = to_config(compose("train", overrides=["recipe=tiny", f"model={model}"]))
    family = family_of(config.model)
    with torch.device("meta"):
        shapes = {name: tuple(parameter.shape) for name, parameter in family.build().named_parameters()}
    placed = [family.plan.place(shapes, tp, rank) for rank in range(tp)]
    for data_rank in range(dp):
        for placements in placed:
            yield encode(list(chunks(placements, data_rank, dp)), {})


def chunks(placements: dict[str, Placement], data_rank: int, dp: int) -> Iterator[Chunk]:
    """What a rank writes: its rows of the weights, then of both moments."""
    rows = {name: rows_of(placement, data_rank, dp) for name, placement in placements.items()}
    for part, prefix in ((PARTS[0], ""), *((PARTS[1], f"{moment}.") for moment in MOMENTS)):
        for name, placement in rows.items():
            for box in placement.boxes:
                if box.copy == 0:
                    yield Chunk(part, prefix + name, "float32", placement.shape, box.offsets, box.sizes)


def peak() -> float:
    """Highest resident size of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tp", type=int, default=8)
    parser.add_argument("--dp", type=int, default=400)
    parser.add_argument("--model", default="deepseek7b")
    options = parser.parse_args()
    found, spent, cpu, before, sent = Reports(), 0.0, 0.0, None, 0
    for rank, report in enumerate(reports(options.model, options.tp, options.dp)):
        before, sent = before or peak(), sent + len(report)
        start, computed = time.perf_counter(), time.process_time()
        found.add(rank, report)
        spent, cpu = spent + time.perf_counter() - start, cpu + time.process_time() - computed
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        start, computed = time.perf_counter(), time.process_time()
        tensors = found.together()
        for part in PARTS:
            (Path(scratch) / part).mkdir()
            write_index(Path(scratch) / part / "index.json", tensors.of(part))
        spent, cpu = spent + time.perf_counter() - start, cpu + time.process_time() - computed
        after = peak()
        size = sum(path.stat().st_size for path in Path(scratch).rglob("*.json"))
        start = time.perf_counter()
        stored = [read_index(Path(scratch) / part) for part in PARTS]
        reading = time.perf_counter() - start
    count = sum(len(tensor.ranks) for index in stored for tensor in index.values())
    print(f"{options.model}, {options.tp * options.dp:,} ranks: {count:,} chunks of {sum(map(len, stored)):,} tensors")
    print(f"  planning on rank 0    {spent:8.2f} s ({cpu:.2f} s of computing)    {after - (before or 0):.0f} MB")
    print(f"  reports received      {sent / 1e6:8.1f} MB   ({sent / (options.tp * options.dp) / 1e3:.1f} kB a rank)")
    print(f"  index.json, both      {size / 1e6:8.1f} MB   read and checked by a rank in {reading:.2f} s")


if __name__ == "__main__":
    main()
