"""Gates and starts, each against a line of a table."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trainer.config.groups.job import JobGateConfig, JobStartConfig
from trainer.errors import ConfigError
from trainer.jobs.gates import judge
from trainer.jobs.registry.aliases import Alias
from trainer.jobs.stages import refusal
from trainer.jobs.start import begin_from, version_of

LORA = {"kind": "lora", "rank": 8, "targets": ["all-linear"]}


def scores(loss: float | None, print: str = "1", **more: Any) -> dict[str, Any]:
    return {"frozen": {"loss": loss, "fingerprint": print}, **more}


def gate(kind: str, **more: Any) -> JobGateConfig:
    return JobGateConfig(name="one", kind=kind, set="frozen", **more)


@pytest.mark.parametrize(
    ("one", "mine", "theirs", "passes"),
    [
        (gate("champion"), 1.9, 2.0, True),
        (gate("champion"), 2.0, 2.0, False),  # a tie
        (gate("champion"), 2.1, 2.0, False),
        (gate("champion", margin=0.05), 1.96, 2.0, False),
        (gate("champion", margin=0.05), 1.94, 2.0, True),
        (gate("champion"), math.nan, 2.0, False),
        (gate("champion"), None, 2.0, False),
        (gate("champion"), 2.0, None, True),  # no champion yet
        (gate("champion"), 2.0, math.inf, True),
        (gate("regression"), 1.9, 2.0, True),
        (gate("regression"), 2.01, 2.0, False),
        (gate("regression", margin=0.05), 2.04, 2.0, True),
        (gate("absolute", limit=2.0), 2.0, None, True),
        (gate("absolute", limit=2.0), 2.01, None, False),
        (gate("absolute", limit=2.0), math.nan, None, False),
    ],
)
def test_losses(one: JobGateConfig, mine: float | None, theirs: float | None, passes: bool) -> None:
    champion = None if theirs is None else scores(theirs)
    (verdict,) = judge([one], scores(mine), champion)
    assert verdict.passed == passes
    assert verdict.why
    assert verdict.fingerprint == "1"


def test_accuracy_is_better_when_it_is_higher() -> None:
    one = gate("champion", metric="accuracy")
    mine, theirs = ({"frozen": {"accuracy": value, "fingerprint": "1"}} for value in (0.6, 0.5))
    assert judge([one], mine, theirs)[0].passed
    assert not judge([one], theirs, mine)[0].passed


def test_two_contents_of_a_set_do_not_compare() -> None:
    (verdict,) = judge([gate("champion")], scores(1.0, "1"), scores(2.0, "2"))
    assert not verdict.passed
    assert "another content" in verdict.why


def test_size_and_latency() -> None:
    gates = [JobGateConfig(name="s", kind="size", limit=0.5), JobGateConfig(name="l", kind="latency", limit=20)]
    assert [v.passed for v in judge(gates, {"size_gb": 0.5, "ms_per_token": 21.0}, None)] == [True, False]
    assert [v.passed for v in judge(gates, {}, None)] == [False, False]


def test_a_tie_in_everything_keeps_the_champion_even_where_each_gate_would_let_it_pass() -> None:
    verdicts = judge([gate("regression")], scores(2.0), scores(2.0))
    assert verdicts[0].passed
    assert "tie keeps the champion" in refusal(verdicts)
    assert refusal(judge([gate("regression")], scores(1.9), scores(2.0))) == ""
    assert refusal(judge([gate("regression")], scores(1.9), None)) == ""


@pytest.mark.parametrize(
    ("now", "before", "how", "weights", "says"),
    [
        ({"kind": "full"}, {"kind": "full"}, "continue", "model", "full after full: from the weights of v1"),
        ({"kind": "full"}, LORA, "continue", "model", "full after LoRA: from the merged weights of v1"),
        (LORA, {"kind": "full"}, "continue", "model", "LoRA after full: from the weights of v1, under a new adapter"),
        (LORA, LORA, "continue", "adapter", "goes on"),
        (LORA, LORA, "merge", "model", "LoRA after LoRA: from the merged weights of v1, under a new adapter"),
        (LORA | {"rank": 16}, LORA, "continue", "model", "merged weights of v1, under a new adapter"),
    ],
)
def test_the_table_of_techniques(
    now: dict[str, Any], before: dict[str, Any], how: str, weights: str, says: str
) -> None:
    start = begin_from(JobStartConfig(adapter=how), now, "v1", {"technique": before, "base": "b"})
    assert (start["version"], start["weights"]) == ("v1", weights)
    assert says in start["why"]


def test_where_there_is_no_champion() -> None:
    assert version_of(JobStartConfig(), Alias()) is None
    assert version_of(JobStartConfig(model="recipe"), Alias(version="v1")) is None
    assert version_of(JobStartConfig(model="v7"), Alias(version="v1")) == "v7"
    with pytest.raises(ConfigError, match="promote a version"):
        version_of(JobStartConfig(otherwise="refuse"), Alias())
    with pytest.raises(ConfigError, match="whole version"):
        begin_from(JobStartConfig(), LORA, "v7", None)
