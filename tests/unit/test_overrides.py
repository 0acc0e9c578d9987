"""Single elements of lists, numbers as people write them, and remedies that run when they are typed."""

from __future__ import annotations

import re
import shlex
import sys
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import harness
from trainer.commands import entry
from trainer.config import grammar
from trainer.config.compose import to_config
from trainer.config.diagnose import diagnose
from trainer.config.numbers import whole
from trainer.config.schema import Config
from trainer.errors import Problem

TWO = "data.sources=[{name: c, paths: [in/plain.jsonl]}, {name: e, paths: [more], weight: 3}]"


@pytest.fixture(autouse=True)
def no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest's own -m is not Hydra's."""
    monkeypatch.setattr(sys, "argv", ["train.py"])


def composed(*overrides: str) -> Config:
    entry.register_schema()
    with initialize_config_dir(str(harness.ROOT / "conf"), version_base="1.3"):
        return to_config(compose("train", overrides=["recipe=tiny", *overrides]))


def refused(*overrides: str) -> Problem:
    """The one problem of a command line that does not compose."""
    with pytest.raises(HydraException) as raised:
        composed(*overrides)
    (problem,) = diagnose(["recipe=tiny", *overrides], raised.value).problems
    return problem


def test_one_element_of_a_list_is_overridden_and_the_others_stay() -> None:
    before = composed(TWO).data.sources
    after = composed(TWO, "data.sources.1.weight=2", "data.sources.0.paths=[x,y]", "+data.sources.1.options.n=4").data
    assert [source.weight for source in before] == [1.0, 3.0]
    assert [source.weight for source in after.sources] == [1.0, 2.0]
    assert [source.paths for source in after.sources] == [["x", "y"], ["more"]]
    assert after.sources[1].options == {"n": 4}
    assert composed("data.sources.0.weight=2").data.sources[0].kind == "python_stdlib", "of a group's own list, too"
    milestones = ["schedule=constant", "schedule.milestones=[0.5,0.8]", "schedule.milestones.1=0.9"]
    assert composed(*milestones).schedule.milestones == [0.5, 0.9]


def test_an_element_that_is_not_there_is_answered_with_the_list_as_it_is() -> None:
    problem = refused(TWO, "data.sources.2.weight=2")
    assert (problem.key, problem.value) == ("data.sources.2.weight", 2)
    assert "2 elements" in problem.rule
    typed = typed_remedy(problem)
    assert composed(typed) == composed(TWO), "the remedy runs, and is the present list"


def test_fp16_is_answered_in_words() -> None:
    """Neither a group file nor a mode has that name; there is another way to what is asked for."""
    problem = refused("precision=fp16")
    assert problem.key == "precision"
    assert "train in BF16 (precision=bf16_mixed), and give --dtype float16 to scripts/export_hf.py" in problem.remedy


def typed_remedy(problem: Problem) -> str:
    """The override that a remedy spells out, as the shell hands it over."""
    found = re.search(r"'[\w.]+=[^']*'", problem.remedy)
    assert found is not None, problem.remedy
    (word,) = shlex.split(found[0])
    return word


@pytest.mark.parametrize(
    ("override", "key", "words"),
    [
        ("data.sources.0.wieght=2", "data.sources.0.wieght", "did you mean data.sources.0.weight?"),
        ("data.sources.0.weight=heavy", "data.sources.0.weight", "write a number"),
        ("data.sources.0.paths=x", "data.sources.0.paths", "write data.sources.0.paths=[x]"),
        ("data.sources=[{kid: 3}]", "data.sources.0.kid", "did you mean data.sources.0.kind?"),
        ("train.steps=1e3", "train.steps", "write train.steps=1000"),
        ("train.tokens=2e12", "train.tokens", "write train.tokens=2000000000000"),
        ("train.tokens=1,474,560", "train.tokens", "write train.tokens=1474560"),
        ("train.tokens=10M", "train.tokens", "write train.tokens=10000000"),
        ("train.steps=0x10", "train.steps", "write train.steps=16"),
        ("train.steps=on", "train.steps", "write a whole number in digits"),
        ("train.steps=1:30", "train.steps", "write a whole number in digits"),
        ("train.microbatch=2.5", "train.microbatch", "train.microbatch=2 or train.microbatch=3"),
        ("parallel.pipeline.cuts=[2.0,4]", "parallel.pipeline.cuts", "write parallel.pipeline.cuts=[2,4]"),
        ("data.document_mask=maybe", "data.document_mask", "=true or data.document_mask=false"),
    ],
)
def test_a_value_of_another_type_is_answered_with_how_to_write_it(override: str, key: str, words: str) -> None:
    problem = refused(override)
    assert problem.key == key
    assert words in problem.remedy
    for suggestion in re.findall(r"write ([\w.]+=[\w.\[\],]+)", problem.remedy):
        composed(suggestion)


@pytest.mark.parametrize(
    ("override", "typed"),
    [
        ("run.root=~/runs", 'run.root="~/runs"'),
        ("data.cache_dir=~", 'data.cache_dir="~"'),
        ("run.name=a=b", 'run.name="a=b"'),
        ("data.sources=[{paths: [~/a, ~/b/*.txt]}]", 'data.sources=[{paths: ["~/a", "~/b/*.txt"]}]'),
    ],
)
def test_what_hydras_grammar_does_not_take_is_answered_with_quotes_that_work(override: str, typed: str) -> None:
    problem = refused(override)
    assert typed_remedy(problem) == typed
    assert "~" in grammar.GENERAL
    composed(typed)


def test_a_bracket_that_never_closes_gets_no_suggestion_that_would_fail() -> None:
    assert refused("optim.lr=[").remedy == grammar.GENERAL


@pytest.mark.parametrize(
    ("written", "number"),
    [
        *[(1e3, 1000), ("1e3", 1000), (2.0, 2), ("1_000", 1000), ("1,000", 1000), ("0x10", 16), ("2T", 2 * 10**12)],
        *[(1e23, 10**23), (2e12, 2 * 10**12), ("1.5k", 1500), ("-3.0", -3)],
        *[(2.5, None), ("on", None), (True, None), ("1:30", None), (float("nan"), None), (float("inf"), None)],
        *[("1,00", None), ("1e999999999", None), ("", None), ("B", None), ("1" * 6000, None), (None, None)],
    ],
)
def test_the_whole_number_that_a_text_means(written: Any, number: int | None) -> None:
    assert whole(written) == number


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values)
def test_a_value_spelt_out_is_read_back_by_hydra(value: Any) -> None:
    override = grammar.parsed(f"key={grammar.spelt(value)}")
    assert override is not None, grammar.spelt(value)
    assert override.value() == value
