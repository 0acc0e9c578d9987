"""How far the global order of samples has come: what a checkpoint keeps of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

from trainer.errors import DataError, Problem


class Segment(NamedTuple):
    """Text that came to a source at one time.

    number: samples of the source that had been drawn then; 0 for what it began with. tokens: of it alone.
    """

    number: int
    tokens: int


@dataclass(frozen=True)
class Cursor:
    """All there is to know of the samples that come next, besides configuration and text. Keys are sources' names.

    drawn: samples in all. per_source: samples of each source. shares: of the mixture in force, as fractions that add up
    to 1 ("3/4"); empty before the first sample. since: samples of each source when those shares came into force.
    segments: of each source, oldest first.
    """

    drawn: int
    per_source: dict[str, int]
    shares: dict[str, str]
    since: dict[str, int]
    segments: dict[str, list[Segment]]

    @staticmethod
    def first(names: Sequence[str], tokens: Sequence[int]) -> Cursor:
        """Before the first sample. tokens: of each source."""
        nothing, pairs = dict.fromkeys(names, 0), zip(names, tokens, strict=True)
        return Cursor(0, nothing, {}, dict(nothing), {name: [Segment(0, count)] for name, count in pairs})

    def to_json(self) -> dict[str, object]:
        """Plain values for a JSON file."""
        segments = {name: [list(one) for one in parts] for name, parts in self.segments.items()}
        return {
            "drawn": self.drawn,
            "per_source": dict(self.per_source),
            "shares": dict(self.shares),
            "since": dict(self.since),
            "segments": segments,
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Cursor:
        """The inverse of to_json. Raises DataError when the value does not add up, or is an older version's."""
        if "segments" not in value and "drawn" in value:
            rule = "is of this version; the checkpoint is of an older one, whose order of samples was another"
            remedy = "start a new run from its weights: model.init_from=CHECKPOINT run.name=NEW"
            raise DataError(Problem("cursor", sorted(value), rule, remedy))
        try:
            cursor = Cursor(
                value["drawn"],
                dict(value["per_source"]),
                dict(value["shares"]),
                dict(value["since"]),
                {name: [Segment(*one) for one in parts] for name, parts in value["segments"].items()},
            )
            sound = cursor._adds_up()
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
            sound = False
        if not sound:
            rule = "drawn is the sum of per_source, shares add up to 1, and segments are in order"
            raise DataError(Problem("cursor", value, rule, "resume from another checkpoint"))
        return cursor

    def grown(self, name: str, tokens: int) -> Cursor:
        """After text of that many tokens was appended to a source."""
        parts = [*self.segments[name], Segment(self.per_source[name], tokens)]
        return replace(self, segments={**self.segments, name: parts})

    def replaced(self, name: str, tokens: int) -> Cursor:
        """After a source's text became another one, of that many tokens."""
        return replace(self, segments={**self.segments, name: [Segment(0, tokens)]})

    def _adds_up(self) -> bool:
        parts = [part for parts in self.segments.values() for part in parts]
        counts = [self.drawn, *self.per_source.values(), *self.since.values(), *(n for part in parts for n in part)]
        if not all(type(count) is int and count >= 0 for count in counts):
            return False
        if not self.per_source.keys() == self.since.keys() == self.segments.keys():
            return False
        shares = [Fraction(share) for share in self.shares.values()]
        return (
            self.drawn == sum(self.per_source.values())
            and all(self.since[name] <= count for name, count in self.per_source.items())
            and all(self._in_order(name, parts) for name, parts in self.segments.items())
            and (not self.drawn or self.shares.keys() == self.per_source.keys())
            and (not shares or (min(shares) >= 0 and sum(shares) == 1))
        )

    def _in_order(self, name: str, parts: Sequence[Segment]) -> bool:
        numbers = [part.number for part in parts]
        return bool(parts) and numbers[0] == 0 and numbers == sorted(numbers) and numbers[-1] <= self.per_source[name]
