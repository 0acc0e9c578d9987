"""Rules about products of the parallel axes, and the nearest legal layout that they propose."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.test_validate import VALID, changed
from trainer.config.schema import Config
from trainer.errors import ConfigError
from trainer.rules.check import validate
from trainer.rules.derived import derive
from trainer.run.world import World

EIGHT = World(size=8, cpu_bf16=True)


def laid_out(**values: Any) -> Config:
    """A valid configuration of 16 samples of 512 tokens and 8 layers, with these values under ``parallel``."""
    config = replace(VALID, model=replace(VALID.model, layers=8), train=replace(VALID.train, microbatch=1))
    for key, value in values.items():
        config = changed(config, f"parallel.{key}".replace("__", "."), value)
    return config


GOOD: list[dict[str, Any]] = [
    {"tp": 2, "pp": 2, "zero": 1, "sp": True},
    {"tp": 2, "cp": 2, "sp": True, "zero": 3, "recompute": "full", "recompute_every": 8},
    {"pp": 4, "pipeline__schedule": "interleaved_1f1b", "pipeline__virtual_stages": 2},
    {"pp": 2, "pipeline__schedule": "interleaved_zero_bubble", "pipeline__virtual_stages": 4},
    {"pp": 8, "zero": 1},
    {"pp": 2, "pipeline__cuts": [7, 1]},
    {"sp": True, "zero": 2},  # nothing to cut: the same recipe runs on fewer ranks
]

BAD: list[tuple[dict[str, Any], str, str]] = [
    # parallel, key that the problem names, words of its rule or remedy
    ({"pp": 2, "zero": 2}, "parallel.zero", "0 or 1 with a pipeline"),
    ({"pp": 2, "zero": 3}, "parallel.zero", "parallel.zero=1"),
    ({"zero": 4}, "parallel.zero", "0, 1, 2 or 3"),
    ({"zero": -1}, "parallel.zero", "0, 1, 2 or 3"),
    ({"pp": 2, "pipeline__schedule": "gpipe"}, "parallel.pipeline.schedule", "1f1b"),
    ({"pp": 2, "pipeline__virtual_stages": 2}, "parallel.pipeline.virtual_stages", "interleaved_1f1b"),
    ({"pp": 2, "pipeline__schedule": "interleaved_1f1b"}, "parallel.pipeline.virtual_stages", "2 or more"),
    ({"pipeline__schedule": "interleaved_1f1b"}, "parallel.pipeline.schedule", "pp above 1"),
    ({"pipeline__cuts": [4, 4]}, "parallel.pipeline.cuts", "pp above 1"),
    ({"pp": 2, "pipeline__cuts": [8]}, "parallel.pipeline.cuts", "2 numbers above 0"),
    ({"pp": 2, "pipeline__cuts": [8, 0]}, "parallel.pipeline.cuts", "2 numbers above 0"),
    ({"pp": 2, "pipeline__cuts": [3, 4]}, "parallel.pipeline.cuts", "the 8 layers"),
    (
        {"pp": 8, "pipeline__schedule": "interleaved_1f1b", "pipeline__virtual_stages": 2},
        "parallel.pp",
        "16 stages",
    ),
    (
        {"pp": 2, "pipeline__schedule": "interleaved_zero_bubble", "pipeline__virtual_stages": 2, "recompute": "full"},
        "parallel.recompute",
        "many times",
    ),
    ({"recompute": "some"}, "parallel.recompute", "selective"),
    ({"recompute": "full", "recompute_every": 9}, "parallel.recompute_every", "8 layers"),
    ({"recompute_every": 0}, "parallel.recompute_every", "above 0"),
    ({"pp": 0}, "parallel.pp", "above 0"),
]


@pytest.mark.parametrize("values", GOOD, ids=str)
def test_layouts_that_make_sense(values: dict[str, Any]) -> None:
    validate(laid_out(**values), EIGHT)


@pytest.mark.parametrize(("values", "key", "words"), BAD, ids=str)
def test_layouts_that_do_not(values: dict[str, Any], key: str, words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate(laid_out(**values), EIGHT)
    found = [problem for problem in raised.value.problems if problem.key == key]
    assert found, raised.value.report()
    assert any(words in problem.rule + problem.remedy for problem in found), raised.value.report()


def test_the_sequence_is_cut_evenly() -> None:
    odd = replace(laid_out(cp=8), data=replace(VALID.data, seq_len=24), train=replace(VALID.train, tokens_per_step=24))
    with pytest.raises(ConfigError, match=r"parallel.cp = 8[\s\S]*data.seq_len=32"):
        validate(odd, EIGHT)
    odd = replace(odd, parallel=replace(odd.parallel, cp=2, tp=8, sp=True))
    with pytest.raises(ConfigError, match=r"parallel.sp = True[\s\S]*divides the 12 positions"):
        validate(odd, World(size=16, cpu_bf16=True))


def test_a_pipeline_wants_a_microbatch_for_each_rank() -> None:
    few = replace(laid_out(pp=8), train=replace(VALID.train, tokens_per_step=512 * 4, microbatch=1))
    with pytest.raises(
        ConfigError,
        match=r"pp = 8[\s\S]*microbatches that a rank takes a step \(4\)[\s\S]*tokens_per_step=4096",
    ):
        validate(few, EIGHT)
    interleaved = laid_out(pp=8, pipeline__schedule="interleaved_1f1b", pipeline__virtual_stages=1)
    interleaved = replace(interleaved, model=replace(interleaved.model, layers=16))
    interleaved = changed(interleaved, "parallel.pipeline.virtual_stages", 2)
    validate(interleaved, EIGHT)
    with pytest.raises(ConfigError, match="equal rounds"):
        validate(changed(interleaved, "train.tokens_per_step", 512 * 17), EIGHT)


def test_copies_of_heads_at_different_places_rule_zero_out() -> None:
    """9 query and 3 key-value heads on 2 ranks: each holds two, the first of one rank is the second of the other."""
    config = laid_out(tp=2, zero=1)
    config = replace(config, model=replace(config.model, hidden=72, heads=9, kv_heads=3))
    with pytest.raises(ConfigError, match=r"parallel.zero = 1[\s\S]*would not meet"):
        validate(config, EIGHT)
    validate(changed(config, "parallel.tp", 8), EIGHT)  # one head a rank: every copy lies at the same place
    validate(changed(config, "parallel.zero", 0), EIGHT)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"pp": 2, "zero": 3}, "parallel.zero=1"),
        ({"pp": 4, "pipeline__schedule": "interleaved_1f1b"}, "parallel.pipeline.virtual_stages=2"),
        (
            {"pp": 8, "pipeline__schedule": "interleaved_1f1b", "pipeline__virtual_stages": 2},
            "parallel.pipeline.schedule=1f1b parallel.pipeline.virtual_stages=1",
        ),
    ],
)
def test_the_nearest_legal_layout_is_proposed_and_is_legal(values: dict[str, Any], expected: str) -> None:
    config = laid_out(**values)
    with pytest.raises(ConfigError) as raised:
        validate(config, EIGHT)
    report = raised.value.report()
    proposals = re.findall(r"the nearest legal layout: (.*)", report)  # not said twice where the remedy says it already
    assert expected in (proposals or re.findall(r"remedy: (\S+)", report)[-1].strip(","))
    for override in expected.split():
        key, _, value = override.partition("=")
        config = changed(config, key, int(value) if value.isdecimal() else value)
    validate(config, EIGHT)


def test_stages_and_idle_share_are_announced() -> None:
    """(p - 1) / (m + p - 1) of Narayanan et al. 2021: 16 microbatches over 4 stages idle 3 / 19 of the time."""
    derived = derive(laid_out(pp=4, zero=1, pipeline__cuts=[3, 2, 2, 1]), World(size=4, cpu_bf16=True))
    assert [len(stage) for stage in derived.stages] == [3, 2, 2, 1]
    text = "\n".join(derived.reasons)
    assert "15.8%" in text
    assert "stage layers   3,2,2,1" in text
