"""A run from a GGUF file, on one process and cut over two: the same losses; INT8 out of it, and a run from that."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import gguf
import pytest

from tests import directories, ggufs, harness

pytestmark = [pytest.mark.slow, pytest.mark.long]

SHORT = [
    *("recipe=tiny", "backend=native", "precision=fp32", "data.sources=[{paths: [corpus]}]", "data.seq_len=64"),
    *("train.tokens=null", "train.steps=3", "train.tokens_per_step=128", "train.microbatch=1", "optim.lr=1e-4"),
    *("schedule=constant", "schedule.warmup_steps=1", "evaluation.sample_prompt=''", "parallel.cores=2"),
]


def heldout(path: Path, name: str, *more: str, processes: int = 1) -> float:
    done = harness.train(path, [*SHORT, f"run.name={name}", *more], processes=processes, timeout=200)
    assert done.code == 0, done.output
    loss: float = json.loads((path / "runs" / name / "result.json").read_text())["heldout_loss"]
    return loss


def test_layouts_agree_and_int8_goes_out_and_in(tmp_path: Path) -> None:
    ggufs.write(tmp_path / "x.gguf", kind=gguf.GGMLQuantizationType.Q4_1)
    directories.write_tokenizer(tmp_path, ggufs.VOCAB)
    (tmp_path / "corpus").mkdir()
    words = random.Random(1)
    for number in range(40):
        text = " ".join(f"w{words.randrange(2, ggufs.VOCAB)}" for _ in range(400))
        (tmp_path / "corpus" / f"{number}.txt").write_text(text)
    said = ["model.init_from=x.gguf", "data.tokenizer.kind=file", "data.tokenizer.path=tokenizer.json"]
    alone = heldout(tmp_path, "alone", *said)
    cut = heldout(tmp_path, "cut", *said, "parallel.tp=2", processes=2)
    assert cut == pytest.approx(alone, rel=1e-4)
    script = [sys.executable, str(harness.ROOT / "scripts" / "export_hf.py"), "runs/alone", "small", "--int8"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "RMS error" in done.stdout
    one = heldout(tmp_path, "one", "model.init_from=small")
    other = heldout(tmp_path, "other", "model.init_from=small", "parallel.tp=2", processes=2)
    assert other == pytest.approx(one, rel=1e-4)
