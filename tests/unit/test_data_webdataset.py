"""Tar files of samples: the texts that the datasets library reads from them too."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import datasets
import pytest

from trainer.config.groups.data import SourceConfig
from trainer.data.documents import documents
from trainer.data.readers.found import LIMIT
from trainer.data.skipped import Policy
from trainer.errors import DataError

Members = list[tuple[str, bytes]]
PLAIN: Members = [
    ("a/0001.txt", b"the first"),
    ("a/0001.json", b'{"text": "of its json"}'),
    ("a/0002.txt", "der zweite: \u00fc".encode()),
    ("a/0002.json", b'{"text": "again"}'),
    ("b/0001.txt", b"another directory, another sample"),
    ("b/0001.json", b"{}"),
]


def write(file: Path, members: Members, mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


def read(file: Path, **fields: str) -> tuple[list[str], dict[str, int]]:
    policy = Policy()
    texts = list(documents(SourceConfig(paths=[str(file)], **fields), policy))
    return texts, {words: count.number for words, count in policy.skipped.bad.items()}


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar.xz", "w:xz")]
)
def test_what_the_datasets_library_reads(tmp_path: Path, name: str, mode: str) -> None:
    file = write(tmp_path / name, PLAIN, mode)
    plain = write(tmp_path / "plain.tar", PLAIN)
    theirs = datasets.load_dataset("webdataset", data_files=str(plain), split="train", streaming=True)
    assert read(file)[0] == [row["txt"] for row in theirs]
    assert len(read(file)[0]) == 3


def test_the_field_of_an_object_and_a_member_of_its_name(tmp_path: Path) -> None:
    only = [(name, content) for name, content in PLAIN if name.endswith("json")]
    file = write(tmp_path / "a.tar", only)
    assert read(file) == (["of its json", "again"], {"without the text field": 1})
    file = write(tmp_path / "b.tar", [("1.caption", b"by name"), ("1.txt", b"by ending")])
    assert read(file, text_field="caption") == (["by name"], {})
    assert read(file) == (["by ending"], {})


def test_what_cannot_be_used_is_counted_with_its_place(tmp_path: Path) -> None:
    members = [
        ("1.txt", b"\xff"),
        ("2.txt", b""),
        ("3.json", b"{"),
        ("4.json", b"[]"),
        ("5.json", b'{"text": 3}'),
        ("6.txt", b"x\0y"),
        ("7.txt", bytes(LIMIT + 1)),
        ("8.png", b"no text"),
        ("9.txt", b"good"),
    ]
    policy = Policy()
    source = SourceConfig(paths=[str(write(tmp_path / "a.tar", members))])
    assert list(documents(source, policy)) == ["good"]
    assert sorted(count.places[0] for count in policy.skipped.bad.values()) == [f"a.tar, sample {n}" for n in range(8)]


def test_members_that_are_no_files_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as archive:
        link = tarfile.TarInfo("0.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo(".hidden"))
        entry = tarfile.TarInfo("1.txt")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"text"))
    assert read(file) == (["text"], {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no tar at all" * 100, "cannot be read"),
        (gzip.compress(b"x" * 2000, mtime=0), "cannot be read"),
    ],
    ids=["text", "gzip"],
)
def test_what_is_no_tar_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        read(tmp_path / "a.tar")
    assert str(tmp_path / "a.tar") in str(caught.value.problems[0].value)


def test_a_tar_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tar", [("1.txt", b"x" * 5000)])
    file.write_bytes(file.read_bytes()[:3000])
    with pytest.raises(DataError, match="cannot be read"):
        read(file)


def test_a_tar_without_texts_names_what_it_has(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tar", [("1.png", b"x"), ("1.json", json.dumps({"label": 1}).encode())])
    with pytest.raises(DataError, match="png, json") as caught:
        read(file)
    assert caught.value.problems[0].key.endswith("text_field")
