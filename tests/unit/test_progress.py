"""How far a task is: lines at intervals with what is left, a bar on a terminal, nothing without a report."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from trainer.data import progress
from trainer.data.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(monkeypatch: pytest.MonkeyPatch, amounts: list[int], total: int | None, unit: str | None) -> list[str]:
    """What is reported where each amount takes four seconds."""
    now = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(now)))
    told: list[str] = []
    with track("quiz", total, told.append, unit) as advance:
        for amount in amounts:
            advance(amount)
    return told


def test_a_line_each_ten_seconds_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    told = lines_of(monkeypatch, [100] * 8, 20_000, "tokens")
    assert told == ["quiz: 300 tokens of 20,000 tokens, 13 min left", "quiz: 600 tokens of 20,000 tokens, 13 min left"]
    assert lines_of(monkeypatch, [100] * 3, 400, "items") == ["quiz: 300 items of 400 items, 4 s left"]
    assert lines_of(monkeypatch, [100] * 3, 300, "items") == ["quiz: 300 items of 300 items"]


def test_bytes_are_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_of(monkeypatch, [10**6] * 3, 10**11, None) == ["quiz: 3.0 MB of 100,000.0 MB, 111.1 h left"]
    assert lines_of(monkeypatch, [10**6] * 3, None, None) == ["quiz: 3.0 MB"]


def test_a_terminal_has_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    told: list[str] = []
    with track("[b]quiz.jsonl", 40, told.append, "items") as advance:
        advance(30)
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert told == []
    assert "[b]quiz.jsonl" in shown
    assert "30/40" in shown
    assert "items" in shown


def test_without_a_report_there_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with track("quiz", 40, None, "items") as advance:
        advance(40)
    assert capsys.readouterr() == ("", "")
