"""The quickened model computes the same function, for every family, and holds nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.families.cases import NAMES
from tests.generation.test_cache import CLOSE, NEW, directory, prompts, recomputed
from trainer.generation import fast, packed
from trainer.generation.cache import Cache
from trainer.generation.fast import quicken
from trainer.generation.generate import generate
from trainer.generation.kernels import kernels
from trainer.generation.opened import Opened, opened_model
from trainer.generation.settings import GREEDY, Limits
from trainer.generation.step import Step


def steps(opened: Opened, texts: list[list[int]]) -> torch.Tensor:
    """Logits of a prefill and of steps whose tokens are given: FP32 [step, row, vocab]."""
    shortest = min(map(len, texts)) - 4
    rows = [text[: len(text) - shortest + 1] for text in texts]
    with Cache(opened, rows, max(map(len, texts)) + NEW) as cache:
        found = [cache.prefill()]
        for step in range(1, 4):
            tokens = [[text[len(row) - 1 + step]] for text, row in zip(texts, rows, strict=True)]
            found.append(cache.forward(torch.tensor(tokens)))
    return torch.stack(found)


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(params=["kernels", "packed", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With kernels of our own; without a compiler for them; and without FBGEMM either."""
    way: str = request.param
    if way == "kernels" and kernels() is None:
        pytest.skip("no C++ compiler that makes the kernels")
    if way != "kernels":
        monkeypatch.setattr(fast, "kernels", lambda: None)
        monkeypatch.setattr(fast, "can_pack", lambda: way == "packed")
    return way


@pytest.mark.parametrize(("family", "name"), NAMES)
@pytest.mark.parametrize("way", ["kernels", "plain"], indirect=True)
def test_logits_stay_what_they_were(family: str, name: str, way: str, tmp_path: Path) -> None:
    with opened_model(str(directory(family, name, tmp_path / "model"))) as opened:
        texts = prompts(opened.model.vocab)
        before, whole = [steps(opened, texts), steps(opened, texts[:1])], recomputed(opened, texts[0])
        said = [continued(opened, texts), continued(opened, texts[1:2])]
        size = held(opened)
        quicken(opened)
        # The norms' weights are there twice more; no matrix is.
        assert held(opened) - size <= 4 * 4 * sum(one.numel() for one in opened.lowered.parameters() if one.dim() == 1)
        assert distance(steps(opened, texts), before[0]) <= CLOSE
        assert distance(steps(opened, texts[:1]), before[1]) <= CLOSE
        assert distance(recomputed(opened, texts[0]), whole) <= CLOSE
        assert [continued(opened, texts), continued(opened, texts[1:2])] == said


def continued(opened: Opened, texts: list[list[int]]) -> list[list[int]]:
    return [answer.tokens for answer in generate(opened, texts, GREEDY, Limits(NEW))]


@pytest.mark.skipif(kernels() is None, reason="no C++ compiler that makes the kernels")
@pytest.mark.parametrize(("family", "name"), [("llama", "grouped"), ("qwen3", "wide heads")])
def test_steps_of_activations_that_saturate(family: str, name: str, tmp_path: Path) -> None:
    """Gates far from 0, and all attention at one place."""
    with opened_model(str(directory(family, name, tmp_path / "model"))) as opened:
        texts = prompts(opened.model.vocab)
        for layer in opened.decoder.layers.values():
            layer.mlp.gate_proj.weight.data *= 100
            layer.self_attn.v_proj.weight.data *= 100
            (layer.self_attn.q_norm if family == "qwen3" else layer.self_attn.q_proj).weight.data *= 100
        expected = steps(opened, texts)
        quicken(opened)
        assert all(isinstance(layer.forward, Step) for layer in opened.decoder.layers.values())
        assert expected.isfinite().all()
        assert distance(steps(opened, texts), expected) <= 10 * CLOSE


def held(opened: Opened) -> int:
    """Bytes of all different storages of parameters and of what replaces norms."""
    tensors = [*opened.lowered.parameters()]
    tensors += [m.forward._weight for m in opened.lowered.modules() if hasattr(m.forward, "_weight")]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@pytest.mark.parametrize(
    ("family", "name"),
    [("llama", "smollm2"), ("qwen2", "grouped"), ("qwen3", "wide heads"), ("falcon", "40b"), ("gpt2", "gpt2")],
)
def test_bf16_is_as_close_to_fp32_as_before(family: str, name: str, way: str, tmp_path: Path) -> None:
    path = str(directory(family, name, tmp_path / "model"))
    with opened_model(path, "float32") as exact:
        texts = prompts(exact.model.vocab)
        expected = steps(exact, texts)
    with opened_model(path, "bfloat16") as opened:
        before = distance(steps(opened, texts), expected)
        quicken(opened)
        assert distance(steps(opened, texts), expected) <= 1.5 * before


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="torch without FBGEMM")
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize("largest", [1e-30, 1e-3, 1.0, 3e5, 1e30])
def test_a_packed_product_is_that_of_fp32(rows: int, largest: float, bias: bool) -> None:
    """Of values that FP16 has no room for, too, and of matrices whose values are far apart."""
    generator = torch.Generator().manual_seed(2)
    spread = torch.logspace(-6, 0, 40) * largest
    weight = (torch.randn((70, 40), generator=generator) * spread).bfloat16()
    x = torch.randn((rows, 1, 40), generator=generator) / spread * largest
    linear = torch.nn.Linear(40, 70, bias=bias, dtype=torch.bfloat16)
    linear.weight.data = weight
    if bias:
        linear.bias.data = (torch.randn(70, generator=generator) * largest).bfloat16()
    shift = linear.bias.double() if bias else None
    expected = F.linear(x.double(), weight.double(), shift)
    packed.pack(linear)
    with torch.no_grad():
        found = linear(x)
    assert found.shape == (rows, 1, 70)
    assert found.dtype == torch.float32
    assert ((found.double() - expected).abs() <= 1e-5 * expected.abs().max()).all()


def test_a_model_is_quickened_once(tmp_path: Path) -> None:
    with opened_model(str(directory("llama", "grouped", tmp_path / "model"))) as opened:
        quicken(opened)
        expected = recomputed(opened, range(9))
        quicken(opened)
        assert torch.equal(recomputed(opened, range(9)), expected)
