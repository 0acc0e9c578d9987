"""Sources, tokenizer and token files put together, from the cache where the content is known."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache as once
from functools import partial
from itertools import chain
from pathlib import Path

from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data import tokenizer as tokenizers
from trainer.data.amounts import READY, all_heldout, none_heldout, refuse_one_sided, refuse_unknown
from trainer.data.cache import build_once
from trainer.data.chat.sources import chat_of, told
from trainer.data.documents import size_in_bytes
from trainer.data.in_place import Opened, open_in_place
from trainer.data.known import known_fingerprint
from trainer.data.paths import source_files, typed_keys
from trainer.data.prepared import open_prepared
from trainer.data.progress import Report, track
from trainer.data.remote import reading
from trainer.data.skipped import STOP, refuse_skipped
from trainer.data.stream import TokenStream
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizer_files import load
from trainer.data.tokenizing import HELDOUT, TRAIN, Part, SourceFigures, tokenize_source, training_texts
from trainer.errors import DataError, Problem

FORMAT = 1
"""Raise it when what the cache holds changes meaning."""
CHAT_KEY = "chat template of source {}"
"""What the template and the rule of a source's conversations are called among the fingerprints."""


@dataclass(frozen=True)
class Corpus:
    """What training and evaluation read. Lists run over the sources, in the order of the configuration.

    heldout: the held-out documents of all sources, end to end.
    figures: per source; train_part, heldout_part and the bits per byte below add them up.
    fingerprints: of the tokenizer and of each source's tokens, by name: what a resume compares.
    shards: fingerprints of the shards that were opened in place, by words: what ranks compare besides.
    estimated: whether the bytes of the training text are: others' token files do not say them.
    chats: words about those sources that are conversations, by name.
    """

    tokenizer: Tokenizer
    names: list[str]
    weights: list[float]
    train: list[TokenStream]
    heldout: TokenStream
    figures: list[SourceFigures]
    fingerprints: dict[str, str]
    shards: Mapping[str, str] = field(default_factory=dict)
    estimated: bool = False
    chats: Mapping[str, str] = field(default_factory=dict)

    @property
    def train_part(self) -> Part:
        """Documents, tokens and bytes to train on."""
        return _sum(figures.train for figures in self.figures)

    @property
    def heldout_part(self) -> Part:
        """Documents, tokens and bytes kept for evaluation."""
        return _sum(figures.heldout for figures in self.figures)

    @property
    def zlib_bits_per_byte(self) -> float | None:
        """zlib -9 on each held-out document as a whole; None without any."""
        return self._bits_per_byte(sum(figures.zlib_bytes for figures in self.figures))

    @property
    def xz_bits_per_byte(self) -> float | None:
        """xz -6 on each held-out document as a whole; None without any."""
        return self._bits_per_byte(sum(figures.xz_bytes for figures in self.figures))

    def _bits_per_byte(self, compressed: int) -> float | None:
        original = sum(figures.reference_bytes for figures in self.figures)
        return 8 * compressed / original if original else None


def source_key(name: str) -> str:
    """What a source's tokens are called among the fingerprints."""
    return f"source {name}"


def prepare_corpus(config: DataConfig, vocab: int, report: Report | None = None) -> Corpus:
    """Read, split, tokenise and cache all sources; the same call on every rank does the work once per cache.

    vocab: rows of the model's embedding. report: where lines about the progress go; None is silent (other ranks).
    Raises DataError for anything that the sources, the tokenizer or the cache get wrong.
    """
    with typed_keys([source.name for source in config.sources]), reading(config):
        return _prepare(config, vocab, report)


def _prepare(config: DataConfig, vocab: int, report: Report | None) -> Corpus:
    cache = Path(config.cache_dir).expanduser()
    config = replace(config, sources=told(config.sources, report))
    prints = {}
    for source in config.sources:
        if source.kind in READY:
            source_files(source)  # complains about paths before anything takes long
        else:
            prints[source.name] = known_fingerprint(source, cache, report)
    look = once(partial(refuse_one_sided, config))
    tokenizer = _tokenizer(config, list(prints.values()), cache, report, look)
    if tokenizer.size > vocab:
        rule = f"the tokenizer has {tokenizer.size} ids and each needs a row of the embedding"
        remedy = f"set model.vocab={tokenizer.size} or more" + (
            f", or data.tokenizer.vocab={vocab}" if config.tokenizer.kind == "train_bpe" else ""
        )
        raise DataError(Problem("model.vocab", vocab, rule, remedy))
    marks = {"tokenizer": tokenizer.fingerprint}
    shards: dict[str, str] = {}
    opened = []
    for source in config.sources:
        if source.kind == "indexed":
            one = open_in_place(source, tokenizer, config.heldout_fraction, config.heldout_documents, report)
            limits = config.heldout_fraction, config.heldout_documents
            marks[source_key(source.name)] = _key("in-place", *one.shards.values(), tokenizer.fingerprint, *limits)
        elif source.kind == "prepared":
            one = open_prepared(source, tokenizer, config.heldout_fraction, report)
            marks[source_key(source.name)] = one.mark
        else:
            one, found = _tokens_of(source, tokenizer, config, prints[source.name], report, look)
            marks |= found
        if source.kind != "indexed":
            _tell_skipped(source, one.figures, config.bad_documents, report)
            _tell_unknown(source, one.figures, config.tokenizer, tokenizer, report)
        shards |= one.shards
        opened.append(one)
    corpus = Corpus(
        tokenizer=tokenizer,
        names=[source.name for source in config.sources],
        weights=[source.weight for source in config.sources],
        train=[one.train for one in opened],
        heldout=TokenStream.chained((one.heldout for one in opened), tokenizer.size),
        figures=[one.figures for one in opened],
        fingerprints=marks,
        shards=shards,
        estimated=any(one.estimated for one in opened),
        chats={source.name: one.chat for source, one in zip(config.sources, opened, strict=True) if one.chat},
    )
    _check_amounts(config, corpus)
    return corpus


def prepare_text(
    source: SourceConfig, tokenizer: Tokenizer, config: DataConfig, report: Report | None = None
) -> tuple[TokenStream, str, int]:
    """All documents of one source, tokenised and cached, their fingerprint and bytes of text. Raises DataError."""
    cache = Path(config.cache_dir).expanduser()
    (source,) = told([source], report)
    own = partial(tokenize_source, source, tokenizer, 0.0, report, config.bad_documents)
    build, more, _ = _conversing(source, tokenizer, config, report, own)
    key = _key("tokens", known_fingerprint(source, cache, report), tokenizer.fingerprint, 0.0, *more)
    directory = _timed(f"tokenised {source.name}", cache, key, build, report)
    figures = SourceFigures.read(directory)
    _tell_skipped(source, figures, config.bad_documents, report)
    return TokenStream.open(directory / TRAIN, ids=tokenizer.size), key, figures.train.bytes


def _tokens_of(
    source: SourceConfig,
    tokenizer: Tokenizer,
    config: DataConfig,
    text: str,
    report: Report | None,
    look: Callable[[], None],
) -> tuple[Opened, dict[str, str]]:
    """The tokens of a source of text, from the cache or made now, and their fingerprints. text: fingerprint of it."""
    own = partial(tokenize_source, source, tokenizer, config.heldout_fraction, report, config.bad_documents)
    build, more, words = _conversing(source, tokenizer, config, report, own)
    key = _key("tokens", text, tokenizer.fingerprint, config.heldout_fraction, *more)
    cache = Path(config.cache_dir).expanduser()
    directory = _timed(f"tokenised {source.name}", cache, key, build, report, look)
    marks = {source_key(source.name): directory.name, **{CHAT_KEY.format(source.name): mark for mark in more}}
    return replace(_tokenised(directory, tokenizer), chat=words), marks


def _conversing(
    source: SourceConfig, tokenizer: Tokenizer, config: DataConfig, report: Report | None, build: Callable[..., None]
) -> tuple[Callable[..., None], list[str], str]:
    """``build`` for a source that may be conversations, what their tokens depend on besides, and words about them."""
    if (found := chat_of(source, config, tokenizer, report)) is None:
        return build, [], ""
    chat, settings = found
    return partial(build, chat=chat), [settings.mark], chat.described()


def _tell_skipped(source: SourceConfig, figures: SourceFigures, bad_documents: str, report: Report | None) -> None:
    """At every start, from the cache too. Raises DataError where the policy is to stop."""
    if bad_documents == STOP:
        refuse_skipped(source, figures.skipped)
    if report is not None:
        for line in figures.lines(source.name):
            report(line)


def _tell_unknown(
    source: SourceConfig, figures: SourceFigures, config: TokenizerConfig, tokenizer: Tokenizer, report: Report | None
) -> None:
    """A line where the tokenizer has no tokens for some of the text. Raises DataError where that is too much of it."""
    share = figures.unknown / max(1, figures.train.tokens + figures.heldout.tokens)
    refuse_unknown(source.name, share, config)
    if figures.unknown and tokenizer.unknown is not None and report is not None:
        name = tokenizer.inner.id_to_token(tokenizer.unknown)
        report(f"  {source.name}: {share:.3%} of the tokens are unknown ({name}): their text is lost to the model")


def _check_amounts(config: DataConfig, corpus: Corpus) -> None:
    problems = []
    for source, tokens, figures in zip(config.sources, corpus.train, corpus.figures, strict=True):
        key = f"data.sources[{source.name}].paths"
        if not tokens.documents:
            problems.append(all_heldout(source, figures.heldout.documents))
        elif tokens.total <= config.seq_len:
            rule = f"one sample takes {config.seq_len + 1} tokens and the training part has {tokens.total}"
            problems.append(Problem(key, source.paths, rule, "add text, or lower data.seq_len"))
    if config.heldout_fraction > 0 and not corpus.heldout.total:
        ready = all(source.kind == "prepared" for source in config.sources)
        problems.append(none_heldout(config.heldout_fraction, corpus.train_part.documents, ready))
    if problems:
        raise DataError(problems)


def _tokenizer(
    config: DataConfig, prints: list[str], cache: Path, report: Report | None, look: Callable[[], None]
) -> Tokenizer:
    if config.tokenizer.kind == "file":
        found, why = load(config.tokenizer, cache)
        if report is not None:
            report(f"  documents end with {found.eod_token} (id {found.eod}), {why}")
        return found
    eod = config.tokenizer.eod or tokenizers.DEFAULT_EOD
    vocab = config.tokenizer.vocab

    def build(directory: Path) -> None:
        training = (training_texts(one, config.heldout_fraction, config.bad_documents) for one in config.sources)
        sizes = [size_in_bytes(source) for source in config.sources]
        total = sum(size for size in sizes if size is not None) if None not in sizes else None
        with track("learning the tokenizer", total, report) as advance:

            def texts() -> Iterator[str]:
                for text in chain.from_iterable(training):
                    advance(len(text))
                    yield text

            tokenizers.train_bpe(texts(), vocab, eod).save(directory / "tokenizer.json")

    key = _key("tokenizer", *prints, vocab, eod, config.heldout_fraction)  # the fraction decides the training part
    directory = _timed(f"learnt a tokenizer of {vocab:,} ids", cache, key, build, report, look)
    return load(TokenizerConfig(kind="file", path=str(directory), eod=eod), cache)[0]


def _tokenised(directory: Path, tokenizer: Tokenizer) -> Opened:
    """What tokenize_source has left in a directory."""
    train, heldout = (TokenStream.open(directory / part, ids=tokenizer.size) for part in (TRAIN, HELDOUT))
    return Opened(train, heldout, SourceFigures.read(directory))


def _timed(
    done: str,
    cache: Path,
    key: str,
    build: Callable[[Path], None],
    report: Report | None,
    look: Callable[[], None] = lambda: None,
) -> Path:
    """build_once, with a line about what was done and how long it took when it was not there yet.

    look: called before a build, which takes long; whatever it raises passes through.
    """

    def timed(directory: Path) -> None:
        look()
        begin = time.monotonic()
        build(directory)
        if report is not None:
            report(f"{done} in {time.monotonic() - begin:.1f} s")

    return build_once(cache, key, timed, report)


def _key(kind: str, *parts: object) -> str:
    content = json.dumps([FORMAT, *parts]).encode()
    return f"{kind}-{hashlib.blake2b(content, digest_size=12).hexdigest()}"


def _sum(parts: Iterator[Part]) -> Part:
    return sum(parts, Part(0, 0, 0))
