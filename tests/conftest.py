"""Shared by all tests: offline, quiet, and few threads, so that 2 cores serve several processes."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.distributed.contract import Differences, table

Rows = dict[tuple[str, str], Differences]
ROWS = pytest.StashKey[Rows]()

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:  # nohup or a background job: what tests start would ignore it too
        signal.signal(number, lambda _, __: None)


@pytest.fixture(scope="session")
def rows(request: pytest.FixtureRequest) -> Rows:
    """Worst differences of layouts, by layout and precision, as tests find them; shown at the end."""
    return request.config.stash.setdefault(ROWS, {})


@pytest.fixture(scope="module")
def selected(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    """Parameters of the tests of a file that were selected and are not skipped: what its ranks have work for."""
    items = [
        item for item in request.session.items if item.path == request.path and not item.get_closest_marker("skip")
    ]
    return [item.callspec.params for item in items if hasattr(item, "callspec")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of what ``rows`` has collected."""
    if found := config.stash.get(ROWS, None):
        terminalreporter.section("worst differences by layout")
        terminalreporter.write_line(table(found))
