"""Choices and answers, against transformers' model one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.evaluation.test_text import write
from trainer.errors import DataError
from trainer.evaluation.choices import score_choices
from trainer.evaluation.exact import Request, continue_all, score_exact
from trainer.evaluation.pairs import Cutter
from trainer.evaluation.tasks import Choice, Exact, Task
from trainer.generation.opened import Opened, opened_model
from trainer.generation.settings import Limits

CHOICES = ("mat.", "hello world, the cat", "on", "\u00fcber")
CONTEXTS = ("the cat sat on the", "hello ", "", "the cat sat. " * 40, "\n\n")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    path = tmp_path_factory.mktemp("scores") / "model"
    return path, write(path, "qwen2", "grouped")


@pytest.fixture(scope="module")
def opened(theirs: tuple[Path, Any]) -> Iterator[Opened]:
    with opened_model(str(theirs[0])) as found:
        yield found


def nats(theirs: Any, context: list[int], continuation: list[int], window: int) -> float:
    tokens = torch.tensor([*context, *continuation])[-(window + 1) :]
    with torch.no_grad():
        logits = theirs(input_ids=tokens[:-1].unsqueeze(0)).logits[0].double().log_softmax(-1)
    return -float(logits.gather(1, tokens[1:, None])[-len(continuation) :].sum())


@pytest.mark.parametrize("batch", [1, 8])
def test_choices_by_four_measures(batch: int, opened: Opened, theirs: tuple[Path, Any]) -> None:
    assert opened.words is not None
    items = tuple(Choice(context, CHOICES, 1) for context in CONTEXTS)
    found = score_choices(opened, opened.words, Task("x", "", choices=items), batch)
    cutter = Cutter(opened.words)
    for number, item in enumerate(items):
        pairs = [cutter.pair(item.context, f" {choice}") for choice in CHOICES]
        losses = [nats(theirs[1], one.context, one.continuation, opened.window) for one in pairs]
        sizes = {
            "acc": [1] * 4,
            "acc_norm": [len(choice) for choice in CHOICES],
            "acc_bytes": [len(choice.encode()) for choice in CHOICES],
            "acc_tokens": [len(one.continuation) for one in pairs],
        }
        for measure, by in sizes.items():
            per = [loss / size for loss, size in zip(losses, by, strict=True)]
            assert found.picked[measure][number] == per.index(min(per))
    assert found.acc == found.picked["acc"].count(1) / len(items)
    assert (found.items, found.truncated, found.own_encoding) == (len(items), 4, 0)


def test_the_cut_between_context_and_continuation(opened: Opened) -> None:
    words = opened.words
    assert words is not None
    cutter = Cutter(words)
    assert cutter.prefix == words.inner.token_to_id("<bos>")
    moved = cutter.pair("the cat \n", "sat")
    assert moved.context == words.encode("the cat", special=False)
    assert moved.context + moved.continuation == words.encode("the cat \nsat", special=False)
    assert cutter.pair("", "cat").context == [cutter.prefix]
    spelt = cutter.pair("", "<bos>cat")
    assert [spelt.context, spelt.continuation] == [[cutter.prefix], words.encode("cat", special=False)]
    with pytest.raises(DataError, match="has a token"):
        cutter.pair("the cat", "")


def test_a_continuation_without_a_token_of_its_own_is_encoded_alone(tmp_path: Path) -> None:
    import tokenizers
    from tokenizers import models, pre_tokenizers

    from tests.families.pairs import pair

    pair("llama", "grouped").theirs.save_pretrained(tmp_path)
    vocabulary = {"<unk>": 0, "<|endoftext|>": 1, "b": 2, "a": 3, "ab": 4, "c": 5}
    inner = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(["<|endoftext|>"])
    inner.save(str(tmp_path / "tokenizer.json"))
    with opened_model(str(tmp_path)) as opened:
        assert opened.words is not None
        found = Cutter(opened.words).pair("a", "b")  # "ab" is one token
        assert (found.context, found.continuation, found.own) == ([3], [2], True)
        items = (Choice("a", ("b", "c"), 0, ""), Choice("a", ("b", "c"), 0))
        result = score_choices(opened, opened.words, Task("x", "", choices=items))
        assert result.own_encoding == 2
        with pytest.raises(DataError) as raised:
            score_choices(opened, opened.words, Task("x", "", choices=(Choice("", (" ", "c"), 0),)))
    (problem,) = raised.value.problems
    assert problem.key.startswith("x, item 1: continuation")


def test_a_continuation_longer_than_the_window_is_named(opened: Opened) -> None:
    assert opened.words is not None
    items = (Choice("the", ("cat", "mat"), 0), Choice("the", ("cat " * 400, "mat"), 0))
    with pytest.raises(DataError) as raised:
        score_choices(opened, opened.words, Task("x", "", choices=items))
    assert [problem.key for problem in raised.value.problems] == ["x, item 2: continuation"]


def test_exact_matches(opened: Opened, theirs: tuple[Path, Any]) -> None:
    words = opened.words
    assert words is not None
    prompts = ["the cat", "hello world", "", "on the mat. " * 60]
    said, truncated = continue_all(opened, words, [Request(prompt, Limits(8)) for prompt in prompts], 3)
    assert truncated == 1
    for prompt, text in zip(prompts, said, strict=True):
        ids = (words.encode(prompt) or [Cutter(words).required()])[-(opened.window - 8) :]
        tokens = torch.tensor([ids])
        made = theirs[1].generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=8,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=list(words.ends),
        )
        assert text == words.decode(made[0, len(ids) :].tolist())
    items = tuple(
        Exact(prompt, ("never", f"  {text}\n"), (), 8) for prompt, text in zip(prompts[:2], said[:2], strict=True)
    )
    found = score_exact(opened, words, Task("x", "", exacts=(*items, Exact("on", ("never, ever",), ("q",), 4))))
    assert (found.items, found.exact_match) == (3, pytest.approx(2 / 3))
    assert found.said[:2] == said[:2]


def test_an_answer_that_leaves_no_room_is_named(opened: Opened) -> None:
    assert opened.words is not None
    with pytest.raises(DataError) as raised:
        score_exact(opened, opened.words, Task("x", "", exacts=(Exact("the", ("cat",), (), opened.window),)))
    assert [problem.key for problem in raised.value.problems] == ["x, item 1: tokens"]
