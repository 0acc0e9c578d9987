"""Secrets are hidden; what only looks like one is not."""

from __future__ import annotations

import dataclasses

import pytest

from trainer.config.keys import flatten
from trainer.config.schema import Config
from trainer.errors import Problem
from trainer.redact import redact

SECRET = "hf_abcdefgh12345"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("SHORT_KEY", "on")


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        ({"api_key": "x", "a": 1}, {"api_key": "***", "a": 1}),
        ({"a": {"wandb.password": "x"}}, {"a": {"wandb.password": "***"}}),
        ([f"see {SECRET}!"], ["see ***!"]),
        ("logging.wandb.api_key=x y", "logging.wandb.api_key=***"),
        ("+hf.token=x", "+hf.token=***"),
        ("https://me:pw@host/x", "https://me:***@host/x"),
        ({"aws_secret_access_key": "x"}, {"aws_secret_access_key": "***"}),
        ({"train.tokens": 5, "tokens": 6, "sample_tokens": 7}, {"train.tokens": 5, "tokens": 6, "sample_tokens": 7}),
        ("turn it on", "turn it on"),
        (None, None),
    ],
)
def test_secrets_are_hidden(value: object, hidden: object) -> None:
    assert redact(value) == hidden


def test_no_value_of_the_schema_looks_like_a_secret() -> None:
    values = flatten(dataclasses.asdict(Config()))
    assert redact(values) == values


def test_a_problem_does_not_show_it() -> None:
    text = str(Problem("logging.wandb.api_key", "k123", f"not {SECRET}", "take it out"))
    assert "k123" not in text
    assert SECRET not in text
