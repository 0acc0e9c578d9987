"""One source turned into a training and a held-out .bin/.idx pair, with its figures."""

from __future__ import annotations

import hashlib
import json
import lzma
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.config.groups.data import SourceConfig
from trainer.data.documents import documents, size_in_bytes
from trainer.data.indexed import IndexedWriter
from trainer.data.progress import Report, track
from trainer.data.skipped import Policy, Skipped
from trainer.data.tokenizer import Tokenizer

TRAIN, HELDOUT, FIGURES = "train", "heldout", "figures.json"
BATCH_DOCUMENTS, BATCH_CHARACTERS = 512, 4 << 20
REFERENCE_DOCUMENTS, REFERENCE_BYTES = 2000, 16 << 20
"""xz costs about 3 s per 10 MB, so the references of a large corpus stop at the first of these."""


@dataclass(frozen=True)
class Part:
    """How much there is: documents, tokens (end-of-document ones included) and bytes of text."""

    documents: int
    tokens: int
    bytes: int


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
        value = json.loads((directory / FIGURES).read_text(encoding="utf-8"))
        skipped = Skipped.of(value.pop("skipped", {}))  # older caches have none
        return SourceFigures(Part(**value.pop("train")), Part(**value.pop("heldout")), skipped=skipped, **value)


class _Document(NamedTuple):
    """ids: with the end of document. size: of its text, in bytes. text: only of a held-out one."""

    ids: NDArray[np.int64]
    size: int
    heldout: bool
    text: bytes


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
) -> None:
    """Write train.bin/.idx, heldout.bin/.idx and figures.json to `directory`. bad_documents: skip | stop."""
    parts = {False: np.zeros(3, np.int64), True: np.zeros(3, np.int64)}
    reference = np.zeros(4, np.int64)  # documents, bytes, zlib, xz
    unknown = 0
    policy = Policy(bad_documents)
    with (
        IndexedWriter(directory / TRAIN, tokenizer.size) as train,
        IndexedWriter(directory / HELDOUT, tokenizer.size) as heldout,
        track(f"tokenising {source.name}", size_in_bytes(source), report) as advance,
    ):
        for document in _texts(documents(source, policy), tokenizer, fraction):
            (heldout if document.heldout else train).append(document.ids)
            parts[document.heldout] += (1, len(document.ids), document.size)
            if tokenizer.unknown is not None:
                unknown += int((document.ids == tokenizer.unknown).sum())
            if document.heldout and reference[0] < REFERENCE_DOCUMENTS and reference[1] < REFERENCE_BYTES:
                reference += (1, *compressed(document.text))
            advance(document.size)
    train_part, heldout_part = (Part(*map(int, parts[key])) for key in (False, True))
    _, size, zlib_bytes, xz_bytes = map(int, reference)
    figures = SourceFigures(train_part, heldout_part, size, zlib_bytes, xz_bytes, policy.skipped, unknown)
    (directory / FIGURES).write_text(json.dumps(asdict(figures), indent=1), encoding="utf-8")


def _texts(every: Iterator[str], tokenizer: Tokenizer, fraction: float) -> Iterator[_Document]:
    for texts in _batches(every):
        for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
            content = text.encode()
            heldout = is_heldout(content, fraction)
            tokens = np.array([*ids, tokenizer.eod], np.int64)
            yield _Document(tokens, len(content), heldout, content if heldout else b"")


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    """Enough texts at a time to keep the encoder's threads busy, few enough to stay small in memory."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == BATCH_DOCUMENTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def compressed(text: bytes) -> tuple[int, int, int]:
    """Its size, and what zlib -9 and xz -6 make of it."""
    return len(text), len(zlib.compress(text, 9)), len(lzma.compress(text, preset=6))
