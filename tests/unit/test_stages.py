"""Stage cuts: by hand, and against every possible cut of small models."""

from __future__ import annotations

from itertools import product

import pytest

from trainer.config.groups.model import ModelConfig
from trainer.parallel.stages import balance, cut_layers, head_layers, local_stages, stage_costs, stage_rank

# Published sizes (DeepSeek LLM, arXiv:2401.02954, table 2, and the released configuration's vocabulary).
DEEPSEEK_67B = ModelConfig(hidden=8192, layers=95, heads=64, kv_heads=8, mlp=22016, vocab=102400)
DEEPSEEK_7B = ModelConfig(hidden=4096, layers=30, heads=32, kv_heads=32, mlp=11008, vocab=102400)


def counts(model: ModelConfig, stages: int, cuts: tuple[int, ...] = ()) -> list[int]:
    return [len(layers) for layers in cut_layers(model, 4096, stages, cuts)]


def test_deepseek_67b() -> None:
    """95 layers: one fewer than the others on the last stage, whose head is worth about a layer."""
    assert counts(DEEPSEEK_67B, 4) == [24, 24, 24, 23]
    assert counts(DEEPSEEK_67B, 8) == [12] * 7 + [11]


def test_what_the_head_is_worth() -> None:
    """By hand, in multiply-adds of a token. 7B: head 102400 * 4096 = 419.4M; a layer 4 * 4096^2 + 3 * 4096 * 11008 =
    202.4M, and causal attention over 4096 tokens 4096 * 4096 = 16.8M (PaLM's 12 / 6, halved). 67B: head 838.9M; a
    layer 2 * 8192 * (64 + 8) * 128 + 3 * 8192 * 22016 = 692.1M, attention 33.6M.
    """
    assert head_layers(DEEPSEEK_7B, 4096) == pytest.approx(419.4304 / (202.3752 + 16.7772), rel=1e-4)
    assert head_layers(DEEPSEEK_67B, 4096) == pytest.approx(838.8608 / (692.0602 + 33.5544), rel=1e-4)


def test_the_head_takes_the_place_of_layers() -> None:
    """7B over 4: its head is worth 1.91 layers, so (30 + 1.91) / 4 = 7.98 each: 8, 8, 8 and 6 with the head."""
    assert counts(DEEPSEEK_7B, 4) == [8, 8, 8, 6]
    costs = stage_costs(DEEPSEEK_7B, 4096, cut_layers(DEEPSEEK_7B, 4096, 4))
    assert costs == pytest.approx([8 / 7.9785, 8 / 7.9785, 8 / 7.9785, 7.9139 / 7.9785], rel=1e-4)


def test_cuts_of_the_users() -> None:
    assert cut_layers(DEEPSEEK_7B, 4096, 3, [12, 10, 8]) == (range(0, 12), range(12, 22), range(22, 30))
    assert cut_layers(DEEPSEEK_7B, 4096, 1) == (range(0, 30),)


@pytest.mark.parametrize("cuts", [[15, 14], [30], [30, 0], [31, -1], [10, 10, 10]])
def test_cuts_that_do_not_add_up(cuts: list[int]) -> None:
    with pytest.raises(ValueError, match="add up to 30 layers"):
        cut_layers(DEEPSEEK_7B, 4096, 2, cuts)


@pytest.mark.parametrize("stages", [0, 31])
def test_more_stages_than_layers(stages: int) -> None:
    with pytest.raises(ValueError, match="30 layers do not make"):
        cut_layers(DEEPSEEK_7B, 4096, stages)


def test_no_cut_is_better() -> None:
    """Every cut of up to 9 layers into up to 5 stages, for heads of none to more than all layers together."""
    for layers, stages, head in product(range(1, 10), range(1, 6), (0.0, 0.4, 1.0, 1.6, 3.0, 12.0)):
        if stages > layers:
            continue
        every = [c for c in product(range(1, layers + 1), repeat=stages) if sum(c) == layers]
        least = min(max(*c[:-1], c[-1] + head) if stages > 1 else layers + head for c in every)
        ours = balance(layers, stages, head)
        assert tuple(ours) in every
        assert max([*ours[:-1], ours[-1] + head]) == pytest.approx(least)


def test_the_short_stage_is_the_last() -> None:
    assert balance(5, 3, 0.0) == [2, 2, 1]
    assert balance(9, 4, 0.0) == [3, 2, 2, 2]
    assert balance(95, 4, 0.0) == [24, 24, 24, 23]


def test_stages_go_round_the_ranks() -> None:
    assert local_stages(1, 4) == (1,)
    assert local_stages(1, 2, 3) == (1, 3, 5)
    assert [stage_rank(stage, 4) for stage in range(8)] == [0, 1, 2, 3, 0, 1, 2, 3]
    with pytest.raises(ValueError, match="no rank 4 among 4"):
        local_stages(4, 4)
