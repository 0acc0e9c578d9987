"""Processors are transformers', one by one and in its order; draws have the distribution that they are drawn from."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor
from transformers.generation import logits_process

from trainer.backends.common.host import HostExchange
from trainer.generation.processors import keep_min_p, keep_top_k, keep_top_p, penalise, processed
from trainer.generation.sampler import Sampler, draw
from trainer.generation.settings import Sampling

ROWS, VOCAB = 1000, 67


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    """Of every spread, a tenth of them rounded so that some are equal."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn((ROWS, VOCAB), generator=generator) * torch.logspace(-2, 1.5, ROWS).unsqueeze(1)
    drawn[::10] = drawn[::10].round(decimals=1)
    return drawn


@pytest.fixture(scope="module")
def texts() -> torch.Tensor:
    return torch.randint(0, VOCAB, (ROWS, 9), generator=torch.Generator().manual_seed(2))


def seen(texts: torch.Tensor) -> torch.Tensor:
    return torch.zeros((ROWS, VOCAB), dtype=torch.bool).scatter(1, texts, True)


@pytest.mark.parametrize("k", [1, 2, 50, 66, 67, 1000])
def test_top_k(logits: torch.Tensor, texts: torch.Tensor, k: int) -> None:
    assert torch.equal(keep_top_k(logits, k), logits_process.TopKLogitsWarper(k)(texts, logits.clone()))


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9, 0.95, 0.999])
def test_top_p(logits: torch.Tensor, texts: torch.Tensor, p: float) -> None:
    assert torch.equal(keep_top_p(logits, p), logits_process.TopPLogitsWarper(p)(texts, logits.clone()))


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 1.0])
def test_min_p(logits: torch.Tensor, texts: torch.Tensor, share: float) -> None:
    assert torch.equal(keep_min_p(logits, share), logits_process.MinPLogitsWarper(share)(texts, logits.clone()))


@pytest.mark.parametrize("penalty", [0.7, 1.1, 2.0])
def test_repetition_penalty(logits: torch.Tensor, texts: torch.Tensor, penalty: float) -> None:
    expected = RepetitionPenaltyLogitsProcessor(penalty)(texts, logits.clone())
    assert torch.equal(penalise(logits, seen(texts), penalty), expected)


@pytest.mark.parametrize(
    ("temperature", "k", "p", "share", "penalty"),
    [(0.7, 0, 1.0, 0.0, 1.0), (1.3, 20, 0.9, 0.05, 1.2), (0.2, 5, 0.5, 0.3, 0.9), (3.0, 0, 0.8, 0.02, 1.5)],
)
def test_all_in_the_order_of_generate(
    logits: torch.Tensor, texts: torch.Tensor, temperature: float, k: int, p: float, share: float, penalty: float
) -> None:
    """The list is the one that transformers' own generate puts together."""
    from tests.families.pairs import pair

    theirs: Any = pair("llama", "llama 1").theirs
    asked = {"temperature": temperature, "top_k": k, "top_p": p, "min_p": share, "repetition_penalty": penalty}
    settings, _ = theirs._prepare_generation_config(None, do_sample=True, **asked)
    list_of_theirs = theirs._get_logits_processor(settings, input_ids_seq_length=9, device="cpu")
    assert isinstance(list_of_theirs, LogitsProcessorList)
    sampling = Sampling(penalty, temperature, k, p, share)
    found = processed(logits, sampling, seen(texts) if penalty != 1 else None)
    assert torch.equal(found, list_of_theirs(texts, logits.clone()))


def test_draws_have_the_distribution() -> None:
    """50,000 draws: each frequency within 5 standard deviations; what is ruled out never comes."""
    draws, vocab = 50_000, 12
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(4))
    logits[[0, 5, 11]] = -torch.inf
    sampler = Sampler(Sampling(temperature=1.0, seed=7), [[1]] * draws, range(draws), vocab, HostExchange())
    counts = Counter(sampler(logits.expand(draws, vocab)))
    for token, probability in enumerate(logits.softmax(-1).tolist()):
        bound = 5 * (draws * probability * (1 - probability)) ** 0.5
        assert abs(counts[token] - draws * probability) <= bound


def test_draws_are_even_and_depend_on_all_three() -> None:
    draws = [draw(seed, row, step) for seed in range(20) for row in range(20) for step in range(20)]
    assert len(set(draws)) == len(draws)
    assert 0 <= min(draws) < 0.01
    assert 0.99 < max(draws) < 1
    assert abs(sum(draws) / len(draws) - 0.5) < 0.02


def test_a_row_draws_the_same_in_any_batch() -> None:
    logits = torch.randn((6, 40), generator=torch.Generator().manual_seed(6))
    sampling = Sampling(temperature=1.5, seed=3)
    together = Sampler(sampling, [[1]] * 6, range(6), 40, HostExchange())
    apart = [Sampler(sampling, [[1]], [row], 40, HostExchange()) for row in range(6)]
    for _ in range(5):
        assert together(logits) == [one(logits[row : row + 1])[0] for row, one in enumerate(apart)]
