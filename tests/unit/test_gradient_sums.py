"""How far a BF16 gradient is off FP32's, by kind of parameter and microbatch: the table of docs/numerics.md.

pytest -s -m slow tests/unit/test_gradient_sums.py       prints it
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from trainer.config.groups.model import ModelConfig
from trainer.models.decoder import CausalLM

SEQ, SAMPLES, VOCAB = 512, 32, 2048
LLAMA = ModelConfig(hidden=128, layers=2, heads=4, kv_heads=2, mlp=256, vocab=VOCAB, qkv_bias=True)
GPT = replace(
    LLAMA, norm="layer", activation="gelu_tanh", position="learned", max_positions=SEQ, o_bias=True, mlp_bias=True
)
MICROBATCHES = (2, 8, 32)


def gradients(config: ModelConfig, dtype: torch.dtype, microbatch: int) -> dict[str, torch.Tensor]:
    """FP32 accumulators after 32 samples of Zipf's tokens. Initial weights are those of BF16 in either dtype."""
    generator = torch.Generator().manual_seed(5)
    shares = 1 / torch.arange(1, VOCAB + 1, dtype=torch.float64)
    tokens = torch.multinomial(shares, SAMPLES * SEQ, replacement=True, generator=generator).view(SAMPLES, SEQ)
    model = CausalLM(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(std=0.02, generator=generator)
        elif name.endswith("bias"):
            parameter.data.zero_()
        parameter.data = parameter.data.bfloat16().to(dtype)
    model.materialised()
    totals = {name: torch.zeros(parameter.shape) for name, parameter in model.named_parameters()}
    positions = torch.arange(SEQ).expand(microbatch, SEQ)
    for rows in tokens.split(microbatch):
        loss, _ = model(rows, rows.roll(-1, 1), positions, torch.zeros_like(rows))
        (loss / tokens.numel()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            totals[name] += parameter.grad.float()
            parameter.grad = None
    return {**totals, "most frequent token's row": totals["model.embed_tokens.weight"][0]}


def kind(name: str) -> str:
    """Layers share their kinds."""
    return ".".join(name.split(".")[-2:])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("config", [LLAMA, GPT], ids=["llama", "gpt"])
def test_no_kind_of_parameter_depends_on_the_microbatch(config: ModelConfig) -> None:
    """A key's bias is off most: its gradient is a difference of large sums, as softmax ignores what all keys share."""
    exact = gradients(config, torch.float32, SAMPLES)
    table: dict[str, dict[int, float]] = {}
    for microbatch in MICROBATCHES:
        for name, found in gradients(config, torch.bfloat16, microbatch).items():
            off = float((found - exact[name]).norm() / exact[name].norm())
            row = table.setdefault(kind(name), {})
            row[microbatch] = max(off, row.get(microbatch, 0.0))
    for name, row in table.items():
        print(f"{name:<32}" + "".join(f"{row[microbatch]:>9.2%}" for microbatch in MICROBATCHES))
    if config.position == "learned":  # softmax ignores what all keys share, and no rotation makes them differ
        del table["k_proj.bias"]
    for name, row in table.items():
        assert max(row.values()) <= (0.015 if name == "k_proj.bias" else 0.005), name
        assert max(row.values()) - min(row.values()) <= 0.0015, name
