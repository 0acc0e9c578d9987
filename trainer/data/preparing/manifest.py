"""What a prepared source says of itself: manifest.json, the list of its inputs, and what was passed over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainer.checkpoint.strict_json import Unsound
from trainer.config.groups.data import SourceConfig
from trainer.data.chat.settings import ChatSettings
from trainer.data.indexed import DTYPES, code_for
from trainer.data.manifest import FORMAT, KIND, MANIFEST, PreparedShard, parsed
from trainer.data.preparing.passed_over import KEPT
from trainer.data.preparing.units import Inputs, deciding_fields
from trainer.data.readers.found import Aside, Bad
from trainer.data.skipped import Policy
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizing import SourceFigures
from trainer.errors import DataError, Problem
from trainer.files import read_json, write_atomically

INPUTS, SKIPPED = "inputs.jsonl", "skipped.jsonl"
DTYPE_NAMES = {"<u2": "uint16", "<i4": "int32"}


def settings_of(
    source: SourceConfig,
    tokenizer: Tokenizer,
    fraction: float,
    dedup: dict[str, Any],
    bad_documents: str,
    chat: ChatSettings | None = None,
) -> dict[str, Any]:
    """What decides a source's shards beside its files, as its manifest has it. dedup: method and threshold. chat: of a
    source of conversations.
    """
    return {
        "source": deciding_fields(source),
        "tokenizer": {
            "fingerprint": tokenizer.fingerprint,
            "size": tokenizer.size,
            "eod": tokenizer.eod,
            "eod_token": tokenizer.eod_token,
        },
        "heldout_fraction": fraction,
        "dedup": dedup,
        "bad_documents": bad_documents,
        **({} if chat is None else {"chat": chat.described()}),
    }


def manifest_of(
    name: str,
    settings: dict[str, Any],
    inputs: Inputs,
    listing: str,
    figures: SourceFigures,
    shards: list[dict[str, Any]],
    removed: int,
) -> dict[str, Any]:
    """The value of manifest.json. listing: the text of inputs.jsonl. removed: duplicates."""
    files = {"files": len(inputs.files), "bytes": inputs.bytes, "digest": digest_of(listing)}
    dtype = DTYPE_NAMES[DTYPES[code_for(settings["tokenizer"]["size"])]]
    return {
        "format": FORMAT,
        "kind": KIND,
        "name": name,
        **settings,
        "inputs": files,
        "dedup": settings["dedup"] | {"removed": removed},
        "figures": asdict(figures),
        "shards": shards,
        "dtype": dtype,
    }


def digest_of(text: str) -> str:
    """blake2b-128, in hex."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def inputs_listing(inputs: Inputs, digests: Iterable[str]) -> str:
    """inputs.jsonl. digests: of the files, in their order."""
    rows = (
        {"path": file.path, "size": file.size, "mtime_ns": file.mtime_ns, "digest": digest}
        | ({"etag": file.etag} if file.etag else {})
        for file, digest in zip(inputs.files, digests, strict=True)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_skipped(path: Path, every: Iterable[tuple[Bad | Aside, int]], source: SourceConfig, root: str) -> Policy:
    """skipped.jsonl, and the counts. every: in the order of the source, with how many each stands for."""
    policy = Policy()
    lines: list[str] = []
    for found, number in every:
        if number == 1 and isinstance(found, Bad) and len(lines) < KEPT:
            lines.append(json.dumps({"reason": found.reason.words, "place": found.place.below(root)}) + "\n")
        policy.take(source, found, root, number)
    write_atomically(path, "".join(lines))
    return policy


def complete(directory: Path, name: str, settings: dict[str, Any], inputs: Inputs) -> dict[str, Any] | None:
    """The manifest of a source that is prepared as it is asked for; None where it is not prepared yet.

    Raises DataError where it was prepared otherwise, or from other files.
    """
    try:
        manifest = read_json(directory / MANIFEST)
        given = {key: manifest.get(key) if key == "chat" else manifest[key] for key in settings}
        given["dedup"] = {key: given["dedup"][key] for key in settings["dedup"]}
        shards = parsed((directory / MANIFEST).read_bytes()).shards
        rows = [json.loads(line) for line in (directory / INPUTS).read_text(encoding="utf-8").splitlines()]
        before = [(row["path"], row["size"], row["mtime_ns"], row.get("etag", "")) for row in rows]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Unsound) as error:
        rule = f"holds a source that scripts/prepare.py has left: {type(error).__name__}: {error}"
        raise DataError(Problem("--output", str(directory), rule, "remove it, or choose another --output")) from error
    differing = [
        f"{key} {_short(given[key])} there, {_short(settings[key])} now"
        for key in settings
        if given[key] != settings[key]
    ]
    now = [(file.path, file.size, file.mtime_ns, file.etag) for file in inputs.files]
    if before != now:
        differing.append(f"input files: {_changed(before, now)}")
    if differing:
        rule = f"source {name} is complete there, and was prepared otherwise: {'; '.join(differing)}"
        raise DataError(Problem("--output", str(directory), rule, "choose another --output, or remove that directory"))
    _refuse_lost(directory, shards)
    return dict(manifest)


def _refuse_lost(directory: Path, shards: Iterable[PreparedShard]) -> None:
    """Raises DataError for a shard without its files: training would refuse it, and to do nothing mends nothing."""
    for shard in shards:
        for suffix, size in shard.sizes.items():
            file = directory / f"{shard.prefix}{suffix}"
            if not file.is_file() or file.stat().st_size != size:
                rule = f"is complete, as its {MANIFEST} says; {file.name} is not there with its {size:,} bytes"
                remedy = "bring the file back, or remove that directory and give the same command again"
                raise DataError(Problem("--output", str(directory), rule, remedy))


def _short(value: Any) -> str:
    return json.dumps(value) if not isinstance(value, dict) or len(value) < 4 else json.dumps(list(value.values()))


def _changed(before: list[tuple[Any, ...]], now: list[tuple[Any, ...]]) -> str:
    for old, new in zip(before, now, strict=False):
        if old != new:
            return f"{old[0]} of {old[1]:,} bytes there, {new[0]} of {new[1]:,} bytes now" + (
                ", changed since" if old[:2] == new[:2] else ""
            )
    return f"{len(before):,} files there, {len(now):,} now"
