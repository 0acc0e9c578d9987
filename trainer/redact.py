"""Secrets stay out of every file, every message and every tracker."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"

_SECRET_KEY = re.compile(
    r"(^|[._-])(api_?key|access_?key(_id)?|secret(_\w+)?|password|passwd|credentials?|token)$", re.IGNORECASE
)
"""Keys whose value is never shown. ``tokens`` is not among them: we count those."""
_SECRET_VARIABLE = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS)$", re.IGNORECASE)
_SHORTEST = 8
"""A shorter value of a secret variable would be found in innocent text."""
_URL_PASSWORD = re.compile(r"(\w+://[^/\s:@]*:)[^@\s/]+(@)")
_OVERRIDE = re.compile(r"^([\w.+~/-]+)=(.*)$", re.DOTALL)


def redact(value: Any) -> Any:
    """A copy in which secrets are ``***``.

    Secrets are: what stands under a key like api_key, token or password (also in an override "key=value"), the value
    of an environment variable whose name ends like one, and a password in a URL.
    """
    if isinstance(value, Mapping):
        return {key: HIDDEN if item and is_secret_key(str(key)) else redact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    if not isinstance(value, str):
        return value
    if (override := _OVERRIDE.match(value)) and is_secret_key(override[1]):
        return f"{override[1]}={HIDDEN}"
    for secret in secrets_of_environment():
        value = value.replace(secret, HIDDEN)
    return _URL_PASSWORD.sub(rf"\1{HIDDEN}\2", value)


def is_secret_key(key: str) -> bool:
    """Whether a key, dotted or not, names a secret."""
    return _SECRET_KEY.search(key) is not None


def secrets_of_environment() -> list[str]:
    """Values of secret environment variables, the longest first: one may contain another."""
    found = {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name) and len(value) >= _SHORTEST}
    return sorted(found, key=len, reverse=True)
