"""Sets that nothing can be scored on are told before anything is trained; what a stage says reaches the ledger."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest

from trainer.commands.jobs.desk import problems_of
from trainer.commands.jobs.evaluate import evaluate
from trainer.commands.jobs.sets import check, content_of
from trainer.config.groups.job import JobSetConfig
from trainer.errors import DataError, RunError


def test_every_path_without_content_is_told(tmp_path: Path) -> None:
    for name in ("empty/deep", "full/deep"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "empty" / "deep" / "also.txt").write_text("")
    (tmp_path / "full" / "deep" / "text.txt").write_text("text")
    good = JobSetConfig("good", [f"{tmp_path}/full", f"{tmp_path}/full/deep/text.txt"])
    check([good])
    with pytest.raises(DataError) as raised:
        check([good, JobSetConfig("bad", [f"{tmp_path}/{name}" for name in ("gone", "empty", "empty.txt")])])
    assert [problem.key for problem in raised.value.problems] == ["sets.1.paths"] * 3


def test_contents_are_hashed_in_the_order_of_names(tmp_path: Path) -> None:
    parts = []
    for name in ("b", "a"):
        (tmp_path / name).write_text(name)
        parts.append(hashlib.sha256(name.encode()).hexdigest())
    assert content_of([str(tmp_path)]) == hashlib.sha256("\n".join(reversed(parts)).encode()).hexdigest()
    with pytest.raises(DataError, match="gone"):
        content_of([str(tmp_path / "gone")])


def test_a_stage_that_fails_says_why_where_a_tick_reads_it(tmp_path: Path) -> None:
    plan = {"candidate": f"{tmp_path}/candidate", "run": f"{tmp_path}/no-run", "dtype": None, "python": sys.executable}
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "sets": [], "champion": None}))
    with pytest.raises(RunError):
        evaluate(tmp_path / "plan.json")
    said = problems_of(tmp_path)
    assert "export_hf.py" in said
    assert "no-run" in said
