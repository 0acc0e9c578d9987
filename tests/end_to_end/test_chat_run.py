"""Training on conversations, most of whose samples have no target, and what a resume refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests import harness
from tests.families.tokenizers_of import by_hand
from tests.unit.test_chat_masks import TAGGED, rows

pytestmark = pytest.mark.slow

COMMON = [
    *[override for override in harness.SMALL if "tokenizer.vocab" not in override and "evaluation" not in override],
    *("precision=fp32", "data.tokenizer.kind=file", "data.tokenizer.path=tokenizer", "run.name=talk"),
    "data.sources=[{name: talk, paths: [talk.jsonl], chat: auto}, {name: plain, paths: [plain.jsonl], weight: 0.1}]",
    "evaluation.sets=[{name: other, paths: [other.jsonl], chat: messages}]",
    *(
        "evaluation.every_steps=2",
        "evaluation.sample_tokens=0",
        "checkpoint.every_steps=2",
        "train.steps=4",
        "schedule.warmup_steps=1",
    ),
]


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    """Long questions and short answers: of windows of 64 tokens most are questions only."""
    every = rows(120)
    for row in every:
        row["messages"][-2]["content"] += " the cat sat on the mat." * 40
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in every))
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(30)))
    (tmp_path / "plain.jsonl").write_text("".join(json.dumps({"text": f"the cat {n} " * 9}) + "\n" for n in range(60)))
    (tmp_path / "own.jinja").write_text(TAGGED)
    by_hand(tmp_path / "tokenizer")
    return tmp_path


def test_a_run_on_conversations_goes_on_with_its_own_template_only(cwd: Path) -> None:
    done = harness.train(cwd, [*COMMON, "train.stop_after_steps=2"])
    assert done.code == 0, done.output
    assert "talk: conversations of the shape messages, by its columns" in done.output
    other = harness.train(cwd, [*COMMON, "data.chat_template=own.jinja"])
    assert other.code == 3, other.output
    assert "other content of: chat template of source talk, source talk" in other.output
    done = harness.train(cwd, COMMON)
    assert done.code == 0, done.output
    records = [json.loads(line) for line in (cwd / "runs" / "talk" / "metrics.jsonl").read_text().splitlines()]
    losses = [value for record in records for key, value in record.items() if key.endswith("loss")]
    assert len(losses) >= 8
    assert all(math.isfinite(loss) for loss in losses)
