"""WebDataset: a tar whose neighbouring members with one key are a sample (github.com/webdataset/webdataset).

Members are read as they pass by and never unpacked to a disk; links, devices and directories are no members.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath

from trainer.data.readers.found import (
    BROKEN_JSON,
    LIMIT,
    MISSING,
    NO_OBJECT,
    NUL,
    TOO_LONG,
    Bad,
    Document,
    Found,
    Place,
    Reason,
    checked,
)
from trainer.data.readers.jsonlines import loads
from trainer.data.readers.rows import Field, lacks_field, taken, without_field
from trainer.data.readers.streams import opened

TEXT, JSON = "txt", "json"
NAMED = 20
"""Endings that a message names at the most."""


def read_tar(file: Path, compression: str, field: Field) -> Iterator[Found]:
    """The text of each sample: its member KEY.field, else KEY.txt, else the field of KEY.json. Conversations: KEY.json.

    Raises NoColumn where no sample has any, tarfile.TarError for what is no tar or was cut short.
    """
    endings: dict[str, None] = {}
    seen = False
    wanted = {field, TEXT, JSON} if isinstance(field, str) else {JSON}
    for number, sample in enumerate(_samples(file, compression, wanted, endings)):
        found = _document(sample, field, Place(str(file), "sample", number))
        seen = seen or not lacks_field(found)
        yield found
    if endings and not seen:
        raise without_field(field, list(endings))


def _document(sample: dict[str, bytes | Reason], field: Field, place: Place) -> Document | Bad:
    if isinstance(field, str):
        return checked(_text(sample, field), place)
    value = _json(sample)
    return taken(field, value, place) if isinstance(value, dict) else checked(value, place)


def _samples(
    file: Path, compression: str, wanted: set[str], endings: dict[str, None]
) -> Iterator[dict[str, bytes | Reason]]:
    """The wanted members of each sample by what follows the key. endings: takes those of all members."""
    key: str | None = None
    sample: dict[str, bytes | Reason] = {}
    with closing(opened(file, compression)) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            name, dot, ending = path.name.partition(".")
            if not member.isreg() or not name or not dot:
                continue
            if len(endings) < NAMED:
                endings[ending] = None
            if (found := str(path.parent / name)) != key:
                if key is not None:
                    yield sample
                key, sample = found, {}
            if ending in wanted:
                content = archive.extractfile(member)
                sample[ending] = TOO_LONG if member.size > LIMIT or content is None else content.read()
    if key is not None:
        yield sample


def _text(sample: dict[str, bytes | Reason], field: str) -> object:
    for ending in (field, TEXT):
        if ending != JSON and (content := sample.get(ending)) is not None:
            return content if isinstance(content, Reason) else _decoded(content)
    value = _json(sample)
    return value.get(field, MISSING) if isinstance(value, dict) else value


def _json(sample: dict[str, bytes | Reason]) -> dict[str, object] | Reason:
    """The object of its JSON member."""
    if (content := sample.get(JSON)) is None or isinstance(content, Reason):
        return MISSING if content is None else content
    if (value := loads(content)) is BROKEN_JSON:
        return BROKEN_JSON
    return value if isinstance(value, dict) else NO_OBJECT


def _decoded(content: bytes) -> str | Reason:
    """Bytes that are no UTF-8 are kept as surrogates, for ``checked`` to name."""
    return NUL if b"\0" in content else content.decode("utf-8-sig", errors="surrogateescape")
