"""Sources in S3: the same documents and tokens as from local files, and what is refused, by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from tests.s3 import Server
from tests.unit.test_data_in_place import config_for, random_ids, rows
from tests.unit.test_data_readers import PACK, TEXTS
from tests.unit.test_data_support import write_documents
from trainer.config.groups.data import DataConfig, SourceConfig
from trainer.data.corpus import prepare_corpus
from trainer.data.documents import documents, fingerprint
from trainer.data.remote import reading
from trainer.data.skipped import Policy
from trainer.errors import DataError, Problem

TABLE = pyarrow.table({"id": range(len(TEXTS)), "text": TEXTS})
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def parquet() -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(TABLE, sink)
    return bytes(sink.getvalue().to_pybytes())


def arrow() -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, TABLE.schema) as stream:
        stream.write_table(TABLE)
    return bytes(sink.getvalue().to_pybytes())


def csv() -> bytes:
    quoted = ('"' + text.replace('"', '""') + '"' for text in TEXTS)
    return "\n".join(["text", *quoted]).encode()


FORMATS = {
    "p.parquet": parquet(), "a.arrow": arrow(), "c.csv": csv(), "l.jsonl": LINES,
    **{f"z.jsonl{suffix}": pack(LINES) for suffix, pack in PACK.items() if suffix},
}  # fmt: skip


@pytest.fixture
def bucket(s3: Server) -> str:
    return s3.bucket()


def put(s3: Server, bucket: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        s3.client().put_object(Bucket=bucket, Key=name, Body=data)


def config(tmp_path: Path, *paths: str, **fields: object) -> DataConfig:
    return DataConfig(sources=[SourceConfig(paths=list(paths), **fields)], cache_dir=str(tmp_path / "cache"))  # type: ignore[arg-type]


def texts_of(config: DataConfig) -> list[str]:
    with reading(config):
        return list(documents(config.sources[0]))


def print_of(config: DataConfig) -> str:
    with reading(config):
        return fingerprint(config.sources[0])


def problem_of(config: DataConfig) -> Problem:
    with pytest.raises(DataError) as caught:
        texts_of(config)
    (problem,) = caught.value.problems
    return problem


def test_each_format_gives_the_texts_it_was_made_of(s3: Server, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, FORMATS)
    for name in FORMATS:
        found = texts_of(config(tmp_path, f"s3://{bucket}/{name}"))
        assert found == TEXTS, name
    assert len(list((tmp_path / "cache/objects").iterdir())) == len(FORMATS) + 1  # the counter


def test_paths_mean_what_they_mean_for_files(s3: Server, bucket: str, tmp_path: Path) -> None:
    names = ["d/b.txt", "d/a/x.txt", "d/a-b.txt", "d/.hidden/y.txt", "d/__pycache__/z.txt", "da/c.txt", "d.txt"]
    put(s3, bucket, {name: f"text of {name}".encode() for name in names} | {"d/": b""})
    for name in names:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text(f"text of {name}")
    for path in ("d", "d/", "d/*.txt", "d*", "**/*.txt", "d.txt", "d/**"):
        local = texts_of(config(tmp_path, f"{tmp_path}/here/{path}"))
        assert texts_of(config(tmp_path, f"s3://{bucket}/{path}")) == local, path
    both = config(tmp_path, f"s3://{bucket}/d.txt", f"s3://{bucket}/*.txt")
    assert texts_of(both) == ["text of d.txt"]


def test_a_fingerprint_reads_no_bytes_and_sees_every_change(s3: Server, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, {"one/a.txt": b"a" * 50, "one/b.txt": b"b", "two/a.txt": b"a" * 50, "two/b.txt": b"b"})
    one, two = (config(tmp_path, f"s3://{bucket}/{name}") for name in ("one", "two"))
    s3.requests.clear()
    before = print_of(one)
    assert [method for method, *_ in s3.requests] == ["HEAD", "GET"]  # no object of this name; a listing
    assert not (tmp_path / "cache").exists()
    assert print_of(two) == before
    assert print_of(config(tmp_path, f"s3://{bucket}/one", document_unit="line")) != before
    put(s3, bucket, {"one/b.txt": b"c"})
    assert print_of(one) != before


def test_an_object_that_is_replaced_after_the_fingerprint_is_named(s3: Server, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, {"a.txt": b"one"})
    source = config(tmp_path, f"s3://{bucket}/*.txt")
    with reading(source):
        fingerprint(source.sources[0])
        put(s3, bucket, {"a.txt": b"two"})
        with pytest.raises(DataError) as caught:
            list(documents(source.sources[0]))
    (problem,) = caught.value.problems
    assert problem.value == f"s3://{bucket}/a.txt"
    assert "was replaced" in problem.rule


def test_what_is_wrong_is_said_of_the_object(s3: Server, bucket: str, tmp_path: Path) -> None:
    put(s3, bucket, {
        "b.jsonl": b'{"text": "x"}\n{"text": 7}\n', "w.weird": b"x", "p.parquet": b"PAR1", "set/README.md": b"card",
        "set/train.jsonl": b'{"text": "x"}\n',
    })  # fmt: skip
    where = f"s3://{bucket}"
    with reading(config(tmp_path)), pytest.raises(DataError, match=f"{where}/b.jsonl, line 2"):
        list(documents(SourceConfig(paths=[f"{where}/b.jsonl"]), Policy("stop")))
    assert problem_of(config(tmp_path, f"{where}/w.weird")).value == f"{where}/w.weird"
    assert problem_of(config(tmp_path, f"{where}/p.parquet")).value == f"{where}/p.parquet"
    assert "data set's card" in problem_of(config(tmp_path, f"{where}/set")).rule
    assert "matches no object" in problem_of(config(tmp_path, f"{where}/none/*")).rule
    assert "no such bucket" in problem_of(config(tmp_path, "s3://b-of-nobody/x/")).rule
    assert "all in S3, or none" in problem_of(config(tmp_path, f"{where}/b.jsonl", str(tmp_path))).rule
    assert "not read from S3" in problem_of(config(tmp_path, where, kind="huggingface")).rule
    with s3.failing(lambda method, path, number: "403"):
        assert problem_of(config(tmp_path, f"{where}/b.jsonl")).key == "data.sources[corpus].paths"


def put_pair(s3: Server, bucket: str, prefix: Path) -> None:
    put(s3, bucket, {f"{prefix.name}{end}": Path(f"{prefix}{end}").read_bytes() for end in (".bin", ".idx")})


def in_s3(given: DataConfig, bucket: str, *names: str) -> DataConfig:
    """The same corpus there."""
    source = replace(given.sources[0], paths=[f"s3://{bucket}/{name}" for name in names])
    return replace(given, sources=[source])


def test_token_files_give_the_same_samples(s3: Server, bucket: str, tmp_path: Path) -> None:
    for seed, name in enumerate(("m", "n")):
        write_documents(tmp_path / name, random_ids(3000, seed))
        put_pair(s3, bucket, tmp_path / name)
    local = config_for(tmp_path, "m", "n")
    there = in_s3(local, bucket, "m", "n")
    here, remote = (prepare_corpus(one, 257, lambda line: None) for one in (local, there))
    assert rows(remote, 40) == rows(here, 40)
    assert remote.fingerprints == here.fingerprints
    assert remote.figures == here.figures
    s3.client().delete_object(Bucket=bucket, Key="n.idx")
    with pytest.raises(DataError) as caught:
        prepare_corpus(there, 257)
    (problem,) = caught.value.problems
    assert (problem.key, problem.value) == ("data.sources.0.paths", f"s3://{bucket}/n.idx")
    put_pair(s3, bucket, tmp_path / "n")
    s3.client().put_object(Bucket=bucket, Key="m.bin", Body=bytes(100))
    with pytest.raises(DataError, match=f"s3://{bucket}/m.bin"):
        prepare_corpus(there, 257)


def test_requests_are_for_blocks_and_not_for_samples(s3: Server, bucket: str, tmp_path: Path) -> None:
    """4 MB of tokens: each of the 4 blocks is asked for once, and those of the index, whatever is read of them."""
    rng = np.random.default_rng(1)
    write_documents(tmp_path / "m", [[*rng.integers(0, 256, 399).tolist(), 256] for _ in range(5000)])
    put_pair(s3, bucket, tmp_path / "m")
    there = in_s3(config_for(tmp_path, "m"), bucket, "m")
    s3.requests.clear()
    corpus = prepare_corpus(there, 257)
    rows(corpus, 250)  # 1,000 samples, in a random order
    heads, gets = ([path for method, path, _ in s3.requests if method == one] for one in ("HEAD", "GET"))
    assert len(heads) == 2
    assert len(gets) == 4 + 1
    again = prepare_corpus(there, 257)  # another run on this machine
    rows(again, 250)
    assert [method for method, *_ in s3.requests[len(heads) + len(gets) :]] == ["HEAD", "HEAD"]
