"""Ranks that meet within a microbatch end before the same one, whoever hears of the stop and whenever."""

from __future__ import annotations

import random

import pytest
import torch.distributed as dist

from trainer.backends.common.peers import Peers
from trainer.parallel.mesh import Mesh
from trainer.training.brake import Brake

AXES = ("tp", "cp")


def simulate(seed: int, margin: int, ahead: int) -> dict[int, int]:
    """Ranks of dp 2 x tp 2 in a random order; a tensor-parallel rank is at most ``ahead`` before its fellow.

    Returns how many microbatches each has trained.
    """
    draw, store, count = random.Random(seed), dist.HashStore(), 40
    meshes = [Mesh(rank, tp=2, dp=2) for rank in range(4)]
    hears, when = draw.randrange(4), draw.randrange(count)
    at = [0] * 4
    ended: dict[int, int] = {}
    brakes = [
        Brake(Peers(store, m.rank, 4), m, AXES, margin, lambda m=m: m.rank == hears and at[hears] >= when, int)  # type: ignore[misc]
        for m in meshes
    ]
    for brake in brakes:
        brake.begin("step 0")
    while len(ended) < 4:
        rank = draw.choice([rank for rank in range(4) if rank not in ended])
        fellow = rank ^ 1
        # In microbatch n it waits for its fellow to enter n - ahead + 1, unless that one has ended for good.
        if at[rank] - at[fellow] >= ahead and fellow not in ended:
            continue
        if at[rank] == count or not brakes[rank](at[rank]):
            ended[rank] = at[rank]
        else:
            at[rank] += 1
    return ended


@pytest.mark.parametrize(("margin", "ahead"), [(1, 1), (8, 4)])
def test_fellows_end_before_the_same_microbatch(margin: int, ahead: int) -> None:
    stopped = 0
    for seed in range(300):
        ended = simulate(seed, margin, ahead)
        assert (ended[0], ended[2]) == (ended[1], ended[3]), (seed, ended)
        stopped += ended[0] < 40
    assert stopped > 200


def test_one_process_ends_at_once() -> None:
    asked = False
    brake = Brake(Peers(dist.HashStore()), Mesh(), AXES, 1, lambda: asked, int)
    brake.begin("step 0")
    assert brake(0)
    asked = True
    assert not brake(1)
    assert not brake(2)


def test_without_a_store_a_step_is_trained_to_its_end() -> None:
    """The launcher that hosts it may be gone: its workers are asked to stop, and cannot tell each other."""

    class Gone(Peers):
        def post(self, key: str, text: str) -> None:
            raise dist.DistNetworkError("Connection reset by peer")

    brake = Brake(Gone(dist.HashStore(), 0, 2), Mesh(0, tp=2), AXES, 1, lambda: True, int)
    brake.begin("step 0")
    assert all(brake(number) for number in range(5))
