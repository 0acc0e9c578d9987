"""Token files that are ready: opened where they are, split by ranges, told apart by drawn blocks."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
import pytest

from tests.simulated import bytes_read, link_shards, write_simulated
from tests.unit.test_data_support import byte_tokenizer, write_documents
from trainer.batch import IGNORED_LABEL
from trainer.config.groups.data import DataConfig, SourceConfig, TokenizerConfig
from trainer.data.corpus import Corpus, prepare_corpus
from trainer.data.describe import describe
from trainer.data.loader import TrainLoader
from trainer.data.permutation import drawn_places
from trainer.data.ranges import RANGES, TOKENS, heldout_ranges
from trainer.data.stream import TokenStream
from trainer.errors import DataError, Problem

EOD = 256
FRACTION = 0.25
LENGTH = 16


def random_ids(count: int, seed: int = 1) -> list[list[int]]:
    """Documents without two that are the same, each ended."""
    rng = np.random.default_rng(seed)
    return [[i % 256, i // 256, *rng.integers(0, 256, rng.integers(0, 40)).tolist(), EOD] for i in range(count)]


def config_for(root: Path, *prefixes: str) -> DataConfig:
    byte_tokenizer().save(root / "tokenizer.json")
    return DataConfig(
        sources=[SourceConfig(kind="indexed", name="m", paths=[str(root / prefix) for prefix in prefixes])],
        tokenizer=TokenizerConfig(kind="file", path=str(root)),
        seq_len=LENGTH,
        heldout_fraction=FRACTION,
        cache_dir=str(root / "cache"),
    )


def documents_of(tokens: TokenStream) -> list[list[int]]:
    return [tokens.document(i).tolist() for i in range(tokens.documents)]


def rows(corpus: Corpus, steps: int) -> list[list[int]]:
    """The tokens and labels of the first samples that a run with this corpus trains on."""
    loader = TrainLoader(corpus, LENGTH, True, 7, 4, 4, 0, 1, None, 0)
    batches = [next(loader).microbatches[0] for _ in range(steps)]
    return [[*row.tolist(), *labels.tolist()] for batch in batches for row, labels in zip(*batch[:2], strict=True)]


def problem_of(config: DataConfig) -> Problem:
    with pytest.raises(DataError) as caught:
        prepare_corpus(config, 257)
    (problem,) = caught.value.problems
    assert problem.rule
    assert problem.remedy
    return problem


def test_every_document_is_on_one_side_and_nothing_is_copied(tmp_path: Path) -> None:
    ids = random_ids(200)
    write_documents(tmp_path / "m", ids)
    said: list[str] = []
    corpus = prepare_corpus(config_for(tmp_path, "m"), 257, said.append)
    train, held = documents_of(corpus.train[0]), documents_of(corpus.heldout)
    assert Counter(map(tuple, train + held)) == Counter(map(tuple, ids))
    assert len(held) == FRACTION * 200
    sides = [document in held for document in ids]
    runs = sum(1 for is_held, _ in groupby(sides) if is_held)
    assert 1 < runs <= RANGES
    assert [document for document, is_held in zip(ids, sides, strict=True) if not is_held] == train
    assert not (tmp_path / "cache").exists()
    assert corpus.heldout_part.bytes == sum(len(document) - 1 for document in held)  # an id is a byte, the end is none
    assert corpus.train_part.tokens == sum(map(len, train))
    assert corpus.train_part.bytes == pytest.approx(sum(len(document) - 1 for document in train), rel=0.02)
    ends, line = said
    assert ends == "  documents end with <|endoftext|> (id 256), the usual name among its special tokens"
    assert f"held-out of m: 50 documents in {runs} ranges" in line
    assert "duplicates" in line
    assert "MB (estimated)" in describe(corpus)[0]
    assert "estimated" not in describe(corpus)[1]
    assert corpus.xz_bits_per_byte


def test_the_first_samples_are_numpys_slices(tmp_path: Path) -> None:
    ids = random_ids(300)
    write_documents(tmp_path / "m", ids)
    corpus = prepare_corpus(config_for(tmp_path, "m"), 257)
    held = {tuple(document) for document in documents_of(corpus.heldout)}
    kept = [document for document in ids if tuple(document) not in held]
    flat = np.concatenate([np.array(document) for document in kept])
    first_of = np.isin(np.arange(len(flat) + 1), np.cumsum([len(document) for document in kept]))
    expected = {}
    for start in range(0, len(flat) - LENGTH, LENGTH):
        labels = np.where(first_of[start + 1 : start + LENGTH + 1], IGNORED_LABEL, flat[start + 1 : start + LENGTH + 1])
        expected[(*flat[start : start + LENGTH].tolist(), *labels.tolist())] = start
    found = rows(corpus, 20)
    assert all(tuple(row) in expected for row in found)
    assert len({expected[tuple(row)] for row in found}) == len(found)


def test_shards_are_one_stream(tmp_path: Path) -> None:
    ids = random_ids(240)
    write_documents(tmp_path / "one", ids)
    for name, part in (("a", ids[:7]), ("b", ids[7:150]), ("c", ids[150:])):
        write_documents(tmp_path / name, part)
    whole = prepare_corpus(config_for(tmp_path, "one"), 257)
    cut = prepare_corpus(config_for(tmp_path, "a", "b", "c"), 257)
    assert rows(cut, 15) == rows(whole, 15)
    assert documents_of(cut.heldout) == documents_of(whole.heldout)
    assert list(cut.shards) == [f"shard {n} of source m" for n in range(3)]


def test_a_rank_that_says_nothing_has_the_same_corpus(tmp_path: Path) -> None:
    write_documents(tmp_path / "m", random_ids(100))
    loud = prepare_corpus(config_for(tmp_path, "m"), 257, lambda line: None)
    quiet = prepare_corpus(config_for(tmp_path, "m"), 257)
    assert (loud.fingerprints, loud.shards) == (quiet.fingerprints, quiet.shards)
    assert rows(loud, 5) == rows(quiet, 5)


def test_beside_a_source_of_text(tmp_path: Path) -> None:
    write_documents(tmp_path / "m", random_ids(100))
    (tmp_path / "text.txt").write_text("\n\n".join(f"paragraph {i} of it" for i in range(100)))
    config = config_for(tmp_path, "m")
    text = SourceConfig(name="t", paths=[str(tmp_path / "text.txt")], document_unit="paragraph")
    corpus = prepare_corpus(replace(config, sources=[text, config.sources[0]]), 257)
    assert corpus.heldout_part.documents == corpus.heldout.documents == len(documents_of(corpus.heldout))
    assert corpus.heldout.total == corpus.heldout_part.tokens
    assert set(corpus.fingerprints) == {"tokenizer", "source t", "source m"}


def test_fingerprints_follow_the_content_and_not_the_place(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_documents(tmp_path / name, random_ids(100, seed=ord(name)))
    before = prepare_corpus(config_for(tmp_path, "a", "b"), 257)
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in (*tmp_path.glob("*.bin"), *tmp_path.glob("*.idx")):
        shutil.copy(file, moved)
    after = prepare_corpus(config_for(moved, "a", "b"), 257)
    assert (after.fingerprints, after.shards) == (before.fingerprints, before.shards)
    with (moved / "b.bin").open("r+b") as data:
        data.seek(100)
        data.write(b"\x09\x00")
    other = prepare_corpus(config_for(moved, "a", "b"), 257)
    assert other.shards["shard 0 of source m"] == before.shards["shard 0 of source m"]
    assert other.shards["shard 1 of source m"] != before.shards["shard 1 of source m"]
    assert other.fingerprints["source m"] != before.fingerprints["source m"]
    fewer = prepare_corpus(replace(config_for(tmp_path, "a", "b"), heldout_documents=3), 257)
    assert fewer.shards == before.shards
    assert fewer.fingerprints != before.fingerprints


def test_ids_of_another_tokenizer(tmp_path: Path) -> None:
    write_documents(tmp_path / "m", [*random_ids(20), [1, 299, 2], *random_ids(20)])
    problem = problem_of(config_for(tmp_path, "m"))
    assert (problem.key, problem.value) == ("data.sources.0.paths", str(tmp_path / "m.bin"))
    assert "document 20 has ids 0 .. 299" in problem.rule
    assert "the tokenizer has 257 (source m)" in problem.rule


def test_an_id_that_opening_did_not_see_ends_training(tmp_path: Path) -> None:
    write_documents(tmp_path / "m", random_ids(100))
    corpus = prepare_corpus(config_for(tmp_path, "m"), 257)
    with (tmp_path / "m.bin").open("r+b") as data:
        data.write(b"\xff\xff" * corpus.train[0].total)
    loader = TrainLoader(corpus, LENGTH, True, 7, 4, 4, 0, 1, None, 2)
    with pytest.raises(DataError) as caught:
        next(loader)
    loader.close()
    (problem,) = caught.value.problems
    assert problem.key == "data.sources.0.paths"
    assert problem.value == str(tmp_path / "m.bin")
    assert "65535" in problem.rule


@pytest.mark.parametrize(("ended", "words"), [(0, "none of 40 drawn documents ends"), (10, "10 of 40"), (40, "")])
def test_ends_of_documents(tmp_path: Path, ended: int, words: str) -> None:
    ids = random_ids(40)
    write_documents(tmp_path / "m", [document if i < ended else document[:-1] for i, document in enumerate(ids)])
    said: list[str] = []
    corpus = prepare_corpus(config_for(tmp_path, "m"), 257, said.append)
    warnings = [line for line in said if "warning" in line]
    assert len(warnings) == bool(words)
    assert all(words in line and "<|endoftext|> (id 256)" in line for line in warnings)
    assert corpus.train[0].total + corpus.heldout.total == sum(map(len, ids)) - 40 + ended  # nothing is added


def test_what_is_held_out_is_bounded(tmp_path: Path) -> None:
    write_simulated(tmp_path / "many", 1_000_000)
    write_simulated(tmp_path / "long", 300, longest=1_000_000)
    many, long = (TokenStream.open(tmp_path / name) for name in ("many", "long"))
    cases = [(many, 0.02, 10_000, 1000), (many, 0.02, 40, 1000), (many, 1e-9, 10_000, 1000), (long, 0.5, 10_000, 10**6)]
    for stream, fraction, most, longest in cases:
        held = heldout_ranges(stream, fraction, most)
        count = sum(last - first for first, last in held)
        tokens = sum(stream.start_of(last) - stream.start_of(first) for first, last in held)
        assert 1 <= count <= max(1, min(most, fraction * stream.documents))
        assert len(held) <= RANGES
        assert tokens <= TOKENS + longest
        assert all(a[1] <= b[0] for a, b in pairwise(held))
        assert held == heldout_ranges(stream, fraction, most)
    held = heldout_ranges(many, 0.02, 10_000)
    assert len({first * RANGES // many.documents for first, _ in held}) == RANGES  # spread over the whole
    assert sum(last - first for first, last in held) > 2000  # one in 500 tokens on average
    assert heldout_ranges(many, 0.0, 10_000) == []


def test_little_corpora(tmp_path: Path) -> None:
    write_documents(tmp_path / "two", [[*range(60), EOD]] * 2)
    corpus = prepare_corpus(config_for(tmp_path, "two"), 257)
    assert (corpus.train[0].documents, corpus.heldout.documents) == (1, 1)
    write_documents(tmp_path / "single", [[*range(60), EOD]])
    config = config_for(tmp_path, "single")
    assert problem_of(config).key == "data.heldout_fraction"
    assert prepare_corpus(replace(config, heldout_fraction=0.0), 257).train[0].documents == 1
    write_documents(tmp_path / "none", [])
    with pytest.raises(DataError, match="fell to the held-out part"):
        prepare_corpus(config_for(tmp_path, "none"), 257)
    assert problem_of(replace(config, seq_len=100, heldout_fraction=0.0)).key == "data.sources.0.paths"


def test_files_that_cannot_be(tmp_path: Path) -> None:
    write_documents(tmp_path / "m", random_ids(40))
    assert "does not exist" in problem_of(config_for(tmp_path, "m", "gone")).rule
    (tmp_path / "m.bin").write_bytes(b"abc")
    problem = problem_of(config_for(tmp_path, "m"))
    assert (problem.key, problem.value) == ("data.sources.0.paths", str(tmp_path / "m.bin"))
    assert "holds 3 bytes where the index says" in problem.rule


def test_every_machine_draws_the_same_places() -> None:
    """Ranks compare what they have looked at: other Pythons and numpys must look at the same."""
    hashes = [hashlib.blake2b(f"(7, 9, {i})".encode(), digest_size=8).digest() for i in range(5)]
    expected = sorted(int.from_bytes(one, "little") % 1000 for one in hashes)
    assert drawn_places(1000, 5, 7, 9) == expected
    assert len(set(expected)) == 5
    assert drawn_places(5, 5, 7) == [0, 1, 2, 3, 4]
    assert drawn_places(0, 5, 7) == []


@pytest.mark.parametrize("shards", [1, 100])
def test_the_cost_of_a_start(tmp_path: Path, shards: int) -> None:
    """Read from the corpus by the operating system's count, up to the first step: at most 10 MB."""
    write_simulated(tmp_path / "m", 1_000_000)
    names = [Path(prefix).name for prefix in link_shards(tmp_path / "m", shards)]
    config = replace(config_for(tmp_path, *names), heldout_fraction=0.02)
    before, peak = bytes_read(), getrusage(RUSAGE_SELF).ru_maxrss
    corpus = prepare_corpus(config, 257, lambda line: None)
    assert corpus.train_part.documents + corpus.heldout_part.documents == shards * 1_000_000
    rows(corpus, 8)
    assert bytes_read() - before <= 10e6
    assert getrusage(RUSAGE_SELF).ru_maxrss - peak <= 100_000  # KiB
