"""Best-fit packing: against a packer that looks at every bin, the optimum of small inputs, and a walk over the text."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import instructions
from tests.unit.test_data_support import make_corpus, write_documents
from trainer.data import best_fit
from trainer.data.best_fit import FittedSamples
from trainer.data.binning import best_fit_decreasing
from trainer.data.cursor import Segment
from trainer.data.heldout import HeldoutWindows
from trainer.data.packing import Sample
from trainer.data.packings import Packing
from trainer.data.segments import SegmentedSamples
from trainer.data.tokenizer import train_bpe
from trainer.errors import DataError

BEST_FIT = Packing("best_fit")


def every_bin(sizes: list[int], capacity: int) -> list[int]:
    """What is left in the bins of a packer that looks at all of them for each item."""
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [place for place, room in enumerate(rooms) if room >= size]
        if not fitting:
            fitting, rooms = [len(rooms)], [*rooms, capacity]
        rooms[min(fitting, key=rooms.__getitem__)] -= size
    return sorted(rooms)


def optimum(sizes: list[int], capacity: int) -> int:
    """The fewest bins of all, by trying every subset: (bins, least taken in the last one) of each."""

    @cache
    def best(chosen: int) -> tuple[int, int]:
        if not chosen:
            return 0, capacity
        found = []
        for item, size in enumerate(sizes):
            if chosen >> item & 1:
                bins, taken = best(chosen ^ 1 << item)
                found.append((bins, taken + size) if taken + size <= capacity else (bins + 1, size))
        return min(found)

    return best((1 << len(sizes)) - 1)[0]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 30).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=60))))
def test_it_is_best_fit_decreasing(case: tuple[int, list[int]]) -> None:
    capacity, sizes = case
    bins, count = best_fit_decreasing(np.array(sizes, np.int64), capacity)
    taken = Counter(dict.fromkeys(range(count), 0))
    for size, place in zip(sizes, bins.tolist(), strict=True):
        taken[place] += size
    assert sorted(capacity - one for one in taken.values()) == every_bin(sizes, capacity)


def test_close_to_the_optimum() -> None:
    rng = np.random.default_rng(3)
    for _ in range(60):
        capacity = int(rng.integers(4, 40))
        sizes = rng.integers(1, capacity + 1, rng.integers(1, 10))
        fewest = optimum(sizes.tolist(), capacity)
        assert fewest <= best_fit_decreasing(sizes, capacity)[1] <= 11 / 9 * fewest + 6 / 9


def pieces(sample: Sample) -> list[tuple[list[int], list[int]]]:
    """The runs of one document in a sample, tokens and labels; asserts what every sample keeps."""
    used = int((sample.document_ids >= 0).sum())
    assert (sample.document_ids[used:] == -1).all()
    assert (sample.labels[used:] == -100).all()
    found = []
    for number in range(int(sample.document_ids.max()) + 1):
        (places,) = np.nonzero(sample.document_ids == number)
        assert sample.positions[places].tolist() == list(range(len(places)))
        assert places.tolist() == list(range(places[0], places[0] + len(places)))
        found.append((sample.tokens[places].tolist(), sample.labels[places].tolist()))
    return found


@pytest.mark.parametrize("policy", ["split", "drop"])
@settings(max_examples=80, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=30), min_size=1, max_size=25),
    length=st.integers(1, 12),
    block=st.integers(1, 9),
)
def test_every_target_once(policy: str, documents: list[list[int]], length: int, block: int) -> None:
    """Documents, cut by hand into windows, are the pieces of the samples, whatever is planned together."""
    expected = [
        (one[at : at + length][: len(one) - 1 - at], one[at + 1 : at + length + 1])
        for one in documents
        for at in range(0, len(one) - 1, length)
        if policy == "split" or len(one) - 1 <= length
    ]
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_fit, "BLOCK", block)
        packed = FittedSamples(write_documents(Path(directory) / "x", documents), length, policy)
        found = [piece for i in range(len(packed)) for piece in pieces(packed[i])]
        assert sorted(found) == sorted(expected)
        long = sum(len(one) > length + 1 for one in documents)
        fit = packed.fit
        assert (fit.split, fit.dropped) == ((long, 0) if policy == "split" else (0, long))
        assert (fit.documents, fit.bare) == (len(documents), sum(len(one) < 2 for one in documents))
        assert fit.padding == len(packed) * length - sum(len(tokens) for tokens, _ in expected)


def test_instructions_waste_little(tmp_path: Path) -> None:
    texts = instructions.texts()
    tokenizer = train_bpe(texts, 4096, "<|endoftext|>")
    documents = [[*ids, tokenizer.eod] for ids in tokenizer.encode_batch(texts)]
    packed = FittedSamples(write_documents(tmp_path / "x", documents, 4096), 2048)
    used = sum(int((packed[i].labels != -100).sum()) for i in range(len(packed)))
    assert used == sum(len(one) - 1 for one in documents)
    assert 1 - used / (len(packed) * 2048) <= 0.02


def test_what_is_appended_is_packed_alone(tmp_path: Path) -> None:
    documents = [[i, i + 1, i + 2] for i in range(0, 60, 3)]
    tokens = write_documents(tmp_path / "x", documents)
    grown = SegmentedSamples("s", tokens, [Segment(0, 27), Segment(2, 33)], 7, True, BEST_FIT)
    before = SegmentedSamples("s", write_documents(tmp_path / "y", documents[:9]), None, 7, True, BEST_FIT)
    assert grown.growth == [(0, 3), (2, 4)]
    for index in range(3):
        assert all((a == b).all() for a, b in zip(grown[index], before[index], strict=True))
    found = [piece[0] for i in range(len(grown)) for piece in pieces(grown[i])]
    assert sorted(found) == sorted(one[:2] for one in documents)


def test_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tokens = write_documents(tmp_path / "x", [list(range(9))] * 4)
    with pytest.raises(DataError, match=r"long_documents = 'drop'(.|\n)*set it to split"):
        SegmentedSamples("s", tokens, None, 4, True, Packing("best_fit", "drop"))
    monkeypatch.setattr(best_fit, "MOST", 7)
    with pytest.raises(DataError, match=r"at most 7 documents or windows(.|\n)*contiguous"):
        FittedSamples(tokens, 4)  # 8 windows, though not by the number of documents
    assert len(FittedSamples(tokens, 8)) == 4


def test_heldout_documents_are_whole(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, [5], [1.0], ["one two", "three", "four five six"])
    windows = HeldoutWindows(corpus.heldout, corpus.tokenizer.token_bytes, 16, True, 8, BEST_FIT)
    assert sorted(b"".join(windows.texts())) == sorted(b"ne two" + b"hree" + b"our five six")
