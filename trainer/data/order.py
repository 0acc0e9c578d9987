"""The global order of samples: which comes next, whatever the number of ranks, workers and restarts."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.data.cursor import Cursor
from trainer.data.mixture import Mixture
from trainer.data.permutation import Permutation, seed_from
from trainer.errors import DataError, Problem

AT_ONCE = 1 << 16
"""Samples that are passed over together where they have to be counted."""


BLOCK = 1 << 10
"""Samples of an epoch whose places are worked out together."""


class Draw(NamedTuple):
    """The ``number``-th sample drawn from a source, from 0."""

    source: str
    number: int


class _Period(NamedTuple):
    """From the ``number``-th sample on, epochs of ``size`` samples, which are those from index ``offset`` on."""

    number: int
    offset: int
    size: int
    epoch: int


class SourceOrder:
    """The endless order of one source's samples: every epoch is a new permutation of all of them.

    Samples that are appended while an epoch is under way end that epoch, in an order of their own: it shows each sample
    once, and so does every later one.
    """

    def __init__(self, name: str, seed: int, growth: Sequence[tuple[int, int]]) -> None:
        """growth: (samples drawn before it came, samples) of each segment of the source, oldest first."""
        self._name, self._seed = name, seed
        self._periods = list(_periods(growth))
        self._starts = [period.number for period in self._periods]
        self._whole: Counter[int] = Counter()  # samples of an epoch, by the first epoch of its period
        for period in self._periods:
            self._whole[period.epoch] += period.size
        self._known: dict[tuple[int, int, int], NDArray[np.int64]] = {}

    def __call__(self, number: int) -> int:
        """The index of the sample that is drawn as the ``number``-th, from 0."""
        period, epoch, place = self._at(number)
        key = (epoch, period.offset, place // BLOCK)
        if key not in self._known:
            seed = seed_from(self._seed, self._name, epoch, period.offset)
            first = place // BLOCK * BLOCK
            self._known = {key: Permutation(period.size, seed).block(first, min(first + BLOCK, period.size))}
        return period.offset + int(self._known[key][place % BLOCK])

    def epochs(self, number: int) -> float:
        """How often all samples have been seen before the ``number``-th."""
        period, epoch, place = self._at(number)
        return epoch + (period.offset + place) / self._whole[period.epoch]

    def _at(self, number: int) -> tuple[_Period, int, int]:
        period = self._periods[bisect_right(self._starts, number) - 1]
        epochs, place = divmod(number - period.number, period.size)
        return period, period.epoch + epochs, place


def _periods(growth: Sequence[tuple[int, int]]) -> Iterator[_Period]:
    (_, total), *later = growth
    if total < 1:
        raise ValueError(f"a source begins with at least one sample, got {list(growth)}")
    number = epoch = 0
    for came, more in later:
        begun = max(0, came - number)
        epochs = -(-begun // total)
        within = begun % total > 0
        if epochs > within:
            yield _Period(number, 0, total, epoch)
        number, epoch = number + epochs * total, epoch + epochs
        if within:  # the epoch that is under way, alone
            yield _Period(number - total, 0, total, epoch - 1)
        if more and (within or came < number):
            yield _Period(number, total, more, epoch - 1)
            number += more
        total += more
    yield _Period(number, 0, total, epoch)


class GlobalOrder:
    """The endless order of samples over all sources and epochs.

    While a mixture is in force, each source is within one sample of its share, counted from where it came into force:
    other weights neither make up for what the earlier ones drew nor repeat or skip a sample.
    """

    def __init__(self, stages: Sequence[tuple[int, Mixture]], sources: Mapping[str, SourceOrder]) -> None:
        """stages: mixtures with the samples before each, from 0 on (``mixtures``). sources: by name."""
        self._starts = [before for before, _ in stages]
        self._mixtures = [mixture for _, mixture in stages]
        self._sources = dict(sources)

    def take(self, cursor: Cursor, count: int) -> tuple[list[Draw], Cursor]:
        """The next ``count`` samples after the cursor, and the cursor after them."""
        if cursor.per_source.keys() != self._sources.keys():
            rule = f"the saved data order knows the sources {', '.join(cursor.per_source)}"
            remedy = "resume with the same source names, or start a new run from the weights"
            raise DataError(Problem("data.sources", list(self._sources), rule, remedy))
        drawn, since, shares = dict(cursor.per_source), cursor.since, cursor.shares
        draws = []
        for total in range(cursor.drawn, cursor.drawn + count):
            mixture = self._mixture(total)
            if mixture.shares != shares:
                since, shares = dict(drawn), mixture.shares
            if (source := mixture.only) is None:
                under = {name: drawn[name] - since[name] for name in drawn}
                source = mixture.next(under, sum(under.values()) + 1)
            draws.append(Draw(source, drawn[source]))
            drawn[source] += 1
        return draws, replace(cursor, drawn=cursor.drawn + count, per_source=drawn, since=since, shares=shares)

    def skip(self, cursor: Cursor, count: int) -> Cursor:
        """The cursor after the next ``count`` samples, as ``take`` has it: whole rounds of a mixture cost nothing."""
        end = cursor.drawn + count
        while cursor.drawn < end:
            mixture = self._mixture(cursor.drawn)
            until = min([end, *(start for start in self._starts if start > cursor.drawn)])
            _, cursor = self.take(cursor, 1)  # the mixture comes into force
            size = sum(mixture.round.values())
            rounds, rest = divmod(until - cursor.drawn, size)
            drawn = {name: number + rounds * mixture.round[name] for name, number in cursor.per_source.items()}
            cursor = replace(cursor, drawn=cursor.drawn + rounds * size, per_source=drawn)
            for at in range(0, rest, AT_ONCE):
                _, cursor = self.take(cursor, min(AT_ONCE, rest - at))
        return cursor

    def sample(self, draw: Draw) -> int:
        """The index, within its source, of the sample that a draw stands for."""
        return self._sources[draw.source](draw.number)

    def epochs(self, per_source: Mapping[str, float]) -> dict[str, float]:
        """How often each source has been seen whole, after that many samples of it."""
        return {name: order.epochs(int(per_source[name])) for name, order in self._sources.items()}

    def ahead(self, cursor: Cursor, drawn: int) -> dict[str, float]:
        """Samples of each source that will have been drawn once ``drawn`` are in all: its count to within one."""
        counts: dict[str, float] = dict(cursor.per_source)
        bounds = [*self._starts[1:], drawn]
        for mixture, start, end in zip(self._mixtures, self._starts, bounds, strict=True):
            samples = max(0, min(end, drawn) - max(start, cursor.drawn))
            for name, share in mixture.exact.items():
                counts[name] += float(samples * share)
        return counts

    def _mixture(self, total: int) -> Mixture:
        return self._mixtures[bisect_right(self._starts, total) - 1]
