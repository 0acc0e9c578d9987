"""The real SmolLM2-135M in INT8: its bytes, and what rounding costs on text."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

from tests import smollm2
from tests.families.checkpoints import save_run
from trainer.config.groups.model import ModelConfig
from trainer.parallel.boxes import whole_box
from trainer.pretrained.export import export
from trainer.pretrained.int8 import ALL
from trainer.pretrained.shapes import parameter_shapes
from trainer.pretrained.source import open_source
from trainer.pretrained.weights import weights_of

pytestmark = [pytest.mark.slow, pytest.mark.long]

WINDOWS, LENGTH = 16, 256
SMOLLM2 = ModelConfig(
    hidden=576,
    layers=30,
    heads=9,
    kv_heads=3,
    mlp=1536,
    vocab=49152,
    max_positions=8192,
    norm_eps=1e-5,
    rope_theta=100000.0,
    tied=True,
)


def loss(directory: Path, ids: torch.Tensor) -> float:
    """Of the weights that model.init_from reads there, on windows of these ids."""
    from trainer.models.decoder import CausalLM

    source = open_source(str(directory))
    read = weights_of(source, source.model.vocab)
    model = CausalLM(source.model)
    model.model.rotary.derive_buffers()
    names = model.canonical_names()
    with torch.no_grad():
        for own, parameter in model.named_parameters():
            shape = parameter_shapes(source.model)[names[own]]
            parameter.copy_(read(whole_box(names[own], shape)))
        total, targets = 0.0, 0
        for first in range(0, len(ids) - 1, LENGTH):
            tokens, labels = ids[None, first : first + LENGTH], ids[None, first + 1 : first + LENGTH + 1]
            positions = torch.arange(LENGTH)[None]
            lost, count = model(tokens, labels, positions, torch.zeros_like(tokens))
            total, targets = total + lost.item(), targets + count.item()
    return total / targets


def test_a_quarter_of_the_bytes_for_a_hundredth_of_the_loss(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    file = smollm2.gguf_file()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    ids = torch.tensor(tokenizer("\n\n".join(topics[name] for name in sorted(topics)))["input_ids"])
    ids = ids[: WINDOWS * LENGTH + 1]
    checkpoint = save_run(tmp_path / "run", SMOLLM2, smollm2.weights(file))
    plain = export(checkpoint, tmp_path / "plain", hashes=False)
    small = export(checkpoint, tmp_path / "small", hashes=False, int8=ALL)
    before, after = loss(tmp_path / "plain", ids), loss(tmp_path / "small", ids)
    worst = max(small.errors, key=lambda one: one.rms)
    print(f"bytes {small.bytes / plain.bytes:.4f} of FP32's; loss {before:.6f} -> {after:.6f}; RMS {worst.rms:.3%}")
    assert small.bytes <= 0.27 * plain.bytes
    assert 0.5 < before < 4
    assert after <= 1.01 * before
