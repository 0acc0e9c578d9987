"""Shared by all tests: offline, quiet, and few threads, so that 2 cores serve several processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.distributed.contract import Differences, table

if TYPE_CHECKING:
    from tests.s3 import Server

Rows = dict[tuple[str, str], Differences]
SECRET = "never-in-any-message"
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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Server]:
    """One for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        from tests.s3 import Server  # moto takes a second to import

        server = Server()
        yield server
        server.close()


@pytest.fixture
def s3(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server as this process and those that it starts find it; without waits between attempts."""
    import botocore.endpoint

    from trainer.storage import client
    from trainer.storage import s3 as room

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server.url, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(room, "WAIT", 0.0)
    client._client.cache_clear()
    s3_server.requests.clear()
    yield s3_server
    s3_server.fault = None
    client._client.cache_clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of what ``rows`` has collected."""
    if found := config.stash.get(ROWS, None):
        terminalreporter.section("worst differences by layout")
        terminalreporter.write_line(table(found))
