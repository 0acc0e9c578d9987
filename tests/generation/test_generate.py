"""Answers: batches are their rows, layouts say the same, and each ends where it should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests import directories
from tests.families.pairs import pair
from tests.ranks import Task, run
from trainer.errors import DataError
from trainer.generation.generate import Answer, generate
from trainer.generation.opened import Opened, opened_model
from trainer.generation.settings import GREEDY, Limits, Sampling

PROMPTS = [[5, 9, 33, 12], [70], [8, 8, 2, 61, 44, 3, 90]]
WARM = Sampling(1.2, 1.5, 60, 0.97, 0.001, seed=11)
LIMITS = Limits(20)


def write(path: Path, ids: int = 96) -> Path:
    pair("llama", "grouped").theirs.save_pretrained(path)
    (path / "generation_config.json").unlink()
    config = json.loads((path / "config.json").read_text())
    directories.write_json(path / "config.json", {**config, "eos_token_id": 1})
    directories.write_tokenizer(path, ids)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("generate") / "model")


@pytest.fixture(scope="module")
def opened(model: Path) -> Iterator[Opened]:
    with opened_model(str(model)) as found:
        yield found


@pytest.mark.parametrize("sampling", [GREEDY, WARM], ids=["greedy", "sampled"])
def test_a_batch_is_its_rows(opened: Opened, sampling: Sampling) -> None:
    together = generate(opened, PROMPTS, sampling, LIMITS)
    apart = [generate(opened, [prompt], sampling, LIMITS, first=row)[0] for row, prompt in enumerate(PROMPTS)]
    assert together == apart


def test_a_seed_is_a_text(opened: Opened) -> None:
    first, again, other = (
        generate(opened, PROMPTS, Sampling(temperature=1.5, seed=seed), LIMITS) for seed in (1, 1, 2)
    )
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))


def test_what_is_shown_is_the_text(opened: Opened) -> None:
    shown = [""] * len(PROMPTS)

    def show(row: int, text: str) -> None:
        shown[row] += text

    answers = generate(opened, PROMPTS, WARM, LIMITS, show)
    assert shown == [answer.text for answer in answers]


def test_the_text_ends_before_a_stop_string_over_several_tokens(opened: Opened) -> None:
    whole = generate(opened, PROMPTS[:1], WARM, LIMITS)[0]
    assert whole.ended in ("tokens", "end")
    stop = whole.text[10:19]  # the words of this tokenizer have two or three characters
    assert stop.count(" ") >= 2
    found = generate(opened, PROMPTS[:1], WARM, Limits(20, ("never", stop)))[0]
    assert found.ended == "stop"
    assert found.text == whole.text.partition(stop)[0]
    assert found.tokens == whole.tokens[: len(found.tokens)]
    assert generate(opened, PROMPTS[:1], WARM, Limits(20, ("never",)))[0] == whole


def test_the_end_of_text_is_no_text(opened: Opened) -> None:
    assert opened.words is not None
    assert opened.words.ends == (1,)
    answers = [generate(opened, [PROMPTS[0]], Sampling(temperature=3, seed=seed), Limits(80))[0] for seed in range(8)]
    ended = [answer for answer in answers if answer.ended == "end"]
    assert ended
    for answer in ended:
        assert answer.tokens[-1] == 1
        assert 1 not in answer.tokens[:-1]
        assert "endoftext" not in answer.text


@pytest.mark.parametrize("name", ["gpt2", "deep"])
def test_a_text_ends_with_the_window_beside_one_that_goes_on(name: str, tmp_path: Path) -> None:
    pair("gpt2", name).theirs.save_pretrained(tmp_path / "model")
    with opened_model(str(tmp_path / "model")) as opened:
        window = opened.model.max_positions
        answers = generate(opened, [[4] * (window - 3), [4, 5]], GREEDY, Limits(30))
        alone = generate(opened, [[4, 5]], GREEDY, Limits(30))
    assert [(len(answer.tokens), answer.ended) for answer in answers] == [(3, "window"), (30, "tokens")]
    assert answers[1] == alone[0]


def test_prompts_that_cannot_be_continued_are_named(opened: Opened) -> None:
    prompts = [[3], [], [3] * 128, [96]]
    with pytest.raises(DataError) as raised:
        generate(opened, prompts)
    assert [problem.key for problem in raised.value.problems] == ["prompt 2", "prompt 3", "prompt 4"]


def on_ranks(directory: str) -> list[dict[str, Any]]:
    with opened_model(directory) as opened:
        answers: list[Answer] = [
            answer
            for sampling in (GREEDY, WARM)
            for answer in generate(opened, PROMPTS, sampling, Limits(20, ("w7 w",)))
        ]
        return [asdict(answer) for answer in answers]


@pytest.mark.slow
@pytest.mark.long
def test_a_seed_is_the_same_text_on_two_ranks(model: Path, tmp_path: Path) -> None:
    alone = on_ranks(str(model))
    for rank in run(Task("tests.generation.test_generate:on_ranks", 2, {"directory": str(model)}), tmp_path):
        assert rank == alone
