"""The tokenizer of a preparation, in a directory of its own beside the sources: copied, or learnt first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from trainer.config.groups.data import DataConfig, TokenizerConfig
from trainer.data import tokenizer as tokenizers
from trainer.data.chat.settings import ChatSettings
from trainer.data.preparing.manifest import MANIFEST
from trainer.data.preparing.units import Inputs, deciding_fields
from trainer.data.progress import Report, track
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizer_files import load
from trainer.data.tokenizing import training_texts
from trainer.errors import DataError, Problem
from trainer.files import write_atomically, write_json
from trainer.pretrained.tokenizer_files import TEMPLATE

TOKENIZER, FILE, CONFIG = "tokenizer", "tokenizer.json", "tokenizer_config.json"
LEARNT = "learnt_from"
"""Key of tokenizer_config.json: what a tokenizer was learnt from."""


def prepared_tokenizer(config: DataConfig, inputs: list[Inputs], output: Path, report: Report) -> Tokenizer:
    """The tokenizer, as it lies in OUTPUT/tokenizer. Raises DataError where sources there have another one."""
    directory, cache = output / TOKENIZER, Path(config.cache_dir).expanduser()
    there = _there(directory)
    if config.tokenizer.kind == "file":
        given, why = load(config.tokenizer, cache)
        report(f"  documents end with {given.eod_token} (id {given.eod}), {why}")
        key = None
    else:
        key = _key(config, inputs)
        if there is not None and there[1] == key:
            return there[0]
        _refuse_complete(output, "data.tokenizer.kind", config.tokenizer.kind, there is not None)
        given = _learnt(config, inputs, report)
    if there is not None and there[0].fingerprint == given.fingerprint:
        return there[0]
    _refuse_complete(output, "data.tokenizer.path", config.tokenizer.path, there is not None)
    directory.mkdir(exist_ok=True)
    write_atomically(directory / FILE, given.inner.to_str(pretty=True))
    write_json(directory / CONFIG, {"eos_token": given.eod_token} | ({} if key is None else {LEARNT: key}))
    there = _there(directory)
    if there is None or there[0].fingerprint != given.fingerprint:
        raise RuntimeError(f"{directory} is read as another tokenizer than was written there")
    return there[0]


def given_tokenizer(config: DataConfig) -> Tokenizer:
    """The tokenizer of a file where it was given: the chat template and the roles of tokens lie there."""
    return load(config.tokenizer, Path(config.cache_dir).expanduser())[0]


def keep_template(output: Path, settings: ChatSettings) -> None:
    """Put the template of conversations beside the prepared tokenizer: exports, chats and evaluations want it there."""
    directory = output / TOKENIZER
    if settings.template is None:
        return
    write_atomically(directory / TEMPLATE, settings.template)
    said = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    write_json(directory / CONFIG, {**settings.special, **said})


def _there(directory: Path) -> tuple[Tokenizer, str | None] | None:
    """The tokenizer that an earlier run has left, and what it was learnt from."""
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        return load(TokenizerConfig(kind="file", path=str(directory)), directory)[0], config.get(LEARNT)
    except (OSError, ValueError, DataError):
        return None


def _refuse_complete(output: Path, key: str, value: object, readable: bool) -> None:
    """Raises DataError where a source is complete: its tokens are those of the tokenizer that is there.

    readable: whether that tokenizer can be.
    """
    directory = output / TOKENIZER
    remedy = f"choose another --output, or set data.tokenizer.kind=file data.tokenizer.path={directory}"
    for manifest in sorted(output.glob(f"*/{MANIFEST}")):
        rule = f"the tokenizer that {manifest.parent} was prepared with, {directory}"
        if not readable:
            remedy = "choose another --output, or bring that directory back"
            rule = f"{rule}, which is not there, or damaged"
        elif key == "data.tokenizer.kind":
            rule = f"{rule}; that was learnt from other files, or with another data.tokenizer or data.heldout_fraction"
        else:
            rule = f"{rule}; this is another one"
        raise DataError(Problem(key, value, rule, remedy))


def _key(config: DataConfig, inputs: list[Inputs]) -> str:
    files = [
        [[[*file[:3], file.etag] for file in one.files], deciding_fields(source)]
        for one, source in zip(inputs, config.sources, strict=True)
    ]
    content = json.dumps([files, config.tokenizer.vocab, config.tokenizer.eod, config.heldout_fraction])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _learnt(config: DataConfig, inputs: list[Inputs], report: Report) -> Tokenizer:
    """From the training part of all sources, as training does that prepares them itself."""
    training = (training_texts(one, config.heldout_fraction, config.bad_documents) for one in config.sources)
    total = sum(one.bytes for one in inputs)
    with track("learning the tokenizer", total or None, report) as advance:

        def texts() -> Iterator[str]:
            for text in chain.from_iterable(training):
                advance(len(text))
                yield text

        return tokenizers.train_bpe(texts(), config.tokenizer.vocab, config.tokenizer.eod or tokenizers.DEFAULT_EOD)
