"""What the fake backend's dispatch mode sees: bytes of a known sequence of allocations, axes of groups, true shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from trainer.config.groups.model import ModelConfig
from trainer.models.decoder import CausalLM
from trainer.parallel.mesh import Mesh
from trainer.rehearsal import shortcut
from trainer.rehearsal.collectives import Ledger
from trainer.rehearsal.flops import FlopCounter, Flops
from trainer.rehearsal.memory import LiveBytes
from trainer.rehearsal.verdict import Verdict
from trainer.rehearsal.watch import Watch


@pytest.fixture
def watch() -> Iterator[Watch]:
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    watch = Watch(fake, Ledger(Mesh()), FlopCounter(lambda: False), LiveBytes())
    with fake, watch:
        yield watch


def test_live_bytes_follow_a_known_sequence(watch: Watch) -> None:
    memory = watch.memory
    a = torch.empty(1000, dtype=torch.float32)
    b = a.view(10, 100)[2:]  # views own nothing
    c = torch.zeros(500, dtype=torch.bfloat16)
    assert (memory.live, memory.peak) == (5000, 5000)
    a.add_(1)
    assert memory.live == 5000
    del a
    assert memory.live == 5000, "the view keeps it"
    del b
    assert (memory.live, memory.peak) == (1000, 5000)
    assert memory.restart() == 1000
    d = c.float()
    assert (memory.live, memory.peak) == (3000, 3000)
    d.untyped_storage().resize_(0)
    assert (memory.live, memory.peak) == (1000, 3000)
    d.untyped_storage().resize_(4000)
    assert (memory.live, memory.peak) == (5000, 5000)
    del c, d
    assert memory.live == 0


def test_what_autograd_keeps_is_alive(watch: Watch) -> None:
    x = torch.ones(100, 100, requires_grad=True)
    watch.memory.restart()
    y = (x * x).exp().sum()  # exp keeps its result, mul its input; the square itself is gone after exp
    assert watch.memory.live == 2 * 40_000 + 4
    assert watch.memory.peak == 3 * 40_000
    y.backward()
    del y
    assert x.grad is not None
    assert watch.memory.live == 2 * 40_000


def test_somebody_elses_tensors_count_nothing(watch: Watch) -> None:
    with watch.fake:
        tokens = torch.zeros(8, 8)
    watch.memory.restart()
    watch.memory.ignore([tokens])
    kept = [tokens.view(64), tokens[1:]]
    assert len(kept) == 2
    assert watch.memory.peak == watch.memory.live


def test_products_are_counted(watch: Watch) -> None:
    torch.mm(torch.ones(3, 5), torch.ones(5, 7))
    torch.addmm(torch.ones(7), torch.ones(3, 5), torch.ones(5, 7))
    assert watch.flops.take() == Flops(matmul=2 * 2 * 3 * 5 * 7)
    torch.bmm(torch.ones(2, 3, 5), torch.ones(2, 5, 7))
    assert watch.flops.take() == Flops(attention=2 * 2 * 3 * 5 * 7)


def test_an_expensive_operator_that_is_unknown_is_no_silent_zero(watch: Watch) -> None:
    with pytest.raises(AssertionError, match="not counted"):
        torch.nn.functional.conv1d(torch.ones(1, 2, 8), torch.ones(3, 2, 3))


def test_axes_of_groups() -> None:
    ledger = Ledger(Mesh(0, tp=2, cp=2, dp=2, pp=2))
    names = {(0, 1): "tp", (0, 2): "cp", (0, 4): "dp", (0, 8): "pp", (0, 2, 4, 6): "data", (0, 3): "tp+cp"}
    assert {ranks: ledger.axis(ranks) for ranks in names} == names
    assert ledger.axis(tuple(range(16))) == "world"
    assert Ledger(Mesh(0, tp=4)).axis((0, 2)) == "tp", "a part of the axis"


SWITCHES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen3": {"qk_norm": "head", "head_dim": 32},
    "falcon": {"norm": "layer", "block": "parallel_one_norm", "activation": "gelu", "tied": True},
    "gpt2": {
        "norm": "layer", "activation": "gelu_tanh", "position": "learned", "tied": True,
        "qkv_bias": True, "o_bias": True, "mlp_bias": True,
    },
    "olmo2": {"block": "post", "qk_norm": "all"},
    "mistral": {"sliding_window": 4},
}  # fmt: skip


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES)
def test_the_short_way_gives_what_the_mode_gives(monkeypatch: pytest.MonkeyPatch, switches: dict[str, Any]) -> None:
    """Shape, stride, dtype, offset and sharing of memory, for every operator of a step in BF16."""
    original, compared = shortcut.Shortcut.__call__, set()

    def form(value: Any, args: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return [form(part, args) for part in value]
        assert type(value) is FakeTensor
        own = [a.untyped_storage()._cdata for a in args if isinstance(a, torch.Tensor)]
        shared = [storage == value.untyped_storage()._cdata for storage in own]
        return (value.shape, value.stride(), value.storage_offset(), value.dtype, value.device, shared)

    def both(self: Any, func: Any, args: Any, kwargs: Any) -> Any:
        result = original(self, func, args, kwargs)
        if func in shortcut.FRESH | shortcut.VIEWS:
            assert form(result, args) == form(func(*args, **kwargs), args), func
            compared.add(func)
        elif func in shortcut.IN_PLACE:
            assert result is args[0]
        return result

    monkeypatch.setattr(shortcut.Shortcut, "__call__", both)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    config = ModelConfig(hidden=64, layers=2, heads=4, kv_heads=2, mlp=96, vocab=512, **switches)
    with fake, Watch(fake, Ledger(Mesh()), FlopCounter(lambda: False), LiveBytes()):
        model = CausalLM(config).to(torch.bfloat16)
        model.materialised()
        tokens = torch.zeros(2, 16, dtype=torch.int64)
        for _ in range(2):
            loss, _ = model(tokens, tokens, tokens, tokens)
            loss.backward()
    assert len(compared) > 15


def test_the_verdict_is_the_formula_worked_out_by_hand() -> None:
    """DeepSeek 7B at TP 8 and DP 4: 864,014,336 parameters a rank x 9 bytes are 7.24 GiB."""
    verdict = Verdict("bf16_mixed", 864_014_336, 4, 5 * 2**30)
    assert verdict.static == 864_014_336 * 9
    assert verdict.total == 864_014_336 * 9 + 5 * 2**30 + 130 * 2**20
    assert verdict.fits
    assert "(2 + 4 + 12/4) bytes = 7.24 + activations 5.00 + gather bucket 0.13 = 12.37 GiB" in str(verdict)
    assert not Verdict("bf16_mixed", 864_014_336, 4, 7 * 2**30).fits
    assert "gather bucket" not in str(Verdict("fp32", 10, 1, 0))
