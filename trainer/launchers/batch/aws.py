"""boto3's clients, and what its errors mean. Where and who: AWS's own variables, files and roles."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainer.errors import Problem
from trainer.launchers.base import LaunchError

KEY = "launcher.batch"
MISSING = Problem(KEY, "boto3", "is needed for AWS Batch and is not installed", "pip install -e .[s3]")
CREDENTIALS = "check AWS_PROFILE, the AWS_* variables or the role of this machine (aws sts get-caller-identity)"
REMEDIES = (
    ("AccessDenied", "allow it to this user or role (docs/batch.md, permissions)"),
    ("UnrecognizedClient", CREDENTIALS),
    ("ExpiredToken", CREDENTIALS),
    ("credentials", CREDENTIALS),
    ("region", "launcher.batch.region=<region>, or AWS_REGION"),
    ("queue", "launcher.batch.queue=<one of: aws batch describe-job-queues>"),
    ("endpoint", "check the network, and AWS_ENDPOINT_URL if it is set"),
)
"""What an error's text has in it -> what to do about it; the first that fits."""


def client(service: str, region: str | None) -> Any:
    """A client of one service. Raises LaunchError where boto3 is missing or knows neither region nor profile."""
    with understood(service):
        import boto3
        from botocore.config import Config

        where = region or os.environ.get("AWS_REGION") or None  # boto3 reads only AWS_DEFAULT_REGION
        config = Config(connect_timeout=5, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 5})
        return boto3.session.Session(region_name=where).client(service, config=config)


@contextmanager
def understood(call: str) -> Iterator[None]:
    """What botocore raises, or that it is missing, becomes one LaunchError with its words and a remedy."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise LaunchError(MISSING) from None
    try:
        yield
    except (BotoCoreError, ClientError, ValueError) as error:  # ValueError: an endpoint that is no URL
        said = " ".join(str(error).split())
        remedy = next((remedy for word, remedy in REMEDIES if word.lower() in said.lower()), "see AWS's message")
        raise LaunchError(Problem(KEY, call, f"succeeds; AWS says: {said}", remedy)) from None


def mistakes(service: str, operation: str, parameters: dict[str, Any]) -> str:
    """What botocore's own model of an operation says against parameters; empty if nothing. Asks nobody."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.validate import ParamValidator

    model = ServiceModel(Loader().load_service_model(service, "service-2"), service)
    shape = model.operation_model(operation).input_shape
    return str(ParamValidator().validate(parameters, shape).generate_report())
