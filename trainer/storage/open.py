"""The storage of a path."""

from __future__ import annotations

from trainer.storage.base import Storage, is_remote
from trainer.storage.local import LocalStorage
from trainer.storage.s3 import S3Storage


def storage_of(path: str, key: str) -> Storage:
    """key: of the configuration, that problems are reported under. Raises StorageError where boto3 is missing."""
    return S3Storage(key) if is_remote(path) else LocalStorage(key)
