"""Every command of docs/checkpoints.md, on runs that the trainer has made."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import harness
from tests.end_to_end.test_readme import commands

pytestmark = [pytest.mark.slow, pytest.mark.long]
PAGE = commands("docs/checkpoints.md")
SAYS = {
    "ls": "  yes    1 rank; ",
    "verify": "all are sound",
    "inspect": "model.norm.weight",
    "diff": "model.embed_tokens.weight",
    "prune": "2 checkpoints, ",
}


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of different seeds with four checkpoints each, under the names of the page."""
    cwd = tmp_path_factory.mktemp("page")
    harness.write_corpus(cwd / "corpus")
    common = [*harness.SMALL, "precision=fp32", "data.sources=[{paths: [corpus]}]", "train.stop_after_steps=4"]
    for name, seed in (("tiny", 1), ("other", 2)):
        more = [f"run.name={name}", f"seed={seed}", "checkpoint.every_steps=1", "checkpoint.keep=0"]
        done = harness.train(cwd, [*common, *more])
        assert done.code == 0, done.output
    return cwd


def ckpt(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    script = str(harness.ROOT / "scripts" / "ckpt.py")
    return subprocess.run(
        [sys.executable, script, *words], cwd=cwd, env=harness.environment(), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


def test_the_page_shows_every_command() -> None:
    assert [shlex.split(command)[2] for command in PAGE] == list(SAYS)


@pytest.mark.parametrize("command", PAGE)
def test_command_of_the_page(cwd: Path, command: str) -> None:
    python, script, *words = shlex.split(command)
    assert (python, script) == ("python", "scripts/ckpt.py")
    done = ckpt(cwd, *words)
    assert done.returncode == 0, done.stderr
    assert SAYS[words[0]] in done.stdout


def test_what_the_page_shows_of_an_index_is_in_one(cwd: Path) -> None:
    checkpoint = cwd / "runs" / "tiny" / "checkpoints" / "step-00000004"
    entry = json.loads((checkpoint / "model" / "index.json").read_text())["tensors"]["model.norm.weight"]
    assert entry == {"dtype": "float32", "shape": [64], "cuts": [[0]], "ranks": [0]}


def test_pruning_leaves_a_run_that_goes_on(cwd: Path) -> None:
    """Last: it removes."""
    assert ckpt(cwd, "prune", "runs/other", "--keep", "1", "--yes").returncode == 0
    left = [path.name for path in (cwd / "runs" / "other" / "checkpoints").glob("step-*")]
    assert left == ["step-00000004"]
    common = [*harness.SMALL, "precision=fp32", "data.sources=[{paths: [corpus]}]", "run.name=other", "seed=2"]
    done = harness.train(cwd, [*common, "train.stop_after_steps=5"])
    assert done.code == 0, done.output
    assert "resuming other from step 4" in done.output
