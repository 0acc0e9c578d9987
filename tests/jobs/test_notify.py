"""Who is told, over real HTTP and a real program; and that the address, which is a secret, stays one."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from trainer.commands.jobs.notify import tell
from trainer.config.groups.job import JobConfig, JobNotifyConfig
from trainer.errors import DataError
from trainer.jobs.events import Occurrence
from trainer.jobs.work import Job

ENDED = Occurrence("nightly", "20261130t013000z", end="published", code=0, why="it is better")


class Server(HTTPServer):
    """Keeps what it was sent."""

    answer = 200

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answer)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/moved")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def job(**notify: Any) -> Job:
    return Job("nightly", JobConfig(notify=JobNotifyConfig(**notify)))


def test_a_webhook_gets_one_object(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{server.server_port}/services/s3cr3t")
    assert tell(job(webhook_variable="HOOK"), ENDED) == "the address in HOOK"
    (body,) = server.bodies
    assert (body["job"], body["slot"], body["end"], body["code"]) == ("nightly", ENDED.slot, "published", 0)
    assert body["why"] == "it is better"


def test_no_message_holds_the_address(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    here = f"http://127.0.0.1:{server.server_port}/s3cr3t"
    for address in (here, "http://127.0.0.1:9/s3cr3t", "s3cr3t", "https://s3cr3t host/", "http://[s3cr3t", f"{here}\n"):
        server.answer = 500
        monkeypatch.setenv("HOOK", address)
        with pytest.raises(DataError, match="HOOK") as raised:
            tell(job(webhook_variable="HOOK"), ENDED)
        assert "s3cr3t" not in raised.value.report()
    monkeypatch.delenv("HOOK")
    with pytest.raises(DataError, match="set HOOK"):
        tell(job(webhook_variable="HOOK"), ENDED)


def test_a_receiver_that_has_moved_is_told_and_not_followed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """urllib would follow with a GET that has no body: nobody would be told, and the ledger say that somebody was."""
    server.answer = 302
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{server.server_port}/s3cr3t")
    with pytest.raises(DataError, match="answered with 302"):
        tell(job(webhook_variable="HOOK"), ENDED)


def test_a_command_reads_the_same_object(tmp_path: Any) -> None:
    kept = tmp_path / "kept.json"
    program = f"import sys; open({str(kept)!r}, 'w').write(sys.stdin.read())"
    assert tell(job(command=[sys.executable, "-c", program]), ENDED) == sys.executable
    assert json.loads(kept.read_text())["end"] == "published"


@pytest.mark.parametrize(
    ("command", "says"),
    [(["/nowhere/at/all"], "FileNotFoundError"), ([sys.executable, "-c", "raise SystemExit('no')"], "ended with 1 no")],
)
def test_a_command_that_fails_is_told(command: list[str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        tell(job(command=command), ENDED)


def test_nobody_is_somebody_to_name() -> None:
    assert "nobody" in tell(job(), ENDED)
