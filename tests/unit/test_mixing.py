"""Weights and the stages that change them: what is refused, and what is said of them before training."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.test_validate import ONE, VALID
from trainer.config.groups.data import SourceConfig, StageConfig
from trainer.data.cursor import Cursor
from trainer.data.mixture import mixtures
from trainer.data.order import GlobalOrder, SourceOrder
from trainer.data.outlook import outlook
from trainer.errors import ConfigError, DataError
from trainer.rules.check import validate

A, B, RESTING = (SourceConfig("python_stdlib", name, weight=weight) for name, weight in (("a", 1), ("b", 3), ("c", 0)))
STEP = VALID.train.tokens_per_step


def problems(sources: list[SourceConfig], stages: list[StageConfig]) -> list[tuple[str, str]]:
    config = replace(VALID, data=replace(VALID.data, sources=sources, stages=stages))
    try:
        validate(config, ONE)
    except ConfigError as error:
        return [(problem.key, problem.rule) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("sources", "stages"),
    [
        ([A, B], []),
        ([A, B], [StageConfig(STEP, {"a": 0.0})]),
        ([A, RESTING], [StageConfig(STEP, {"c": 2.0}), StageConfig(99 * STEP, {"a": 0.0})]),
    ],
)
def test_sound_mixtures(sources: list[SourceConfig], stages: list[StageConfig]) -> None:
    assert problems(sources, stages) == []


@pytest.mark.parametrize(
    ("sources", "stages", "key", "rule"),
    [
        ([A, RESTING], [], "data.sources.1.weight", "some stage of data.stages draws"),
        ([replace(A, weight=-1.0), B], [], "data.sources.0.weight", "0 or more"),
        ([replace(A, weight=float("nan")), B], [], "data.sources.0.weight", "finite"),
        ([RESTING], [StageConfig(STEP, {"c": 2.0})], "data.sources", "above 0 to begin with"),
        ([A, B], [StageConfig(0, {"a": 2.0})], "data.stages.0.from_tokens", "more than 0"),
        ([A, B], [StageConfig(9, {"a": 2.0}), StageConfig(9, {"a": 1.0})], "data.stages.1.from_tokens", "more than 9"),
        ([A, B], [StageConfig(100 * STEP, {"a": 2.0})], "data.stages.0.from_tokens", "tokens of training"),
        ([A, B], [StageConfig(STEP, {"d": 2.0})], "data.stages.0.weights", "names of data.sources: a, b"),
        ([A, B], [StageConfig(STEP, {"a": -2.0})], "data.stages.0.weights.a", "0 or more"),
        ([A, B], [StageConfig(STEP, {"a": 0.0, "b": 0.0})], "data.stages.0.weights", "left to draw from"),
        ([A, B], [StageConfig(STEP, {})], "data.stages.0.weights", "what changes"),
    ],
)
def test_broken_mixtures(sources: list[SourceConfig], stages: list[StageConfig], key: str, rule: str) -> None:
    (found,) = problems(sources, stages)
    assert found[0] == key
    assert rule in found[1]


def order() -> GlobalOrder:
    sources = {name: SourceOrder(name, 1, [(0, size)]) for name, size in (("a", 10), ("b", 100))}
    return GlobalOrder(mixtures(["a", "b"], [1.0, 3.0], [(200, {"a": 0.0})]), sources)


def test_how_often_each_source_is_read() -> None:
    start = Cursor.first(["a", "b"], [160, 1600])
    assert list(outlook(order(), start, 400, None)) == [
        "  source a  read 5.00 times by the end of training; beyond about 4 epochs a text teaches less and less",
        "  source b  read 3.50 times by the end of training",
    ]
    assert list(outlook(order(), order().take(start, 100)[1], 400, 5.0))[1] == (
        "  source b  read 3.50 times by the end of training, 0.75 so far"
    )


def test_a_limit_of_epochs_is_kept() -> None:
    with pytest.raises(DataError) as caught:
        list(outlook(order(), Cursor.first(["a", "b"], [160, 1600]), 400, 4.9))
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("data.max_epochs", 4.9)
    assert "a 5.00 times" in problem.rule
    assert "b " not in problem.rule
