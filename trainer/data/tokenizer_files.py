"""Tokenizers as people have them: a tokenizer.json, another vocabulary, or a directory that holds one of them.

The directory may say what ends a document.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import tokenizers

from trainer.config.groups.data import TokenizerConfig
from trainer.data.cache import build_once
from trainer.data.tokenizer import DEFAULT_EOD, Tokenizer
from trainer.data.vocabularies.formats import Vocabulary, vocabulary_of
from trainer.data.vocabularies.sentencepiece import Unfit
from trainer.errors import DataError, Problem

KNOWN_EODS = (
    DEFAULT_EOD,
    "</s>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",  # DeepSeek: full-width bars and the sentencepiece space
)
DECLARING = ("tokenizer_config.json", "special_tokens_map.json")
BESIDE = (*DECLARING, "chat_template.jinja", "generation_config.json")
"""What goes along with a vocabulary that is made into a tokenizer.json."""
FOREIGN = {
    ".model": "named like a SentencePiece model, and its content is none",
    ".tiktoken": "named like a tiktoken file, and its content is none",
    "merges.txt": "the half of GPT-2's pair with vocab.json",
    "vocab.bpe": "the half of GPT-2's pair with encoder.json",
}
"""What other formats are, by suffix or name."""
CONVERT = (
    "download or copy it again if it is damaged; else make a tokenizer.json of it:"
    " transformers.AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(OTHER)"
)


def load(config: TokenizerConfig, cache: Path) -> tuple[Tokenizer, str]:
    """The tokenizer of a file or a directory, and by whose word its end of document is one.

    cache: where a vocabulary that is no tokenizer.json is kept as one. Runs none of that directory's code. Raises
    DataError when it is missing or unreadable, or when its end-of-text token cannot be told.
    """
    if config.path is None:
        rule = "data.tokenizer.kind=file needs a path"
        raise _path_error(None, rule, "give a tokenizer.json or a directory that holds one")
    path = Path(config.path).expanduser()
    file = path / "tokenizer.json" if path.is_dir() else path
    if not (path / "tokenizer.json").is_file() and (found := _vocabulary(config.path, path)) is not None:
        return _made(config, found, file.parent, cache)
    inner = _read(config.path, path, file)
    eod, why = _eod(config, inner, file.parent)
    return Tokenizer(inner, eod, file), why


def _vocabulary(given: str, path: Path) -> Vocabulary | None:
    try:
        return vocabulary_of(path)
    except Unfit as error:
        raise _path_error(given, str(error), CONVERT) from None
    except OSError as error:
        raise _path_error(given, f"can be read ({error.strerror})", "restore access to it") from None


def _made(config: TokenizerConfig, found: Vocabulary, directory: Path, cache: Path) -> tuple[Tokenizer, str]:
    """The vocabulary as a tokenizer.json in the cache, with what lies beside it."""
    assert config.path is not None
    try:
        inner, end = found.make()
        digest = found.digest_with(directory / name for name in BESIDE)
    except (Unfit, UnicodeDecodeError, OSError) as error:
        raise _path_error(config.path, f"{found.what}: {error}", CONVERT) from None
    eod, why = _eod(config, inner, directory, (end, f"as {found.what} says"))

    def build(into: Path) -> None:
        (into / "tokenizer.json").write_text(inner.to_str(pretty=True), encoding="utf-8")
        for name in BESIDE:
            if (directory / name).is_file():
                shutil.copyfile(directory / name, into / name)

    file = build_once(cache, f"vocabulary-{digest}", build) / "tokenizer.json"
    # Read again: a tokenizer that was made and one that was read do not spell all they are alike.
    return Tokenizer(_read(config.path, file, file), eod, file), f"{why} (ids as {found.what} has them)"


def _read(given: str, path: Path, file: Path) -> tokenizers.Tokenizer:
    if not file.is_file():
        held = next(((one.name, what) for one in sorted(path.glob("*")) if (what := _foreign(one))), None)
        rule = f"{file} does not exist" + (f"; {held[0]} is {held[1]}" if held else "")
        raise _path_error(given, rule, CONVERT if held else "give a tokenizer.json or a directory that holds one")
    if (what := _foreign(file)) is not None:
        raise _path_error(given, f"{file.name} is {what}", CONVERT)
    try:
        return tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception for whatever it cannot parse
        rule = f"{file} is no tokenizer.json: {' '.join(str(error).split())[:200]}"
        raise _path_error(given, rule, "download or save it again") from error


def _foreign(file: Path) -> str | None:
    return FOREIGN.get(file.name) or FOREIGN.get(file.suffix)


def _path_error(path: str | None, rule: str, remedy: str) -> DataError:
    return DataError(Problem("data.tokenizer.path", path, rule, remedy))


def _eod(
    config: TokenizerConfig,
    inner: tokenizers.Tokenizer,
    directory: Path,
    own: tuple[str | None, str] = (None, ""),
) -> tuple[str, str]:
    """The token that ends a document, and why. own: what the vocabulary itself says, and in which words.

    The usual names count only among special tokens: a vocabulary may have HTML's </s> for a token.
    """
    special = [token.content for token in inner.get_added_tokens_decoder().values() if token.special]
    if config.eod is not None:
        if inner.token_to_id(config.eod) is not None:
            return config.eod, "as data.tokenizer.eod says"
        raise _eod_error(config.eod, "the tokenizer has no such token", "name one of its special tokens", special)
    for token, file in _declared(directory):
        if inner.token_to_id(token) is not None:
            return token, f"as {file} says"
    if own[0] is not None and inner.token_to_id(own[0]) is not None:
        return own[0], own[1]
    for token in KNOWN_EODS:
        if token in special:
            return token, "the usual name among its special tokens"
    usual = ", ".join(KNOWN_EODS)
    rule = f"no file declares the end-of-text token, and no special token has a usual name ({usual})"
    raise _eod_error(None, rule, "name the token that ends a document: data.tokenizer.eod=TOKEN", special)


def _eod_error(value: str | None, rule: str, remedy: str, special: list[str]) -> DataError:
    remedy += f"; it has {', '.join(special[:8])}" if special else ""
    return DataError(Problem("data.tokenizer.eod", value, rule, remedy))


def _declared(directory: Path) -> Iterator[tuple[str, str]]:
    """The eos_token of the files next to the tokenizer, a string or an object with its content, and the file's name."""
    for name in DECLARING:
        try:
            token = json.loads((directory / name).read_text(encoding="utf-8")).get("eos_token")
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str):
            yield content, name
