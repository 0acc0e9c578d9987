"""manifest.json of a prepared source, read by those who did not write it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.checkpoint.strict_json import Unsound, mapping, parse, regular, shown, whole
from trainer.data.tokenizing import SourceFigures

MANIFEST, FORMAT, KIND = "manifest.json", 1, "prepared source"
LONGEST = 256 << 20
"""Bytes: a shard takes 250, so a million shards."""
PREFIX = re.compile(r"(train|heldout)-\d{5,}")
"""Of a shard's files: names beside the manifest, and no paths."""


COUNTS = ("documents", "tokens", "bin_bytes", "idx_bytes")


@dataclass(frozen=True)
class PreparedShard:
    """prefix: train-00000 and the like. bin_bytes, idx_bytes, mask_bytes: sizes of its files. digest: of all.

    mask_bytes: None where all tokens are trained on.
    """

    part: str
    prefix: str
    documents: int
    tokens: int
    bin_bytes: int
    idx_bytes: int
    digest: str
    mask_bytes: int | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of its files, by suffix."""
        found = {".bin": self.bin_bytes, ".idx": self.idx_bytes}
        return found if self.mask_bytes is None else {**found, ".mask": self.mask_bytes}


@dataclass(frozen=True)
class Manifest:
    """digest: of the file. heldout_fraction, bad_documents: as it was prepared. chat: words about conversations."""

    digest: str
    tokenizer: str
    eod_token: str
    heldout_fraction: float
    figures: SourceFigures
    shards: tuple[PreparedShard, ...]
    chat: str = ""


def local_manifest(directory: Path) -> bytes:
    """The file of a directory. Raises Unsound for one that is no such file, OSError."""
    file = directory / MANIFEST
    refuse_longer(regular(file))
    return file.read_bytes()


def refuse_longer(size: int) -> None:
    """Raises Unsound for more bytes than any manifest has."""
    if size > LONGEST:
        raise Unsound(f"{size:,} bytes, more than {LONGEST:,}")


def parsed(data: bytes) -> Manifest:
    """What a manifest says. Raises Unsound for what scripts/prepare.py does not write."""
    value = mapping(parse(data), "it")
    if value.get("kind") != KIND:
        raise Unsound(f"its kind is {shown(value.get('kind'))}, not {KIND!r}")
    if value.get("format") != FORMAT:
        raise Unsound(f"its format is {shown(value.get('format'))}; this version reads {FORMAT}")
    tokenizer = mapping(value.get("tokenizer"), "tokenizer")
    fraction = value.get("heldout_fraction")
    if not isinstance(fraction, int | float) or not 0 <= fraction < 1:
        raise Unsound(f"heldout_fraction is {shown(fraction)}, not a share below 1")
    shards = value.get("shards")
    if type(shards) is not list:
        raise Unsound(f"shards is {shown(shards)}, not a list")
    try:
        figures = SourceFigures.of(mapping(value.get("figures"), "figures"))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unsound(f"its figures are not those of a source ({error})") from None
    return Manifest(
        hashlib.blake2b(data, digest_size=12).hexdigest(),
        _text(tokenizer.get("fingerprint"), "tokenizer.fingerprint"),
        _text(tokenizer.get("eod_token"), "tokenizer.eod_token"),
        float(fraction),
        figures,
        tuple(_shard(one) for one in shards),
        _chat(value.get("chat")),
    )


def _chat(value: Any) -> str:
    if value is None:
        return ""
    found = mapping(value, "chat")
    shape, template, trained = (_text(found.get(key), f"chat.{key}") for key in ("shape", "template", "train_on"))
    return f"conversations ({shape}) by {template}, data.train_on={trained}"


def _shard(value: Any) -> PreparedShard:
    one = mapping(value, "a shard")
    prefix = _text(one.get("prefix"), "a shard's prefix")
    if PREFIX.fullmatch(prefix) is None or one.get("part") != prefix.partition("-")[0]:
        raise Unsound(f"a shard's prefix is {shown(prefix)}, not train-00000 or heldout-00000 and the like")
    counts = {key: whole(one.get(key), f"{key} of {prefix}") for key in COUNTS}
    mask = whole(one["mask_bytes"], f"mask_bytes of {prefix}") if "mask_bytes" in one else None
    digest = _text(one.get("digest"), f"digest of {prefix}")
    return PreparedShard(part=one["part"], prefix=prefix, digest=digest, mask_bytes=mask, **counts)


def _text(value: Any, what: str) -> str:
    if type(value) is not str or not value:
        raise Unsound(f"{what} is {shown(value)}, not a text")
    return value
