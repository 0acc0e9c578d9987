"""Four ranks, in forks of this process, compare the collectives of two stages over gloo."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import torch.distributed as dist

from tests.distributed.forked import launch
from trainer.backends.neuron.graphs.agreement import DisagreementError, Item, agree_on, host_group

FIRST: list[Item] = [("all-reduce", 8, "bf16", 128), ("all-gather", 8, "bf16", 128)]
ODD: list[Item] = [("all-reduce", 8, "bf16", 128), ("all-gather", 8, "f32", 256)]


def work(results: Path) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    groups = [host_group(stage, seconds=30) for stage in ((0, 1), (2, 3))]
    said = None
    try:
        agree_on("forward-backward", ODD if rank == 3 else FIRST, groups[rank // 2])
    except DisagreementError as error:
        said = {"message": str(error), "code": int(error.code), "rank": error.rank}
    (results / f"{rank}.json").write_text(json.dumps(said))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    out = Path(sys.argv[1])
    launch(out / "logs", 4, partial(work, out))
