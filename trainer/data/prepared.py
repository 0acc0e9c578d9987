"""Sources that scripts/prepare.py has made, opened where they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainer.checkpoint.strict_json import Unsound
from trainer.config.groups.data import SourceConfig, TokenizerConfig
from trainer.data.in_place import Opened, allow_files, looked_at, places_in
from trainer.data.manifest import MANIFEST, Manifest, PreparedShard, read_manifest
from trainer.data.paths import source_error
from trainer.data.progress import Report
from trainer.data.shard import IndexedShard
from trainer.data.skipped import Skipped
from trainer.data.stream import TokenStream
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizer_files import load
from trainer.data.tokenizing import HELDOUT, TRAIN, SourceFigures
from trainer.errors import DataError

MARK = "prepared"
PREPARE = "scripts/prepare.py makes such directories; give one that holds a manifest.json"
TOKENIZER = "tokenizer"
"""Directory beside the sources' that holds what they were tokenised with."""


def open_prepared(source: SourceConfig, tokenizer: Tokenizer, fraction: float, report: Report | None) -> Opened:
    """Open a source of kind prepared; its directories are one stream, in the order of its paths.

    fraction: data.heldout_fraction; 0 leaves the held-out shards alone. What it costs depends on the number of shards,
    not on their sizes. Raises DataError.
    """
    directories = [Path(path).expanduser().absolute() for path in source.paths]
    manifests = [_manifest(source, directory) for directory in directories]
    for directory, manifest in zip(directories, manifests, strict=True):
        _refuse_other_tokenizer(source, directory, manifest, tokenizer)
    every = [(place, one) for place, found in zip(directories, manifests, strict=True) for one in found.shards]
    allow_files(2 * len(every))
    places = places_in(len(every))
    opened: dict[str, list[IndexedShard]] = {TRAIN: [], HELDOUT: []}
    marks = {}
    for number, manifest in enumerate(manifests):
        marks[f"manifest of {_place(number, source)}"] = manifest.digest
    for number, (directory, one) in enumerate(every):
        shard = _shard(source, directory, one, places)
        digest, _, _ = looked_at(shard, tokenizer, places)
        marks[f"shard {number} ({one.prefix}) of source {source.name}"] = digest
        opened[one.part].append(shard)
    figures = _sum([manifest.figures for manifest in manifests])
    if report is not None:
        for manifest in manifests:
            report(f"  {source.name}: {_said(manifest, fraction)}")
    heldout = TokenStream.over(opened[HELDOUT] if fraction else [], tokenizer.size)
    # The manifests by name, and not a digest of them all: more directories behind the same ones are appended text.
    mark = "-".join([MARK, *(manifest.digest for manifest in manifests)])
    train = TokenStream.over(opened[TRAIN], tokenizer.size)
    return Opened(train, heldout, _kept(figures, fraction), marks, mark=mark)


def _place(number: int, source: SourceConfig) -> str:
    return f"source {source.name}" if len(source.paths) == 1 else f"directory {number} of source {source.name}"


def _said(manifest: Manifest, fraction: float) -> str:
    figures, shards = manifest.figures, len(manifest.shards)
    heldout = f"held-out: {figures.heldout.documents:,} documents by content, in shards of their own"
    if not fraction:
        heldout += ", left alone (data.heldout_fraction=0)"
    return f"prepared, {shards:,} shard{'s' if shards != 1 else ''}; {heldout}"


def _manifest(source: SourceConfig, directory: Path) -> Manifest:
    try:
        return read_manifest(directory)
    except FileNotFoundError:
        rule = f"holds a source that is prepared whole; there is no {MANIFEST} in it"
        work = directory / ".work"
        remedy = "give the same scripts/prepare.py command again: it was stopped" if work.is_dir() else PREPARE
        raise source_error(source, "paths", str(directory), rule, remedy) from None
    except Unsound as error:
        raise source_error(source, "paths", str(directory / MANIFEST), str(error), PREPARE) from None
    except OSError as error:
        rule = f"can be read ({error.strerror})"
        raise source_error(source, "paths", str(directory / MANIFEST), rule, "restore access to it") from None


def _refuse_other_tokenizer(source: SourceConfig, directory: Path, found: Manifest, tokenizer: Tokenizer) -> None:
    if found.tokenizer == tokenizer.fingerprint:
        return
    beside = directory.parent / TOKENIZER
    try:
        # Another version of the tokenizers library spells the same tokenizer otherwise than when this was prepared.
        config = TokenizerConfig(kind="file", path=str(beside), eod=found.eod_token)
        same = load(config, beside)[0].fingerprint == tokenizer.fingerprint
    except DataError:
        same = False
    if not same:
        rule = "was prepared with the tokenizer of this run; it was prepared with another one"
        remedy = f"set data.tokenizer.path={beside}" if beside.is_dir() else "give the tokenizer that it was made with"
        raise source_error(source, "paths", str(directory), rule, remedy)


def _shard(source: SourceConfig, directory: Path, one: PreparedShard, places: int) -> IndexedShard:
    remedy = "copy the directory again, or prepare it anew"
    for suffix, expected in ((".bin", one.bin_bytes), (".idx", one.idx_bytes)):
        file = directory / f"{one.prefix}{suffix}"
        try:
            size = file.stat().st_size
        except OSError as error:
            rule = f"is there, as {MANIFEST} says ({error.strerror})"
            raise source_error(source, "paths", str(file), rule, remedy) from None
        if size != expected:
            rule = f"has the {expected:,} bytes that {MANIFEST} says; it has {size:,}"
            raise source_error(source, "paths", str(file), rule, remedy)
    shard = IndexedShard(directory / one.prefix, f"data.sources[{source.name}].paths", places)
    if (shard.documents, shard.total) != (one.documents, one.tokens):
        rule = f"has the {one.documents:,} documents and {one.tokens:,} tokens that {MANIFEST} says"
        raise source_error(source, "paths", str(directory / one.prefix), rule, remedy)
    return shard


def _sum(every: list[SourceFigures]) -> SourceFigures:
    first, *others = every
    for one in others:
        first = SourceFigures(
            first.train + one.train,
            first.heldout + one.heldout,
            first.reference_bytes + one.reference_bytes,
            first.zlib_bytes + one.zlib_bytes,
            first.xz_bytes + one.xz_bytes,
            Skipped.joined([first.skipped, one.skipped]),
            first.unknown + one.unknown,
        )
    return first


def _kept(figures: SourceFigures, fraction: float) -> SourceFigures:
    """Without what is left alone."""
    if fraction:
        return figures
    nothing = replace(figures.heldout, documents=0, tokens=0, bytes=0)
    return replace(figures, heldout=nothing, reference_bytes=0, zlib_bytes=0, xz_bytes=0)


def manifests_extend(old: str, new: str) -> bool:
    """Whether a prepared source's mark is an older one with more directories behind it."""
    return old.startswith(f"{MARK}-") and new.startswith(f"{old}-")
