"""Objects in S3, or in what speaks its protocol."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from trainer.storage.answers import AGAIN, problem_of
from trainer.storage.base import BLOCK, S3, Exists, StorageError, Stored, is_remote, replaced
from trainer.storage.client import ATTEMPTS, client
from trainer.storage.patterns import literal_prefix, names
from trainer.storage.uploads import in_parts

CHUNK = 64 << 10
WAIT = 0.2
"""Seconds before a broken read goes on; doubled each time."""
WHOLE = 64 << 20
"""Larger files are uploaded in parts."""


class S3Storage:
    """One request at a time in each thread; threads may share it.

    The client repeats a request that fails (client.ATTEMPTS); a body that breaks off is this class's, which asks for
    what is left, of the same object.
    """

    def __init__(self, key: str) -> None:
        """key: of the configuration, that problems are reported under. Raises StorageError where boto3 is missing."""
        self.key = key
        client(key)

    @property
    def client(self) -> Any:
        """That of this process, which may be a fork of the one that opened the storage."""
        return client(self.key)

    def list(self, prefix: str) -> Iterator[Stored]:
        """A request for 1,000 objects. What stands for a directory (empty, with a / at the end) is left out."""
        bucket, start = self._parts(prefix)
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
        try:
            for page in pages:
                for found in page.get("Contents", ()):
                    if not found["Key"].endswith("/"):
                        path = f"{S3}{bucket}/{found['Key']}"
                        yield Stored(path, found["Size"], found["LastModified"].timestamp(), found["ETag"])
        except GeneratorExit:
            raise
        except Exception as error:
            raise problem_of(error, self.key, prefix) from error

    def children(self, directory: str) -> tuple[str, ...]:
        """A request for 1,000 of them."""
        bucket, start = self._parts(directory)
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start, Delimiter="/")
        try:
            found = [one["Prefix"] for page in pages for one in page.get("CommonPrefixes", ())]
        except Exception as error:
            raise problem_of(error, self.key, directory) from error
        return tuple(sorted(name.removeprefix(start).rstrip("/") for name in found))

    def glob(self, pattern: str) -> Iterator[Stored]:
        """Lists what begins as the pattern does up to its first special character."""
        for stored in self.list(literal_prefix(pattern)):
            if names(pattern, stored.path):
                yield stored

    def stat(self, path: str) -> Stored:
        """One request."""
        bucket, name = self._parts(path)
        found = self._ask("head_object", path, None, Bucket=bucket, Key=name)
        return Stored(path, found["ContentLength"], found["LastModified"].timestamp(), found["ETag"])

    def read(self, stored: Stored, offset: int, size: int) -> bytes:
        """One request, and one more for each time that it breaks off."""
        if offset + size > stored.size:
            rule = f"has {size:,} bytes from {offset:,} on; it ends at {stored.size:,}"
            raise StorageError(self.key, stored.path, rule, "ask for less, or write it again")
        return b"".join(self._range(stored, offset, size))

    def stream(self, stored: Stored, block: int = BLOCK) -> Iterator[bytes]:
        """A request for each block."""
        for offset in range(0, stored.size, block):
            yield self.read(stored, offset, min(block, stored.size - offset))

    def write(self, path: str, data: bytes, only_new: bool = False) -> Stored:
        """One request. With only_new a repeated one may meet what the first has written: that is no conflict."""
        bucket, name = self._parts(path)
        condition = {"IfNoneMatch": "*"} if only_new else {}
        try:
            self._ask("put_object", path, None, Bucket=bucket, Key=name, Body=data, **condition)
        except Exists:
            found = self.stat(path)
            if found.size != len(data) or self.read(found, 0, found.size) != data:
                raise
        return self._written(path, len(data))

    def upload(self, path: str, file: Path, only_new: bool = False) -> Stored:
        """A large file in parts; the upload is given up, and nothing of it is left, when one of them fails."""
        try:
            size = file.stat().st_size
            if size <= WHOLE:
                return self.write(path, file.read_bytes(), only_new)
        except OSError as error:
            rule = f"cannot be read: {error.strerror or error}"
            raise StorageError(self.key, str(file), rule, "restore the file, or access to it") from None
        bucket, name = self._parts(path)
        try:
            in_parts(self.client, bucket, name, file, only_new)
        except Exception as error:
            raise problem_of(error, self.key, path) from error
        return self._written(path, size)

    def delete(self, path: str) -> None:
        """One request."""
        bucket, name = self._parts(path)
        self._ask("delete_object", path, None, Bucket=bucket, Key=name)

    def _range(self, stored: Stored, offset: int, size: int) -> Iterator[bytes]:
        """The bytes in chunks. What breaks off is asked for again from there, ATTEMPTS times without progress."""
        bucket, name = self._parts(stored.path)
        end, failed = offset + size, 0
        while offset < end:
            span = f"bytes={offset}-{end - 1}"
            answer = self._ask(
                "get_object", stored.path, stored, Bucket=bucket, Key=name, Range=span, IfMatch=stored.etag
            )
            if answer["ETag"] != stored.etag:  # a server that knows no If-Match
                raise replaced(self.key, stored)
            before = offset
            try:
                with closing(answer["Body"]) as body:
                    for chunk in body.iter_chunks(CHUNK):
                        offset += len(chunk)
                        yield chunk
                why: Exception = EOFError("the body ends early")
            except GeneratorExit:
                raise
            except Exception as error:  # of urllib3, of botocore, of the socket
                why = error
            if offset < end:
                failed = 1 if offset > before else failed + 1
                if failed >= ATTEMPTS:
                    rule = f"breaks off at byte {offset:,}, {failed} times ({type(why).__name__})"
                    raise StorageError(self.key, stored.path, rule, AGAIN) from why
                time.sleep(WAIT * 2**failed)

    def _written(self, path: str, size: int) -> Stored:
        found = self.stat(path)
        if found.size != size:
            rule = f"was written with {size:,} bytes, and has {found.size:,}"
            raise StorageError(self.key, path, rule, "let one writer at a time write it")
        return found

    def _parts(self, path: str) -> tuple[str, str]:
        """Bucket and key."""
        bucket, _, name = path.removeprefix(S3).partition("/")
        if not is_remote(path) or not bucket:
            raise StorageError(self.key, path, "names a bucket and a key", "write s3://BUCKET/KEY")
        return bucket, name

    def _ask(self, method: str, path: str, stored: Stored | None, **given: Any) -> Any:
        try:
            return getattr(self.client, method)(**given)
        except Exception as error:  # the client's, the credentials', the network's: there is no common base
            raise problem_of(error, self.key, path, stored) from error
