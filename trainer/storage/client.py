"""boto3's client for S3. Where and who: AWS's own variables, files and roles, which boto3 reads."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from trainer.storage.answers import problem_of
from trainer.storage.base import S3, StorageError

ATTEMPTS = 5
"""For each request. Between them botocore waits up to 1, 2, 4 and 8 s, by chance."""
CONNECT_SECONDS, READ_SECONDS = 5, 30
CONNECTIONS = 16


def client(key: str) -> Any:
    """The client of this process: a forked one has its own. Raises StorageError, under this key."""
    try:
        return _client(os.getpid())
    except ImportError:
        rule = "is read with boto3, which is not installed"
        raise StorageError(key, S3, rule, "pip install -e .[s3]") from None
    except Exception as error:  # a profile that is nowhere, an endpoint that is no URL, a file that cannot be parsed
        raise problem_of(error, key, S3) from None


@lru_cache(maxsize=1)
def _client(process: int) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
    )
    region = os.environ.get("AWS_REGION") or None  # every other SDK of AWS reads it, boto3 only AWS_DEFAULT_REGION
    return boto3.session.Session(region_name=region).client("s3", config=config)
