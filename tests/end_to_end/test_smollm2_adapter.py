"""The real SmolLM2-135M with LoRA: what the run says is what transformers and PEFT say of its exports."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests import harness
from tests.end_to_end.test_finetune import MODEL, QUESTIONS, arguments, three_ways
from tests.end_to_end.test_model_pages import run
from tests.end_to_end.test_smollm2_round_trip import from_gguf

pytestmark = [pytest.mark.slow, pytest.mark.long]
PROMPTS = ["The capital of France is", "Once upon a time", "def main():"]


@pytest.mark.timeout(1800)
def test_greedy_answers_are_the_same_token_for_token(tmp_path: Path) -> None:
    """Trained in BF16; asked in FP32, as the exports are."""
    (tmp_path / "scripts").symlink_to(harness.ROOT / "scripts")
    from_gguf(tmp_path / MODEL)
    with (tmp_path / "prompts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("instruction", "output"), *QUESTIONS])
    short = ["precision=bf16_mixed", "train.steps=3", "data.seq_len=128", "evaluation.every_steps=0",
             "evaluation.best=null"]  # fmt: skip
    done = harness.train(tmp_path, arguments("mine", *short), timeout=1200)
    assert done.code == 0, done.output
    run(tmp_path, "python scripts/export_hf.py runs/mine my-adapter --adapter")
    run(tmp_path, "python scripts/export_hf.py runs/mine my-model")
    said = three_ways(tmp_path, PROMPTS, tokens=24)
    assert said["ours"] == said["merged"] == said["adapter"]
    assert said["ours"] != said["base"]
