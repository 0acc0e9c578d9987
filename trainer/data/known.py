"""Fingerprints of sources, kept: a node's text is read by one of its processes, and not again while it stays as it is.

That it did is told by names, sizes, inodes and both times of every file: the kernel sets the time of a change itself,
whatever a copying program claims of the other one.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from trainer.config.groups.data import SourceConfig
from trainer.data.cache import alone
from trainer.data.documents import fingerprint
from trainer.data.paths import source_files
from trainer.data.progress import Report
from trainer.errors import DataError
from trainer.files import write_json

KNOWN, VERSION = "known", 1
"""VERSION: raise it when ``fingerprint`` gives the same content another one."""
SETTLED = 2_000_000_000
"""Nanoseconds since its last change after which a file's times tell of the next: file systems have coarse clocks."""
FRESH = 300
"""Seconds for which a hub is not asked again: the ranks of a node start within them."""


def known_fingerprint(source: SourceConfig, cache: Path, report: Report | None = None) -> str:
    """``fingerprint`` of a source, read only where it is not known. cache: data.cache_dir. Raises DataError."""
    if source.kind == "plugin" or any("://" in path for path in source.paths):
        return fingerprint(source)
    if source.kind == "huggingface" and not all(Path(path).expanduser().is_dir() for path in source.paths):
        return _on_hub(source, cache, report)
    before, settled = _state(source)
    kept = cache / KNOWN / f"{before}.json"
    with alone(cache, f"{KNOWN}-{before}", report):
        known = _read(kept)
        if known is not None:
            return str(known["fingerprint"])
        found = fingerprint(source)
        if settled and _state(source)[0] == before:
            _keep(kept, found)
        return found


def _on_hub(source: SourceConfig, cache: Path, report: Report | None) -> str:
    """A name is resolved by one process of a node; what it was the last time serves where the hub cannot be reached."""
    name = _digest(_fields(source))
    kept = cache / KNOWN / f"hub-{name}.json"
    with alone(cache, f"{KNOWN}-{name}", report):
        known = _read(kept)
        if known is not None and 0 <= time.time() - known["time"] < FRESH:
            return str(known["fingerprint"])
        try:
            found = fingerprint(source)
        except DataError as error:
            if known is None:
                raise
            if report is not None:
                why = error.problems[0].rule
                report(f"  {source.name}: taken as it was when the hub was asked last, since now it {why}")
            return str(known["fingerprint"])
        _keep(kept, found)
        return found


def _state(source: SourceConfig) -> tuple[str, bool]:
    """Digest of what is known of the files without reading them, and whether none of them changed just now."""
    newest, rows = 0, []
    for file in source_files(source):
        found = file.stat()
        newest = max(newest, found.st_mtime_ns, found.st_ctime_ns)
        rows.append([os.fsencode(file).hex(), found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns])
    return _digest([_fields(source), rows]), time.time_ns() - newest > SETTLED


def _fields(source: SourceConfig) -> list[object]:
    what = [source.kind, source.paths, source.format, source.text_field, source.document_unit]
    chat = [] if source.chat is None else [source.chat]
    return [VERSION, *what, source.subset, source.split, *chat]


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def _keep(path: Path, found: str) -> None:
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"fingerprint": found, "time": time.time()})


def _read(path: Path) -> dict[str, Any] | None:
    """What was kept; None for nothing, or for what somebody has damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    sound = isinstance(found, dict) and isinstance(found.get("fingerprint"), str)
    return found if sound and isinstance(found.get("time"), int | float) else None
