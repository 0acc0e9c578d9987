"""Every command of docs/generate.md and docs/evaluate.md, and of docs/weights.md what exports, on small models."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import adapted, harness
from tests.evaluation.test_text import write
from trainer.config.groups.adapter import AdapterConfig

pytestmark = [pytest.mark.slow, pytest.mark.long]


def commands(page: str) -> list[str]:
    """Of a page's bash blocks, without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", (harness.ROOT / "docs" / page).read_text(), re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(("python ", "torchrun "))]


EXPORTS = [line for line in commands("weights.md") if "export_hf.py" in line]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands find: runs, a model with a chat template, texts and tasks."""
    cwd = tmp_path_factory.mktemp("pages")
    (cwd / "scripts").symlink_to(harness.ROOT / "scripts")
    harness.write_corpus(cwd / "corpus")
    small = [*harness.SMALL, "precision=fp32", "data.sources=[{paths: [corpus]}]", "train.steps=360"]
    done = harness.train(cwd, [*small, "train.stop_after_steps=2", "run.name=tiny"])
    assert done.code == 0, done.output
    checkpoints = cwd / "runs/tiny/checkpoints"
    (cwd / "runs/big").symlink_to("tiny")
    (checkpoints / "step-00000360").symlink_to("step-00000002")
    (cwd / "models").mkdir()
    write(cwd / "models/SmolLM2", "llama", "grouped")
    lora, base = AdapterConfig(kind="lora", rank=2), cwd / "models/SmolLM2"
    adapted.save(cwd / "runs/tuned", base, lora, adapted.draw(base, lora, ["lm_head"]))
    (cwd / "texts").mkdir()
    for name in ("heldout.txt", "texts/one.txt"):
        (cwd / name).write_text("def main(): return 1\n" * 20)
    (cwd / "more.jsonl").write_text(json.dumps({"text": "the cat sat on the mat. " * 9}))
    (cwd / "quiz.jsonl").write_text(json.dumps({"question": "the cat sat", "choices": ["on", "mat"], "answer": 0}))
    (cwd / "sums.jsonl").write_text(json.dumps({"prompt": "7 * 6 =", "answer": "42", "tokens": 4}))
    talk = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat on the mat"}]
    (cwd / "talk.jsonl").write_text(json.dumps({"messages": talk}))
    (cwd / "prompts.txt").write_text("the cat\ndef\n")
    return cwd


def run(cwd: Path, command: str) -> str:
    """By the shell, for some read and write files; what it printed."""
    python = (
        f"{sys.executable} -m torch.distributed.run --standalone" if command.startswith("torchrun") else sys.executable
    )
    words = command.split(" ", 1)[1]
    done = subprocess.run(
        f"{python} {words}",
        shell=True,
        cwd=cwd,
        env={**harness.environment(), "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
        input="the cat\n",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("command", commands("generate.md"))
def test_asking(workspace: Path, command: str) -> None:
    said = run(workspace, f"{command} --tokens 4" if "<" not in command else command.replace(" <", " --tokens 4 <"))
    if ">" in command:
        lines = (workspace / "answers.jsonl").read_text().splitlines()
        assert [json.loads(line)["prompt"] for line in lines] == ["the cat", "def"]
    else:
        assert said.strip()


@pytest.mark.parametrize("command", [line for line in commands("evaluate.md") if "eval.py" in line])
def test_scoring(workspace: Path, command: str) -> None:
    said = run(workspace, command)
    assert "bits/byte" in said or "exact match" in said or "conversations" in said


def test_scoring_while_a_model_trains(workspace: Path) -> None:
    (command,) = (line for line in commands("evaluate.md") if "train.py" in line)
    settings = [one for one in harness.SMALL[1:] if not one.startswith("evaluation")]
    more = ["train.steps=40", "data.sources=[{paths: [corpus]}]", "precision=fp32", "run.name=scored"]
    run(workspace, " ".join([command, *(f"'{one}'" for one in [*settings, *more])]))
    assert [record["step"] for record in harness.records(workspace / "runs/scored", "set")] == [20, 40]
    assert "best_quiz/acc" in json.loads((workspace / "runs/scored/result.json").read_text())


def test_exporting(workspace: Path) -> None:
    assert len(EXPORTS) >= 4
    for number, command in enumerate(EXPORTS):
        words = command.split()
        words[3] = f"out-{number}"
        run(workspace, " ".join(words))
        name = "adapter_config.json" if "--adapter" in words else "config.json"
        assert (workspace / f"out-{number}" / name).is_file()
