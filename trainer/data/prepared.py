"""Sources that scripts/prepare.py has made, opened where they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trainer.checkpoint.strict_json import Unsound
from trainer.config.groups.data import SourceConfig, TokenizerConfig
from trainer.data.in_place import Opened, allow_files, looked_at, places_in
from trainer.data.manifest import MANIFEST, Manifest, PreparedShard, local_manifest, parsed, refuse_longer
from trainer.data.paths import source_error
from trainer.data.progress import Report
from trainer.data.shard import IndexedShard
from trainer.data.skipped import Skipped
from trainer.data.stream import TokenStream
from trainer.data.tokenizer import Tokenizer
from trainer.data.tokenizer_files import load
from trainer.data.tokenizing import HELDOUT, TRAIN, SourceFigures
from trainer.errors import DataError
from trainer.storage.base import Missing, is_remote
from trainer.storage.open import storage_of

MARK = "prepared"
PREPARE = "scripts/prepare.py makes such directories; give one that holds a manifest.json"
WORK = ".work"
"""Below a directory that is not complete."""
TOKENIZER = "tokenizer"
"""Directory beside the sources' that holds what they were tokenised with."""


def open_prepared(source: SourceConfig, tokenizer: Tokenizer, fraction: float, report: Report | None) -> Opened:
    """Open a source of kind prepared; its directories are one stream, in the order of its paths.

    fraction: data.heldout_fraction; 0 leaves the held-out shards alone. What it costs depends on the number of shards,
    not on their sizes. Raises DataError.
    """
    directories = [_directory(path) for path in source.paths]
    manifests = [_manifest(source, directory) for directory in directories]
    for directory, manifest in zip(directories, manifests, strict=True):
        _refuse_other_tokenizer(source, directory, manifest, tokenizer)
    every = [(place, one) for place, found in zip(directories, manifests, strict=True) for one in found.shards]
    allow_files(sum(len(one.sizes) for _, one in every))
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
    chat = "; ".join(dict.fromkeys(manifest.chat for manifest in manifests if manifest.chat))
    return Opened(train, heldout, _kept(figures, fraction), marks, mark=mark, chat=chat)


def _place(number: int, source: SourceConfig) -> str:
    return f"source {source.name}" if len(source.paths) == 1 else f"directory {number} of source {source.name}"


def _said(manifest: Manifest, fraction: float) -> str:
    figures, shards = manifest.figures, len(manifest.shards)
    heldout = f"held-out: {figures.heldout.documents:,} documents by content, in shards of their own"
    if not fraction:
        heldout += ", left alone (data.heldout_fraction=0)"
    chat = f", {manifest.chat}" if manifest.chat else ""
    return f"prepared, {shards:,} shard{'s' if shards != 1 else ''}{chat}; {heldout}"


def _directory(path: str) -> str:
    return path.rstrip("/") if is_remote(path) else str(Path(path).expanduser().absolute())


def _manifest(source: SourceConfig, directory: str) -> Manifest:
    file = f"{directory}/{MANIFEST}"
    try:
        return parsed(_read(directory, file, f"data.sources[{source.name}].paths"))
    except (FileNotFoundError, Missing):
        rule = f"holds a source that is prepared whole; there is no {MANIFEST} in it"
        stopped = not is_remote(directory) and Path(directory, WORK).is_dir()
        remedy = "give the same scripts/prepare.py command again: it was stopped" if stopped else PREPARE
        raise source_error(source, "paths", directory, rule, remedy) from None
    except Unsound as error:
        raise source_error(source, "paths", file, str(error), PREPARE) from None
    except OSError as error:
        raise source_error(source, "paths", file, f"can be read ({error.strerror})", "restore access to it") from None


def _read(directory: str, file: str, key: str) -> bytes:
    if not is_remote(directory):
        return local_manifest(Path(directory))
    storage = storage_of(file, key)
    stored = storage.stat(file)
    refuse_longer(stored.size)
    return storage.read(stored, 0, stored.size)


def _refuse_other_tokenizer(source: SourceConfig, directory: str, found: Manifest, tokenizer: Tokenizer) -> None:
    if found.tokenizer == tokenizer.fingerprint:
        return
    beside = Path(directory).parent / TOKENIZER  # of a directory in S3 none
    try:
        # Another version of the tokenizers library spells the same tokenizer otherwise than when this was prepared.
        config = TokenizerConfig(kind="file", path=str(beside), eod=found.eod_token)
        same = load(config, beside)[0].fingerprint == tokenizer.fingerprint
    except DataError:
        same = False
    if not same:
        rule = "was prepared with the tokenizer of this run; it was prepared with another one"
        remedy = f"set data.tokenizer.path={beside}" if beside.is_dir() else "give the tokenizer that it was made with"
        raise source_error(source, "paths", directory, rule, remedy)


def _shard(source: SourceConfig, directory: str, one: PreparedShard, places: int) -> IndexedShard:
    prefix = f"{directory}/{one.prefix}"
    shard = IndexedShard(prefix, f"data.sources[{source.name}].paths", places, one.mask_bytes is not None)
    found = (*shard.sizes, shard.documents, shard.total)
    if found != (expected := (one.bin_bytes, one.idx_bytes, one.documents, one.tokens)):
        counts = ("bytes of .bin", "bytes of .idx", "documents", "tokens")
        rows = zip(counts, expected, found, strict=True)
        differing = "; ".join(f"{there:,} {what}, not {said:,}" for what, said, there in rows if said != there)
        rule = f"is what {MANIFEST} says; it has {differing}"
        raise source_error(source, "paths", prefix, rule, "copy the directory again, or prepare it anew")
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
