"""Token files of any size: a real .idx, and a .bin that is a hole of the right length (id 0 throughout)."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np

from trainer.data.tokenizer import Tokenizer

AT_ONCE = 1 << 20
UINT16 = 8
HEADER = 34
"""Bytes before the tables of an index."""


def write_simulated(prefix: Path, documents: int, longest: int = 1000) -> int:
    """Write PREFIX.bin/.idx of so many documents of 1 .. longest tokens, one sequence each; returns the tokens."""
    rng = np.random.default_rng(documents)
    runs = [min(AT_ONCE, documents - start) for start in range(0, documents, AT_ONCE)]
    with open(f"{prefix}.idx", "w+b") as index:
        index.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, UINT16, documents, documents + 1))
        pointers, groups = (index.tell() + width * documents for width in (4, 12))
        lengths_at, total, first = index.tell(), 0, 0
        for run in runs:
            lengths = rng.integers(1, longest + 1, run).astype("<i4")
            ends = total + np.cumsum(lengths, dtype=np.int64)
            os.pwrite(index.fileno(), lengths.tobytes(), lengths_at + 4 * first)
            os.pwrite(index.fileno(), (2 * (ends - lengths)).astype("<i8").tobytes(), pointers + 8 * first)
            os.pwrite(index.fileno(), np.arange(first, first + run, dtype="<i8").tobytes(), groups + 8 * first)
            total, first = int(ends[-1]), first + run
        os.pwrite(index.fileno(), struct.pack("<q", documents), groups + 8 * documents)
    with open(f"{prefix}.bin", "wb") as data:
        data.truncate(2 * total)
    return total


def link_shards(prefix: Path, count: int) -> list[str]:
    """So many prefixes that are all the same files."""
    made = []
    for number in range(count):
        for suffix in (".bin", ".idx"):
            os.link(f"{prefix}{suffix}", f"{prefix}-{number:03d}{suffix}")
        made.append(f"{prefix}-{number:03d}")
    return made


def link_prepared(directory: Path, prefix: Path, count: int, heldout: Path, tokenizer: Tokenizer) -> str:
    """A prepared source whose shards are all the files of one pair; heldout: the pair that is held out."""
    directory.mkdir()
    shards, sizes = [], {"train": np.zeros(2, np.int64), "heldout": np.zeros(2, np.int64)}
    for part, of, number in [*(("train", prefix, number) for number in range(count)), ("heldout", heldout, 0)]:
        name = f"{part}-{number:05d}"
        lengths = {suffix: (Path(f"{of}.{suffix}")).stat().st_size for suffix in ("bin", "idx")}
        for suffix in lengths:
            os.link(f"{of}.{suffix}", directory / f"{name}.{suffix}")
        documents = (lengths["idx"] - HEADER - 8) // 20
        counts = {"documents": documents, "tokens": lengths["bin"] // 2}
        sizes[part] += tuple(counts.values())
        bytes_of = {f"{suffix}_bytes": size for suffix, size in lengths.items()}
        shards.append({"part": part, "prefix": name, **counts, **bytes_of, "digest": "not looked at"})
    parts = {
        part: {"documents": int(documents), "tokens": int(tokens), "bytes": int(tokens)}
        for part, (documents, tokens) in sizes.items()
    }
    reference = dict.fromkeys(("reference_bytes", "zlib_bytes", "xz_bytes"), 1000)
    manifest = {
        "format": 1,
        "kind": "prepared source",
        "tokenizer": {"fingerprint": tokenizer.fingerprint, "eod_token": tokenizer.eod_token},
        "heldout_fraction": 0.02,
        "figures": parts | reference,
        "shards": shards,
    }
    (directory / "manifest.json").write_text(json.dumps(manifest))
    return str(directory)


def bytes_read() -> int:
    """What this process has read from files until now, by the kernel's count (rchar of man 5 proc_pid_io)."""
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])
