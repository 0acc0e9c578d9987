"""Where a pipeline is cut: which layers each stage computes, and on which rank a stage lives. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from trainer.config.arithmetic import flops_per_token
from trainer.config.groups.model import ModelConfig


def cut_layers(model: ModelConfig, seq_len: int, stages: int, cuts: Sequence[int] = ()) -> tuple[range, ...]:
    """Layers of each stage, first to last; every stage has at least one.

    cuts: number of layers of each stage, as the user wants it. Empty: the cut whose dearest stage is cheapest, in
    FLOPs; among equals the most even one with the short stages last. Raises ValueError
    where there are fewer layers than stages, or where ``cuts`` does not add up.
    """
    if not 1 <= stages <= model.layers:
        raise ValueError(f"{model.layers} layers do not make {stages} stages of at least one layer each")
    if not cuts:
        cuts = balance(model.layers, stages, head_layers(model, seq_len))
    elif len(cuts) != stages or sum(cuts) != model.layers or min(cuts) < 1:
        given = ", ".join(map(str, cuts))
        raise ValueError(f"cuts ({given}) are not {stages} positive numbers that add up to {model.layers} layers")
    ends = list(accumulate(cuts))
    return tuple(range(end - count, end) for end, count in zip(ends, cuts, strict=True))


def head_layers(model: ModelConfig, seq_len: int) -> float:
    """FLOPs of the head and its loss on a token, in units of a decoder layer's. The embedding's look-up is free."""
    head = 6 * model.vocab * model.hidden
    return head * model.layers / (flops_per_token(model, seq_len) - head)


def stage_costs(model: ModelConfig, seq_len: int, cut: Sequence[range]) -> tuple[float, ...]:
    """FLOPs of each stage relative to the mean of all stages, so that a perfect cut gives 1.0 everywhere."""
    costs = [float(len(layers)) for layers in cut]
    costs[-1] += head_layers(model, seq_len)
    mean = sum(costs) / len(costs)
    return tuple(cost / mean for cost in costs)


def balance(layers: int, stages: int, head: float) -> list[int]:
    """Number of layers of each stage so that the largest of n_1, ..., n_(S-1), n_S + head is least.

    A closed form, because all layers cost the same: whatever the last stage has, the others share the rest evenly,
    filled from the front, and the deepest of them has ceil(rest / (S - 1)). So only the last stage's number is
    searched: least maximum, then most even (sum of squares), then shortest last stage.
    """
    if stages == 1:
        return [layers]
    others = stages - 1

    def fill(last: int) -> list[int]:
        even, more = divmod(layers - last, others)
        return [even + 1] * more + [even] * (others - more) + [last]

    def price(counts: list[int]) -> tuple[float, float, int]:
        costs = [*counts[:-1], counts[-1] + head]
        return max(costs), sum(cost * cost for cost in costs), counts[-1]

    return min((fill(last) for last in range(1, layers - others + 1)), key=price)


def stage_rank(stage: int, pp: int) -> int:
    """The pipeline rank of a stage: stages go round the ranks, virtual ones included."""
    return stage % pp


def local_stages(pp_rank: int, pp: int, virtual_stages: int = 1) -> tuple[int, ...]:
    """The stages of a pipeline rank, in order; there are pp * virtual_stages stages in all."""
    if not 0 <= pp_rank < pp or virtual_stages < 1:
        raise ValueError(f"no rank {pp_rank} among {pp} with {virtual_stages} stages each")
    return tuple(range(pp_rank, pp * virtual_stages, pp))
