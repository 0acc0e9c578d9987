"""Sources that were prepared: opened as the manifest says, refused where the files say otherwise."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest

from tests.s3 import Server
from tests.unit.test_data_support import byte_tokenizer
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.corpus import Corpus, prepare_corpus
from trainer.data.growth import appended
from trainer.data.preparing.preparation import Options, prepare
from trainer.data.remote import reading
from trainer.data.tokenizing import is_heldout
from trainer.errors import DataError

TEXTS = [text for text in topics.values() if len(text) < 4000]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources of JSON lines, prepared in shards of 20,000 tokens."""
    root = tmp_path_factory.mktemp("prepared")
    for name, texts in (("first", TEXTS), ("second", TEXTS[:20])):
        (root / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    tokenizer = byte_tokenizer()
    (root / "tokenizer.json").write_text(tokenizer.inner.to_str())
    config = DataConfig(
        sources=[SourceConfig(name=name, paths=[str(root / f"{name}.jsonl")]) for name in ("first", "second")],
        tokenizer=TokenizerConfig(kind="file", path=str(root / "tokenizer.json"), eod=tokenizer.eod_token),
        heldout_fraction=0.1,
        cache_dir=str(root / "cache"),
    )
    prepare(config, Options(root / "out", 1, 20_000), lambda line: None)
    return root / "out"


def config_of(made: Path, *names: str, **changes: object) -> DataConfig:
    source = SourceConfig(name="s", kind="prepared", paths=[str(made / name) for name in names])
    return replace(
        DataConfig(
            sources=[source],
            tokenizer=TokenizerConfig(kind="file", path=str(made / "tokenizer")),
            seq_len=64,
            heldout_fraction=0.1,
            cache_dir=str(made / "cache"),
        ),
        **changes,  # type: ignore[arg-type]
    )


def opened(made: Path, *names: str, **changes: object) -> tuple[Corpus, list[str]]:
    said: list[str] = []
    return prepare_corpus(config_of(made, *names, **changes), 300, said.append), said


def bytes_of(corpus: Corpus, heldout: bool) -> list[bytes]:
    stream = corpus.heldout if heldout else corpus.train[0]
    documents = (stream.document(index) for index in range(stream.documents))
    return [b"".join(corpus.tokenizer.token_bytes[token] for token in ids) for ids in documents]


def test_documents_are_those_of_the_text(made: Path) -> None:
    corpus, said = opened(made, "first")
    expected = [text.encode() for text in TEXTS]
    assert bytes_of(corpus, heldout=False) == [text for text in expected if not is_heldout(text, 0.1)]
    assert bytes_of(corpus, heldout=True) == [text for text in expected if is_heldout(text, 0.1)]
    assert corpus.train_part.bytes + corpus.heldout_part.bytes == sum(map(len, expected))
    assert not corpus.estimated
    assert corpus.zlib_bits_per_byte is not None
    shards = len(list((made / "first").glob("*.bin")))
    assert shards > 3
    assert any(f"{shards} shards" in line for line in said)
    assert len(corpus.shards) == shards + 1


def test_no_held_out_text_where_none_is_wanted(made: Path) -> None:
    with_it, _ = opened(made, "first")
    corpus, _ = opened(made, "first", heldout_fraction=0.0)
    assert corpus.heldout.total == corpus.heldout_part.documents == 0
    assert corpus.train[0].total == with_it.train[0].total, "and what is held out does not come back"


def test_more_directories_are_appended_text(made: Path, tmp_path: Path) -> None:
    one, _ = opened(made, "first")
    two, _ = opened(made, "first", "second")
    assert two.train[0].total > one.train[0].total
    assert np.array_equal(two.train[0].slice(0, one.train[0].total), one.train[0].slice(0, one.train[0].total))
    cache = str(tmp_path)
    assert appended(two, one.fingerprints, cache) == [True]
    assert appended(one, one.fingerprints, cache) == [True]
    assert appended(one, two.fingerprints, cache) == [False]
    other, _ = opened(made, "second", "first")
    assert appended(other, one.fingerprints, cache) == [False]


def test_a_moved_directory_is_the_same_source(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "moved")
    before, after = opened(made, "first")[0], opened(tmp_path / "moved", "first")[0]
    assert (before.fingerprints, before.shards) == (after.fingerprints, after.shards)


def test_a_changed_block_is_seen_by_the_ranks(made: Path, tmp_path: Path) -> None:
    """Of small files every block is looked at."""
    shutil.copytree(made, tmp_path / "moved")
    file = tmp_path / "moved" / "first" / "train-00001.bin"
    data = bytearray(file.read_bytes())
    data[len(data) // 4 * 2] ^= 1  # the low byte of a token
    file.write_bytes(data)
    before, after = opened(made, "first")[0], opened(tmp_path / "moved", "first")[0]
    differing = [name for name, mark in before.shards.items() if after.shards[name] != mark]
    assert differing == ["shard 1 (train-00001) of source s"]
    assert before.fingerprints == after.fingerprints, "the manifest is the same"


def changed(edit: Callable[[Path, dict[str, object]], None]) -> Callable[[Path], None]:
    def act(directory: Path) -> None:
        value = json.loads((directory / "manifest.json").read_text())
        edit(directory, value)
        (directory / "manifest.json").write_text(json.dumps(value))

    return act


def escape(directory: Path, value: dict[str, object]) -> None:
    value["shards"][0]["prefix"] = "../first/train-00000"  # type: ignore[index]


def shorten(directory: Path) -> None:
    file = directory / "train-00000.bin"
    file.write_bytes(file.read_bytes()[:-2])


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda directory: (directory / "manifest.json").unlink(), ["there is no manifest.json", "scripts/prepare.py"]),
        (lambda directory: (directory / "manifest.json").write_text("{"), ["no JSON"]),
        (lambda directory: (directory / "manifest.json").write_text("[]"), ["not an object"]),
        (changed(lambda _, value: value.update(format=2)), ["format is 2", "reads 1"]),
        (changed(lambda _, value: value.update(figures={})), ["figures"]),
        (changed(lambda _, value: value.update(shards=[{"prefix": 1}])), ["prefix is 1"]),
        (changed(escape), ["'../first/train-00000'"]),
        (changed(lambda _, value: value["shards"][0].update(tokens=-1)), ["tokens of train-00000 is -1"]),
        (changed(lambda _, value: value["shards"][0].update(documents=1)), ["documents, not 1"]),
        (lambda directory: (directory / "train-00001.idx").unlink(), ["train-00001.idx", "No such file"]),
        (shorten, ["train-00000.bin", "where the index says"]),
        (lambda directory: shutil.rmtree(directory), ["is a directory", "correct the path"]),
    ],
)
def test_what_is_wrong_is_named(made: Path, tmp_path: Path, break_it: Callable[[Path], None], words: list[str]) -> None:
    shutil.copytree(made, tmp_path / "moved")
    break_it(tmp_path / "moved" / "first")
    with pytest.raises(DataError) as caught:
        opened(tmp_path / "moved", "first")
    (problem,) = caught.value.problems
    assert problem.key == "data.sources.0.paths"
    for word in words:
        assert word in f"{problem.value} {problem.rule} {problem.remedy}"


@pytest.mark.parametrize("again", ["first", "second/../first", "link"])
def test_a_directory_named_twice_is_refused(made: Path, tmp_path: Path, again: str) -> None:
    shutil.copytree(made, tmp_path / "moved")
    (tmp_path / "moved" / "link").symlink_to("first")
    with pytest.raises(DataError, match=r"there twice[\s\S]*name it once"):
        opened(tmp_path / "moved", "first", "second", again)


@pytest.mark.parametrize(
    ("fraction", "key", "remedy"),
    [(0.999, "data.sources.0.paths", "prepare it again"), (0.0, "data.heldout_fraction", "set it to 0")],
)
def test_a_remedy_for_what_was_decided_when_it_was_prepared(
    made: Path, tmp_path: Path, fraction: float, key: str, remedy: str
) -> None:
    """No data.heldout_fraction of the run moves a document that is prepared."""
    source = SourceConfig(name="one", paths=[str(made.parent / "second.jsonl")])
    config = replace(config_of(made), sources=[source], heldout_fraction=fraction)
    prepare(config, Options(tmp_path, 1), lambda line: None)
    with pytest.raises(DataError, match=remedy) as caught:
        opened(tmp_path, "one", tokenizer=config.tokenizer)
    assert caught.value.problems[0].key == key


def test_another_tokenizer_is_refused(made: Path, tmp_path: Path) -> None:
    other = byte_tokenizer().inner
    other.add_special_tokens(["<|other|>"])
    (tmp_path / "tokenizer.json").write_text(other.to_str())
    config = TokenizerConfig(kind="file", path=str(tmp_path / "tokenizer.json"), eod="<|other|>")
    with pytest.raises(DataError, match="another one") as caught:
        opened(made, "first", tokenizer=config)
    assert f"data.tokenizer.path={made / 'tokenizer'}" in caught.value.problems[0].remedy


def test_the_same_tokenizer_spelt_by_another_version_is_taken(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "moved")
    manifest = tmp_path / "moved" / "first" / "manifest.json"
    value = json.loads(manifest.read_text())
    value["tokenizer"]["fingerprint"] = "0" * 32
    manifest.write_text(json.dumps(value))
    assert opened(tmp_path / "moved", "first")[0].train[0].total


def test_a_directory_in_s3_is_the_same_source(made: Path, s3: Server) -> None:
    bucket = s3.bucket()
    for file in (made / "first").iterdir():
        if file.is_file():
            s3.client().upload_file(str(file), bucket, f"corpus/first/{file.name}")
    here, _ = opened(made, "first")
    source = SourceConfig(name="s", kind="prepared", paths=[f"s3://{bucket}/corpus/first/"])
    config = replace(config_of(made, "first"), sources=[source])
    there = prepare_corpus(config, 300)
    assert (there.fingerprints, there.shards, there.figures) == (here.fingerprints, here.shards, here.figures)
    with reading(config):
        assert np.array_equal(there.train[0].slice(0, 10**6), here.train[0].slice(0, 10**6))
    s3.client().delete_object(Bucket=bucket, Key="corpus/first/manifest.json")
    with pytest.raises(DataError, match=r"there is no manifest.json"):
        prepare_corpus(config, 300)


def test_a_corpus_is_prepared_from_s3(made: Path, s3: Server, tmp_path: Path) -> None:
    """To the byte, by workers in other processes, while requests fail now and then."""
    bucket = s3.bucket()
    s3.client().upload_file(str(made.parent / "first.jsonl"), bucket, "in/first.jsonl")
    config = replace(config_of(made), sources=[SourceConfig(name="first", paths=[f"s3://{bucket}/in"])])
    with s3.failing(lambda method, path, number: "503" if number % 5 == 3 else None):
        prepare(config, Options(tmp_path / "out", 2, 20_000), lambda line: None)
    shards = sorted(file.name for file in (made / "first").glob("*-*"))
    assert shards == sorted(file.name for file in (tmp_path / "out" / "first").glob("*-*"))
    for name in shards:
        assert (made / "first" / name).read_bytes() == (tmp_path / "out" / "first" / name).read_bytes()
    listed = json.loads((tmp_path / "out" / "first" / "inputs.jsonl").read_text())
    assert (listed["path"], len(listed["etag"]) > 30) == ("first.jsonl", True)
    done = prepare(config, Options(tmp_path / "out", 2, 20_000), lambda line: None)
    assert not any(one.fresh for one in done)
    s3.client().upload_file(str(made.parent / "second.jsonl"), bucket, "in/first.jsonl")
    with pytest.raises(DataError, match="input files"):
        prepare(config, Options(tmp_path / "out", 2, 20_000), lambda line: None)
