"""Checksums of copies: what they notice, and what they are compared with."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from trainer.parallel.boxes import Box, Placed, whole_box
from trainer.training.replicas import ROW, _unlike, checksum, copies_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64])
@pytest.mark.parametrize("size", [1, 7, 8 * ROW, 8 * ROW + 3])
def test_any_flipped_bit_is_noticed(dtype: torch.dtype, size: int) -> None:
    values = torch.arange(size).to(dtype)
    before, draw = checksum(values), random.Random(0)
    data = values.view(torch.uint8)
    for _ in range(50):
        place, bit = draw.randrange(data.numel()), 1 << draw.randrange(8)
        data[place] ^= bit
        assert checksum(values) != before
        data[place] ^= bit
    assert checksum(values) == before


def test_it_is_the_sum_that_it_says() -> None:
    """Written again in Python's integers: rows of 4,096 words modulo 2^64, times odd multiples of the golden ratio."""
    values = torch.randint(-(2**62), 2**62, (2 * ROW + 5,))
    words = [int(word) % 2**64 for word in values] + [0] * (ROW - 5)
    rows = [sum(words[start : start + ROW]) % 2**64 for start in range(0, len(words), ROW)]
    expected = sum(row * (2 * i + 1) * 0x9E3779B97F4A7C15 for i, row in enumerate(rows)) % 2**64
    assert checksum(values) == expected


def test_rows_that_change_places_are_noticed_and_layout_in_memory_is_not() -> None:
    values = torch.randn(3, 2 * ROW)
    assert checksum(values) != checksum(values[[1, 0, 2]])
    turned = values.t().contiguous().t()
    assert not turned.is_contiguous()
    assert checksum(turned) == checksum(values)
    assert checksum(torch.zeros(0)) == 0


def test_the_same_part_has_one_place_on_every_rank_and_others_have_others() -> None:
    box = whole_box("norm.weight", (4,))
    half = Box("w", (4, 2), (2, 0), (2, 2), (slice(0, 2), slice(0, 2)))
    held = {"weights": {"norm.weight": Placed(torch.ones(4), (box,), (4,))}}
    more = {**held, "moments": {"exp_avg.w": Placed(torch.ones(2, 2), (half,), (4, 2))}}
    one, two = list(copies_of(held)), list(copies_of(more))
    assert one[0].place == two[0].place != two[1].place
    assert str(two[1]) == "moments exp_avg of w from [2, 0] of [2, 2]"


def test_a_tensor_that_is_weight_and_master_is_looked_at_once() -> None:
    placed = Placed(torch.ones(4), (whole_box("w", (4,)),), (4,))
    assert [copy.kind for copy in copies_of({"weights": {"w": placed}, "masters": {"w": placed}})] == ["weights"]


def test_differences_are_found_among_all_ranks_lists() -> None:
    kind = np.dtype([("place", "<u8"), ("sum", "<u8")])
    lists = [[(1, 10), (2, 20)], [(1, 10), (3, 30)], [(1, 11), (2, 20)], [(3, 30)]]
    listed = np.concatenate([np.array(one, dtype=kind) for one in lists])
    ranks = np.repeat(np.arange(4), [len(one) for one in lists])
    assert _unlike(listed, ranks) == {1: {10: [0, 1], 11: [2]}}
