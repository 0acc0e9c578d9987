"""Runs on token files that are ready: what a start costs, and how a run ends that meets what it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import harness
from tests.first_step import measure
from tests.simulated import link_prepared, link_shards, write_simulated
from tests.unit.test_data_support import byte_tokenizer, random_documents, write_documents
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.corpus import Corpus, prepare_corpus
from trainer.data.order import SourceOrder
from trainer.data.packing import PackedSamples

pytestmark = pytest.mark.slow
LENGTH, SAMPLES, SEED = 64, 8, 1234


def overrides(cwd: Path, name: str, *more: str) -> list[str]:
    byte_tokenizer().save(cwd / "tokenizer.json")
    return [
        *harness.SMALL,
        "data.sources=[{kind: indexed, name: m, paths: [m]}]",
        "data.tokenizer={kind: file, path: tokenizer.json}",
        "checkpoint.every_steps=2",
        f"run.name={name}",
        *more,
    ]


def assert_cheap(cwd: Path, paths: list[str], processes: int, kind: str = "indexed") -> None:
    """At most 10 MB are read and 100 MB taken that a corpus of 1 MB does not, on every rank."""
    if not (cwd / "small.bin").exists():
        write_simulated(cwd / "small", 1_000)
    small = measure(cwd, [str(cwd / "small")], processes)
    for found in measure(cwd, paths, processes, kind):
        assert found["read"] - min(rank["read"] for rank in small) <= 10e6
        assert found["megabytes"] - min(rank["megabytes"] for rank in small) <= 100


def test_the_cost_of_a_start_on_two_ranks(tmp_path: Path) -> None:
    write_simulated(tmp_path / "m", 1_000_000)
    assert_cheap(tmp_path, [str(tmp_path / "m")], 2)


@pytest.mark.long
@pytest.mark.parametrize(("documents", "shards"), [(10**7, 1), (10**8, 1), (10**8, 100)])
def test_the_cost_of_a_start_whatever_the_size(tmp_path: Path, documents: int, shards: int) -> None:
    write_simulated(tmp_path / "m", documents)
    assert_cheap(tmp_path, link_shards(tmp_path / "m", shards), 2)


@pytest.mark.long
def test_the_cost_of_a_start_on_prepared_shards(tmp_path: Path) -> None:
    """Of 1e9 documents in 100 shards."""
    write_simulated(tmp_path / "m", 10**7)
    write_simulated(tmp_path / "small", 1_000)
    shards = link_prepared(tmp_path / "p", tmp_path / "m", 100, tmp_path / "small", byte_tokenizer())
    assert_cheap(tmp_path, [shards], 2, "prepared")


def token_of(corpus: Corpus, step: int, sample: int) -> int:
    """Where, in the one shard, the first token of a sample of a step lies."""
    stream = corpus.train[0]
    order = SourceOrder("m", SEED, [(0, len(PackedSamples(stream, LENGTH, True)))])
    offset = order(SAMPLES * step + sample) * LENGTH
    for span in stream.spans:
        if offset < span.stop - span.start:
            return span.start + offset
        offset -= span.stop - span.start
    raise AssertionError("no such token")


def test_an_id_that_only_one_rank_meets_ends_all(tmp_path: Path) -> None:
    write_simulated(tmp_path / "m", 20_000)
    given = overrides(tmp_path, "bad", "train.steps=6", "data.prefetch=0")
    config = DataConfig(
        sources=[SourceConfig(kind="indexed", name="m", paths=[str(tmp_path / "m")])],
        tokenizer=TokenizerConfig(kind="file", path=str(tmp_path)),
        seq_len=LENGTH,
        heldout_fraction=0.1,
    )
    place = token_of(prepare_corpus(config, 512), step=3, sample=SAMPLES - 1)  # the second half is rank 1's
    with (tmp_path / "m.bin").open("r+b") as data:
        data.seek(2 * place)
        data.write((300).to_bytes(2, "little"))
    done = harness.train(tmp_path, given, processes=2)
    print(done.output)
    assert 'Traceback (most recent call last):\n  File "/' not in done.output.split("torch/distributed")[0]
    assert done.output.count("rule:") == 1
    assert "rank 1: the data cannot be used: 1 problem (exit 4)" in done.output
    assert f"first at token {place}" in done.output
    assert "stopping with rank 1 (exit 4)" in done.output
    left = json.loads((tmp_path / "runs/bad/exit.json").read_text())
    assert (left["code"], left["rank"]) == (4, 1)
    assert harness.last_step(tmp_path / "runs/bad/metrics.jsonl") == 3
    assert (tmp_path / "runs/bad/checkpoints/step-00000003").is_dir()  # what was trained is saved


def test_a_resume_on_other_files_is_refused(tmp_path: Path) -> None:
    write_documents(tmp_path / "m", random_documents(1, 300, 40), 257)
    given = overrides(tmp_path, "other", "train.steps=8")
    assert harness.train(tmp_path, [*given, "train.stop_after_steps=2"]).code == 0
    with (tmp_path / "m.bin").open("r+b") as data:
        data.seek(2000)
        data.write(b"\x01\x00\x02\x00")
    refused = harness.train(tmp_path, given)
    assert refused.code == 3, refused.output
    assert "trained on other content of: source m" in refused.output
    assert not list(tmp_path.glob(".cache/data/tokens-*"))
