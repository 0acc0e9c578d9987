"""What an error of S3 or of its client means, and what to do about it."""

from __future__ import annotations

from typing import Any

from trainer.redact import redact
from trainer.storage.base import Denied, Missing, StorageError, Stored, exists, replaced

CREDENTIALS = "check AWS_PROFILE, the AWS_* variables or the role of this machine (aws sts get-caller-identity)"
ALLOW = "allow this user s3:GetObject on the objects and s3:ListBucket on the bucket, or " + CREDENTIALS
REGION = "set AWS_REGION to the bucket's region (and AWS_ENDPOINT_URL where the storage is not AWS's)"
ENDPOINT = "check the network, and AWS_ENDPOINT_URL if it is set"
AGAIN = "wait, and start again: it goes on from the last checkpoint and from what is cached"
CODES = {
    "NoSuchBucket": ("there is no such bucket", "check the spelling of the bucket, and AWS_PROFILE"),
    "InvalidBucketName": ("a bucket's name has 3 to 63 small letters, digits, dots and hyphens", "correct it"),
    "KeyTooLongError": ("a key has at most 1,024 bytes", "shorten it"),
    "EntityTooLarge": ("an object has at most 5 TB", "cut it into several"),
    "InvalidObjectState": ("the object is archived (Glacier)", "restore it first: aws s3api restore-object"),
    "PermanentRedirect": ("the bucket is in another region", REGION),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", REGION),
    "301": ("the bucket is in another region", REGION),
    "RequestTimeTooSkewed": ("this machine's clock is more than 15 minutes off", "set the clock"),
}
SLOW = ("SlowDown", "503", "Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded")
MISSING, DENIED, TAKEN = 404, (401, 403), (409, 412)


def problem_of(error: Exception, key: str, path: str, stored: Stored | None = None) -> StorageError:
    """The error to raise for one of the client.

    key: of the configuration. stored: what was being read; without it, what must not exist was being written.
    """
    response: dict[str, Any] = getattr(error, "response", None) or {}
    if "Error" not in response:
        return _unanswered(error, key, path)
    code = str(response["Error"].get("Code", ""))
    facts = response.get("ResponseMetadata", {})
    status, tries = int(facts.get("HTTPStatusCode", 0)), int(facts.get("RetryAttempts", 0)) + 1
    if status in TAKEN and code not in CODES:
        return replaced(key, stored) if stored else exists(key, path)
    if stored is not None and status == MISSING and code != "NoSuchBucket":
        rule = "is still there: it was listed, and is gone"
        return Missing(key, path, rule, "leave it as it is while a run reads it, or start again without it")
    if code in CODES:
        return StorageError(key, path, *CODES[code])
    if status == MISSING:
        return Missing(key, path, "is an object that exists (404)", "check the spelling of bucket and key")
    if status in DENIED:
        return Denied(
            key, path, f"is open to this user: S3 answers {status} {'' if code.isdecimal() else code}".rstrip(), ALLOW
        )
    if code in SLOW:
        rule = f"S3 asks to slow down ({code}, {tries} attempts)"
        return StorageError(key, path, rule, f"let fewer processes read at once; {AGAIN}")
    words = " ".join(str(response["Error"].get("Message", "")).split())[:200]
    return StorageError(key, path, f"S3 answers {status} {code} ({tries} attempts): {redact(words)}", AGAIN)


def _unanswered(error: Exception, key: str, path: str) -> StorageError:
    """What never came to S3, or came back broken. The client's own words may have the endpoint with its password."""
    kind = type(error).__name__
    words = " ".join(str(redact(str(error))).split())[:300]
    if kind in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"):
        return Denied(key, path, f"no credentials for S3: {words}", CREDENTIALS)
    if "Token" in kind or "SSO" in kind:
        return Denied(
            key, path, f"the credentials for S3 cannot be renewed: {words}", "aws sso login, or " + CREDENTIALS
        )
    if kind == "ParamValidationError":
        return StorageError(key, path, f"is no name of an object: {words}", "write s3://BUCKET/KEY")
    rule = f"S3 cannot be reached, or breaks off ({kind}): {words}"
    return StorageError(key, path, rule, ENDPOINT)
