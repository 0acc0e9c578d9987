"""Megatron's files against bytes laid out by hand."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.data.indexed import IndexedWriter
from trainer.data.stream import TokenStream
from trainer.errors import DataError

DOCUMENTS = [[1, 2, 3], [65535], [4, 5]]


def hand_made(code: int, letter: str, documents: list[list[int]], groups: list[int]) -> tuple[bytes, bytes]:
    flat = [token for document in documents for token in document]
    data = struct.pack(f"<{len(flat)}{letter}", *flat)
    lengths = [len(document) for document in documents]
    pointers = [sum(lengths[:i]) * struct.calcsize(letter) for i in range(len(lengths))]
    index = b"MMIDIDX\x00\x00" + struct.pack("<Q", 1) + struct.pack("<B", code)
    index += struct.pack("<Q", len(lengths)) + struct.pack("<Q", len(groups))
    index += struct.pack(f"<{len(lengths)}i", *lengths)
    index += struct.pack(f"<{len(pointers)}q", *pointers)
    index += struct.pack(f"<{len(groups)}q", *groups)
    return data, index


def place(prefix: Path, data: bytes, index: bytes) -> Path:
    Path(f"{prefix}.bin").write_bytes(data)
    Path(f"{prefix}.idx").write_bytes(index)
    return prefix


@pytest.mark.parametrize(("vocab", "code", "letter"), [(65536, 8, "H"), (65537, 4, "i")])
def test_writer_is_byte_exact(tmp_path: Path, vocab: int, code: int, letter: str) -> None:
    with IndexedWriter(tmp_path / "x", vocab) as writer:
        for document in DOCUMENTS:
            writer.append(document)
    data, index = hand_made(code, letter, DOCUMENTS, [0, 1, 2, 3])
    assert (tmp_path / "x.bin").read_bytes() == data
    assert (tmp_path / "x.idx").read_bytes() == index


@pytest.mark.parametrize(("code", "letter"), [(1, "B"), (2, "b"), (3, "h"), (4, "i"), (5, "q"), (8, "H")])
def test_reads_every_integer_type(tmp_path: Path, code: int, letter: str) -> None:
    documents = [[1, 2, 3], [100], [4, 5]]
    tokens = TokenStream.open(place(tmp_path / "x", *hand_made(code, letter, documents, [0, 1, 2, 3])))
    assert (tokens.documents, tokens.total) == (3, 6)
    assert [tokens.start_of(i) for i in range(4)] == [0, 3, 4, 6]
    assert tokens.borders(0, 5).tolist() == [3, 4]
    assert [tokens.document(i).tolist() for i in range(3)] == documents
    assert tokens.slice(2, 5).tolist() == [3, 100, 4]
    assert tokens.slice(4, 99).tolist() == [4, 5]
    assert tokens.slice(0, 6).dtype == np.int64


def test_a_document_may_have_several_sequences(tmp_path: Path) -> None:
    tokens = TokenStream.open(place(tmp_path / "x", *hand_made(8, "H", DOCUMENTS, [0, 2, 3])))
    assert [tokens.document(i).tolist() for i in range(tokens.documents)] == [[1, 2, 3, 65535], [4, 5]]


def test_no_documents(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "x", 10):
        pass
    tokens = TokenStream.open(tmp_path / "x")
    assert (tokens.documents, tokens.total, tokens.slice(0, 9).tolist()) == (0, 0, [])


@pytest.mark.parametrize("bad", [[], [-1], [10]])
def test_writer_refuses(tmp_path: Path, bad: list[int]) -> None:
    with pytest.raises(ValueError, match="token"), IndexedWriter(tmp_path / "x", 10) as writer:
        writer.append(bad)
    assert not (tmp_path / "x.idx").exists()


DATA, INDEX = hand_made(8, "H", DOCUMENTS, [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("data", "index", "file"),
    [
        (DATA[:-1], INDEX, "x.bin"),
        (DATA + b"\0\0", INDEX, "x.bin"),
        (DATA, INDEX[:-1], "x.idx"),
        (DATA, INDEX + b"\0", "x.idx"),
        (DATA, INDEX[:20], "x.idx"),
        (DATA, b"", "x.idx"),
        (DATA, b"PK" + INDEX[2:], "x.idx"),
        (DATA, INDEX[:9] + b"\x02" + INDEX[10:], "x.idx"),
        (DATA, INDEX[:17] + b"\x07" + INDEX[18:], "x.idx"),
        (DATA, INDEX[:17] + b"\x63" + INDEX[18:], "x.idx"),
        (DATA, INDEX[:34] + b"\x02" + INDEX[35:], "x.idx"),
        (DATA, INDEX[:37] + b"\xff" + INDEX[38:], "x.idx"),
        (DATA, hand_made(8, "H", DOCUMENTS, [0, 2, 1, 3])[1], "x.idx"),
        (DATA, hand_made(8, "H", DOCUMENTS, [0, 2])[1], "x.idx"),
        (DATA, hand_made(8, "H", DOCUMENTS, [])[1], "x.idx"),
        (DATA, INDEX[:34] + b"\x02\0\0\0\x02" + INDEX[39:], "x.idx"),
        (DATA, INDEX[:46] + b"\x02" + INDEX[47:], "x.idx"),
        (DATA, INDEX[:54] + b"\x08" + INDEX[55:], "x.idx"),
    ],
)
def test_damage_names_file_rule_and_remedy(tmp_path: Path, data: bytes, index: bytes, file: str) -> None:
    place(tmp_path / "x", data, index)
    with pytest.raises(DataError) as caught:
        TokenStream.open(tmp_path / "x", key="data.sources[a].paths")
    (problem,) = caught.value.problems
    assert problem.key == "data.sources[a].paths"
    assert file in str(problem.value)
    assert problem.rule
    assert problem.remedy


def test_a_multimodal_index_is_refused_for_what_it_is(tmp_path: Path) -> None:
    place(tmp_path / "x", DATA, INDEX + b"\0\1\0")
    with pytest.raises(DataError, match="multimodal index: it ends with a mode for each of its 3 sequences"):
        TokenStream.open(tmp_path / "x")


@pytest.mark.parametrize("table", ["lengths", "pointers", "documents"])
def test_damage_anywhere_near_a_drawn_place_is_found(tmp_path: Path, table: str) -> None:
    """Of 300 sequences both ends are looked at, 128 each, and 16 runs of 128 at places that the counts draw."""
    documents = [[1] * (1 + i % 3) for i in range(300)]
    data, index = hand_made(8, "H", documents, list(range(301)))
    at = 34 + {"lengths": 0, "pointers": 4 * 300, "documents": 12 * 300}[table]
    width = 4 if table == "lengths" else 8
    for number in (0, 1, 149, 298, 299):
        damaged = bytearray(index)
        damaged[at + width * number] ^= 64
        place(tmp_path / "x", data, bytes(damaged))
        with pytest.raises(DataError, match=r"x\.(idx|bin)"):
            TokenStream.open(tmp_path / "x")


def test_missing_file(tmp_path: Path) -> None:
    (tmp_path / "x.idx").write_bytes(INDEX)
    with pytest.raises(DataError, match=r"x\.bin"):
        TokenStream.open(tmp_path / "x")


MEGATRONS = {
    60_000: {".bin": "64a8d0d0f2dfcc044178ff82b18c017c", ".idx": "5208dad9dcc716ad60fb608556da4b54"},
    70_000: {".bin": "579bc54afd308cc840fe33d3b667cd47", ".idx": "9d85418d146f36eefcdabd2b48383a48"},
}
"""By vocabulary, BLAKE2b-128 of the files that megatron-core 0.19.2's IndexedDatasetBuilder (uint16, then int32) wrote
of the documents below, one add_document each."""


@pytest.mark.parametrize("vocab", MEGATRONS)
def test_the_bytes_that_megatron_core_wrote(tmp_path: Path, vocab: int) -> None:
    documents = ((np.arange(1 + i % 50) * 7919 + i * 104729) % 60_000 for i in range(100_000))
    with IndexedWriter(tmp_path / "ours", vocab) as writer:
        for document in documents:
            writer.append(document)
    for suffix, digest in MEGATRONS[vocab].items():
        content = (tmp_path / f"ours{suffix}").read_bytes()
        assert hashlib.blake2b(content, digest_size=16).hexdigest() == digest


def test_like_megatron_cores_own_files(tmp_path: Path) -> None:
    """Where megatron-core is at hand; it is no dependency."""
    built = pytest.importorskip("megatron.core.datasets.indexed_dataset", reason="megatron-core is not installed")
    documents = [np.random.default_rng(i).integers(0, 60_000, 1 + i % 50) for i in range(2_000)]
    builder = built.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.uint16)
    with IndexedWriter(tmp_path / "ours", 60_000) as writer:
        for document in documents:
            builder.add_document(torch.from_numpy(document), [len(document)])
            writer.append(document)
    builder.finalize(str(tmp_path / "theirs.idx"))
    for suffix in (".bin", ".idx"):
        assert (tmp_path / f"ours{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()
    tokens = TokenStream.open(tmp_path / "theirs")
    assert [tokens.document(i).tolist() for i in range(2_000)] == [document.tolist() for document in documents]
