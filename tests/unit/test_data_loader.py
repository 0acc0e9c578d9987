"""The stream is global: any number of ranks, any resume point, prefetched or not."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from tests.unit.test_data_support import make_corpus
from trainer.batch import IGNORED_LABEL, StepBatch
from trainer.data.corpus import Corpus
from trainer.data.cursor import Cursor
from trainer.data.loader import TrainLoader
from trainer.errors import DataError

STEPS, SAMPLES = 9, 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), [40, 15, 3], [5.0, 3.0, 1.5], ["held out"])


def loader(corpus: Corpus, rank: int = 0, size: int = 1, microbatch: int = 2, **fields: object) -> TrainLoader:
    values = {"seq_len": 16, "document_mask": True, "seed": 5, "cursor": None, "prefetch": 0} | fields
    return TrainLoader(
        corpus,
        samples_per_step=SAMPLES,
        microbatch=microbatch,
        dp_rank=rank,
        dp_size=size,
        **values,  # type: ignore[arg-type]
    )


def rows(step: StepBatch) -> torch.Tensor:
    """All fields of all samples of a step, [5, samples, seq_len]."""
    return torch.stack([torch.cat(list(field)) for field in zip(*step.microbatches, strict=True)])


@pytest.fixture(scope="module")
def straight(corpus: Corpus) -> list[StepBatch]:
    stream = loader(corpus)
    return [next(stream) for _ in range(STEPS)]


def test_a_step(straight: list[StepBatch]) -> None:
    for step in straight:
        assert [batch.tokens.shape for batch in step.microbatches] == [(2, 16)] * 6
        assert step.target_tokens == int((rows(step)[1] != IGNORED_LABEL).sum())
    assert not torch.equal(rows(straight[0]), rows(straight[1]))
    assert straight[-1].cursor["drawn"] == STEPS * SAMPLES


@pytest.mark.parametrize(("size", "microbatch"), [(1, 12), (2, 3), (3, 1), (4, 3), (6, 2), (12, 1)])
def test_ranks_together_are_the_single_stream(
    corpus: Corpus, straight: list[StepBatch], size: int, microbatch: int
) -> None:
    streams = [loader(corpus, rank, size, microbatch, prefetch=2) for rank in range(size)]
    for expected in straight:
        steps = [next(stream) for stream in streams]
        assert torch.equal(torch.cat([rows(step) for step in steps], dim=1), rows(expected))
        assert sum(step.target_tokens for step in steps) == expected.target_tokens
        assert all(step.cursor == expected.cursor for step in steps)
    for stream in streams:
        stream.close()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_resume_anywhere(corpus: Corpus, straight: list[StepBatch], size: int) -> None:
    for done in range(STEPS - 1):
        cursor = Cursor.from_json(straight[done].cursor)
        streams = [loader(corpus, rank, size, 3, cursor=cursor, prefetch=done % 3) for rank in range(size)]
        for expected in straight[done + 1 :]:
            steps = [next(stream) for stream in streams]
            assert torch.equal(torch.cat([rows(step) for step in steps], dim=1), rows(expected))
            assert steps[0].cursor == expected.cursor
        for stream in streams:
            stream.close()


def test_seed_and_mask_matter(corpus: Corpus, straight: list[StepBatch]) -> None:
    assert not torch.equal(rows(next(loader(corpus, seed=6))), rows(straight[0]))
    unmasked = next(loader(corpus, document_mask=False))
    assert torch.equal(rows(unmasked)[0], rows(straight[0])[0])
    assert unmasked.target_tokens > straight[0].target_tokens


def test_failures_in_the_thread_reach_the_consumer(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, index: int) -> None:
        raise OSError("disk gone")

    monkeypatch.setattr("trainer.data.packing.PackedSamples.rows", broken)
    stream = loader(corpus, prefetch=2)
    for _ in range(2):
        with pytest.raises(OSError, match="disk gone"):
            next(stream)
    stream.close()


def test_close_is_prompt_and_final(corpus: Corpus) -> None:
    before = threading.active_count()
    stream = loader(corpus, prefetch=3)
    next(stream)
    begin = time.monotonic()
    stream.close()
    stream.close()
    assert time.monotonic() - begin < 2
    assert threading.active_count() == before
    assert list(stream) == []


def test_foreign_cursor_is_refused_at_once(corpus: Corpus) -> None:
    with pytest.raises(DataError, match="other"):
        loader(corpus, cursor=Cursor.first(["other"], [100]), prefetch=2)
