"""Kernels of our own: their products are exact ones but for rounding, and without a compiler there are none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from trainer.generation import kernels as module
from trainer.generation.kernels import MANY, Kernels, kernels


@pytest.fixture
def own() -> Kernels:
    found = kernels()
    if found is None:
        pytest.skip("no C++ compiler that makes the kernels")
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, MANY - 1, MANY])
@pytest.mark.parametrize("given", [1, 15, 16, 17, 40, 576])
def test_products_are_those_of_fp64(given: int, rows: int, dtype: torch.dtype, own: Kernels) -> None:
    """Whatever the order of a sum is, it is this close: n roundings of the sum of magnitudes."""
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn((71, given), generator=generator).to(dtype)
    x = torch.randn((given, 1, rows), generator=generator).transpose(0, 2)
    for bias in (None, torch.randn(71, generator=generator)):
        expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
        magnitudes = F.linear(x.double().abs(), weight.double().abs(), None if bias is None else bias.double().abs())
        found = own.linear(weight, bias, x)
        assert found.shape == (rows, 1, 71)
        assert found.dtype == torch.float32
        assert ((found.double() - expected).abs() <= 1e-6 * magnitudes).all()


def test_threads_change_no_bit(own: Kernels) -> None:
    weight, x, before = torch.randn(501, 64), torch.randn(3, 64), torch.get_num_threads()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(own.linear(weight, None, x))
    torch.set_num_threads(before)
    assert torch.equal(*found)


def test_what_is_no_number_stays_none(own: Kernels) -> None:
    weight, x = torch.randn(4, 20), torch.randn(2, 20)
    weight[1, 18] = x[1, 3] = float("nan")
    assert own.linear(weight, None, x).isnan().tolist() == [[False, True, False, False], [True] * 4]


@pytest.mark.parametrize("compiler", ["", "false", "/no/such/compiler", "true", "'"])
def test_without_a_compiler_there_are_none(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """None on PATH, one that fails, one that is not there, one that makes nothing, and a quote."""
    monkeypatch.setenv("CXX", compiler)
    if not compiler:
        monkeypatch.setenv("PATH", "")
    uncached: Any = module.kernels.__wrapped__
    assert uncached() is None
