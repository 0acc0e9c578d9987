"""The files of a tokenizer in a directory that transformers 4.48 and 5 read alike; nothing of it is executed.

tokenizer.json goes along byte for byte. tokenizer_config.json is written anew: what transformers 5 saves names a class
that 4.48 does not have, and without one 4.48 invents <s>, </s> and <unk> past the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint.strict_json import Unsound, mapping, read, read_bytes
from trainer.errors import ConfigError, Problem
from trainer.files import is_directory_name

TOKENIZER, SETTINGS, TEMPLATE, GENERATION = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)
MORE_TEMPLATES = "additional_chat_templates"
MODEL = "config.json"
NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")
LONGEST = 256 << 20
"""Bytes of the largest file of a tokenizer that is read."""
LONGEST_TEMPLATE = 1 << 20
"""Bytes of the largest template of chats; they have some tens of thousands at the most."""
KEY = "the tokenizer"
AGAIN = "take the files as the tokenizer's publisher gives them"


@dataclass(frozen=True)
class TokenizerFiles:
    """files: what to write, by path in the directory. ids: bos_token_id, eos_token_id and pad_token_id, those there
    are, as config.json has them. size: ids that the model needs a row for. tokens: by their role, eos_token and the
    like. templates: of chats, by name. notes: what was left out.
    """

    files: Mapping[str, bytes]
    ids: Mapping[str, int | list[int]]
    size: int
    tokens: Mapping[str, str]
    templates: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def write(self, directory: Path) -> None:
        """Into a new directory, or over files of the same names. Raises OSError."""
        for name, data in self.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def tokenizer_files(source: Path, eod: str | None = None, template: str | None = None) -> TokenizerFiles:
    """Those of a directory, or of a tokenizer.json by itself.

    eod: the token that ends a document in training: where the directory says no end of text, it is that. template: of
    chats, in the place of the directory's own. Raises ConfigError that names the file.
    """
    directory = source if source.is_dir() else source.parent
    file = source / TOKENIZER if source.is_dir() else source
    said = {**_said(directory / "special_tokens_map.json"), **_said(directory / SETTINGS)}
    raw, vocabulary, added = _vocabulary(file)
    tokens = {name: content for name in NAMED if (content := _content(said.get(name))) is not None}
    if eod is not None:
        tokens.setdefault("eos_token", eod)
    # transformers would add such a token as it loads them, with an id that the embedding has no row for.
    absent = {name: tokens.pop(name) for name, token in list(tokens.items()) if token not in vocabulary}
    notes = tuple(f"{name} is left out: {file.name} has no {token!r}" for name, token in absent.items())
    others = [token for token in _others(said, added) if token in vocabulary and token not in tokens.values()]
    templates = _templates(directory, said.get("chat_template")) | ({} if template is None else {"default": template})
    ends = _ends(directory, [tokens.get("eos_token"), eod], vocabulary)
    settings = _settings(said, tokens, others, templates)
    files = {
        TOKENIZER: raw,
        SETTINGS: _json(settings),
        GENERATION: _json({} if ends is None else {"eos_token_id": ends}),
    }
    for name, text in templates.items():
        files[TEMPLATE if name == "default" else f"{MORE_TEMPLATES}/{name}.jinja"] = text.encode()
    named = {f"{name}_id": vocabulary[token] for name, token in tokens.items() if name != "unk_token"}
    ids = {**named, **({} if ends is None else {"eos_token_id": ends})}
    return TokenizerFiles(files, ids, max(vocabulary.values()) + 1, tokens, templates, notes)


def _vocabulary(file: Path) -> tuple[bytes, dict[str, int], list[str]]:
    """A tokenizer.json: its bytes, ids by token, and the special ones among the added tokens."""
    import tokenizers  # takes a moment, which a mistake elsewhere is answered without

    try:
        raw = file.read_bytes()
        inner = tokenizers.Tokenizer.from_str(raw.decode("utf-8"))
    except OSError as error:
        remedy = "give a directory with one; slow tokenizers: save them as fast ones first"
        raise ConfigError(Problem(KEY, str(file), f"can be read ({error.strerror})", remedy)) from None
    except Exception as error:  # the library raises plain Exception for whatever it cannot parse
        rule = f"is a tokenizer.json ({' '.join(str(error).split())[:200]})"
        raise ConfigError(Problem(KEY, str(file), rule, AGAIN)) from None
    vocabulary = inner.get_vocab(with_added_tokens=True)
    if not vocabulary:
        raise ConfigError(Problem(KEY, str(file), "has tokens", AGAIN))
    added = inner.get_added_tokens_decoder()
    return raw, vocabulary, [added[index].content for index in sorted(added) if added[index].special]


def _said(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        return mapping(read(path, LONGEST), "it")
    except FileNotFoundError:
        return {}
    except (OSError, Unsound) as error:
        raise ConfigError(Problem(KEY, str(path), f"can be read ({error})", AGAIN)) from None


def _content(token: Any) -> str | None:
    """A token is a string, or an object with its content."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) and content else None


def _others(said: Mapping[str, Any], special: list[str]) -> Iterable[str]:
    """Special tokens without a role: additional_special_tokens until transformers 4, extra_special_tokens since 5."""
    for key in ("additional_special_tokens", "extra_special_tokens"):
        if isinstance(found := said.get(key), (list, dict)) and found:
            values = found.values() if isinstance(found, dict) else found
            return [content for value in values if (content := _content(value)) is not None]
    return special


def _templates(directory: Path, said: Any) -> dict[str, str]:
    """Chat templates by name: files of their own win, as in transformers 5."""
    found = {"default": said} if isinstance(said, str) else dict(_listed(said))
    files = {"default": directory / TEMPLATE}
    files |= {path.stem: path for path in sorted((directory / MORE_TEMPLATES).glob("*.jinja"))}
    for name, path in files.items():
        try:
            found[name] = template_text(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise ConfigError(Problem(KEY, str(path), f"can be read ({error})", AGAIN)) from None
    return found


def template_text(path: Path) -> str:
    """Of a file with a template. Raises OSError, or ValueError for what cannot be one."""
    return read_bytes(path, LONGEST_TEMPLATE).decode("utf-8")


def _listed(said: Any) -> Iterator[tuple[str, str]]:
    for entry in said if isinstance(said, list) else []:
        name, text = (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str) or not is_directory_name(name):
            rule = "a text, or a list of objects with name and template"
            raise ConfigError(Problem(f"{SETTINGS}: chat_template", str(entry)[:60], rule, AGAIN))
        yield name, text


def _ends(directory: Path, tokens: list[str | None], vocabulary: Mapping[str, int]) -> list[int] | int | None:
    """Ids that end a generation: what the directory says, the end-of-text token, and the end of a training document."""
    said = stated_ends(directory)
    last = max(vocabulary.values())
    ends = [vocabulary[token] for token in tokens if token is not None and token in vocabulary]
    found = list(dict.fromkeys([*(index for index in said if index <= last), *ends]))
    return found[0] if len(found) == 1 else found or None


def stated_ends(directory: Path) -> list[int]:
    """Ids that end a generation, as a directory says them: config.json where generation_config.json does not."""
    return next((found for name in (GENERATION, MODEL) if (found := _ids(directory / name))), [])


def _ids(path: Path) -> list[int]:
    value = _said(path).get("eos_token_id")
    return [index for index in (value if isinstance(value, list) else [value]) if type(index) is int]


def _settings(
    said: Mapping[str, Any], tokens: Mapping[str, str], others: list[str], templates: Mapping[str, str]
) -> dict[str, Any]:
    clean, longest = said.get("clean_up_tokenization_spaces"), said.get("model_max_length")
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **tokens,
        "additional_special_tokens": others,
        # 4.48 takes spaces before punctuation out of decoded text unless told not to.
        "clean_up_tokenization_spaces": clean if isinstance(clean, bool) else False,
    }
    if type(longest) is int:
        settings["model_max_length"] = longest
    if set(templates) == {"default"}:
        settings["chat_template"] = templates["default"]
    elif templates:
        settings["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
    return settings


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
