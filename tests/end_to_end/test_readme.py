"""Every command of the README and the docs runs, shortened to one step."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import harness
from tests.families.tokenizers_of import by_hand
from tests.selection import in_ci
from tests.unit.test_chat_masks import rows

pytestmark = pytest.mark.slow

SHORT = ["train.stop_after_steps=1", "evaluation.every_steps=0", "logging.progress=lines"]


def commands(page: str) -> list[str]:
    """The shell commands of a page's bash blocks, without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", (harness.ROOT / page).read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line.startswith(("python ", "torchrun ", "PYTHONPATH="))]


README = commands("README.md")
IN_CI = [*README[:2], *(line for line in README if "run.name=mine" in line), *README[-2:]]
"""A run as it is shown and one of files of one's own, the configuration, a plan and a rehearsal. The others set other
values, which tests beside this one set too."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a command in a clone finds beside it."""
    cwd = tmp_path_factory.mktemp("clone")
    for name in ("docs", "scripts", "conf"):
        shutil.copytree(harness.ROOT / name, cwd / name)
    shutil.copy(harness.ROOT / "README.md", cwd)
    return cwd


def run(cwd: Path, command: str, *more: str) -> str:
    words = shlex.split(command.replace("$PWD", str(cwd)))
    path = [words.pop(0).partition("=")[2]] if words[0].startswith("PYTHONPATH=") else []
    launcher = [sys.executable] if words[0] == "python" else [sys.executable, "-m", "torch.distributed.run"]
    done = subprocess.run(
        [*launcher, *words[1:], *more],
        cwd=cwd,
        env={**harness.environment(), "PYTHONPATH": os.pathsep.join([*path, os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def check(cwd: Path, command: str) -> None:
    """Run a command, shortened, and look for the line that says it did what it is for."""
    if "backend=fake" in command:
        assert "trn1: fits (estimated)" in run(cwd, command, "model.layers=4")
    else:
        looks = {
            "--cfg": "optim",
            "plan.py": "boxes of this rank",
            "data.py": "first words",
            "prepare.py": "train with:",
        }
        told = next((told for part, told in looks.items() if part in command), "step      1/")
        assert told in run(cwd, command, *SHORT)


def test_there_are_a_dozen_examples() -> None:
    assert len(README) == 16


@pytest.mark.parametrize("command", in_ci(README, IN_CI))
def test_readme_command(clone: Path, command: str) -> None:
    check(clone, command)


@pytest.mark.long
def test_saved_configuration_of_docs(clone: Path) -> None:
    """docs/runs.md: a run is changed on purpose, and its saved configuration runs again."""
    _, resume, again, _ = commands("docs/runs.md")
    run(clone, "python scripts/train.py recipe=tiny", *SHORT)
    assert "step      2/" in run(clone, resume, *SHORT[1:], "train.stop_after_steps=2")
    assert "step      1/" in run(clone, again, *SHORT)


@pytest.mark.long
def test_a_root_at_home(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/runs.md: the quotes around ~ are those that Hydra and the shell want."""
    monkeypatch.setenv("HOME", str(clone / "home"))
    assert "step      1/" in run(clone, commands("docs/runs.md")[0], *SHORT)
    assert (clone / "home" / "runs" / "tiny" / "config.yaml").is_file()


EXTENDING = (harness.ROOT / "docs" / "extending.md").read_text()


@pytest.fixture(scope="module")
def extended(clone: Path) -> Path:
    """The clone with the files that docs/extending.md shows, and with conversations for docs/data.md."""
    for block in re.findall(r"```(?:yaml|python)\n(.*?)```", EXTENDING, re.DOTALL):
        first, _, rest = block.partition("\n")
        path = clone / first.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rest)
    by_hand(clone / "my-tokenizer")
    (clone / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(300)))
    return clone


PAGES = [
    *commands("docs/extending.md"),
    commands("docs/runs.md")[-1],
    *commands("docs/data.md"),
    *commands("docs/parallel.md"),
]


@pytest.mark.long
@pytest.mark.parametrize("command", PAGES)
def test_command_of_a_page(extended: Path, command: str) -> None:
    check(extended, command)
