"""Documents that cannot be used: counted by reason with their first places, or the end of the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from trainer.config.groups.data import SourceConfig
from trainer.data.paths import source_error
from trainer.data.readers.found import Aside, Bad, Reason
from trainer.errors import DataError

STOP = "stop"
PLACES = 3
"""Places that are kept of each reason."""


@dataclass
class Count:
    """How many, and the first places of them."""

    number: int = 0
    places: list[str] = field(default_factory=list)


@dataclass
class Skipped:
    """What reading a source passed over, by reason. asides: what cost no document. Names of files are below a root."""

    bad: dict[str, Count] = field(default_factory=dict)
    asides: dict[str, Count] = field(default_factory=dict)

    @staticmethod
    def of(value: dict[str, dict[str, dict[str, Any]]]) -> Skipped:
        """From what asdict made of one; from nothing, none."""
        parts = {part: {words: Count(**one) for words, one in counts.items()} for part, counts in value.items()}
        return Skipped(**parts)

    @staticmethod
    def joined(every: Iterable[Skipped]) -> Skipped:
        """Of several readings, in order."""
        total = Skipped()
        for one in every:
            for counts, more in ((total.bad, one.bad), (total.asides, one.asides)):
                for words, count in more.items():
                    kept = counts.setdefault(words, Count())
                    kept.number += count.number
                    kept.places = [*kept.places, *count.places][:PLACES]
        return total

    def lines(self, name: str) -> Iterator[str]:
        """For people, a line a reason. name: the source's."""
        for words, count in self.bad.items():
            yield f"  {name}: skipped {_amount(count.number, 'document')}, {words}: {_places(count)}"
        for words, count in self.asides.items():
            yield f"  {name}: {count.number:,} {words}: {_places(count)}"


class Policy:
    """What happens to bad documents while a source is read."""

    def __init__(self, policy: str = "skip") -> None:
        """policy: skip | stop."""
        self.stop = policy == STOP
        self.skipped = Skipped()
        self._first: tuple[Reason, str] | None = None

    def take(self, source: SourceConfig, found: Bad | Aside, root: str, number: int = 1) -> None:
        """Count it. root: the directory that all files of the source lie below. number: of such documents.

        Raises DataError under ``stop``.
        """
        if isinstance(found, Aside):
            _count(self.skipped.asides, found.words, found.place.below(root), number)
            return
        reason, place = found
        if self.stop:
            rule = f"a document is {reason.words}, and data.bad_documents is {STOP}"
            raise source_error(source, "paths", str(place), rule, f"{reason.remedy}; or data.bad_documents=skip")
        if self._first is None:
            self._first = reason, str(place)
        _count(self.skipped.bad, reason.words, place.below(root), number)

    def nothing(self, source: SourceConfig) -> DataError:
        """The error for a source without a single document that can be used."""
        if self._first is None:
            return source_error(source, "paths", source.paths, "holds no text", "point it at files that are not empty")
        reason, place = self._first
        total = sum(count.number for count in self.skipped.bad.values())
        rule = f"holds no text that can be used: {_amount(total, 'document')}, the first is {reason.words} ({place})"
        return source_error(source, reason.field, getattr(source, reason.field), rule, reason.remedy)


def refuse_skipped(source: SourceConfig, skipped: Skipped) -> None:
    """Raises DataError for what was skipped when the source was prepared, under another policy."""
    for words, count in skipped.bad.items():
        rule = f"{_amount(count.number, 'document')}: {words}, and data.bad_documents is {STOP}"
        remedy = "mend or leave them out; or data.bad_documents=skip"
        raise source_error(source, "paths", _places(count), rule, remedy)


def _count(counts: dict[str, Count], words: str, place: str, number: int) -> None:
    count = counts.setdefault(words, Count())
    count.number += number
    if len(count.places) < PLACES:
        count.places.append(place)


def _amount(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def _places(count: Count) -> str:
    return "; ".join(count.places) + ("; ..." if count.number > len(count.places) else "")
