"""Preparing in parallel: documents against the json module and the tokenizers library, bytes against one process."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from tests.unit.test_data_tokenizer import unknowing
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.preparing import units
from trainer.data.preparing.passes import Passes
from trainer.data.preparing.preparation import Options, Prepared, prepare
from trainer.data.tokenizer import train_bpe
from trainer.data.tokenizer_files import load
from trainer.data.tokenizing import SourceFigures, tokenize_source
from trainer.errors import ConfigError, DataError

pytestmark = pytest.mark.slow
FRACTION = 0.2


def texts_of(seed: int, count: int) -> list[str]:
    rng = np.random.default_rng(seed)
    words = ["def", "return", "caf\u00e9", "\u4f60\u597d", "x", "\t", "import", "\n", "\U0001f600"]
    return [" ".join(rng.choice(words, rng.integers(2, 40))) for _ in range(count)]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataConfig:
    """Rows with some that are bad in one file that is cut, a directory of small files, and a tokenizer."""
    monkeypatch.setattr(units, "SMALLEST", 4000)
    rows = [json.dumps({"text": text}) for text in texts_of(0, 400)]
    rows[150], rows[300] = "{", '{"text": null}'
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    (tmp_path / "small").mkdir()
    for number, text in enumerate(texts_of(1, 120)):
        (tmp_path / "small" / f"{number:03}.txt").write_text(text)
    (tmp_path / "tokenizer").mkdir()
    train_bpe(iter(texts_of(2, 100)), 300).save(tmp_path / "tokenizer" / "tokenizer.json")
    return DataConfig(
        sources=[
            SourceConfig(name="rows", paths=[str(tmp_path / "rows.jsonl")]),
            SourceConfig(name="small", paths=[str(tmp_path / "small")]),
        ],
        tokenizer=TokenizerConfig(kind="file", path=str(tmp_path / "tokenizer")),
        heldout_fraction=FRACTION,
    )


def run(config: DataConfig, output: Path, processes: int = 2, shard_tokens: int = 2000) -> list[Prepared]:
    return prepare(config, Options(output, processes, shard_tokens), lambda line: None)


def files_of(output: Path) -> dict[str, bytes]:
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def documents_of(directory: Path, prefix: str) -> list[list[int]]:
    """The documents of a pair, by the layout that megatron-core describes."""
    index = (directory / f"{prefix}.idx").read_bytes()
    magic, version, code, sequences, entries = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version, entries) == (b"MMIDIDX\0\0", 1, sequences + 1)
    tokens = np.fromfile(directory / f"{prefix}.bin", {8: "<u2", 4: "<i4"}[code])
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    assert np.frombuffer(index, "<i8", entries, 34 + 12 * sequences).tolist() == list(range(entries))
    starts = pointers // tokens.itemsize
    return [tokens[start : start + length].tolist() for start, length in zip(starts, lengths, strict=True)]


def expected(texts: list[str], tokenizer: Path, fraction: float = FRACTION) -> dict[str, list[list[int]]]:
    inner = tokenizers.Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    parts: dict[str, list[list[int]]] = {"train": [], "heldout": []}
    for text in texts:
        place = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        part = "heldout" if place < fraction * 2**64 else "train"
        parts[part].append([*inner.encode(text, add_special_tokens=False).ids, inner.token_to_id("<|endoftext|>")])
    return parts


def test_shards_hold_the_documents_in_order(config: DataConfig, tmp_path: Path) -> None:
    done = run(config, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().split("\n") if line != "{"]
    texts = {
        "rows": [row["text"] for row in rows if row["text"]],
        "small": [path.read_text() for path in sorted((tmp_path / "small").iterdir())],
    }
    for one in done:
        directory = tmp_path / "out" / one.name
        manifest = json.loads((directory / "manifest.json").read_text())
        assert len(manifest["shards"]) >= 3
        found: dict[str, list[list[int]]] = {"train": [], "heldout": []}
        for shard in manifest["shards"]:
            documents = documents_of(directory, shard["prefix"])
            assert (len(documents), sum(map(len, documents))) == (shard["documents"], shard["tokens"])
            assert shard["tokens"] <= 2000
            pair = [(directory / f"{shard['prefix']}{suffix}").read_bytes() for suffix in (".bin", ".idx")]
            assert shard["digest"] == hashlib.blake2b(b"".join(pair), digest_size=16).hexdigest()
            assert list(map(len, pair)) == [shard["bin_bytes"], shard["idx_bytes"]]
            found[shard["part"]] += documents
        assert found == expected(texts[one.name], tmp_path / "tokenizer")
        listed = [json.loads(line) for line in (directory / "inputs.jsonl").read_text().splitlines()]
        for entry in listed:
            root = tmp_path if one.name == "rows" else tmp_path / "small"
            content = (root / entry["path"]).read_bytes()
            digest = hashlib.blake2b(content, digest_size=16).hexdigest()
            stat = (root / entry["path"]).stat()
            assert entry | {} == {
                "path": entry["path"], "size": len(content), "mtime_ns": stat.st_mtime_ns, "digest": digest
            }  # fmt: skip
        names = {path.name for path in directory.iterdir()}
        pairs = {f"{shard['prefix']}{suffix}" for shard in manifest["shards"] for suffix in (".bin", ".idx")}
        assert names == pairs | {"manifest.json", "inputs.jsonl", "skipped.jsonl"}
    skipped = [json.loads(line) for line in (tmp_path / "out" / "rows" / "skipped.jsonl").read_text().splitlines()]
    assert skipped == [
        {"reason": "broken JSON", "place": "rows.jsonl, line 151"},
        {"reason": "null where text should be", "place": "rows.jsonl, line 301"},
    ]


def test_the_number_of_processes_changes_no_byte_and_figures_are_those_of_a_run(
    config: DataConfig, tmp_path: Path
) -> None:
    run(config, tmp_path / "one", processes=1)
    done = run(config, tmp_path / "three", processes=3)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "three")
    (tmp_path / "direct").mkdir()
    tokenizer, _ = load(config.tokenizer, tmp_path)
    tokenize_source(config.sources[0], tokenizer, FRACTION, None, "skip", tmp_path / "direct")
    assert done[0].manifest["figures"] == asdict(SourceFigures.read(tmp_path / "direct"))


def test_again_does_nothing_and_otherwise_is_refused(config: DataConfig, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(config, output)
    before = files_of(output)
    assert not any(one.fresh for one in run(config, output))
    assert files_of(output) == before
    with pytest.raises(DataError, match=r"heldout_fraction 0.2 there, 0.1 now[\s\S]*another --output"):
        run(replace(config, heldout_fraction=0.1), output)
    other = replace(config.sources[0], text_field="body")
    with pytest.raises(DataError, match=r'"text", .* there, .*"body", .* now'):
        run(replace(config, sources=[other]), output)
    (tmp_path / "small" / "007.txt").write_text("changed")
    with pytest.raises(DataError, match=r"007.txt of .* bytes there, 007.txt of 7 bytes now"):
        run(config, output)


def test_units_that_are_there_are_kept_and_those_of_other_inputs_are_not(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    run(config, tmp_path / "whole")

    def stop(*arguments: object) -> None:
        raise DataError([])

    with monkeypatch.context() as patch:
        patch.setattr(Passes, "shards", stop)
        with pytest.raises(DataError):
            run(config, output)
    unit = output / "rows" / ".work" / "unit-000001" / "train.bin"
    kept = unit.stat().st_ino
    (tmp_path / "small" / "007.txt").touch()
    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(Passes, "shards", stop)
        with pytest.raises(DataError):
            prepare(config, Options(output, 2, 2000), told.append)
    assert unit.stat().st_ino == kept
    counts = [sum(1 for _ in (output / name / ".work").glob("unit-*")) for name in ("rows", "small")]
    assert any(f"{sum(counts) - 1} of {sum(counts)} units are there" in line for line in told)
    run(config, output)
    again, whole = files_of(output), files_of(tmp_path / "whole")
    assert {k: v for k, v in again.items() if ".bin" in k} == {k: v for k, v in whole.items() if ".bin" in k}


def test_a_second_preparation_is_refused(config: DataConfig, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    descriptor = os.open(output, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another one is at it"):
            run(config, output)
    finally:
        os.close(descriptor)


def test_a_learnt_tokenizer_is_learnt_once(config: DataConfig, tmp_path: Path) -> None:
    learnt = replace(config, tokenizer=TokenizerConfig(vocab=280))
    output = tmp_path / "out"
    (done, _) = run(learnt, output)
    config_json = json.loads((output / "tokenizer" / "tokenizer_config.json").read_text())
    assert config_json["eos_token"] == "<|endoftext|>"
    found, _ = load(TokenizerConfig(kind="file", path=str(output / "tokenizer")), tmp_path)
    assert done.manifest["tokenizer"]["fingerprint"] == found.fingerprint
    assert not any(one.fresh for one in run(learnt, output))
    with pytest.raises(DataError, match=r"data.tokenizer.kind[\s\S]*another --output"):
        run(replace(learnt, tokenizer=TokenizerConfig(vocab=290)), output)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bad_documents": "stop"}, r"rows.jsonl, line (151|301)[\s\S]*data.bad_documents"),
        ({"sources": [SourceConfig(name="tokenizer", kind="python_stdlib")]}, "another name"),
        ({"sources": [SourceConfig(name="x", kind="indexed", paths=["y"])]}, "tokens already"),
    ],
)
def test_refusals(config: DataConfig, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(replace(config, **change), tmp_path / "out")


def test_a_callable_that_is_none_is_a_mistake_of_the_configuration(config: DataConfig, tmp_path: Path) -> None:
    source = SourceConfig(name="x", kind="plugin", _target_="json.nothing")
    with pytest.raises(ConfigError, match=r"data.sources.0._target_|data.sources\[x\]._target_"):
        run(replace(config, sources=[source]), tmp_path / "out")


def test_a_tokenizer_that_does_not_know_the_text_is_refused_as_by_a_run(config: DataConfig, tmp_path: Path) -> None:
    unknowing("WordLevel").save(str(tmp_path / "words.json"))
    words = TokenizerConfig(kind="file", path=str(tmp_path / "words.json"), eod="</s>")
    config = replace(config, tokenizer=words)
    with pytest.raises(DataError, match=r"at most 1\.00% of the tokens are unknown; of source rows \d\d\.") as caught:
        run(config, tmp_path / "out")
    assert caught.value.problems[0].key == "data.tokenizer.path"
    assert not list((tmp_path / "out").glob("*/manifest.json"))
    allowed = replace(config, tokenizer=replace(words, max_unknown=1.0))
    assert [one.fresh for one in run(allowed, tmp_path / "out")] == [True, True]


def test_a_directory_of_other_files_is_left_alone(config: DataConfig, tmp_path: Path) -> None:
    other = tmp_path / "out" / "rows" / "train-00000.bin"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    with pytest.raises(DataError, match="it holds other files"):
        run(config, tmp_path / "out")
    assert other.read_bytes() == b"mine"


def test_a_field_that_no_part_has_is_refused(config: DataConfig, tmp_path: Path) -> None:
    source = replace(config.sources[0], text_field="body")
    with pytest.raises(DataError, match=r"text_field[\s\S]*there are: text"):
        run(replace(config, sources=[source]), tmp_path / "out")


def test_sources_that_are_not_files_to_read_one_by_one(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that save_to_disk has made, and a callable of the user's."""
    import datasets

    texts = texts_of(5, 300)
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "mine.py").write_text("def texts(count):\n    return (f'text {n}' for n in range(count))\n")
    monkeypatch.syspath_prepend(tmp_path)
    sources = [
        SourceConfig(name="saved", kind="huggingface", paths=[str(tmp_path / "saved")]),
        SourceConfig(name="mine", kind="plugin", _target_="mine.texts", options={"count": 50}),
    ]
    saved, mine = run(replace(config, sources=sources), tmp_path / "out", shard_tokens=10**6)
    for one, every in ((saved, texts), (mine, [f"text {n}" for n in range(50)])):
        wanted = expected(every, tmp_path / "tokenizer")
        assert documents_of(tmp_path / "out" / one.name, "train-00000") == wanted["train"]
        assert documents_of(tmp_path / "out" / one.name, "heldout-00000") == wanted["heldout"]
    listed = (tmp_path / "out" / "saved" / "inputs.jsonl").read_text().splitlines()
    assert {json.loads(line)["path"] for line in listed} >= {"dataset_info.json", "state.json"}
    assert mine.manifest["inputs"]["files"] == 0
