"""The neuron backend's blockwise attention beside PyTorch's with a dense mask, on random tensors and any device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from trainer.backends.common.share import Share
from trainer.backends.common.visible import Visible
from trainer.backends.neuron.lowering.blockwise import blockwise_attend
from trainer.models.attention import Context
from trainer.trainium import blocks

BLOCK = 16
"""Of these tests, instead of the backend's."""
Results = list[torch.Tensor]
"""Attention's output, and the gradients of q, k and v."""


@dataclass(frozen=True)
class Case:
    """documents: lengths, over and over up to the last one, of a sample; padding: of its seq positions, the last ones.
    ranks: over which a sample is cut.
    """

    seq: int
    heads: int = 4
    kv_heads: int = 4
    documents: tuple[int, ...] = ()
    padding: int = 0
    window: int | None = None
    ranks: int = 1

    def ids(self) -> torch.Tensor:
        """int64 [2, seq]: the second sample has the first one's documents in the opposite order."""
        rows = []
        for lengths in (self.documents, self.documents[::-1]):
            row = [number for number, length in enumerate(lengths) for _ in range(length)]
            row += [len(lengths)] * (self.seq - len(row))
            rows.append(row[: self.seq - self.padding] + [-1] * self.padding)
        return torch.tensor(rows)


CASES = {
    "causal": Case(64),
    "documents": Case(64, documents=(5, 11, 16, 20)),
    "a document of one token": Case(48, documents=(15, 1, 1, 30)),
    "uneven": Case(55, documents=(20, 13)),
    "shared keys": Case(50, 6, 2, (7, 30)),
    "one key-value head": Case(40, 5, 1, (33,)),
    "padding": Case(64, documents=(10, 25), padding=23),
    "window": Case(64, window=20),
    "narrow window": Case(50, documents=(30,), window=3),
    "window of documents": Case(70, 4, 2, (9, 40), 6, window=17),
    "wide window": Case(40, window=100),
    "two ranks": Case(64, 4, 2, (5, 11, 16, 20), ranks=2),
    "three ranks, window, padding": Case(72, 4, 2, (30, 20), 10, window=25, ranks=3),
}


def tensors(case: Case, seed: int = 0) -> Results:
    """FP64 q, k, v and the output's gradient, of numbers that BF16 has."""
    generator = torch.Generator().manual_seed(seed)
    heads = (case.heads, case.kv_heads, case.kv_heads, case.heads)
    return [
        torch.randn(2, count, case.seq, 8, generator=generator, dtype=torch.float64).bfloat16().double()
        for count in heads
    ]


def dense(case: Case, dtype: torch.dtype = torch.float64) -> Results:
    """By PyTorch's function, and a mask that is written down here pair by pair."""
    at, ids = torch.arange(case.seq), case.ids()
    seen = (ids[:, :, None] == ids[:, None, :]) & (at[:, None] >= at)
    if case.window is not None:
        seen &= at[:, None] - at < case.window
    mask = seen.unsqueeze(1)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)

    return _run(attend, [tensor.to(dtype) for tensor in tensors(case)])


def blockwise(
    case: Case,
    dtype: torch.dtype,
    device: str = "cpu",
    attend: Callable[..., torch.Tensor] = blockwise_attend,
    prepare: Callable[[Visible], Any] = lambda visible: visible,
) -> Results:
    """By the backend, each rank's part of the queries to all keys in the order in which they are gathered.

    attend, prepare: another function, and what its context has in the place of a mask.
    """
    q, k, v, gradient = (tensor.to(device, dtype) for tensor in tensors(case))
    ids = case.ids().to(device)
    found: list[Results] = []
    order = Share(0, case.ranks).gathered(case.seq)
    for rank in range(case.ranks):
        share = Share(rank, case.ranks)
        mine = share.indices(case.seq)
        visible = share.visible(ids, case.window)
        context = Context(None, None, prepare(visible), ids, ids)  # type: ignore[arg-type]
        inputs = [q[:, :, mine], k[:, :, order], v[:, :, order], gradient[:, :, mine]]
        found.append(_run(lambda *heads, context=context: attend(*heads, context), inputs))
    back = torch.argsort(order)
    output, of_q = (torch.cat([part[index] for part in found], dim=2)[:, :, back] for index in (0, 1))
    of_k, of_v = (torch.stack([part[index].cpu() for part in found]).sum(0)[:, :, back] for index in (2, 3))
    return [output.cpu(), of_q.cpu(), of_k, of_v]


def _run(attend: Callable[..., torch.Tensor], given: Results) -> Results:
    inputs = [tensor.detach().requires_grad_() for tensor in given[:3]]
    result = attend(*inputs)
    result.backward(given[3])
    return [result.detach(), *(tensor.grad for tensor in inputs if tensor.grad is not None)]


def apart(one: Results, other: Results) -> float:
    """Largest difference of the four, each over the other's largest value."""
    pairs = zip(one, other, strict=True)
    return max(float((a.double() - b.double()).abs().max() / b.double().abs().max()) for a, b in pairs)


def beside_plain() -> dict[str, list[float]]:
    """By case: how far FP32 is from plain_attend; ``apart`` of BF16 and FP64, and of plain_attend;
    and the root mean square of the errors over that of plain_attend, where it is largest.
    """
    from trainer.backends.neuron.lowering.attention import plain_attend

    def plain(case: Case, dtype: torch.dtype) -> Results:
        return blockwise(case, dtype, attend=plain_attend, prepare=Visible.mask)

    blocks.BLOCK, found = BLOCK, {}
    for name, case in CASES.items():
        same = apart(blockwise(case, torch.float32), plain(case, torch.float32))
        exact, mine, other = dense(case), blockwise(case, torch.bfloat16), plain(case, torch.bfloat16)
        ratios = [
            float((a.double() - x).norm() / (b.double() - x).norm()) for a, b, x in zip(mine, other, exact, strict=True)
        ]
        found[name] = [same, apart(mine, exact), apart(other, exact), max(ratios)]
    return found


def on_lazy_tensors(name: str) -> list[float]:
    """How far FP32 and BF16 on torch_xla's lazy tensors, in blocks of 32, are from PyTorch's FP64 on the CPU."""
    import torch_xla

    device = str(torch_xla.device())  # before the first backward pass: autograd counts devices then
    blocks.BLOCK = 32
    exact = dense(CASES[name])
    return [apart(blockwise(CASES[name], dtype, device), exact) for dtype in (torch.float32, torch.bfloat16)]


def run_layers(layers: int) -> None:
    """Forward and backward of some layers of attention, 4 heads of 32 and 2,048 tokens, as one graph on XLA's CPU."""
    import torch_xla

    where = torch_xla.device()
    x = torch.ones(1, 4, 2048, 32).to(where).requires_grad_()
    weights = [torch.eye(32).to(where).requires_grad_() for _ in range(layers)]
    ids = (torch.arange(2048) // 300).unsqueeze(0).to(where)
    torch_xla.sync()
    visible = Share(0, 1).visible(ids)
    for weight in weights:
        context = Context(None, None, visible, ids, ids)  # type: ignore[arg-type]
        x = x + blockwise_attend(x @ weight, x @ weight.T, x, context)
    x.square().sum().backward()
    torch_xla.sync(wait=True)
