"""An embedding's rows add up in FP32 whatever their dtype; what that means for training: test_gradient_sums.py."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trainer.config.groups.model import ModelConfig
from trainer.lookup import lookup
from trainer.models.decoder import CausalLM
from trainer.models.embedding import Embedding, sum_in_fp32
from trainer.models.family import Family, family_of
from trainer.models.sharding import sharding_plan
from trainer.parallel.plan import matrix

SMALL = ModelConfig(hidden=32, layers=1, heads=2, kv_heads=2, mlp=32, vocab=512)


def gradient(tokens: torch.Tensor, upstream: torch.Tensor, vocab: int = 8) -> torch.Tensor:
    """Of an embedding of so many rows, in the dtype of the gradient of its output."""
    embedding = Embedding(vocab, upstream.shape[-1], dtype=upstream.dtype)
    embedding(tokens).backward(upstream)
    assert embedding.weight.grad is not None
    return embedding.weight.grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("count", [1_000, 100_000])
def test_many_ones_add_up_to_their_number(dtype: torch.dtype, count: int) -> None:
    """As far as the dtype has it: 100,000 is 99,840 in BF16."""
    found = gradient(torch.full((2, count // 2), 3), torch.ones(2, count // 2, 4, dtype=dtype))
    assert found.dtype == dtype
    assert torch.equal(found[3], torch.full((4,), float(count)).to(dtype))
    assert found[torch.arange(8) != 3].count_nonzero() == 0


def test_a_bf16_gradient_is_the_fp64_sum_rounded_once() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 8, (4, 1000), generator=generator)
    upstream = (torch.randn(4, 1000, 16, generator=generator) + 0.5).bfloat16()
    exact = F.one_hot(tokens.flatten(), 8).double().T @ upstream.double().flatten(0, 1)
    torch.testing.assert_close(gradient(tokens, upstream).double(), exact, rtol=2**-8, atol=0)


def test_fp32_is_torchs_own_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 8, (4, 1000), generator=generator)
    upstream = torch.randn(4, 1000, 16, generator=generator)
    weights = [torch.randn(8, 16, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2)]
    for weight, function in zip(weights, (lookup, F.embedding), strict=True):
        rows = function(tokens, weight)
        assert torch.equal(rows, weight[tokens])
        rows.backward(upstream)
    assert torch.equal(weights[0].grad, weights[1].grad)


def test_a_frozen_embedding_gets_none() -> None:
    embedding = Embedding(8, 4, dtype=torch.bfloat16).requires_grad_(False)
    assert not embedding(torch.zeros(1, 2, dtype=torch.int64)).requires_grad


class WithPositions(CausalLM):
    """A family of a user's own, with learned positions by torch's embedding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.model.positions = nn.Embedding(8, config.hidden)


def with_positions(config: ModelConfig) -> Family:
    rules = {**sharding_plan(config).rules, "model.positions.weight": matrix("none", config.init_std)}
    return Family(partial(WithPositions, config), replace(sharding_plan(config), rules=rules))


def test_a_familys_own_embeddings_add_up_too() -> None:
    config = replace(SMALL, family="tests.unit.test_embedding:with_positions")
    model = family_of(config).build().to(torch.bfloat16)
    rows = model.model.positions(torch.zeros(1, 1000, dtype=torch.int64))
    rows.backward(torch.ones_like(rows))
    assert model.model.positions.weight.grad[0].unique().tolist() == [1000.0]


def test_an_embedding_with_options_stays_torchs() -> None:
    model = nn.Sequential(nn.Embedding(8, 4, padding_idx=0), nn.Embedding(8, 4))
    sum_in_fp32(model)
    assert [type(module) for module in model] == [nn.Embedding, Embedding]
