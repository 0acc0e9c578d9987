"""Pipeline stages hold different things; a mistake that concerns one of them ends all of them, told once."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests import harness

pytestmark = pytest.mark.slow

FIRST = 'model.frozen=[model.embed_tokens.weight,"model.layers.0.*"]'
COMMON = [
    *harness.SMALL,
    *("precision=fp32", "data.sources=[{paths: [corpus]}]", "run.name=run", "parallel.pp=2", "model.tied=false"),
]


@pytest.fixture
def cwd(tmp_path: Path) -> Path:
    harness.write_corpus(tmp_path / "corpus")
    return tmp_path


def refused(cwd: Path, overrides: list[str]) -> str:
    """What a run says that ends with exit code 3, long before a collective's timeout of 600 s."""
    start = time.monotonic()
    done = harness.train(cwd, [*COMMON, *overrides], processes=2)
    assert time.monotonic() - start < 300
    assert json.loads((cwd / "runs" / "run" / "exit.json").read_text())["code"] == 3, done.output
    assert "recipes/pretrain.py" not in done.output, "no traceback of ours"
    return done.output


def test_an_optimizers_mistake_beside_a_stage_that_trains_nothing(cwd: Path) -> None:
    output = refused(cwd, [FIRST, "optim.name=torch.optim:SGD", "optim.options={momentun: 0.9}"])
    assert "optim.name = 'torch.optim.SGD'" in output
    assert "momentun" in output


@pytest.mark.long
def test_thawing_one_stage_is_refused_by_both(cwd: Path) -> None:
    done = harness.train(cwd, [*COMMON, FIRST, "train.stop_after_steps=3"], processes=2)
    assert done.code == 0, done.output
    output = refused(cwd, ["resume.allow=[model.frozen]"])
    assert "restore model.frozen" in output


@pytest.mark.long
def test_another_optimizer_on_resume_is_refused_by_both(cwd: Path) -> None:
    done = harness.train(cwd, [*COMMON, FIRST, "train.stop_after_steps=3"], processes=2)
    assert done.code == 0, done.output
    sgd = ["optim.name=torch.optim:SGD", "optim.options={momentum: 0.9}", "resume.allow=[optim]"]
    assert "restore optim.name" in refused(cwd, [FIRST, *sgd])
