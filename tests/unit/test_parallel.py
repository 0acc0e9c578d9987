"""Mesh order, boxes and layout-independent initialisation."""

from __future__ import annotations

import pytest
import torch

from trainer.models.initialise import Initialiser
from trainer.parallel.boxes import Box, whole_box
from trainer.parallel.heads import Heads
from trainer.parallel.mesh import AXES, Mesh
from trainer.parallel.plan import Plan, bias, matrix, norm

PLAN = Plan({"*.weight": matrix("column", 0.02), "*.bias": bias(), "ln_*.gain": norm()}, Heads(1, 1, 2))


def test_rank_order_is_tp_then_cp_then_dp_then_pp() -> None:
    """Worked out by hand from neuronx-distributed's order: the tensor-parallel neighbours are adjacent ranks."""
    mesh = Mesh(rank=13, tp=2, cp=1, dp=4, pp=2)
    assert mesh.world == 16
    assert {axis: mesh.coordinate(axis) for axis in AXES} == {"tp": 1, "cp": 0, "dp": 2, "pp": 1}
    assert mesh.group("tp") == (12, 13)
    assert mesh.group("dp") == (9, 11, 13, 15)
    assert mesh.group("pp") == (5, 13)
    assert mesh.group("cp") == (13,)


@pytest.mark.parametrize("sizes", [(2, 2, 3, 2), (1, 1, 4, 1), (8, 1, 1, 4)])
def test_groups_partition_the_world(sizes: tuple[int, int, int, int]) -> None:
    named = dict(zip(AXES, sizes, strict=True))
    world = Mesh(**named).world
    for axis in AXES:
        groups = {Mesh(rank=rank, **named).group(axis) for rank in range(world)}
        assert sorted(r for group in groups for r in group) == list(range(world))
        assert all(len(group) == named[axis] for group in groups)


def box(name: str, shape: tuple[int, ...], offsets: tuple[int, ...], sizes: tuple[int, ...]) -> Box:
    return Box(name, shape, offsets, sizes, tuple(slice(0, n) for n in sizes))


def test_any_cut_of_a_parameter_starts_bitwise_equal() -> None:
    draw = Initialiser(PLAN, seed=5)
    shape = (700, 33)
    whole = draw(whole_box("model.layers.0.mlp.up_proj.weight", shape))
    cuts = [((0, 0), (250, 33)), ((250, 0), (300, 33)), ((550, 5), (150, 28)), ((255, 32), (2, 1)), ((699, 0), (1, 33))]
    for offsets, sizes in cuts:
        part = draw(box("model.layers.0.mlp.up_proj.weight", shape, offsets, sizes))
        expected = whole[offsets[0] : offsets[0] + sizes[0], offsets[1] : offsets[1] + sizes[1]]
        assert torch.equal(part, expected)


def test_initial_values_depend_on_seed_name_and_rule() -> None:
    shape = (512, 64)
    values = Initialiser(PLAN, 1)(whole_box("a.weight", shape))
    assert values.std().item() == pytest.approx(0.02, rel=0.02)
    assert abs(values.mean().item()) < 0.001
    assert not torch.equal(values, Initialiser(PLAN, 2)(whole_box("a.weight", shape)))
    assert not torch.equal(values, Initialiser(PLAN, 1)(whole_box("b.weight", shape)))
    assert not torch.equal(values[:256], values[256:]), "blocks differ"
    assert torch.equal(Initialiser(PLAN, 1)(whole_box("ln_1.gain", (8,))), torch.ones(8))
    assert torch.equal(Initialiser(PLAN, 1)(whole_box("x.q_proj.bias", (8,))), torch.zeros(8))
