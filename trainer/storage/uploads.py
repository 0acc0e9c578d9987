"""A large file to S3, in parts."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

PART = 16 << 20
PARTS = 10_000
"""S3 takes no more of them."""


def in_parts(client: Any, bucket: str, name: str, file: Path, only_new: bool) -> None:
    """Upload a file that is not empty.

    Raises what the client raises, an OSError, or a BaseException such as an interrupt, after the unfinished upload was
    given up.
    """
    part_size = max(PART, -(-file.stat().st_size // PARTS))
    upload = client.create_multipart_upload(Bucket=bucket, Key=name)["UploadId"]
    same: dict[str, Any] = {"Bucket": bucket, "Key": name, "UploadId": upload}
    condition = {"IfNoneMatch": "*"} if only_new else {}
    parts: list[dict[str, Any]] = []
    digests = b""
    try:
        with file.open("rb") as stream:
            while data := stream.read(part_size):
                number = len(parts) + 1
                etag = client.upload_part(**same, PartNumber=number, Body=data)["ETag"]
                digests += hashlib.md5(data, usedforsecurity=False).digest()
                parts.append({"ETag": etag, "PartNumber": number})
        client.complete_multipart_upload(**same, MultipartUpload={"Parts": parts}, **condition)
    except BaseException:
        with suppress(Exception):  # the first error is the one to tell
            if _is_there(client, bucket, name, digests, len(parts)):
                return
        with suppress(Exception):
            client.abort_multipart_upload(**same)
        raise


def _is_there(client: Any, bucket: str, name: str, digests: bytes, parts: int) -> bool:
    """Whether the object has these parts: the answer to a completing request may be lost, and a repeated one fails.

    Where S3 encrypts with a key of its own (KMS), ETags are no digests and this cannot be told.
    """
    whole = hashlib.md5(digests, usedforsecurity=False).hexdigest()
    return bool(client.head_object(Bucket=bucket, Key=name)["ETag"] == f'"{whole}-{parts}"')
