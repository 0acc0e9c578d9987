"""Whole runs beside a base: its weights are named, not stored, and found again where they have moved to."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import directories, harness
from trainer.checkpoint.index import read_index
from trainer.data.tokenizer import train_bpe

pytestmark = pytest.mark.slow

LORA = [
    *("recipe=tiny", "data.sources=[{paths: [corpus]}]", "precision=bf16_mixed", "data.seq_len=32"),
    *("data.heldout_fraction=0.1", "train.tokens=null", "train.steps=4", "train.tokens_per_step=256"),
    *("train.microbatch=2", "schedule=constant", "optim.lr=1e-2", "checkpoint.every_steps=2"),
    *("evaluation.every_steps=0", "logging.every_steps=1", "adapter=lora", "adapter.rank=4", "model.init_from=base"),
]
COMMANDS = {"generate": ["--prompt", "w3 w4", "--tokens", "4"], "eval": ["--data", "corpus"], "export_hf": []}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cwd = tmp_path_factory.mktemp("base")
    harness.write_corpus(cwd / "corpus", 30)
    directories.write(cwd / "base", directories.CONFIG | {"vocab_size": 320})
    train_bpe((path.read_text() for path in sorted((cwd / "corpus").iterdir())), 300).save(
        cwd / "base" / "tokenizer.json"
    )
    return cwd


@pytest.fixture(scope="module")
def straight(workspace: Path) -> Path:
    """Four steps on two processes that share the base's files, saved twice."""
    done = harness.train(workspace, [*LORA, "run.name=straight", "parallel.tp=2"], processes=2)
    assert done.code == 0, done.output
    return workspace / "runs" / "straight"


@pytest.fixture
def moved(workspace: Path) -> Iterator[Path]:
    """The base, elsewhere for the length of a test."""
    (workspace / "base").rename(workspace / "elsewhere")
    yield workspace / "elsewhere"
    (workspace / "elsewhere").rename(workspace / "base")


def said(run: Path, step: int = 4) -> dict[str, object]:
    state: dict[str, object] = json.loads((run / f"checkpoints/step-{step:08d}/state.json").read_text())["base"]
    return state


def command(workspace: Path, name: str, *arguments: str) -> harness.Finished:
    return harness.train(workspace, [*arguments], program=harness.ROOT / f"scripts/{name}.py")


def test_a_checkpoint_names_the_base_and_holds_what_was_trained(workspace: Path, straight: Path) -> None:
    names = read_index(straight / "checkpoints/step-00000004/model")
    assert len(names) == 2 * 7 * 2
    assert all(name.rpartition(".")[2] in ("lora_A", "lora_B") for name in names)
    base = said(straight)
    assert base["path"] == "base"
    assert base["files"] == {
        file: {
            "size": len(data := (workspace / "base" / file).read_bytes()),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        for file in ("config.json", "model.safetensors")
    }
    shown = command(workspace, "ckpt", "inspect", "runs/straight")
    assert "base (2 files)" in shown.output


def test_a_killed_run_goes_on_where_its_base_has_moved(workspace: Path, straight: Path, moved: Path) -> None:
    shutil.copytree(straight, workspace / "runs/again")
    again = workspace / "runs/again"
    shutil.rmtree(again / "checkpoints/step-00000004")
    (again / "result.json").unlink()
    gone = harness.train(workspace, [*LORA, "run.name=again"])
    assert gone.code == 3, gone.output
    assert "base" in gone.output
    assert "model.init_from=DIRECTORY says where it is now" in gone.output
    done = harness.train(
        workspace, [*LORA, "run.name=again", "parallel.tp=2", "model.init_from=elsewhere"], processes=2
    )
    assert done.code == 0, done.output
    assert "resuming again from step 2" in done.output
    assert said(again) == said(straight) | {"path": "elsewhere"}
    for part in ("model", "optimizer"):
        for file in (straight / "checkpoints/step-00000004" / part).glob("*.safetensors"):
            assert file.read_bytes() == (again / "checkpoints/step-00000004" / part / file.name).read_bytes(), file


def test_another_base_is_refused(workspace: Path, straight: Path) -> None:
    other = workspace / "other"
    shutil.copytree(workspace / "base", other)
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "model.safetensors").write_bytes(data)
    done = harness.train(workspace, [*LORA, "run.name=straight", "train.steps=6", "model.init_from=other",
                                     "resume.allow=[train.steps]"])  # fmt: skip
    assert done.code == 3, done.output
    assert "model.safetensors has another SHA-256" in done.output
    done = command(workspace, "export_hf", "runs/straight", "out-other", "--base", "other")
    assert done.code == 3, done.output
    assert "model.safetensors has another SHA-256" in done.output


def test_commands_find_a_base_that_has_moved(workspace: Path, straight: Path, moved: Path) -> None:
    gone = command(workspace, "export_hf", "runs/straight", "out")
    assert gone.code == 3, gone.output
    assert "--base DIRECTORY says where it is now" in gone.output
    for name, arguments in COMMANDS.items():
        target = ["out"] if name == "export_hf" else []
        done = command(workspace, name, "runs/straight", *target, *arguments, "--base", "elsewhere")
        assert done.code == 0, done.output
    base, merged = load_file(moved / "model.safetensors"), load_file(workspace / "out/model.safetensors")
    adapters: dict[str, torch.Tensor] = {}
    for file in (straight / "checkpoints/step-00000004/model").glob("*.safetensors"):
        for name, values in load_file(file).items():
            bare, _, at = name.partition("@")
            dim = 0 if at and not at.startswith("0,") else 1
            adapters[bare] = values if bare not in adapters else torch.cat([adapters[bare], values], dim)
    assert merged.keys() == base.keys()
    assert torch.equal(merged["lm_head.weight"], base["lm_head.weight"])
    changed = [name for name in base if not torch.equal(merged[name], base[name])]
    assert len(changed) == 14
