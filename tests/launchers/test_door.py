"""The launchers' door, names of submissions, and what makes a rendered script wrong."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from trainer.config.groups.launcher import LauncherConfig
from trainer.errors import ConfigError
from trainer.launchers import LAUNCHERS
from trainer.launchers.local import LocalLauncher
from trainer.launchers.making import launcher_of
from trainer.launchers.request import Request, name_of

KUBERNETES = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""RFC 1123 labels, as its API server checks them."""


def test_ours_and_a_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert isinstance(launcher_of(LauncherConfig()), LocalLauncher)
    (tmp_path / "mine.py").write_text("def make(config):\n    return ['mine', config.options]\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert launcher_of(LauncherConfig(name="mine:make", options={"a": 1})) == ["mine", {"a": 1}]
    with pytest.raises(ConfigError, match=r"launcher\.name"):
        launcher_of(LauncherConfig(name="mine:missing"))
    with pytest.raises(ConfigError, match="a name of the table"):
        launcher_of(LauncherConfig(name="launches"))
    del sys.modules["mine"]


def test_the_tables_entries_take_a_configuration() -> None:
    assert all(launcher_of(LauncherConfig(name=name)) for name in LAUNCHERS)


@pytest.mark.parametrize("text", ["tiny", "Sweep-optim.lr=0.001", "---", "ünï", "a" * 300, "a-" * 40, ""])
def test_any_text_makes_a_name(text: str) -> None:
    name = name_of(text, "0001-abc123")
    assert KUBERNETES.fullmatch(name)
    assert len(name) <= 52
    assert name.endswith("0001-abc123")
    assert Request(name, ("x",), Path()).name == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a" * 53, "a_b", "a.b"])
def test_a_name_that_an_engine_refuses(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        Request(name, ("x",), Path())


def test_problems_of_a_local_job() -> None:
    launcher = LocalLauncher(LauncherConfig(setup=["if true"]))
    request = Request("job", ("scripts/train.py", "recipe=tiny"), Path(), nodes=2)
    keys = [problem.key for problem in launcher.problems(request, launcher.render(request))]
    assert keys == ["launcher.nodes", "launcher.setup"]
