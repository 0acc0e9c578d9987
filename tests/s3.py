"""A server that speaks S3 (moto's), and what goes wrong between it and its clients, at chosen requests."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ERRORS = {"500": "500 InternalError", "503": "503 SlowDown", "403": "403 AccessDenied"}
CLOSED, CUT, SLOW = "closed", "cut", "slow"
SECONDS = 1.5
Fault = Callable[[str, str, int], "str | None"]
"""Method, path and number (from 0, of those that are faults' business) of a request -> what happens to it instead.

A key of ERRORS is answered; CLOSED: no answer comes; CUT: a third of the body comes; SLOW: it all comes,
SECONDS later.
"""


class Handler(WSGIRequestHandler):
    """No line for each request; a connection that a fault ends is closed, as werkzeug's own would not be."""

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        """Of the ConnectionAbortedError of a fault, too."""
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nowhere."""


class Server:
    """requests: method, path and range of all that came, in order."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.requests: list[tuple[str, str, str]] = []
        self.fault: Fault | None = None
        self.faults = 0
        self.lock = threading.Lock()
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Handler)
        self.server.daemon_threads, self.server.block_on_close = True, False  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self.lock:
            self.requests.append((method, path, environ.get("HTTP_RANGE", "")))
            kind = self.fault and self.fault(method, path, self.faults)
            self.faults += 1
        if kind == SLOW:
            time.sleep(SECONDS)
        if kind == CLOSED:
            raise ConnectionAbortedError
        if kind in ERRORS:
            status, code = ERRORS[kind].split()
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response(f"{status} {code}", [("Content-Type", "application/xml")])
            return [f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()]
        body = self.app(environ, start_response)
        return body if kind != CUT else cut(body)

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        """Meanwhile requests meet the fault; they are numbered from here."""
        self.fault, self.faults = fault, 0
        try:
            yield
        finally:
            self.fault = None

    def bucket(self) -> str:
        """A new one."""
        name = f"b-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def client(self) -> Any:
        """boto3's own, for what a test puts there and looks at."""
        return boto3.client("s3", endpoint_url=self.url)

    def close(self) -> None:
        """No more requests."""
        self.server.shutdown()
        self.server.server_close()


def cut(body: Iterable[bytes]) -> Iterator[bytes]:
    """A third of it, and the connection ends."""
    whole = b"".join(body)
    yield whole[: len(whole) // 3]
    raise ConnectionAbortedError
