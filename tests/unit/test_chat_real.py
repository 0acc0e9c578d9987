"""Real conversations: what is trained on is what transformers' own mask says, or what stands between special tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.conversations import conversations, family_tokenizer, training_templates
from tests.smollm2 import gguf_file
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.chat.conversation import Chat, Tokens
from trainer.data.chat.settings import settings_of
from trainer.data.chat.shapes import Conversations
from trainer.data.readers.found import Document, Place
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizer_files import load

pytestmark = pytest.mark.slow

CHOSEN = [("qwen3", "qwen3_training"), ("qwen3", "qwen2_5_training"), ("llama3", "llama3_training")]
WITHOUT_TOOLS = ("llama3_training", "llama3", "smollm2")
ELSEWHERE = ("idefics3", "llava_next", "smolvlm", "qwen2_5_vl", "qwen3_vl", "diffusion_gemma")
"""Templates of models that see pictures: they take lists of parts."""


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's own tokenizer and template, out of its GGUF file."""
    gguf: Any = pytest.importorskip("gguf")
    reader = gguf.GGUFReader(gguf_file())
    said = {key: reader.get_field(f"tokenizer.{key}").contents() for key in ("ggml.tokens", "ggml.merges")}
    vocabulary = {token: index for index, token in enumerate(said["ggml.tokens"])}
    merges = [tuple(merge.split(" ")) for merge in said["ggml.merges"]]
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    inner.decoder = decoders.ByteLevel()
    kinds = reader.get_field("tokenizer.ggml.token_type").contents()
    inner.add_special_tokens([token for token, kind in zip(said["ggml.tokens"], kinds, strict=True) if kind == 3])
    directory = tmp_path_factory.mktemp("smollm2")
    inner.save(str(directory / "tokenizer.json"))
    template = reader.get_field("tokenizer.chat_template").contents()
    config = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": template}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@cache
def _tokenizer(directory: Path) -> Tokenizer:
    return load(TokenizerConfig(kind="file", path=str(directory)), directory)[0]


def chat_of(directory: Path, template: Path | None = None) -> Chat:
    """What renders conversations by a directory's tokenizer, today."""
    more = {} if template is None else {"chat_template": str(template)}
    config = DataConfig(chat_date=date.today().isoformat(), **more)
    tokenizer = _tokenizer(directory)
    return Chat(settings_of(SourceConfig(chat="messages"), config, tokenizer), tokenizer)


def document(row: dict[str, Any]) -> str:
    """A row as a source has it."""
    found = Conversations("messages").document(row, Place("rows"))
    assert isinstance(found, Document)
    return found.text


def agreeing(directory: Path, text: str, file: Path, every: int = 1) -> int:
    """Conversations of which ids and mask are transformers'; others the template refuses, or lacks their tools."""
    file.write_text(text)
    chat = chat_of(directory, file)
    assert chat.rule == "its generation tags"
    said = json.loads((directory / "tokenizer_config.json").read_text())
    special = {name: said[name] for name in ("bos_token", "eos_token", "pad_token") if said.get(name)}
    theirs: Any = PreTrainedTokenizerFast(tokenizer_file=str(directory / "tokenizer.json"), **special)
    count = 0
    for row in conversations()[::every]:
        found = chat.tokens(document(row))
        if not isinstance(found, Tokens):
            assert "the template" in found.words
            continue
        expected = theirs.apply_chat_template(
            row["messages"],
            tools=row["tools"] or None,
            chat_template=text,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        assert found.ids.tolist() == expected["input_ids"]
        assert found.trained.astype(int).tolist() == expected["assistant_masks"]
        count += 1
    return count


@pytest.mark.parametrize(("family", "name"), CHOSEN)
def test_tags_mark_what_transformers_says(family: str, name: str, tmp_path: Path) -> None:
    count = agreeing(family_tokenizer(family), training_templates()[name], tmp_path / f"{name}.jinja")
    assert count == (177 if name in WITHOUT_TOOLS else 220)


@pytest.mark.long
def test_every_other_template_that_trl_trains_with(tmp_path: Path) -> None:
    directory = family_tokenizer("qwen3")
    for name, text in training_templates().items():
        if not name.startswith(ELSEWHERE):
            assert agreeing(directory, text, tmp_path / f"{name}.jinja", every=5) >= 25, name


TAGS = re.compile(r"\{%(-?)\s*(end)?generation\s*(-?)%\}")
PROMPTS = {"<think>", "</think>", "assistant", "\n", "\n\n"}
"""Tokens besides special ones that trl's templates mark and that markers leave to the prompt, or to the turn behind."""


@pytest.mark.long
def test_without_their_tags_the_same_words_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tag becomes a condition that holds; special tokens of all families are those of one tokenizer."""
    inner = tokenizers.Tokenizer.from_file(str(family_tokenizer("qwen3") / "tokenizer.json"))
    every = {name: text for name, text in training_templates().items() if not name.startswith(ELSEWHERE)}
    named = {token for text in every.values() for token in re.findall(r"<\|[^|>{]*\|>|<\uff5c[^\uff5c]*\uff5c>", text)}
    inner.add_special_tokens(sorted(named | {"<s>", "<start_of_turn>", "<end_of_turn>"}))
    inner.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "<|im_end|>"}')
    monkeypatch.setattr(Chat, "_inner", inner)  # a copy for each template takes a second
    rows = [document(row) for row in conversations() if not row["tools"]][::12]
    for name, text in every.items():
        (tmp_path / "tagged.jinja").write_text(text)
        (tmp_path / "plain.jinja").write_text(TAGS.sub(_condition, text))
        tagged, plain = (chat_of(tmp_path, tmp_path / f"{kind}.jinja") for kind in ("tagged", "plain"))
        assert plain.rule == "marking"
        count = 0
        for row in rows:
            one, other = tagged.tokens(row), plain.tokens(row)
            if isinstance(one, Tokens) and isinstance(other, Tokens):
                differing = one.ids[one.trained != other.trained].tolist()
                words = {inner.decode([token], skip_special_tokens=True) for token in differing} - {""}
                assert words <= PROMPTS, name
                count += 1
        assert count > 10, name


def _condition(tag: re.Match[str]) -> str:
    return f"{{%{tag[1]} {'endif' if tag[2] else 'if true'} {tag[3]}%}}"


def between(ids: Sequence[int], head: list[int], end: int) -> list[bool]:
    """By hand: what follows the assistant's header, up to and with the end of the turn."""
    trained, at = [False] * len(ids), 0
    while at < len(ids):
        if list(ids[at : at + len(head)]) != head or end not in ids[at:]:
            at += 1
            continue
        stop = list(ids).index(end, at)
        trained[at + len(head) : stop + 1] = [True] * (stop + 1 - at - len(head))
        at = stop
    return trained


HEADS = {
    "smollm2": ("<|im_start|>assistant\n", "<|im_end|>"),
    "qwen3": ("<|im_start|>assistant\n", "<|im_end|>"),
    "llama3": ("<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"),
}


@pytest.mark.parametrize("thinking", [False, True], ids=["plain", "thinking"])
@pytest.mark.parametrize("family", HEADS)
def test_a_family_s_own_template_without_tags(family: str, thinking: bool, request: pytest.FixtureRequest) -> None:
    directory = request.getfixturevalue("smollm2") if family == "smollm2" else family_tokenizer(family)
    chat = chat_of(directory)
    assert chat.rule == "marking"
    literal = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    head, end = (literal.encode(text, add_special_tokens=False).ids for text in HEADS[family])
    count = 0
    for row in conversations():
        if thinking:
            row = {**row, "messages": [_thought(turn) for turn in row["messages"]]}
        found = chat.tokens(document(row))
        if not isinstance(found, Tokens):
            assert family in WITHOUT_TOOLS
            assert "the template writes none" in found.words
            continue
        assert found.aside != "conversations whose turns were told by differences of prefixes"
        assert found.trained.tolist() == between(found.ids.tolist(), head, end[0])
        count += 1
    assert count == (177 if family in WITHOUT_TOOLS else 220)


def _thought(turn: dict[str, Any]) -> dict[str, Any]:
    if turn["role"] != "assistant" or not turn["content"]:
        return turn
    return {**turn, "content": f"<think>\nWell, {turn['content'][:30].strip()}?\n</think>\n\n{turn['content']}"}
