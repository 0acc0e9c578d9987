"""scripts/prepare.py, then scripts/train.py: the loss curve is that of the text itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from tests import harness

pytestmark = pytest.mark.slow
SETTINGS = ["evaluation.every_steps=2", "checkpoint.every_steps=2", "data.heldout_fraction=0.1"]


def prepare(cwd: Path, *more: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(harness.ROOT)}
    command = [sys.executable, str(harness.ROOT / "scripts" / "prepare.py"), "recipe=tiny", *SETTINGS[2:], *more]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def losses(cwd: Path, name: str) -> list[tuple[int, str, float]]:
    rows = (cwd / "runs" / name / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(row) for row in rows]
    keys = ("loss", "heldout_loss", "bits_per_byte")
    return [(record["step"], key, record[key]) for record in records for key in keys if key in record]


def test_the_loss_curve_is_that_of_the_text(tmp_path: Path) -> None:
    texts = list(topics.values())
    for name, part in (("a", texts[:60]), ("b", texts[60:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    sources = "data.sources=[{name: a, weight: 2, %s}, {name: b, %s}]"
    raw = sources % ("paths: [a.jsonl]", "paths: [b.jsonl]")
    said = prepare(tmp_path, raw, "data.tokenizer.vocab=300", "--output", "out", "--shard-tokens", "20000")
    assert "data.tokenizer.path=" in said
    assert len(list((tmp_path / "out" / "b").glob("train-*.bin"))) > 3
    tokenizer = ["data.tokenizer.kind=file", "data.tokenizer.path=out/tokenizer"]
    ready = sources % ("kind: prepared, paths: [out/a]", "kind: prepared, paths: [out/b]")
    small = [*harness.SMALL, "model.vocab=300", "train.steps=6", *SETTINGS, *tokenizer]
    for name, given, processes in (("raw", raw, 1), ("ready", ready, 2)):
        done = harness.train(tmp_path, [*small, given, f"run.name={name}"], processes)
        assert done.code == 0, done.output
    found, expected = losses(tmp_path, "ready"), losses(tmp_path, "raw")
    assert [row[:2] for row in found] == [row[:2] for row in expected]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in expected], rel=1e-5)
    assert {kind for _, kind, _ in found} == {"loss", "heldout_loss", "bits_per_byte"}

    (tmp_path / "out" / "b" / "train-00002.idx").unlink()
    refused = harness.train(tmp_path, [*small, ready, "run.name=other"])
    assert refused.code == 4, refused.output
    assert "data.sources.1.paths" in refused.output
    assert "train-00002.idx" in refused.output
