"""One source turned into a training and a held-out .bin/.idx pair, with its figures."""

from __future__ import annotations

import hashlib
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.groups.data import SourceConfig
from trainer.data.documents import documents, found_documents, size_in_bytes
from trainer.data.encoding import encoded
from trainer.data.indexed import IndexedWriter
from trainer.data.progress import Advance, Report, track
from trainer.data.skipped import Policy, Skipped
from trainer.data.tokenizer import Tokenizer

if TYPE_CHECKING:
    from trainer.data.chat.conversation import Chat, Conversed

TRAIN, HELDOUT, FIGURES = "train", "heldout", "figures.json"
REFERENCE_DOCUMENTS, REFERENCE_BYTES = 2000, 16 << 20
"""xz costs about 3 s per 10 MB, so the references of a large corpus stop at the first of these."""


@dataclass(frozen=True)
class Part:
    """How much there is: documents, tokens (end-of-document ones included) and bytes of text.

    untrained: tokens of these that are read and not trained on.
    """

    documents: int
    tokens: int
    bytes: int
    untrained: int = 0

    def __add__(self, other: Part) -> Part:
        return Part(
            self.documents + other.documents,
            self.tokens + other.tokens,
            self.bytes + other.bytes,
            self.untrained + other.untrained,
        )

    @property
    def trained(self) -> int:
        """Tokens to train on."""
        return self.tokens - self.untrained


@dataclass(frozen=True)
class SourceFigures:
    """One source's parts, and what compressors make of its held-out documents, each compressed whole.

    reference_bytes: bytes of the held-out documents that were compressed: all, up to 2,000 documents or 16 MiB (fewer
    of a source that is opened in place).
    zlib_bytes, xz_bytes: what was left of them, zlib -9 and xz -6, headers included.
    skipped: documents that could not be used. unknown: tokens that stand for text the tokenizer has no token for, in
    both parts.
    """

    train: Part
    heldout: Part
    reference_bytes: int
    zlib_bytes: int
    xz_bytes: int
    skipped: Skipped = field(default_factory=Skipped)
    unknown: int = 0

    @staticmethod
    def read(directory: Path) -> SourceFigures:
        """The figures that `tokenize_source` left in a directory."""
        return SourceFigures.of(json.loads((directory / FIGURES).read_text(encoding="utf-8")))

    def lines(self, name: str) -> Iterator[str]:
        """For people: what was passed over, and what is not trained on. name: the source's."""
        yield from self.skipped.lines(name)
        if (both := self.train + self.heldout).untrained:
            yield f"  {name}: {both.trained:,} of {both.tokens:,} tokens are trained on, the others are read"

    @staticmethod
    def of(value: dict[str, Any]) -> SourceFigures:
        """From what asdict made of one."""
        value = dict(value)
        skipped = Skipped.of(value.pop("skipped", {}))  # older caches have none
        return SourceFigures(Part(**value.pop("train")), Part(**value.pop("heldout")), skipped=skipped, **value)


@dataclass
class Tokenized:
    """What tokenizing some texts has come to; of the reference one row a document: bytes, zlib's, xz's."""

    train: Part
    heldout: Part
    reference: list[tuple[int, int, int]]
    unknown: int


def is_heldout(content: bytes, fraction: float) -> bool:
    """Whether a document of this content is kept for evaluation: equal content, equal answer."""
    place = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")
    return place < int(fraction * (1 << 64))


def training_texts(source: SourceConfig, fraction: float, bad_documents: str = "skip") -> Iterator[str]:
    """The texts of a source that are not held out. bad_documents: skip | stop."""
    return (text for text in documents(source, Policy(bad_documents)) if not is_heldout(text.encode(), fraction))


def tokenize_source(
    source: SourceConfig,
    tokenizer: Tokenizer,
    fraction: float,
    report: Report | None,
    bad_documents: str,
    directory: Path,
    chat: Chat | None = None,
) -> None:
    """Write train.bin/.idx, heldout.bin/.idx and figures.json to `directory`. bad_documents: skip | stop.

    chat: makes the tokens of a source of conversations.
    """
    policy = Policy(bad_documents)
    with track(f"tokenising {source.name}", size_in_bytes(source), report) as advance:
        if chat is None:
            done = tokenize(documents(source, policy), tokenizer, fraction, directory, advance)
        else:
            from trainer.data.chat.conversation import conversed  # brings jinja2

            every, root = found_documents(source, policy)
            said = conversed(every, chat, lambda found: policy.take(source, found, root))
            done = store(said, tokenizer, fraction, directory, advance, masked=True)
            if not done.train.documents + done.heldout.documents:
                raise policy.nothing(source)
    figures = figures_of([done], policy.skipped)
    (directory / FIGURES).write_text(json.dumps(asdict(figures), indent=1), encoding="utf-8")


def tokenize(
    texts: Iterable[str],
    tokenizer: Tokenizer,
    fraction: float,
    directory: Path,
    advance: Advance,
    compress: bool = True,
) -> Tokenized:
    """Write train.bin/.idx and heldout.bin/.idx to `directory`.

    advance: told the bytes of each text. compress: whether reference documents are wanted of these texts.
    """
    plain = ((text, ids, None, 0) for text, ids in encoded(texts, tokenizer))
    return store(plain, tokenizer, fraction, directory, advance, compress)


def store(
    every: Iterable[Conversed],
    tokenizer: Tokenizer,
    fraction: float,
    directory: Path,
    advance: Advance,
    compress: bool = True,
    masked: bool = False,
) -> Tokenized:
    """``tokenize`` of texts with their ids, which of these are trained on (None: all), and bytes that they stand for
    (where some are not). masked: write which are.
    """
    parts = {False: [0, 0, 0, 0], True: [0, 0, 0, 0]}
    reference = Reference()
    unknown = 0
    with (
        IndexedWriter(directory / TRAIN, tokenizer.size, masked) as train,
        IndexedWriter(directory / HELDOUT, tokenizer.size, masked) as heldout,
    ):
        for text, ids, trained, size in every:
            content = text.encode()
            held = is_heldout(content, fraction)
            (heldout if held else train).append(ids, trained)
            part = parts[held]
            part[0] += 1
            part[1] += len(ids)
            part[2] += len(content) if trained is None else size
            part[3] += 0 if trained is None else len(ids) - int(trained.sum())
            if tokenizer.unknown is not None:
                unknown += int((ids == tokenizer.unknown).sum())
            if held and compress and not reference.full:
                said = content if trained is None else b"".join(tokenizer.token_bytes[i] for i in ids[trained])
                reference.add(compressed(said))
            advance(len(content))
    return Tokenized(Part(*parts[False]), Part(*parts[True]), reference.rows, unknown)


class Reference:
    """The first held-out documents, as compressors have them, up to 2,000 or 16 MiB of them."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int]] = []
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether no more of them count."""
        return len(self.rows) >= REFERENCE_DOCUMENTS or self.bytes >= REFERENCE_BYTES

    def add(self, row: tuple[int, int, int]) -> None:
        """A document's bytes, and what zlib and xz make of it; nothing once it is full."""
        if not self.full:
            self.rows.append(row)
            self.bytes += row[0]


def figures_of(every: Iterable[Tokenized], skipped: Skipped) -> SourceFigures:
    """The figures of a source from those of its parts, in order."""
    train, heldout = Part(0, 0, 0), Part(0, 0, 0)
    reference = Reference()
    unknown = 0
    for one in every:
        train, heldout = train + one.train, heldout + one.heldout
        unknown += one.unknown
        for row in one.reference:
            reference.add(row)
    size, zlib_bytes, xz_bytes = (sum(row[column] for row in reference.rows) for column in range(3))
    return SourceFigures(train, heldout, size, zlib_bytes, xz_bytes, skipped, unknown)


def compressed(text: bytes) -> tuple[int, int, int]:
    """Its size, and what zlib -9 and xz -6 make of it."""
    return len(text), len(zlib.compress(text, 9)), len(lzma.compress(text, preset=6))
