"""Runs whose sources lie in S3: the same run as from local files, and how one ends that cannot read them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import harness
from tests.conftest import SECRET
from tests.s3 import Server
from tests.unit.test_data_support import byte_tokenizer, random_documents, write_documents

pytestmark = pytest.mark.slow


def corpus(cwd: Path, server: Server, bucket: str) -> None:
    """Text and token files, here and there."""
    byte_tokenizer().save(cwd / "tokenizer.json")
    (cwd / "text").mkdir()
    lines = [json.dumps({"text": f"line {number} of some text " * 20}) for number in range(400)]
    for half in range(2):
        (cwd / f"text/{half}.jsonl").write_text("\n".join(lines[half::2]) + "\n")
    write_documents(cwd / "m", random_documents(1, 2000, 40), 257)
    for file in (*cwd.glob("text/*.jsonl"), cwd / "m.bin", cwd / "m.idx"):
        server.client().upload_file(str(file), bucket, file.relative_to(cwd).as_posix())


def overrides(name: str, root: str, *more: str) -> list[str]:
    return [
        *harness.SMALL,
        f"data.sources=[{{name: t, paths: ['{root}text']}},{{name: m, kind: indexed, paths: ['{root}m']}}]",
        "data.tokenizer={kind: file, path: tokenizer.json}",
        f"run.name={name}",
        *more,
    ]


def losses(cwd: Path, name: str) -> list[float]:
    rows = (json.loads(line) for line in (cwd / f"runs/{name}/metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if "loss" in row]


def test_a_run_on_objects_is_the_run_on_files(tmp_path: Path, s3: Server) -> None:
    bucket = s3.bucket()
    corpus(tmp_path, s3, bucket)
    here = harness.train(tmp_path, overrides("here", "", "train.steps=6"))
    assert here.code == 0, here.output
    failing = iter(range(100))
    s3.requests.clear()
    # One request of three fails, in another way each time.
    kinds = ("503", "closed", "cut", "500")
    with s3.failing(lambda method, path, number: kinds[next(failing) % 4] if number % 3 == 2 else None):
        there = harness.train(tmp_path, overrides("there", f"s3://{bucket}/", "train.steps=6"), processes=2)
    assert there.code == 0, there.output
    assert len(s3.requests) > next(failing) >= 2
    assert losses(tmp_path, "there") == pytest.approx(losses(tmp_path, "here"), abs=1e-5)
    assert SECRET not in there.output
    assert not any(SECRET.encode() in file.read_bytes() for file in (tmp_path / "runs").rglob("*") if file.is_file())


def test_a_shard_that_is_replaced_while_a_run_reads_it_ends_the_run(tmp_path: Path, s3: Server) -> None:
    bucket = s3.bucket()
    corpus(tmp_path, s3, bucket)
    given = overrides("ends", f"s3://{bucket}/", "train.steps=6", "data.cache_gb=0.003")
    big = random_documents(2, 8_000, 1_500)
    write_documents(tmp_path / "m", big, 257)
    s3.client().upload_file(str(tmp_path / "m.bin"), bucket, "m.bin")
    s3.client().upload_file(str(tmp_path / "m.idx"), bucket, "m.idx")
    replaced = iter([True])

    def fault(method: str, path: str, number: int) -> None:
        if number == 40 and next(replaced, False):
            s3.lock.release()
            s3.client().put_object(Bucket=bucket, Key="m.bin", Body=(tmp_path / "m.bin").read_bytes()[:-2] + b"aa")
            s3.lock.acquire()

    with s3.failing(fault):
        done = harness.train(tmp_path, given)
    assert done.code == 4, done.output
    assert f"s3://{bucket}/m.bin" in done.output
    assert "was replaced while it was being read" in done.output
    assert "Traceback" not in done.output


def test_without_the_extra_its_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none/boto3.py").write_text("raise ImportError\n")
    given = [*harness.SMALL, "data.sources=[{paths: ['s3://bucket/x.txt']}]", "run.name=x"]
    path = f"{tmp_path}/none:{os.environ.get('PYTHONPATH', '')}"
    done = harness.train(tmp_path, given, more={"PYTHONPATH": path})
    assert done.code == 4, done.output
    assert "pip install -e .[s3]" in done.output
    assert "Traceback" not in done.output


@pytest.mark.long
@pytest.mark.parametrize(
    ("path", "words"), [("s3://bucket-of-nobody/x/", "no such bucket"), ("gone", "matches no object")]
)
def test_what_is_not_there_is_exit_4(tmp_path: Path, s3: Server, path: str, words: str) -> None:
    where = path if "//" in path else f"s3://{s3.bucket()}/{path}"
    done = harness.train(tmp_path, [*harness.SMALL, f"data.sources=[{{paths: ['{where}']}}]", "run.name=x"])
    assert done.code == 4, done.output
    assert words in done.output
    assert "data.sources.0.paths" in done.output
    assert "Traceback" not in done.output
