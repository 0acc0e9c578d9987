"""Shards and ranges as one stream, against numpy slices of the concatenated tokens."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulated import write_simulated
from tests.unit.test_data_indexed import hand_made, place
from tests.unit.test_data_packing import reference
from trainer.data.packing import PackedSamples
from trainer.data.pieces import LargeFile
from trainer.data.rising import between, first_above
from trainer.data.shard import IndexedShard
from trainer.data.stream import TokenStream
from trainer.errors import DataError

Documents = list[list[list[int]]]
"""Documents of sequences of tokens."""
documents_of_sequences = st.lists(st.lists(st.lists(st.integers(0, 255), max_size=6), max_size=3), max_size=8)


def write_shard(prefix: Path, documents: Documents, code: int = 8, letter: str = "H") -> IndexedShard:
    sequences = [sequence for document in documents for sequence in document]
    groups = np.cumsum([0, *map(len, documents)]).tolist()
    return IndexedShard(place(prefix, *hand_made(code, letter, sequences, groups)))


def flat(documents: Documents) -> list[list[int]]:
    return [[token for sequence in document for token in sequence] for document in documents]


@settings(max_examples=200, deadline=None)
@given(st.lists(documents_of_sequences, min_size=1, max_size=4), st.data())
def test_shards_and_ranges_are_what_numpy_slices(shards: list[Documents], data: st.DataObject) -> None:
    every = [document for shard in shards for document in flat(shard)]
    edges = sorted(data.draw(st.lists(st.integers(0, len(every)), max_size=4, unique=True)))
    held = list(zip(edges[::2], edges[1::2], strict=False))
    is_held = np.zeros(len(every), bool)
    for first, last in held:
        is_held[first:last] = True
    with TemporaryDirectory() as directory:
        opened = [
            write_shard(Path(directory) / str(i), shard, *[(8, "H"), (4, "i"), (5, "q")][i % 3])
            for i, shard in enumerate(shards)
        ]
        stream = TokenStream.over(opened)
        parts = ((stream.only(held), is_held), (stream.without(held), ~is_held), (stream, np.ones(len(every), bool)))
        for part, chosen in parts:
            documents = [document for document, taken in zip(every, chosen, strict=True) if taken]
            tokens = np.array([token for document in documents for token in document], np.int64)
            assert (part.documents, part.total) == (len(documents), len(tokens))
            assert [part.document(i).tolist() for i in range(part.documents)] == documents
            starts = np.cumsum([0, *map(len, documents)])
            assert [part.start_of(i) for i in range(part.documents + 1)] == starts.tolist()
            low = data.draw(st.integers(0, len(tokens)))
            high = data.draw(st.integers(low, len(tokens) + 3))
            assert part.slice(low, high).tolist() == tokens[low:high].tolist()
            inside = (starts > low) & (starts <= high) & (starts < len(tokens))
            assert part.borders(low, high).tolist() == np.unique(starts[inside]).tolist()


@settings(max_examples=100, deadline=None)
@given(st.lists(documents_of_sequences, min_size=1, max_size=4), st.integers(1, 9), st.booleans())
def test_samples_across_shards(shards: list[Documents], length: int, mask: bool) -> None:
    # Empty documents are nobody's: the reference walks over tokens and never sees them.
    expected = reference([document for shard in shards for document in flat(shard)], length, mask)
    with TemporaryDirectory() as directory:
        opened = [write_shard(Path(directory) / str(i), shard) for i, shard in enumerate(shards)]
        packed = PackedSamples(TokenStream.over(opened), length, mask)
        assert [tuple(field.tolist() for field in packed[i][:4]) for i in range(len(packed))] == expected


@pytest.mark.parametrize("shape", ["even", "steep", "steps", "constant", "one jump"])
def test_searching_is_numpys(shape: str) -> None:
    rng = np.random.default_rng(1)
    count = 100_003
    table = {
        "even": np.sort(rng.integers(0, 10**9, count)),
        "steep": np.sort((2.0 ** rng.uniform(0, 60, count)).astype(np.int64)),
        "steps": np.repeat(np.arange(count // 1000 + 1), 1000)[:count],
        "constant": np.full(count, 5),
        "one jump": np.concatenate([np.zeros(count - 1, np.int64), [1 << 60]]),
    }[shape]
    last = int(table[-1])
    places = rng.integers(0, count, 300)
    values = [-1, 0, last - 1, last, last + 1, *table[places].tolist(), *(table[places] - 1).tolist()]
    for value in values:
        assert first_above(table, value, last) == int(np.searchsorted(table, value, side="right"))
    for low, high in rng.permutation(values)[:200].reshape(-1, 2).tolist():
        first, found = between(table, low, high, last)
        assert first == int(np.searchsorted(table, low, side="right"))
        assert found.tolist() == table[(table > low) & (table <= high)].tolist()


def test_a_search_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an even index: what does not grow with it. Of any: a few times a binary search."""
    taken: list[int] = []
    original = LargeFile.read

    def read(self: LargeFile, offset: int, size: int) -> bytes:
        taken.append(size)
        return original(self, offset, size)

    monkeypatch.setattr(LargeFile, "read", read)
    spent = {}
    for count in (10_000, 1_000_000):
        total = write_simulated(tmp_path / str(count), count)
        stream = TokenStream.open(tmp_path / str(count))
        taken.clear()
        for start in range(0, total - 2048, total // 50):
            stream.borders(start, start + 2048)
        spent[count] = sum(taken) / 50
    assert spent[1_000_000] < 64 << 10
    assert spent[1_000_000] < 2 * spent[10_000]


@pytest.mark.parametrize(("code", "letter", "bad"), [(8, "H", 300), (4, "i", -1), (4, "i", 1 << 30)])
def test_an_id_that_is_none_is_refused_with_its_place(tmp_path: Path, code: int, letter: str, bad: int) -> None:
    write_shard(tmp_path / "a", [[[1, 2]], [[3]]])
    write_shard(tmp_path / "b", [[[4, 5]], [], [[6], [7, bad, 8]]], code, letter)
    shards = [IndexedShard(tmp_path / name, "data.sources[m].paths") for name in ("a", "b")]
    stream = TokenStream.over(shards, ids=300)
    assert stream.slice(0, 7).tolist() == [1, 2, 3, 4, 5, 6, 7]
    with pytest.raises(DataError) as caught:
        stream.slice(5, 9)
    (problem,) = caught.value.problems
    assert problem.value == str(tmp_path / "b.bin")
    assert problem.key == "data.sources[m].paths"
    assert "document 2 " in problem.rule
    assert "token 4" in problem.rule
    assert str(bad) in problem.rule
    assert "data.tokenizer.path" in problem.remedy


def test_a_file_that_shrinks_is_an_error_and_no_signal(tmp_path: Path) -> None:
    write_shard(tmp_path / "a", [[list(range(100))]] * 100)
    stream = TokenStream.open(tmp_path / "a", key="data.sources[m].paths")
    os.truncate(tmp_path / "a.bin", 50)
    with pytest.raises(DataError, match=r"ends at byte 50; it had 20000"):
        stream.slice(0, 100)


@pytest.mark.parametrize(("table", "number"), [(1, 0), (1, 1), (1, 2), (0, 0), (0, 1), (1, "later")])
@pytest.mark.parametrize("value", [7, 1 << 60])
def test_damage_between_drawn_places_is_refused_where_it_is_read(
    tmp_path: Path, table: int, number: int | str, value: int
) -> None:
    """table: lengths or pointers. number: sequence from the one where the sample begins."""
    count, middle = 200_000, 100_000
    write_simulated(tmp_path / "x", count)
    stream = TokenStream.open(tmp_path / "x", key="data.sources[m].paths")
    begin = stream.start_of(middle) + 1
    place = middle + (number if isinstance(number, int) else len(stream.borders(begin, begin + 3000)))
    with open(tmp_path / "x.idx", "r+b") as index:
        index.seek(34 + (4 * count + 8 * place if table else 4 * place))
        index.write((value & (1 << (31, 62)[table]) - 1).to_bytes((4, 8)[table], "little"))
    with pytest.raises(DataError, match="do not follow from its lengths"):
        stream.borders(begin, begin + 3000)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_what_is_open_is_closed_with_the_stream(tmp_path: Path) -> None:
    write_shard(tmp_path / "a", [[[1, 2]]])
    before = open_files()
    stream = TokenStream.open(tmp_path / "a")
    assert open_files() == before + 2
    del stream
    assert open_files() == before
