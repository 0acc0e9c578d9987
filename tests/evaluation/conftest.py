"""What tests of scripts/eval.py share."""

from __future__ import annotations

import sys

import pytest

from tests.launched import Run, script
from trainer.commands import command_line


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: exit code, standard output, standard error."""
    module = script("eval")
    monkeypatch.setattr(command_line, "outlive_readers", lambda: None)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["eval.py", *map(str, arguments)])
        code = command_line.run(module.parser(), module.act)
        out, err = capsys.readouterr()
        return code, out, err

    return call
