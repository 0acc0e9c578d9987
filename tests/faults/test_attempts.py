"""Workers of a second attempt meet each other, and not the addresses that the first attempt's left in torch's store."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch.distributed as dist

from tests import harness

pytestmark = pytest.mark.slow

WORKER = """
import os
from datetime import timedelta
from functools import partial
import torch
import torch.distributed as dist
from trainer.backends.native.groups import join, new_group
from trainer.parallel.mesh import Mesh
rank, patience = int(os.environ["RANK"]), timedelta(seconds=20)
groups = join(Mesh(rank, dp=2), None, partial(new_group, timeout=patience), patience, "gloo")
total = torch.ones(1)
dist.all_reduce(total, group=groups["dp"])
assert total.item() == 2
os._exit(0)  # as a killed worker: nothing is cleaned up
"""


def attempt(port: int, name: str) -> list[int]:
    """Exit codes of two workers that use the launcher's store at ``port``."""
    shared = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "PYTHONPATH": str(harness.ROOT),
        "TORCHELASTIC_USE_AGENT_STORE": "True", "TRAINER_ATTEMPT": name,
    }  # fmt: skip
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER], env={**os.environ, **shared, "RANK": str(rank)}, stderr=subprocess.DEVNULL
        )
        for rank in range(2)
    ]
    return [worker.wait(timeout=90) for worker in workers]


def test_attempts_of_different_names_share_a_store() -> None:
    """Under one name, a rank may find the port of one that is dead: "Connection refused", or a wait that times out."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    assert [attempt(store.port, f"attempt-{number}") for number in range(8)] == [[0, 0]] * 8
