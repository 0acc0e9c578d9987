"""A pretended world: process groups of any size in one process, and tensors that have a shape but no values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
import torch.distributed._tools.fake_collectives  # noqa: F401  (imported for what it registers: shapes of collectives)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def pretended_world(world: int, rank: int) -> Iterator[FakeTensorMode]:
    """This process is ``rank`` of ``world``: torch's "fake" process group, whose collectives return at once.

    Yields the mode under which tensors are fake, not entered. torch keeps one world a process: none may exist yet.
    """
    assert not dist.is_initialized(), "a pretended world inside a real one"
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world)
    try:
        # A backend's tables, computed on real tensors, may be combined with fake ones.
        yield FakeTensorMode(allow_non_fake_inputs=True)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
