"""One sequence of samples: for any number of ranks, through kills, other weights and appended text."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from tests.unit.test_data_support import byte_tokenizer, random_documents, write_documents
from trainer.batch import StepBatch
from trainer.data.corpus import Corpus, source_key
from trainer.data.cursor import Cursor
from trainer.data.growth import adapted, appended
from trainer.data.loader import TrainLoader
from trainer.data.packing import PackedSamples
from trainer.data.stream import TokenStream
from trainer.data.tokenizing import TRAIN

SEQ_LEN, SAMPLES = 16, 8
NAMES = ["a", "b", "c"]
BEFORE, AFTER = [5.0, 2.0, 1.0], [1.0, 2.0, 5.0]
READ_NEXT = "they are read once before this epoch of it ends"


def corpus(cache: Path, counts: list[int], weights: list[float]) -> Corpus:
    """Three sources of so many documents each; with more of them, those that were there come first."""
    prefixes = [cache / f"{name}-{count}" / TRAIN for name, count in zip(NAMES, counts, strict=True)]
    for seed, (prefix, count) in enumerate(zip(prefixes, counts, strict=True)):
        prefix.parent.mkdir(parents=True, exist_ok=True)
        write_documents(prefix, random_documents(seed, 90, 40)[:count])
    train = [TokenStream.open(prefix) for prefix in prefixes]
    prints = {source_key(name): prefix.parent.name for name, prefix in zip(NAMES, prefixes, strict=True)}
    return Corpus(byte_tokenizer(), NAMES, weights, train, write_documents(cache / "heldout", [[1, 256]]), [], prints)


def streams(text: Corpus, cursor: Cursor | None, world: int) -> list[TrainLoader]:
    return [
        TrainLoader(text, SEQ_LEN, True, 5, SAMPLES, 1, dp_rank=rank, dp_size=world, cursor=cursor, prefetch=0)
        for rank in range(world)
    ]


def hashes(steps: list[StepBatch]) -> list[str]:
    """Of the samples of a step, over all ranks. Dropout's keys say where in the run a sample stands: part of it."""
    rows = [row for step in steps for batch in step.microbatches for row in zip(*batch, strict=True)]
    return [hashlib.sha256(b"".join(field.numpy().tobytes() for field in row)).hexdigest() for row in rows]


def run(text: Corpus, cursor: Cursor | None, steps: int, worlds: list[int], kills: int = 0) -> tuple[list[str], Cursor]:
    """The hashes of so many steps, and where they end; killed and resumed so often, each time on another world."""
    chance, found, done = random.Random(steps), [], 0
    stops = [*sorted(chance.sample(range(1, steps), kills)), steps]
    saved = cursor.to_json() if cursor else None
    for turn, stop in enumerate(stops):
        made = streams(
            text, Cursor.from_json(json.loads(json.dumps(saved))) if saved else None, worlds[turn % len(worlds)]
        )
        for _ in range(stop - done):
            batches = [next(stream) for stream in made]
            found += hashes(batches)
            saved = batches[0].cursor
        done = stop
    assert saved is not None
    return found, Cursor.from_json(saved)


def test_worlds_kills_and_other_worlds_after_them(tmp_path: Path) -> None:
    text = corpus(tmp_path, [40, 20, 10], BEFORE)
    straight, end = run(text, None, 40, [1])
    assert max(streams(text, end, 1)[0].order.epochs(end.per_source).values()) > 2
    for world in (2, 4, 8):
        assert run(text, None, 40, [world]) == (straight, end)
    assert run(text, None, 40, [1, 2, 4, 8], kills=20) == (straight, end)


def changed(cache: Path, worlds: list[int], kills: int) -> tuple[list[str], list[Cursor]]:
    """A run with other weights after 7 steps and more of b after 18: its hashes, and where each part ends."""
    text, more = corpus(cache, [40, 20, 10], BEFORE), corpus(cache, [40, 33, 10], AFTER)
    first, early = run(text, None, 7, worlds)
    second, middle = run(replace(text, weights=AFTER), early, 11, worlds, kills)
    grown = appended(more, text.fingerprints, str(cache))
    assert grown == [True, True, True]
    cursor, lines = adapted(middle, more, grown)
    assert lines == [f"b has {more.train[1].total - text.train[1].total:,} tokens more: {READ_NEXT}"]
    third, end = run(more, cursor, 30, worlds, kills)
    return [*first, *second, *third], [early, middle, end]


def test_other_weights_and_more_text_in_mid_run(tmp_path: Path) -> None:
    straight, cursors = changed(tmp_path, [1], 0)
    early, _, end = cursors
    for worlds, kills in (([8], 0), ([1, 2, 4, 8], 10)):
        assert changed(tmp_path, worlds, kills) == (straight, cursors)
    for name, weight in zip(NAMES, AFTER, strict=True):
        share = Fraction(weight) / Fraction(sum(AFTER)) * SAMPLES * 41
        assert abs(end.per_source[name] - early.per_source[name] - share) < 1


def test_each_sample_of_each_epoch_once_with_text_appended_within_one(tmp_path: Path) -> None:
    """By their tokens, against the samples that a plain cut of the streams gives."""
    few, many = corpus(tmp_path, [40, 20, 10], BEFORE), corpus(tmp_path, [40, 33, 10], BEFORE)
    _, cursor = run(few, None, 5, [1])
    cursor, _ = adapted(cursor, many, appended(many, few.fingerprints, str(tmp_path)))
    old, new = few.train[1].total, many.train[1].total
    whole = PackedSamples(few.train[1], SEQ_LEN, True)
    added = PackedSamples(many.train[1], SEQ_LEN, True, (old, new))
    every = [sample.tokens.tobytes() for part in (whole, added) for sample in (part[i] for i in range(len(part)))]
    assert len(set(every)) == len(every)
    assert 0 < cursor.per_source["b"] < len(whole), "within the first epoch"

    seen: list[bytes] = []
    for text, start, steps in ((few, None, 5), (many, cursor, 60)):
        (stream,) = streams(text, start, 1)
        for _ in range(steps):
            step = next(stream)
            before = [row.numpy().tobytes() for batch in step.microbatches for row in batch.tokens]
            seen += [row for row in before if row in set(every)]
    epochs = [seen[i : i + len(every)] for i in range(0, len(seen) - len(every), len(every))]
    assert len(epochs) >= 2
    for epoch in epochs:
        assert sorted(epoch) == sorted(every)


def test_another_text_is_not_an_appended_one(tmp_path: Path) -> None:
    text = corpus(tmp_path, [40, 20, 10], BEFORE)
    _, cursor = run(text, None, 5, [1])
    less = corpus(tmp_path, [30, 20, 10], BEFORE)
    gone = {**text.fingerprints, source_key("c"): "tokens-gone"}
    found = appended(less, gone, str(tmp_path))
    assert found == [False, True, False]
    after, lines = adapted(cursor, less, found)
    assert [line.split()[:3] for line in lines] == [["a", "is", "another"], ["c", "is", "another"]]
    assert after.per_source == cursor.per_source
    assert next(streams(less, after, 1)[0]).cursor["drawn"] == cursor.drawn + SAMPLES
