"""The tokenizer's files of an export: tokenizer.json untouched, settings that transformers 4.48 and 5 read alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, GenerationConfig

from tests import directories
from tests.families import tokenizers_of
from tests.families.tokenizers_of import CHAT, MESSAGES, TEMPLATE, TEXTS
from trainer.commands.export_hf import export_hf
from trainer.commands.import_hf import import_directory
from trainer.errors import ConfigError
from trainer.pretrained.tokenizer_files import tokenizer_files


def settings_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "tokenizer_config.json").read_text())
    return found


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("make", [tokenizers_of.by_hand, tokenizers_of.by_five])
def test_what_transformers_5_makes_of_it(make: Callable[[Path, bool], Path], bos: bool, tmp_path: Path) -> None:
    source = make(tmp_path / "source", bos)
    (tmp_path / "out").mkdir()
    found = tokenizer_files(source)
    found.write(tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    # A model's config.json decides nothing: beside a Llama's, the class of Llama's own tokenizer changes the text.
    (tmp_path / "out" / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    plain = tokenizers_of.made(bos)
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == plain.encode(text).ids, "no truncation, and BOS as tokenizer.json says"
        assert tokenizer.decode(plain.encode(text, add_special_tokens=False).ids) == text
    assert tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True) == CHAT
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<bos>", "<|im_end|>", "<pad>")
    assert len(tokenizer) == found.size == plain.get_vocab_size(), "none is invented"
    assert found.ids == {f"{name}_token_id": plain.token_to_id(token) for name, token in ROLES.items()}


def test_llamas_own_class_no_longer_changes_the_text(tmp_path: Path) -> None:
    source = tokenizers_of.llama_directory(tmp_path / "source")
    shutil.copytree(source, tmp_path / "out")
    tokenizer_files(source).write(tmp_path / "out")
    plain, text = tokenizers_of.like_llama(), " hello"
    before, after = (AutoTokenizer.from_pretrained(path) for path in (source, tmp_path / "out"))
    assert before(text)["input_ids"] == before("hello")["input_ids"] != plain.encode(text).ids, "the trap is gone"
    for text in (" hello", "hello", *TEXTS):
        assert after(text)["input_ids"] == plain.encode(text).ids


ROLES = {"bos": "<bos>", "eos": "<|im_end|>", "pad": "<pad>"}


def test_settings_are_words_that_4_48_knows(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    tokenizer_files(tokenizers_of.by_five(tmp_path / "source")).write(tmp_path / "out")
    said = settings_of(tmp_path / "out")
    assert said["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert said["additional_special_tokens"] == ["<|im_start|>"]
    assert said["chat_template"] == (tmp_path / "out" / "chat_template.jinja").read_text() == TEMPLATE
    assert said["clean_up_tokenization_spaces"] is False
    assert "extra_special_tokens" not in said
    again = tmp_path / "again"
    again.mkdir()
    tokenizer_files(tmp_path / "out").write(again)
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {
        p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()
    }


def test_a_tokenizer_json_alone_ends_where_training_documents_do(tmp_path: Path) -> None:
    tokenizers_of.made().save(str(tmp_path / "tokenizer.json"))
    found = tokenizer_files(tmp_path / "tokenizer.json", "<|endoftext|>")
    assert found.ids == {"eos_token_id": 0}
    assert json.loads(found.files["generation_config.json"]) == {"eos_token_id": 0}
    said = json.loads(found.files["tokenizer_config.json"])
    assert said["eos_token"] == "<|endoftext|>"
    assert said["additional_special_tokens"] == ["<bos>", "<|im_start|>", "<|im_end|>", "<pad>"]
    assert not {"bos_token", "pad_token", "unk_token", "chat_template"} & said.keys()
    assert "chat_template.jinja" not in found.files


def test_generation_ends_at_all_that_the_source_names_and_nothing_else_is_said(tmp_path: Path) -> None:
    source = tokenizers_of.by_hand(tmp_path / "source")
    end = tokenizers_of.made().token_to_id("<|im_end|>")
    generation = {"eos_token_id": [end, 0, 99999], "temperature": 0.6, "top_k": 20, "do_sample": True}
    (source / "generation_config.json").write_text(json.dumps(generation))
    (tmp_path / "out").mkdir()
    tokenizer_files(source, "<|endoftext|>").write(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == {"eos_token_id": [end, 0]}
    said = GenerationConfig.from_pretrained(tmp_path / "out")
    assert said.eos_token_id == [end, 0]
    assert not said.do_sample


def test_named_templates_stay_named(tmp_path: Path) -> None:
    listed = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "tools"}]
    source = tokenizers_of.by_hand(tmp_path / "source", chat_template=listed)
    (tmp_path / "out").mkdir()
    tokenizer_files(source).write(tmp_path / "out")
    assert settings_of(tmp_path / "out")["chat_template"] == listed
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == {"default": TEMPLATE, "tool_use": "tools"}


def imported_and_exported(source: Path) -> Path:
    """By way of the two commands; a model is put beside the tokenizer first."""
    config = {**directories.CONFIG, "vocab_size": tokenizers_of.made().get_vocab_size(), "eos_token_id": [0, 3]}
    directories.write(source, config)
    list(import_directory(str(source), str(source.with_name("made"))))
    list(export_hf(str(source.with_name("made")), str(source.with_name("out")), None, None))
    return source.with_name("out")


@pytest.mark.parametrize("make", [tokenizers_of.by_hand, tokenizers_of.by_five])
def test_all_of_a_tokenizer_goes_through_an_imported_checkpoint(make: Callable[[Path], Path], tmp_path: Path) -> None:
    source = make(tmp_path / "source")
    if make is tokenizers_of.by_five:  # 4 has no such files
        (source / "additional_chat_templates").mkdir()
        (source / "additional_chat_templates" / "tools.jinja").write_text("tools")
    out = imported_and_exported(source)
    assert (out / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    before, after = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(out)
    named = {"default": TEMPLATE, "tools": "tools"}
    assert before.chat_template == after.chat_template == (named if make is tokenizers_of.by_five else TEMPLATE)
    assert before.special_tokens_map.items() <= after.special_tokens_map.items()
    assert [after(text)["input_ids"] for text in TEXTS] == [tokenizers_of.made().encode(text).ids for text in TEXTS]
    end = tokenizers_of.made().token_to_id("<|im_end|>")
    assert GenerationConfig.from_pretrained(out).eos_token_id == [0, 3, end], "config.json says them, if nothing else"
    assert json.loads((out / "config.json").read_text())["eos_token_id"] == [0, 3, end]


def test_generation_config_json_goes_before_config_json_through_an_imported_checkpoint(tmp_path: Path) -> None:
    source = tokenizers_of.by_hand(tmp_path / "source")
    (source / "generation_config.json").write_text('{"eos_token_id": 5, "top_k": 20}')
    end = tokenizers_of.made().token_to_id("<|im_end|>")
    assert GenerationConfig.from_pretrained(imported_and_exported(source)).to_diff_dict()["eos_token_id"] == [5, end]


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tokenizer.json": (lambda p: (p / "tokenizer.json").unlink(), "tokenizer.json"),
    "a broken tokenizer.json": (lambda p: (p / "tokenizer.json").write_text("{"), "is a tokenizer.json"),
    "broken settings": (lambda p: (p / "tokenizer_config.json").write_text("[1]"), "not an object"),
    "a template without a name": (
        lambda p: (p / "tokenizer_config.json").write_text('{"chat_template": [{"template": "x"}]}'),
        "name and template",
    ),
    "a template's name that leads elsewhere": (
        lambda p: (p / "tokenizer_config.json").write_text('{"chat_template": [{"name": "../x", "template": "x"}]}'),
        "name and template",
    ),
    "a template in another encoding": (
        lambda p: (p / "chat_template.jinja").write_bytes(b"\xff"),
        "chat_template.jinja",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named(case: str, tmp_path: Path) -> None:
    spoil, words = BAD[case]
    source = tokenizers_of.by_hand(tmp_path / "source")
    spoil(source)
    with pytest.raises(ConfigError) as raised:
        tokenizer_files(source)
    assert words in raised.value.report()
