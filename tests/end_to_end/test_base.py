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
    *("recipe=tiny", "data.sources=[{paths: [corpus]}]", "precision=fp32", "data.seq_len=32"),
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


@pytest.mark.long
@pytest.mark.parametrize("layout", ["parallel.pp=2", "parallel.zero=3"])
def test_another_layout_reads_its_own_part_of_the_base(workspace: Path, straight: Path, layout: str) -> None:
    run = workspace / "runs" / layout[9:].replace("=", "")
    shutil.copytree(straight, run)
    shutil.rmtree(run / "checkpoints/step-00000004")
    (run / "result.json").unlink()
    done = harness.train(workspace, [*LORA, f"run.name={run.name}", layout], processes=2)
    assert done.code == 0, done.output
    assert f"resuming {run.name} from step 2" in done.output
    steps, others = harness.records(straight), harness.records(run)
    harness.assert_same_curve(steps, others)
    assert len(read_index(run / "checkpoints/step-00000004/model")) == 28


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


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Of the newest checkpoint of one process."""
    (file,) = sorted(run.glob("checkpoints/*"))[-1].glob("model/*.safetensors")
    return load_file(file)


STILL = ["train.steps=1", "optim.lr=1e-30", "optim.weight_decay=0"]
"""A step that moves nothing."""


@pytest.fixture(scope="module")
def out(workspace: Path, straight: Path) -> Path:
    """Peft's directory of the run's adapters."""
    done = command(workspace, "export_hf", "runs/straight", "peft", "--adapter")
    assert done.code == 0, done.output
    return workspace / "peft"


@pytest.mark.parametrize("given", [["model.init_from=runs/straight"], ["adapter.init_from=peft"]])
def test_adapters_go_on_beside_their_base(workspace: Path, out: Path, given: list[str]) -> None:
    """From a run, and from peft's directory; rank 16 of conf/adapter gives way."""
    base = [one for one in LORA if one != "adapter.rank=4" and not (given[0] > "m" and one.startswith("model.init"))]
    arguments = [*base, *STILL, *given, f"run.name=next-{given[0][:5]}"]
    done = harness.train(workspace, arguments)
    assert done.code == 0, done.output
    assert "LoRA of rank 4, alpha 32, at 14 modules, trained beside base" in done.output
    assert "weights only: optimizer, schedule, step and data begin anew" in done.output
    run = workspace / "runs" / f"next-{given[0][:5]}"
    assert said(run, 1)["path"] == "base"
    before, after = load_file(out / "adapter_model.safetensors"), tensors(run)
    assert len(before) == len(after) == 28
    for name, values in after.items():
        assert torch.equal(values, before[f"base_model.model.{name}.weight"]), name
    again = harness.train(workspace, arguments)
    assert again.code == 0, again.output
    assert "is complete" in again.output


def test_a_run_without_adapters_begins_with_the_merged_weights(workspace: Path, straight: Path) -> None:
    export = command(workspace, "export_hf", "runs/straight", "merged")
    assert export.code == 0, export.output
    whole = [one for one in LORA if not one.startswith("adapter") and not one.startswith("model.init")]
    done = harness.train(workspace, [*whole, *STILL, "model.init_from=runs/straight", "run.name=whole"])
    assert done.code == 0, done.output
    assert "its adapters are merged into its base, in FP32" in done.output
    merged, after = load_file(workspace / "merged/model.safetensors"), tensors(workspace / "runs/whole")
    assert merged.keys() == after.keys()
    assert all(torch.equal(values, after[name]) for name, values in merged.items())


def test_other_adapters_than_it_begins_with_are_refused(workspace: Path, out: Path) -> None:
    mistakes = {
        "adapter.rank=8": "4, as runs/straight/checkpoints/step-00000004 says",
        "adapter.targets=[q_proj]": "[all-linear], as runs/straight",
    }
    base = [one for one in LORA if not one.startswith(("adapter.", "model.init"))]
    given = [*base, "model.init_from=runs/straight", "run.name=no", *mistakes]
    done = harness.train(workspace, given)
    assert done.code == 3, done.output
    assert "2 problems" in done.output
    for said_of_it in (*mistakes.values(), "scripts/export_hf.py runs/straight/checkpoints/step-00000004 DIRECTORY"):
        assert said_of_it in done.output
