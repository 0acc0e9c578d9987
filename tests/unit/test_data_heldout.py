"""Evaluation windows: the same on every layout, their bytes and compressor figures recomputed from the text."""

from __future__ import annotations

import itertools
import zlib
from pathlib import Path

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from tests.unit.test_data_support import byte_tokenizer, make_corpus, write_documents
from trainer.batch import IGNORED_LABEL, NO_DRAW
from trainer.data.corpus import Corpus
from trainer.data.heldout import HeldoutWindows, spoken_bytes, written_for_spoken
from trainer.data.tokenizer import Tokenizer

TEXTS = [
    "".join(f"x{i} = {i * i}\n" for i in range(20)),
    "\u00e4\u4f60\U0001f600 caf\u00e9 " * 2,
    "x",
    "".join(f"{i} bottles, " for i in range(40, 60)),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), [5], [1.0], TEXTS)


def test_all_windows_cover_the_text(corpus: Corpus) -> None:
    whole = b"".join(text.encode() for text in TEXTS)
    windows = HeldoutWindows(corpus.heldout, corpus.tokenizer.token_bytes, 16, document_mask=False, windows=10_000)
    assert b"".join(windows.texts()) == whole[1:]  # all but the stream's first token are targets
    assert windows.target_bytes == len(whole) - 1
    masked = HeldoutWindows(corpus.heldout, corpus.tokenizer.token_bytes, 16, document_mask=True, windows=10_000)
    assert b"".join(masked.texts()) == b"".join(text.encode()[1:] for text in TEXTS)


def test_zlib_per_window(corpus: Corpus) -> None:
    windows = HeldoutWindows(corpus.heldout, corpus.tokenizer.token_bytes, 16, document_mask=False, windows=10_000)
    stream = b"".join(text.encode() + b"\0" for text in TEXTS)  # one id per byte, so \0 stands for the end token
    pieces = [stream[i + 1 : i + 17].replace(b"\0", b"") for i in range(0, len(stream) - 1, 16)]
    expected = 8 * sum(len(zlib.compress(piece, 9)) for piece in pieces) / sum(map(len, pieces))
    assert windows.zlib_bits_per_byte() == pytest.approx(expected, rel=1e-12)


def test_spread_evenly(corpus: Corpus) -> None:
    every = HeldoutWindows(corpus.heldout, corpus.tokenizer.token_bytes, 16, True, 10_000).texts()
    some = HeldoutWindows(corpus.heldout, corpus.tokenizer.token_bytes, 16, True, 7)
    places = [every.index(text) for text in some.texts()]
    assert len(some) == 7
    assert places[0] == 0
    gaps = [b - a for a, b in itertools.pairwise(places)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(("microbatch", "size"), [(1, 1), (4, 1), (2, 3), (8, 4), (3, 16)])
def test_same_shape_on_every_rank_and_every_window_once(corpus: Corpus, microbatch: int, size: int) -> None:
    windows = HeldoutWindows(corpus.heldout, corpus.tokenizer.token_bytes, 16, True, 11)
    (single,) = windows.batches(11, 0, 1)
    ranks = [windows.batches(microbatch, rank, size) for rank in range(size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert {field.shape for batches in ranks for batch in batches for field in batch} == {(microbatch, 16)}
    for index, expected in enumerate(single):
        together = torch.cat([batch[index] for batches in ranks for batch in batches])
        assert torch.equal(together[:11], expected)
        if len(together) > 11:
            assert together[11:].unique().tolist() == [[0], [IGNORED_LABEL], [0], [-1], [NO_DRAW]][index]


def test_nothing_held_out(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, [5], [1.0], [])
    windows = HeldoutWindows(corpus.heldout, corpus.tokenizer.token_bytes, 16, True, 8)
    assert (len(windows), windows.batches(4, 0, 2), windows.target_bytes, windows.texts()) == (0, [], 0, [])
    assert windows.zlib_bits_per_byte() is None


def test_text_without_tokens_counts_too(tmp_path: Path) -> None:
    """Bits per byte are those of the text, not of the part that the tokenizer knows."""
    text = "the cat and the dog and the cat " * 40
    inner = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "the": 1, "cat": 2, "</s>": 3}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens(["</s>"])
    tokenizer = Tokenizer(inner, "</s>")
    stream = write_documents(tmp_path / "t", [[*tokenizer.encode_batch([text])[0], 3]])
    assert spoken_bytes(stream, tokenizer) == 3 * text.count("the") + 3 * text.count("cat")
    written = written_for_spoken(stream, tokenizer, len(text))
    windows = HeldoutWindows(stream, tokenizer.token_bytes, 16, False, 10_000, written=written)
    first = len(text) * 3 / spoken_bytes(stream, tokenizer)  # of the one token that is no target
    assert windows.target_bytes == pytest.approx(len(text) - first, abs=1)
    assert written_for_spoken(stream, byte_tokenizer(), 1) == 1.0, "bytes have tokens for all text"
