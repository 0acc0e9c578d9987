"""Runs, checkpoints and Hugging Face directories open alike, and weights that are only read cost their bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import directories
from tests.families.checkpoints import parameters, save_run
from tests.families.pairs import pair
from trainer.errors import ConfigError
from trainer.generation.opened import opened_model, window_of


def logits(given: Path, dtype: str | None = None) -> torch.Tensor:
    tokens = torch.arange(6).unsqueeze(0)
    with opened_model(str(given), dtype) as opened, torch.no_grad():
        found: torch.Tensor = opened.lowered.logits(tokens, tokens, torch.zeros_like(tokens))
        return found


def test_a_run_its_checkpoint_and_a_directory_are_one_model(tmp_path: Path) -> None:
    two = pair("qwen3", "tied")
    checkpoint = save_run(tmp_path / "run", two.model, parameters(two.ours), cut=(3, 2))
    two.theirs.save_pretrained(tmp_path / "directory")
    tokens = torch.arange(6).unsqueeze(0)
    with torch.no_grad():
        expected = two.ours.logits(tokens, tokens, torch.zeros_like(tokens))
    for given in (checkpoint, tmp_path / "run", tmp_path / "directory"):
        assert torch.equal(logits(given), expected)


def test_the_dtype_is_that_of_the_tensors_unless_one_is_asked_for(tmp_path: Path) -> None:
    half = {name: tensor.bfloat16() for name, tensor in directories.tensors_of(directories.CONFIG).items()}
    directories.write(tmp_path / "half", tensors=half)
    with opened_model(str(tmp_path / "half")) as opened:
        assert opened.dtype == torch.bfloat16
        assert {parameter.dtype for parameter in opened.lowered.parameters()} == {torch.bfloat16}
        assert not any(parameter.requires_grad for parameter in opened.lowered.parameters())
    with opened_model(str(tmp_path / "half"), "float32") as opened:
        assert {parameter.dtype for parameter in opened.lowered.parameters()} == {torch.float32}


def test_words_come_from_the_directory(tmp_path: Path) -> None:
    directories.write(tmp_path)
    with opened_model(str(tmp_path)) as opened:
        assert opened.words is None
    directories.write_tokenizer(tmp_path, 40)
    directories.write_json(tmp_path / "tokenizer_config.json", {"eos_token": "<|endoftext|>", "chat_template": "hello"})
    with opened_model(str(tmp_path)) as opened:
        assert opened.words is not None
        assert opened.words.encode("w3 <|endoftext|> w5") == [3, 1, 5]
        assert opened.words.decode([3, 1, 5]) == "w3 w5"
        assert (opened.words.ends, opened.words.template) == ((1,), "hello")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    two = pair("llama", "grouped")
    checkpoint = save_run(tmp_path / "run", two.model, parameters(two.ours))
    file = next((checkpoint / "model").glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ConfigError, match=r"(?s)MODEL = .*SHA-256"), opened_model(str(tmp_path / "run")):
        pass


def test_dynamic_scaling_widens_the_window() -> None:
    assert window_of(pair("llama", "dynamic").model) == 96
    assert window_of(pair("llama", "grouped").model) == 128
