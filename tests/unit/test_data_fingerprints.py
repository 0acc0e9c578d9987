"""What is cached of a source stays valid: fingerprints and documents are those of the readers before these."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sysconfig
from pathlib import Path

import pytest

from tests.unit.test_data_readers import texts_of
from trainer.config.groups.data import SourceConfig
from trainer.data.documents import documents, fingerprint, size_in_bytes


def test_what_is_read_otherwise_has_another_fingerprint(tmp_path: Path) -> None:
    """Caches of files that were taken for plain text once, or kept their byte-order mark, are not used again."""
    prints = set()
    for name in ("x.txt", "x.ndjson", "x.csv"):
        (tmp_path / name).write_text("text\n", encoding="utf-8")
        prints.add(fingerprint(SourceConfig(paths=[str(tmp_path / name)], text_field="a")))
        (tmp_path / name).rename(tmp_path / "other")
    assert len(prints) == 3
    file = SourceConfig(paths=[str(tmp_path / "other")])
    before = fingerprint(file)
    assert before != fingerprint(SourceConfig(paths=file.paths, format="jsonl"))
    assert before == fingerprint(SourceConfig(paths=file.paths, format="text"))
    assert size_in_bytes(file) == 5


GOLD = {
    "a.txt": b"one\r\ntwo\rthree\n\n\nfour  \n\n  five",
    "deep/b.md": "caf\u00e9 \u4f60\u597d\n\nsecond\u2028still\x0csecond\n".encode(),
    "deep/er/c": b"no suffix\n",
    "d.py": b"def f():\n    pass\n\n\n\nx = 1\n",
    "x.jsonl": b'{"text": "x one", "id": 1}\n\n{"id": 2, "text": "x two\\n"}\n{"text": "", "id": 3}\n'
    b'{"text": null, "id": 4}\n',
    "y.json": json.dumps([{"text": "y one"}, {"text": "y two"}]).encode(),
    "z.jsonl.gz": base64.b64decode("H4sIAAAAAAACA6tWKkmtKFGyUlCqUsjPS1Wq5apGEikpzweKAABTe0a1JAAAAA=="),
    "p.parquet": base64.b64decode(
        "UEFSMRUAFSwVLCwVBBUAFQYVBhwAAAACAAAABAEBAAAAAAAAAAIAAAAAAAAAFQAVQhVCLBUEFQAVBhUGHAAAAAIAAAAEAQYAAABwIG9uZQoNAAAAcCB0d28g5L2g8J+YgBUEGTw1ABgGc2NoZW1hFQQAFQQlAhgCaWQAFQwlAhgEdGV4dCUATBwAAAAWBBkcGSwmABwVBBklBgAZGAJpZBUAFgQWUhZSJghJHBUAFQAVAgA8KQYZJgAEAAAAJgAcFQwZJQYAGRgEdGV4dBUAFgQWaBZoJlpJHBUAFQAVAgA8FiYZBhkmAAQAAAAWugEWBCYIFroBACggcGFycXVldC1jcHAtYXJyb3cgdmVyc2lvbiAyNi4wLjEZLBwAABwAAADBAAAAUEFSMQ=="
    ),
}
"""Files, Parquet and gzip to the byte, whose fingerprints and documents are those of the readers before these."""
ROWS_OF_GOLD = ["x one", "x two\n", "y one", "y two", "z one", "z two", "p one\n", "p two \u4f60\U0001f600"]
OF_UNIT = {
    "file": (
        "dde9bb85228164b09282ad5222610910",
        ["one\ntwo\nthree\n\n\nfour  \n\n  five", "def f():\n    pass\n\n\n\nx = 1\n",
         "caf\u00e9 \u4f60\u597d\n\nsecond\u2028still\x0csecond\n", "no suffix\n"],
    ),
    "paragraph": (
        "2551bee310beb08d395e251446fb8443",
        ["one\ntwo\nthree", "\nfour  ", "  five", "def f():\n    pass", "x = 1\n", "caf\u00e9 \u4f60\u597d",
         "second\u2028still\x0csecond\n", "no suffix\n"],
    ),
    "line": (
        "f4aa122479b5333405258054700c0503",
        ["one", "two", "three", "four  ", "  five", "def f():", "    pass", "x = 1", "caf\u00e9 \u4f60\u597d",
         "second\u2028still\x0csecond", "no suffix"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("unit", OF_UNIT)
def test_what_is_cached_stays_valid(tmp_path: Path, unit: str) -> None:
    for name, content in GOLD.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    expected, texts = OF_UNIT[unit]
    assert fingerprint(SourceConfig(paths=[str(tmp_path)], document_unit=unit)) == expected
    assert texts_of(tmp_path, document_unit=unit) == texts + ROWS_OF_GOLD
    assert fingerprint(SourceConfig(paths=[str(tmp_path / "x.jsonl")])) == "dde540f9911a22120c53696900405104"
    assert fingerprint(SourceConfig(paths=[str(tmp_path / "p.parquet")])) == "6c41bc7e6932464024d9830aa48c22ec"


def test_the_standard_library_is_what_it_was() -> None:
    """Its order and texts as an editor that forgives other encodings would read them, and its digest by hand."""
    root = Path(sysconfig.get_paths()["stdlib"])
    names = sorted(
        file.relative_to(root).as_posix()
        for file in root.rglob("*.py")
        if not {"site-packages", "dist-packages", "__pycache__"} & set(file.relative_to(root).parts)
    )
    digest = hashlib.blake2b(json.dumps(["python_stdlib", "text", "file", None, "train"]).encode(), digest_size=16)
    for name in names:
        content = (root / name).read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    source = SourceConfig(kind="python_stdlib")
    assert fingerprint(source) == digest.hexdigest()
    whole = [io.TextIOWrapper(io.BytesIO((root / name).read_bytes()), "utf-8", "replace").read() for name in names]
    assert list(documents(source)) == [text for text in whole if text]
