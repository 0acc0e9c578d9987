"""A real pretrained model: transformers' loss on real text, on one process and cut over 2 and 3."""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from tests import smollm2
from tests.ranks import Task, run

pytestmark = [pytest.mark.slow, pytest.mark.long]

SAMPLES, LENGTH = 4, 256


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Weights and tokens on disk, and the loss that transformers gives with its own reader of the same file."""
    file = smollm2.gguf_file()
    from transformers import AutoTokenizer, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("smollm2")
    theirs = LlamaForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    text = "\n\n".join(topics[name] for name in ("assignment", "class", "exceptions", "lambda", "while"))
    ids = torch.tensor(tokenizer(text)["input_ids"][: SAMPLES * LENGTH + 1])
    tokens, labels = ids[:-1].view(SAMPLES, LENGTH), ids[1:].view(SAMPLES, LENGTH)
    with torch.no_grad():
        logits = theirs(tokens).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
    save_file(smollm2.weights(file), folder / "weights.safetensors")
    save_file({"tokens": tokens.clone(), "labels": labels.clone()}, folder / "batch.safetensors")
    return folder, loss


@pytest.mark.parametrize("tp", [1, 2, 3])
def test_the_loss_is_transformers(reference: tuple[Path, float], tp: int) -> None:
    folder, expected = reference
    loss, *_ = run(Task("tests.distributed.smollm2_loss:loss", tp, {"tp": tp}, seconds=300), folder)
    print(f"tensor parallel {tp}: loss {loss:.7f}, transformers {expected:.7f}")
    assert 0.5 < expected < 4, "a pretrained model knows this text"
    assert abs(loss - expected) <= 1e-4
