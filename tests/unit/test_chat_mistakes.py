"""Conversations and templates that cannot be used: each is one line that says which, and by whose fault."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.families.tokenizers_of import by_hand
from tests.unit.test_chat_masks import corpus_of, rows
from trainer.config.compose import to_config
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.chat import template
from trainer.data.chat.bounded import bounded
from trainer.data.corpus import prepare_corpus
from trainer.errors import ConfigError, DataError
from trainer.rules.check import validate
from trainer.run.world import World

USER, ASSISTANT = {"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}
CALL = {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}
NESTED: Any = functools.reduce(lambda inner, _: [inner], range(700), 0)
"""Deeper than Python's own recursion goes; json reads and writes it."""
TURNS: list[tuple[Any, str]] = [
    ([USER, ASSISTANT, {"role": "system", "content": "x"}], "roles out of order"),
    ([USER, {"role": "tool", "content": "x"}, ASSISTANT], "roles out of order"),
    ([USER, {"role": "assistant", "content": "  "}], "an assistant turn that is empty"),
    ([USER], "a conversation without an assistant turn"),
    ([{"role": "system", "content": "x"}], "a conversation without an assistant turn"),
    ([{"role": "narrator", "content": "x"}, ASSISTANT], "a turn of an unknown role"),
    ([{"content": "x"}, ASSISTANT], "a turn without a role"),
    ([{"role": 7, "content": "x"}, ASSISTANT], "a turn of an unknown role"),
    ([{"role": "user"}, ASSISTANT], "a turn without content"),
    ([{"role": "user", "content": None}, ASSISTANT], "a turn without content"),
    ([{"role": "user", "content": 7}, ASSISTANT], "a turn whose content is no text"),
    ([{"role": "user", "content": [{"type": "text", "text": "x"}]}, ASSISTANT], "a turn whose content is no text"),
    ([], "a conversation without turns"),
    ("[]", "a conversation without turns"),
    ("hello", "turns that are no list of objects"),
    ({"role": "user"}, "turns that are no list of objects"),
    (["hello", "world"], "turns that are no list of objects"),
    ([USER, {**ASSISTANT, "tool_calls": "look"}], "tool calls that are no list of named functions"),
    ([USER, {**ASSISTANT, "tool_calls": [{}]}], "tool calls that are no list of named functions"),
    ([USER, CALL], "tool calls, and the template writes none"),
    ([USER, ASSISTANT, {"role": "tool", "content": "x"}], "a tool turn, and the template writes none"),
    ([USER, {"role": "assistant", "content": "\ufdd0"}], "a noncharacter in text (U+FDD0 - U+FDEF)"),
    ([USER, {"role": "assistant", "content": "\ud800"}], "half of a surrogate pair"),
    ([USER, {**ASSISTANT, "more": NESTED}], "nested too deeply"),
    (None, "without the columns of its shape"),
    ([USER, USER, ASSISTANT], "refused by the template (TemplateError: two in a row)"),
]
PLAIN = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endfor %}"
STRICT = (
    "{% for m in messages %}{% if not loop.first and m['role'] == messages[loop.index0 - 1]['role'] %}"
    "{{ raise_exception('two in a row') }}{% endif %}{% if m['role'] in ('user', 'assistant', 'system') %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)


def test_each_row_that_cannot_be_used_is_counted_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(STRICT)
    every = [{"messages": [USER, ASSISTANT]}, *({"messages": turns} for turns, _ in TURNS)]
    corpus = corpus_of(tmp_path, every, {"chat": "messages"}, chat_template=str(tmp_path / "own.jinja"))
    found = [
        (int(place.rpartition(" ")[2]), words)
        for words, count in corpus.figures[0].skipped.bad.items()
        for place in count.places
    ]
    wanted: dict[str, list[int]] = {}
    for line, (_, words) in enumerate(TURNS, 2):
        wanted.setdefault(words, []).append(line)
    assert sorted(found) == sorted((line, words) for words, lines in wanted.items() for line in lines[:3])
    assert sum(count.number for count in corpus.figures[0].skipped.bad.values()) == len(TURNS)
    assert corpus.train[0].documents == 1


OTHERS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"chat": "prompt_completion"}, {"prompt": "x"}, "without the columns of its shape"),
    ({"chat": "prompt_completion"}, {"prompt": "x", "completion": ""}, "a completion that is empty"),
    ({"chat": "prompt_completion"}, {"prompt": "x", "completion": [ASSISTANT]}, "a completion that is no text"),
    ({"chat": "prompt_completion"}, {"prompt": [USER], "completion": [USER]}, "a completion that is empty"),
    ({"chat": "instruction"}, {"instruction": "x", "output": ""}, "an assistant turn that is empty"),
    ({"chat": "instruction"}, {"instruction": "x", "output": 7}, "a turn whose content is no text"),
    ({"chat": "instruction"}, {"instruction": "x", "output": "y", "history": ["z"]}, "a history that is no list"),
    ({"chat": "conversations"}, {"conversations": [{"from": "judge", "value": "x"}]}, "a turn of an unknown role"),
    ({"chat": "conversations"}, {"conversations": [{"role": "user"}]}, "a turn without a role"),
    ({"chat": "conversations"}, {"conversations": [{"from": "function_call", "value": "x"}]}, "tool calls that are no"),
    ({"chat": "messages"}, {"messages": [USER, ASSISTANT], "tools": "look"}, "tools that are no list of objects"),
    ({"chat": "auto"}, {"question": "x"}, "rows that can be used, of one shape"),
    ({"chat": "auto"}, {"instruction": "x", "output": ""}, "an assistant turn that is empty"),
    ({"chat": "auto"}, {"messages": [ASSISTANT, {"role": "system", "content": "x"}]}, "roles out of order"),
    ({"chat": "auto"}, {"prompt": "x", "completion": "y", "messages": [USER, ASSISTANT]}, "there are rows of messages"),
    ({"chat": "messages", "text_field": "turns"}, {"messages": [USER, ASSISTANT]}, "without the columns of its shape"),
]


@pytest.mark.parametrize(("source", "row", "said"), OTHERS)
def test_a_row_alone_ends_the_run_with_one_problem(
    tmp_path: Path, source: dict[str, Any], row: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError) as raised:
        corpus_of(tmp_path, [row], source, bad_documents="stop")
    (problem,) = raised.value.problems
    assert said in problem.rule
    assert int(raised.value.code) == 4


def test_columns_that_no_row_has_are_named(tmp_path: Path) -> None:
    for source, wanted in (
        ({"chat": "prompt_completion"}, "prompt and completion"),
        ({"chat": "messages"}, "messages"),
    ):
        with pytest.raises(DataError, match=f"rows with {wanted}; there are: prompt") as raised:
            corpus_of(tmp_path, [{"prompt": "x"}], source)
        assert raised.value.problems[0].key == "data.sources.0.chat"


def test_a_column_of_another_name_is_asked_for_and_chat_is_thought_of(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rows with turns; there are: messages"):
        corpus_of(tmp_path, rows(3), {"chat": "messages", "text_field": "turns"})
    with pytest.raises(DataError, match="or chat: auto, where messages are conversations"):
        corpus_of(tmp_path, rows(3), {"chat": None})


def test_two_shapes_in_one_file_are_named(tmp_path: Path) -> None:
    every = [*rows(3), {"instruction": "x", "output": "y"}]
    with pytest.raises(DataError, match=r"messages \(.*rows.jsonl\) and instruction \(.*rows.jsonl\)"):
        corpus_of(tmp_path, every)
    corpus = corpus_of(tmp_path, every, {"chat": "messages"})
    assert list(corpus.figures[0].skipped.bad) == ["without the columns of its shape"]


TEMPLATES = [
    ("{% for m in messages %}", "is a template (TemplateSyntaxError"),
    ("no turns", "gives a token to train on; it gives none"),
    ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "gives a token to train on; it gives none"),
    ("{% generation %}{% endgeneration %}{{ messages }}", "gives a token to train on; it gives none"),
    ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "it has not ended after 0.5 s"),
]


@pytest.mark.parametrize(("text", "said"), TEMPLATES)
def test_a_template_that_cannot_be_trained_on_is_refused_before_a_row_is_read(
    tmp_path: Path, text: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "bounded", lambda: bounded(0.5))
    (tmp_path / "own.jinja").write_text(text)
    with pytest.raises(ConfigError) as raised:
        corpus_of(tmp_path, rows(3), chat_template=str(tmp_path / "own.jinja"))
    (problem,) = raised.value.problems
    assert said in problem.rule
    assert int(raised.value.code) == 3


def test_a_template_that_does_not_end_for_one_row_ends_the_run_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template, "bounded", lambda: bounded(0.5))
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    own = "{% if messages[0]['content'] == 'on 2' %}" + loop + "{% endif %}" + PLAIN
    (tmp_path / "own.jinja").write_text(own)
    with pytest.raises(ConfigError, match=r"ends for every conversation .*rows.jsonl, line 3\)"):
        corpus_of(tmp_path, rows(5), chat_template=str(tmp_path / "own.jinja"))


def test_a_template_that_raises_for_every_row_says_so(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ raise_exception('never') }}")
    with pytest.raises(DataError, match=r"30 documents, the first is refused by the template \(TemplateError: never\)"):
        corpus_of(tmp_path, rows(30), chat_template=str(tmp_path / "own.jinja"))


def test_a_template_file_and_a_tokenizer_without_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a file that can be read .*or one of the tokenizer's: default"):
        corpus_of(tmp_path, rows(3), chat_template=str(tmp_path / "none.jinja"))
    bare = by_hand(tmp_path / "bare", chat_template=None)
    config = DataConfig(
        sources=[SourceConfig(name="talk", paths=[str(tmp_path / "rows.jsonl")], chat="messages")],
        tokenizer=TokenizerConfig(kind="file", path=str(bare)),
        cache_dir=str(tmp_path / "cache"),
    )
    with pytest.raises(ConfigError, match=r"the tokenizer has a chat template [\s\S]*data.chat_template=FILE"):
        prepare_corpus(config, 300)


@pytest.mark.parametrize(
    ("made", "said"),
    [(os.mkfifo, "no regular file"), (lambda path: path.write_bytes(b"x" * (1 << 21)), "2,097,152 bytes")],
)
def test_a_template_that_could_not_be_held_is_not_read(
    tmp_path: Path, made: Callable[[Path], object], said: str
) -> None:
    """A pipe would be waited for without end, and gigabytes would fill the memory."""
    made(tmp_path / "own.jinja")
    with pytest.raises(ConfigError, match=said) as raised:
        corpus_of(tmp_path, rows(3), chat_template=str(tmp_path / "own.jinja"))
    assert raised.value.problems[0].key == "data.chat_template"


def test_turns_without_an_end_are_warned_of_and_a_fixed_day_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    own = tmp_path / "own.jinja"
    own.write_text("{{ strftime_now('%d %b %Y') }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(30)))
    config = DataConfig(
        sources=[SourceConfig(name="talk", paths=[str(tmp_path / "rows.jsonl")], chat="messages")],
        tokenizer=TokenizerConfig(kind="file", path=str(by_hand(tmp_path / "tokenizer"))),
        cache_dir=str(tmp_path / "cache"),
        chat_template=str(own),
        heldout_fraction=0.0,
        seq_len=16,
    )
    corpus = prepare_corpus(config, 300, said.append)
    assert any(line.startswith("warning: own.jinja ends the assistant's turns with no token") for line in said)
    assert any("today is 2024-07-26 on every day (data.chat_date)" in line for line in said)
    text = corpus.tokenizer.decode(corpus.train[0].document(0).tolist())
    assert text == "26 Jul 2024[user] the cat 0\n[assistant] sat on the mat\n"


CONFIGS = [
    ({"sources": [{"chat": "talk", "paths": ["x"]}]}, "data.sources.0.chat"),
    ({"sources": [{"chat": "auto", "kind": "python_stdlib"}]}, "data.sources.0.chat"),
    ({"sources": [{"chat": "auto", "kind": "prepared", "paths": ["x"]}]}, "data.sources.0.chat"),
    ({"sources": [{"chat": "auto", "format": "text", "paths": ["x"]}]}, "data.sources.0.format"),
    ({"sources": [{"chat": "auto", "paths": ["x"]}], "tokenizer": {"kind": "train_bpe"}}, "data.tokenizer.kind"),
    ({"sources": [{"paths": ["x"]}], "chat_template": "x.jinja"}, "data.chat_template"),
    ({"sources": [{"paths": ["x"]}], "train_on": "last"}, "data.train_on"),
    ({"sources": [{"chat": "auto", "paths": ["x"]}], "train_on": "user"}, "data.train_on"),
    ({"sources": [{"chat": "auto", "paths": ["x"]}], "chat_date": "today"}, "data.chat_date"),
    ({"sources": [{"paths": ["x"]}], "long_documents": "truncate"}, "data.long_documents"),
]


@pytest.mark.parametrize(("data", "key"), CONFIGS)
def test_a_configuration_that_cannot_be_is_refused_at_once(data: dict[str, Any], key: str) -> None:
    given = {"tokenizer": {"kind": "file", "path": "t"}, **data}
    with pytest.raises(ConfigError) as raised:
        validate(to_config({"data": given}), World())
    assert key in [problem.key for problem in raised.value.problems]
