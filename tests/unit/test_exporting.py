"""checkpoint.export_hf: which saves become directories, which of them stay, and that a failure costs nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from safetensors.torch import load_file

from tests import adapted, directories
from tests.families import tokenizers_of
from tests.families.checkpoints import save_run
from tests.unit.test_export import LLAMA, weights
from trainer.config.groups.adapter import AdapterConfig
from trainer.config.groups.checkpoint import CheckpointConfig
from trainer.run.directory import RunDirectory
from trainer.training import exporting
from trainer.training.exporting import Exports, keep_tokenizer

MODEL = replace(LLAMA, vocab=300)


class Run:
    """A run that saves, and the lines that it prints."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.said: list[str] = []
        self.directory = RunDirectory(path / "run", result=None)
        self.exports = Exports(CheckpointConfig(**settings), self.directory, 30, self.said.append)

    def save(self, step: int) -> Path:
        return save_run(self.directory.path, MODEL, weights(MODEL), step=step)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.exports.glob("*"))


def test_last_is_the_end_of_training_alone(tmp_path: Path) -> None:
    run = Run(tmp_path, export_hf="last")
    for step in (10, 20):
        run.exports.saved(run.save(step))
    run.exports.finish()
    assert run.names() == []
    run.exports.saved(run.save(30))
    run.exports.finish()
    assert run.names() == ["step-00000030"]


def test_the_template_of_the_conversations_goes_along(tmp_path: Path) -> None:
    """In the place of the tokenizer's own, which the model was not trained with."""
    run = Run(tmp_path)
    run.directory.path.mkdir()
    mine = tmp_path / "mine.jinja"
    mine.write_text("{{ messages[0]['content'] }}!")
    keep_tokenizer(run.directory, _tokenizer(tmp_path), "<|endoftext|>", run.said.append, str(mine))
    kept = run.directory.tokenizer
    assert (kept / "chat_template.jinja").read_text() == mine.read_text()
    assert json.loads((kept / "tokenizer_config.json").read_text())["chat_template"] == mine.read_text()


def test_last_is_also_where_patience_ends_training(tmp_path: Path) -> None:
    run = Run(tmp_path, export_hf="last")
    for step in (10, 20):
        run.exports.saved(run.save(step))
    run.exports.complete()
    run.exports.finish()
    assert run.names() == ["step-00000020"]


def test_of_a_run_with_adapters_they_are_what_is_exported(tmp_path: Path) -> None:
    run, base, lora = Run(tmp_path, export_hf="last"), tmp_path / "base", AdapterConfig(kind="lora", rank=2)
    directories.write(base)
    tensors = adapted.draw(base, lora, ["lm_head"])
    run.exports.saved(adapted.save(run.directory.path, base, lora, tensors, step=30))
    run.exports.finish()
    made = run.directory.exports / "step-00000030"
    assert sorted(path.name for path in made.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    written = load_file(made / "adapter_model.safetensors")
    assert {f"base_model.model.{name}.weight" for name in tensors} == written.keys()


def test_every_keeps_as_many_as_there_are_checkpoints(tmp_path: Path) -> None:
    run = Run(tmp_path, export_hf="every", keep=2, keep_every=20)
    (run.directory.exports / ".step-00000001.exporting").mkdir(parents=True)  # of a launch that was killed
    run.directory.path.joinpath("tokenizer").mkdir()
    keep_tokenizer(run.directory, _tokenizer(tmp_path), "<|endoftext|>", run.said.append)
    for step in (10, 20, 30, 40):
        run.exports.saved(run.save(step))
        run.exports.finish()
    assert run.names() == ["step-00000020", "step-00000030", "step-00000040"]
    assert run.said[-1] == f"  exported {run.directory.exports / 'step-00000040'}"


def _tokenizer(path: Path) -> Path:
    (path / "source").mkdir(exist_ok=True)
    tokenizers_of.made().save(str(path / "source" / "tokenizer.json"))
    return path / "source" / "tokenizer.json"


def test_a_save_while_one_is_written_is_passed_over_and_the_last_is_caught_up_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, go, export = Run(tmp_path, export_hf="every", keep=0), Event(), exporting.export
    monkeypatch.setattr(exporting, "export", lambda *args, **more: (go.wait(60), export(*args, **more)))
    for step in (10, 20, 30):
        run.exports.saved(run.save(step))  # never waits
    go.set()
    run.exports.finish()
    assert run.names() == ["step-00000010", "step-00000030"]


def test_a_failure_is_a_line_and_the_next_save_is_exported(tmp_path: Path) -> None:
    run = Run(tmp_path, export_hf="every")
    checkpoint = run.save(10)
    (checkpoint / "config.yaml").unlink()
    run.exports.saved(checkpoint)
    run.exports.finish()
    (line,) = run.said
    assert line.startswith("  step-00000010 was not exported: ")
    assert "config.yaml" in line
    run.exports.saved(run.save(20))
    run.exports.finish()
    assert run.names() == ["step-00000020"]


def test_a_bug_is_a_traceback_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path, export_hf="every")
    monkeypatch.setattr(exporting, "export", lambda *args, **more: 1 / 0)
    run.exports.saved(run.save(10))
    run.exports.finish()
    assert "ZeroDivisionError" in run.said[-1]


def test_a_tokenizer_that_cannot_go_along_is_a_line(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.directory.path.mkdir()
    source = tokenizers_of.by_hand(tmp_path / "source")
    (source / "chat_template.jinja").write_bytes(b"\xff")
    keep_tokenizer(run.directory, source / "tokenizer.json", "<|endoftext|>", run.said.append)
    (line,) = run.said
    assert "will not go along with exports" in line
    assert "chat_template.jinja" in line
    assert not run.directory.tokenizer.exists()


@pytest.mark.parametrize("kept", [False, True])
def test_weights_go_out_without_the_tokenizer_that_could_not_be_kept(tmp_path: Path, kept: bool) -> None:
    run = Run(tmp_path)
    if kept:  # empty, as an older version left it
        run.directory.tokenizer.mkdir(parents=True)
    run.exports.saved(run.save(30))
    run.exports.finish()
    assert run.names() == ["step-00000030"]


def test_a_token_that_is_none_is_left_out_and_said(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.directory.path.mkdir()
    source = tokenizers_of.by_hand(tmp_path / "source", pad_token="[PAD]")
    keep_tokenizer(run.directory, source / "tokenizer.json", "<|endoftext|>", run.said.append)
    assert run.said == ["  tokenizer: pad_token is left out: tokenizer.json has no '[PAD]'"]
    assert "[PAD]" not in (run.directory.tokenizer / "tokenizer_config.json").read_text()
