"""S3 that fails at chosen requests: the same bytes, or one error with the cause, and nothing half done."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SECRET
from tests.s3 import CLOSED, CUT, SECONDS, SLOW, Fault, Server
from trainer.errors import Problem
from trainer.storage import client, uploads
from trainer.storage import s3 as room
from trainer.storage.base import StorageError
from trainer.storage.open import storage_of

KEY = "data.sources[x].paths"
DATA = os.urandom(1 << 20)


def problem_of(action: Callable[[], object]) -> Problem:
    """What one call ends with."""
    with pytest.raises(StorageError) as caught:
        action()
    (problem,) = caught.value.problems
    assert problem.rule
    assert problem.remedy
    assert SECRET not in str(problem)
    return problem


def first(times: int, kind: str, method: str = "GET") -> Fault:
    """The first requests of a method fail, and then none."""
    left = iter(range(times))
    return lambda found, path, number: kind if found == method and next(left, None) is not None else None


def always(kind: str) -> Fault:
    """Every request fails."""
    return lambda method, path, number: kind


@pytest.fixture
def place(s3: Server) -> str:
    """A bucket with one object."""
    bucket = s3.bucket()
    s3.client().put_object(Bucket=bucket, Key="x", Body=DATA)
    return f"s3://{bucket}"


@pytest.mark.parametrize("kind", ["500", "503", CLOSED, CUT])
def test_what_fails_a_few_times_is_read_all_the_same(s3: Server, place: str, kind: str) -> None:
    storage = storage_of(place, KEY)
    stored = storage.stat(f"{place}/x")
    with s3.failing(first(client.ATTEMPTS - 1, kind)):
        assert storage.read(stored, 1000, 900_000) == DATA[1000:901_000]
    with s3.failing(first(2, kind)):
        assert b"".join(storage.stream(stored, 300_000)) == DATA
    with s3.failing(first(2, kind if kind != CUT else CLOSED)):
        assert [one.path for one in storage.list(f"{place}/")] == [f"{place}/x"]


def test_a_body_that_breaks_off_goes_on_where_it_broke(s3: Server, place: str) -> None:
    storage = storage_of(place, KEY)
    stored = storage.stat(f"{place}/x")
    s3.requests.clear()
    with s3.failing(first(3, CUT)):
        assert storage.read(stored, 0, len(DATA)) == DATA
    begins = [int(span[6:].split("-")[0]) for _, _, span in s3.requests]
    assert len(begins) == 4
    assert begins[0] == 0
    assert all(after > before for before, after in itertools.pairwise(begins))


def test_an_object_that_is_replaced_between_two_parts_is_never_mixed(s3: Server, place: str) -> None:
    storage = storage_of(place, KEY)
    stored = storage.stat(f"{place}/x")

    def fault(method: str, path: str, number: int) -> str | None:
        if method == "GET" and number == 1:  # after the first part was read
            s3.fault = None
            s3.lock.release()
            s3.client().put_object(Bucket=place[5:], Key="x", Body=bytes(len(DATA)))
            s3.lock.acquire()
        return CUT if number == 0 else None

    with s3.failing(fault):
        problem = problem_of(lambda: storage.read(stored, 0, len(DATA)))
    assert (problem.key, problem.value) == (KEY, f"{place}/x")
    assert "was replaced while it was being read" in problem.rule


def test_what_always_fails_is_told(s3: Server, place: str) -> None:
    storage = storage_of(place, KEY)
    stored = storage.stat(f"{place}/x")
    for kind, words in {
        "500": "S3 answers 500 InternalError (5 attempts)", "503": "S3 asks to slow down (SlowDown, 5 attempts)",
        "403": "is open to this user: S3 answers 403 AccessDenied", CLOSED: "cannot be reached, or breaks off",
    }.items():  # fmt: skip
        s3.requests.clear()
        with s3.failing(always(kind)):
            assert words in problem_of(lambda: storage.read(stored, 0, 10)).rule
            assert len(s3.requests) == (1 if kind == "403" else client.ATTEMPTS)
            problem_of(lambda: list(storage.list(f"{place}/")))
            problem_of(lambda: storage.write(f"{place}/new", b"x"))
    with s3.failing(lambda method, path, number: CUT if method == "GET" else None):
        problem = problem_of(lambda: storage.read(stored, 0, 3))  # a third of 3 bytes, of 2: 1 and then none
    assert "breaks off at byte 1" in problem.rule
    assert problem_of(lambda: storage.stat(f"{place}/none")).rule == "is an object that exists (404)"
    assert "no such bucket" in problem_of(lambda: list(storage.list("s3://b-that-is-nowhere/"))).rule
    s3.client().delete_object(Bucket=place[5:], Key="x")
    assert "it was listed, and is gone" in problem_of(lambda: storage.read(stored, 0, 10)).rule


def test_a_failed_upload_leaves_nothing(
    s3: Server, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "WHOLE", 1 << 20)
    monkeypatch.setattr(uploads, "PART", 5 << 20)
    (tmp_path / "file").write_bytes(data := os.urandom(11 << 20))
    storage = storage_of(place, KEY)
    with s3.failing(first(2, "503", "PUT")):
        storage.upload(f"{place}/good", tmp_path / "file")
    assert s3.client().get_object(Bucket=place[5:], Key="good")["Body"].read() == data
    parts = iter(range(99))
    with s3.failing(lambda method, path, number: "500" if method == "PUT" and next(parts) >= 1 else None):
        assert "500" in problem_of(lambda: storage.upload(f"{place}/bad", tmp_path / "file")).rule
    assert "Uploads" not in s3.client().list_multipart_uploads(Bucket=place[5:])
    problem_of(lambda: storage.stat(f"{place}/bad"))


def test_an_answer_that_is_lost_is_no_conflict(s3: Server, place: str) -> None:
    """S3 has written, the answer is lost, the client asks again and is told that the name is taken: by itself."""
    storage, app = storage_of(place, KEY), s3.app
    lost = iter([True])

    def deaf(environ, start_response):  # type: ignore[no-untyped-def]
        body = app(environ, start_response)
        if environ["REQUEST_METHOD"] == "PUT" and next(lost, False):
            raise ConnectionAbortedError
        return body

    s3.app = deaf  # type: ignore[assignment]
    try:
        storage.write(f"{place}/marker", b"mine", only_new=True)
    finally:
        s3.app = app
    assert [method for method, *_ in s3.requests].count("PUT") >= 2
    assert s3.client().get_object(Bucket=place[5:], Key="marker")["Body"].read() == b"mine"


def test_nobody_answers(s3: Server, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://somebody:{SECRET}@127.0.0.1:{port}")
    client._client.cache_clear()
    begin = time.monotonic()
    problem = problem_of(lambda: storage_of(place, KEY).stat(f"{place}/x"))
    assert time.monotonic() - begin < 10
    assert "S3 cannot be reached" in problem.rule
    assert "AWS_ENDPOINT_URL" in problem.remedy


def test_an_answer_that_is_late_is_asked_for_again(s3: Server, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "READ_SECONDS", SECONDS / 3)
    monkeypatch.setattr(client, "ATTEMPTS", 2)
    client._client.cache_clear()
    storage = storage_of(place, KEY)
    stored = storage.stat(f"{place}/x")
    with s3.failing(first(1, SLOW)):
        assert storage.read(stored, 10, 100) == DATA[10:110]
    with s3.failing(first(99, SLOW)):
        assert "ReadTimeoutError" in problem_of(lambda: storage.read(stored, 10, 100)).rule


def test_without_credentials_or_boto3(s3: Server, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    client._client.cache_clear()
    problem = problem_of(lambda: storage_of(place, KEY).stat(f"{place}/x"))
    assert "no credentials for S3" in problem.rule
    assert "AWS_PROFILE" in problem.remedy
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    client._client.cache_clear()
    assert "nobody" in problem_of(lambda: storage_of(place, KEY)).rule
    monkeypatch.setitem(sys.modules, "boto3", None)
    client._client.cache_clear()
    assert problem_of(lambda: storage_of(place, KEY)).remedy == "pip install -e .[s3]"
